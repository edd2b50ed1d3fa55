"""A folder that somebody else made -> the regular files in it, and a copy of them.

Model folders, snapshots, index folders and document folders arrive by mail, by hub and by archive. A link in one can
point to anything of the person who opens it. So every reader of a whole folder takes its files from here.

Guarantees: every path lies in the folder and is a regular file, or a link to one that lies there as well; a link out of
it, a link to a folder, a pipe or a device is an error that names it. The one exception: a snapshot of the model hub's
cache may point into the blobs of its own repository, which is how the cache stores files. Nothing is opened or written
to find this out. Does not know: what the files mean. Does not defend against a program that changes the folder while it
is read.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from qdrant_tools.errors import InputError, PlusError

MOST_FILES = 100_000
DEEPEST_FOLDER = 32

_SNAPSHOT = re.compile(r"[0-9a-f]{40}")


def files_of(folder: Path, *, error: type[PlusError] = InputError) -> list[Path]:
    """The files below `folder`, sorted, each as `folder / ...`. `folder` itself may be a link: its caller named it.

    Raises:
        `error`: a link leads out of the folder or to another folder, something is no file, or there are too many.
        OSError: a folder cannot be read.
    """
    files: list[Path] = []
    allowed = allowed_roots(folder)
    for count, entry in enumerate(_entries(folder, 0, error), start=1):
        if count > MOST_FILES:
            raise error(f"{str(folder)!r} holds more than {MOST_FILES:,} files and folders: this is no such folder")
        if entry.is_dir(follow_symlinks=False):
            continue
        if entry.is_symlink():
            require_inside(Path(entry.path), allowed, error)
        elif not entry.is_file(follow_symlinks=False):
            raise error(f"{entry.path} is no regular file, expected only files and folders in {str(folder)!r}")
        files.append(Path(entry.path))
    return sorted(files)


def allowed_roots(folder: Path) -> tuple[Path, ...]:
    """The real folders that links in `folder` may lead into: itself, and the blobs of its repository in a hub cache."""
    root = Path(os.path.realpath(folder))
    # .../models--owner--name/snapshots/<commit>, with the files' content in .../models--owner--name/blobs
    repository = root.parent.parent
    in_cache = _SNAPSHOT.fullmatch(root.name) and root.parent.name == "snapshots"
    return (
        (root, repository / "blobs") if in_cache and repository.name.startswith(("models--", "datasets--")) else (root,)
    )


def require_inside(path: Path, allowed: tuple[Path, ...], error: type[PlusError] = InputError) -> None:
    """Raise `error` unless `path` is, with all links followed, a regular file below one of the `allowed` folders."""
    try:
        # strict: a chain of links that never ends, or is too long for the system, is an error and not a path
        real = Path(os.path.realpath(path, strict=True))
        mode = real.stat().st_mode
    except OSError as reason:
        raise error(f"{path} is a link that leads nowhere ({reason.strerror}): remove it") from reason
    if not any(real.is_relative_to(root) for root in allowed):
        raise error(f"{path} is a link to {str(real)!r}, outside its folder: put the file itself there")
    if not stat.S_ISREG(mode):
        raise error(f"{path} is a link to {str(real)!r}, expected a link to a file: put the folder itself there")


def copy_tree(
    source: Path,
    target: Path,
    *,
    keep: Callable[[Path], bool] = lambda relative: True,
    copy: Callable[[Path, Path], object] = shutil.copyfile,
    error: type[PlusError] = InputError,
) -> None:
    """Copy the files of `source` for which `keep(path below source)` holds into `target`, which may exist.

    Links become files. Empty folders are not copied. All is checked before anything is copied. Raises as `files_of`.
    """
    for file in files_of(source, error=error):
        relative = file.relative_to(source)
        if keep(relative):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            copy(file, target / relative)


def _entries(folder: Path, depth: int, error: type[PlusError]) -> Iterator[os.DirEntry[str]]:
    if depth > DEEPEST_FOLDER:
        raise error(f"{folder} lies more than {DEEPEST_FOLDER} folders deep: make it flatter")
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path), depth + 1, error)
