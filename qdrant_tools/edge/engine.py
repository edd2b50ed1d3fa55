"""A folder of collections, open in this process.

Guarantees: one process per folder; inside the process every client of a folder shares one `Engine`; a collection
is in the manifest only when its folder is complete, and its folder goes only after it left the manifest, so a
crash in between leaves an orphan folder that the next open removes.
Does not know: qdrant-client's requests and results.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.build import BackgroundBuilds, build
from qdrant_tools.edge.config import engine_config
from qdrant_tools.edge.files import READERS_FOLDER, remove_readers_folder
from qdrant_tools.edge.lock import LOCK_FILE, FolderLock
from qdrant_tools.edge.manifest import MANIFEST_FILE, CollectionEntry, Manifest, sync_folder
from qdrant_tools.edge.seam import EngineCall
from qdrant_tools.edge.shard import SHARD_FOLDER, OpenCollection
from qdrant_tools.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    LocationError,
    NotSupportedError,
    PlusError,
)

if TYPE_CHECKING:
    from qdrant_tools.edge.readers import ReaderPool

COLLECTIONS_FOLDER = "collections"

Settings = models.CreateCollection


class Engine:
    """A folder of collections. Get one with `acquire()`, give it back with `release()`."""

    readers: ReaderPool | None = None
    """Processes that answer searches, if the folder was opened with any."""

    def __init__(self, root: Path, *, create: bool) -> None:
        prepare_folder(root, create=create)
        self.root = root
        self.users = 0
        self.pid = os.getpid()
        self._lock = FolderLock(root)
        self._mutex = threading.RLock()
        self._open: dict[str, OpenCollection] = {}
        self.closed = False
        self.builds = BackgroundBuilds(self.build)
        try:
            self._manifest = self._read_manifest()
            self._remove_orphans()
            remove_readers_folder(root)
        except PlusError:
            self._lock.release()
            raise

    def _read_manifest(self) -> Manifest:
        if not (self.root / MANIFEST_FILE).exists():
            Manifest().save(self.root)
        return Manifest.load(self.root)

    def _remove_orphans(self) -> None:
        """Remove what a crash left: folders half created or half deleted. None of them is in the manifest."""
        folder = self.root / COLLECTIONS_FOLDER
        folder.mkdir(exist_ok=True)
        known = {entry.folder for entry in self._manifest.collections.values()}
        for child in folder.iterdir():
            if child.name not in known and re.fullmatch(r"[0-9a-f]{32}", child.name):
                shutil.rmtree(child, ignore_errors=True)

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
        target = self._manifest.aliases.get(name, name)
        if target not in self._manifest.collections:
            known = ", ".join(sorted(self._manifest.collections)) or "none"
            raise CollectionNotFoundError(f"Collection {name} not found; collections here: {known}")
        return target

    def collection(self, name: str) -> OpenCollection:
        """The open collection behind a name or an alias. Raises `CollectionNotFoundError`, `DamagedCollectionError`."""
        found = self._open.get(name)
        if found is not None and not self.closed and self.pid == os.getpid():
            return found
        with self._mutex:
            target = self.resolve(name)
            if target not in self._open:
                entry = self._manifest.collections[target]
                settings = models.CreateCollection.model_validate(entry.settings)
                self._open[target] = OpenCollection(target, self._folder(entry), settings)
            return self._open[target]

    # -- changing

    def create(self, name: str, settings: models.CreateCollection) -> None:
        """Create a collection. Raises `CollectionExistsError` if the name is taken."""
        with self._mutex:
            self._alive()
            if name in self._manifest.collections or name in self._manifest.aliases:
                kind = "Collection" if name in self._manifest.collections else "Alias"
                raise CollectionExistsError(f"{kind} {name} already exists: delete it first or take another name")
            entry = CollectionEntry(uuid.uuid4().hex, settings.model_dump(mode="json", exclude_none=True))
            config = engine_config(settings)
            try:
                with EngineCall(name):
                    qe.EdgeShard.create(str(self._folder(entry) / SHARD_FOLDER), config).close()
                opened = OpenCollection(name, self._folder(entry), settings, fresh=True)
                self._save(replace(self._manifest, collections={**self._manifest.collections, name: entry}))
            except PlusError:
                shutil.rmtree(self._folder(entry), ignore_errors=True)
                raise
            self._open[name] = opened

    def drop(self, name: str) -> bool:
        """Delete a collection and its aliases; False if there is none. An alias is no collection."""
        with self._mutex:
            self._alive()
            if name not in self._manifest.collections:
                return False
            entry = self._manifest.collections[name]
            rest = {n: e for n, e in self._manifest.collections.items() if n != name}
            aliases = {alias: target for alias, target in self._manifest.aliases.items() if target != name}
            self._save(Manifest(rest, aliases))
            opened = self._open.pop(name, None)
            if opened is not None:
                opened.close(discard=True)
            shutil.rmtree(self._folder(entry), ignore_errors=True)
            return True

    def record(self, collection: OpenCollection, change: Callable[[Settings], Settings]) -> None:
        """Replace a collection's settings by `change(settings)`; its shard already has them."""
        with self._mutex:
            settings = change(collection.settings)
            collection.adopt(settings)
            self._replace_entry(collection, settings=settings.model_dump(mode="json", exclude_none=True))

    def _replace_entry(self, collection: OpenCollection, **changes: Any) -> None:
        if self._open.get(collection.name) is not collection:
            raise CollectionNotFoundError(f"Collection {collection.name} not found: it was deleted meanwhile")
        entry = replace(self._manifest.collections[collection.name], **changes)
        self._save(replace(self._manifest, collections={**self._manifest.collections, collection.name: entry}))

    def build(self, collection: OpenCollection) -> bool:
        """Build the index of a collection if that is due, beside it if it is large."""
        return build(collection, self.root / COLLECTIONS_FOLDER / uuid.uuid4().hex, self._exchange)

    def _exchange(self, collection: OpenCollection, folder: Path) -> None:
        """Let a collection serve from the copy in `folder`, and remove the one it served from."""
        before = collection.folder
        copy = collection.caught_up(folder)
        with self._mutex, collection.exchanged(copy, folder):
            self._replace_entry(collection, folder=folder.name)
        shutil.rmtree(before, ignore_errors=True)

    def change_aliases(self, change: Callable[[dict[str, str]], Mapping[str, str]]) -> None:
        """Replace all aliases at once by `change(aliases)`: every reader sees the old ones or the new ones."""
        with self._mutex:
            self._alive()
            self._save(replace(self._manifest, aliases=change(dict(self._manifest.aliases))))

    def _save(self, manifest: Manifest) -> None:
        sync_folder(self.root / COLLECTIONS_FOLDER)
        manifest.save(self.root)
        self._manifest = manifest

    # -- closing

    def flush(self) -> None:
        with self._mutex:
            for collection in self._open.values():
                collection.flush()

    def close(self) -> None:
        """Flush and close every collection and let the folder go."""
        with self._mutex:
            if self.closed or self.pid != os.getpid():
                return
            self.closed = True
            if self.readers is not None:
                self.readers.close()
            try:
                for collection in self._open.values():
                    collection.close()
            finally:
                self._open.clear()
                self._lock.release()

    def _alive(self) -> None:
        if self.closed:
            raise LocationError(f"folder '{self.root}' was closed: connect to it again")
        if self.pid != os.getpid():
            raise NotSupportedError(
                f"folder '{self.root}' was opened before this process was forked: an engine cannot be shared "
                "between processes; connect after the fork, or start processes with 'spawn'"
            )

    def _folder(self, entry: CollectionEntry) -> Path:
        return self.root / COLLECTIONS_FOLDER / entry.folder


def prepare_folder(root: Path, *, create: bool) -> None:
    """Make sure `root` is a folder of ours, creating it only if asked to. Raises `LocationError`."""
    if (root / MANIFEST_FILE).is_file():
        return
    if root.exists() and not root.is_dir():
        raise LocationError(f"location '{root}' is a file: give a folder, a server URL or ':memory:'")
    try:
        foreign = (
            sorted(p.name for p in root.iterdir() if p.name not in (LOCK_FILE, READERS_FOLDER)) if root.is_dir() else []
        )
        if foreign and foreign != [COLLECTIONS_FOLDER]:
            kind = "a local-mode folder of qdrant-client" if "meta.json" in foreign else f"it holds {foreign[0]!r}"
            raise LocationError(
                f"folder '{root}' is neither empty nor a folder of collections ({kind}): give another folder"
            )
        if not create:
            raise LocationError(f"no collections at '{root}': check the location, or index something there first")
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocationError(f"folder '{root}' cannot be used: {error.strerror}") from error


_engines: dict[Path, Engine] = {}
_registry = threading.RLock()


def acquire(root: Path, *, create: bool = True) -> Engine:
    """The engine of a folder, opened if this process has not yet. Raises `LocationError`, `LocationBusyError`."""
    root = root.expanduser().resolve()
    with _registry:
        engine = _engines.get(root)
        if engine is None or engine.closed or engine.pid != os.getpid():
            engine = _engines[root] = Engine(root, create=create)
        engine.users += 1
        return engine


def release(engine: Engine) -> None:
    """Give an engine back; the last one to do so closes it."""
    with _registry:
        engine.users -= 1
        if engine.users <= 0:
            _engines.pop(engine.root, None)
            engine.close()


@atexit.register
def _close_all() -> None:
    with _registry:
        for engine in list(_engines.values()):
            engine.close()
        _engines.clear()
