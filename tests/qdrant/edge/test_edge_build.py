"""Indexes are built when a server would have built them, without stopping the process and without losing a write."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from moments import Gate, until
from programs import report, spawn
from qdrant_client import models

from qdrant_tools import connect
from qdrant_tools.edge.storage import build, child
from qdrant_tools.errors import EngineError

SIZE = 64
ROWS = 6000  # 1.5 MB of vectors: more than is built inside the process
POINT = models.PointStruct


def matrix(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, SIZE)).astype(np.float32)


def create(client, name="docs", threshold=10):
    client.create_collection(
        name,
        models.VectorParams(size=SIZE, distance=models.Distance.COSINE),
        hnsw_config=models.HnswConfigDiff(m=8, ef_construct=64, full_scan_threshold=10),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold),
    )


def upsert(client, vectors, first=0, batch=500):
    for start in range(0, len(vectors), batch):
        block = vectors[start : start + batch].tolist()
        points = [POINT(id=first + start + i, vector=v, payload={"n": first + start + i}) for i, v in enumerate(block)]
        client.upsert("docs", points)


@contextmanager
def build_under_way(client, gate):
    """Inside, the child process of a build has begun and waits; on leaving it goes on, and the build is waited for."""
    builder = threading.Thread(target=client.build_index, args=("docs",))
    builder.start()
    until(lambda: gate.reached)
    yield builder
    gate.open()
    builder.join()


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "QUIET_SECONDS", 3600.0)  # no build unasked
    monkeypatch.setattr(build, "LONGEST_WAIT_SECONDS", 3600.0)
    client = connect(tmp_path)
    create(client)
    yield client
    client.close()


def test_the_process_goes_on_while_an_index_is_built(client, gate):
    upsert(client, matrix(ROWS))
    with build_under_way(client, gate):
        for _ in range(10):
            assert client.query_points("docs", matrix(1)[0], limit=1).points
        assert client.get_collection("docs").indexed_vectors_count == 0
    assert client.get_collection("docs").indexed_vectors_count == ROWS
    assert client.build_index("docs") is False


def test_what_is_written_during_a_build_is_there_after_it(client, gate):
    upsert(client, matrix(ROWS))
    folder = client.folder
    extra = 0

    def write():
        nonlocal extra
        upsert(client, matrix(10, seed=extra), first=ROWS + extra * 10)
        client.delete("docs", [extra])
        client.set_payload("docs", {"n": -1}, points=[ROWS - 1 - extra])
        with pytest.raises(ValueError):
            client.set_payload("docs", {"n": -1}, points=[10**9])
        extra += 1

    with build_under_way(client, gate) as builder:
        for _ in range(5):
            write()
        gate.open()
        while builder.is_alive():  # and while the copy catches up, as far as this machine lets us
            write()
            time.sleep(0.02)
    assert extra >= 5
    client.close()
    client = connect(folder)
    assert client.count("docs").count == ROWS + extra * 10 - extra
    minus = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=-1))])
    assert client.count("docs", count_filter=minus).count == extra
    assert client.retrieve("docs", list(range(extra))) == []
    assert client.get_collection("docs").indexed_vectors_count >= ROWS - extra
    assert len(list((folder / "collections").iterdir())) == 1
    client.close()


def test_a_build_that_fails_leaves_the_collection_serving(client, tmp_path, monkeypatch):
    upsert(client, matrix(ROWS))
    worker = tmp_path.parent / f"{tmp_path.name}-worker.py"
    worker.write_text("raise SystemExit('no memory left')")
    monkeypatch.setattr(child, "WORKER", worker)
    with pytest.raises(EngineError, match="'docs': the index build failed .no memory left"):
        client.build_index("docs")
    assert client.count("docs").count == ROWS
    upsert(client, matrix(10), first=ROWS)
    assert client.count("docs").count == ROWS + 10
    assert len(list((client.folder / "collections").iterdir())) == 1


def test_a_collection_can_be_dropped_while_its_index_is_built(client, gate):
    upsert(client, matrix(ROWS))
    outcome = []

    def run():
        try:
            outcome.append(client.build_index("docs"))
        except (EngineError, ValueError) as error:
            outcome.append(error)

    builder = threading.Thread(target=run)
    builder.start()
    until(lambda: gate.reached)
    client.delete_collection("docs")
    builder.join()
    assert len(outcome) == 1
    assert list((client.folder / "collections").iterdir()) == []
    create(client)
    assert client.count("docs").count == 0


def test_points_that_cross_the_threshold_are_indexed_unasked(tmp_path, gate, monkeypatch):
    monkeypatch.setattr(build, "QUIET_SECONDS", 0.05)
    client = connect(tmp_path)
    create(client)
    upsert(client, matrix(ROWS), batch=ROWS)  # one write: a pause between two would be a load that has come to rest
    until(lambda: gate.reached)
    assert client.get_collection("docs").status == "yellow"
    gate.open()
    until(lambda: client.get_collection("docs").status == "green")
    assert client.get_collection("docs").indexed_vectors_count == ROWS
    client.close()


def test_closing_ends_a_build_under_way(tmp_path, gate, monkeypatch):
    monkeypatch.setattr(build, "QUIET_SECONDS", 0.0)
    client = connect(tmp_path)
    create(client)
    upsert(client, matrix(ROWS))
    until(lambda: gate.reached)
    client.close()
    client = connect(tmp_path)
    assert client.count("docs").count == ROWS
    client.close()


def build_while_writing(folder, worker):
    """Build an index with this worker and write until this process is killed. Print every acknowledged write."""
    child.WORKER = Path(worker)
    client = connect(folder)

    def run():
        client.build_index("docs")
        report("built")

    threading.Thread(target=run).start()
    for i in range(1_000_000):
        client.upsert("docs", [POINT(id=100_000 + i, vector=[1.0] * SIZE)])
        report(i + 1)
        time.sleep(0.02)


@pytest.mark.parametrize("moment", ["before", "after", "never"])
def test_a_kill_during_a_build_loses_nothing(client, tmp_path_factory, moment):
    """While the child builds, when it has built and nothing is exchanged yet, and when the copy serves."""
    upsert(client, matrix(ROWS))
    folder = client.folder
    client.close()
    gate = Gate(tmp_path_factory.mktemp("gate") / "build", moment)
    process = spawn(build_while_writing, folder, gate.worker)
    lines = [process.stdout.readline().strip() for _ in range(5)]
    while not (gate.reached or "built" in lines):
        lines.append(process.stdout.readline().strip())
        assert lines[-1], "the builder ended"
    lines += [process.stdout.readline().strip() for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    lines += process.communicate()[0].splitlines()
    assert ("built" in lines) == (moment == "never")
    acknowledged = max(int(line) for line in lines if line.isdigit())
    client = connect(folder)
    assert client.count("docs").count >= ROWS + acknowledged
    assert len(client.retrieve("docs", [100_000 + i for i in range(acknowledged)])) == acknowledged
    assert client.build_index("docs") in (True, False)
    client.close()
