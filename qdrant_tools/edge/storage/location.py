"""A folder of collections on the disk: opening it, changing it, and what a crash may leave of a change.

Every collection's folder has a mark, the name of its description (`collection_folder.py`): `collection.creating.json`
from before its first byte, `collection.json` once the manifest names it, `collection.deleting.json` from before the
manifest forgets it, `collection.removing.json` while its files are removed.

How a change goes, from generation g to g + 1 (`begin`, `save`, `remove`), and what a crash leaves after each step:

    create    1. the folder, being created      not in the manifest: removed on the next open. Nobody wrote to it yet.
              2. its shard                      the same
              3. the manifest g + 1             named: its mark is taken off on the next open
              4. its mark is taken off          only now can points be written to it
    drop      1. marked as being deleted        the manifest g still names it: its mark is taken off on the next open
              2. the manifest g + 1             not named: removed on the next open
              3. marked as being removed, its files are removed, its mark last
    exchange  1. the new folder, being created, with a copy of the old one that has every acknowledged write
              2. the old one marked as being deleted
              3. the manifest g + 1             names the new one; writes wait until 4
              4. the new one's mark is taken off, then the old one is removed as in a drop
    settings, 1. the description, g + 1         the manifest is g: the settings of the description hold, aliases stay
    aliases   2. the manifest g + 1

A folder that alone holds some points is therefore never removed. While being created it holds none, or what the old
folder holds too. While being deleted it is removed only by a manifest that is newer than the deletion and does not
name it. Its description has the generation of its last change, and every manifest from then until its deletion names
it. So a manifest that does not name it, and is not older than its description, is newer than its deletion.

A manifest that is older than some description, or not newer than `manifest.previous.json`, was put there by somebody.
That is an error, and nothing is touched. A folder without a mark is never removed, whatever the manifest says.

Does not know: the engine, open collections.
"""

from __future__ import annotations

import logging
import re
import shlex
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from qdrant_tools.edge.storage.collection_folder import (
    CollectionFolder,
    Mark,
    clear_mark,
    create_folder,
    draft_of,
    list_folders,
    mark_deleting,
    os_errors,
    remove_folder,
    remove_if_empty,
    write_description,
)
from qdrant_tools.edge.storage.disk_space import RESERVE_FILE
from qdrant_tools.edge.storage.files import LOCK_FILE, READERS_FOLDER, make_folder
from qdrant_tools.edge.storage.manifest import (
    FOLDER_NAME,
    MANIFEST_FILE,
    PREVIOUS_FILE,
    CollectionEntry,
    Description,
    Manifest,
    recovery_advice,
)
from qdrant_tools.edge.storage.tree import COLLECTIONS_FOLDER, require_plain_root
from qdrant_tools.errors import LocationError
from qdrant_tools.files.written import private_folder, sync_folder
from qdrant_tools.validation import brief

logger = logging.getLogger(__name__)


class Location:
    """The files below one folder, which this process has locked. `manifest` is what they hold."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @classmethod
    def open(cls, root: Path) -> Location:
        """Read a folder's files and finish what a crash interrupted. Raises `LocationError`, having changed nothing."""
        folders = list_folders(root)
        if not (root / MANIFEST_FILE).exists():
            refuse_lost_manifest(root, folders)
            Manifest().save(root)
        manifest = Manifest.load(root)
        refuse_older_manifest(root, manifest, folders)
        with os_errors(root):
            make_folder(root / COLLECTIONS_FOLDER, exist_ok=True)
        location = cls(root, manifest)
        location._finish_changes(folders)
        location._remove_leftovers(folders)
        return location

    def path(self, folder: str) -> Path:
        return self.root / COLLECTIONS_FOLDER / folder

    # -- changing

    def begin(self, name: str, settings: Mapping[str, Any], *, draft_beside: Path | None = None) -> Path:
        """Make a folder that the next open removes unless a manifest names it by then.

        Its description names the draft of a file elsewhere, `draft_of(folder, draft_beside)`.
        """
        folder = self.path(uuid.uuid4().hex)
        draft = "" if draft_beside is None else str(draft_of(folder, draft_beside))
        create_folder(folder, Description(name, self.manifest.generation + 1, settings, draft=draft))
        return folder

    def save(self, collections: Mapping[str, CollectionEntry], aliases: Mapping[str, str]) -> None:
        """Make these the collections and aliases, all at once. Folders that are new must have been begun.

        Raises `LocationError`; then everything is as it was.
        """
        before = self.manifest
        after = _next_manifest(before, collections, aliases)
        deleted = before.named_folders().keys() - after.named_folders().keys()
        added = after.named_folders().keys() - before.named_folders().keys()
        try:
            # descriptions and marks first, the manifest last: the order of the table above
            self._describe_changes(after)
            for folder in deleted:
                mark_deleting(self.path(folder))
            with os_errors(self.root):
                sync_folder(self.root / COLLECTIONS_FOLDER)
            after.save(self.root)
            for folder in added:
                clear_mark(self.path(folder))
        except BaseException:  # an interruption too must not leave memory and files apart
            self._undo(before, after, deleted)
            raise
        self.manifest = after
        # only now: beside a manifest of its own generation it would look as if that one had been put back
        with _failure_is_a_warning(self.root / PREVIOUS_FILE):
            before.save(self.root, PREVIOUS_FILE)

    def remove(self, folder: Path) -> None:
        """Remove a folder, unless the manifest names it."""
        if folder.name not in self.manifest.named_folders():
            remove_folder(folder)

    def _describe_changes(self, manifest: Manifest) -> None:
        for name, entry in manifest.collections.items():
            if entry.generation == manifest.generation:
                write_description(self.path(entry.folder), manifest.describe(name))

    def _undo(self, before: Manifest, after: Manifest, deleted: set[str]) -> None:
        """Undo a change that failed. The next open finishes what cannot be undone."""
        for folder in deleted:
            with suppress(LocationError):
                clear_mark(self.path(folder))
        with suppress(LocationError):
            if Manifest.load(self.root).generation == after.generation:  # it was saved before the failure
                # a generation of its own: two manifests of one generation would differ
                self.manifest = replace(before, generation=after.generation + 1)
                self.manifest.save(self.root)
        for name, entry in before.collections.items():
            if name in after.collections and after.collections[name] != entry:
                with suppress(LocationError):
                    write_description(self.path(entry.folder), before.describe(name))

    # -- opening

    def _finish_changes(self, folders: list[CollectionFolder]) -> None:
        """Finish what a crash interrupted, and let every named folder have its description."""
        by_name = {folder.path.name: folder for folder in folders}
        stored, manifest = self.manifest, _rolled_forward(self.manifest, folders)
        with _failure_is_a_warning(self.root / MANIFEST_FILE):
            if manifest is not stored:
                self.manifest = manifest
                manifest.save(self.root)
            for name, entry in manifest.collections.items():
                folder = by_name.get(entry.folder)
                if folder is None:
                    continue  # opening the collection says that its files are lost
                if folder.mark in (Mark.CREATING, Mark.DELETING):
                    clear_mark(folder.path)
                if folder.description != manifest.describe(name):
                    if manifest is stored:  # no crash and no older release explains it
                        problem = folder.problem or "describes other settings or aliases than the manifest"
                        logger.warning("collection %r: '%s' %s; written again", name, folder.path, problem)
                    write_description(folder.path, manifest.describe(name))

    def _remove_leftovers(self, folders: list[CollectionFolder]) -> None:
        """Remove the folders that have a mark and are not named. Warn of others that are not named."""
        named = self.manifest.named_folders()
        for folder in folders:
            if folder.path.name in named:
                continue
            # only if the description can be read: a damaged folder is kept, whatever its mark
            if folder.description is not None and folder.mark is not Mark.SETTLED:
                if folder.description.draft:
                    # not removed here: who made the folder may have written any path there
                    logger.warning("a snapshot was interrupted: remove %r if it is there", folder.description.draft)
                remove_folder(folder.path)
            elif not (folder.mark is None and remove_if_empty(folder.path)):
                logger.warning(
                    "'%s' %s and no collection that the manifest names: it is kept, `embed-plus collection recover` "
                    "brings it back if it is a collection",
                    folder.path,
                    folder.problem or f"holds collection {folder.description.name if folder.description else ''!r}",
                )


def _rolled_forward(manifest: Manifest, folders: list[CollectionFolder]) -> Manifest:
    """The manifest with the settings of descriptions that are newer by one: a crash came before the manifest.

    Their shards have these settings already. A manifest of version 1 becomes one of this version.
    """
    descriptions = {folder.path.name: folder.description for folder in folders}
    entries = dict(manifest.collections)
    for name, entry in manifest.collections.items():
        description = descriptions.get(entry.folder)
        if description is not None and description.generation == manifest.generation + 1:
            entries[name] = replace(entry, settings=description.settings, generation=description.generation)
    if entries == manifest.collections and manifest.generation:  # generation 0 is version 1, or a new folder
        return manifest
    return Manifest(entries, manifest.aliases, manifest.generation + 1) if entries else manifest


def _next_manifest(
    before: Manifest, collections: Mapping[str, CollectionEntry], aliases: Mapping[str, str]
) -> Manifest:
    """The manifest after a change. Entries that changed carry its generation."""
    draft = Manifest(collections, aliases, before.generation + 1)
    entries = {}
    for name, entry in collections.items():
        previous = before.collections.get(name)
        changed = previous is None or (
            (entry.folder, entry.settings) != (previous.folder, previous.settings)
            or draft.aliases_by_collection.get(name) != before.aliases_by_collection.get(name)
        )
        entries[name] = replace(entry, generation=draft.generation) if changed else entry
    return replace(draft, collections=entries)


@contextmanager
def _failure_is_a_warning(path: Path) -> Iterator[None]:
    """For writes that are not needed now: a disk without room is no reason to fail."""
    try:
        yield
    except LocationError as error:
        logger.warning("'%s' was left as it is: %s", path, error)


# -- a manifest that cannot be used


def refuse_lost_manifest(root: Path, folders: list[CollectionFolder]) -> None:
    """Raise `LocationError` if there are collections, or were, although there is no manifest."""
    if folders or (root / PREVIOUS_FILE).exists():
        count = f"{len(folders)} collection folder{'' if len(folders) == 1 else 's'}"
        raise LocationError(
            f"'{root / MANIFEST_FILE}' is missing, although '{root / COLLECTIONS_FOLDER}' holds {count}; "
            f"{recovery_advice(root)}"
        )


def refuse_older_manifest(root: Path, manifest: Manifest, folders: list[CollectionFolder]) -> None:
    """Raise `LocationError` if the manifest is older than the files beside it, or contradicts them."""
    named = manifest.named_folders()
    if (newer := _newer_file(root, manifest, folders)) is not None:
        raise LocationError(
            f"'{root / MANIFEST_FILE}' is of generation {manifest.generation}, older than {newer}: was it restored "
            f"from a backup? {recovery_advice(root)}"
        )
    for folder in folders:
        name = named.get(folder.path.name)
        if name is not None and folder.description is not None and folder.description.name != name:
            raise LocationError(
                f"'{root / MANIFEST_FILE}' says that '{folder.path}' holds collection '{name}', the folder itself says "
                f"'{folder.description.name}'; {recovery_advice(root)}"
            )


def _newer_file(root: Path, manifest: Manifest, folders: list[CollectionFolder]) -> str | None:
    """What is newer than the manifest, in words; None if nothing is."""
    with suppress(LocationError):  # without a readable previous manifest the folders decide
        previous = Manifest.load(root, PREVIOUS_FILE)
        if previous.generation >= manifest.generation:
            return f"'{root / PREVIOUS_FILE}' (generation {previous.generation})"
    named = manifest.named_folders()
    for folder in folders:
        if folder.description is None:
            continue
        # one more than the manifest: a crash came before the manifest, or the change was given up
        begun = folder.mark in (Mark.CREATING, Mark.REMOVING) or folder.path.name in named
        newest_allowed = manifest.generation + begun
        removed = folder.mark is Mark.REMOVING and folder.path.name in named
        if folder.description.generation > newest_allowed or removed:
            return (
                f"collection '{folder.description.name}' in '{folder.path}' "
                f"(generation {folder.description.generation})"
            )
    return None


# -- folders that are given by users


def resolved(root: Path | str) -> Path:
    """The absolute path of a folder, without links. Raises `LocationError`."""
    if not isinstance(root, (str, Path)):
        raise LocationError(f"location is {brief(root)}, expected a folder")
    try:
        path = Path(root).expanduser().resolve()
        path.exists()  # raises if the name is too long
        return path
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, zero bytes, no home
        raise LocationError(f"location {str(root)!r} is no path that can be used: {error}") from error


def prepare_folder(root: Path, *, create: bool) -> None:
    """Make sure that `root` is empty or a folder of collections; create it with `create`. Raises `LocationError`."""
    with os_errors(root):
        if root.exists() and not root.is_dir():
            raise LocationError(f"location '{root}' is a file: give a folder, a server URL or ':memory:'")
        names = {path.name for path in root.iterdir()} if root.is_dir() else set()
        if names & {MANIFEST_FILE, PREVIOUS_FILE, COLLECTIONS_FOLDER}:
            require_plain_root(root)
        if names & {MANIFEST_FILE, PREVIOUS_FILE} or list_folders(root):
            return
        # what another process that is just creating the folder may have written
        ours = {
            LOCK_FILE,
            RESERVE_FILE,
            READERS_FOLDER,
            f"{MANIFEST_FILE}.new",
            *([] if _is_foreign(root) else [COLLECTIONS_FOLDER]),
        }
        if foreign := sorted(names - ours):
            kind = "a local-mode folder of qdrant-client" if "meta.json" in foreign else f"it holds {foreign[0]!r}"
            raise LocationError(
                f"folder '{root}' is neither empty nor a folder of collections ({kind}): give another folder"
            )
        require_plain_root(root)
        if not create:
            raise LocationError(f"no collections at '{root}'").with_way_out(
                python="check the location, or index something there first",
                command=f"index NAME FOLDER --location {shlex.quote(str(root))} makes one there; or check the location",
            )
        private_folder(root)


def _is_foreign(root: Path) -> bool:
    """Whether `collections` is somebody else's folder of that name."""
    folder = root / COLLECTIONS_FOLDER
    return not folder.is_dir() or any(not re.match(FOLDER_NAME, path.name) for path in folder.iterdir())


def write_location(root: Path, name: str, folder: str, settings: Mapping[str, Any]) -> None:
    """Make `root` a folder of collections with just one, whose files are in `folder` already."""
    manifest = Manifest({name: CollectionEntry(folder, settings, 1)}, {}, 1)
    write_description(root / COLLECTIONS_FOLDER / folder, manifest.describe(name))
    manifest.save(root)
