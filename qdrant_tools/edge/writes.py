"""The client's methods that change points, over an `Engine`: upserts, deletions, payloads, vectors, bulk loads.

Guarantees: when a method returns, the change is in the engine's write-ahead log and survives the end of the process,
however it ends; `flush` makes it survive a power failure too. The log contains no filter: a filter is answered first,
and the write is logged with the ids of its points. The engine would evaluate a logged filter again when it opens the
collection, and might select other points. The log stores a bound of infinity as no bound, and a vector or an index that
the filter names may be gone by then. Does not know: files, reader processes.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import qdrant_edge as qe
from qdrant_client.client_base import QdrantBase
from qdrant_client.conversions import common_types as types
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import (
    DONE,
    EngineId,
    VectorSchema,
    check_options,
    engine_id,
    engine_ids,
    json_payload,
    text,
    texts,
    unsupported,
    whole,
)
from qdrant_tools.edge.convert.config import index_due
from qdrant_tools.edge.convert.filters import engine_filter
from qdrant_tools.edge.convert.records import blocks, engine_points, rows_of
from qdrant_tools.edge.readers.messages import Entry
from qdrant_tools.edge.storage.disk_space import Sizes, payload_bytes, point_sizes, vector_numbers
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError, NotSupportedError
from qdrant_tools.validation import DEEPEST_PAYLOAD, brief, path_depth

P = ParamSpec("P")
R = TypeVar("R")

Operation = qe.UpdateOperation
UPLOAD_BATCH = 256  # the engine's best between call overhead and memory
POINTS_PER_OPERATION = 50_000  # points that a filter selected; larger changes are several operations


def journaled(method: Callable[P, R]) -> Callable[P, R]:
    """Write the call of a method into the collection's journal, for the reader processes to repeat it."""

    @wraps(method)
    def journaling(*args: P.args, **options: P.kwargs) -> R:
        self, *arguments = args
        name: Any = arguments.pop(0) if arguments else options["collection_name"]
        rest = {key: value for key, value in options.items() if key != "collection_name"}
        # no lock is held here: an alias takes the engine's, whose holder may wait for writes
        collection = self.engine.collection(name)  # type: ignore[attr-defined]
        with collection.described(Entry(method.__name__, tuple(arguments), rest)):
            return method(*args, **options)

    return journaling


class WriteMethods(QdrantBase):
    """The writing methods of `QdrantBase`; also `build_index` and `flush`."""

    engine: Engine

    @journaled
    def upsert(
        self,
        collection_name: str,
        points: types.Points,
        update_filter: types.Filter | None = None,
        update_mode: types.UpdateMode | None = None,
        **options: Any,
    ) -> types.UpdateResult:
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            if isinstance(points, Iterator):  # read twice: converted here, measured below
                points = list(points)
            converted = engine_points(points, collection.schema)
            if not converted:
                raise InputError(f"collection '{collection.name}': an upsert needs at least one point, got none")
            mode = models.UpdateMode.UPSERT if update_mode is None else upsert_mode(update_mode)
            condition = engine_filter(update_filter)
        needed = collection.upsert_bytes(point_sizes(points, collection.schema))
        with collection.changing():  # which points are refused must hold until the others are written
            ids = {point.id for point in converted}
            refused = refused_ids(collection, ids, mode, condition)
            kept = [point for point in converted if point.id not in refused] if refused else converted
            if kept:
                with collection.call:
                    operation = Operation.upsert_points(kept)
                collection.write(operation, needed=needed, upserts=kept)
        self.engine.builds.wrote(collection)
        return DONE

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[types.PointStruct],
        batch_size: int = UPLOAD_BATCH,
        update_filter: types.Filter | None = None,
        update_mode: types.UpdateMode | None = None,
        **options: Any,
    ) -> None:
        """Upsert all points, then flush, and build the index if a server would have built it by now."""
        check_options(options)
        whole(batch_size, "batch_size")
        for block in blocks(points, batch_size):
            self.upsert(collection_name, block, update_filter=update_filter, update_mode=update_mode)
        collection = self.engine.collection(collection_name)
        if index_due(collection.settings, collection.info()):
            self.build_index(collection.name)
        else:
            collection.flush()

    def upload_collection(
        self,
        collection_name: str,
        vectors: Any,
        payload: Iterable[dict[Any, Any]] | None = None,
        ids: Iterable[types.PointId] | None = None,
        batch_size: int = UPLOAD_BATCH,
        **options: Any,
    ) -> None:
        """Upsert columns of ids, vectors and payloads; the default ids are random UUIDs."""
        whole(batch_size, "batch_size")
        id_column = ids if ids is not None else (str(uuid.uuid4()) for _ in itertools.count())
        payload_column: Iterable[Any] = payload if payload is not None else itertools.repeat(None)
        points = (
            models.PointStruct.model_construct(id=point_id, vector=vector, payload=point_payload)
            # not strict: the default ids and payloads never end
            for point_id, vector, point_payload in zip(
                id_column, rows(vectors, batch_size), payload_column, strict=False
            )
        )
        self.upload_points(collection_name, points, batch_size, **options)

    @journaled
    def delete(self, collection_name: str, points_selector: types.PointsSelector, **options: Any) -> types.UpdateResult:
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            selector = engine_selector(points_selector)
        with collection.changing():
            for ids in selected_ids(collection, selector):
                collection.delete(Operation.delete_points(ids), len(ids))
        return DONE

    # -- payloads and vectors of stored points

    def set_payload(
        self,
        collection_name: str,
        payload: types.Payload,
        points: types.PointsSelector,
        key: str | None = None,
        **options: Any,
    ) -> types.UpdateResult:
        return self._set(collection_name, "set_payload", payload, points, key, **options)

    def overwrite_payload(
        self, collection_name: str, payload: types.Payload, points: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        return self._set(collection_name, "overwrite_payload", payload, points, None, **options)

    def _set(
        self, collection_name: str, operation: str, payload: Any, points: Any, key: Any, **options: Any
    ) -> types.UpdateResult:
        depth = 0 if key is None else path_depth(text(key, "key"))
        if depth >= DEEPEST_PAYLOAD:
            raise InputError(f"key {brief(key)} is {depth} levels deep, expected fewer than {DEEPEST_PAYLOAD}")
        json_values = json_payload(payload, levels=DEEPEST_PAYLOAD - depth)
        return self._change(collection_name, operation, points, json_values, key, **options)

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        return self._change(collection_name, "delete_payload", points, texts(keys, "keys"), **options)

    def clear_payload(
        self, collection_name: str, points_selector: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        return self._change(collection_name, "clear_payload", points_selector, **options)

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        names = texts(vectors, "vectors")
        for name in names:
            self.engine.collection(collection_name).schema.require(name)
        return self._change(collection_name, "delete_vectors", points, names, **options)

    @journaled
    def update_vectors(
        self,
        collection_name: str,
        points: Sequence[types.PointVectors],
        update_filter: types.Filter | None = None,
        **options: Any,
    ) -> types.UpdateResult:
        check_options(options)
        collection = self.engine.collection(collection_name)
        schema = collection.schema
        with collection.call:
            changed = [engine_vectors(point, schema) for point in points]
            if not changed:
                raise InputError(f"collection '{collection.name}': an update of vectors needs a point, got none")
            condition = engine_filter(update_filter)
        dense, sparse = vector_numbers(point.vector for point in points)
        with collection.changing():
            refused = refused_ids(collection, {point.id for point in changed}, models.UpdateMode.UPSERT, condition)
            kept = [point for point in changed if point.id not in refused]
            if kept:
                with collection.call:
                    operation = Operation.update_vectors(kept)
                ids = [point.id for point in kept]
                needed = Sizes(0, dense, sparse).needed(0) + collection.change_bytes(0, ids)
                collection.write(operation, needed=needed, overwrites=ids)
        return DONE

    @journaled
    def _change(
        self, collection_name: str, operation: str, points: Any, *arguments: Any, **options: Any
    ) -> types.UpdateResult:
        """Apply `operation` to the points selected by ids or by a filter."""
        check_options(options)
        collection = self.engine.collection(collection_name)
        make = getattr(Operation, operation)
        with collection.call:
            selector = engine_selector(points)
            make([], *arguments)  # refuses what the engine cannot take, before anything is changed
        added = payload_bytes(arguments)
        with collection.changing():
            id_blocks = list(selected_ids(collection, selector))
            needed = sum(collection.change_bytes(added, ids) for ids in id_blocks)
            for ids in id_blocks:
                with collection.call:
                    update = make(ids, *arguments)
                collection.write(update, needed=needed, overwrites=ids if operation == "delete_vectors" else ())
                needed = 0  # the first write has required the room for all of them
        return DONE

    def batch_update_points(
        self, collection_name: str, update_operations: Sequence[types.UpdateOperation], **options: Any
    ) -> list[types.UpdateResult]:
        """Apply the operations in order. As on a server, an error leaves those before it applied."""
        check_options(options)
        return [self._apply(collection_name, operation) for operation in update_operations]

    def _apply(self, name: str, operation: Any) -> types.UpdateResult:
        if isinstance(operation, models.UpsertOperation):
            upsert = operation.upsert
            return self.upsert(name, upsert, upsert.update_filter, upsert.update_mode, shard_key=upsert.shard_key)  # type: ignore[arg-type]
        if isinstance(operation, models.DeleteOperation):
            return self.delete(name, operation.delete)
        if isinstance(operation, models.ClearPayloadOperation):
            return self.clear_payload(name, operation.clear_payload)
        if isinstance(operation, models.SetPayloadOperation):
            change = operation.set_payload
            return self.set_payload(name, change.payload, points_of(change), change.key)
        if isinstance(operation, models.OverwritePayloadOperation):
            change = operation.overwrite_payload
            return self._set(name, "overwrite_payload", change.payload, points_of(change), change.key)
        if isinstance(operation, models.DeletePayloadOperation):
            return self.delete_payload(name, operation.delete_payload.keys, points_of(operation.delete_payload))
        if isinstance(operation, models.UpdateVectorsOperation):
            return self.update_vectors(name, operation.update_vectors.points, operation.update_vectors.update_filter)
        if isinstance(operation, models.DeleteVectorsOperation):
            return self.delete_vectors(name, operation.delete_vectors.vector, points_of(operation.delete_vectors))
        raise unsupported(operation, "operation")

    # -- index and durability

    def build_index(self, collection_name: str) -> bool:
        """Run the engine's optimizer now: HNSW, quantisation, clearing of deleted points. False if nothing was due.

        A collection of any size is built in a child process; searches and writes go on meanwhile.
        """
        return self.engine.build(self.engine.collection(collection_name))

    def flush(self, collection_name: str) -> None:
        """Make every acknowledged write survive a power failure."""
        self.engine.collection(collection_name).flush()


def rows(vectors: Any, block: int) -> Iterator[Any]:
    """Vectors row by row from a matrix, a mapping of names to matrices, or an iterable; a block at a time."""
    if isinstance(vectors, dict):
        yield from rows_of(vectors)
    elif isinstance(vectors, np.ndarray):
        for start in range(0, len(vectors), block):
            # one call converts a whole block, and no more than a block is in memory twice
            yield from vectors[start : start + block].tolist()
    else:
        yield from vectors


def points_of(change: Any) -> Any:
    """The points of one operation of a batch: its ids or its filter."""
    if change.points is None and change.filter is None:
        raise InputError("an operation on points needs points or a filter")
    return change.points if change.points is not None else change.filter


def engine_vectors(point: Any, schema: VectorSchema) -> qe.PointVectors:
    if not isinstance(point, models.PointVectors):
        raise InputError(f"expected a PointVectors, got {brief(point)}")
    if isinstance(point.vector, dict) and not point.vector:
        raise InputError(f"point {brief(point.id)} comes without a vector to update: name at least one")
    return qe.PointVectors(engine_id(point.id), schema.check_all(point.vector))


def engine_selector(selector: Any) -> list[EngineId] | qe.Filter:
    """Point ids, or the filter that selects them. Raises `InputError`."""
    if isinstance(selector, models.PointIdsList | models.FilterSelector) and selector.shard_key is not None:
        raise NotSupportedError("shard_key: the embedded engine has one shard; drop it or use a server")
    if isinstance(selector, models.FilterSelector):
        selector = selector.filter
    if isinstance(selector, models.Filter):
        return engine_filter(selector) or qe.Filter()
    if isinstance(selector, models.PointIdsList):
        selector = selector.points
    if isinstance(selector, (list, tuple)):
        return engine_ids(selector)
    if isinstance(selector, (int, str, uuid.UUID, np.integer)):
        return [engine_id(selector)]
    raise InputError(f"expected point ids or a filter, got {brief(selector)}")


def selected_ids(collection: OpenCollection, selector: list[EngineId] | qe.Filter) -> Iterator[list[EngineId]]:
    """The ids themselves, or those of the points that the filter selects, in blocks; no block if there are none.

    A change of one block must not decide whether the filter selects a point of a later one. No operation here does.
    """
    if isinstance(selector, list):
        if selector:
            yield selector
        return
    offset: EngineId | None = None
    while True:
        ids, offset = matching_ids(collection, selector, POINTS_PER_OPERATION, offset)
        if ids:
            yield ids
        if offset is None:
            return


def matching_ids(
    collection: OpenCollection, condition: qe.Filter, limit: int, offset: EngineId | None = None
) -> tuple[list[EngineId], EngineId | None]:
    """The ids of the first points from `offset` on that a filter selects, and the offset of the rest."""
    request = qe.ScrollRequest(limit=limit, offset=offset, filter=condition, with_payload=False, with_vector=False)
    with collection.hold() as shard:
        records, following = shard.scroll(request)
        return [record.id for record in records], following


def upsert_mode(name: Any) -> models.UpdateMode:
    """The mode of that name. Raises `InputError`."""
    try:
        return models.UpdateMode(text(name, "update_mode"))
    except ValueError as error:
        expected = ", ".join(mode.value for mode in models.UpdateMode)
        raise InputError(f"update_mode {brief(name)} is invalid, expected one of {expected}") from error


def refused_ids(
    collection: OpenCollection, ids: set[EngineId], mode: models.UpdateMode, condition: qe.Filter | None
) -> set[EngineId]:
    """The points that an upsert must leave alone, by its mode and its filter. A new point passes every filter."""
    if mode == models.UpdateMode.UPSERT and condition is None:
        return set()
    with collection.hold() as shard:
        stored = {record.id for record in shard.retrieve(list(ids), False, False)}
    if mode == models.UpdateMode.INSERT_ONLY:
        return stored
    refused = set[EngineId]()
    if condition is not None and stored:
        both = qe.Filter(must=[condition, qe.HasIdCondition(stored)])
        refused = stored - set(matching_ids(collection, both, len(stored))[0])
    # the third mode, UPDATE_ONLY, refuses new points too
    return refused if mode == models.UpdateMode.UPSERT else refused | (ids - stored)
