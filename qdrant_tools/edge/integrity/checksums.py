"""Checksums of a shard's files: what is opened is what was written.

The engine's own files have none, and it opens some damaged files without an error. Then payloads are wrong, points are
gone, or in the worst case the process ends. So checksums are taken whenever a collection is flushed and when it is
closed, and compared when it is opened again. After a crash, how much can be compared depends on what was written since
(`WrittenSince`). As measured, between two flushes the engine changes this (`ChangedBy`):

- in a segment that an optimizer wrote (it has a finished table of ids) most files never change again;
- writes change only the payload pages, vector chunks and tables of free blocks of the other segments, and these only
  where nothing was in use at the last flush, unless a vector is overwritten;
- everything else changes in a flush, or with the collection's indexes and vectors.

The engine preallocates its files: what lies beyond the part in use may change or be a hole. So of a payload
page only the blocks count that its table names. Of a file of vectors the vectors in it count, one by one where they are
few. Of any other file the blocks count that are not zero.

Does not know: the engine's process; what an operation is.
"""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from qdrant_tools.edge.storage.files import (
    SHARD_CONFIG_FILE,
    SHARD_FOLDER,
    WAL_FOLDER,
    content_bytes,
    content_size,
    replace_file,
)
from qdrant_tools.errors import DamagedCollectionError
from qdrant_tools.files.json_files import parse_json, read_json, read_text

CHECKSUMS_FILE = "seal.json"
READ_BUDGET = 256 << 20  # bytes read to check a collection; the largest files beyond it are checked by size only
FINISHED_IDS = "id_tracker.mappings"
MUTABLE_IDS = "mutable_id_tracker.mappings"
NEVER_CHANGED = re.compile(
    r"id_tracker\.mappings|matrix\.dat|chunk_\d+\.mmap|page_\d+\.dat|graph\.bin|links\w*\.bin|quantized\..*"
    r"|inverted_index\.dat|point_to_values\.bin|values_to_points\.bin|data\.bin|data_block_index\.bin"
    r"|histogram_borders\.bin|postings\.dat|vocab\.dat|point_to_tokens_count\.dat|hnsw_config\.json"
)
"""Files of a segment that an optimizer wrote."""
CHANGED_BY_WRITES = re.compile(r"page_(\d+)\.dat|chunk_(\d+)\.mmap|bitmask\.dat|gaps\.dat")
"""Files of other segments: payload pages, chunks of vectors, tables of used and of free blocks."""
BLOCK_TABLE = "bitmask.dat"
FREE_BLOCKS = "gaps.dat"
BLOCK = 1 << 16
ZEROS = bytes(BLOCK)
LARGEST_PAGE = 64 << 20  # bytes: the engine's pages and chunks have 32 MB
LARGEST_TABLE = 64 << 20  # bytes of a table of blocks, with a bit for each
LARGEST_SETTINGS = 1 << 16  # bytes of the settings beside pages and chunks
MOST_BYTES = 8 << 20  # of the file of checksums of a small collection; a large one has more
MOST_VALUES = 600_000  # in it: a dozen for each file
MOST_VECTORS = 200_000  # vectors of a file whose checksums are kept one by one
VECTORS_AT_ONCE = 4096


UNREADABLE = (OSError, ValueError, KeyError, TypeError, ArithmeticError, MemoryError, IndexError, zlib.error)
"""What reading a file raises that is not what the engine wrote."""
FIELD_OF_KEY = {"change": "changed_by", "kept": "length", "used": "block_table", "rows": "vectors"}
"""Names on the disk that older releases gave, and what they are called here."""


class ChangedBy(Enum):
    """What may change a file. The values are on the disk."""

    NOTHING = "never"
    FLUSH = "flush"
    WRITE = "write"
    LOG = "log"


class WrittenSince(Enum):
    """What was written since the checksums were taken."""

    NOTHING = "nothing"
    POINTS = "points"  # points were added, deleted, given payloads
    VECTORS = "vectors"  # vectors were overwritten as well
    ANYTHING = "anything"  # indexes, settings, an interrupted flush, or nobody knows what


@dataclass(frozen=True)
class FileChecksum:
    """One file: its size, and the checksum of what it holds; None if only the size is checked."""

    size: int
    checksum: int | None
    changed_by: ChangedBy = ChangedBy.FLUSH
    length: int | None = None
    """For a chunk of vectors: how many bytes from the beginning count."""
    block_table: str | None = None
    """For a table of blocks: which blocks are in use."""
    vectors: str | None = None
    """For a chunk of vectors: a checksum of each vector."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> FileChecksum:
        """Raises `ValueError` or `TypeError` for a row that none of us wrote."""
        values = {FIELD_OF_KEY.get(key, key): value for key, value in row.items()}
        file = cls(**{**values, "changed_by": ChangedBy(values.get("changed_by", ChangedBy.FLUSH))})
        numbers = [number for number in (file.size, file.checksum, file.length) if number is not None]
        texts = [text for text in (file.block_table, file.vectors) if text is not None]
        if file.size is None or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a number is none")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a text is none")
        return file

    def as_row(self) -> dict[str, object]:
        values = {**vars(self), "changed_by": self.changed_by.value}
        row = {name: values[FIELD_OF_KEY.get(name, name)] for name in ("size", "checksum", *FIELD_OF_KEY)}
        return {name: value for name, value in row.items() if value is not None or name == "checksum"}


@dataclass(frozen=True)
class Checksums:
    """All files of a shard by name. `closed` says that no process has opened them since.

    `closed_here` says that it was this copy of them that was closed, and no copy that came from elsewhere.
    """

    files: Mapping[str, FileChecksum]
    closed: bool
    closed_here: bool = False


# -- the file of checksums


def read_checksums(collection: str, folder: Path) -> Checksums | None:
    """The checksums in `folder`, None if there are none. Raises `DamagedCollectionError` if they cannot be read."""
    path = folder / CHECKSUMS_FILE
    if not path.is_file():
        return None
    try:
        # the checksums of single vectors are a thirtieth of the vectors, or less
        text = read_text(path, most=MOST_BYTES + content_bytes(folder / SHARD_FOLDER) // 16)
        if not text.isascii():
            raise ValueError("it is not ASCII")
        document = parse_json(text, str(path), most_values=MOST_VALUES)
        if "files" not in document:  # of an earlier release, written on closing
            return Checksums(_files(document), closed=True)
        if document["checksum"] != _rows_checksum(document["files"]):
            raise ValueError("its own checksum is wrong")
        closed = bool(document["closed"])
        here = closed and document.get("place") == place_of(folder / SHARD_FOLDER)
        return Checksums(_files(document["files"]), closed, here)
    except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise _damaged(collection, path, "cannot be read") from error


def _files(rows: Mapping[str, Any]) -> dict[str, FileChecksum]:
    for name in rows:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name or not path.parts:
            raise ValueError("it names something else than a file of the collection")
    return {name: FileChecksum.from_row(row) for name, row in rows.items()}


def place_of(files: Path) -> list[int]:
    """What tells this copy of a shard from every other one, also from one that its maker has prepared.

    The system gives a file its number and the time of its last change; no archive can carry them.
    """
    status = (files / SHARD_CONFIG_FILE).stat()
    return [status.st_dev, status.st_ino, status.st_ctime_ns]


def write_checksums(folder: Path, checksums: Checksums) -> None:
    rows = {name: file.as_row() for name, file in checksums.files.items()}
    place = place_of(folder / SHARD_FOLDER) if checksums.closed else None
    document = {"closed": checksums.closed, "checksum": _rows_checksum(rows), "files": rows, "place": place}
    replace_file(folder / CHECKSUMS_FILE, json.dumps(document))


def _rows_checksum(rows: object) -> int:
    return zlib.crc32(json.dumps(rows, sort_keys=True).encode())


# -- taking checksums


def take_checksums(
    files: Path, earlier: Checksums | None = None, *, closed: bool, unchanged: bool = False
) -> Checksums:
    """The checksums of all files below `files`, which the engine has flushed.

    Files are read again, because modification times say nothing about files that are written through memory maps.
    Only those that never change keep what `earlier` says, and with `unchanged` those that writes change too.
    """
    earlier_files = earlier.files if earlier else {}
    finished = {path.parent.name for path in files.glob(f"segments/*/{FINISHED_IDS}")}
    reusable = {ChangedBy.NOTHING, ChangedBy.WRITE} if unchanged else {ChangedBy.NOTHING}
    rows: dict[str, FileChecksum] = {}
    budget = READ_BUDGET
    # the smallest first: what the budget does not reach are few, large files
    for file in sorted((path for path in files.rglob("*") if path.is_file()), key=content_size):
        name = file.relative_to(files).as_posix()
        changed_by = _changed_by(name, finished)
        if changed_by is ChangedBy.LOG and not closed:
            continue
        budget -= content_size(file)
        before = earlier_files.get(name)
        if before and changed_by is before.changed_by in reusable and before.size == file.stat().st_size:
            rows[name] = before
        else:
            rows[name] = _take_checksum(file, changed_by, whole=budget >= 0)
    return Checksums(rows, closed)


def _changed_by(name: str, finished: set[str]) -> ChangedBy:
    path = PurePosixPath(name)
    if path.parts[0] == WAL_FOLDER:
        return ChangedBy.LOG
    if path.parts[0] != "segments":
        return ChangedBy.FLUSH
    if path.parts[1] in finished:
        return ChangedBy.NOTHING if NEVER_CHANGED.fullmatch(path.name) else ChangedBy.FLUSH
    # the offsets of multi-vectors are chunks too, but written by a flush
    written = CHANGED_BY_WRITES.fullmatch(path.name) and path.parent.name != "offsets"
    return ChangedBy.WRITE if written else ChangedBy.FLUSH


def _take_checksum(file: Path, changed_by: ChangedBy, *, whole: bool) -> FileChecksum:
    size = file.stat().st_size
    if not whole:
        return FileChecksum(size, None, changed_by)
    match = CHANGED_BY_WRITES.fullmatch(file.name) if changed_by is ChangedBy.WRITE else None
    if match and match[1] and (file.parent / BLOCK_TABLE).is_file():
        table = np.frombuffer(_read_table(file.parent / BLOCK_TABLE), np.uint8)
        return FileChecksum(size, checksum_of_blocks(file, int(match[1]), table), changed_by)
    if match and match[2]:
        length = bytes_in_use(file, int(match[2]), size)
        vectors = checksums_of_vectors(file, length)
        packed = base64.b64encode(vectors.tobytes()).decode() if vectors is not None else None
        return FileChecksum(size, checksum_of_beginning(file, length), changed_by, length, vectors=packed)
    if match and file.name == BLOCK_TABLE:
        return FileChecksum(size, checksum_of_file(file), changed_by, block_table=_packed_table(file))
    return FileChecksum(size, checksum_of_file(file), changed_by)


# -- comparing


def verify_checksums(
    collection: str,
    files: Path,
    checksums: Checksums,
    written: WrittenSince,
    overwritten: frozenset[bytes] = frozenset(),
) -> None:
    """Raise `DamagedCollectionError` naming the first file below `files` that is missing or changed.

    `overwritten` are the ids of points whose vectors may have been overwritten, as the engine's table of ids has them.
    """
    for name, expected in checksums.files.items():
        if not _is_comparable(name, expected, written):
            continue
        file = files / name
        if not file.is_file():
            raise _damaged(collection, file, "is missing")
        try:
            # vectors are overwritten in place: of such a chunk only the size and the other vectors can be compared
            vectors_changed = written is WrittenSince.VECTORS or (written is WrittenSince.POINTS and overwritten)
            if vectors_changed and expected.length is not None and expected.changed_by is ChangedBy.WRITE:
                same = file.stat().st_size == expected.size
                if same and expected.vectors is not None and written is WrittenSince.POINTS:
                    same = _other_vectors_match(file, expected, overwritten)
            else:
                same = _matches(file, name, expected, checksums, grown=written is not WrittenSince.NOTHING)
        except UNREADABLE as error:
            raise _damaged(collection, file, f"cannot be read ({error})") from error
        if not same:
            raise _damaged(collection, file, "is not what was written")


def _is_comparable(name: str, expected: FileChecksum, written: WrittenSince) -> bool:
    if written is WrittenSince.NOTHING:
        return True
    if written is WrittenSince.ANYTHING or expected.changed_by is ChangedBy.NOTHING:
        return expected.changed_by is ChangedBy.NOTHING
    if expected.changed_by is ChangedBy.WRITE:
        return not name.endswith(FREE_BLOCKS)  # every write changes it
    return expected.changed_by is ChangedBy.FLUSH


def _matches(file: Path, name: str, expected: FileChecksum, checksums: Checksums, *, grown: bool) -> bool:
    if expected.block_table is not None and grown:  # blocks in use stay in use until the next flush; pages are added
        before = _unpacked_table(expected.block_table)
        now = np.frombuffer(_read_table(file), np.uint8)[: expected.size]
        return len(now) == len(before) and bool(np.array_equal(before & now, before))
    if file.stat().st_size != expected.size:
        return False
    if expected.checksum is None:
        return True
    table_name = str(PurePosixPath(name).with_name(BLOCK_TABLE))
    table = checksums.files.get(table_name) if expected.changed_by is ChangedBy.WRITE else None
    match = CHANGED_BY_WRITES.fullmatch(file.name)
    if table is not None and table.block_table is not None and match and match[1]:
        # the blocks that were in use then: others may have been written since
        return checksum_of_blocks(file, int(match[1]), _unpacked_table(table.block_table)) == expected.checksum
    if expected.length is not None:
        return checksum_of_beginning(file, expected.length) == expected.checksum
    return checksum_of_file(file) == expected.checksum


def _other_vectors_match(chunk: Path, expected: FileChecksum, overwritten: frozenset[bytes]) -> bool:
    """Whether every vector is what it was, except those of the points in `overwritten`."""
    now = checksums_of_vectors(chunk, expected.length or 0)
    before = np.frombuffer(base64.b64decode(expected.vectors or ""), np.uint32)
    if now is None or len(now) != len(before):
        return False
    changed = np.flatnonzero(now != before)
    if not len(changed):
        return True
    settings = _settings_beside(chunk)
    match = CHANGED_BY_WRITES.fullmatch(chunk.name)
    first = int(match[2]) * int(settings["chunk_size_vectors"]) if match else 0
    allowed = rows_of_points(chunk.parents[2] / MUTABLE_IDS, overwritten)
    return all(int(row) + first in allowed for row in changed)


def _damaged(collection: str, file: Path, problem: str) -> DamagedCollectionError:
    return DamagedCollectionError(
        f"collection '{collection}' is damaged: '{file}' {problem}; restore the collection's folder or index it again "
        f"(without its {CHECKSUMS_FILE} it opens unchecked)"
    )


# -- what is in use in the engine's files


def _packed_table(file: Path) -> str:
    """A table of blocks as text. Each bit says whether a block is in use."""
    return base64.b64encode(zlib.compress(_read_table(file), 1)).decode()


def _unpacked_table(packed: str) -> npt.NDArray[np.uint8]:
    inflate = zlib.decompressobj()
    table = inflate.decompress(base64.b64decode(packed), LARGEST_TABLE)
    if not inflate.eof:
        raise ValueError(f"a table of blocks has more than {LARGEST_TABLE} bytes")
    return np.frombuffer(table, np.uint8)


def _read_table(file: Path) -> bytes:
    if file.stat().st_size > LARGEST_TABLE:
        raise ValueError(f"'{file}' has more than {LARGEST_TABLE} bytes")
    return file.read_bytes()


def _settings_beside(file: Path) -> dict[str, Any]:
    """The settings of a page's or a chunk's storage. Raises `ValueError`, `OSError`."""
    settings = read_json(file.parent / "config.json", most=LARGEST_SETTINGS)
    if not isinstance(settings, dict):
        raise ValueError(f"'{file.parent / 'config.json'}' holds no object")
    return settings


def checksum_of_blocks(page: Path, number: int, table: npt.NDArray[np.uint8]) -> int:
    """The checksum of the blocks of a page that are in use; its settings lie beside it."""
    settings = _settings_beside(page)
    if max(settings["page_size_bytes"], page.stat().st_size) > LARGEST_PAGE:
        raise ValueError(f"a page has more than {LARGEST_PAGE} bytes")
    size, blocks = settings["block_size_bytes"], settings["page_size_bytes"] // settings["block_size_bytes"]
    used = np.flatnonzero(np.unpackbits(table[number * blocks // 8 : (number + 1) * blocks // 8], bitorder="little"))
    if not len(used):
        return 0
    # a page that was cut gives fewer blocks, and so another checksum
    content = np.fromfile(page, np.uint8, (int(used[-1]) + 1) * size)
    content = content[: len(content) // size * size].reshape(-1, size)
    return zlib.crc32(content[used[used < len(content)]].tobytes())


def bytes_in_use(chunk: Path, number: int, size: int) -> int:
    """How many bytes of a chunk of vectors hold any. Their number and size lie beside it."""
    try:
        settings = _settings_beside(chunk)
        with open(chunk.parent / "status.dat", "rb") as status:
            vectors = int.from_bytes(status.read(8), "little")
        in_chunk = int(settings["chunk_size_vectors"])
        here = min(max(vectors - number * in_chunk, 0), in_chunk)
        return min(size, here * int(settings["chunk_size_bytes"] // in_chunk))
    except UNREADABLE:
        return size  # unknown: then all of it counts


def checksums_of_vectors(chunk: Path, size: int) -> npt.NDArray[np.uint32] | None:
    """A checksum of each vector in the first `size` bytes; None for multi-vectors, and where there are too many."""
    if (chunk.parent.parent / "offsets").is_dir():
        return None
    try:
        settings = _settings_beside(chunk)
        width = int(settings["chunk_size_bytes"] // settings["chunk_size_vectors"])
    except UNREADABLE:
        return None
    if width <= 0 or width > LARGEST_PAGE or size // width > MOST_VECTORS:
        return None
    # a sum with odd, hence invertible weights: numpy computes it for many vectors at once, zlib one by one
    words = np.uint32 if width % 4 == 0 else np.uint8
    weights = np.arange(1, width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    sums = []
    for start in range(0, size // width, VECTORS_AT_ONCE):
        count = min(VECTORS_AT_ONCE, size // width - start) * width
        block = (
            np.fromfile(chunk, np.uint8, count, offset=start * width).view(words).reshape(-1, width // words().nbytes)
        )
        sums.append(block.astype(np.uint64) @ weights[: block.shape[1]])
    joined = np.concatenate(sums) if sums else np.zeros(0, np.uint64)
    return (joined ^ joined >> np.uint64(32)).astype(np.uint32)


def rows_of_points(table: Path, ids: frozenset[bytes]) -> set[int]:
    """The rows that these ids have, or had, by the engine's table of ids of a segment that takes writes."""
    with open(table, "rb") as file:
        # without a hole at the end, which may be any size
        content = file.read(content_size(table))
    at, rows = 0, set()
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
    if size > LARGEST_PAGE:
        raise ValueError(f"more than {LARGEST_PAGE} bytes of '{file}' are to be read")
    with open(file, "rb") as opened:
        while size > 0 and (block := opened.read(min(size, 16 * BLOCK))):
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
    return checksum


def checksum_of_file(file: Path) -> int:
    """The checksum of a whole file. A block of zeros counts as a hole, because copying may turn one into the other."""
    checksum = 0
    for offset, block in _blocks(file, file.stat().st_size):
        if block != ZEROS[: len(block)]:
            # the offset counts too: holes are skipped, and a block must not pass for one elsewhere
            checksum = zlib.crc32(block, zlib.crc32(offset.to_bytes(8, "little"), checksum))
    return checksum


def _blocks(file: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of every aligned block that may hold something else than zeros."""
    with open(file, "rb") as opened:
        descriptor, offset = opened.fileno(), 0
        while offset < size:
            offset = max(offset, _next_data(descriptor, offset, size) // BLOCK * BLOCK)
            block = os.pread(descriptor, BLOCK, offset) if hasattr(os, "pread") else _read_at(descriptor, offset)
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
