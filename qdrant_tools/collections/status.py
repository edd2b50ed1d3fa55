"""The state of any collection: what there is to know about it, and whether its HNSW graph is built.

Guarantees: `describe` only reads, and what cannot be known is None. After `build_index` every vector that the engine
means to index is in the graph. Does not know: encoders.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import embedded_client, engine_of
from qdrant_tools.client.gateway import Gateway, engine_errors
from qdrant_tools.client.replicas import ACTIVE, replicas_of
from qdrant_tools.collections.adopt import detect_layout, vector_names
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import CollectionMetadata, Layout, SearchChoice, metadata_of
from qdrant_tools.collections.settings import CollectionSettings, dense_params, settings_of
from qdrant_tools.errors import CollectionError, EngineError
from qdrant_tools.records import Progress
from qdrant_tools.search.fusion import Fusion

_WIDTH = {models.Datatype.FLOAT16: 2, models.Datatype.UINT8: 1}


@dataclass(frozen=True)
class CollectionDescription:
    """One collection. `space`, `dimension`, `settings` and `layout` are None for one that does not say them."""

    name: str
    engine: str
    points: int
    indexed_vectors: int
    segments: int
    space: str | None
    dimension: int | None
    settings: CollectionSettings | None
    aliases: tuple[str, ...]
    layout: Layout | None = None
    vectors: tuple[str, ...] = ()
    """Names of the dense vectors; "" is the unnamed one."""
    status: str = "green"
    adapter: str | None = None
    """The build of the query adapter that serves here."""
    search: SearchChoice | None = None
    """How it is searched, and what that was found to find; None if nothing was chosen."""
    fusion: Fusion | None = None
    """How a hybrid search that says nothing fuses words and vectors, if that was kept."""
    vector_bytes: int | None = None
    """Points times the bytes of a dense vector, computed. They are in memory, unless the settings say `on_disk`."""
    disk_bytes: int | None = None
    """The size of the files, measured. None unless the engine is the embedded one."""


def describe(client: QdrantClient, name: str, *, aliases: Mapping[str, str]) -> CollectionDescription:
    """Describe the collection of that name (not an alias); `aliases` are all there are, with their collections."""
    info = Gateway(client, name).info()
    embedded = embedded_client(client)
    metadata = metadata_of(info)
    params = dense_params(info, None if metadata is None else metadata.layout.vector)
    points = info.points_count or 0
    return CollectionDescription(
        name=name,
        engine=engine_of(client),
        points=points,
        indexed_vectors=info.indexed_vectors_count or 0,
        segments=info.segments_count,
        space=(metadata.space or None) if metadata else None,
        dimension=params.size if params else None,
        settings=settings_of(info),
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == name)),
        layout=_layout(client, name, info, metadata),
        vectors=tuple(vector_names(info)),
        status=info.status.value,
        adapter=metadata.adapter if metadata else None,
        search=metadata.search if metadata else None,
        fusion=metadata.fusion if metadata else None,
        vector_bytes=points * params.size * _WIDTH.get(params.datatype, 4) if params else None,  # type: ignore[arg-type]
        disk_bytes=None if embedded is None else embedded.engine.disk_bytes(name),
    )


def _layout(
    client: QdrantClient, name: str, info: models.CollectionInfo, metadata: CollectionMetadata | None
) -> Layout | None:
    if metadata is not None:
        return metadata.layout
    try:
        return detect_layout(client, name, next(iter(vector_names(info)), ""))
    except CollectionError:
        return None


def build_index(collection: Collection, *, timeout: float = 3600.0, progress: Progress | None = None) -> bool:
    """Have the HNSW graph built now: built on the spot by the embedded engine, waited for on a server.

    Returns whether there was something to build; False on `:memory:`, which has no graph. `progress` receives the
    number of vectors that got into the graph since the last call.

    Raises:
        EngineError: a server's optimizer failed, is switched off, or did not finish within `timeout` seconds.
    """
    engine = engine_of(collection.client)
    if engine == "memory":
        return False
    if engine == "server":
        return wait_until_indexed(collection, timeout=timeout, progress=progress)
    before = collection.gateway.info().indexed_vectors_count or 0
    with engine_errors(f"build the index of collection {collection.name!r}"):
        built = bool(collection.client.build_index(collection.name))  # type: ignore[attr-defined]
    if progress is not None:
        progress(max(0, (collection.gateway.info().indexed_vectors_count or 0) - before))
    return built


def wait_until_indexed(
    collection: Collection, *, timeout: float = 3600.0, progress: Progress | None = None, every: float = 0.2
) -> bool:
    """Wait until the engine has nothing left to index, on every replica; whether there was anything to wait for.

    A build that is due and not under way (status grey) is started. `progress` receives the number of vectors that got
    into the graph since the last call. The state is read every `every` seconds.

    Raises:
        EngineError: the optimizer failed, is switched off, or did not finish within `timeout` seconds.
    """
    deadline, waited, started = time.monotonic() + timeout, False, False
    info = collection.gateway.info()
    indexed = info.indexed_vectors_count or 0
    while True:
        if progress is not None and (info.indexed_vectors_count or 0) > indexed:
            progress((info.indexed_vectors_count or 0) - indexed)
        # progress never goes back, even if the count falls for a while
        indexed = max(indexed, info.indexed_vectors_count or 0)
        status = _status(collection, info)
        if status == models.CollectionStatus.GREEN or (status == models.CollectionStatus.GREY and started):
            return waited
        _refuse_hopeless(collection, info, status)
        if time.monotonic() > deadline:
            raise EngineError(f"collection {collection.name!r} is still {status.value} after {timeout:.0f} s")
        waited = True
        if status == models.CollectionStatus.GREY:
            started = _start(collection)
        else:
            time.sleep(every)
        info = collection.gateway.info()


def _status(collection: Collection, info: models.CollectionInfo) -> models.CollectionStatus:
    """That of the replica which is least done: the node that answers tells of one for each shard."""
    if info.status != models.CollectionStatus.GREEN:
        return info.status
    replicas = replicas_of(collection.client, collection.name)
    # one that does not serve is brought up to date by its cluster, not by its optimizer
    active = {replica.status for replica in replicas if replica.state == ACTIVE}
    worst = (status for status in _LEAST_DONE_FIRST if status.value in active)
    return next(worst, models.CollectionStatus.GREEN)


_LEAST_DONE_FIRST = (models.CollectionStatus.RED, models.CollectionStatus.GREY, models.CollectionStatus.YELLOW)


def _refuse_hopeless(collection: Collection, info: models.CollectionInfo, status: models.CollectionStatus) -> None:
    if status == models.CollectionStatus.RED:
        raise EngineError(f"the optimizer of collection {collection.name!r} failed: {info.optimizer_status}")
    if info.config.optimizer_config.max_optimization_threads == 0:
        raise EngineError(
            f"the optimizers of collection {collection.name!r} are switched off (max_optimization_threads=0), so that "
            "nothing is indexed: switch them on with client.update_collection(name, optimizers_config="
            "OptimizersConfigDiff(max_optimization_threads=MaxOptimizationThreadsSetting.AUTO))"
        )


def _start(collection: Collection) -> bool:
    """Start the optimizer; whether it has finished on return."""
    with engine_errors(f"build the index of collection {collection.name!r}"):
        if engine_of(collection.client) == "qdrant-edge":
            collection.client.build_index(collection.name)  # type: ignore[attr-defined]
            return True
    # any change of the collection wakes a server's optimizers, an empty one too
    collection.gateway.update(optimizers_config=models.OptimizersConfigDiff())
    time.sleep(1.0)
    return False
