"""Queries -> hits of one collection, by their vectors.

Guarantees: typed hits with text and metadata, best first. Scores that differ by rounding alone are made equal (see
`neighbours.levelled`), and equal scores come in the order of their passage ids. An encoder of another space is refused.
The engine decides which of several equally scored points are among the first k. Does not know: how a query becomes a
vector.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Unpack

from numpy.typing import ArrayLike
from qdrant_client import models

from qdrant_tools.client.gateway import SEARCHES_AT_ONCE, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError
from qdrant_tools.fields import Field, shown, steps_of
from qdrant_tools.records import Encoder, Hit, Vectors
from qdrant_tools.search.neighbours import levelled
from qdrant_tools.search.options import SearchKwargs, SearchOptions, occurs, refuse_paths
from qdrant_tools.validation import brief, checked_count, checked_text, checked_unit_vectors, checked_vectors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HitGroup:
    """The best hits that share a value of a metadata field, usually the document they come from."""

    value: str | int
    hits: tuple[Hit, ...]


def search(collection: Collection, query: str, encoder: Encoder, **kwargs: Unpack[SearchKwargs]) -> list[Hit]:
    """Find the k passages nearest to a query. Arguments as in `SearchOptions`, errors as in `search_batch`."""
    return search_batch(collection, [query], encoder, **kwargs)[0]


def search_batch(
    collection: Collection, queries: Sequence[str], encoder: Encoder, **kwargs: Unpack[SearchKwargs]
) -> list[list[Hit]]:
    """Find the k nearest passages for each query, in the order of the queries. Arguments as in `SearchOptions`.

    Raises:
        SpaceMismatchError: the collection was filled by another encoder.
        InputError: a query that is empty or not a string, k below 1, a filter value that cannot be expressed.
    """
    if not checked_queries(queries):
        return []
    return search_vectors(collection, encoded(collection, queries, encoder), **kwargs)


def search_vectors(collection: Collection, vectors: ArrayLike, **kwargs: Unpack[SearchKwargs]) -> list[list[Hit]]:
    """As `search_batch`, for query vectors (n, dimension) of the collection's space.

    Raises:
        VectorError: wrong shape, NaN, or a row of zeros.
    """
    options = SearchOptions(**kwargs)
    rows = checked_vectors(vectors, dimension=collection.dimension, what="query vectors")
    template = options.request(collection)
    requests = (template.model_copy(update={"query": options.query(row.tolist())}) for row in rows)
    # with diversity the order is a choice, and its scores do not fall from hit to hit
    return run_requests(collection, requests, ranked=options.diversity is not None)


def search_groups(
    collection: Collection,
    query: str,
    encoder: Encoder,
    *,
    by: Field,
    group_size: int = 3,
    **kwargs: Unpack[SearchKwargs],
) -> list[HitGroup]:
    """Find the k nearest groups of passages, each with its best hits; `by` is the metadata field they share, a name
    or a tuple of names.

    Groups come in the order of their best hits, equal ones by value. Passages without the field are in no group, nor
    are those whose value is neither a string nor an integer: 2020.0 is none. A warning says so where no group is found
    for that reason. An index of kind keyword or integer on the field makes groups fast.

    Raises:
        SpaceMismatchError, InputError: as in `search_batch`; `diversity` cannot be had for groups.
    """
    options = SearchOptions(**kwargs)
    checked_count("group_size", group_size)
    steps_of(by, "by")
    if options.diversity is not None:
        raise InputError("diversity is for single hits: groups by a field are diverse by that field already")
    refuse_paths(collection, [by])
    vector = encoded(collection, checked_queries([query]), encoder)[0]
    template = options.request(collection)
    path = collection.layout.metadata_field(by)
    groups_found = collection.gateway.query_groups(
        path,
        query=vector.tolist(),
        using=template.using,
        query_filter=template.filter,
        search_params=template.params,
        score_threshold=template.score_threshold,
        limit=options.k,
        group_size=group_size,
        with_payload=options.payload(collection),
    )
    if not groups_found and options.score_threshold is None and occurs(collection, path, template.filter):
        logger.warning(
            "collection %r has passages with the field %s, but in none of them it is a string or an integer, as groups "
            "need it",
            collection.name,
            shown(steps_of(by, "by")),
        )
    groups = [HitGroup(group.id, tuple(_hits(collection, group.hits))) for group in groups_found if group.hits]
    best = levelled([group.hits[0].score for group in groups]).tolist()
    # numbers before texts: the two cannot be compared with each other
    keys = [(-score, isinstance(group.value, str), group.value) for score, group in zip(best, groups, strict=True)]
    return [groups[index] for index in sorted(range(len(groups)), key=keys.__getitem__)]


def encoded(collection: Collection, queries: Sequence[str], encoder: Encoder) -> Vectors:
    """The vectors of checked queries, checked to be of the collection's space."""
    collection.check(encoder)
    return checked_unit_vectors(
        encoder.encode_queries(queries),
        dimension=collection.dimension,
        count=len(queries),
        what=f"queries encoded by {encoder.space!r}",
    )


def run_requests(
    collection: Collection, requests: Iterable[models.QueryRequest], *, ranked: bool = False
) -> list[list[Hit]]:
    """The hits of each request, in the order of the requests. `ranked` keeps the engine's order of hits."""
    found: list[list[Hit]] = []
    remaining = iter(requests)
    # a round trip at a time: vectors as lists, and points of a client, take many times the room of the hits
    while block := list(islice(remaining, SEARCHES_AT_ONCE)):
        found += [_hits(collection, points, ranked=ranked) for points in collection.gateway.query_batch(block)]
    return found


def checked_queries(queries: Sequence[str]) -> Sequence[str]:
    """The queries, if they are a list of non-empty strings. Raises `InputError` for anything else."""
    if isinstance(queries, str):
        raise InputError("queries is one string, expected a list of strings; search() takes one query")
    if not isinstance(queries, Sequence):
        raise InputError(f"queries is {brief(queries)}, expected a list of strings")
    for query in queries:
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"query is {brief(query)}, expected a non-empty string")
        checked_text("query", query)
    return queries


def _hits(collection: Collection, points: Sequence[models.ScoredPoint], *, ranked: bool = False) -> list[Hit]:
    scores = [point.score for point in points] if ranked else levelled([point.score for point in points]).tolist()
    scored = [
        (score, collection.layout.passage(point.payload, point_id=plain_id(point.id)), plain_id(point.id))
        for point, score in zip(points, scores, strict=True)
    ]
    if not ranked:
        # two points of a foreign collection may hold one passage id: the point id decides then
        scored.sort(key=lambda item: (-item[0], item[1].id, str(item[2])))
    return [
        Hit(passage.id, score, rank, passage.text, passage.metadata, point_id)
        for rank, (score, passage, point_id) in enumerate(scored, start=1)
    ]
