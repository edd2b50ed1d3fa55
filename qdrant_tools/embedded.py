"""What of the embedded engine other modules need and `QdrantClient` has no method for: a collection's files, and
rankings without points.

Guarantees: `frozen_copy` is a copy of one moment, with every write that was acknowledged before it; `vector_rankings`
are what `query_batch_points` finds. Does not know: what is in the files, whose rankings they are.
"""

from __future__ import annotations

import stat
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from qdrant_tools.connect import engine_of
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.handle import plain_id
from qdrant_tools.records import Vectors

if TYPE_CHECKING:
    from qdrant_tools.edge.shard import OpenCollection

Ranking = tuple[Sequence[str | int], NDArray[np.float32]]
"""Ids and scores (n,), best first; an id is made when it is asked for."""


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
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # the engine removes files while it works
            found = path.stat()
            if stat.S_ISREG(found.st_mode):
                total += min(found.st_size, getattr(found, "st_blocks", found.st_size) * 512)
    return total


def frozen_copy(client: QdrantClient, name: str, root: Path) -> None:
    """Make `root` a folder of collections of its own, with a copy of this one. Reads go on meanwhile, writes wait.

    Raises:
        NotSupportedError: the client is not of the embedded engine.
        LocationError: the disk has no room.
    """
    if engine_of(client) != "qdrant-edge":
        raise NotSupportedError(f"collection {name!r} has no files here: only the embedded engine keeps any")
    # imported here: a client of a server needs no engine in its process
    from qdrant_tools.edge.engine import COLLECTIONS_FOLDER
    from qdrant_tools.edge.files import copy_folder
    from qdrant_tools.edge.manifest import CollectionEntry, Manifest
    from qdrant_tools.edge.shard import SHARD_FOLDER

    opened = _opened(client, name)
    folder = uuid.uuid4().hex
    with opened.building:
        try:
            with opened.recording():
                copy_folder(opened.folder / SHARD_FOLDER, root / COLLECTIONS_FOLDER / folder / SHARD_FOLDER)
                settings = opened.settings.model_dump(mode="json", exclude_none=True)
        finally:
            opened.stop_recording()
    Manifest({opened.name: CollectionEntry(folder, settings)}).save(root)


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
    from qdrant_tools.edge.rankings import VectorQueries
    from qdrant_tools.edge.readers import found as found_by_engine

    backend: Any = client._client
    return found_by_engine(backend.engine, name, VectorQueries(vectors, limits, using, params, only)).rankings()


def _opened(client: QdrantClient, name: str) -> OpenCollection:
    found: OpenCollection = client._client.engine.collection(name)  # type: ignore[attr-defined]
    return found
