"""The guide to monitoring cannot lie: its Python runs from top to bottom and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

GUIDE = (DOCS / "monitoring.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "('drift', 'low_score', 'without_click')"
    assert lines[1].endswith("p = 0.001")
    assert "True 1.0" in lines
    assert lines[-1].endswith("undecided")


def test_the_commands_exist():
    commands = re.findall(r"^\$ embed-plus ((?:canary )?\w+)", GUIDE, flags=re.M)
    assert len(commands) == 4
    for command in set(commands):
        code = "from llama_index_embed_plus.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], check=True, capture_output=True)
