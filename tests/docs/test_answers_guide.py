"""The guide to answers cannot lie: its Python runs from top to bottom, its commands exist, its table is the rules'."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

from qdrant_tools.debias.answer_rules import RULES

GUIDE = (DOCS / "answers.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "{'thumb down': 2, 'thumb up': 2}"
    assert lines[1] == "[('how do I connect it?', 'cable', 0.84, 'thumb up, support x2')]"
    assert "{'supported': 1}" in lines[2] and "the answer is a refusal" in lines[2] and "thumb down" in lines[2]
    assert "1 rows to fill in" in lines
    assert any(line.startswith("supported: 1 of 1 are relevant (100.0%, 95 % interval") for line in lines)
    assert lines[-2:] == [
        "how long does the ink last? {'refused': 1}",
        "why does it grind? {'thumb down': 1}",
    ]


def test_the_commands_exist():
    commands = re.findall(r"^\$ embed-plus ((?:log )?\w+)", GUIDE, flags=re.M)
    assert len(commands) == 5
    for command in set(commands):
        code = "from llama_index_embed_plus.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], check=True, capture_output=True)


def test_the_table_names_every_rule_with_its_weight():
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([\d.]+) \|$", GUIDE, flags=re.M)
    assert {name: float(weight) for name, weight in rows} == {name: rule[1] for name, rule in RULES.items()}
