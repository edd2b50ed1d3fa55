"""Which neighbours are equally near, and how many of the nearest ones a search found.

Two rules about ties, for everything here that ranks or measures:

- Scores that differ by rounding alone are the same score (`levelled`): which of them comes out larger depends on the
  machine's order of summation, so that the ids decide instead.
- A search is right about a neighbour if that is as near as the k-th nearest one (`recall_at`), whichever of several
  equally near passages it returned. What counts is the exact score of what was found, never the score that the search
  gave: with compressed vectors and no rescoring the two are not comparable.

Guarantees: the recall of the exact search itself is 1, however many vectors are equal. Does not know: how the search
that is measured was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qdrant_client import models

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import random_passages
from qdrant_tools.errors import CollectionError
from qdrant_tools.records import Vectors

ROUNDING = 2e-6
"""Share of the largest score up to which scores differ by rounding: orders of summation differ by a quarter of that."""
TIE = 1e-5
"""The same for recall, where a wrong "as near" costs a user nothing and a wrong "farther" is a false alarm."""

PointId = str | int
ExactScores = Callable[[Mapping[int, Sequence[PointId]]], Mapping[int, Mapping[PointId, float]]]
"""Number of the query -> ids, to number of the query -> the exact score of each of them."""


def levelled(scores: ArrayLike) -> NDArray[np.float64]:
    """The scores (n,), in their order; those that differ from a better one by rounding alone are made equal to it."""
    values = np.array(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    room = ROUNDING * float(np.abs(values).max(initial=0.0))
    if (falling[:-1] - falling[1:] > room).all():
        return values
    best = np.inf
    for place, value in zip(order.tolist(), falling.tolist(), strict=True):
        best = best if best - value <= room else value
        values[place] = best
    return values


@dataclass(frozen=True)
class Nearest:
    """The exact answer to one query: what is as near as the k-th nearest."""

    k: int
    """How many there are to find: fewer than asked for in a small collection."""
    near: frozenset[PointId]
    least: float
    """The score from which on a point is as near."""
    all_known: bool
    """Whether `near` holds all that are: not where more points tie than were looked at."""


def exact_depth(k: int) -> int:
    """How many exact neighbours to ask for, so that most ties with the k-th are seen without asking again."""
    return k + max(50, k)


def nearest_of(exact: Sequence[tuple[PointId, float]], k: int, *, asked: int) -> Nearest:
    """The answer that an exact search gives, of which the best `asked` were to be returned, best first."""
    if not exact:
        return Nearest(0, frozenset(), np.inf, all_known=True)
    least = exact[min(k, len(exact)) - 1][1] - TIE * max(abs(exact[0][1]), abs(exact[-1][1]))
    near = frozenset(name for name, score in exact if score >= least)
    return Nearest(min(k, len(exact)), near, least, all_known=len(exact) < asked or len(near) < len(exact))


def recall_at(k: int, found: Sequence[Sequence[PointId]], exact: Sequence[Nearest], exact_scores: ExactScores) -> float:
    """Mean share of the k nearest (or of all there are) that a search found; 1 where there is nothing to find.

    `exact_scores` is asked for what may tie with the k-th nearest beyond the points that the exact search returned.
    """
    firsts = [list(dict.fromkeys(ids))[:k] for ids in found]
    pairs = list(zip(firsts, exact, strict=True))
    open_ = {n: [i for i in ids if i not in right.near] for n, (ids, right) in enumerate(pairs) if not right.all_known}
    asked = {number: ids for number, ids in open_.items() if ids}
    scores = exact_scores(asked) if asked else {}
    shares = []
    for number, (ids, right) in enumerate(pairs):
        its = scores.get(number, {})
        near = sum(each in right.near or its.get(each, -np.inf) >= right.least for each in ids)
        shares.append(min(near / right.k, 1.0) if right.k else 1.0)
    return float(np.mean(shares))


@dataclass(frozen=True)
class Questions:
    """Query vectors (n, dimension); `own` are the points that stored vectors come from, or nothing."""

    vectors: Vectors
    own: tuple[PointId, ...] = field(default=())

    @classmethod
    def of_stored(cls, collection: Collection, count: int) -> Questions:
        """Random stored vectors."""
        passages = random_passages(collection, count)
        if not passages:
            raise CollectionError(f"collection {collection.name!r} is empty: there is nothing to tune on")
        vectors = np.array([passage.vector for passage in passages], dtype=np.float32)
        return cls(vectors, tuple(passage.point_id for passage in passages))

    def without_own(self, number: int, ids: Sequence[PointId], scores: Iterable[float]) -> list[tuple[PointId, float]]:
        """The ids and scores that a query found, without the point that it comes from."""
        own = self.own[number] if self.own else None
        return [(each, float(score)) for each, score in zip(ids, scores, strict=True) if each != own]

    @property
    def extra(self) -> int:
        """How many more to ask for, so that k are left."""
        return 1 if self.own else 0

    def requests(self, collection: Collection, params: models.SearchParams | None, k: int) -> list[models.QueryRequest]:
        """One request for ids and scores per query."""
        template = models.QueryRequest(
            using=collection.layout.vector or None, params=params, limit=k + self.extra, with_payload=False
        )
        return [template.model_copy(update={"query": row}) for row in self.vectors.tolist()]


@dataclass(frozen=True)
class Truth:
    """What exact search finds for some questions in one collection."""

    collection: Collection
    questions: Questions
    k: int
    nearest: tuple[Nearest, ...]

    @classmethod
    def of(cls, collection: Collection, questions: Questions, k: int) -> Truth:
        """Ask the collection, comparing with every vector."""
        depth = exact_depth(k)
        found = collection.gateway.rankings(
            questions.vectors,
            [depth + questions.extra] * len(questions.vectors),
            using=collection.layout.vector or None,
            params=collection.search_params(exact=True),
        )
        exact = [questions.without_own(number, ids, scores) for number, (ids, scores) in enumerate(found)]
        return cls(collection, questions, k, tuple(nearest_of(each, k, asked=depth) for each in exact))

    def recall(self, found: Sequence[Sequence[PointId]]) -> float:
        """The recall@k of a search that found these points, best first, for each of the questions."""
        return recall_at(self.k, found, self.nearest, self._scores)

    def _scores(self, asked: Mapping[int, Sequence[PointId]]) -> dict[int, dict[PointId, float]]:
        requests = self.questions.requests(self.collection, self.collection.search_params(exact=True), self.k)
        chosen = [
            requests[number].model_copy(update={"filter": _only(ids), "limit": len(ids)})
            for number, ids in asked.items()
        ]
        found = self.collection.gateway.query_batch(chosen)
        return {number: {plain_id(p.id): p.score for p in points} for number, points in zip(asked, found, strict=True)}


def _only(ids: Sequence[PointId]) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=list(ids))])
