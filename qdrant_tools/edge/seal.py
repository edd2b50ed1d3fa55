"""Checksums of a closed shard's files: what was written is what is opened.

The engine's own files carry none, and some damage it opens without a word: wrong payloads, points that are gone,
in the worst case the end of the process. So a collection that is closed in order is sealed, and the seal is
checked and broken when it is opened again. After a crash there is no seal, because files may have changed since.

Does not know: the engine; which file means what.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qdrant_tools.edge.manifest import replace_file, sync_folder
from qdrant_tools.errors import DamagedCollectionError

SEAL_FILE = "seal.json"
BLOCK = 1 << 16
ZEROS = bytes(BLOCK)
BUDGET = 256 << 20  # bytes read to check a collection; the largest files beyond it are checked by size only


@dataclass(frozen=True)
class Fingerprint:
    """One file: its size and the checksum of its content, None if only the size is checked."""

    size: int
    checksum: int | None


def break_seal(collection: str, folder: Path, files: Path) -> bool:
    """Check the files below `files` against the seal in `folder` and remove it; False if there is none.

    Raises `DamagedCollectionError` naming the first file that is missing or changed.
    """
    path = folder / SEAL_FILE
    if not path.is_file():
        return False
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        sealed = {name: Fingerprint(**row) for name, row in rows.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(collection, path, "cannot be read") from error
    for name, expected in sealed.items():
        file = files / name
        if not file.is_file():
            raise _damaged(collection, file, "is missing")
        if fingerprint(file, whole=expected.checksum is not None) != expected:
            raise _damaged(collection, file, "is not what was written")
    path.unlink()
    sync_folder(folder)  # before anything changes: an old seal on changed files would be a false alarm
    return True


def seal(folder: Path, files: Path) -> None:
    """Write the seal of all files below `files`, which the engine has flushed and closed.

    Every file is read again: modification times say nothing about files that are written through memory maps.
    """
    rows = {}
    left = BUDGET
    for file in sorted((path for path in files.rglob("*") if path.is_file()), key=_content_size):
        left -= _content_size(file)
        rows[str(file.relative_to(files))] = vars(fingerprint(file, whole=left >= 0))
    replace_file(folder / SEAL_FILE, json.dumps(rows))


def _content_size(file: Path) -> int:
    """Bytes of a file that are not holes, where the system tells."""
    status = file.stat()
    return min(status.st_size, getattr(status, "st_blocks", status.st_size) * 512)


def fingerprint(file: Path, *, whole: bool = True) -> Fingerprint:
    """The size and, if `whole`, the checksum of a file. Blocks of zeros count as the holes that they may be."""
    size = file.stat().st_size
    if not whole:
        return Fingerprint(size, None)
    checksum = 0
    for offset, block in _blocks(file, size):
        if block != ZEROS[: len(block)]:
            checksum = zlib.crc32(block, zlib.crc32(offset.to_bytes(8, "little"), checksum))
    return Fingerprint(size, checksum)


def _blocks(file: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of every aligned block that may hold something else than zeros."""
    with open(file, "rb") as read:
        offset = 0
        while offset < size:
            offset = max(offset, _next_data(read.fileno(), offset, size) // BLOCK * BLOCK)
            block = os.pread(read.fileno(), BLOCK, offset) if hasattr(os, "pread") else _read_at(read.fileno(), offset)
            if not block:
                return
            yield offset, block
            offset += BLOCK


def _read_at(descriptor: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, BLOCK)


def _next_data(descriptor: int, offset: int, size: int) -> int:
    """Where the next data at or after `offset` begins; `size` if only a hole is left."""
    if not hasattr(os, "SEEK_DATA"):
        return offset
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # no data after this offset
        return size


def _damaged(collection: str, file: Path, what: str) -> DamagedCollectionError:
    return DamagedCollectionError(
        f"collection '{collection}' is damaged: '{file}' {what}; restore the collection's folder or index it again "
        f"(without its {SEAL_FILE} it opens unchecked)"
    )
