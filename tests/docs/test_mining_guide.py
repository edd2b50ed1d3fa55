"""The guide to mining cannot lie: its Python runs from top to bottom and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

GUIDE = (DOCS / "mining.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "('Who makes honey?', 'bees', 'click x2')" in lines[1]
    assert lines[2].startswith("Who makes honey? -> ['bees'] not [") and "'bees'" not in lines[2].split(" not ")[1]
    assert "distribution" in done.stdout and "2 0" in lines
    assert any(line.startswith("multiple_negatives ['anchor', 'positive', 'negative_1'") for line in lines)
    assert lines[-1].startswith("triplet ['anchor', 'positive', 'negative'")
    assert (tmp_path / "sheet.csv").exists()


def test_the_commands_exist():
    commands = re.findall(r"^\$ embed-plus ((?:log )?\w+)", GUIDE, flags=re.M)
    assert len(commands) == 5
    for command in commands:
        code = "from llama_index_embed_plus.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], check=True, capture_output=True)
