"""Copies and sizes of a shard's files, which have holes. Does not know: the engine."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

BLOCK = 1 << 20


def content_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`, without holes where the system tells."""
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.stat()
        except FileNotFoundError:  # the engine removes files while it works
            continue
        if stat.S_ISREG(found.st_mode):
            total += min(found.st_size, getattr(found, "st_blocks", found.st_size) * 512)
    return total


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder tree, holes as holes: the engine preallocates its files, most of them empty."""
    shutil.copytree(source, target, copy_function=_copy_sparse)


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
