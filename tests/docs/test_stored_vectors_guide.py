"""The guide to stored vectors cannot lie: its Python and its commands run one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from paths import DOCS

GUIDE = (DOCS / "stored-vectors.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)
COMMANDS = [shlex.split(line) for line in re.findall(r"^\$ embed-plus (.*)$", GUIDE, flags=re.M)]


def test_the_blocks_and_the_commands_do_what_the_guide_says(run, tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith(("bees-", "copy ")) for line in lines[1:3])
    assert any("'copy'" in line or line.startswith("copy") for line in lines[3:])
    assert "16 passages have a topic" in lines and "whales" in lines
    assert any(line.startswith("accuracy 1.00, always 'bees': 0.33") for line in lines)
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        if command[0] == "index":  # needs a model and a folder of one's own
            assert {"--skip-duplicates", "--above"} < set(command)
            continue
        code, _, err = run(*command)
        assert code == 0, err
    assert (tmp_path / "labels.jsonl").exists()
