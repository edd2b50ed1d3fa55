"""Points in, records and scored points out: qdrant-client's -> the engine's, and back.

Results are built without validation, as by `model_construct`. The engine's values already have the types of the models,
and validating ten hits with payloads costs several times the search itself.

Guarantees: points are checked as in `checks.py`. Does not know: shards, queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import qdrant_edge as qe
from pydantic import BaseModel
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import VectorSchema, client_id, engine_id, json_payload, texts
from qdrant_tools.errors import InputError
from qdrant_tools.validation import brief

Model = TypeVar("Model", bound=BaseModel)


def engine_points(points: Any, schema: VectorSchema) -> list[qe.Point]:
    """Return the engine's points for a `Batch`, a list of `PointStruct`, or what qdrant-client takes for them.

    Raises `InputError` and `VectorError` with the value at fault.
    """
    if isinstance(points, models.PointsBatch):
        points = points.batch
    if isinstance(points, models.PointsList):
        points = points.points
    if isinstance(points, models.Batch):
        return batch_points(points, schema)
    if not isinstance(points, Iterable):
        raise InputError(f"expected a list of PointStruct or a Batch, got {brief(points)}")
    return [engine_point(point, schema) for point in points]


def engine_point(point: Any, schema: VectorSchema) -> qe.Point:
    if not isinstance(point, (models.PointStruct, models.Record)):
        raise InputError(f"expected a PointStruct, got {brief(point)}")
    vector = point.vector if point.vector is not None else {}
    return qe.Point(engine_id(point.id), schema.check_all(vector), json_payload(point.payload))


def batch_points(batch: models.Batch, schema: VectorSchema) -> list[qe.Point]:
    ids, vectors, payloads = batch.ids, rows_of(batch.vectors), batch.payloads
    if len(vectors) != len(ids) or (payloads is not None and len(payloads) != len(ids)):
        counts = f"{len(ids)} ids, {len(vectors)} vectors, {len(payloads) if payloads else 0} payloads"
        raise InputError(f"a batch needs as many vectors and payloads as ids, got {counts}")
    payload_column: Sequence[Any] = payloads if payloads is not None else [None] * len(ids)
    return [
        qe.Point(engine_id(point_id), schema.check_all(vector), json_payload(payload))
        for point_id, vector, payload in zip(ids, vectors, payload_column, strict=True)
    ]


def rows_of(vectors: Any) -> list[Any]:
    """Return one vector (or mapping of named vectors) per point from column-wise vectors.

    `vectors` is a matrix, a list, or a mapping of names to such; a mapping's columns must have one length.
    """
    if isinstance(vectors, np.ndarray):
        rows: list[Any] = vectors.tolist()
        return rows
    if not isinstance(vectors, dict):
        return list(vectors)
    columns = {name: rows_of(column) for name, column in vectors.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"each named vector needs the same number of rows, got {lengths}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def blocks(points: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut an iterable into lists of at most `size`, holding one at a time."""
    block: list[Any] = []
    for point in points:
        block.append(point)
        if len(block) >= size:
            yield block
            block = []
    if block:
        yield block


def payload_selector(with_payload: Any) -> Any:
    """The engine's choice of payload keys to return."""
    if isinstance(with_payload, models.PayloadSelectorInclude):
        return qe.PayloadSelector.Include(texts(with_payload.include, "with_payload"))
    if isinstance(with_payload, models.PayloadSelectorExclude):
        return qe.PayloadSelector.Exclude(texts(with_payload.exclude, "with_payload"))
    return _all_none_or_names(with_payload, "with_payload")


def vector_selector(with_vectors: Any) -> bool | list[str]:
    """The engine's choice of vectors to return."""
    return _all_none_or_names(with_vectors, "with_vectors")


def _all_none_or_names(selector: Any, argument: str) -> bool | list[str]:
    if selector is None or isinstance(selector, bool):
        return bool(selector)
    if isinstance(selector, (list, tuple)):
        return texts(selector, argument)
    raise InputError(f"{argument} expects True, False or a list of names, got {brief(selector)}")


def client_vector(vector: Any) -> Any:
    """A vector of the engine in qdrant-client's form."""
    if isinstance(vector, qe.SparseVector):
        return models.SparseVector.model_construct(indices=vector.indices, values=vector.values)
    if isinstance(vector, dict):
        return {name: client_vector(part) for name, part in vector.items()}
    return vector


def client_record(record: qe.Record) -> models.Record:
    fields = {
        "id": client_id(record.id),
        "payload": record.payload,
        "vector": client_vector(record.vector),
        "shard_key": None,
        "order_value": record.order_value,
    }
    return unvalidated(models.Record, fields)


def scored_point(point: qe.ScoredPoint) -> models.ScoredPoint:
    fields = {
        "id": client_id(point.id),
        "version": point.version,
        "score": point.score,
        "payload": point.payload,
        "vector": client_vector(point.vector),
        "shard_key": None,
        "order_value": point.order_value,
    }
    return unvalidated(models.ScoredPoint, fields)


def unvalidated(kind: type[Model], fields: dict[str, Any]) -> Model:
    """`kind.model_construct(**fields)` for a model without aliases, all fields given, in a third of its time."""
    model = kind.__new__(kind)
    # pydantic's own __setattr__ would look each name up among the fields
    _setattr(model, "__dict__", fields)
    _setattr(model, "__pydantic_fields_set__", set(fields))
    _setattr(model, "__pydantic_extra__", None)
    _setattr(model, "__pydantic_private__", None)
    return model


_setattr = object.__setattr__
