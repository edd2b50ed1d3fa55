"""Is the HNSW graph there? Building it, or waiting for it.

Guarantees: on return, every vector that the engine means to index is in the graph. Does not know: what is searched.
"""

from __future__ import annotations

import time

from qdrant_client import models

from qdrant_tools.connect import engine_of
from qdrant_tools.errors import EngineError
from qdrant_tools.handle import Collection
from qdrant_tools.records import Progress
from qdrant_tools.translate import engine_errors


def build_index(collection: Collection, *, timeout: float = 3600.0, progress: Progress | None = None) -> bool:
    """Have the HNSW graph built now: built on the spot by the embedded engine, waited for on a server.

    Returns whether there was something to build; False on `:memory:`, which has no graph. `progress` receives the
    number of vectors that got into the graph since the last call.

    Raises:
        EngineError: a server's optimizer failed, or did not finish within `timeout` seconds.
    """
    engine = engine_of(collection.client)
    if engine == "memory":
        return False
    if engine == "server":
        return wait_until_indexed(collection, timeout=timeout, progress=progress)
    before = _info(collection).indexed_vectors_count or 0
    with engine_errors(f"build the index of collection {collection.name!r}"):
        built = bool(collection.client.build_index(collection.name))  # type: ignore[attr-defined]
    if progress is not None:
        progress(max(0, (_info(collection).indexed_vectors_count or 0) - before))
    return built


def wait_until_indexed(
    collection: Collection, *, timeout: float = 3600.0, progress: Progress | None = None, every: float = 0.2
) -> bool:
    """Wait until the engine has nothing left to index; whether there was anything to wait for.

    A build that is due and not under way (status grey) is started. `progress` receives the number of vectors that got
    into the graph since the last call; the state is asked for `every` so many seconds.

    Raises:
        EngineError: the optimizer failed, or did not finish within `timeout` seconds.
    """
    deadline, waited, indexed, started = time.monotonic() + timeout, False, 0, False
    while True:
        info = _info(collection)
        if progress is not None and (info.indexed_vectors_count or 0) > indexed:
            progress((info.indexed_vectors_count or 0) - indexed)
        indexed = max(indexed, info.indexed_vectors_count or 0)
        if info.status == models.CollectionStatus.GREEN or (info.status == models.CollectionStatus.GREY and started):
            return waited
        if info.status == models.CollectionStatus.RED:
            raise EngineError(f"the optimizer of collection {collection.name!r} failed: {info.optimizer_status}")
        if time.monotonic() > deadline:
            raise EngineError(f"collection {collection.name!r} is still {info.status.value} after {timeout:.0f} s")
        waited = True
        if info.status == models.CollectionStatus.GREY:
            started = _start(collection)
        else:
            time.sleep(every)


def _start(collection: Collection) -> bool:
    """Start the optimizer; whether it has finished on return."""
    with engine_errors(f"build the index of collection {collection.name!r}"):
        if engine_of(collection.client) == "qdrant-edge":
            collection.client.build_index(collection.name)  # type: ignore[attr-defined]
            return True
        # any change of the collection wakes a server's optimizers, an empty one too
        collection.client.update_collection(collection.name, optimizers_config=models.OptimizersConfigDiff())
    time.sleep(1.0)
    return False


def _info(collection: Collection) -> models.CollectionInfo:
    with engine_errors(f"ask for the state of collection {collection.name!r}"):
        return collection.client.get_collection(collection.name)
