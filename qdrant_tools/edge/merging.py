"""Fusion and MMR, computed here where the engine cannot do it, or not twice in the same way.

When the engine fuses rankings, the order among equal scores changes from call to call. It applies MMR only as the query
itself, and not to sparse vectors. Here the engine answers the leaves of such a tree, and the rest is computed:
reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009; with Qdrant's constant and weights), distribution-based
score fusion, and MMR over sparse vectors (Carbonell, Goldstein, SIGIR 1998).

Guarantees: equal scores of a fusion come in the order of the prefetches and of their hits; filters are passed down as a
server does. Does not know: formulas; one over an MMR prefetch is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import DEFAULT_VECTOR, engine_id, maybe_finite
from qdrant_tools.edge.convert.filters import as_filter, listed
from qdrant_tools.edge.convert.records import client_record, payload_selector, scored_point, vector_selector
from qdrant_tools.edge.named_points import filter_without_named, listed_prefetches
from qdrant_tools.edge.queries import (
    DEFAULT_LIMIT,
    QueryConverter,
    check_combination,
    check_prefetches,
    checked_limit,
    checked_offset,
    engine_request,
    mmr_settings,
    rrf_settings,
)
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError, NotSupportedError

Node = models.QueryRequest | models.Prefetch
Hits = list[models.ScoredPoint]

FUSIONS = (models.FusionQuery, models.RrfQuery)


def is_merged_here(collection: OpenCollection, request: models.QueryRequest) -> bool:
    """Whether `merged_hits` must answer a request, because the engine cannot."""
    check_prefetches(request.prefetch)
    return isinstance(request.query, FUSIONS) or _is_mmr(request.query) or _beyond_engine(collection, request)


def merged_hits(engine: Engine, collection: OpenCollection, request: models.QueryRequest) -> Hits:
    """The hits of a request, with payload and vectors as requested. Errors as in `engine_request`."""
    limit, offset = checked_limit(request.limit, "limit"), checked_offset(request.offset)
    filter_ = as_filter(filter_without_named(engine, collection, request))
    hits = _Merger(engine, collection).hits(request, filter_, limit + offset)[offset:]
    selectors = payload_selector(request.with_payload), vector_selector(request.with_vector)
    with collection.hold() as shard:
        stored = shard.retrieve([engine_id(hit.id) for hit in hits], *selectors)
        records = {record.id: record for record in map(client_record, stored)}
    # a point without a record was deleted meanwhile
    pairs = [(hit, records[hit.id]) for hit in hits if hit.id in records]
    return [hit.model_copy(update={"payload": record.payload, "vector": record.vector}) for hit, record in pairs]


class _Merger:
    """Answers a tree of prefetches from its leaves up."""

    def __init__(self, engine: Engine, collection: OpenCollection) -> None:
        self._engine = engine
        self._collection = collection

    def hits(self, node: Node, filter_: models.Filter | None, limit: int) -> Hits:
        """The best `limit` hits of a node, without payload and vectors; `filter_` is its own and all above it."""
        children = listed_prefetches(node.prefetch)
        if not (isinstance(node.query, FUSIONS) or _beyond_engine(self._collection, node)):
            return self._engine_hits(node, filter_, limit)
        check_combination(node, has_prefetch=bool(children))
        lists = [self.hits(child, _merged_filter(filter_, child.filter), _limit(child)) for child in children]
        if isinstance(node.query, FUSIONS):
            fused = _fused(node.query, lists)
            threshold = maybe_finite(node.score_threshold, "score_threshold")
            return [hit for hit in fused if threshold is None or hit.score >= threshold][:limit]
        if isinstance(node.query, models.FormulaQuery):
            raise NotSupportedError(
                "a formula over a prefetch with mmr: the embedded engine needs all of it as one query"
            )
        if children:
            # a query over prefetches ranks what they found, and nothing else
            ids = list(dict.fromkeys(hit.id for hits in lists for hit in hits))
            filter_ = _merged_filter(filter_, models.Filter(must=[models.HasIdCondition(has_id=ids)]))
        plain = node.model_copy(update={"prefetch": None})
        if _is_mmr(node.query) and self._sparse(node):
            return self._sparse_mmr(plain, filter_, limit)
        return self._engine_hits(plain, filter_, limit)

    def _engine_hits(
        self, node: Node, filter_: models.Filter | None, limit: int, *, vectors: list[str] | None = None
    ) -> Hits:
        """The engine's answer. For MMR it contains the vectors that it compared, requested or not."""
        query: Any = node.query
        if _is_mmr(query):  # as many candidates as the request has hits, whatever its offset
            _, candidates = mmr_settings(query.mmr, _limit(node))
            mmr = query.mmr.model_copy(update={"candidates_limit": candidates})
            node = node.model_copy(update={"query": query.model_copy(update={"mmr": mmr})})
        fields = {name: getattr(node, name) for name in _SHARED_FIELDS}
        request = models.QueryRequest.model_construct(
            **fields, filter=filter_, limit=limit, offset=None, with_payload=False, with_vector=vectors or False
        )
        engine_query = engine_request(self._engine, self._collection, request)
        with self._collection.hold() as shard:
            return [scored_point(hit) for hit in shard.query(engine_query)]

    def _sparse(self, node: Node) -> bool:
        return (node.using or DEFAULT_VECTOR) in self._collection.schema.sparse

    def _sparse_mmr(self, node: Node, filter_: models.Filter | None, limit: int) -> Hits:
        """MMR over sparse vectors."""
        query: Any = node.query
        diversity, candidates = mmr_settings(query.mmr, _limit(node))
        if candidates == 0:
            return []
        converter = QueryConverter(self._engine, self._collection, node.using, node.lookup_from, limit)
        query_vector: Any = converter.vector(query.nearest)
        nearest = node.model_copy(update={"query": models.NearestQuery(nearest=query.nearest)})
        name = node.using or DEFAULT_VECTOR
        hits = self._engine_hits(nearest, filter_, candidates, vectors=[name])
        vectors = [_weights(hit.vector[name]) for hit in hits]  # type: ignore[index,call-overload,arg-type]
        order = _mmr_order(vectors, _weights(query_vector), diversity, limit)
        return [hits[index].model_copy(update={"vector": None}) for index in order]


_SHARED_FIELDS = ("query", "using", "prefetch", "params", "score_threshold", "lookup_from")


def _beyond_engine(collection: OpenCollection, node: Node) -> bool:
    """Whether the engine would refuse or change something in the tree: MMR in a prefetch, or over sparse vectors."""
    if _is_mmr(node.query) and (node.using or DEFAULT_VECTOR) in collection.schema.sparse:
        return True
    return any(_is_mmr(child.query) or _beyond_engine(collection, child) for child in listed_prefetches(node.prefetch))


def _is_mmr(query: Any) -> bool:
    return isinstance(query, models.NearestQuery) and query.mmr is not None


def _limit(node: Node) -> int:
    return DEFAULT_LIMIT if node.limit is None else checked_limit(node.limit, "prefetch limit")


def _fused(query: models.FusionQuery | models.RrfQuery, lists: Sequence[Hits]) -> Hits:
    """All hits of the lists, best first; equal scores in the order of the lists and of their hits."""
    if isinstance(query, models.FusionQuery) and query.fusion == models.Fusion.DBSF:
        scored = [list(zip(hits, _dbsf_scores(hits), strict=True)) for hits in lists]
    else:
        k, weights = rrf_settings(query.rrf if isinstance(query, models.RrfQuery) else models.Rrf())
        weights = [1.0] * len(lists) if weights is None else weights
        if len(weights) != len(lists):
            raise InputError(f"rrf has {len(weights)} weights for {len(lists)} prefetches: give one for each")
        scored = [
            # as on a server: the best hit of a list with weight 1 scores 1/k
            [(hit, 1 / (rank / weight + k - 1) if weight > 0 else 0.0) for rank, hit in enumerate(hits, start=1)]
            for hits, weight in zip(lists, weights, strict=True)
        ]
    hits_by_id: dict[Any, models.ScoredPoint] = {}
    total: dict[Any, float] = {}
    for hit, score in itertools.chain.from_iterable(scored):
        hits_by_id.setdefault(hit.id, hit)
        total[hit.id] = total.get(hit.id, 0.0) + score
    # sorting is stable: equal scores stay in the order of the dict
    best = sorted(hits_by_id.values(), key=lambda hit: -total[hit.id])
    return [hit.model_copy(update={"score": total[hit.id]}) for hit in best]


def _dbsf_scores(hits: Hits) -> list[float]:
    """Scores on a scale on which the mean is 0.5, and three standard deviations (of a sample) are 0.5 too."""
    scores = np.array([hit.score for hit in hits], dtype=np.float64)
    deviation = scores.std(ddof=1) if len(scores) > 1 else 0.0
    if deviation == 0:
        return [0.5] * len(scores)
    scaled: list[float] = (0.5 + (scores - scores.mean()) / (6 * deviation)).tolist()
    return scaled


def _mmr_order(vectors: Sequence[dict[int, float]], query: dict[int, float], diversity: float, limit: int) -> list[int]:
    """Indices of the vectors in the order in which MMR takes them, at most `limit`.

    Ties are broken as in the engine: it takes the last of equal candidates and moves the last candidate to its place.
    """
    relevance = [_dot(query, vector) for vector in vectors]
    redundancy = [-np.inf] * len(vectors)  # the similarity to the most similar vector taken so far
    candidates, order = list(range(len(vectors))), list[int]()
    while candidates and len(order) < limit:
        gains = [
            # the first one is the most relevant, however large the diversity
            relevance[i] if not order else (1 - diversity) * relevance[i] - diversity * redundancy[i]
            for i in candidates
        ]
        best = max(range(len(candidates)), key=lambda position: (gains[position], position))
        order.append(candidates[best])
        candidates[best] = candidates[-1]
        candidates.pop()
        for i in candidates:
            redundancy[i] = max(redundancy[i], _dot(vectors[order[-1]], vectors[i]))
    return order


def _weights(vector: qe.SparseVector | models.SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


def _dot(one: dict[int, float], other: dict[int, float]) -> float:
    return sum(value * other[index] for index, value in one.items() if index in other)


def _merged_filter(outer: models.Filter | None, own: Any) -> models.Filter | None:
    """The filter of a prefetch with that of the query above it: clause by clause, as a server merges them."""
    own = as_filter(own)
    if outer is None or own is None:
        return own if outer is None else outer
    names = ("must", "should", "must_not")
    clauses = {name: (listed(getattr(outer, name)) + listed(getattr(own, name))) or None for name in names}
    both = [filter_.min_should for filter_ in (outer, own) if filter_.min_should is not None]
    min_should = None
    if both:  # a filter has only one min_should: the conditions of both, and the larger number
        conditions = [condition for clause in both for condition in clause.conditions]
        min_should = models.MinShould(conditions=conditions, min_count=max(clause.min_count for clause in both))
    return models.Filter(**clauses, min_should=min_should)
