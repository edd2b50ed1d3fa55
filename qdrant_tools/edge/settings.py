"""Changed settings of a collection: qdrant-client's differences merged into `CreateCollection`.

Does not know: the engine, files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdrant_client.http import models

from qdrant_tools.edge.checks import json_payload
from qdrant_tools.edge.config import vector_params
from qdrant_tools.errors import InputError, NotSupportedError
from qdrant_tools.values import brief

EXPECTED: dict[str, tuple[type, ...]] = {
    "metadata": (Mapping,),
    "hnsw_config": (models.HnswConfigDiff,),
    "optimizers_config": (models.OptimizersConfigDiff,),
    "quantization_config": (
        models.ScalarQuantization,
        models.ProductQuantization,
        models.BinaryQuantization,
        models.TurboQuantization,
        models.Disabled,
    ),
    "vectors_config": (Mapping,),
    "sparse_vectors_config": (Mapping,),
    "collection_params": (models.CollectionParamsDiff,),
}


def merged_settings(
    settings: models.CreateCollection, changes: Mapping[str, Any], collection: str
) -> models.CreateCollection:
    """Return `settings` with the arguments of `update_collection` applied. Raises `InputError`, `NotSupportedError`."""
    merged: dict[str, Any] = {}
    for name, change in changes.items():
        if name in EXPECTED and not isinstance(change, EXPECTED[name]):
            kinds = " or ".join(kind.__name__ for kind in EXPECTED[name])
            raise InputError(f"{name} expects {kinds}, got {brief(change)}")
        if name == "metadata":
            merged["metadata"] = {**(settings.metadata or {}), **json_payload(change)}
        elif name in ("hnsw_config", "optimizers_config"):
            merged[name] = _over(getattr(settings, name), change)
        elif name == "quantization_config":
            merged[name] = None if isinstance(change, models.Disabled) else change
        elif name == "vectors_config":
            merged["vectors"] = _vectors(settings, change, collection)
        elif name == "sparse_vectors_config":
            merged["sparse_vectors"] = _sparse(settings, change, collection)
        elif name == "collection_params":
            merged.update(_params(change))
        else:
            raise NotSupportedError(f"update_collection({name}=...): the embedded engine has no such setting")
    return settings.model_copy(update=merged)


def _over(base: Any, change: Any) -> Any:
    return change if base is None else base.model_copy(update=change.model_dump(exclude_none=True))


def _vectors(settings: models.CreateCollection, changes: Any, collection: str) -> Any:
    """The dense vectors with their differences; the unnamed one is '' in `changes`."""
    vectors = vector_params(settings)
    for name, change in changes.items():
        if name not in vectors:
            raise InputError(f"collection '{collection}' has no vector named {name!r}: Not existing vector name")
        if not isinstance(change, models.VectorParamsDiff):
            raise InputError(f"vectors_config {name!r} expects VectorParamsDiff, got {brief(change)}")
        vectors[name] = _vector(vectors[name], change)
    return vectors if isinstance(settings.vectors, Mapping) else vectors[""]


def _vector(params: models.VectorParams, change: models.VectorParamsDiff) -> models.VectorParams:
    update: dict[str, Any] = {}
    if change.hnsw_config is not None:
        update["hnsw_config"] = _over(params.hnsw_config, change.hnsw_config)
    if change.quantization_config is not None:
        disabled = isinstance(change.quantization_config, models.Disabled)
        update["quantization_config"] = None if disabled else change.quantization_config
    for name in ("on_disk", "memory"):
        if getattr(change, name) is not None:
            update[name] = getattr(change, name)
    return params.model_copy(update=update)


def _sparse(settings: models.CreateCollection, changes: Mapping[str, Any], collection: str) -> dict[str, Any]:
    sparse: dict[str, Any] = dict(settings.sparse_vectors or {})
    for name, change in changes.items():
        if name not in sparse:
            raise InputError(f"Vector {name} does not exist in the collection '{collection}'")
        if not isinstance(change, models.SparseVectorParams):
            raise InputError(f"sparse_vectors_config {name!r} expects SparseVectorParams, got {brief(change)}")
        sparse[name] = _over(sparse[name], change)
    return sparse


def _params(change: models.CollectionParamsDiff) -> dict[str, Any]:
    given = {name: getattr(change, name) for name in type(change).model_fields if getattr(change, name) is not None}
    local = {"on_disk_payload", "payload", "id_tracker"}
    for name in given.keys() - local:
        if given[name] != 1:
            raise NotSupportedError(f"collection_params.{name}={given[name]}: the embedded engine keeps one copy")
    return {name: given[name] for name in given.keys() & local}


def with_vectors(settings: models.CreateCollection, changes: Mapping[str, Any]) -> models.CreateCollection:
    """Return `settings` with dense or sparse vectors added by name, or removed (None)."""
    dense: dict[str, Any] = vector_params(settings)
    sparse: dict[str, Any] = dict(settings.sparse_vectors or {})
    for name, params in changes.items():
        dense.pop(name, None)
        sparse.pop(name, None)
        if isinstance(params, models.VectorParams):
            dense[name] = params
        elif params is not None:
            sparse[name] = params
    return settings.model_copy(update={"vectors": dense or None, "sparse_vectors": sparse or None})
