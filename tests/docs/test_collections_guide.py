"""The guide to collections cannot lie: its Python runs as it stands, in one process, top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib

from paths import DOCS

GUIDE = (DOCS / "collections.md").read_text()
NEW = f"{zlib.crc32(b'new'):012x}"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_guide_runs_as_it_stands(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[0].startswith("IndexReport(added=300, updated=0")
    assert printed[1] == "p42 {'chapter': 4}" and printed[2].startswith("[7, ")
    found = [line.rpartition(" [")[2] for line in printed[3:9]]
    assert found == ["'a']", "'a']", "'a', 'b']", "'b']", "'a']", "'a', 'b']"]
    del printed[3:9]
    assert printed[3].startswith("search is ") and printed[4].startswith("SearchChoice(")
    del printed[3:5]
    assert printed[4:8] == ["re-embed", "True", "p42", "docs-1"]
    assert printed[8] == "['docs-1']" and printed.pop(9) == "None", "no adapter serves"
    assert printed[9:11] == ["in-place True False", "v-" + printed[10].removeprefix("v-")]
    assert printed[11] == f"[\"docs-{NEW} (vector '{printed[10]}')\"] True"
    assert printed[12].startswith("recall of the bridge: ")
    assert printed[13:] == ["300", "300", "300"]
