"""What of the embedded engine other modules need and `QdrantClient` has no method for: a collection's files, and
rankings without points.

Guarantees: `frozen_copy` is a copy of one moment, with every write that was acknowledged before it; what a kill leaves
of it is removed later, and nothing else; `vector_rankings` are what `query_batch_points` finds. Does not know: what is
in the files, whose rankings they are.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.collections.collection import plain_id
from qdrant_tools.errors import LocationError, NotSupportedError
from qdrant_tools.records import Vectors

if TYPE_CHECKING:
    from qdrant_tools.edge.storage.engine import Engine
    from qdrant_tools.edge.storage.shard import OpenCollection

RESTORING = "qdrant-tools-restoring-"

Ranking = tuple[Sequence[str | int], NDArray[np.float32]]
"""Ids and scores (n,), best first; an id is made when it is asked for."""


@dataclass(frozen=True)
class FrozenCopy:
    """A folder of collections that holds one, under its own name, and where the file made of it is drafted."""

    name: str
    root: Path
    draft: Path


def folder_of(client: QdrantClient, name: str) -> Path | None:
    """The folder with a collection's files; None where the collection is not kept in files of this process."""
    if engine_of(client) != "qdrant-edge":
        return None
    return Path(_opened(client, name).folder)


def disk_bytes(client: QdrantClient, name: str) -> int | None:
    """Bytes on the disk, without the holes of preallocated files; None where they cannot be known."""
    folder = folder_of(client, name)
    if folder is None:
        return None
    from qdrant_tools.edge.storage.files import content_bytes

    return content_bytes(folder)


@contextmanager
def frozen_copy(client: QdrantClient, name: str, file: Path) -> Iterator[FrozenCopy]:
    """A copy of a collection, for as long as the context lasts. Reads go on while it is made, writes wait.

    It is made to be written to `file`, by way of the draft that it names. After a kill the next open of the location
    removes both.

    Raises:
        NotSupportedError: the client is not of the embedded engine.
        LocationError: the disk has no room.
    """
    if engine_of(client) != "qdrant-edge":
        raise NotSupportedError(f"collection {name!r} has no files here: only the embedded engine keeps any")
    # imported here: a client of a server needs no engine in its process
    from qdrant_tools.edge.storage.files import copy_folder
    from qdrant_tools.edge.storage.location import COLLECTIONS_FOLDER, draft_of, write_location
    from qdrant_tools.edge.storage.manifest import settings_row
    from qdrant_tools.edge.storage.shard import SHARD_FOLDER

    opened = _opened(client, name)
    with _engine(client).scratch_folder(opened, draft_beside=file) as scratch:
        root, folder = scratch / "root", uuid.uuid4().hex
        with opened.building:
            try:
                with opened.recording():
                    copy_folder(opened.folder / SHARD_FOLDER, root / COLLECTIONS_FOLDER / folder / SHARD_FOLDER)
                    settings = settings_row(opened.settings)
            finally:
                opened.stop_recording()
        write_location(root, opened.name, folder, settings)
        yield FrozenCopy(opened.name, root, draft_of(scratch, file))


@contextmanager
def room_for_restoring(client: QdrantClient) -> Iterator[Path]:
    """An empty folder for as long as the context lasts; after a kill a later call removes it.

    It lies in the location of the embedded engine, which removes it when it is opened next. For other engines it is a
    temporary folder, locked as long as its process lives, which the next call removes.
    """
    if engine_of(client) == "qdrant-edge":
        with _engine(client).scratch_folder() as folder:
            yield folder
        return
    from qdrant_tools.edge.storage.files import FolderLock

    _remove_abandoned(Path(gettempdir()))
    with TemporaryDirectory(prefix=RESTORING) as name:
        lock = FolderLock(Path(name))
        try:
            yield Path(name)
        finally:
            lock.release()


def _remove_abandoned(parent: Path) -> None:
    """Remove the temporary folders whose process is gone: they hold a lock file that nobody holds."""
    from qdrant_tools.edge.storage.files import LOCK_FILE, FolderLock

    for folder in parent.glob(f"{RESTORING}*"):
        if (folder / LOCK_FILE).is_file():
            with suppress(LocationError):  # in use, or of another user
                FolderLock(folder).release()
                shutil.rmtree(folder, ignore_errors=True)


def vector_rankings(
    client: QdrantClient,
    name: str,
    vectors: Vectors,
    limits: Sequence[int],
    *,
    using: str | None = None,
    params: models.SearchParams | None = None,
    only: models.Filter | None = None,
) -> list[Ranking]:
    """The ids and scores of the points nearest to each query vector (n, dimension), in the order of the engine.

    A client of the embedded engine makes no `ScoredPoint` for that, which costs more than the search, and asks all its
    readers at once.
    """
    if not len(vectors):
        return []
    if engine_of(client) != "qdrant-edge":
        requests = [
            models.QueryRequest(query=row, limit=limit, using=using, params=params, filter=only, with_payload=False)
            for row, limit in zip(vectors.tolist(), limits, strict=True)
        ]
        found = [response.points for response in client.query_batch_points(name, requests)]
        return [
            ([plain_id(p.id) for p in points], np.array([p.score for p in points], dtype=np.float32))
            for points in found
        ]
    # imported here: a client of a server needs no engine in its process
    from qdrant_tools.edge.client import found as found_by_engine
    from qdrant_tools.edge.rankings import VectorQueries

    backend: Any = client._client
    return found_by_engine(backend.engine, name, VectorQueries(vectors, limits, using, params, only)).rankings()


def _opened(client: QdrantClient, name: str) -> OpenCollection:
    return _engine(client).collection(name)


def _engine(client: QdrantClient) -> Engine:
    found: Engine = client._client.engine  # type: ignore[attr-defined]
    return found
