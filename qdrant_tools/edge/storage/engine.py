"""A folder of collections, open in this process.

Guarantees: one process per folder; inside the process every client of a folder shares one `Engine`. After a crash a
collection is there whole or not at all, and only folders with a mark are removed (see `location.py`).
Does not know: qdrant-client's requests and results.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import text
from qdrant_tools.edge.convert.config import engine_config
from qdrant_tools.edge.errors import EngineCall
from qdrant_tools.edge.storage.build import BackgroundBuilds, build
from qdrant_tools.edge.storage.collection_folder import clear_mark, draft_of, list_folders
from qdrant_tools.edge.storage.disk_space import reserve_of
from qdrant_tools.edge.storage.files import (
    SHARD_FOLDER,
    FolderLock,
    UnwritableError,
    content_bytes,
    copy_folder,
    remove_readers_folder,
)
from qdrant_tools.edge.storage.location import Location, prepare_folder, resolved, write_location
from qdrant_tools.edge.storage.manifest import CollectionEntry, Manifest, settings_row
from qdrant_tools.edge.storage.read_only import ReadOnlyFolder
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.edge.storage.tree import COLLECTIONS_FOLDER, require_plain_tree
from qdrant_tools.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LocationBusyError,
    LocationError,
    NotSupportedError,
)

if TYPE_CHECKING:
    from qdrant_tools.edge.readers.pool import ReaderPool

Settings = models.CreateCollection
ASKED = "opened with read_only=True"
READ_BY_OTHERS = "other processes are reading it"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrozenCopy:
    """A folder with one collection, under its own name. `draft` is where the file made of it is written first."""

    name: str
    root: Path
    draft: Path


class Engine:
    """A folder of collections. Get one with `acquire()`, give it back with `release()`."""

    readers: ReaderPool | None = None
    """Processes that answer searches, if the folder was opened with any."""

    def __init__(self, root: Path, *, create: bool, read_only: bool = False) -> None:
        prepare_folder(root, create=create and not read_only)
        self.root = root
        self.users = 0
        self.pid = os.getpid()
        self._lock: FolderLock | None = None
        self.read_only: ReadOnlyFolder | None = None
        """What stands for the folder if it is only read."""
        self._enter(read_only)
        self._mutex = threading.RLock()
        self._open: dict[str, OpenCollection] = {}
        self.closed = False
        self.builds = BackgroundBuilds(self.build)
        try:
            with self._named():
                self._location = Location.open(self.place)
                remove_readers_folder(self.place)
        except BaseException:
            self._leave()
            raise

    @property
    def place(self) -> Path:
        """The folder that this process writes to."""
        return self.root if self.read_only is None else self.read_only.path

    def _enter(self, read_only: bool) -> None:
        if read_only:
            self.read_only = ReadOnlyFolder(self.root, ASKED)
            return
        try:
            self._lock = FolderLock(self.root)
            return
        except UnwritableError as error:
            if not list_folders(self.root):
                raise
            reason = error.reason
        except LocationBusyError:
            reason = READ_BY_OTHERS
        # raises the same error if another process writes
        self.read_only = ReadOnlyFolder(self.root, reason)
        logger.warning(
            "folder '%s' cannot be written (%s): collections are read from private copies below '%s'",
            self.root,
            reason,
            self.place.parent,
        )

    def _leave(self) -> None:
        if self._lock is not None:
            self._lock.release()
        if self.read_only is not None:
            self.read_only.close()

    def _named(self) -> AbstractContextManager[None]:
        """Errors of a copy name the folder itself."""
        return nullcontext() if self.read_only is None else self.read_only.named()

    def require_writable(self) -> None:
        """Raise `LocationError` if the folder is only read."""
        if self.read_only is not None:
            raise self.read_only.refusal()

    @property
    def _manifest(self) -> Manifest:
        return self._location.manifest

    @property
    def mutex(self) -> threading.RLock:
        """Held by whoever changes what the engine has."""
        return self._mutex

    # -- looking up

    def names(self) -> list[str]:
        self._alive()
        return list(self._manifest.collections)

    def aliases(self) -> dict[str, str]:
        self._alive()
        return dict(self._manifest.aliases)

    def resolve(self, name: str) -> str:
        """The collection behind a name or an alias. Raises `CollectionNotFoundError`."""
        self._alive()
        target = self._manifest.aliases.get(text(name, "collection name"), name)
        if target not in self._manifest.collections:
            names = ", ".join(sorted(self._manifest.collections)) or "none"
            raise CollectionNotFoundError(f"Collection {name} not found; collections here: {names}")
        return target

    def collection(self, name: str) -> OpenCollection:
        """The open collection behind a name or an alias. Raises `CollectionNotFoundError`, `DamagedCollectionError`."""
        # without the lock, because every call of a client comes here; an alias takes the long way
        opened = self._open.get(name) if isinstance(name, str) else None
        if opened is not None and not self.closed and self.pid == os.getpid():
            return opened
        with self._mutex:
            target = self.resolve(name)
            if target not in self._open:
                with self._named():
                    self._open[target] = self._opened(target, self._manifest.collections[target])
            return self._open[target]

    def _opened(self, name: str, entry: CollectionEntry) -> OpenCollection:
        if self.read_only is None:
            require_plain_tree(self._folder(entry))
        else:
            self.read_only.fetch(name, entry.folder)
        clear_mark(self._folder(entry))  # before anything is written to it: a marked folder may be removed
        settings = models.CreateCollection.model_validate(entry.settings)
        opened = OpenCollection(name, self._folder(entry), settings)
        opened.require_writable = self.require_writable
        return opened

    # -- changing

    def create(self, name: str, settings: models.CreateCollection) -> None:
        """Create a collection. Raises `CollectionExistsError` if the name is taken."""
        with self._mutex:
            self._alive()
            self.require_writable()
            if name in self._manifest.collections or name in self._manifest.aliases:
                kind = "Collection" if name in self._manifest.collections else "Alias"
                # LlamaIndex looks for "already exists" in the message
                raise CollectionExistsError(f"{kind} {name} already exists: delete it first or take another name")
            config = engine_config(settings)
            reserve_of(self.root).require(0)
            row = settings_row(settings)
            folder = self._location.begin(name, row)
            opened: OpenCollection | None = None
            try:
                # the folder is marked as being created until the manifest names it
                with EngineCall(name):
                    qe.EdgeShard.create(str(folder / SHARD_FOLDER), config).close()
                opened = OpenCollection(name, folder, settings, fresh=True)
                self._save_entry(name, CollectionEntry(folder.name, row))
            except BaseException:
                if opened is not None:
                    opened.close(discard=True)
                self._location.remove(folder)
                raise
            self._open[name] = opened

    def drop(self, name: str) -> bool:
        """Delete a collection and its aliases; False if there is none. An alias is no collection."""
        with self._mutex:
            self._alive()
            self.require_writable()
            if name not in self._manifest.collections:
                return False
            entry = self._manifest.collections[name]
            require_plain_tree(self._folder(entry))
            others = {other: row for other, row in self._manifest.collections.items() if other != name}
            aliases = {alias: target for alias, target in self._manifest.aliases.items() if target != name}
            reserve_of(self.root).spend()  # the manifest is written anew, and dropping must work on a full disk
            # the manifest first: a crash from here on leaves a folder that the next open removes
            self._location.save(others, aliases)
            opened = self._open.pop(name, None)
            if opened is not None:
                opened.close(discard=True)
            self._location.remove(self._folder(entry))
            return True

    def save_settings(self, collection: OpenCollection, change: Callable[[Settings], Settings]) -> None:
        """Replace a collection's settings by `change(settings)`; its shard already has those that concern it."""
        with self._mutex:
            self.require_writable()
            before = collection.settings
            settings = change(before)
            row = settings_row(settings)
            collection.adopt(settings)
            try:
                self._replace_entry(collection, settings=row)
            except LocationError:
                # the shard has the changed settings already; only the metadata, which it lacks, can go back
                collection.adopt(settings.model_copy(update={"metadata": before.metadata}))
                raise

    def _replace_entry(self, collection: OpenCollection, **changes: Any) -> None:
        if self._open.get(collection.name) is not collection:
            raise CollectionNotFoundError(f"Collection {collection.name} not found: it was deleted meanwhile")
        self._save_entry(collection.name, replace(self._manifest.collections[collection.name], **changes))

    def _save_entry(self, name: str, entry: CollectionEntry) -> None:
        self._location.save({**self._manifest.collections, name: entry}, self._manifest.aliases)

    @contextmanager
    def scratch_folder(
        self, collection: OpenCollection | None = None, draft_beside: Path | None = None
    ) -> Iterator[Path]:
        """A folder inside this one for as long as the context lasts; after a kill the next open removes it.

        Its description names the draft of a file elsewhere, `draft_of(folder, draft_beside)`.
        """
        with self._mutex:
            self._alive()
            name = "scratch" if collection is None else collection.name
            settings = {} if collection is None else settings_row(collection.settings)
            folder = self._location.begin(name, settings, draft_beside=draft_beside)
        try:
            yield folder
        finally:
            self._location.remove(folder)

    @contextmanager
    def frozen_copy(self, name: str, file: Path) -> Iterator[FrozenCopy]:
        """A copy of a collection at one moment, for as long as the context lasts; it holds every acknowledged write.

        It is meant for `file`, which is written as a draft first. Reads go on while it is made, writes wait. After a
        kill the next open of the folder removes the copy, and names the draft. Raises `LocationError` if the disk has
        no room.
        """
        collection = self.collection(name)
        with self.scratch_folder(collection, draft_beside=file) as scratch:
            root, folder = scratch / "root", uuid.uuid4().hex
            with collection.building:  # a build records the writes too, and there is one record
                try:
                    with collection.recording():
                        copy_folder(collection.folder / SHARD_FOLDER, root / COLLECTIONS_FOLDER / folder / SHARD_FOLDER)
                        settings = settings_row(collection.settings)
                finally:  # recorded for the pause alone: nothing is replayed on this copy
                    collection.stop_recording()
            write_location(root, collection.name, folder, settings)
            yield FrozenCopy(collection.name, root, draft_of(scratch, file))

    def disk_bytes(self, name: str) -> int:
        """Bytes of a collection on the disk, without the holes of preallocated files."""
        return content_bytes(self.collection(name).folder)

    def build(self, collection: OpenCollection) -> bool:
        """Build the index of a collection if that is due, beside it if it is large."""
        self.require_writable()
        return build(collection, self._folder_for_copy, self._exchange, self._location.remove)

    def _folder_for_copy(self, collection: OpenCollection) -> Path:
        with self._mutex:
            self._alive()
            return self._location.begin(collection.name, settings_row(collection.settings))

    def _exchange(self, collection: OpenCollection, folder: Path) -> None:
        """Let a collection serve from the copy in `folder`, and remove the one it served from."""
        before = collection.folder
        copy = collection.open_copy(folder)
        try:
            # the engine's lock before the collection's, as in `close` and `flush`
            with self._mutex, collection.exchanged(copy, folder):
                self._replace_entry(collection, folder=folder.name)
        except BaseException:
            self._serve_from(collection, before)
            raise
        self._location.remove(before)

    def _serve_from(self, collection: OpenCollection, folder: Path) -> None:
        """Let the manifest name `folder` again if an exchange was interrupted after it was saved."""
        with self._mutex:
            entry = self._manifest.collections.get(collection.name)
            if entry is not None and collection.folder == folder and entry.folder != folder.name:
                self._replace_entry(collection, folder=folder.name)

    def change_aliases(self, change: Callable[[dict[str, str]], Mapping[str, str]]) -> None:
        """Replace all aliases at once by `change(aliases)`: every reader sees the old ones or the new ones."""
        with self._mutex:
            self._alive()
            self.require_writable()
            self._location.save(self._manifest.collections, change(dict(self._manifest.aliases)))

    # -- closing

    def flush(self) -> None:
        with self._mutex:
            for collection in self._open.values():
                collection.flush()

    def close(self) -> None:
        """Flush and close every collection and let the folder go."""
        with self._mutex:
            if self.closed or self.pid != os.getpid():  # in a forked child the files are its parent's
                return
            self.closed = True
            if self.readers is not None:
                self.readers.close()
            try:
                for collection in self._open.values():
                    collection.close(discard=self.read_only is not None)
            finally:
                self._open.clear()
                self._leave()

    def _alive(self) -> None:
        if self.closed:
            raise LocationError(f"folder '{self.root}' was closed: connect to it again")
        if self.pid != os.getpid():
            raise NotSupportedError(
                f"folder '{self.root}' was opened before this process was forked: an engine cannot be shared "
                "between processes; connect after the fork, or start processes with 'spawn'"
            )

    def _folder(self, entry: CollectionEntry) -> Path:
        return self._location.path(entry.folder)


_engines: dict[Path, Engine] = {}
_registry = threading.RLock()


def acquire(root: Path, *, create: bool = True, read_only: bool = False) -> Engine:
    """The engine of a folder, opened if this process has not yet. Raises `LocationError`, `LocationBusyError`."""
    root = resolved(root)
    with _registry:
        engine = _engines.get(root)
        # after a fork the entry is the parent's: a child must not use what its parent has open
        if engine is None or engine.closed or engine.pid != os.getpid():
            engine = _engines[root] = Engine(root, create=create, read_only=read_only)
        _require_same_mode(engine, read_only)
        engine.users += 1
        return engine


def _require_same_mode(engine: Engine, read_only: bool) -> None:
    """Clients of one engine can all write, or none: one that shall not must not share it with one that may."""
    if read_only and engine.read_only is None:
        raise LocationBusyError(
            f"folder '{engine.root}' is open in this process to be written: use that client, or close it first"
        )
    if not read_only and engine.read_only is not None and engine.read_only.reason == ASKED:
        raise LocationBusyError(
            f"folder '{engine.root}' is open in this process with read_only=True: use that client, or close it first"
        )


def release(engine: Engine) -> None:
    """Give an engine back; the last one to do so closes it."""
    with _registry:
        engine.users -= 1
        if engine.users <= 0:
            _engines.pop(engine.root, None)
            engine.close()


# closed in order, a collection needs no child process at its next opening
@atexit.register
def _close_all() -> None:
    with _registry:
        for engine in list(_engines.values()):
            engine.close()
        _engines.clear()
