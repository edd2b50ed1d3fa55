"""The files of a folder of collections that somebody else may have made: only plain files and folders are there.

The engine opens, maps and truncates its files through links, and we replace, lock and remove some. So before anything
below a folder is opened for writing, or removed, it is looked at here. A hard link counts too: another name of a file
that is written would be written as well. Only files that nobody ever writes may have one, which reader processes use.

Guarantees: nothing is opened, written or removed. Does not know: what the files hold. Does not defend against a program
that changes the folder meanwhile.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from qdrant_tools.errors import LocationError

COLLECTIONS_FOLDER = "collections"
NEVER_WRITTEN = frozenset({"matrix.dat", "links.bin", "links_compressed.bin", "quantized.data"})
"""The large files of a segment with an index. The engine only ever maps them for reading."""
DEEPEST = 16
MOST_FILES = 200_000
"""In one collection, or in the copies for readers: the engine keeps some fifty for each segment."""


def require_plain_root(root: Path) -> None:
    """Look at a location's own files, its folder of collections, and the own files of every collection.

    Raises:
        LocationError: something is a link, or neither a file nor a folder.
    """
    if COLLECTIONS_FOLDER in _plain_folders(root):
        collections = root / COLLECTIONS_FOLDER
        for name in _plain_folders(collections):
            _plain_folders(collections / name)


def require_plain_tree(folder: Path) -> None:
    """Look at everything below a folder inside a location; it need not be there.

    Raises:
        LocationError: something is a link, or neither a file nor a folder; or there is more than any collection has.
    """
    if folder.is_symlink():
        raise _refusal(str(folder), "a link")
    files = 0
    unseen = [(folder, 0)]
    while unseen:
        parent, depth = unseen.pop()
        with suppress(FileNotFoundError):
            files += len(os.listdir(parent))
        unseen += [(parent / name, depth + 1) for name in _plain_folders(parent)]
        if files > MOST_FILES or depth > DEEPEST:
            raise LocationError(f"'{folder}' holds more files or deeper folders than any collection: remove it")


def _plain_folders(parent: Path) -> list[str]:
    """The names of the folders in `parent`, after a look at everything in it. Another process may remove some."""
    folders = []
    try:
        with os.scandir(parent) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise _refusal(entry.path, "a link")
                if entry.is_dir():
                    folders.append(entry.name)
                elif not entry.is_file():
                    raise _refusal(entry.path, "a pipe, a socket or a device")
                elif entry.name not in NEVER_WRITTEN and _names(entry) > 1:
                    raise _refusal(entry.path, "another name of a file elsewhere (a hard link)")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LocationError(f"'{parent}' cannot be read: {error.strerror}") from error
    return folders


def _names(entry: os.DirEntry[str]) -> int:
    with suppress(FileNotFoundError):
        return entry.stat().st_nlink
    return 0


def _refusal(path: str, kind: str) -> LocationError:
    return LocationError(
        f"'{path}' is {kind}, which an index folder never holds: if you trust it, make a copy of the folder with "
        "`cp -rL` and give that"
    )
