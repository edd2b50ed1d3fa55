"""Groups and distance matrices, which the engine's binding lacks: computed from several searches.

Groups are as on a server. A point with several values is in several groups; a point with a value that is neither text
nor an integer is in none; groups are ordered by their best hit. Prefetches fetch `group_size` times as much, and enough
to take a small collection whole, as local mode does. (A server searches up to ten times, each time for other groups.)

Matrices are as on a server too. Points are drawn at random among those that pass the filter and have the vector. Each
is compared with the others, and the sample is ordered by id.

Does not know: the engine; it uses the methods of `QdrantBase`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client.client_base import QdrantBase
from qdrant_client.http import models
from qdrant_client.local.payload_value_extractor import value_by_key

from qdrant_tools.edge.convert.checks import DEFAULT_VECTOR, LARGEST_COUNT, text, whole
from qdrant_tools.edge.convert.filters import as_filter, listed
from qdrant_tools.edge.queries import check_prefetches, checked_limit
from qdrant_tools.errors import InputError
from qdrant_tools.validation import brief

GROWTH = 4  # how much deeper each search for groups goes
LEAST_PREFETCH = 5_000  # points that a prefetch below groups fetches at least

GroupKey = tuple[bool, str | int]  # whether it is text, and the value: 1 and "1" are two groups


@dataclass(frozen=True)
class Grouping:
    """What to group by, how many groups, how many hits in each."""

    key: str
    groups: int
    size: int

    def __post_init__(self) -> None:
        text(self.key, "group_by")
        checked_limit(self.groups, "limit")
        checked_limit(self.size, "group_size")


def find_groups(client: QdrantBase, name: str, grouping: Grouping, query: dict[str, Any]) -> list[models.PointGroup]:
    """Return the groups, hits without payload and vectors. `query` holds the arguments of `query_points`.

    The search goes deeper until the groups are full or the collection is exhausted.
    """
    check_prefetches(query.get("prefetch"))
    query = {**query, "prefetch": deeper_prefetch(query.get("prefetch"), grouping.size)}
    query["query_filter"] = with_key(query.get("query_filter"), grouping.key)
    root = grouping.key.removesuffix("[]")
    depth = min(grouping.groups * grouping.size * GROWTH, LARGEST_COUNT)
    while True:
        hits = client.query_points(name, limit=depth, with_payload=[root], with_vectors=False, **query).points
        groups = collect(hits, grouping)
        if len(hits) < depth or full(groups, grouping):
            return [models.PointGroup(id=value, hits=group) for (_, value), group in groups.items()]
        depth = min(depth * GROWTH, LARGEST_COUNT)


def collect(hits: Sequence[models.ScoredPoint], grouping: Grouping) -> dict[GroupKey, list[models.ScoredPoint]]:
    """The first `groups` groups with their first `size` hits, both in the order of the hits."""
    groups: dict[GroupKey, list[models.ScoredPoint]] = {}
    for hit in hits:
        for key in group_keys(hit.payload or {}, grouping.key):
            if key not in groups and len(groups) >= grouping.groups:
                continue
            group = groups.setdefault(key, [])
            if len(group) < grouping.size:
                group.append(hit)
    return groups


def full(groups: dict[GroupKey, list[models.ScoredPoint]], grouping: Grouping) -> bool:
    return len(groups) >= grouping.groups and all(len(group) >= grouping.size for group in groups.values())


def group_keys(payload: dict[str, Any], path: str) -> list[GroupKey]:
    """The distinct groups of one point, none if any of its values cannot name a group."""
    values: list[Any] = value_by_key(payload, path) or []
    if any(type(value) not in (str, int) for value in values):  # by exact type: True is an int too
        return []
    return list(dict.fromkeys((type(value) is str, value) for value in values))


def with_key(query_filter: Any, key: str) -> models.Filter:
    """`query_filter`, and the payload has `key`."""
    absent = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    filter_ = as_filter(query_filter) or models.Filter()
    return filter_.model_copy(update={"must_not": [*listed(filter_.must_not), absent]})


def deeper_prefetch(prefetch: Any, factor: int) -> Any:
    """The prefetches with their limits multiplied, nested ones too, and no limit below `LEAST_PREFETCH`."""
    if prefetch is None:
        return None
    if isinstance(prefetch, list):
        return [deeper_prefetch(part, factor) for part in prefetch]
    limit = min(checked_limit(prefetch.limit, "prefetch limit") * factor, LARGEST_COUNT)
    if not isinstance(prefetch.query, models.NearestQuery) or prefetch.query.mmr is None:
        limit = max(limit, LEAST_PREFETCH)  # not for MMR, which compares every point with every other
    return prefetch.model_copy(update={"limit": limit, "prefetch": deeper_prefetch(prefetch.prefetch, factor)})


def add_contents(
    client: QdrantBase, name: str, groups: Sequence[models.PointGroup], with_payload: Any, with_vectors: Any
) -> None:
    """Give every hit its payload and vectors, as requested."""
    ids = list({hit.id for group in groups for hit in group.hits})
    records = {record.id: record for record in client.retrieve(name, ids, with_payload, with_vectors)}
    for group in groups:
        for hit in group.hits:
            record = records.get(hit.id)
            hit.payload, hit.vector = (record.payload, record.vector) if record is not None else (None, None)


def add_lookups(client: QdrantBase, groups: Sequence[models.PointGroup], with_lookup: Any) -> None:
    """Give every group the record of another collection that its id names, None where it names none."""
    lookup = models.WithLookup(collection=with_lookup) if isinstance(with_lookup, str) else with_lookup
    if not isinstance(lookup, models.WithLookup):
        raise InputError(f"with_lookup expects a collection name or models.WithLookup, got {brief(with_lookup)}")
    payload = True if lookup.with_payload is None else lookup.with_payload
    for group in groups:
        try:
            records = client.retrieve(lookup.collection, [group.id], payload, lookup.with_vectors or False)
        except InputError:  # the group's value is no point id
            records = []
        group.lookup = records[0] if records else None


# -- distance matrices


@dataclass(frozen=True)
class MatrixSettings:
    """How many points to draw, how many neighbours to report for each, by which vector."""

    sample: int
    limit: int
    using: str

    @classmethod
    def of(cls, sample: int, limit: int, using: str | None) -> MatrixSettings:
        return cls(whole(sample, "sample", least=2), checked_limit(limit, "limit"), using or DEFAULT_VECTOR)


def sampled_neighbours(
    client: QdrantBase, name: str, settings: MatrixSettings, query_filter: Any
) -> tuple[list[models.ExtendedPointId], list[list[models.ScoredPoint]]]:
    """Return the sampled ids in order, and for each its nearest among the others, best first."""
    vector = settings.using
    filter_ = as_filter(query_filter) or models.Filter()
    has_vector = models.HasVectorCondition(has_vector=vector)
    sample = client.query_points(
        name,
        query=models.SampleQuery(sample=models.Sample.RANDOM),
        query_filter=filter_.model_copy(update={"must": [*listed(filter_.must), has_vector]}),
        limit=settings.sample,
        with_payload=False,
        with_vectors=[vector],
    ).points
    if len(sample) < 2:
        return [], []
    # numbers first: they do not compare with UUIDs
    sample = sorted(sample, key=lambda point: (isinstance(point.id, str), point.id))
    ids = [point.id for point in sample]
    requests = [
        models.QueryRequest.model_construct(
            query=models.NearestQuery.model_construct(nearest=_vector(point, vector), mmr=None),
            using=vector or None,
            filter=models.Filter(must=[models.HasIdCondition(has_id=[other for other in ids if other != point.id])]),
            limit=settings.limit,
            with_payload=False,
            with_vector=False,
        )
        for point in sample
    ]
    return ids, [answer.points for answer in client.query_batch_points(name, requests)]


def pairs_response(ids: list[Any], neighbours: list[list[models.ScoredPoint]]) -> models.SearchMatrixPairsResponse:
    rows = [
        models.SearchMatrixPair(a=point_id, b=hit.id, score=hit.score)
        for point_id, hits in zip(ids, neighbours, strict=True)
        for hit in hits
    ]
    return models.SearchMatrixPairsResponse(pairs=rows)


def offsets_response(ids: list[Any], neighbours: list[list[models.ScoredPoint]]) -> models.SearchMatrixOffsetsResponse:
    column = {point_id: index for index, point_id in enumerate(ids)}
    cells = [(row, column[hit.id], hit.score) for row, hits in enumerate(neighbours) for hit in hits]
    return models.SearchMatrixOffsetsResponse(
        offsets_row=[row for row, _, _ in cells],
        offsets_col=[col for _, col, _ in cells],
        scores=[score for _, _, score in cells],
        ids=ids,
    )


def _vector(point: models.ScoredPoint, name: str) -> Any:
    return point.vector[name] if isinstance(point.vector, dict) else point.vector
