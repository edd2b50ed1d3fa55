"""Query vectors -> arrays of ids and scores. A Python object for each hit would cost more than the search.

Guarantees: the ids and scores that `query_batch_points` finds, in the same order. Does not know: payloads, processes.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import DEFAULT_VECTOR, client_id
from qdrant_tools.edge.convert.filters import engine_filter
from qdrant_tools.edge.queries import checked_limit, search_params
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.records import ScoredIds

Ids = Sequence[str | int]
UUID_BYTES = np.dtype("V16")  # not S16: numpy drops zeros at the end of byte strings


@dataclass(frozen=True)
class VectorQueries:
    """Searches that differ in their vectors (n, dimension) and limits only."""

    vectors: NDArray[np.float32]
    limits: Sequence[int]
    using: str | None = None
    params: models.SearchParams | None = None
    filter: models.Filter | None = None

    def part(self, start: int, end: int) -> VectorQueries:
        return VectorQueries(self.vectors[start:end], self.limits[start:end], self.using, self.params, self.filter)


@dataclass(frozen=True)
class Rankings:
    """The hits of all queries one after another: those of query i from `starts[i]` to `starts[i + 1]`, best first."""

    ids: Ids
    scores: NDArray[np.float32]
    starts: NDArray[np.int64]

    def of_each_query(self) -> list[ScoredIds]:
        """Ids and scores of each query."""
        bounds = self.starts.tolist()
        return [(self.ids[start:end], self.scores[start:end]) for start, end in itertools.pairwise(bounds)]

    def packed(self) -> Rankings:
        """The same with ids that can leave this process."""
        return Rankings(PackedIds.of(self.ids), self.scores, self.starts) if isinstance(self.ids, PointIds) else self


class PointIds(Sequence[str | int]):
    """The ids of points, each made when it is read: making a UUID takes longer than finding its point."""

    def __init__(self, points: Sequence[qe.ScoredPoint]) -> None:
        self.points = points

    @overload
    def __getitem__(self, index: int) -> str | int: ...
    @overload
    def __getitem__(self, index: slice) -> Ids: ...
    def __getitem__(self, index: int | slice) -> str | int | Ids:
        return PointIds(self.points[index]) if isinstance(index, slice) else client_id(self.points[index].id)

    def __len__(self) -> int:
        return len(self.points)


class PackedIds(Sequence[str | int]):
    """Ids in an array: 64-bit integers, the 16 bytes of UUIDs, or Python objects where both occur."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    @classmethod
    def of(cls, ids: PointIds) -> PackedIds:
        engine_ids: list[Any] = [point.id for point in ids.points]
        kinds = set(map(type, engine_ids))
        if kinds == {int}:
            return cls(np.array(engine_ids, dtype=np.uint64))
        if kinds == {uuid.UUID}:
            return cls(np.frombuffer(b"".join([point_id.bytes for point_id in engine_ids]), dtype=UUID_BYTES))
        return cls(np.array([client_id(point_id) for point_id in engine_ids], dtype=object))

    @overload
    def __getitem__(self, index: int) -> str | int: ...
    @overload
    def __getitem__(self, index: slice) -> Ids: ...
    def __getitem__(self, index: int | slice) -> str | int | Ids:
        if isinstance(index, slice):
            return PackedIds(self.array[index])
        value: Any = self.array[index]
        if self.array.dtype == UUID_BYTES:
            return str(uuid.UUID(bytes=value.tobytes()))
        return value if isinstance(value, str) else int(value)

    def __len__(self) -> int:
        return len(self.array)


def engine_rankings(engine: Engine, name: str, queries: VectorQueries) -> Rankings:
    """The rankings by the engine of this process. Raises `VectorError`, `InputError`, `NotSupportedError`."""
    collection = engine.collection(name)
    with collection.call:
        batch = qe.QueryBatchRequest(_requests(collection, queries))
    with collection.hold() as shard:
        answers = shard.query_batch(batch)
    # the engine's own objects are kept: an id is made when it is read, and most never are
    points = [point for answer in answers for point in answer]
    scores = np.fromiter((point.score for point in points), dtype=np.float32, count=len(points))
    return Rankings(PointIds(points), scores, np.cumsum([0, *map(len, answers)]))


def _requests(collection: OpenCollection, queries: VectorQueries) -> list[qe.QueryRequest]:
    name = queries.using or DEFAULT_VECTOR
    schema = collection.schema
    schema.require(name)
    if name not in schema.dense or schema.dense[name].multi:
        raise NotSupportedError(f"{schema.where(name)}: rankings are of dense vectors, one for each point")
    params, condition = search_params(queries.params), engine_filter(queries.filter)
    rows = [schema.check(name, row) for row in queries.vectors.tolist()]
    return [
        qe.QueryRequest(
            limit=checked_limit(limit, "limit"),
            query=qe.Query.Nearest(row, using=queries.using),
            filter=condition,
            params=params,
        )
        for row, limit in zip(rows, queries.limits, strict=True)
    ]


def joined(parts: Sequence[Rankings]) -> Rankings:
    """The rankings of several parts of the queries as one."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part.packed().ids.array for part in parts]  # type: ignore[attr-defined]
    if len({array.dtype for array in arrays if len(array)}) > 1:
        # integers in one part, UUIDs in another: no array holds both, except as Python objects
        arrays = [np.array(list(PackedIds(array)), dtype=object) for array in arrays]
    # ids of no hits are an array of objects, which would make all others objects too
    arrays = [array for array in arrays if len(array)] or arrays[:1]
    starts, scores = [np.zeros(1, dtype=np.int64)], [part.scores for part in parts]
    for part in parts:
        starts.append(part.starts[1:] + starts[-1][-1])
    return Rankings(PackedIds(np.concatenate(arrays)), np.concatenate(scores), np.concatenate(starts))
