"""The guide to late chunking cannot lie: its Python runs, and the passage knows of its document."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

GUIDE = (DOCS / "late-chunking.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_and_the_passage_is_nearer_in_its_document(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone, together = map(float, re.findall(r"\d\.\d\d", done.stdout))
    assert together > alone + 0.1
