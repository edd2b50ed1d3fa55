"""Query vectors and search parameters -> recall against exact search, latencies and throughput of one setting.

Guarantees: a stored vector that asks is left out of what it finds; a first round of queries that warms caches is not
counted. Does not know: which setting is good.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from qdrant_client import models

from qdrant_tools.adopt import sample
from qdrant_tools.errors import CollectionError
from qdrant_tools.handle import Collection, plain_id
from qdrant_tools.neighbours import exact_depth, recall_at, right_answers
from qdrant_tools.records import Vectors
from qdrant_tools.translate import engine_errors

WARM_UP = 5
BATCH = 64


@dataclass(frozen=True)
class Questions:
    """Query vectors (n, dimension); `own` are the points that stored vectors come from, or nothing."""

    vectors: Vectors
    own: tuple[str, ...] = field(default=())

    @classmethod
    def of_stored(cls, collection: Collection, count: int) -> Questions:
        """Random stored vectors."""
        records = sample(collection.client, collection.name, count, vector=collection.layout.vector)
        if not records:
            raise CollectionError(f"collection {collection.name!r} is empty: there is nothing to tune on")
        rows = [collection.layout.dense(record.vector) for record in records]
        return cls(np.array(rows, dtype=np.float32), tuple(str(plain_id(record.id)) for record in records))

    def without_own(self, number: int, points: Sequence[models.ScoredPoint]) -> list[tuple[str, float]]:
        own = self.own[number] if self.own else None
        return [(str(plain_id(p.id)), p.score) for p in points if str(plain_id(p.id)) != own]

    @property
    def extra(self) -> int:
        """How many more to ask for, so that k are left."""
        return 1 if self.own else 0


@dataclass(frozen=True)
class Measured:
    recall: float
    latencies_ms: tuple[float, ...]
    queries_per_second: float


def exact_answers(collection: Collection, questions: Questions, *, k: int) -> tuple[list[frozenset[str]], Measured]:
    """The right answers of each query, and what it costs to find them by comparing with every vector."""
    params = models.SearchParams(exact=True)
    found = _batches(collection, questions, params, exact_depth(k) + questions.extra)
    right = [right_answers(questions.without_own(i, points), k) for i, points in enumerate(found)]
    return right, measure(collection, questions, right, params=params, k=k)


def measure(
    collection: Collection,
    questions: Questions,
    right: Sequence[frozenset[str]],
    *,
    params: models.SearchParams | None,
    k: int,
) -> Measured:
    """Search each query alone for the latency, and all of them in batches for the throughput."""
    limit = k + questions.extra
    for row in questions.vectors[:WARM_UP]:
        _single(collection, row, params, limit)
    latencies, found = [], []
    for number, row in enumerate(questions.vectors):
        start = time.perf_counter()
        points = _single(collection, row, params, limit)
        latencies.append((time.perf_counter() - start) * 1000)
        found.append([name for name, _ in questions.without_own(number, points)])
    start = time.perf_counter()
    _batches(collection, questions, params, limit)
    seconds = time.perf_counter() - start
    return Measured(recall_at(k, found, right), tuple(latencies), len(questions.vectors) / seconds)


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


def _batches(
    collection: Collection, questions: Questions, params: models.SearchParams | None, limit: int
) -> list[list[models.ScoredPoint]]:
    using = collection.layout.vector or None
    requests = [
        models.QueryRequest(query=row, using=using, params=params, limit=limit, with_payload=False)
        for row in questions.vectors.tolist()
    ]
    found: list[list[models.ScoredPoint]] = []
    for start in range(0, len(requests), BATCH):
        with engine_errors(f"search collection {collection.name!r}"):
            responses = collection.client.query_batch_points(collection.name, requests[start : start + BATCH])
        found.extend(response.points for response in responses)
    return found
