"""A collection -> another one like it, on the same client or on another.

Guarantees: ids, payloads and all vectors are copied as they are, and the settings and indexes with them; a copy that
was interrupted says so in its metadata and is begun again, never served half. Holds one page.
Does not know: encoders. What is written to the source meanwhile may be missing: see `carry` for a source in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import DEFAULT_RETRY, engine_errors
from qdrant_tools.errors import CollectionExistsError, NotSupportedError
from qdrant_tools.records import Progress

INCOMPLETE = "embed_plus_incomplete"
"""Metadata key that a copy has until it is whole."""
_CARRIED = (
    "deleted_threshold",
    "vacuum_min_vector_number",
    "default_segment_number",
    "max_segment_size",
    "indexing_threshold",
)
"""Optimizer settings that belong to a collection; the others belong to the process that runs it."""


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
    info = _info(source, name)
    _make_room(target, new_name)
    metadata = dict(info.config.metadata or {})
    create_like(target, new_name, info, metadata={INCOMPLETE: {"of": name}})
    copied = 0
    for records in pages(source, name, batch_size=batch_size, with_vectors=True):
        points = [models.PointStruct(id=r.id, vector=r.vector or {}, payload=r.payload) for r in records]  # type: ignore[arg-type]
        DEFAULT_RETRY(lambda batch=points: _upsert(target, new_name, batch))  # type: ignore[misc]
        copied += len(records)
        if progress is not None:
            progress(len(records))
    with engine_errors(f"finish collection {new_name!r}"):
        target.update_collection(new_name, metadata={**metadata, INCOMPLETE: {}})
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
    with engine_errors(f"create collection {name!r}"):
        client.create_collection(name, **options, metadata=dict(metadata))
    copy_indexes(client, name, info)


def copy_indexes(client: QdrantClient, name: str, info: models.CollectionInfo) -> None:
    """Give a collection the payload indexes of another that it lacks."""
    if not info.payload_schema:
        return
    with engine_errors(f"index the payload of collection {name!r}"):
        present = client.get_collection(name).payload_schema or {}
        for field, index in info.payload_schema.items():
            if field not in present:
                client.create_payload_index(name, field, index.params or index.data_type)


def pages(
    client: QdrantClient,
    name: str,
    *,
    batch_size: int,
    with_payload: bool = True,
    with_vectors: Any = False,
    chosen: models.Filter | None = None,
) -> Iterator[list[models.Record]]:
    """Every point of a collection, or those that a filter chooses, in pages in the order of the ids."""
    what = {"limit": batch_size, "with_payload": with_payload, "with_vectors": with_vectors, "scroll_filter": chosen}
    offset: Any = None
    while True:
        records, offset = DEFAULT_RETRY(lambda at=offset: _page(client, name, at, what))  # type: ignore[misc]
        if records:
            yield records
        if offset is None:
            return


def _page(client: QdrantClient, name: str, offset: Any, what: Mapping[str, Any]) -> tuple[list[models.Record], Any]:
    with engine_errors(f"read from collection {name!r}"):
        return client.scroll(name, offset=offset, **what)


def _upsert(client: QdrantClient, name: str, points: list[models.PointStruct]) -> None:
    with engine_errors(f"write to collection {name!r}"):
        client.upsert(name, points, wait=True)


def _make_room(client: QdrantClient, name: str) -> None:
    with engine_errors(f"create collection {name!r}"):
        aliases = {alias.alias_name for alias in client.get_aliases().aliases}
        if name not in aliases and not client.collection_exists(name):
            return
        unfinished = name not in aliases and (client.get_collection(name).config.metadata or {}).get(INCOMPLETE)
        if not unfinished:
            raise CollectionExistsError(f"{name!r} is there already: give another name, or drop it first")
        client.delete_collection(name)


def _info(client: QdrantClient, name: str) -> models.CollectionInfo:
    with engine_errors(f"open collection {name!r}"):
        return client.get_collection(name)


def _options(client: QdrantClient, info: models.CollectionInfo) -> dict[str, Any]:
    config, params = info.config, info.config.params
    options: dict[str, Any] = {"vectors_config": params.vectors, "sparse_vectors_config": params.sparse_vectors}
    if engine_of(client) == "memory":
        if config.quantization_config is not None or info.payload_schema:
            raise NotSupportedError("':memory:' has no quantization and no payload indexes: use a folder or a server")
        return options
    options["hnsw_config"] = models.HnswConfigDiff(**config.hnsw_config.model_dump(exclude_none=True))
    kept = {name: getattr(config.optimizer_config, name) for name in _CARRIED}
    options["optimizers_config"] = models.OptimizersConfigDiff(**kept)
    options["quantization_config"] = config.quantization_config
    options["on_disk_payload"] = params.on_disk_payload
    if engine_of(client) == "server":
        options["shard_number"] = params.shard_number
        options["replication_factor"] = params.replication_factor
    strict = config.strict_mode_config
    if strict is not None and strict.enabled:
        options["strict_mode_config"] = models.StrictModeConfig(**strict.model_dump(exclude_none=True))
    return options
