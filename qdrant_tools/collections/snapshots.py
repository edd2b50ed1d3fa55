"""A collection -> one file that holds it, and back into a new collection.

The embedded engine's snapshot is a tar.gz with a folder of collections that holds this one: unpacked, it is a location
that `connect` opens. It is restored into any engine, point by point, so that the format of the files never matters to
the receiver. A server makes and restores its own snapshots, which hold a server's files and stay with servers.

Guarantees: a snapshot file is whole or not there; a damaged one is found before anything is restored; a restored
collection has as many points as the snapshot, or is not left behind. Does not know: encoders.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import connect, embedded_client, engine_of
from qdrant_tools.client.gateway import Gateway, aliases_of, engine_errors, metadata_in
from qdrant_tools.collections.copying import copy_collection, drop_unfinished
from qdrant_tools.collections.identity import metadata_for_copies
from qdrant_tools.collections.snapshot_file import pack, unpack
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    CollectionNotFoundError,
    DamagedCollectionError,
    InputError,
    LocationError,
    NotSupportedError,
    PlusError,
    UsageError,
    without_keys,
)
from qdrant_tools.files.written import written_whole
from qdrant_tools.records import Progress
from qdrant_tools.validation import brief, checked_text

if TYPE_CHECKING:
    from qdrant_tools.edge.client import EmbeddedClient

RESTORING = "qdrant-tools-restoring-"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot. `where` is a path, or the name under which a server keeps it; `bytes` is its size."""

    collection: str
    where: str
    bytes: int
    points: int


def create_snapshot(client: QdrantClient, name: str, file: Path | str | None = None) -> Snapshot:
    """Write a collection to `file` (embedded engine), or have a server write and keep its own snapshot (no `file`).

    `name` is a collection or an alias; the snapshot names the collection.

    Raises:
        InputError: `file` is no path.
        UsageError: a file for a server, or none for the embedded engine.
        LocationError: the file is there already, or cannot be written.
        NotSupportedError: `:memory:` has no snapshots, and the snapshot of one node of a cluster has only what that
            node holds.
    """
    checked_text("collection name", name)
    path = None if file is None else _path(file, "the file of a snapshot")
    engine, embedded = engine_of(client), embedded_client(client)
    if engine == "memory":
        raise NotSupportedError("':memory:' has no snapshots: copy the collection to a folder with copy_collection")
    points = Gateway(client, name).info().points_count or 0
    if embedded is None:
        if path is not None:
            raise UsageError(f"a server keeps its snapshots itself: leave out the file {str(path)!r}")
        name = aliases_of(client).get(name, name)
        _refuse_elsewhere(client, name)
        with engine_errors(f"snapshot collection {name!r}"):
            made = client.create_snapshot(name, wait=True)
        if made is None:
            raise CollectionError(f"the server made no snapshot of {name!r}: see its log")
        return Snapshot(name, made.name, made.size, points)
    if path is None:
        raise UsageError("the embedded engine writes a snapshot to a file").with_way_out(
            python="give one", command=f"collection snapshot {name} --out {name}.snapshot"
        )
    return _written(embedded, name, path)


def restore_snapshot(client: QdrantClient, source: Path | str, name: str, *, progress: Progress | None = None) -> int:
    """Restore a snapshot as the new collection `name`; how many points.

    `source` is a file that `create_snapshot` wrote, for any engine; or, for a server, the location (http, https or
    file URL) of a server's snapshot, as the server sees it. `progress` receives the points that were restored. The
    index is built by `build_index`.

    Raises:
        CollectionExistsError: there is a collection or an alias of that name.
        NotSupportedError: a server's snapshot for another engine or a cluster, or a file of another format.
        DamagedCollectionError: the file does not hold what it says.
    """
    path = _path(source, "a snapshot")
    if str(source).startswith(("http://", "https://", "file://")):
        return _recovered(client, str(source), name)
    with restoring_folder(client) as folder:
        root = folder / "root"
        header = _unpacked(path, root)
        unpacked = _opened(path, root)
        try:
            points = _count(unpacked, path, header.collection)
            if points != header.points:
                raise DamagedCollectionError(f"snapshot '{source}' holds {points} points, expected {header.points}")
            return _copied(unpacked, header.collection, client, name, progress)
        finally:
            unpacked.close()


def _opened(file: Path, root: Path) -> QdrantClient:
    try:
        return connect(root, create=False)
    except LocationError as error:
        raise DamagedCollectionError(f"snapshot '{file}' holds no location ({error}): use another") from error


def _count(unpacked: QdrantClient, file: Path, collection: str) -> int:
    try:
        return Gateway(unpacked, collection).count()
    except CollectionNotFoundError as error:
        raise DamagedCollectionError(f"snapshot '{file}' lacks its own collection {brief(collection)}") from error


def _copied(source: QdrantClient, source_name: str, client: QdrantClient, name: str, progress: Progress | None) -> int:
    """Copy; what is left of a copy that failed is dropped again."""
    try:
        return copy_collection(source, source_name, client, name, progress=progress)
    except PlusError:
        with suppress(PlusError):
            drop_unfinished(client, name)
        raise


@contextmanager
def restoring_folder(client: QdrantClient) -> Iterator[Path]:
    """An empty folder for as long as the context lasts; after a kill a later call removes it.

    It lies in the location of the embedded engine, which removes it when it is opened next. For other engines it is a
    temporary folder, locked as long as its process lives, which the next call removes.
    """
    embedded = embedded_client(client)
    if embedded is not None:
        with embedded.engine.scratch_folder() as folder:
            yield folder
        return
    # imported here: a client of a server needs no engine in its process
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
        # other users may write there too: a link is not ours
        if not folder.is_symlink() and (folder / LOCK_FILE).is_file():
            with suppress(LocationError):  # in use, or of another user
                FolderLock(folder).release()
                shutil.rmtree(folder, ignore_errors=True)


def _written(client: EmbeddedClient, name: str, file: Path) -> Snapshot:
    try:
        if os.path.lexists(file):
            raise LocationError(f"snapshot file '{file}' is there already: give another name")
        # not made: a mistyped path would leave folders, and a large file where nobody looks for it
        if not file.parent.is_dir():
            raise LocationError(f"snapshot file '{file}' cannot be written: there is no folder '{file.parent}'")
        with client.engine.frozen_copy(name, file) as copy:
            points = _points(copy.root, copy.name)
            header = Snapshot(copy.name, "", 0, points)
            with written_whole(file, draft=copy.draft, durable=True, overwrite=False) as draft:
                pack(copy.root, asdict(header), draft)
        return Snapshot(copy.name, str(file), file.stat().st_size, points)
    except OSError as error:
        raise LocationError(f"snapshot file '{file}' cannot be written: {error.strerror}") from error


def _points(root: Path, name: str) -> int:
    """Open the copy once: it is readable, and says how much it holds."""
    copy = connect(root, create=False)
    try:
        return copy.count(name).count
    finally:
        copy.close()


def _unpacked(file: Path, folder: Path) -> Snapshot:
    header = unpack(file, folder)
    collection, points = header.get("collection"), header.get("points")
    # not isinstance for the number: True is an int
    if not isinstance(collection, str) or type(points) is not int or not 0 <= points < 1 << 63:
        raise DamagedCollectionError(f"snapshot '{file}' does not say which collection it holds: use another")
    return Snapshot(collection, "", 0, points)


def _path(value: Any, what: str) -> Path:
    if isinstance(value, (str, Path)) and str(value).strip() and "\0" not in str(value):
        with suppress(UnicodeEncodeError):
            os.fsencode(value)
            return Path(value)
    raise InputError(f"{what} is {brief(value)}, expected a path")


def _recovered(client: QdrantClient, location: str, name: str) -> int:
    if engine_of(client) != "server":
        raise NotSupportedError(
            f"the snapshot at '{without_keys(location)}' holds a server's files, which only a server restores: "
            "connect to the server that made it and use copy_collection"
        )
    gateway = Gateway(client, checked_text("collection name", name))
    # a server would replace what is there, through an alias too
    if name in aliases_of(client) or gateway.exists():
        raise CollectionExistsError(f"{name!r} is there already: restore under another name, or drop it first")
    _refuse_cluster(client)
    with engine_errors(f"restore collection {name!r}"):
        client.recover_snapshot(name, location, wait=True)
    gateway.update(metadata=_as_a_copy(metadata_in(gateway.info())))
    return gateway.count()


def _as_a_copy(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What makes it a collection of its own: metadata is merged by key, and an empty value stands for none."""
    kept = metadata_for_copies(metadata)
    return {key: {} for key in metadata if key not in kept}


def _refuse_elsewhere(client: QdrantClient, name: str) -> None:
    """Raise `NotSupportedError` if a shard of the collection has no whole replica on the node that answers."""
    with engine_errors(f"ask where collection {name!r} lies"):
        found = client.collection_cluster_info(name)
    here = {shard.shard_id for shard in found.local_shards if shard.state == models.ReplicaState.ACTIVE}
    lacking = {shard.shard_id for shard in found.remote_shards} - here
    if lacking:
        raise NotSupportedError(
            f"collection {name!r} has {len(here | lacking)} shards, {len(lacking)} of them only on other nodes of the "
            "cluster: a snapshot of this node would lack them; copy the collection to a folder with copy_collection, "
            "and snapshot that"
        )


def _refuse_cluster(client: QdrantClient) -> None:
    with engine_errors("ask for the cluster"):
        status = client.cluster_status()
    peers = getattr(status, "peers", None) or {}
    if len(peers) > 1:
        raise NotSupportedError(
            f"the server is one of {len(peers)} nodes, and a snapshot is restored by one node into its own shards: "
            "restore it on a single server, and use copy_collection to the cluster"
        )
