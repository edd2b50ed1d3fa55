"""What a collection is, as a server would report it: `CollectionInfo` from settings and the engine's figures."""

from __future__ import annotations

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.config import OPTIMIZER_DEFAULTS, merged_hnsw, vector_params
from qdrant_tools.edge.payload_index import client_index
from qdrant_tools.edge.shard import OpenCollection


def collection_info(collection: OpenCollection, *, building: bool = False) -> models.CollectionInfo:
    """Return what a server's `get_collection` returns. Yellow: an index is being built; grey: a build is due."""
    found = collection.info()
    settings = collection.settings
    status = models.CollectionStatus.GREY if index_due(collection, found) else models.CollectionStatus.GREEN
    return models.CollectionInfo(
        status=models.CollectionStatus.YELLOW if building else status,
        optimizer_status=models.OptimizersStatusOneOf.OK,
        indexed_vectors_count=found.indexed_vectors_count,
        points_count=found.points_count,
        segments_count=found.segments_count,
        config=models.CollectionConfig(
            params=collection_params(settings),
            hnsw_config=merged_hnsw(settings.hnsw_config),
            optimizer_config=optimizer_settings(settings),
            wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
            quantization_config=settings.quantization_config,
            metadata=settings.metadata,
        ),
        payload_schema={name: client_index(index) for name, index in found.payload_schema.items()},
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


def index_due(collection: OpenCollection, found: qe.ShardInfo) -> bool:
    """Whether a server would build an index now: vectors outside one exceed `indexing_threshold` kilobytes."""
    threshold = optimizer_settings(collection.settings).indexing_threshold
    dense = vector_params(collection.settings).values()
    if not threshold or not dense:
        return False
    unindexed = max(0, found.points_count * len(dense) - found.indexed_vectors_count) / len(dense)
    return unindexed * max(params.size for params in dense) * 4 > threshold * 1024
