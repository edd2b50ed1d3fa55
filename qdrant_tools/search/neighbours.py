"""Which neighbours are equally near, and how many of the nearest ones a search found.

Two rules about ties, for everything that ranks or measures:

- Scores that differ by rounding alone are the same score (`levelled`). Which of them comes out larger depends on the
  machine's order of summation, so the ids decide instead.
- A hit is right if it is as near as the k-th nearest neighbour (`recall_at`), whichever of several equally near ones it
  is. Its exact score counts, never the score that the search gave: the scores of compressed vectors are not comparable
  with exact ones.

Guarantees: the recall of the exact search itself is 1, however many vectors are equal. Does not know: how the measured
search was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qdrant_client import models

from qdrant_tools.client.gateway import PointId, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import random_passages
from qdrant_tools.errors import CollectionError
from qdrant_tools.records import Vectors

ROUNDING = 2e-6
"""Share of the largest score up to which scores differ by rounding: orders of summation differ by a quarter of that."""
TIE = 1e-5
"""The same for recall, where a wrong "as near" costs a user nothing and a wrong "farther" is a false alarm."""

ExactScores = Callable[[Mapping[int, Sequence[PointId]]], Mapping[int, Mapping[PointId, float]]]
"""Ids by the number of their query -> the exact score of each of them, by the same numbers."""


def levelled(scores: ArrayLike) -> NDArray[np.float64]:
    """The scores (n,), in their order; those that differ from a better one by rounding alone are made equal to it."""
    values = np.array(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    room = ROUNDING * float(np.abs(values).max(initial=0.0))
    # the usual case: no two scores are that close
    if (falling[:-1] - falling[1:] > room).all():
        return values
    best = np.inf
    for index, value in zip(order.tolist(), falling.tolist(), strict=True):
        # measured from the best of a run: a long chain of small steps is not one score
        best = best if best - value <= room else value
        values[index] = best
    return values


@dataclass(frozen=True)
class Nearest:
    """The exact answer to one query: the points that are at least as near as the k-th nearest."""

    k: int
    """How many there are to find: fewer than requested in a small collection."""
    near: frozenset[PointId]
    least: float
    """The lowest score of a point that counts as near."""
    complete: bool
    """Whether `near` holds all such points; not if more points tie than the exact search returned."""


def exact_depth(k: int) -> int:
    """How many exact neighbours to ask for, so that most ties with the k-th are seen without asking again."""
    return k + max(50, k)


def nearest_of(exact: Sequence[tuple[PointId, float]], k: int, *, depth: int) -> Nearest:
    """The answer that an exact search gives: the `depth` best ids and scores, or all there are, best first."""
    if not exact:
        return Nearest(0, frozenset(), np.inf, complete=True)
    # sorted, so that the score of the largest magnitude is at one of the two ends
    least = exact[min(k, len(exact)) - 1][1] - TIE * max(abs(exact[0][1]), abs(exact[-1][1]))
    near = frozenset(point for point, score in exact if score >= least)
    # complete if the search returned all points, or one that is farther than the ties: none is beyond it then
    return Nearest(min(k, len(exact)), near, least, complete=len(exact) < depth or len(near) < len(exact))


def recall_at(k: int, found: Sequence[Sequence[PointId]], exact: Sequence[Nearest], exact_scores: ExactScores) -> float:
    """Mean share of the k nearest (or of all there are) that a search found; 1 where there is nothing to find.

    `exact_scores` is called for hits that may tie with the k-th nearest beyond the points that the exact search
    returned.
    """
    # an id that a search names twice counts once
    hits = [list(dict.fromkeys(ids))[:k] for ids in found]
    undecided = {
        number: [point for point in ids if point not in truth.near]
        for number, (ids, truth) in enumerate(zip(hits, exact, strict=True))
        if not truth.complete
    }
    undecided = {number: ids for number, ids in undecided.items() if ids}
    scores = exact_scores(undecided) if undecided else {}
    shares = []
    for number, (ids, truth) in enumerate(zip(hits, exact, strict=True)):
        of_query = scores.get(number, {})
        near = sum(point in truth.near or of_query.get(point, -np.inf) >= truth.least for point in ids)
        # where more than k points tie, a search may find more near ones than there are to find
        shares.append(min(near / truth.k, 1.0) if truth.k else 1.0)
    return float(np.mean(shares))


@dataclass(frozen=True)
class QueryVectors:
    """Query vectors (n, dimension). If they are stored vectors, `own` are the points they come from."""

    vectors: Vectors
    own: tuple[PointId, ...] = ()

    @classmethod
    def of_stored(cls, collection: Collection, count: int) -> QueryVectors:
        """Random stored vectors."""
        passages = random_passages(collection, count)
        if not passages:
            raise CollectionError(f"collection {collection.name!r} is empty: there is nothing to tune on")
        vectors = np.array([passage.vector for passage in passages], dtype=np.float32)
        return cls(vectors, tuple(passage.point_id for passage in passages))

    def without_own(self, number: int, ids: Sequence[PointId], scores: Iterable[float]) -> list[tuple[PointId, float]]:
        """The ids and scores that query `number` found, without the point that it comes from."""
        own = self.own[number] if self.own else None
        return [(point, float(score)) for point, score in zip(ids, scores, strict=True) if point != own]

    @property
    def extra(self) -> int:
        """How many more hits to ask for, so that k are left without the query's own point."""
        return 1 if self.own else 0

    def requests(self, collection: Collection, params: models.SearchParams | None, k: int) -> list[models.QueryRequest]:
        """One request for ids and scores per query."""
        template = models.QueryRequest(
            using=collection.layout.vector or None, params=params, limit=k + self.extra, with_payload=False
        )
        return [template.model_copy(update={"query": row}) for row in self.vectors.tolist()]


@dataclass(frozen=True)
class Truth:
    """What exact search finds for some query vectors in one collection."""

    collection: Collection
    queries: QueryVectors
    k: int
    nearest: tuple[Nearest, ...]

    @classmethod
    def of(cls, collection: Collection, queries: QueryVectors, k: int) -> Truth:
        """Search the collection, comparing with every vector."""
        depth = exact_depth(k)
        rankings = collection.gateway.rankings(
            queries.vectors,
            [depth + queries.extra] * len(queries.vectors),
            using=collection.layout.vector or None,
            params=collection.search_params(exact=True),
        )
        exact = [queries.without_own(number, ids, scores) for number, (ids, scores) in enumerate(rankings)]
        return cls(collection, queries, k, tuple(nearest_of(ranking, k, depth=depth) for ranking in exact))

    def recall(self, found: Sequence[Sequence[PointId]]) -> float:
        """The recall@k of a search that found these points, best first, for each query."""
        return recall_at(self.k, found, self.nearest, self._scores)

    def _scores(self, ids_of: Mapping[int, Sequence[PointId]]) -> dict[int, dict[PointId, float]]:
        requests = self.queries.requests(self.collection, self.collection.search_params(exact=True), self.k)
        chosen = [
            requests[number].model_copy(update={"filter": _only(ids), "limit": len(ids)})
            for number, ids in ids_of.items()
        ]
        found = self.collection.gateway.query_batch(chosen)
        return {number: {plain_id(p.id): p.score for p in points} for number, points in zip(ids_of, found, strict=True)}


def _only(ids: Sequence[PointId]) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=list(ids))])
