"""A request -> the points of the collection that it names as examples, anywhere in its tree of prefetches.

As on a server none of them is among the results, of whichever prefetch or of the request itself.

Guarantees: an id is a point of this collection; one that `lookup_from` takes from another is left out. Does not know:
whether the points are there.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import EngineId, engine_id
from qdrant_tools.edge.convert.filters import as_filter, listed
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection

Node = models.QueryRequest | models.Prefetch


def is_point_id(value: Any) -> bool:
    return isinstance(value, (int, str, uuid.UUID, np.integer)) and not isinstance(value, bool)


def listed_prefetches(prefetch: Any) -> list[models.Prefetch]:
    """The prefetches of a request, which may be one, a list, or None."""
    if prefetch is None:
        return []
    return list(prefetch) if isinstance(prefetch, list) else [prefetch]


def filter_without_named(engine: Engine, collection: OpenCollection, request: models.QueryRequest) -> Any:
    """The filter of a request, and none of the points that it names. Raises `InputError`."""
    ids = list(dict.fromkeys(_named(engine, collection, request)))
    if not ids:
        return request.filter
    filter_ = as_filter(request.filter) or models.Filter()
    named = models.HasIdCondition.model_construct(has_id=ids)
    return filter_.model_copy(update={"must_not": [*listed(filter_.must_not), named]})


def _named(engine: Engine, collection: OpenCollection, node: Node) -> Iterator[EngineId]:
    lookup = node.lookup_from
    # a point of another collection cannot be among the results
    if lookup is None or engine.collection(lookup.collection) is collection:
        yield from (engine_id(example) for example in _examples(node.query) if is_point_id(example))
    for prefetch in listed_prefetches(node.prefetch):
        yield from _named(engine, collection, prefetch)


def _examples(query: Any) -> Iterable[Any]:
    """The examples of a query: vectors, and ids of points."""
    if isinstance(query, models.NearestQuery):
        return [query.nearest]
    if isinstance(query, models.RecommendQuery):
        return [*listed(query.recommend.positive), *listed(query.recommend.negative)]
    if isinstance(query, models.DiscoverQuery):
        return [query.discover.target, *_of_pairs(query.discover.context)]
    if isinstance(query, models.ContextQuery):
        return _of_pairs(query.context)
    if isinstance(query, models.RelevanceFeedbackQuery):
        settings = query.relevance_feedback
        return [settings.target, *(item.example for item in settings.feedback)]
    return [query]


def _of_pairs(context: Any) -> list[Any]:
    return [example for pair in listed(context) for example in (pair.positive, pair.negative)]
