"""Queries -> ids and scores of what they find, without making points of it, which costs more than the search.

Guarantees: the same ids and scores, in the same order, as `query_batch_points`. Does not know: payloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.checks import client_id
from qdrant_tools.edge.engine import Engine
from qdrant_tools.edge.options import check_options
from qdrant_tools.edge.queries import engine_request

Ranking = tuple[Sequence[str | int], list[float]]


class PointIds(Sequence[str | int]):
    """The ids of points, each made when it is asked for: making a UUID takes longer than finding its point."""

    def __init__(self, points: Sequence[qe.ScoredPoint]) -> None:
        self._points = points

    @overload
    def __getitem__(self, index: int) -> str | int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str | int]: ...
    def __getitem__(self, index: int | slice) -> str | int | Sequence[str | int]:
        return PointIds(self._points[index]) if isinstance(index, slice) else client_id(self._points[index].id)

    def __len__(self) -> int:
        return len(self._points)


def engine_rankings(engine: Engine, name: str, requests: Sequence[models.QueryRequest]) -> list[Ranking]:
    """The ranking of each request."""
    collection = engine.collection(name)
    with collection.call:
        for request in requests:
            check_options({"shard_key": request.shard_key})
        batch = qe.QueryBatchRequest([engine_request(engine, collection, request) for request in requests])
    with collection.hold() as shard:
        answers = shard.query_batch(batch)
    return [(PointIds(points), [point.score for point in points]) for points in answers]
