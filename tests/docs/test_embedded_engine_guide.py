"""The page on the embedded engine: its code runs as it stands, and what it lists as refused is refused so."""

from __future__ import annotations

import re
from contextlib import closing

import pytest
from paths import DOCS, TESTS
from qdrant_client import models

from qdrant_tools.client.connect import connect
from qdrant_tools.errors import NotSupportedError

GUIDE = (DOCS / "embedded-engine.md").read_text(encoding="utf-8")
VECTOR = models.VectorParams(size=2, distance=models.Distance.DOT)


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE, re.S):
        exec(block, names)
    names["client"].close()


def test_every_promise_of_the_page_names_a_test_that_is_there():
    table = GUIDE.partition("## What is promised")[2].partition("One thing is not promised")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ") and "| event" not in line]
    assert len(rows) > 15
    for event, _, named in rows:
        file, _, test = named.rstrip(" |").strip("`").partition("::")
        assert f"def {test}(" in next(TESTS.rglob(file)).read_text(encoding="utf-8"), event


MMR = models.NearestQuery(nearest=[1.0, 0.0], mmr=models.Mmr(diversity=0.5))
IDF = models.SparseVectorParams(modifier=models.Modifier.IDF)
REFUSED = {
    "snapshots": lambda c: c.create_snapshot("c"),
    "full snapshots": lambda c: c.create_full_snapshot(),
    "shard keys": lambda c: c.create_shard_key("c", "a"),
    "shard key selectors": lambda c: c.upsert(
        "c", [models.PointStruct(id=1, vector=[1.0, 0.0])], shard_key_selector="a"
    ),
    "shard_number": lambda c: c.create_collection("d", VECTOR, shard_number=2),
    "replication_factor": lambda c: c.create_collection("d", VECTOR, replication_factor=2),
    "write_consistency_factor": lambda c: c.create_collection("d", VECTOR, write_consistency_factor=2),
    "strict mode": lambda c: c.create_collection("d", VECTOR, strict_mode_config=models.StrictModeConfig(enabled=True)),
    "log size": lambda c: c.create_collection("d", VECTOR, wal_config=models.WalConfigDiff(wal_capacity_mb=64)),
    "memmap_threshold": lambda c: c.create_collection(
        "d", VECTOR, optimizers_config=models.OptimizersConfigDiff(memmap_threshold=1)
    ),
    "flush_interval_sec": lambda c: c.create_collection(
        "d", VECTOR, optimizers_config=models.OptimizersConfigDiff(flush_interval_sec=1)
    ),
    "max_optimization_threads": lambda c: c.update_collection(
        "c", optimizers_config=models.OptimizersConfigDiff(max_optimization_threads=0)
    ),
    "formula over mmr": lambda c: c.query_points(
        "c", models.FormulaQuery(formula="$score"), prefetch=models.Prefetch(query=MMR)
    ),
    "sparse modifier": lambda c: c.update_collection("c", sparse_vectors_config={"s": IDF}),
    "init_options": lambda c: c.init_options,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_engine_cannot_do_is_refused_as_not_supported(tmp_path, what):
    with closing(connect(tmp_path)) as client:
        client.create_collection("c", VECTOR, {"s": models.SparseVectorParams()})
        with pytest.raises(NotSupportedError):
            REFUSED[what](client)
        assert [each.name for each in client.get_collections().collections] == ["c"]
