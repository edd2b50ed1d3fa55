"""The guide to the other tasks cannot lie: its Python runs from top to bottom, offline, and its command exists."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

GUIDE = (DOCS / "tasks.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "sts/similarity spearman 1.0 4"
    said = dict(line.split(maxsplit=1) for line in lines[1:])
    assert float(said["similarity"]) > 0.9 and said["clustering"] == "5" and said["reranking"] == "1.0"
    assert said["summarisation"].startswith(("1.0", "0.99"))
    assert [line for line in lines if line.startswith("mteb")] == ["mteb 1.0", "mteb 1.0"]


def test_the_command_exists():
    (command,) = re.findall(r"^\$ embed-plus (\w+)", GUIDE, flags=re.M)
    code = "from llama_index_embed_plus.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", code, command, "--help"], check=True, capture_output=True, text=True)
    for option in re.findall(r"`(--[a-z]+)", GUIDE):
        assert option in shown.stdout or option == "--data", option
