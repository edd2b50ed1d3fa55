"""Copies of a shard's files, whole or with links to what never changes, and their sizes. Does not know: the engine.

One process per folder: an advisory lock on a file inside it.

Guarantees: a second process learns at once that the folder is taken; the lock goes with the process, however it
ends. Does not know: what the folder holds.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import IO

import portalocker

from qdrant_tools.errors import DamagedCollectionError, LocationBusyError, LocationError

BLOCK = 1 << 20

NEVER_WRITTEN = frozenset({"matrix.dat", "links.bin", "links_compressed.bin", "quantized.data"})
"""The large files of a segment with an index. The engine maps them for reading only, whatever is written later."""
LOG_FOLDER = "wal"
READERS_FOLDER = ".readers"
MARK = "REMOVE_ME"
"""A file in that folder: it is ours, and can be removed."""
SHARD_CONFIG_FILE = "edge_config.json"


def content_size(file: Path) -> int:
    """Bytes of a file that are not holes, where the system tells; 0 for what is no file, or no longer one."""
    try:
        found = file.stat()
    except FileNotFoundError:  # the engine removes files while it works
        return 0
    if not stat.S_ISREG(found.st_mode):
        return 0
    return min(found.st_size, getattr(found, "st_blocks", found.st_size) * 512)


def content_bytes(folder: Path) -> int:
    """The same for all files below `folder`."""
    return sum(map(content_size, folder.rglob("*")))


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder tree, holes as holes: the engine preallocates its files, most of them empty."""
    shutil.copytree(source, target, copy_function=_copy_sparse)


def link_or_copy_shard(source: Path, target: Path, search_threads: int) -> None:
    """A flushed shard once more, without its log: what is never written is linked, all else copied.

    The engine then opens it without a log, so that it can be written and nothing is promised for it, and searches it
    with so many threads.
    """
    shutil.copytree(source, target, copy_function=_link_or_copy, ignore=shutil.ignore_patterns(LOG_FOLDER))
    config = target / SHARD_CONFIG_FILE
    changes = {"wal_enabled": False, "max_search_threads": search_threads}
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), **changes}), encoding="utf-8")


def copied_bytes(shard: Path) -> int:
    """Bytes on the disk that `link_or_copy_shard` takes."""
    linked = sum(content_size(path) for path in shard.rglob("*") if path.name in NEVER_WRITTEN)
    return content_bytes(shard) - content_bytes(shard / LOG_FOLDER) - linked


def require_unwritten_links(shard: Path) -> None:
    """Raise `DamagedCollectionError` if this process could write to a linked file. Linux tells; elsewhere trust."""
    if not os.path.exists("/proc/self/maps"):
        return
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = Path(line.rstrip("\n").partition("/")[1] + line.rstrip("\n").partition("/")[2])
            if path.name in NEVER_WRITTEN and line.split()[1].startswith("rw") and path.is_relative_to(shard):
                raise DamagedCollectionError(f"the engine maps '{path}' for writing: it cannot be shared")


def _link_or_copy(source: str, target: str) -> str:
    if os.path.basename(source) in NEVER_WRITTEN:
        try:
            os.link(source, target)
            return target
        except OSError:  # a file system without links
            pass
    return _copy_sparse(source, target)


def prepare_readers_folder(root: Path) -> Path:
    """The folder for copies that readers open, empty. The caller holds the lock on `root`."""
    remove_readers_folder(root)
    folder = root / READERS_FOLDER
    folder.mkdir()
    (folder / MARK).touch()
    return folder


def remove_readers_folder(root: Path) -> None:
    """Remove what readers of a process that was killed have left. A folder without our mark stays."""
    if (root / READERS_FOLDER / MARK).is_file():
        shutil.rmtree(root / READERS_FOLDER, ignore_errors=True)


def _copy_sparse(source: str, target: str) -> str:
    if not hasattr(os, "SEEK_DATA"):
        return shutil.copyfile(source, target)
    with open(source, "rb") as read, open(target, "wb") as written:
        size = os.fstat(read.fileno()).st_size
        written.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(read.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here on
                    break
                raise
            end = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            _copy_range(read.fileno(), written.fileno(), start, end)
    return target


def _copy_range(read: int, written: int, start: int, end: int) -> None:
    while start < end:
        block = os.pread(read, min(BLOCK, end - start), start)
        if not block:
            return
        os.pwrite(written, block, start)
        start += len(block)


LOCK_FILE = ".lock"


class FolderLock:
    """Holds the lock from construction to `release()`.

    Raises `LocationBusyError` if another process holds it, `LocationError` if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _open(folder / LOCK_FILE)
        try:
            portalocker.lock(self._file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException as error:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise LocationBusyError(
                f"folder '{folder}' is in use by another process{f' (pid {holder})' if holder else ''}: "
                "close it there, or run a Qdrant server and give its URL to share collections between processes"
            ) from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        if not self._file.closed:
            # unlocked by hand, because a forked child may still hold the same open file
            portalocker.unlock(self._file)
            self._file.close()


def _open(path: Path) -> IO[str]:
    try:
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise LocationError(f"folder '{path.parent}' cannot be written ({error.strerror}): choose another") from error
