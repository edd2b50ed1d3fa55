"""The folder of one collection: its description, and the mark that says what is being done with it.

The mark is the NAME of the description: `collection.creating.json`, `collection.json`, and so on. Changing it is one
rename, which needs no room on the disk. `location.py` says when a mark changes, and what a crash leaves.

Guarantees: a folder is removed so that a crash on the way leaves it marked. A folder without a mark is never removed.
Does not know: the manifest, the engine.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from qdrant_tools.edge.storage.files import make_folder, replace_file
from qdrant_tools.edge.storage.manifest import FOLDER_NAME, Description
from qdrant_tools.edge.storage.tree import COLLECTIONS_FOLDER, require_plain_tree
from qdrant_tools.errors import LocationError
from qdrant_tools.files.written import sync_folder

logger = logging.getLogger(__name__)


class Mark(Enum):
    """What is being done with a collection's folder; the value is the name of its description."""

    SETTLED = "collection.json"
    CREATING = "collection.creating.json"
    DELETING = "collection.deleting.json"
    REMOVING = "collection.removing.json"


@dataclass(frozen=True)
class CollectionFolder:
    """One collection's folder as it is on the disk. `problem` says why it has no readable description."""

    path: Path
    mark: Mark | None
    description: Description | None
    problem: str = ""


# -- reading


def list_folders(root: Path) -> list[CollectionFolder]:
    """The folders of all collections below `root`, in the order of their names. Raises `LocationError`."""
    parent = root / COLLECTIONS_FOLDER
    with os_errors(parent):
        children = sorted(parent.iterdir()) if parent.is_dir() else []
        return [read_folder(child) for child in children if FOLDER_NAME.fullmatch(child.name) and child.is_dir()]


def read_folder(path: Path) -> CollectionFolder:
    mark = _mark_of(path)
    if mark is None:
        return CollectionFolder(path, None, None, "has no description")
    try:
        return CollectionFolder(path, mark, Description.load(path / mark.value))
    except LocationError as error:
        return CollectionFolder(path, mark, None, f"has a description that cannot be read ({error})")


def _mark_of(path: Path) -> Mark | None:
    return next((mark for mark in Mark if (path / mark.value).exists()), None)


# -- changing


def create_folder(path: Path, description: Description) -> None:
    """Make a folder marked as being created. Raises `LocationError` and leaves nothing."""
    with os_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_folder(path)
    try:
        # the mark is durable before the first byte of the collection is written
        replace_file(path / Mark.CREATING.value, description.text())
        with os_errors(path):
            sync_folder(path.parent)
    except LocationError:
        remove_folder(path)
        raise


def write_description(path: Path, description: Description) -> None:
    """Replace a folder's description, under the mark it has. A folder that is lost is not made again."""
    # an equal one is not written: opening needs no room on the disk for it
    if path.is_dir() and read_folder(path).description != description:
        replace_file(path / (_mark_of(path) or Mark.SETTLED).value, description.text())


def mark_deleting(path: Path) -> None:
    """From now on the next open removes the folder unless the manifest names it. Raises `LocationError`."""
    _set_mark(path, Mark.DELETING)


def clear_mark(path: Path) -> None:
    """Take off a folder's mark: from now on it is a collection. Raises `LocationError`."""
    _set_mark(path, Mark.SETTLED)


def _set_mark(path: Path, mark: Mark) -> None:
    present = _mark_of(path)
    if present is not None and present is not mark:
        with os_errors(path):
            os.replace(path / present.value, path / mark.value)
            sync_folder(path)


# -- removing


def remove_folder(path: Path) -> None:
    """Remove a folder that no manifest names. What cannot be removed is logged."""
    try:
        with suppress(FileNotFoundError):
            require_plain_tree(path)
            # marked first and the mark removed last: a crash in between leaves a folder that the next open removes
            _set_mark(path, Mark.REMOVING)
            mark_file = path / Mark.REMOVING.value
            for child in path.iterdir():
                if child != mark_file:
                    shutil.rmtree(child) if child.is_dir() else child.unlink()
            mark_file.unlink(missing_ok=True)
            path.rmdir()
    except (OSError, LocationError) as error:
        logger.warning("'%s' cannot be removed (%s): the next open tries again", path, error)


def remove_if_empty(path: Path) -> bool:
    """Remove a folder without files, or with only the draft of a description that a crash interrupted."""
    try:
        require_plain_tree(path)
    except LocationError:
        return False
    interrupted = path / f"{Mark.CREATING.value}.new"
    # backwards: what is inside a folder comes before the folder
    inside = sorted(path.rglob("*"), reverse=True)
    if any(child != interrupted and (child.is_symlink() or not child.is_dir()) for child in inside):
        return False
    with suppress(OSError):
        interrupted.unlink(missing_ok=True)
        for empty in (*(child for child in inside if child != interrupted), path):
            empty.rmdir()  # refuses if there is something in it after all
        return True
    return False


def draft_of(path: Path, file: Path) -> Path:
    """Where `file` is written before it is whole, from the copy in the folder `path`, whose name is random."""
    return file.absolute().with_name(f".{path.name}.part")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Errors of the system leave the context as `LocationError`."""
    try:
        yield
    except OSError as error:
        raise LocationError(f"'{path}' cannot be used: {error.strerror or error}") from error
