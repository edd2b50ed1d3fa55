"""Query vectors and search parameters -> recall against exact search, latencies and throughput of one setting.

Guarantees: a stored vector that asks is left out of what it finds; a first round of queries that warms caches is not
counted. Does not know: which setting is good, or when two neighbours are equally near.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from qdrant_client import models

from qdrant_tools.handle import Collection, plain_id
from qdrant_tools.neighbours import Truth, answers
from qdrant_tools.records import Vectors
from qdrant_tools.translate import engine_errors

WARM_UP = 5


@dataclass(frozen=True)
class Measured:
    recall: float
    latencies_ms: tuple[float, ...]
    queries_per_second: float


def measure(collection: Collection, truth: Truth, *, params: models.SearchParams | None) -> Measured:
    """Search each query alone for the latency, and all of them in batches for the throughput.

    `collection` is that of `truth`, or a copy of it with another index.
    """
    questions, k = truth.questions, truth.k
    limit = k + questions.extra
    for row in questions.vectors[:WARM_UP]:
        _single(collection, row, params, limit)
    latencies, found = [], []
    for number, row in enumerate(questions.vectors):
        start = time.perf_counter()
        points = _single(collection, row, params, limit)
        latencies.append((time.perf_counter() - start) * 1000)
        ids, scores = [plain_id(point.id) for point in points], [point.score for point in points]
        found.append([name for name, _ in questions.without_own(number, ids, scores)])
    requests = questions.requests(collection, params, k)
    start = time.perf_counter()
    answers(collection, requests)
    seconds = time.perf_counter() - start
    return Measured(truth.recall(found), tuple(latencies), len(questions.vectors) / seconds)


def _single(
    collection: Collection, row: Vectors, params: models.SearchParams | None, limit: int
) -> list[models.ScoredPoint]:
    with engine_errors(f"search collection {collection.name!r}"):
        return collection.client.query_points(
            collection.name,
            query=row.tolist(),
            using=collection.layout.vector or None,
            search_params=params,
            limit=limit,
            with_payload=False,
        ).points
