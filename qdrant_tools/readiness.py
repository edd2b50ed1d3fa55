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
        return _wait_for_server(collection, timeout, progress)
    before = _indexed(collection)
    with engine_errors(f"build the index of collection {collection.name!r}"):
        built = bool(collection.client.build_index(collection.name))  # type: ignore[attr-defined]
    if progress is not None:
        progress(max(0, _indexed(collection) - before))
    return built


def _wait_for_server(collection: Collection, timeout: float, progress: Progress | None) -> bool:
    deadline, waited, indexed = time.monotonic() + timeout, False, 0
    while True:
        with engine_errors(f"ask for the state of collection {collection.name!r}"):
            info = collection.client.get_collection(collection.name)
        if progress is not None and (info.indexed_vectors_count or 0) > indexed:
            progress((info.indexed_vectors_count or 0) - indexed)
        indexed = max(indexed, info.indexed_vectors_count or 0)
        if info.status == models.CollectionStatus.GREEN:
            return waited
        if info.status == models.CollectionStatus.RED:
            raise EngineError(f"the optimizer of collection {collection.name!r} failed: {info.optimizer_status}")
        if time.monotonic() > deadline:
            raise EngineError(f"collection {collection.name!r} is still {info.status.value} after {timeout:.0f} s")
        waited = True
        time.sleep(0.2)


def _indexed(collection: Collection) -> int:
    with engine_errors(f"ask for the state of collection {collection.name!r}"):
        return collection.client.get_collection(collection.name).indexed_vectors_count or 0
