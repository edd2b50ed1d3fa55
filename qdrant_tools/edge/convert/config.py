"""A collection's settings, kept as qdrant-client's `CreateCollection`: given to the engine, changed, and reported.

Guarantees: every setting reaches the engine or is refused with `NotSupportedError`; defaults are a server's.
Does not know: files, shards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import (
    DEFAULT_VECTOR,
    VectorSchema,
    VectorShape,
    json_payload,
    maybe_finite,
    member,
)
from qdrant_tools.edge.convert.payload_index import client_index
from qdrant_tools.errors import InputError, NotSupportedError
from qdrant_tools.validation import brief

LARGEST_VECTOR = 65_536  # what a server's REST layer accepts
MOST_LINKS = 10_000  # of a point in a graph: for some millions the engine aborts the process
MOST_DELETED = 1_000  # a part of the points: more than 1 is never
NO_VECTORS = "no-vectors"  # the engine needs a vector; no point has this one
HNSW_DEFAULTS = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=0)
OPTIMIZER_DEFAULTS = models.OptimizersConfig(
    deleted_threshold=0.2,
    vacuum_min_vector_number=1000,
    default_segment_number=0,
    indexing_threshold=10_000,
    flush_interval_sec=5,
)


def vector_params(settings: models.CreateCollection) -> dict[str, models.VectorParams]:
    """The dense vectors by name; the unnamed one has the name ''."""
    if settings.vectors is None:
        return {}
    return dict(settings.vectors) if isinstance(settings.vectors, Mapping) else {DEFAULT_VECTOR: settings.vectors}


def vector_schema(collection: str, settings: models.CreateCollection) -> VectorSchema:
    """What the vectors of this collection must look like."""
    dense = {
        name: VectorShape(params.size, multi=params.multivector_config is not None)
        for name, params in vector_params(settings).items()
    }
    return VectorSchema(collection, dense, frozenset(settings.sparse_vectors or ()))


def engine_config(settings: models.CreateCollection) -> qe.EdgeConfig:
    """Return the engine's configuration. Raises `InputError` and `NotSupportedError`."""
    dense = vector_params(settings)
    sparse = settings.sparse_vectors or {}
    if not dense and not sparse:
        sparse = {NO_VECTORS: models.SparseVectorParams()}
    refuse_distribution(settings)
    return qe.EdgeConfig(
        vectors={name: _dense(params, settings) for name, params in dense.items()},
        sparse_vectors={name: _sparse(params) for name, params in sparse.items()},
        on_disk_payload=settings.on_disk_payload,
        hnsw_config=hnsw(settings.hnsw_config),
        quantization_config=quantization(settings.quantization_config),
        optimizers=optimizers(settings.optimizers_config),
        payload_memory=member(qe.Memory, settings.payload.memory) if settings.payload else None,
        id_tracker_memory=member(qe.Memory, settings.id_tracker.memory) if settings.id_tracker else None,
    )


def refuse_distribution(settings: models.CreateCollection) -> None:
    """Raise `NotSupportedError` for what only a cluster or a server process can do."""
    for name in ("shard_number", "replication_factor", "write_consistency_factor"):
        if getattr(settings, name) not in (None, 1):
            raise NotSupportedError(
                f"{name}={getattr(settings, name)}: the embedded engine keeps one copy in one shard; use a server"
            )
    if settings.sharding_method not in (None, models.ShardingMethod.AUTO):
        raise NotSupportedError("sharding_method=custom: the embedded engine has one shard; use a server")
    strict = settings.strict_mode_config
    if strict is not None and strict.enabled:
        raise NotSupportedError("strict_mode_config: the embedded engine enforces no limits; use a server")
    wal = settings.wal_config
    # the binding has no setting for the log
    if wal is not None and (wal.wal_capacity_mb or 32, wal.wal_segments_ahead or 0) != (32, 0):
        raise NotSupportedError("wal_config: the embedded engine's log has a fixed size; use a server")


def hnsw(diff: Any, base: models.HnswConfig = HNSW_DEFAULTS) -> qe.HnswIndexConfig:
    """Return the engine's HNSW settings: `diff` over `base`."""
    merged = merged_hnsw(diff, base)
    for name in ("m", "payload_m"):
        _require_within(f"hnsw_config.{name}", getattr(merged, name), MOST_LINKS)
    return qe.HnswIndexConfig(
        merged.m,
        merged.ef_construct,
        merged.full_scan_threshold,
        # a thread more than these would not run, and thousands cannot be started
        max_indexing_threads=min(merged.max_indexing_threads or 0, max(16, os.cpu_count() or 1)),
        on_disk=merged.on_disk,
        payload_m=merged.payload_m,
        inline_storage=merged.inline_storage,
        memory=member(qe.Memory, merged.memory),
    )


def merged_hnsw(diff: Any, base: models.HnswConfig = HNSW_DEFAULTS) -> models.HnswConfig:
    return base if diff is None else base.model_copy(update=diff.model_dump(exclude_none=True))


def optimizers(diff: models.OptimizersConfigDiff | None) -> qe.EdgeOptimizersConfig | None:
    if diff is None:
        return None
    if diff.memmap_threshold is not None:
        raise NotSupportedError("optimizers_config.memmap_threshold: use on_disk or memory of the vectors instead")
    if diff.flush_interval_sec not in (None, OPTIMIZER_DEFAULTS.flush_interval_sec):
        raise NotSupportedError("optimizers_config.flush_interval_sec: call flush(collection_name) instead")
    if diff.max_optimization_threads == 0:  # any other limit holds: one build runs at a time
        raise NotSupportedError("optimizers_config.max_optimization_threads=0: use indexing_threshold=0 instead")
    _require_within("optimizers_config.deleted_threshold", diff.deleted_threshold, MOST_DELETED)
    return qe.EdgeOptimizersConfig(
        deleted_threshold=maybe_finite(diff.deleted_threshold, "optimizers_config.deleted_threshold"),
        vacuum_min_vector_number=diff.vacuum_min_vector_number,
        default_segment_number=diff.default_segment_number,
        max_segment_size=diff.max_segment_size,
        indexing_threshold=diff.indexing_threshold,
        prevent_unoptimized=diff.prevent_unoptimized,
    )


def quantization(config: Any) -> Any:
    """Return the engine's quantisation settings, None for none."""
    if config is None or isinstance(config, models.Disabled):
        return None
    if isinstance(config, models.ScalarQuantization):
        scalar = config.scalar
        memory = member(qe.Memory, scalar.memory)
        _require_within("quantization_config.scalar.quantile", scalar.quantile, 1)
        return qe.ScalarQuantizationConfig(qe.ScalarType.Int8, scalar.quantile, scalar.always_ram, memory)
    if isinstance(config, models.ProductQuantization):
        product = config.product
        compression = member(qe.CompressionRatio, product.compression)
        return qe.ProductQuantizationConfig(compression, product.always_ram, member(qe.Memory, product.memory))
    if isinstance(config, models.BinaryQuantization):
        binary = config.binary
        return qe.BinaryQuantizationConfig(
            always_ram=binary.always_ram,
            encoding=member(qe.BinaryQuantizationEncoding, binary.encoding),
            query_encoding=member(qe.BinaryQuantizationQueryEncoding, binary.query_encoding),
            memory=member(qe.Memory, binary.memory),
        )
    if isinstance(config, models.TurboQuantization):
        turbo = config.turbo
        bits = member(qe.TurboQuantBitSize, turbo.bits)
        return qe.TurboQuantQuantizationConfig(turbo.always_ram, bits, member(qe.Memory, turbo.memory))
    raise NotSupportedError(f"the embedded engine has no quantisation {type(config).__name__}")


def _require_within(name: str, value: float | None, most: int) -> None:
    """Raise `InputError` for what the engine takes, and then aborts or never ends when it builds an index."""
    if value is not None and not 0 <= value <= most:
        raise InputError(f"{name} is {brief(value)}, expected 0 to {most}")


def _dense(params: models.VectorParams, settings: models.CreateCollection) -> qe.EdgeVectorParams:
    if not 1 <= params.size <= LARGEST_VECTOR:
        raise InputError(f"vector size {params.size} is invalid, expected 1 to {LARGEST_VECTOR}")
    multi = params.multivector_config is not None
    own_hnsw = params.hnsw_config is not None
    return qe.EdgeVectorParams(
        params.size,
        member(qe.Distance, params.distance),
        on_disk=params.on_disk,
        datatype=member(qe.VectorStorageDatatype, params.datatype),
        # a vector's own settings are a difference from the collection's
        hnsw_config=hnsw(params.hnsw_config, merged_hnsw(settings.hnsw_config)) if own_hnsw else None,
        quantization_config=quantization(params.quantization_config),
        multivector_config=qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim) if multi else None,
        memory=member(qe.Memory, params.memory),
    )


def _sparse(params: models.SparseVectorParams) -> qe.EdgeSparseVectorParams:
    index = params.index or models.SparseIndexParams()
    return qe.EdgeSparseVectorParams(
        full_scan_threshold=index.full_scan_threshold,
        on_disk=index.on_disk,
        modifier=member(qe.Modifier, params.modifier) if params.modifier != models.Modifier.NONE else None,
        datatype=member(qe.VectorStorageDatatype, index.datatype),
        memory=member(qe.Memory, index.memory),
    )


# -- changes

CHANGE_TYPES: dict[str, tuple[type, ...]] = {
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
        if name in CHANGE_TYPES and not isinstance(change, CHANGE_TYPES[name]):
            expected = " or ".join(kind.__name__ for kind in CHANGE_TYPES[name])
            raise InputError(f"{name} expects {expected}, got {brief(change)}")
        if name == "metadata":
            merged["metadata"] = {**(settings.metadata or {}), **json_payload(change)}
        elif name in ("hnsw_config", "optimizers_config"):
            merged[name] = _merged(getattr(settings, name), change)
        elif name == "quantization_config":
            merged[name] = None if isinstance(change, models.Disabled) else change
        elif name == "vectors_config":
            merged["vectors"] = _merged_vectors(settings, change, collection)
        elif name == "sparse_vectors_config":
            merged["sparse_vectors"] = _merged_sparse(settings, change, collection)
        elif name == "collection_params":
            merged.update(_merged_params(change))
        else:
            raise NotSupportedError(f"update_collection({name}=...): the embedded engine has no such setting")
    return settings.model_copy(update=merged)


def _merged(base: Any, change: Any) -> Any:
    return change if base is None else base.model_copy(update=change.model_dump(exclude_none=True))


def _merged_vectors(settings: models.CreateCollection, changes: Any, collection: str) -> Any:
    """The dense vectors with their changes; the unnamed one is '' in `changes`."""
    vectors = vector_params(settings)
    for name, change in changes.items():
        if name not in vectors:
            raise InputError(f"collection '{collection}' has no vector named {name!r}: Not existing vector name")
        if not isinstance(change, models.VectorParamsDiff):
            raise InputError(f"vectors_config {name!r} expects VectorParamsDiff, got {brief(change)}")
        vectors[name] = _merged_vector(vectors[name], change)
    return vectors if isinstance(settings.vectors, Mapping) else vectors[""]


def _merged_vector(params: models.VectorParams, change: models.VectorParamsDiff) -> models.VectorParams:
    update: dict[str, Any] = {}
    if change.hnsw_config is not None:
        update["hnsw_config"] = _merged(params.hnsw_config, change.hnsw_config)
    if change.quantization_config is not None:
        disabled = isinstance(change.quantization_config, models.Disabled)
        update["quantization_config"] = None if disabled else change.quantization_config
    for name in ("on_disk", "memory"):
        if getattr(change, name) is not None:
            update[name] = getattr(change, name)
    return params.model_copy(update=update)


def _merged_sparse(settings: models.CreateCollection, changes: Mapping[str, Any], collection: str) -> dict[str, Any]:
    sparse: dict[str, Any] = dict(settings.sparse_vectors or {})
    for name, change in changes.items():
        if name not in sparse:
            raise InputError(f"Vector {name} does not exist in the collection '{collection}'")
        if not isinstance(change, models.SparseVectorParams):
            raise InputError(f"sparse_vectors_config {name!r} expects SparseVectorParams, got {brief(change)}")
        sparse[name] = _merged_sparse_vector(name, sparse[name], change)
    return sparse


def _merged_sparse_vector(
    name: str, params: models.SparseVectorParams, change: models.SparseVectorParams
) -> models.SparseVectorParams:
    modifiers = [part.modifier or models.Modifier.NONE for part in (params, change)]
    if change.modifier is not None and modifiers[0] != modifiers[1]:
        raise NotSupportedError(
            f"sparse vector {name!r} has the modifier {modifiers[0].value!r}, which the embedded engine cannot change "
            f"to {modifiers[1].value!r}: make a new collection with it, or use a server"
        )
    index = params.index if change.index is None else _merged(params.index, change.index)
    return params.model_copy(update={"index": index})


def _merged_params(change: models.CollectionParamsDiff) -> dict[str, Any]:
    params = {name: getattr(change, name) for name in type(change).model_fields if getattr(change, name) is not None}
    local = {"on_disk_payload", "payload", "id_tracker"}
    for name in params.keys() - local:
        if params[name] != 1:
            raise NotSupportedError(f"collection_params.{name}={params[name]}: the embedded engine keeps one copy")
    return {name: params[name] for name in params.keys() & local}


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


# -- reports


def collection_info(
    settings: models.CreateCollection, shard: qe.ShardInfo, *, building: bool = False
) -> models.CollectionInfo:
    """Return what a server's `get_collection` returns. Yellow: an index is being built; grey: a build is due."""
    status = models.CollectionStatus.GREY if index_due(settings, shard) else models.CollectionStatus.GREEN
    return models.CollectionInfo(
        status=models.CollectionStatus.YELLOW if building else status,
        optimizer_status=models.OptimizersStatusOneOf.OK,
        indexed_vectors_count=shard.indexed_vectors_count,
        points_count=shard.points_count,
        segments_count=shard.segments_count,
        config=models.CollectionConfig(
            params=collection_params(settings),
            hnsw_config=merged_hnsw(settings.hnsw_config),
            optimizer_config=optimizer_settings(settings),
            wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
            quantization_config=settings.quantization_config,
            metadata=settings.metadata,
        ),
        payload_schema={name: client_index(index) for name, index in shard.payload_schema.items()},
    )


def collection_params(settings: models.CreateCollection) -> models.CollectionParams:
    return models.CollectionParams(
        vectors=settings.vectors if settings.vectors is not None else {},
        on_disk_payload=settings.on_disk_payload if settings.on_disk_payload is not None else True,
        payload=settings.payload,
        id_tracker=settings.id_tracker,
        sparse_vectors=settings.sparse_vectors,
    )


def optimizer_settings(settings: models.CreateCollection) -> models.OptimizersConfig:
    diff = settings.optimizers_config
    return OPTIMIZER_DEFAULTS.model_copy(update=diff.model_dump(exclude_none=True) if diff is not None else {})


def index_due(settings: models.CreateCollection, shard: qe.ShardInfo) -> bool:
    """Whether a server would build an index now: vectors outside one exceed `indexing_threshold` kilobytes."""
    threshold = optimizer_settings(settings).indexing_threshold
    dense = vector_params(settings).values()
    if not threshold or not dense:
        return False
    # the engine counts the vectors of all names together: this is the mean for one name
    unindexed = max(0, shard.points_count * len(dense) - shard.indexed_vectors_count) / len(dense)
    return unindexed * max(params.size for params in dense) * 4 > threshold * 1024
