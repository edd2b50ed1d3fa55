"""Queries -> hits of one collection.

Guarantees: typed hits with text and metadata, best first; equal scores come in the order of their passage ids; an
encoder of another space is refused. Which of several equally scored points make it into the first k is the engine's
choice. Does not know: how a query becomes a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike
from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.filters import PlainFilter, as_filter
from qdrant_tools.handle import Collection, plain_id
from qdrant_tools.records import Encoder, Hit
from qdrant_tools.translate import engine_errors
from qdrant_tools.vectors import checked_unit_vectors, checked_vectors

REQUESTS_AT_ONCE = 64
"""Queries per round trip: enough to keep a server busy, few enough to bound the answer."""


def search(
    collection: Collection,
    query: str,
    encoder: Encoder,
    *,
    k: int = 10,
    hnsw_ef: int | None = None,
    exact: bool = False,
    filter: PlainFilter | models.Filter | None = None,
) -> list[Hit]:
    """Find the k passages nearest to a query. Arguments and errors as in `search_batch`."""
    return search_batch(collection, [query], encoder, k=k, hnsw_ef=hnsw_ef, exact=exact, filter=filter)[0]


def search_batch(
    collection: Collection,
    queries: Sequence[str],
    encoder: Encoder,
    *,
    k: int = 10,
    hnsw_ef: int | None = None,
    exact: bool = False,
    filter: PlainFilter | models.Filter | None = None,
) -> list[list[Hit]]:
    """Find the k nearest passages for each query, in the order of the queries.

    `hnsw_ef` widens the search beam beyond what the collection keeps; `exact` compares with every vector
    instead, as `:memory:` always does.
    `filter` is `{"field": value or [values]}` on the metadata, or a Qdrant filter on the payload.

    Raises:
        SpaceMismatchError: the collection was filled by another encoder.
        InputError: a query that is empty or not a string, k below 1, a filter value that cannot be expressed.
    """
    collection.check(encoder)
    if not checked_queries(queries):
        return []
    vectors = checked_unit_vectors(
        encoder.encode_queries(queries),
        dimension=collection.dimension,
        count=len(queries),
        what=f"queries encoded by {encoder.space!r}",
    )
    return search_vectors(collection, vectors, k=k, hnsw_ef=hnsw_ef, exact=exact, filter=filter)


def search_vectors(
    collection: Collection,
    vectors: ArrayLike,
    *,
    k: int = 10,
    hnsw_ef: int | None = None,
    exact: bool = False,
    filter: PlainFilter | models.Filter | None = None,
) -> list[list[Hit]]:
    """As `search_batch`, for query vectors (n, dimension) of the collection's space.

    Raises:
        VectorError: wrong shape, NaN, or a row of zeros.
    """
    checked_count("k", k)
    if hnsw_ef is not None:
        checked_count("hnsw_ef", hnsw_ef)
    rows = checked_vectors(vectors, dimension=collection.dimension, what="query vectors")
    template = models.QueryRequest(
        using=collection.layout.vector or None,
        filter=as_filter(filter, layout=collection.layout),
        params=collection.search_params(hnsw_ef=hnsw_ef, exact=exact),
        limit=k,
        with_payload=True,
    )
    return run_requests(collection, [template.model_copy(update={"query": row}) for row in rows.tolist()])


def run_requests(collection: Collection, requests: Sequence[models.QueryRequest]) -> list[list[Hit]]:
    """Send prepared requests in batches; the hits of each, in order."""
    results: list[list[Hit]] = []
    for start in range(0, len(requests), REQUESTS_AT_ONCE):
        batch = list(requests[start : start + REQUESTS_AT_ONCE])
        with engine_errors(f"search collection {collection.name!r}"):
            responses = collection.client.query_batch_points(collection.name, batch)
        results.extend(_hits(collection, response.points) for response in responses)
    return results


def checked_queries(queries: Sequence[str]) -> Sequence[str]:
    """Refuse what is not a list of queries that say something."""
    if isinstance(queries, str):
        raise InputError("queries is one string, expected a list of strings; search() takes one query")
    for query in queries:
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"query is {query!r}, expected a non-empty string")
    return queries


def checked_count(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}, expected a whole number of at least 1")


def _hits(collection: Collection, points: Sequence[models.ScoredPoint]) -> list[Hit]:
    found = [(collection.layout.passage(p.payload, point_id=plain_id(p.id)), p) for p in points]
    found.sort(key=lambda pair: (-pair[1].score, pair[0].id))
    return [
        Hit(passage.id, point.score, rank, passage.text, passage.metadata, plain_id(point.id))
        for rank, (passage, point) in enumerate(found, start=1)
    ]
