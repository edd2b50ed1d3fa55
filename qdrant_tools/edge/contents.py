"""Files of the engine's segments -> checksums of what in them is in use.

The engine preallocates its files, and what lies beyond what is in use may change or be a hole. So payload pages count
by the blocks that their table names, files of vectors by the vectors that are there, one by one where few change, and
any other file by its blocks that are not zero.

Does not know: when a file may change.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 16
ZEROS = bytes(BLOCK)
MOST_ROWS = 200_000  # vectors of a file whose checksums are kept one by one
ROWS_AT_ONCE = 4096


def packed_table(file: Path) -> str:
    """A table of blocks as text."""
    return base64.b64encode(zlib.compress(file.read_bytes(), 1)).decode()


def unpacked_table(used: str) -> npt.NDArray[np.uint8]:
    """The bytes of a table of blocks that `packed_table` has made text of; each bit says whether a block is in use."""
    return np.frombuffer(zlib.decompress(base64.b64decode(used)), np.uint8)


def checksum_of_blocks(page: Path, number: int, table: npt.NDArray[np.uint8]) -> int:
    """The checksum of the blocks of a page that are in use; its settings lie beside it."""
    settings = json.loads((page.parent / "config.json").read_bytes())
    size, blocks = settings["block_size_bytes"], settings["page_size_bytes"] // settings["block_size_bytes"]
    used = np.flatnonzero(np.unpackbits(table[number * blocks // 8 : (number + 1) * blocks // 8], bitorder="little"))
    if not len(used):
        return 0
    content = np.fromfile(page, np.uint8, (int(used[-1]) + 1) * size)
    content = content[: len(content) // size * size].reshape(-1, size)
    return zlib.crc32(content[used[used < len(content)]].tobytes())


def bytes_in_use(chunk: Path, number: int, size: int) -> int:
    """How much of a file of vectors holds any; their number and size lie beside it."""
    try:
        settings = json.loads((chunk.parent / "config.json").read_bytes())
        vectors = int.from_bytes((chunk.parent / "status.dat").read_bytes()[:8], "little")
        in_chunk = int(settings["chunk_size_vectors"])
        here = min(max(vectors - number * in_chunk, 0), in_chunk)
        return min(size, here * int(settings["chunk_size_bytes"] // in_chunk))
    except (OSError, ValueError, KeyError, TypeError):
        return size


def checksums_of_rows(chunk: Path, size: int) -> npt.NDArray[np.uint32] | None:
    """A checksum of each vector in the first `size` bytes; None for multi-vectors, and where there are too many."""
    if (chunk.parent.parent / "offsets").is_dir():
        return None
    try:
        settings = json.loads((chunk.parent / "config.json").read_bytes())
        width = int(settings["chunk_size_bytes"] // settings["chunk_size_vectors"])
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return None
    if not width or size // width > MOST_ROWS:
        return None
    words = np.uint32 if width % 4 == 0 else np.uint8
    weights = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    sums = []
    for start in range(0, size // width, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, size // width - start) * width
        block = (
            np.fromfile(chunk, np.uint8, count, offset=start * width).view(words).reshape(-1, width // words().nbytes)
        )
        sums.append(block.astype(np.uint64) @ weights[: block.shape[1]])
    whole = np.concatenate(sums) if sums else np.zeros(0, np.uint64)
    return (whole ^ whole >> np.uint64(32)).astype(np.uint32)


def rows_of_points(table: Path, ids: frozenset[bytes]) -> set[int]:
    """The rows that these ids have, or had, by the engine's table of ids of a segment that takes writes."""
    content, at, rows = table.read_bytes(), 0, set()
    while at < len(content):
        kind = content[at]
        size = 8 if kind in (1, 3) else 16  # numbers, and UUIDs; 1 and 2 add an id with its row, 3 and 4 remove it
        key = content[at + 1 : at + 1 + size].ljust(16, b"\0")
        at += 1 + size
        if kind in (1, 2):
            if key in ids:
                rows.add(int.from_bytes(content[at : at + 4], "little"))
            at += 4
        elif kind not in (3, 4):
            raise ValueError(f"unknown entry {kind} in {table.name}")
    return rows


def checksum_of_beginning(file: Path, size: int) -> int:
    checksum = 0
    with open(file, "rb") as read:
        while size > 0 and (block := read.read(min(size, 16 * BLOCK))):
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
    return checksum


def checksum_of_file(file: Path) -> int:
    """The checksum of a whole file. Blocks of zeros count as the holes that they may be."""
    checksum = 0
    for offset, block in _blocks(file, file.stat().st_size):
        if block != ZEROS[: len(block)]:
            checksum = zlib.crc32(block, zlib.crc32(offset.to_bytes(8, "little"), checksum))
    return checksum


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
