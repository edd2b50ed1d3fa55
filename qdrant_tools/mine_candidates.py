"""Queries and their positives -> candidates, from the collection's own search.

Guarantees: one round trip per batch of queries; no vector of a candidate travels, so memory is O(batch x depth) ids and
scores. Does not know: which rules apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from qdrant_tools.filters import as_filter
from qdrant_tools.handle import Collection, plain_id
from qdrant_tools.mine_rules import Candidates, ordered
from qdrant_tools.mine_settings import MiningSettings
from qdrant_tools.records import Vectors
from qdrant_tools.translate import engine_errors


def find_candidates(
    collection: Collection, vectors: Vectors, positives: Sequence[int], settings: MiningSettings
) -> list[Candidates]:
    """The neighbours of each query vector (n, dimension): `depth`, and as many more as the query has positives."""
    nearest = _request(collection, settings)
    requests = [
        nearest.model_copy(update={"query": row, "limit": settings.depth + count})
        for row, count in zip(vectors.tolist(), positives, strict=True)
    ]
    with engine_errors(f"search collection {collection.name!r}"):
        responses = collection.client.query_batch_points(collection.name, requests)
    return [_candidates(response.points, collection, settings) for response in responses]


def document_of(metadata: Mapping[str, Any], settings: MiningSettings) -> object:
    """The document that a passage's metadata names; dots reach into nested metadata."""
    value: Any = metadata
    for name in (settings.document_key or "").split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str | int) else None


def _request(collection: Collection, settings: MiningSettings) -> models.QueryRequest:
    layout = collection.layout
    return models.QueryRequest(
        using=layout.vector or None,
        filter=as_filter(settings.filter, layout=layout),
        params=collection.search_params(hnsw_ef=settings.hnsw_ef, exact=settings.exact),
        with_payload=False if settings.document_key is None else [layout.metadata_field(settings.document_key)],
    )


def _candidates(points: Sequence[models.ScoredPoint], collection: Collection, settings: MiningSettings) -> Candidates:
    ids = [plain_id(point.id) for point in points]
    scores = np.array([point.score for point in points], dtype=np.float32)
    order = ordered(ids, scores)
    documents: list[object] = []
    if settings.document_key is not None:
        passages = [collection.layout.passage(points[index].payload, point_id=ids[index]) for index in order]
        documents = [document_of(passage.metadata, settings) for passage in passages]
    return Candidates([ids[index] for index in order], scores[order], documents)
