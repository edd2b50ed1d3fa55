"""The guide to documents cannot lie: its Python runs from top to bottom, and its reasons are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import get_args

from paths import DOCS

from llama_index_embed_plus.documents.records import Reason

GUIDE = (DOCS / "documents.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "handbook/bees.md ('Bees', 'Winter') They keep warm together." in lines
    assert "handbook/brief.txt () Die Königin überwintert." in lines
    assert "2 {'no reader': 1} {'hidden': 1} {'cp1252': 1}" in lines
    assert "['bees.md', 'brief.txt'] {'not included': 1, 'hidden': 1}" in lines
    assert "['A picture of a hive (6 bytes).']" in lines
    assert "1 0 ()" in lines and "1 1" in lines  # what a source gained and lost
    assert any(line.startswith("bees.md ") for line in lines) and "docs/bees.md" in lines  # searching
    assert "1 True 0" in lines  # how it was cut
    assert lines[-1] == "0"  # truncated


def test_every_reason_is_explained():
    table = GUIDE.partition("## What is not read")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z ]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, flags=re.M)))) == set(
        get_args(Reason)
    )
