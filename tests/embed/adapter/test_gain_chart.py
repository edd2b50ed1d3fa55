"""The chart of what adapters gain is drawn from what the benchmark wrote."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from paths import ROOT

pytest.importorskip("matplotlib")


def measured(gain):
    return {"gain": gain, "interval": [gain - 0.01, gain + 0.01]}


def test_two_files_about_one_collection_are_one_line_of_the_chart_and_one_column_of_the_table(tmp_path):
    about = {"test_queries": 300, "base": 0.6038}
    first = {"data": "demo", **about, "rows": {"label-free": measured(0.024), "judged 30": measured(0.01)}}
    second = {"data": "demo", **about, "rows": {"judged 30": measured(0.03), "clicks 0.4": measured(-0.002)}}
    for name, content in (("first", first), ("second", second)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [str(tmp_path / name) for name in ("chart.png", "first.json", "second.json")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "adapter_chart.py"), *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "| fitted on | demo: 300 queries, base 0.604 |",
        "|---|---|",
        "| label-free | +2.4 [1.4, 3.4] |",
        "| judged 30 | +3.0 [2.0, 4.0] |",
        "| clicks 0.4 | -0.2 [-1.2, 0.8] |",
    ]
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
