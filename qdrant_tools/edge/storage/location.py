"""The files of a folder of collections: opening them, changing them, and what a crash may leave of a change.

Every collection's folder says in the NAME of its description what is being done with it: `collection.creating.json`
from before its first byte, `collection.json` once the manifest names it, `collection.deleting.json` from before the
manifest forgets it, `collection.removing.json` while its files go. Changing a mark is one rename: it needs no room.

How a change goes, from generation g to g + 1 (`begin`, `save`, `remove`), and what a crash leaves after each step:

    create    1. the folder, being created      not in the manifest: removed on the next open. Nobody wrote to it yet.
              2. its shard                      the same
              3. the manifest g + 1             named: its mark is taken off on the next open
              4. its mark is taken off          only now can points be written to it
    drop      1. marked as being deleted        the manifest g still names it: its mark is taken off on the next open
              2. the manifest g + 1             not named: removed on the next open
              3. marked as being removed, its files go, its mark last
    exchange  1. the new folder, being created, with a copy of the old one that has every acknowledged write
              2. the old one marked as being deleted
              3. the manifest g + 1             names the new one; writes wait until 4
              4. the new one's mark is taken off, then the old one goes as in a drop
    settings, 1. the description, g + 1         the manifest is g: the settings of the description hold, aliases stay
    aliases   2. the manifest g + 1

So a folder that may hold points that only it holds is never one that is removed: while being created it holds none, or
what the old one holds too; while being deleted it goes only if a manifest as new as the deletion does not name it.
Which manifest is that new? A folder that was ever named is named by every manifest from its last change (which its
description tells) to its deletion. So a manifest that is not older than the description and does not name the folder
is newer than the deletion. A manifest older than some description, or not newer than `manifest.previous.json`, was put
there by somebody: that is an error, and nothing is touched. A folder without a mark is never removed, whatever the
manifest says.

Does not know: the engine, open collections.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from qdrant_tools.edge.storage.disk_space import RESERVE_FILE
from qdrant_tools.edge.storage.files import LOCK_FILE, READERS_FOLDER
from qdrant_tools.edge.storage.manifest import (
    FOLDER_NAME,
    MANIFEST_FILE,
    PREVIOUS_FILE,
    CollectionEntry,
    Description,
    Manifest,
    replace_file,
    way_out,
)
from qdrant_tools.errors import LocationError
from qdrant_tools.files import sync_folder
from qdrant_tools.validation import brief

COLLECTIONS_FOLDER = "collections"
REPLACED_FILE = "manifest.replaced.json"
"""The manifest that `recover` put aside."""

logger = logging.getLogger(__name__)


class State(Enum):
    """What is being done with a collection's folder; the value is the name of its description."""

    SETTLED = "collection.json"
    CREATING = "collection.creating.json"
    DELETING = "collection.deleting.json"
    REMOVING = "collection.removing.json"


@dataclass(frozen=True)
class FoundFolder:
    """One collection's folder. `problem` says why it has no description that can be read."""

    path: Path
    state: State | None
    description: Description | None
    problem: str = ""


class Location:
    """The files below one folder, which this process has locked. `manifest` is what they hold."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @classmethod
    def open(cls, root: Path) -> Location:
        """Read a folder's files and tidy up what a crash left. Raises `LocationError`, having changed nothing."""
        found = survey(root)
        if not (root / MANIFEST_FILE).exists():
            refuse_lost_manifest(root, found)
            Manifest().save(root)
        manifest = Manifest.load(root)
        refuse_older(root, manifest, found)
        with _translated(root):
            (root / COLLECTIONS_FOLDER).mkdir(exist_ok=True)
        location = cls(root, manifest)
        location._take_over(found)
        location._remove_leftovers(found)
        return location

    def path(self, folder: str) -> Path:
        return self.root / COLLECTIONS_FOLDER / folder

    # -- changing

    def begin(self, name: str, settings: Mapping[str, Any], *, draft_beside: Path | None = None) -> Path:
        """Make a folder that is removed on the next open unless a manifest names it by then.

        With it goes the draft of a file elsewhere: `draft_of(folder, draft_beside)`.
        """
        folder = self.path(uuid.uuid4().hex)
        draft = "" if draft_beside is None else str(draft_of(folder, draft_beside))
        description = Description(name, self.manifest.generation + 1, settings, draft=draft)
        with _translated(folder):
            folder.mkdir(parents=True)
        try:
            replace_file(folder / State.CREATING.value, description.text())
            with _translated(folder):
                sync_folder(folder.parent)
        except LocationError:
            remove_folder(folder)
            raise
        return folder

    def save(self, collections: Mapping[str, CollectionEntry], aliases: Mapping[str, str]) -> None:
        """Make these the collections and aliases, all at once. Folders that are new must have been begun.

        Raises `LocationError`; then everything is as it was.
        """
        before = self.manifest
        after = _next(before, collections, aliases)
        leaving = before.named_folders().keys() - after.named_folders().keys()
        coming = after.named_folders().keys() - before.named_folders().keys()
        try:
            self._describe_changes(after)
            for folder in leaving:
                mark_deleting(self.path(folder))
            with _translated(self.root):
                sync_folder(self.root / COLLECTIONS_FOLDER)
            after.save(self.root)
            for folder in coming:
                settle(self.path(folder))
        except BaseException:  # an interruption too must not leave memory and files apart
            self._take_back(before, after, leaving)
            raise
        self.manifest = after
        with _worth_a_warning(self.root / PREVIOUS_FILE):
            before.save(self.root, PREVIOUS_FILE)

    def remove(self, folder: Path) -> None:
        """Remove a folder, unless the manifest names it."""
        if folder.name not in self.manifest.named_folders():
            remove_folder(folder)

    def _describe_changes(self, manifest: Manifest) -> None:
        for name, entry in manifest.collections.items():
            if entry.generation == manifest.generation:
                describe(self.path(entry.folder), manifest.describe(name))

    def _take_back(self, before: Manifest, after: Manifest, leaving: set[str]) -> None:
        """Undo a change that failed; what cannot be undone is settled by the next open."""
        for folder in leaving:
            with suppress(LocationError):
                settle(self.path(folder))
        with suppress(LocationError):
            if Manifest.load(self.root).generation == after.generation:
                self.manifest = replace(before, generation=after.generation + 1)
                self.manifest.save(self.root)
        for name, entry in before.collections.items():
            if name in after.collections and after.collections[name] != entry:
                with suppress(LocationError):
                    describe(self.path(entry.folder), before.describe(name))

    # -- opening

    def _take_over(self, found: list[FoundFolder]) -> None:
        """Finish what a crash interrupted, and see to it that every folder describes itself."""
        described = {each.path.name: each for each in found}
        known, manifest = self.manifest, _rolled_forward(self.manifest, found)
        with _worth_a_warning(self.root / MANIFEST_FILE):
            if manifest is not known:
                self.manifest = manifest
                manifest.save(self.root)
            for name, entry in manifest.collections.items():
                each = described.get(entry.folder)
                if each is None:
                    continue  # opening the collection says that its files are lost
                if each.state in (State.CREATING, State.DELETING):
                    settle(each.path)
                if each.description != manifest.describe(name):
                    if manifest is known:  # no crash and no older release explains it
                        logger.warning("collection '%s': '%s' %s; written again", name, each.path, _difference(each))
                    describe(each.path, manifest.describe(name))

    def _remove_leftovers(self, found: list[FoundFolder]) -> None:
        """Remove what is marked and not named, and say what else is not named."""
        named = self.manifest.named_folders()
        for each in found:
            if each.path.name in named:
                continue
            if each.description is not None and each.state is not State.SETTLED:
                remove_folder(each.path)
            elif not (each.state is None and _removed_if_empty(each.path)):
                logger.warning(
                    "'%s' %s and no collection that the manifest names: it is kept, `embed-plus collection recover` "
                    "brings it back if it is a collection",
                    each.path,
                    each.problem or f"holds collection '{each.description.name if each.description else ''}'",
                )


def survey(root: Path) -> list[FoundFolder]:
    """Every collection's folder below `root`, with what it says of itself."""
    parent = root / COLLECTIONS_FOLDER
    with _translated(parent):
        children = sorted(parent.iterdir()) if parent.is_dir() else []
        return [_found(child) for child in children if FOLDER_NAME.fullmatch(child.name) and child.is_dir()]


def _found(folder: Path) -> FoundFolder:
    state = _state(folder)
    if state is None:
        return FoundFolder(folder, None, None, "has no description")
    try:
        return FoundFolder(folder, state, Description.load(folder / state.value))
    except LocationError as error:
        return FoundFolder(folder, state, None, f"has a description that cannot be read ({error})")


def _state(folder: Path) -> State | None:
    return next((state for state in State if (folder / state.value).exists()), None)


def refuse_lost_manifest(root: Path, found: list[FoundFolder]) -> None:
    """Raise `LocationError` if there are collections, or were, although there is no manifest."""
    if found or (root / PREVIOUS_FILE).exists():
        raise LocationError(
            f"'{root / MANIFEST_FILE}' is missing, although there are {len(found)} collection folders in "
            f"'{root / COLLECTIONS_FOLDER}'; {way_out(root)}"
        )


def refuse_older(root: Path, manifest: Manifest, found: list[FoundFolder]) -> None:
    """Raise `LocationError` if the manifest is older than the files beside it, or contradicts them."""
    named = manifest.named_folders()
    if (newer := _newer_than(root, manifest, found)) is not None:
        raise LocationError(
            f"'{root / MANIFEST_FILE}' is of generation {manifest.generation}, older than {newer}: was it restored "
            f"from a backup? {way_out(root)}"
        )
    for each in found:
        name = named.get(each.path.name)
        if name is not None and each.description is not None and each.description.name != name:
            raise LocationError(
                f"'{root / MANIFEST_FILE}' says that '{each.path}' holds collection '{name}', the folder itself says "
                f"'{each.description.name}'; {way_out(root)}"
            )


def _newer_than(root: Path, manifest: Manifest, found: list[FoundFolder]) -> str | None:
    """What is newer than the manifest, in words."""
    with suppress(LocationError):  # without a previous one, or with a damaged one, the folders tell
        previous = Manifest.load(root, PREVIOUS_FILE)
        if previous.generation >= manifest.generation:
            return f"'{root / PREVIOUS_FILE}' (generation {previous.generation})"
    named = manifest.named_folders()
    for each in found:
        if each.description is None:
            continue
        # one more than the manifest: a crash came before the manifest, or the change was given up
        begun = each.state in (State.CREATING, State.REMOVING) or each.path.name in named
        at_most = manifest.generation + begun
        gone = each.state is State.REMOVING and each.path.name in named
        if each.description.generation > at_most or gone:
            return f"collection '{each.description.name}' in '{each.path}' (generation {each.description.generation})"
    return None


def _rolled_forward(manifest: Manifest, found: list[FoundFolder]) -> Manifest:
    """The manifest with the settings of descriptions that a crash left newer by one: their shards have them already.

    A manifest of version 1 becomes one of this version.
    """
    described = {each.path.name: each.description for each in found}
    entries = dict(manifest.collections)
    for name, entry in manifest.collections.items():
        description = described.get(entry.folder)
        if description is not None and description.generation == manifest.generation + 1:
            entries[name] = replace(entry, settings=description.settings, generation=description.generation)
    if entries == manifest.collections and manifest.generation:
        return manifest
    return Manifest(entries, manifest.aliases, manifest.generation + 1) if entries else manifest


def _next(before: Manifest, collections: Mapping[str, CollectionEntry], aliases: Mapping[str, str]) -> Manifest:
    """The manifest after a change; what changed bears its generation."""
    draft = Manifest(collections, aliases, before.generation + 1)
    entries = {}
    for name, entry in collections.items():
        known = before.collections.get(name)
        changed = known is None or (
            (entry.folder, entry.settings) != (known.folder, known.settings)
            or draft.aliases_by_collection.get(name) != before.aliases_by_collection.get(name)
        )
        entries[name] = replace(entry, generation=draft.generation) if changed else entry
    return replace(draft, collections=entries)


def describe(folder: Path, description: Description) -> None:
    """Let a folder say this of itself, under the mark it has. A folder that is lost stays so."""
    if folder.is_dir() and _found(folder).description != description:
        replace_file(folder / (_state(folder) or State.SETTLED).value, description.text())


def mark_deleting(folder: Path) -> None:
    """From now on the folder goes on the next open if no manifest names it."""
    _mark(folder, State.DELETING)


def settle(folder: Path) -> None:
    """Take off a folder's mark: it is a collection. Raises `LocationError`."""
    _mark(folder, State.SETTLED)


def _mark(folder: Path, wanted: State) -> None:
    state = _state(folder)
    if state is not None and state is not wanted:
        with _translated(folder):
            os.replace(folder / state.value, folder / wanted.value)
            sync_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder that no manifest names, so that a crash on the way leaves it marked. What stays is said."""
    try:
        with suppress(FileNotFoundError):
            mark = folder / State.REMOVING.value
            draft = _draft(folder)
            _mark(folder, State.REMOVING)
            if draft is not None:
                draft.unlink(missing_ok=True)
            for child in folder.iterdir():
                if child != mark:
                    shutil.rmtree(child) if child.is_dir() else child.unlink()
            mark.unlink(missing_ok=True)
            folder.rmdir()
    except (OSError, LocationError) as error:
        logger.warning("'%s' cannot be removed (%s): the next open tries again", folder, error)


def draft_of(folder: Path, file: Path) -> Path:
    """Where `file` is written before it is whole. Only a file of this name goes with the folder."""
    return file.absolute().with_name(f".{folder.name}.part")


def _draft(folder: Path) -> Path | None:
    description = _found(folder).description
    if description is None or not description.draft:
        return None
    draft = Path(description.draft)
    return draft if draft == draft_of(folder, draft) else None


def _removed_if_empty(folder: Path) -> bool:
    """Remove a folder without files, or with only the description that a crash kept from its name."""
    unnamed = folder / f"{State.CREATING.value}.new"
    inside = sorted(folder.rglob("*"), reverse=True)
    if any(path != unnamed and (path.is_symlink() or not path.is_dir()) for path in inside):
        return False
    with suppress(OSError):
        unnamed.unlink(missing_ok=True)
        for empty in (*(path for path in inside if path != unnamed), folder):
            empty.rmdir()  # refuses if there is something in it after all
        return True
    return False


def _difference(found: FoundFolder) -> str:
    return found.problem or "describes other settings or aliases than the manifest"


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocationError(f"'{path}' cannot be used: {error.strerror or error}") from error


@contextmanager
def _worth_a_warning(path: Path) -> Iterator[None]:
    """Writes that are not needed now, so that a disk without room is no reason to fail."""
    try:
        yield
    except LocationError as error:
        logger.warning("'%s' was left as it is: %s", path, error)


def resolved(root: Path | str) -> Path:
    """The whole path of a folder, without links. Raises `LocationError`."""
    if not isinstance(root, (str, Path)):
        raise LocationError(f"location is {brief(root)}, expected a folder")
    try:
        path = Path(root).expanduser().resolve()
        path.exists()  # says so if the name is too long
        return path
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, zero bytes, no home
        raise LocationError(f"location {str(root)!r} is no path that can be used: {error}") from error


def prepare_folder(root: Path, *, create: bool) -> None:
    """Make sure `root` is a folder of ours, creating it only if asked to. Raises `LocationError`."""
    with _translated(root):
        if root.exists() and not root.is_dir():
            raise LocationError(f"location '{root}' is a file: give a folder, a server URL or ':memory:'")
        there = {path.name for path in root.iterdir()} if root.is_dir() else set()
        if there & {MANIFEST_FILE, PREVIOUS_FILE} or survey(root):
            return
        # what another process that is just creating the folder may have written
        ours = {
            LOCK_FILE,
            RESERVE_FILE,
            READERS_FOLDER,
            f"{MANIFEST_FILE}.new",
            *([] if _is_foreign(root) else [COLLECTIONS_FOLDER]),
        }
        if foreign := sorted(there - ours):
            kind = "a local-mode folder of qdrant-client" if "meta.json" in foreign else f"it holds {foreign[0]!r}"
            raise LocationError(
                f"folder '{root}' is neither empty nor a folder of collections ({kind}): give another folder"
            )
        if not create:
            raise LocationError(f"no collections at '{root}': check the location, or index something there first")
        root.mkdir(parents=True, exist_ok=True)


def _is_foreign(root: Path) -> bool:
    """Whether `collections` is somebody else's folder of that name."""
    folder = root / COLLECTIONS_FOLDER
    return not folder.is_dir() or any(not re.match(FOLDER_NAME, path.name) for path in folder.iterdir())


def write_location(root: Path, name: str, folder: str, settings: Mapping[str, Any]) -> None:
    """Make `root`, where a collection's files lie in `folder`, a folder of collections with just this one."""
    manifest = Manifest({name: CollectionEntry(folder, settings, 1)}, {}, 1)
    describe(root / COLLECTIONS_FOLDER / folder, manifest.describe(name))
    manifest.save(root)
