"""Distances between sampled points, which the engine's binding lacks.

As on a server: points are drawn at random among those that pass the filter and have the vector; each is compared
with the others; the sample is ordered by id.
Does not know: the engine; it asks through `QdrantBase`'s own methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client.client_base import QdrantBase
from qdrant_client.http import models

from qdrant_tools.edge.checks import DEFAULT_VECTOR, whole
from qdrant_tools.edge.filters import as_filter, listed
from qdrant_tools.edge.queries import positive


@dataclass(frozen=True)
class Sampling:
    """How many points to draw, how many neighbours to report for each, by which vector."""

    sample: int
    limit: int
    using: str

    @classmethod
    def of(cls, sample: int, limit: int, using: str | None) -> Sampling:
        return cls(whole(sample, "sample", least=2), positive(limit, "limit"), using or DEFAULT_VECTOR)


def neighbours(
    client: QdrantBase, name: str, sampling: Sampling, query_filter: Any
) -> tuple[list[models.ExtendedPointId], list[list[models.ScoredPoint]]]:
    """Return the sampled ids in order, and for each its nearest among the others, best first."""
    vector = sampling.using
    given = as_filter(query_filter) or models.Filter()
    there = models.HasVectorCondition(has_vector=vector)
    drawn = client.query_points(
        name,
        query=models.SampleQuery(sample=models.Sample.RANDOM),
        query_filter=given.model_copy(update={"must": [*listed(given.must), there]}),
        limit=sampling.sample,
        with_payload=False,
        with_vectors=[vector],
    ).points
    if len(drawn) < 2:
        return [], []
    drawn = sorted(drawn, key=lambda point: (isinstance(point.id, str), point.id))
    ids = [point.id for point in drawn]
    requests = [
        models.QueryRequest.model_construct(
            query=models.NearestQuery.model_construct(nearest=_vector(point, vector), mmr=None),
            using=vector or None,
            filter=models.Filter(must=[models.HasIdCondition(has_id=[other for other in ids if other != point.id])]),
            limit=sampling.limit,
            with_payload=False,
            with_vector=False,
        )
        for point in drawn
    ]
    return ids, [answer.points for answer in client.query_batch_points(name, requests)]


def pairs(ids: list[Any], found: list[list[models.ScoredPoint]]) -> models.SearchMatrixPairsResponse:
    rows = [
        models.SearchMatrixPair(a=point_id, b=hit.id, score=hit.score)
        for point_id, hits in zip(ids, found, strict=True)
        for hit in hits
    ]
    return models.SearchMatrixPairsResponse(pairs=rows)


def offsets(ids: list[Any], found: list[list[models.ScoredPoint]]) -> models.SearchMatrixOffsetsResponse:
    column = {point_id: index for index, point_id in enumerate(ids)}
    cells = [(row, column[hit.id], hit.score) for row, hits in enumerate(found) for hit in hits]
    return models.SearchMatrixOffsetsResponse(
        offsets_row=[row for row, _, _ in cells],
        offsets_col=[col for _, col, _ in cells],
        scores=[score for _, _, score in cells],
        ids=ids,
    )


def _vector(point: models.ScoredPoint, name: str) -> Any:
    return point.vector[name] if isinstance(point.vector, dict) else point.vector
