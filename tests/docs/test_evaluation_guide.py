"""The guide to evaluation cannot lie: its Python runs from top to bottom, its commands and pictures exist."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

from llama_index_embed_plus.cli.systems import System, changed
from qdrant_tools.metrics import METRICS

GUIDE = (DOCS / "evaluation.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, notes, test, verdict, retriever, passages = done.stdout.splitlines()
    assert first == "1.0 {'q1': 1.0, 'q2': 0.5, 'q3': 1.0}"
    assert notes == (
        "['1 queries have no judgement and were left out', '1 judged queries were not asked and were left out']"
    )
    assert test.startswith("ndcg@3 1.000 -> ") and verdict.startswith(("worse [", "not decided ["))
    assert "Who makes something sweet?" in verdict, "no word of it is in the passage"
    assert retriever == "1.0 1.0" and passages == "4"
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"differences.png", "scores.png", "map.png", "similarity.png"}


def test_every_setting_that_the_guide_compares_is_understood():
    settings = [each.strip("'") for each in re.findall(r"--against ('[^']+'|[^\s`|]+)", GUIDE) if "KEY" not in each]
    assert len(settings) >= 12
    system = System("docs", None, None, "here", "m", "auto")
    for setting in settings:
        assert changed(system, [setting]) != system


def test_every_metric_is_defined_and_every_picture_is_there():
    assert all(f"`{name}@k`" in GUIDE for name in METRICS)
    plot_data = re.findall(r"\((pictures/[\w-]+\.png)\)", GUIDE)
    assert len(plot_data) == 6
    for picture in plot_data:
        content = (DOCS / picture).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) < 120_000
