"""The benchmark of folds: every query is measured once, by maps that did not see it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

from qdrant_tools.validation import unit_rows


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of 40 queries, turned away from their answers, 30 have one of their own, and the last ten share two."""
    folder = tmp_path_factory.mktemp("vectors")
    random = np.random.default_rng(0)
    stored = unit_rows(random.normal(size=(120, 12)).astype(np.float32))
    turn, _ = np.linalg.qr(np.eye(12) + 0.3 * random.normal(size=(12, 12)))
    answers = [[row] for row in range(30)] + [[30, 31]] * 10
    near = stored[[own[0] for own in answers]] + 0.3 * random.normal(size=(40, 12)) / 12**0.5
    np.savez(
        folder / "made.npz",
        stored=stored,
        queries=unit_rows((near @ (turn * np.sign(np.diag(turn)))).astype(np.float32)),
        answers=np.array([json.dumps(own) for own in answers]),
        pseudo0=unit_rows(stored[40:80] + 0.3 * random.normal(size=(40, 12)).astype(np.float32)),
        pseudo0_rows=np.arange(40, 80),
    )
    command = [sys.executable, str(ROOT / "benchmarks" / "adapter_folds.py"), "--data", "made", "--vectors", folder]
    done = subprocess.run([*map(str, command), "--out", folder / "out.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads((folder / "out.json").read_text())
    return json.loads((folder / "out.json").read_text())


def test_every_protocol_measures_every_query_once(found):
    rows = found["collections"]["made"]["rows"]
    assert set(rows) == {"masked", "masked, apart", "dropped", "shared", "label-free"} == set(found["pooled"])
    for row in [*rows.values(), *found["pooled"].values()]:
        assert row["queries"] == 40 and row["interval"][0] <= row["gain"] <= row["interval"][1]
    assert all(sum(row["chosen"].values()) == 5 for row in rows.values())


def test_the_base_is_the_same_wherever_everything_is_searched(found):
    rows = found["collections"]["made"]["rows"]
    assert rows["masked"]["base"] == rows["dropped"]["base"] == rows["shared"]["base"] == rows["label-free"]["base"]
    assert rows["masked, apart"]["base"] >= rows["masked"]["base"]
