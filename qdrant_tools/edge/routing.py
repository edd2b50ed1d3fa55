"""The client's reading methods and rankings, answered by a reader process if one can and by this process otherwise.

Guarantees: what this process would answer, its errors too: whatever a reader refuses is asked here again.
Does not know: how readers are kept in step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import wraps
from typing import Any

from qdrant_client.client_base import QdrantBase

from qdrant_tools.edge.engine import Engine
from qdrant_tools.edge.rankings import Found, VectorQueries, engine_found, joined
from qdrant_tools.edge.readers import NotAnsweredError
from qdrant_tools.edge.reads import ReadMethods

PART = 32  # queries that are worth a process of their own
ROUTED = (
    "query_points",
    "query_batch_points",
    "query_points_groups",
    "search_matrix_pairs",
    "search_matrix_offsets",
    "facet",
    "count",
    "scroll",
)
"""Reading points by their ids takes less than to ask another process."""
PARTS = "found"
"""The method that answers a part of many queries."""


def routed(
    engine: Engine, name: str, method: str, arguments: tuple[Any, ...], options: dict[str, Any], here: Callable[[], Any]
) -> Any:
    """The answer of a reader, or of `here`."""
    pool = engine.readers
    if pool is None:
        return here()
    collection = engine.collection(name)
    if method != PARTS and not pool.helps(collection):
        return here()
    try:
        return pool.ask(collection, method, arguments, options)
    except NotAnsweredError as refusal:
        answer = here()
        if refusal.reason:
            pool.disagreed(collection, refusal.reason)
        return answer


class RoutedReads(QdrantBase):
    """Searches, by a reader if one can and by this process otherwise: before `ReadMethods` among the bases."""

    engine: Engine


def _route(name: str) -> Callable[..., Any]:
    @wraps(getattr(ReadMethods, name))
    def method(self: RoutedReads, collection_name: str, *arguments: Any, **options: Any) -> Any:
        here = getattr(super(RoutedReads, self), name)
        return routed(
            self.engine, collection_name, name, arguments, options, lambda: here(collection_name, *arguments, **options)
        )

    return method


for _name in ROUTED:
    setattr(RoutedReads, _name, _route(_name))


def found(engine: Engine, name: str, queries: VectorQueries) -> Found:
    """What query vectors find, in parts by several readers at once."""
    pool = engine.readers
    parts = 1 if pool is None else max(1, min(pool.size, len(queries.vectors) // PART))
    ends = [len(queries.vectors) * number // parts for number in range(parts + 1)]
    pieces = [queries.part(start, end) for start, end in itertools.pairwise(ends)]

    def answer(piece: VectorQueries) -> Found:
        result: Found = routed(engine, name, PARTS, (piece,), {}, lambda: engine_found(engine, name, piece))
        return result

    if pool is None or parts == 1:
        return answer(pieces[0])
    return joined(list(pool.parts.map(answer, pieces)))
