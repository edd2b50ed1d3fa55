"""File operations of the embedded engine: durable replacement, copies that keep holes, sizes, and the folder lock.

Guarantees: a replaced file is the old or the new one after a crash, whole and on the disk. A second process learns at
once that a folder is locked; the lock ends with its process, however that ends.
Does not know: the engine, what the files mean.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import portalocker

from qdrant_tools.edge.storage.tree import NEVER_WRITTEN, require_plain_tree
from qdrant_tools.errors import DamagedCollectionError, LocationBusyError, LocationError
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.written import open_private, written_whole

LOCK_FILE = ".lock"
READERS_FOLDER = ".readers"
READERS_MARK = "REMOVE_ME"
"""A file inside the readers' folder: the folder is ours and can be removed."""
SHARD_FOLDER = "shard"
"""The engine's files inside a collection's folder."""
SHARD_CONFIG_FILE = "edge_config.json"
"""A file that every shard has."""
WAL_FOLDER = "wal"
COPY_BYTES = 1 << 20
LONGEST_PID = 20  # characters


# -- permissions


def group_of(folder: Path) -> int:
    """The permissions that new files in `folder` give to its group: none, unless the group may write to the folder."""
    mode = folder.stat().st_mode
    return mode & 0o060 if mode & stat.S_IWGRP else 0


def make_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Make a folder that only its owner can open, and its group if `path.parent` is a folder that it may write to."""
    group = group_of(path.parent)
    path.mkdir(mode=0o700 | (group | 0o010 if group else 0), exist_ok=exist_ok)


# -- durable writes


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` so that a crash leaves the old or the new content. Raises `LocationError`."""
    try:
        # a fixed name: the next write overwrites what a killed process left
        group = 0 if path.exists() else group_of(path.parent)
        with written_whole(path, draft=path.with_name(path.name + ".new"), durable=True) as draft:
            if group:
                draft.chmod(0o600 | group)
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LocationError(f"'{path}' cannot be written: {error.strerror}") from error


def checksummed_json(content: Mapping[str, Any]) -> str:
    """A JSON document with the checksum of its content under the name `checksum`."""
    return json.dumps({**content, "checksum": json_checksum(content)}, indent=1, ensure_ascii=False)


def json_checksum(content: Mapping[str, Any]) -> str:
    """The checksum of a document without its checksum. White space and the order of names do not count."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


# -- sizes


def content_size(file: Path) -> int:
    """Bytes of a file without its holes, where the system tells; 0 if it is no regular file or is gone."""
    try:
        status = file.stat()
    except FileNotFoundError:  # the engine removes files while it works
        return 0
    if not stat.S_ISREG(status.st_mode):
        return 0
    # `st_blocks` counts 512 bytes each, whatever the blocks of the file system are
    return min(status.st_size, getattr(status, "st_blocks", status.st_size) * 512)


def content_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`, without their holes."""
    return sum(map(content_size, folder.rglob("*")))


# -- copies


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder tree, holes as holes: the engine preallocates its files, and most of them are empty."""
    shutil.copytree(source, target, copy_function=copy_sparse)


def copy_sparse(source: str, target: str) -> str:
    """Copy a file, holes as holes."""
    if not hasattr(os, "SEEK_DATA"):
        return shutil.copyfile(source, target)
    with open(source, "rb") as reading, open(target, "wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        # first the size: a hole at the end is copied as well
        writing.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reading.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    break
                raise
            end = os.lseek(reading.fileno(), start, os.SEEK_HOLE)
            _copy_range(reading.fileno(), writing.fileno(), start, end)
    return target


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        block = os.pread(source, min(COPY_BYTES, end - start), start)
        if not block:
            return
        os.pwrite(target, block, start)
        start += len(block)


# -- copies of shards for reader processes


def link_or_copy_shard(source: Path, target: Path, search_threads: int) -> None:
    """A flushed shard once more, without its log: files that are never written are linked, all others copied.

    The copy is configured to open without a log, because nothing is lost with it, and to search with that many threads.
    """
    shutil.copytree(source, target, copy_function=_link_or_copy, ignore=shutil.ignore_patterns(WAL_FOLDER))
    config = target / SHARD_CONFIG_FILE
    changes = {"wal_enabled": False, "max_search_threads": search_threads}
    # safe to change: this file is a copy, only those in NEVER_WRITTEN are links
    config.write_text(json.dumps({**read_json(config), **changes}), encoding="utf-8")


def _link_or_copy(source: str, target: str) -> str:
    if os.path.basename(source) in NEVER_WRITTEN:
        try:
            os.link(source, target)
            return target
        except OSError:  # a file system without links
            pass
    return copy_sparse(source, target)


def copied_bytes(shard: Path) -> int:
    """Bytes on the disk that `link_or_copy_shard` takes."""
    linked = sum(content_size(path) for path in shard.rglob("*") if path.name in NEVER_WRITTEN)
    return content_bytes(shard) - content_bytes(shard / WAL_FOLDER) - linked


def require_unwritten_links(shard: Path) -> None:
    """Raise `DamagedCollectionError` if this process could write to a linked file. Only Linux can tell."""
    if not os.path.exists("/proc/self/maps"):
        return
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            # a path may contain spaces: it is everything from the first slash on
            path = Path(line.rstrip("\n").partition("/")[1] + line.rstrip("\n").partition("/")[2])
            if path.name in NEVER_WRITTEN and line.split()[1].startswith("rw") and path.is_relative_to(shard):
                raise DamagedCollectionError(f"the engine maps '{path}' for writing: it cannot be shared")


def prepare_readers_folder(root: Path) -> Path:
    """The empty folder for the readers' copies. The caller holds the lock on `root`."""
    remove_readers_folder(root)
    folder = root / READERS_FOLDER
    folder.mkdir(mode=0o700)
    (folder / READERS_MARK).touch()
    return folder


def remove_readers_folder(root: Path) -> None:
    """Remove the copies that a killed process left. A folder without our mark stays. Raises `LocationError`."""
    require_plain_tree(root / READERS_FOLDER)
    if (root / READERS_FOLDER / READERS_MARK).is_file():
        shutil.rmtree(root / READERS_FOLDER, ignore_errors=True)


# -- one process per folder


class UnwritableError(LocationError):
    """The folder is there and cannot be written; `reason` says why, in the system's words."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"folder '{folder}' cannot be written ({reason}): choose another")
        self.reason = reason


class FolderLock:
    """An advisory lock on a file inside the folder, held from construction to `release()`.

    Raises `LocationBusyError` if another process holds it, `UnwritableError` if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _open_lock_file(folder / LOCK_FILE)
        try:
            portalocker.lock(self._file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException as error:
            busy = busy_error(folder, self._file)
            self._file.close()
            raise busy from error
        self._note(str(os.getpid()))

    def release(self) -> None:
        # the file stays: a process that has just opened it would lock one without a name
        if not self._file.closed:
            self._note("")  # who reads the folder later holds the lock without a number in it
            # unlocked by hand, because a forked child may still hold the same open file
            portalocker.unlock(self._file)
            self._file.close()

    def _note(self, holder: str) -> None:
        """Write who holds the lock, for the message of `busy_error` only: the lock itself is what counts."""
        # written over, not anew: a full disk has no room for a file that was made empty
        with suppress(OSError):
            os.lseek(self._file.fileno(), 0, os.SEEK_SET)
            os.write(self._file.fileno(), holder.ljust(LONGEST_PID).encode())


def _open_lock_file(path: Path) -> IO[str]:
    try:
        return open_private(path, group=group_of(path.parent))
    except OSError as error:
        raise UnwritableError(path.parent, error.strerror or str(error)) from error


def busy_error(folder: Path, lock: IO[str]) -> LocationBusyError:
    """The error of whoever finds the folder's lock held."""
    lock.seek(0)
    holder = lock.read(LONGEST_PID).strip()
    by = f"another process (pid {holder})" if holder.isdecimal() else "other processes"
    return LocationBusyError(f"folder '{folder}' is in use by {by}").with_way_out(
        python="close it there; processes that only read may share it by connect(folder, read_only=True), others a "
        "Qdrant server",
        command="collection copy NAME --to http://localhost:6333, once that process has ended, takes a collection to a "
        "Qdrant server, which any number of processes may use",
    )
