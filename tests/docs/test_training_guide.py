"""The guide to training cannot lie: its Python runs from top to bottom, its recipe is one, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

from llama_index_embed_plus.training.recipe import read_recipe

GUIDE = (DOCS / "training.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ examples to train on, \d+ held out", lines[0])
    assert [line.split()[0] for line in lines[1:4]] == ["ndcg@10", "mrr", "recall@10"]
    assert lines[4].startswith(("True - ", "False - ")) and re.match(r"lora \d steps, loss \d", lines[5])
    assert "cached_multiple_negatives" in lines[-2] and re.search(r"\d+ held-out queries, \d+ better", lines[-1])
    assert (tmp_path / "adapted" / "adapter" / "adapter.json").exists()


def test_the_recipe_is_one(tmp_path):
    recipe = re.search(r"^```toml\n(.*?)^```", GUIDE, flags=re.S | re.M)
    (tmp_path / "recipe.toml").write_text(recipe.group(1))
    for name in ("passages.jsonl", "queries.jsonl", "qrels.tsv", "pairs.jsonl"):
        (tmp_path / name).touch()
    assert [(stage.name, stage.rounds) for stage in read_recipe(tmp_path / "recipe.toml").stages] == [
        ("pairs", 1),
        ("hard", 2),
    ]


def test_the_options_of_the_commands_exist():
    commands = re.findall(r"^\$ embed-plus (train|promote run) (.*)$", GUIDE, flags=re.M)
    assert [name for name, _ in commands] == ["train", "promote run", *["train"] * 5, "promote run"]
    for name in ("train", "promote run"):
        call = "from llama_index_embed_plus.cli import main; main()"
        help_command = [sys.executable, "-c", call, *name.split(), "--help"]
        done = subprocess.run(help_command, check=True, capture_output=True, text=True, env={"COLUMNS": "200"})
        said = " ".join(arguments for which, arguments in commands if which == name)
        missing = [option for option in set(re.findall(r"--[\w-]+", said)) if option not in done.stdout]
        assert missing == []
