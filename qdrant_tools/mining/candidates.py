"""Queries and the numbers of their positives -> candidates, from the collection's own search.

Guarantees: one round trip per batch of queries; memory is O(batch x depth), and no vector of a dense candidate travels.
Does not know: which rules apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, zip_longest
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.mining.rules import Candidates, MiningSettings, ordered
from qdrant_tools.records import Vectors
from qdrant_tools.search.bm25 import VECTOR
from qdrant_tools.search.hybrid import lexical_of
from qdrant_tools.search.options import as_filter, refuse_paths


class ReorderedIds(Sequence[str | int]):
    """Ids in another order, each made when it is read: an engine's ids cost more to make than to find."""

    def __init__(self, ids: Sequence[str | int], order: Sequence[int]) -> None:
        self._ids, self._order = ids, order

    @overload
    def __getitem__(self, index: int) -> str | int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str | int]: ...
    def __getitem__(self, index: int | slice) -> str | int | Sequence[str | int]:
        position = self._order[index]
        return self._ids[position] if isinstance(position, int) else ReorderedIds(self._ids, position)

    def __len__(self) -> int:
        return len(self._order)


def find_candidates(
    collection: Collection,
    queries: Sequence[str],
    vectors: Vectors,
    positives: Sequence[int],
    settings: MiningSettings,
) -> list[Candidates]:
    """The candidates of each query, whose vectors are (n, dimension): `depth` of each source, and as many more as the
    query has positives.

    Raises:
        NotSupportedError: BM25 is asked of a collection without lexical vectors.
    """
    limits = [settings.depth + count for count in positives]
    params = collection.search_params(hnsw_ef=settings.hnsw_ef, exact=settings.exact or collection.searches_exactly)
    if settings.source == "dense" and settings.document_key is None:
        rankings = collection.gateway.rankings(
            vectors,
            limits,
            using=collection.layout.vector or None,
            params=params,
            query_filter=as_filter(settings.filter, collection=collection),
        )
        return [_candidates_of_ranking(ids, scores) for ids, scores in rankings]
    return _search_points(collection, queries, vectors, limits, params, settings)


def document_of(metadata: Mapping[str, Any], settings: MiningSettings) -> object:
    """The document that a passage's metadata names."""
    key = settings.document_key
    value: Any = metadata
    for name in (key,) if isinstance(key, str) else key or ():
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str | int | float) else None


def _search_points(
    collection: Collection,
    queries: Sequence[str],
    vectors: Vectors,
    limits: Sequence[int],
    params: models.SearchParams | None,
    settings: MiningSettings,
) -> list[Candidates]:
    """Where more of a candidate is needed than its id and score."""
    layout = collection.layout
    if settings.document_key is not None:
        refuse_paths(collection, [settings.document_key])
    template = models.QueryRequest(
        filter=as_filter(settings.filter, collection=collection),
        with_payload=False if settings.document_key is None else [layout.metadata_field(settings.document_key)],
    )
    requests: list[models.QueryRequest] = []
    if settings.source != "lexical":
        dense = template.model_copy(update={"using": layout.vector or None, "params": params})
        requests += [dense.model_copy(update={"query": row}) for row in vectors.tolist()]
    if settings.source != "dense":
        # A BM25 score says nothing about similarity: the vectors have to come along.
        lexical = template.model_copy(update={"using": VECTOR, "with_vector": collection.vector_selector})
        bm25 = lexical_of(collection)
        requests += [lexical.model_copy(update={"query": bm25.query(query)}) for query in queries]
    # with "both" there are two requests per query: the limits are used twice
    for request, limit in zip(requests, cycle(limits)):
        request.limit = limit
    answers = collection.gateway.query_batch(requests)
    by_vector, by_words = answers[: len(queries)], answers[-len(queries) :]  # one list, unless "both" were asked
    if settings.source == "dense":
        return [_candidates_of_points(_by_score(points), collection, settings) for points in by_vector]
    rescored = [_with_similarity(points, row, collection) for points, row in zip(by_words, vectors, strict=True)]
    if settings.source == "lexical":
        return [_candidates_of_points(points, collection, settings) for points in rescored]
    merged = [_in_turns(_by_score(points), words) for points, words in zip(by_vector, rescored, strict=True)]
    return [_candidates_of_points(points, collection, settings) for points in merged]


def _by_score(points: Sequence[models.ScoredPoint]) -> list[models.ScoredPoint]:
    order = ordered([plain_id(point.id) for point in points], np.array([point.score for point in points]))
    return [points[index] for index in order]


def _with_similarity(
    points: Sequence[models.ScoredPoint], query: NDArray[np.float32], collection: Collection
) -> list[models.ScoredPoint]:
    """In the order of BM25, with the similarity to the query vector (dimension,) as score."""
    by_words = _by_score(points)
    for point in by_words:
        point.score = float(np.asarray(collection.layout.dense(point.vector), dtype=np.float32) @ query)
    return by_words


def _in_turns(first: Sequence[models.ScoredPoint], second: Sequence[models.ScoredPoint]) -> list[models.ScoredPoint]:
    """One of each list in turn; what is in both comes where it comes first."""
    merged: dict[str | int, models.ScoredPoint] = {}
    for pair in zip_longest(first, second):
        for point in pair:
            if point is not None:
                merged.setdefault(plain_id(point.id), point)
    return list(merged.values())


def _candidates_of_ranking(ids: Sequence[str | int], scores: NDArray[np.float32]) -> Candidates:
    order = ordered(ids, scores)
    return Candidates(ReorderedIds(ids, order), scores[order])


def _candidates_of_points(
    points: Sequence[models.ScoredPoint], collection: Collection, settings: MiningSettings
) -> Candidates:
    ids = [plain_id(point.id) for point in points]
    scores = np.array([point.score for point in points], dtype=np.float32)
    documents: list[object] = []
    if settings.document_key is not None:
        passages = [
            collection.layout.passage(point.payload, point_id=point_id)
            for point, point_id in zip(points, ids, strict=True)
        ]
        documents = [document_of(passage.metadata, settings) for passage in passages]
    return Candidates(ids, scores, documents)
