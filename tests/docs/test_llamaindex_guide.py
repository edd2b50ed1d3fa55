"""The guides for LlamaIndex cannot lie: their Python runs from top to bottom, and the names that they give exist."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

from llama_index_embed_plus import PlusEmbedding

GUIDE = (DOCS / "llamaindex.md").read_text()
MIGRATION = (DOCS / "migration" / "llamaindex.md").read_text()


def printed(guide: str, folder) -> list[str]:
    blocks = re.findall(r"^```python\n(.*?)^```", guide, flags=re.S | re.M)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_guide_runs_and_says_what_it_says(tmp_path):
    lines = printed(GUIDE, tmp_path)
    assert lines[:2] == ["Bees turn nectar into honey.", "3"]
    assert lines[2:5] == ["3 0", "1 3", "2"]
    assert lines[5:8] == ["default bees", "sparse bees", "hybrid bees"]
    assert lines[8] == "bees"
    assert lines[9] == "['whales', 'bees']"
    assert "this one is of 'all-MiniLM-L6-v2@" in lines[10]
    assert lines[11:] == ["True whales"]


def test_the_snippets_for_those_who_move_run(tmp_path):
    assert printed(MIGRATION, tmp_path) == ["384", "whales", "Whales sing."]


def test_every_field_that_the_table_names_is_one():
    rows = re.findall(r"^\| `[^|]+ \| ([^|]+) \|", MIGRATION.partition("## FastEmbed")[0], flags=re.M)
    fields = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {"max_tokens", "query_prompt", "passage_prompt"} <= fields <= set(PlusEmbedding.model_fields)
