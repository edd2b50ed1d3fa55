"""Index builds that do not stop the process: in a child process, on a copy of the shard, then exchanged for it.

The engine's optimizer holds the interpreter's lock from its first to its last second. So the flushed shard is copied,
and a child process optimizes the copy while this process goes on serving the original. What was written meanwhile is
replayed on the copy. Then one replacement of the manifest exchanges the two. A crash before the exchange leaves the
original with every acknowledged write, and a folder marked as being created, which the next open removes.

Does not know: queries, qdrant-client's methods.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from qdrant_tools.edge.convert.config import index_due, vector_params
from qdrant_tools.edge.storage.child import run_worker
from qdrant_tools.edge.storage.files import SHARD_FOLDER, copy_folder
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import EngineError, LocationError, PlusError

IN_PROCESS_BYTES = 1 << 20  # of vectors: indexed in a tenth of a second, less than a child takes to start
GROWTH = 0.25  # part of a collection that may lie outside the index before it is built again in the background
QUIET_SECONDS = 1.0  # without a write, after which a load counts as finished
LONGEST_WAIT_SECONDS = 10.0  # after which a build starts although writes go on

logger = logging.getLogger(__name__)

MakeFolder = Callable[[OpenCollection], Path]
Exchange = Callable[[OpenCollection, Path], None]
Remove = Callable[[Path], None]


def build(collection: OpenCollection, make_folder: MakeFolder, exchange: Exchange, remove: Remove) -> bool:
    """Run the optimizer on a collection; False if nothing was due. Raises `EngineError` if the child fails."""
    with collection.building:
        if collection.optimized:
            return False
        points = collection.info().points_count
        size = sum(params.size for params in vector_params(collection.settings).values())
        if points * size * 4 <= IN_PROCESS_BYTES or not sys.executable:
            return collection.optimize()
        return _build_beside(collection, make_folder(collection), exchange, remove)


def _build_beside(collection: OpenCollection, new_folder: Path, exchange: Exchange, remove: Remove) -> bool:
    try:
        with collection.recording():
            # no write can happen here, and from the end of the context on every one is recorded: none is missed
            copy_folder(collection.folder / SHARD_FOLDER, new_folder / SHARD_FOLDER)
        # a close may have waited for the context to end
        built = not collection.closed and _optimize_copy(collection, new_folder / SHARD_FOLDER)
        if built:
            exchange(collection, new_folder)
        else:
            collection.mark_optimized()
        return built
    except OSError as error:
        raise EngineError(
            f"collection '{collection.name}': the index cannot be built in '{new_folder.parent}': {error.strerror}"
        ) from error
    finally:
        collection.stop_recording()
        if collection.folder != new_folder:  # not exchanged
            remove(new_folder)


def _optimize_copy(collection: OpenCollection, shard_folder: Path) -> bool:
    """Optimize a closed shard in a child process; True if something was built. Raises `EngineError`."""
    outcome = run_worker("optimize", shard_folder, collection.set_builder)
    if outcome.disk_full:
        raise LocationError(
            f"collection '{collection.name}': the index cannot be built, the disk of '{shard_folder}' is full; "
            "free some, it serves as before"
        )
    if outcome.code != 0:
        raise EngineError(
            f"collection '{collection.name}': the index build failed ({outcome.reason}); it serves as before"
        )
    return outcome.result == "1"


class BackgroundBuilds:
    """Builds the indexes that a server would have built by itself, once no more writes come."""

    def __init__(self, build_now: Callable[[OpenCollection], bool]) -> None:
        self._build = build_now
        self._threads: dict[OpenCollection, threading.Thread] = {}
        self._mutex = threading.Lock()

    def wrote(self, collection: OpenCollection) -> None:
        """Points were added: start a build if one is due and none is running."""
        if collection in self._threads or not self._due(collection):
            return
        with self._mutex:  # and again: two writers may come here at once
            if collection not in self._threads:
                thread = threading.Thread(target=self._run, args=(collection,), name="index-build", daemon=True)
                self._threads[collection] = thread
                thread.start()

    def running(self, collection: OpenCollection) -> bool:
        return collection in self._threads

    def _due(self, collection: OpenCollection) -> bool:
        info = collection.info()
        vectors = vector_params(collection.settings).values()
        unindexed = info.points_count * max(1, len(vectors)) - info.indexed_vectors_count
        size = max((params.size for params in vectors), default=0)
        enough = unindexed * size * 4 > IN_PROCESS_BYTES and unindexed > GROWTH * info.indexed_vectors_count
        return enough and index_due(collection.settings, info)

    def _run(self, collection: OpenCollection) -> None:
        try:
            start = time.monotonic()
            while not collection.closed and time.monotonic() - start < LONGEST_WAIT_SECONDS:
                if time.monotonic() - collection.last_write > QUIET_SECONDS:
                    break
                time.sleep(QUIET_SECONDS / 10)
            # a bulk load builds the index itself at its end
            if not collection.closed and self._due(collection):
                self._build(collection)
        except PlusError as error:
            if not collection.closed:  # searches go on without the index, as before
                logger.warning("index build in the background: %s", error)
        finally:
            with self._mutex:
                self._threads.pop(collection, None)
