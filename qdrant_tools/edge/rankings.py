"""Queries -> ids and scores of what they find, without making points of it, which costs more than the search.

Guarantees: the same ids and scores, in the same order, as `query_batch_points`. Does not know: payloads.
"""

from __future__ import annotations

from collections.abc import Sequence

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.engine import Engine
from qdrant_tools.edge.options import check_options
from qdrant_tools.edge.queries import engine_request

Ranking = tuple[list[str | int], list[float]]


def engine_rankings(engine: Engine, name: str, requests: Sequence[models.QueryRequest]) -> list[Ranking]:
    """The ranking of each request."""
    collection = engine.collection(name)
    with collection.call:
        for request in requests:
            check_options({"shard_key": request.shard_key})
        batch = qe.QueryBatchRequest([engine_request(engine, collection, request) for request in requests])
    with collection.hold() as shard:
        answers = shard.query_batch(batch)
    found = [[point.id for point in points] for points in answers]
    ids = [[each if type(each) is int else str(each) for each in its] for its in found]
    return [(its, [point.score for point in points]) for its, points in zip(ids, answers)]
