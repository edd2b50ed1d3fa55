"""A collection -> another one like it, on the same client or on another.

Guarantees: ids, payloads and all vectors are copied as they are, and the settings and indexes with them. A copy that
was interrupted says so in its metadata, and is begun again. Holds one page. Does not know: encoders. What is written to
the source meanwhile may be missing: `promotion.sync` copies a source in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import Gateway, aliases_of, metadata_in
from qdrant_tools.collections.adapters import carry_adapter
from qdrant_tools.collections.identity import metadata_for_copies
from qdrant_tools.collections.metadata import metadata_of
from qdrant_tools.errors import CollectionExistsError, NotSupportedError
from qdrant_tools.records import Progress
from qdrant_tools.sources.origin import INDEXED

INCOMPLETE = "embed_plus_incomplete"
"""Metadata key that a copy has until it is whole."""
_OPTIMIZER_SETTINGS = (
    "deleted_threshold",
    "vacuum_min_vector_number",
    "default_segment_number",
    "max_segment_size",
    "indexing_threshold",
)
"""Those that belong to a collection; the others belong to the process that runs it."""


def copy_collection(
    source: QdrantClient,
    name: str,
    target: QdrantClient,
    new_name: str,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> int:
    """Copy a collection to a client under a new name; how many points. `progress` receives those of each page.

    Raises:
        CollectionExistsError: the new name is taken, by something else than an unfinished copy.
        NotSupportedError: the target's engine lacks something that the collection has.
    """
    from_, to = Gateway(source, name), Gateway(target, new_name)
    info = from_.info()
    _make_room(target, new_name)
    # marked before the first point comes, so that no half of a copy looks whole after a kill
    create_like(target, new_name, info, metadata={INCOMPLETE: {"of": name}})
    copied = 0
    for records in from_.pages(batch_size=batch_size, with_vectors=True):
        to.upsert([models.PointStruct(id=r.id, vector=r.vector or {}, payload=r.payload) for r in records])  # type: ignore[arg-type]
        copied += len(records)
        if progress is not None:
            progress(len(records))
    # the engine merges metadata by key and cannot remove one: an empty value stands for none
    to.update(metadata={**metadata_for_copies(metadata_in(info)), INCOMPLETE: {}})
    carry_adapter(source, target, metadata_of(info))
    return copied


def create_like(
    client: QdrantClient,
    name: str,
    info: models.CollectionInfo,
    *,
    metadata: Mapping[str, Any],
    dense: Mapping[str, models.VectorParams] | None = None,
) -> None:
    """Create an empty collection with the settings and indexes of another; `dense` replaces dense vectors by name."""
    options = _options(client, info)
    for vector, params in (dense or {}).items():
        named = isinstance(options["vectors_config"], Mapping)
        options["vectors_config"] = {**options["vectors_config"], vector: params} if named else params
    Gateway(client, name).create(**options, metadata=dict(metadata))
    copy_indexes(client, name, info)


def copy_indexes(client: QdrantClient, name: str, info: models.CollectionInfo) -> None:
    """Give a collection the payload indexes of another that it lacks."""
    if not info.payload_schema or engine_of(client) == "memory":
        return
    gateway = Gateway(client, name)
    present = gateway.info().payload_schema or {}
    for field, index in info.payload_schema.items():
        if field not in present:
            gateway.index_payload(field, index.params or index.data_type)


def _make_room(client: QdrantClient, name: str) -> None:
    """Drop an unfinished copy of that name. Raises `CollectionExistsError` for anything else of that name."""
    if name not in aliases_of(client) and (not Gateway(client, name).exists() or drop_unfinished(client, name)):
        return
    raise CollectionExistsError(f"{name!r} is there already: give another name, or drop it first")


def drop_unfinished(client: QdrantClient, name: str) -> bool:
    """Drop a collection if it is a copy that was interrupted; whether it was."""
    gateway = Gateway(client, name)
    if not metadata_in(gateway.info()).get(INCOMPLETE):
        return False
    gateway.drop()
    return True


def _foreign_indexes(info: models.CollectionInfo) -> set[str]:
    """The payload indexes but those that are made for speed alone, wherever there can be some."""
    return (info.payload_schema or {}).keys() - set(INDEXED)


def refuse_custom_shards(info: models.CollectionInfo) -> None:
    """Raise `NotSupportedError` for a collection whose writes each need a shard key, which passages do not have."""
    if info.config.params.sharding_method == models.ShardingMethod.CUSTOM:
        raise NotSupportedError(
            "this collection has custom sharding (sharding_method='custom'), so that every write needs a shard key: it "
            "is searched here, and not written; index into a collection without it"
        )


def _options(client: QdrantClient, info: models.CollectionInfo) -> dict[str, Any]:
    config, params = info.config, info.config.params
    options: dict[str, Any] = {"vectors_config": params.vectors, "sparse_vectors_config": params.sparse_vectors}
    if engine_of(client) == "memory":
        if config.quantization_config is not None or _foreign_indexes(info):
            raise NotSupportedError("':memory:' has no quantization and no payload indexes: use a folder or a server")
        return options
    options["hnsw_config"] = models.HnswConfigDiff(**config.hnsw_config.model_dump(exclude_none=True))
    optimizers = {name: getattr(config.optimizer_config, name) for name in _OPTIMIZER_SETTINGS}
    options["optimizers_config"] = models.OptimizersConfigDiff(**optimizers)
    options["quantization_config"] = config.quantization_config
    options["on_disk_payload"] = params.on_disk_payload
    if engine_of(client) == "server":
        refuse_custom_shards(info)
        options["shard_number"] = params.shard_number
        options["replication_factor"] = params.replication_factor
        options["write_consistency_factor"] = params.write_consistency_factor
    strict = config.strict_mode_config
    if strict is not None and strict.enabled:
        options["strict_mode_config"] = models.StrictModeConfig(**strict.model_dump(exclude_none=True))
    return options
