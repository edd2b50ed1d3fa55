"""A folder -> sets of paths that changed in it, as they change.

Guarantees: changes that come together are given together. A folder that vanishes ends the stream with `SourceGoneError`
and is no deletion of its files. Does not know: what is done with the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llama_index_embed_plus.errors import MissingExtraError, SourceGoneError

TOGETHER_MS = 1600
"""How long changes are collected at most, from the first one on."""
QUIET_MS = 300
"""A burst is over when nothing has changed for so long."""
LOOK_MS = 1000
"""How often somebody looks whether the folder is still there."""


def changes(folder: Path) -> Iterator[frozenset[str]]:
    """Yield the paths below the folder that changed, were made or deleted, with slashes; empty sets in between.

    After the first set no change is missed.

    Raises:
        SourceGoneError: the folder is not there, or is another one now.
        MissingExtraError: `watchfiles` is not installed.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtraError("watching a folder", extra="files") from error
    root = folder.resolve()
    begun = _identity(root)
    watched = watch(
        root,
        watch_filter=None,
        debounce=TOGETHER_MS,
        step=QUIET_MS,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
        raise_interrupt=True,
        ignore_permission_denied=True,
    )
    for found in watched:
        if _identity(root) != begun:
            raise SourceGoneError(f"{folder} is gone")
        yield frozenset(_below(path, root) for _, path in found) - {""}


def _identity(root: Path) -> tuple[int, int]:
    try:
        status = os.stat(root)
        os.scandir(root).close()
    except OSError as error:
        raise SourceGoneError(f"{root} is gone ({error.strerror})") from error
    return status.st_dev, status.st_ino


def _below(path: str, root: Path) -> str:
    name = os.path.relpath(path, root).replace(os.sep, "/")
    return "" if name == "." or name.startswith("../") else name
