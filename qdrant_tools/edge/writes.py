"""The client's methods that change points, over an `Engine`.

When one returns, the change is in the engine's write-ahead log: it survives the end of the process, however that
comes. `flush` makes it survive a power failure too.
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

from qdrant_tools.edge.checks import EngineId, brief, engine_id, json_payload
from qdrant_tools.edge.config import member
from qdrant_tools.edge.engine import Engine
from qdrant_tools.edge.filters import engine_filter
from qdrant_tools.edge.info import index_due
from qdrant_tools.edge.journal import Entry
from qdrant_tools.edge.options import DONE, check_options
from qdrant_tools.edge.records import blocks, engine_points, rows_of
from qdrant_tools.edge.shard import OpenCollection
from qdrant_tools.errors import InputError, NotSupportedError

P = ParamSpec("P")
R = TypeVar("R")

Operation = qe.UpdateOperation
UPLOAD_BATCH = 256  # the engine's best between call overhead and memory


def journaled(method: Callable[P, R]) -> Callable[P, R]:
    """Let processes that follow a collection repeat this change: its arguments go into the journal."""

    @wraps(method)
    def described(*given: P.args, **options: P.kwargs) -> R:
        self, *arguments = given
        name: Any = arguments.pop(0) if arguments else options["collection_name"]
        rest = {key: value for key, value in options.items() if key != "collection_name"}
        collection = self.engine.collection(name)  # type: ignore[attr-defined]
        with collection.described(Entry(method.__name__, tuple(arguments), rest)):
            return method(*given, **options)

    return described


class WriteMethods(QdrantBase):
    """Upserts, deletions, changes of payloads and vectors, bulk loads, index builds."""

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
            converted = engine_points(points, collection.schema)
            if not converted:
                raise InputError(f"collection '{collection.name}': an upsert needs at least one point, got none")
            mode = member(qe.UpdateMode, update_mode)
            condition = engine_filter(update_filter)
            operation = Operation.upsert_points(converted, condition=condition, update_mode=mode)
        collection.write(operation, points=len(converted))
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
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size} is invalid, expected 1 or more")
        for block in blocks(points, batch_size):
            self.upsert(collection_name, block, update_filter=update_filter, update_mode=update_mode)
        self._settle(self.engine.collection(collection_name))

    def upload_collection(
        self,
        collection_name: str,
        vectors: Any,
        payload: Iterable[dict[Any, Any]] | None = None,
        ids: Iterable[types.PointId] | None = None,
        batch_size: int = UPLOAD_BATCH,
        **options: Any,
    ) -> None:
        """Upsert vectors given column-wise; ids are random UUIDs if not given."""
        given_ids = ids if ids is not None else (str(uuid.uuid4()) for _ in itertools.count())
        payloads: Iterable[Any] = payload if payload is not None else itertools.repeat(None)
        points = (
            models.PointStruct.model_construct(id=point_id, vector=vector, payload=each)
            for point_id, vector, each in zip(given_ids, rows(vectors, batch_size), payloads, strict=False)
        )
        self.upload_points(collection_name, points, batch_size, **options)

    @journaled
    def delete(self, collection_name: str, points_selector: types.PointsSelector, **options: Any) -> types.UpdateResult:
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            ids, condition = selection(points_selector)
        if condition is None:
            collection.delete(Operation.delete_points(ids), lambda _shard: len(ids))
        else:
            matching = qe.CountRequest(exact=True, filter=condition)
            collection.delete(Operation.delete_points_by_filter(condition), lambda shard: shard.count(matching))
        return DONE

    # -- payloads and vectors of points that are there

    def set_payload(
        self,
        collection_name: str,
        payload: types.Payload,
        points: types.PointsSelector,
        key: str | None = None,
        **options: Any,
    ) -> types.UpdateResult:
        return self._change(collection_name, "set_payload", points, json_payload(payload), key, **options)

    def overwrite_payload(
        self, collection_name: str, payload: types.Payload, points: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        return self._change(collection_name, "overwrite_payload", points, json_payload(payload), **options)

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        return self._change(collection_name, "delete_payload", points, list(keys), **options)

    def clear_payload(
        self, collection_name: str, points_selector: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        return self._change(collection_name, "clear_payload", points_selector, **options)

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: types.PointsSelector, **options: Any
    ) -> types.UpdateResult:
        for name in vectors:
            self.engine.collection(collection_name).schema.knows(name)
        return self._change(collection_name, "delete_vectors", points, list(vectors), **options)

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
            changed = [qe.PointVectors(engine_id(point.id), schema.check_all(point.vector)) for point in points]
            operation = Operation.update_vectors(changed, condition=engine_filter(update_filter))
        collection.write(operation)
        return DONE

    @journaled
    def _change(
        self, collection_name: str, operation: str, points: Any, *arguments: Any, **options: Any
    ) -> types.UpdateResult:
        """Apply `operation` to the points selected by ids, or its `_by_filter` twin to those a filter selects."""
        check_options(options)
        collection = self.engine.collection(collection_name)
        with collection.call:
            ids, condition = selection(points)
            if condition is None:
                update = getattr(Operation, operation)(ids, *arguments)
            else:
                update = getattr(Operation, f"{operation}_by_filter")(condition, *arguments)
        collection.write(update)
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
            return self.set_payload(name, change.payload, chosen(change), change.key)
        if isinstance(operation, models.OverwritePayloadOperation):
            change = operation.overwrite_payload
            return self._change(name, "overwrite_payload", chosen(change), json_payload(change.payload), change.key)
        if isinstance(operation, models.DeletePayloadOperation):
            return self.delete_payload(name, operation.delete_payload.keys, chosen(operation.delete_payload))
        if isinstance(operation, models.UpdateVectorsOperation):
            return self.update_vectors(name, operation.update_vectors.points, operation.update_vectors.update_filter)
        if isinstance(operation, models.DeleteVectorsOperation):
            return self.delete_vectors(name, operation.delete_vectors.vector, chosen(operation.delete_vectors))
        raise NotSupportedError(f"the embedded engine has no operation {type(operation).__name__}")

    # -- index and durability

    def build_index(self, collection_name: str) -> bool:
        """Run the engine's optimizer now: HNSW, quantisation, clearing of deleted points. False if nothing was due.

        A collection of any size is built in a child process; searches and writes go on meanwhile.
        """
        return self.engine.build(self.engine.collection(collection_name))

    def flush(self, collection_name: str) -> None:
        """Make every acknowledged write survive a power failure."""
        self.engine.collection(collection_name).flush()

    def _settle(self, collection: OpenCollection) -> None:
        if index_due(collection, collection.info()):
            self.build_index(collection.name)
        else:
            collection.flush()


def rows(vectors: Any, block: int) -> Iterator[Any]:
    """Vectors row by row from a matrix, a mapping of names to matrices, or an iterable; a block at a time."""
    if isinstance(vectors, dict):
        yield from rows_of(vectors)
    elif isinstance(vectors, np.ndarray):
        for start in range(0, len(vectors), block):
            yield from vectors[start : start + block].tolist()
    else:
        yield from vectors


def chosen(change: Any) -> Any:
    """The points of one operation of a batch: its ids or its filter."""
    if change.points is None and change.filter is None:
        raise InputError("an operation on points needs points or a filter")
    return change.points if change.points is not None else change.filter


def selection(selector: Any) -> tuple[list[EngineId], qe.Filter | None]:
    """Point ids, or the filter that selects them. Raises `InputError`."""
    if isinstance(selector, models.PointIdsList | models.FilterSelector) and selector.shard_key is not None:
        raise NotSupportedError("shard_key: the embedded engine has one shard; drop it or use a server")
    if isinstance(selector, models.FilterSelector):
        selector = selector.filter
    if isinstance(selector, models.Filter):
        return [], engine_filter(selector)
    if isinstance(selector, models.PointIdsList):
        selector = selector.points
    if isinstance(selector, (list, tuple)):
        return [engine_id(point_id) for point_id in selector], None
    if isinstance(selector, (int, str, uuid.UUID)):
        return [engine_id(selector)], None
    raise InputError(f"expected point ids or a filter, got {brief(selector)}")
