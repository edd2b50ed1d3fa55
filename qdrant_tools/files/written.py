"""Content -> a file that is written whole or not at all, never through a link.

Guarantees: a reader of a file that is being written sees the old content or the new, never half, and a failed write
leaves nothing behind. A new file is readable by its owner only. Does not know: what is written.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from qdrant_tools.errors import InputError, PlusError, UsageError, brief, first_line


@contextmanager
def written_whole(
    path: str | Path, *, draft: Path | None = None, durable: bool = False, private: bool = True, overwrite: bool = True
) -> Iterator[Path]:
    """Give a draft to write; when the block ends it takes the place of `path`, and when the block fails it goes.

    A link in the place of `path` is replaced, and what it points to is left alone. A file that is replaced hands on its
    permissions.

    Args:
        draft: Its path, on the same disk, instead of a new name beside `path`.
        durable: On the disk when the block is left, so that a crash of the machine leaves the old content or the new
            as well.
        private: A new file is readable by its owner only; else as the process's umask says.
        overwrite: Whether an existing `path` is replaced.

    Raises:
        UsageError: `path` exists and may not be replaced, or is a folder or a device.
    """
    target = Path(path)
    _refuse_unlike_file(target)
    if not overwrite:
        refuse_existing(target)
    # beside the target, because a rename is atomic on one disk only; a random name, so that two writers never share a
    # draft, and nobody knows beforehand where one will be
    draft = draft or target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    _create_draft(draft, target, 0o600 if private else 0o666)
    try:
        yield draft
        if durable:
            # before the rename: a file system may store the new name first, and an empty file with it
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
        if not overwrite:
            refuse_existing(target)
        os.replace(draft, target)
        if durable:
            # the new name is an entry of the folder, and not stored with the file's own content
            sync_folder(target.parent)
    finally:
        with suppress(OSError):  # the first error says more, and a draft that took its place is gone
            draft.unlink(missing_ok=True)


def refuse_existing(path: str | Path) -> None:
    """Raise `UsageError` if there is anything at `path`, a link that leads nowhere among it."""
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already: give another name, or --overwrite (overwrite=True) to replace it")


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether two names, links among them, lead to one file that is there."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def require_writable(path: str | Path, *, overwrite: bool) -> None:
    """Raise `UsageError` where `written_whole` would: for commands that work long before they write."""
    target = Path(path)
    try:
        os.stat(target.parent / (target.name or "."))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is too long, a file in the place of a folder, zero bytes
        raise UsageError(f"cannot write {brief(str(path))}: {first_line(error)}") from error
    _refuse_unlike_file(target)
    if not overwrite:
        refuse_existing(target)
    if not target.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {target.parent}")


def _refuse_unlike_file(target: Path) -> None:
    # a privileged process could put a file in the place of a device, or of a link of the system such as /dev/stdout
    folder = os.path.realpath(target.parent)
    of_the_system = folder == "/dev" or folder.startswith(("/proc/", "/sys/"))
    if not target.name or of_the_system or (os.path.exists(target) and not os.path.isfile(target)):
        raise UsageError(f"cannot write {target}: it is a folder or a device, expected the name of a file")


def refuse_link(path: str | Path, error: type[PlusError] = InputError) -> None:
    """Raise `error` if `path` itself is a link: what is written or removed there would be somewhere else."""
    if os.path.islink(path):
        raise error(f"{path} is a link to {os.readlink(path)!r}, expected no link here: remove it")


def open_private(path: Path, *, group: int = 0) -> IO[str]:
    """Open a file of our own to read and write, for its owner only; made if it is not there, never through a link.

    `group` are the permissions that its group gets beside the owner.

    Raises:
        OSError: it cannot be opened, or is a link, a folder or a device.
    """
    # O_NONBLOCK: opening a pipe that nobody reads would wait for ever
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600 | group)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return open(descriptor, "r+", encoding="utf-8")


def create_private(path: Path, content: bytes) -> None:
    """Put a new file there, whole and on the disk, for its owner only; one that is there, or comes first, stays.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        _write_new(draft, content)
        try:
            # unlike a rename, this never takes the place of what is there
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:
            # a disk without hard links
            with suppress(FileExistsError):
                _write_new(path, content)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can open, unless it is there.

    Raises:
        InputError: it is a link.
        OSError: it cannot be made.
    """
    refuse_link(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def _create_draft(draft: Path, target: Path, mode: int) -> None:
    refuse_link(draft)
    draft.unlink(missing_ok=True)  # a fixed name: what a killed process left
    # O_EXCL: a new file, and not one or a link that came in between
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    with suppress(FileNotFoundError):
        status = target.lstat()
        if stat.S_ISREG(status.st_mode):
            draft.chmod(stat.S_IMODE(status.st_mode))


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = True) -> int:
    """Write a JSONL file, whole or not at all; returns the number of rows.

    Raises:
        UsageError: it cannot be written, or exists and may not be replaced.
    """
    count = 0
    with errors_of_writing(path), written_whole(path, overwrite=overwrite) as draft, draft.open("wb") as file:
        for row in rows:
            file.write(json_line(row))
            count += 1
    return count


def write_text(path: str | Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file, whole or not at all.

    Raises:
        UsageError: it cannot be written, or exists and may not be replaced.
    """
    with errors_of_writing(path), written_whole(path, overwrite=overwrite) as draft:
        # bytes, because `write_text` would change the line ends on Windows
        draft.write_bytes(text.encode("utf-8", "backslashreplace"))


def json_line(row: Mapping[str, Any]) -> bytes:
    """One row of a JSONL file. A lone surrogate, which UTF-8 cannot hold, is written as JSON's escape."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def sync_folder(folder: Path) -> None:
    """Make renames, creations and deletions inside `folder` durable, where the system lets a folder be synced."""
    # Windows cannot open a folder as a file
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def errors_of_writing(path: str | Path) -> Iterator[None]:
    """Turn what the system says about writing `path` into `UsageError`."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
