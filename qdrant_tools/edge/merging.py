"""Queries that merge others, computed here where the engine would not do it, or not twice in the same way.

The engine fuses rankings with an order among equal scores that changes from call to call, applies MMR only as the
query itself, and not to sparse vectors. Here the leaves of such a tree are the engine's answers, and what is above them
is computed: reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009; with Qdrant's constant and weights),
distribution-based score fusion, and MMR over sparse vectors (Carbonell, Goldstein, SIGIR 1998).

Guarantees: equal scores of a fusion come in the order of the prefetches and of their hits; filters are handed down as a
server does. Does not know: formulas; one over an MMR prefetch is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import DEFAULT_VECTOR, engine_id, maybe_finite
from qdrant_tools.edge.convert.filters import as_filter, listed
from qdrant_tools.edge.convert.records import client_record, payload_selector, scored_point, vector_selector
from qdrant_tools.edge.queries import (
    DEFAULT_LIMIT,
    Translation,
    check_combination,
    check_prefetches,
    engine_request,
    mmr_settings,
    positive,
    rrf_settings,
    skipped,
)
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError, NotSupportedError

Node = models.QueryRequest | models.Prefetch
Hits = list[models.ScoredPoint]

FUSIONS = (models.FusionQuery, models.RrfQuery)


def merged_here(collection: OpenCollection, request: models.QueryRequest) -> bool:
    """Whether a request is one that `answer` is for, not the engine."""
    check_prefetches(request.prefetch)
    return isinstance(request.query, FUSIONS) or _is_mmr(request.query) or _has_own_part(collection, request)


def answer(engine: Engine, collection: OpenCollection, request: models.QueryRequest) -> Hits:
    """The hits of a request, with what was asked for of their points. Errors as in `engine_request`."""
    limit, offset = positive(request.limit, "limit"), skipped(request.offset)
    hits = _Tree(engine, collection).hits(request, as_filter(request.filter), limit + offset)[offset:]
    with collection.hold() as shard:
        wanted = payload_selector(request.with_payload), vector_selector(request.with_vector)
        records = {record.id: record for record in map(client_record, shard.retrieve([_id(h) for h in hits], *wanted))}
    found = [(hit, records[hit.id]) for hit in hits if hit.id in records]  # others were deleted meanwhile
    return [hit.model_copy(update={"payload": r.payload, "vector": r.vector}) for hit, r in found]


class _Tree:
    """A tree of prefetches being answered from its leaves up."""

    def __init__(self, engine: Engine, collection: OpenCollection) -> None:
        self._engine = engine
        self._collection = collection

    def hits(self, node: Node, filter_: models.Filter | None, limit: int) -> Hits:
        """The best `limit` hits of a node, without payload and vectors; `filter_` is its own and all above it."""
        below = _prefetches(node)
        if not (isinstance(node.query, FUSIONS) or _has_own_part(self._collection, node)):
            return self._asked(node, filter_, limit)
        check_combination(node, has_prefetch=bool(below))
        lists = [self.hits(each, _both(filter_, each.filter), _limit(each)) for each in below]
        if isinstance(node.query, FUSIONS):
            fused = _fused(node.query, lists)
            threshold = maybe_finite(node.score_threshold, "score_threshold")
            return [hit for hit in fused if threshold is None or hit.score >= threshold][:limit]
        if isinstance(node.query, models.FormulaQuery):
            raise NotSupportedError(
                "a formula over a prefetch with mmr: the embedded engine needs all of it as one query"
            )
        if below:
            ids = list(dict.fromkeys(hit.id for hits in lists for hit in hits))
            filter_ = _both(filter_, models.Filter(must=[models.HasIdCondition(has_id=ids)]))
        plain = node.model_copy(update={"prefetch": None})
        if _is_mmr(node.query) and self._sparse(node):
            return self._diverse(plain, filter_, limit)
        return self._asked(plain, filter_, limit)

    def _asked(
        self, node: Node, filter_: models.Filter | None, limit: int, *, vectors: list[str] | None = None
    ) -> Hits:
        """The engine's answer. The one to MMR has the vectors that it compared, asked for or not."""
        query: Any = node.query
        if _is_mmr(query):  # as many candidates as hits are asked for, whatever the offset
            _, candidates = mmr_settings(query.mmr, _limit(node))
            mmr = query.mmr.model_copy(update={"candidates_limit": candidates})
            node = node.model_copy(update={"query": query.model_copy(update={"mmr": mmr})})
        fields = {name: getattr(node, name) for name in _SHARED}
        request = models.QueryRequest.model_construct(
            **fields, filter=filter_, limit=limit, offset=None, with_payload=False, with_vector=vectors or False
        )
        asked = engine_request(self._engine, self._collection, request)
        with self._collection.hold() as shard:
            return [scored_point(hit) for hit in shard.query(asked)]

    def _sparse(self, node: Node) -> bool:
        return (node.using or DEFAULT_VECTOR) in self._collection.schema.sparse

    def _diverse(self, node: Node, filter_: models.Filter | None, limit: int) -> Hits:
        """MMR over sparse vectors."""
        query: Any = node.query
        diversity, candidates = mmr_settings(query.mmr, _limit(node))
        if candidates == 0:
            return []
        translation = Translation(self._engine, self._collection, node.using, node.lookup_from, limit)
        asked: Any = translation.vector(query.nearest)
        nearest = node.model_copy(update={"query": models.NearestQuery(nearest=query.nearest)})
        name = node.using or DEFAULT_VECTOR
        hits = self._asked(nearest, filter_, candidates, vectors=[name])
        vectors = [_weights(hit.vector[name]) for hit in hits]  # type: ignore[index,call-overload,arg-type]
        chosen = _chosen(vectors, _weights(asked), diversity, limit)
        return [hits[place].model_copy(update={"vector": None}) for place in chosen]


_SHARED = ("query", "using", "prefetch", "params", "score_threshold", "lookup_from")


def _has_own_part(collection: OpenCollection, node: Node) -> bool:
    """Whether the engine would refuse or change something in the tree: MMR in a prefetch, or over sparse vectors."""
    if _is_mmr(node.query) and (node.using or DEFAULT_VECTOR) in collection.schema.sparse:
        return True
    return any(_is_mmr(each.query) or _has_own_part(collection, each) for each in _prefetches(node))


def _is_mmr(query: Any) -> bool:
    return isinstance(query, models.NearestQuery) and query.mmr is not None


def _prefetches(node: Node) -> list[models.Prefetch]:
    given = node.prefetch
    if given is None:
        return []
    return list(given) if isinstance(given, list) else [given]


def _limit(node: Node) -> int:
    return DEFAULT_LIMIT if node.limit is None else positive(node.limit, "prefetch limit")


def _fused(query: models.FusionQuery | models.RrfQuery, lists: Sequence[Hits]) -> Hits:
    """All hits of the lists, best first; equal scores in the order in which they were met."""
    if isinstance(query, models.FusionQuery) and query.fusion == models.Fusion.DBSF:
        scored = [[(hit, score) for hit, score in zip(hits, _scaled(hits), strict=True)] for hits in lists]
    else:
        rrf = query.rrf if isinstance(query, models.RrfQuery) else models.Rrf()
        k, given = rrf_settings(rrf)
        weights = [1.0] * len(lists) if given is None else given
        if len(weights) != len(lists):
            raise InputError(f"rrf has {len(weights)} weights for {len(lists)} prefetches: give one for each")
        scored = [
            [(hit, 1 / (rank / weight + k - 1) if weight > 0 else 0.0) for rank, hit in enumerate(hits, start=1)]
            for hits, weight in zip(lists, weights, strict=True)
        ]
    first: dict[Any, models.ScoredPoint] = {}
    total: dict[Any, float] = {}
    for each in scored:
        for hit, score in each:
            first.setdefault(hit.id, hit)
            total[hit.id] = total.get(hit.id, 0.0) + score
    best = sorted(first.values(), key=lambda hit: -total[hit.id])
    return [hit.model_copy(update={"score": total[hit.id]}) for hit in best]


def _scaled(hits: Hits) -> list[float]:
    """Scores on a scale on which the mean is 0.5, and three standard deviations (of a sample) are 0.5 too."""
    scores = np.array([hit.score for hit in hits], dtype=np.float64)
    deviation = scores.std(ddof=1) if len(scores) > 1 else 0.0
    if deviation == 0:
        return [0.5] * len(scores)
    scaled: list[float] = (0.5 + (scores - scores.mean()) / (6 * deviation)).tolist()
    return scaled


def _chosen(vectors: Sequence[dict[int, float]], query: dict[int, float], diversity: float, limit: int) -> list[int]:
    """Places of the vectors in the order in which MMR takes them, at most `limit`.

    Of equal ones the engine takes the last, and puts the last one that is left where the taken one was.
    """
    relevance = [_dot(query, vector) for vector in vectors]
    nearest_taken = [-np.inf] * len(vectors)
    left, taken = list(range(len(vectors))), list[int]()
    while left and len(taken) < limit:
        gains = [
            relevance[i] if not taken else (1 - diversity) * relevance[i] - diversity * nearest_taken[i] for i in left
        ]
        place = max(range(len(left)), key=lambda at: (gains[at], at))
        taken.append(left[place])
        left[place] = left[-1]
        left.pop()
        for i in left:
            nearest_taken[i] = max(nearest_taken[i], _dot(vectors[taken[-1]], vectors[i]))
    return taken


def _weights(vector: qe.SparseVector | models.SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


def _dot(one: dict[int, float], other: dict[int, float]) -> float:
    return sum(value * other[index] for index, value in one.items() if index in other)


def _both(above: models.Filter | None, own: Any) -> models.Filter | None:
    """The filter of a prefetch with that of the query above it: clause by clause, as a server merges them."""
    own = as_filter(own)
    if above is None or own is None:
        return own if above is None else above
    names = ("must", "should", "must_not")
    clauses = {name: listed(getattr(above, name)) + listed(getattr(own, name)) for name in names}
    at_least = [each.min_should for each in (above, own) if each.min_should is not None]
    least = None
    if at_least:
        conditions = [condition for each in at_least for condition in each.conditions]
        least = models.MinShould(conditions=conditions, min_count=max(each.min_count for each in at_least))
    return models.Filter(**{name: found or None for name, found in clauses.items()}, min_should=least)


def _id(hit: models.ScoredPoint) -> Any:
    return engine_id(hit.id)
