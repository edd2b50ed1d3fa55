"""The client's methods that read points, over an `Engine`: by id, by filter, by similarity; counts and facets.

Guarantees: results are a server's, ties included where the engine itself would leave them to chance.
Does not know: reader processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qdrant_edge as qe
from qdrant_client.client_base import QdrantBase
from qdrant_client.conversions import common_types as types
from qdrant_client.http import models

from qdrant_tools.edge.aggregations import (
    Grouping,
    MatrixSettings,
    add_contents,
    add_lookups,
    find_groups,
    offsets_response,
    pairs_response,
    sampled_neighbours,
)
from qdrant_tools.edge.convert.checks import LARGEST_COUNT, check_options, client_id, engine_id, engine_ids, text
from qdrant_tools.edge.convert.filters import engine_filter
from qdrant_tools.edge.convert.records import client_record, payload_selector, scored_point, vector_selector
from qdrant_tools.edge.merging import is_merged_here, merged_hits
from qdrant_tools.edge.queries import checked_limit, engine_request, order_by
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError

EXTRA_FACETS = 100  # counted beyond the limit, so that one call mostly sees where a row of equal counts ends


class ReadMethods(QdrantBase):
    """The reading methods of `QdrantBase`, answered by the engine of this process."""

    engine: Engine

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[types.PointId],
        with_payload: types.WithPayloadInterface = True,
        with_vectors: types.WithVector = False,
        **options: Any,
    ) -> list[types.Record]:
        check_options(options)
        collection = self.engine.collection(collection_name)
        point_ids = engine_ids(ids)
        with collection.hold() as shard:
            stored = shard.retrieve(point_ids, payload_selector(with_payload), vector_selector(with_vectors))
            records = [client_record(record) for record in stored]
        if len(set(point_ids)) == len(point_ids):
            return records
        by_id = {engine_id(record.id): record for record in records}  # the engine returns a repeated id once
        return [by_id[point_id] for point_id in point_ids if point_id in by_id]

    def scroll(
        self,
        collection_name: str,
        scroll_filter: types.Filter | None = None,
        limit: int = 10,
        order_by: types.OrderBy | None = None,
        offset: types.PointId | None = None,
        with_payload: types.WithPayloadInterface = True,
        with_vectors: types.WithVector = False,
        **options: Any,
    ) -> tuple[list[types.Record], types.PointId | None]:
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            request = scroll_request(scroll_filter, limit, order_by, offset, with_payload, with_vectors)
        with collection.hold() as shard:
            records, following = shard.scroll(request)
            return [client_record(record) for record in records], None if following is None else client_id(following)

    def count(
        self, collection_name: str, count_filter: types.Filter | None = None, exact: bool = True, **options: Any
    ) -> types.CountResult:
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            request = qe.CountRequest(exact=bool(exact), filter=engine_filter(count_filter))
        with collection.hold() as shard:
            return models.CountResult(count=shard.count(request))

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: types.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
        **options: Any,
    ) -> types.FacetResponse:
        check_options(options)
        collection = self.engine.collection(collection_name)
        limit = checked_limit(limit, "limit")
        with collection.call:
            key, condition = text(key, "key"), engine_filter(facet_filter)
        with collection.hold() as shard:
            return models.FacetResponse(hits=most_frequent(shard, key, condition, limit, exact=bool(exact)))

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: types.Prefetch | list[types.Prefetch] | None = None,
        query_filter: types.Filter | None = None,
        search_params: types.SearchParams | None = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: types.WithPayloadInterface = True,
        with_vectors: types.WithVector = False,
        score_threshold: float | None = None,
        lookup_from: types.LookupLocation | None = None,
        **options: Any,
    ) -> types.QueryResponse:
        check_options(options)
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vector=with_vectors,
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        collection = self.engine.collection(collection_name)
        # not `hold` yet: a lookup elsewhere may take the engine's lock, whose holder may wait for this one
        with collection.call:
            if is_merged_here(collection, request):
                return models.QueryResponse.model_construct(points=merged_hits(self.engine, collection, request))
            engine_query = engine_request(self.engine, collection, request)
        with collection.hold() as shard:
            return self._response(shard.query(engine_query))

    def query_batch_points(
        self, collection_name: str, requests: Sequence[types.QueryRequest], **options: Any
    ) -> list[types.QueryResponse]:
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            if any(is_merged_here(collection, request) for request in requests):
                return [self._answer(collection, request) for request in requests]
            for request in requests:
                check_options({"shard_key": request.shard_key})
            batch = qe.QueryBatchRequest([engine_request(self.engine, collection, request) for request in requests])
        with collection.hold() as shard:
            answers = shard.query_batch(batch)
            return [self._response(hits) for hits in answers]

    def _answer(self, collection: OpenCollection, request: models.QueryRequest) -> types.QueryResponse:
        """One request of a batch that cannot go to the engine as a whole."""
        check_options({"shard_key": request.shard_key})
        if is_merged_here(collection, request):
            return models.QueryResponse.model_construct(points=merged_hits(self.engine, collection, request))
        with collection.hold() as shard:
            return self._response(shard.query(engine_request(self.engine, collection, request)))

    def _response(self, hits: Sequence[qe.ScoredPoint]) -> types.QueryResponse:
        """The response to one query; a reader process returns columns instead."""
        return models.QueryResponse.model_construct(points=[scored_point(hit) for hit in hits])

    # -- what the binding lacks

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: types.Prefetch | list[types.Prefetch] | None = None,
        query_filter: types.Filter | None = None,
        search_params: types.SearchParams | None = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: types.WithPayloadInterface = True,
        with_vectors: types.WithVector = False,
        score_threshold: float | None = None,
        with_lookup: types.WithLookupInterface | None = None,
        lookup_from: types.LookupLocation | None = None,
        **options: Any,
    ) -> types.GroupsResult:
        check_options(options)
        arguments = {
            "query": query,
            "using": using,
            "prefetch": prefetch,
            "query_filter": query_filter,
            "search_params": search_params,
            "score_threshold": score_threshold,
            "lookup_from": lookup_from,
        }
        groups = find_groups(self, collection_name, Grouping(group_by, limit, group_size), arguments)
        add_contents(self, collection_name, groups, with_payload, with_vectors)
        if with_lookup is not None:
            add_lookups(self, groups, with_lookup)
        return models.GroupsResult(groups=groups)

    def search_matrix_pairs(
        self,
        collection_name: str,
        query_filter: types.Filter | None = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **options: Any,
    ) -> types.SearchMatrixPairsResponse:
        check_options(options)
        settings = MatrixSettings.of(sample, limit, using)
        return pairs_response(*sampled_neighbours(self, collection_name, settings, query_filter))

    def search_matrix_offsets(
        self,
        collection_name: str,
        query_filter: types.Filter | None = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **options: Any,
    ) -> types.SearchMatrixOffsetsResponse:
        check_options(options)
        settings = MatrixSettings.of(sample, limit, using)
        return offsets_response(*sampled_neighbours(self, collection_name, settings, query_filter))


def scroll_request(
    filter_: Any, limit: int, order: Any, offset: Any, with_payload: Any, with_vectors: Any
) -> qe.ScrollRequest:
    if order is not None and offset is not None:
        raise InputError("scroll by order_by goes on with order_by.start_from, not with offset: drop offset")
    return qe.ScrollRequest(
        offset=None if offset is None else engine_id(offset),
        limit=checked_limit(limit, "limit"),
        filter=engine_filter(filter_),
        with_payload=payload_selector(with_payload),
        with_vector=vector_selector(with_vectors),
        order_by=order_by(order) if order is not None else None,
    )


def most_frequent(
    shard: qe.EdgeShard, key: str, condition: qe.Filter | None, limit: int, *, exact: bool
) -> list[models.FacetValueHit]:
    """The first values, the most frequent first, equally frequent ones in their own order.

    The engine cuts anywhere among values that occur equally often. Its limit is raised until the cut lies beyond them.
    """
    engine_limit = 2 * limit + EXTRA_FACETS
    while True:
        engine_limit = min(engine_limit, LARGEST_COUNT)
        counted = shard.facet(qe.FacetRequest(key, limit=engine_limit, exact=exact, filter=condition)).hits
        # the last value is rarer than the last one that is wanted: nothing behind it can be as frequent
        if len(counted) < engine_limit or engine_limit == LARGEST_COUNT or counted[-1].count < counted[limit - 1].count:
            break
        engine_limit *= 8
    hits = [models.FacetValueHit(value=_client_value(hit.value), count=hit.count) for hit in counted]
    return sorted(hits, key=lambda hit: (-hit.count, hit.value))[:limit]


def _client_value(value: Any) -> Any:
    return value if isinstance(value, (str, int, bool)) else str(value)
