"""Many threads on one collection: each writes points of its own, all read, one builds, one creates and drops."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

from qdrant_client import models

from damage.counts import Counts
from damage.state import collection_state, first_difference
from qdrant_tools import connect
from qdrant_tools.errors import PlusError

SIZE = 8
RANGE = 10_000  # ids of one thread


class Worker:
    """One thread's points, and what it counted."""

    def __init__(self, client: Any, number: int, seed: int, steps: int) -> None:
        self.client, self.number, self.steps = client, number, steps
        self.rng = random.Random(f"{seed}/{number}")
        self.points: dict[str, list] = {}
        self.counts = Counts(cases=1)

    def __call__(self) -> None:
        try:
            for _ in range(self.steps):
                self.counts.operations += 1
                self.rng.choice((self.upsert, self.upsert, self.delete, self.set_payload, self.read))()
                self.counts.acknowledged += 1
        except BaseException as error:  # whatever ends a thread is what is looked for
            kind = "lost" if isinstance(error, PlusError) else "foreign"
            self.counts.failed(kind, f"thread {self.number}: {type(error).__name__}: {error}")

    def upsert(self) -> None:
        points = []
        for _ in range(self.rng.randrange(1, 30)):
            point_id = self.number * RANGE + self.rng.randrange(300)
            vector = [float(self.rng.randrange(-8, 8)) for _ in range(SIZE)]
            points.append(models.PointStruct(id=point_id, vector=vector, payload={"worker": self.number}))
        self.client.upsert("docs", points)
        self.points.update({str(point.id): [point.vector, point.payload] for point in points})

    def delete(self) -> None:
        ids = [self.number * RANGE + self.rng.randrange(300) for _ in range(5)]
        self.client.delete("docs", ids)
        for point_id in ids:
            self.points.pop(str(point_id), None)

    def set_payload(self) -> None:
        for point_id in list(self.points)[:3]:
            value = self.rng.randrange(1000)
            self.client.set_payload("docs", {"value": value}, [int(point_id)])
            vector, payload = self.points[point_id]
            self.points[point_id] = [vector, {**payload, "value": value}]

    def read(self) -> None:
        own = models.Filter(must=[models.FieldCondition(key="worker", match=models.MatchValue(value=self.number))])
        hits = self.client.query_points("docs", [1.0] * SIZE, query_filter=own, limit=50).points
        assert {str(hit.id) for hit in hits} <= self.points.keys()
        assert self.client.count("docs", own).count == len(self.points)


def run(folder: Path, rng: random.Random, *, threads: int, steps: int) -> Counts:
    """`threads` threads of `steps` operations each, while the index is built and other collections come and go."""
    client: Any = connect(folder / "threads")
    client.create_collection(
        "docs",
        models.VectorParams(size=SIZE, distance=models.Distance.DOT),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=10),
    )
    seed = rng.randrange(1 << 30)
    workers = [Worker(client, number, seed, steps) for number in range(threads)]
    running = [threading.Thread(target=worker) for worker in workers]
    total = Counts()
    for thread in running:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in running):
        number += 1
        _meanwhile(client, number, total)
        time.sleep(0.05)
    expected: dict[str, list] = {}
    for worker in workers:
        total.add(worker.counts)
        expected |= worker.points
    for when in ("open", "opened again"):
        difference = first_difference(collection_state(client, "docs")["points"], expected)
        if difference:
            total.failed("lost", f"{when}: {difference}")
        client.close()
        client = connect(folder / "threads")
    client.close()
    return total


def _meanwhile(client: Any, number: int, total: Counts) -> None:
    name = f"other-{number}"
    try:
        client.build_index("docs")
        client.flush("docs")
        client.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT))
        client.delete_collection(name)
    except BaseException as error:
        total.failed("foreign", f"meanwhile: {type(error).__name__}: {error}")
