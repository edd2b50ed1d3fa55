"""Checksums of a shard's files: what was written is what is opened.

The engine's own files carry none, and some damage it opens without a word: wrong payloads, points that are gone,
in the worst case the end of the process. So a collection is sealed whenever it is flushed and when it is closed, and
the seal is compared when it is opened again. How much can be compared after a crash depends on what was written
since (`Extent`); what the engine's files do between two flushes is in `Change`, as measured:

- in a segment that an optimizer wrote (it has a finished table of ids) most files never change again;
- writes change only the payload pages, vector chunks and tables of free blocks of the other segments, and these
  only where nothing was in use at the last flush, unless a vector is overwritten;
- everything else changes in a flush, or with the collection's indexes and vectors.

Does not know: the engine's process; what an operation is.

Files of the engine's segments -> checksums of what in them is in use.

The engine preallocates its files, and what lies beyond what is in use may change or be a hole. So payload pages count
by the blocks that their table names, files of vectors by the vectors that are there, one by one where few change, and
any other file by its blocks that are not zero.

Does not know: when a file may change.
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

import numpy as np
import numpy.typing as npt

from qdrant_tools.edge.storage.files import LOG_FOLDER, content_size
from qdrant_tools.edge.storage.manifest import replace_file
from qdrant_tools.errors import DamagedCollectionError

SEAL_FILE = "seal.json"
BUDGET = 256 << 20  # bytes read to check a collection; the largest files beyond it are checked by size only
FINISHED_IDS = "id_tracker.mappings"
MUTABLE_IDS = "mutable_id_tracker.mappings"
FIXED = re.compile(
    r"id_tracker\.mappings|matrix\.dat|chunk_\d+\.mmap|page_\d+\.dat|graph\.bin|links\w*\.bin|quantized\..*"
    r"|inverted_index\.dat|point_to_values\.bin|values_to_points\.bin|data\.bin|data_block_index\.bin"
    r"|histogram_borders\.bin|postings\.dat|vocab\.dat|point_to_tokens_count\.dat|hnsw_config\.json"
)
LOOSE = re.compile(r"page_(\d+)\.dat|chunk_(\d+)\.mmap|bitmask\.dat|gaps\.dat")


class Change(Enum):
    """When a file may change."""

    NEVER = "never"
    BY_FLUSH = "flush"
    BY_WRITE = "write"
    LOG = "log"


class Extent(Enum):
    """What a seal still says about the files."""

    ALL = "all"  # nothing was written since
    WRITTEN = "written"  # points were added, deleted, given payloads
    REWRITTEN = "rewritten"  # vectors were overwritten as well
    FIXED = "fixed"  # anything may have happened


@dataclass(frozen=True)
class Fingerprint:
    """One file: its size and the checksum of what it holds, None if only the size is checked.

    `kept` says how much of it counts, for a file of vectors, and `rows` has a checksum of each; `used` says which
    blocks are in use, for a table of blocks.
    """

    size: int
    checksum: int | None
    change: str = Change.BY_FLUSH.value
    kept: int | None = None
    used: str | None = None
    rows: str | None = None


@dataclass(frozen=True)
class Seal:
    """All files. `closed` says that no process has opened them since."""

    files: Mapping[str, Fingerprint]
    closed: bool


def read_seal(collection: str, folder: Path) -> Seal | None:
    """The seal in `folder`, None if there is none. Raises `DamagedCollectionError` if it cannot be read."""
    path = folder / SEAL_FILE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if "files" not in document:  # of an earlier release, written on closing
            return Seal({name: Fingerprint(**row) for name, row in document.items()}, closed=True)
        if document["checksum"] != _checksum(document["files"]):
            raise ValueError("its own checksum is wrong")
        files = {name: Fingerprint(**row) for name, row in document["files"].items()}
        return Seal(files, closed=bool(document["closed"]))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise _damaged(collection, path, "cannot be read") from error


def write_seal(folder: Path, seal: Seal) -> None:
    rows = {name: _row(fingerprint) for name, fingerprint in seal.files.items()}
    document = {"closed": seal.closed, "checksum": _checksum(rows), "files": rows}
    replace_file(folder / SEAL_FILE, json.dumps(document))


def _row(fingerprint: Fingerprint) -> dict[str, object]:
    return {name: value for name, value in vars(fingerprint).items() if value is not None or name == "checksum"}


def _checksum(rows: object) -> int:
    return zlib.crc32(json.dumps(rows, sort_keys=True).encode())


def check_seal(
    collection: str, files: Path, seal: Seal, extent: Extent, touched: frozenset[bytes] = frozenset()
) -> None:
    """Raise `DamagedCollectionError` naming the first file below `files` that is missing or changed.

    `touched` are the ids of points whose vectors may have been overwritten, as the engine's table of ids has them.
    """
    for name, expected in seal.files.items():
        if not _counts(name, expected, extent):
            continue
        file = files / name
        if not file.is_file():
            raise _damaged(collection, file, "is missing")
        try:
            overwritten = extent is Extent.REWRITTEN or (extent is Extent.WRITTEN and touched)
            if overwritten and expected.kept is not None and expected.change == Change.BY_WRITE.value:
                same = file.stat().st_size == expected.size
                if same and expected.rows is not None and extent is Extent.WRITTEN:
                    same = _rows_as_sealed(file, expected, touched)
            else:
                same = _as_sealed(file, name, expected, seal, grown=extent is not Extent.ALL)
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError, zlib.error) as error:
            raise _damaged(collection, file, f"cannot be read ({error})") from error
        if not same:
            raise _damaged(collection, file, "is not what was written")


def _counts(name: str, expected: Fingerprint, extent: Extent) -> bool:
    change = Change(expected.change)
    if extent is Extent.ALL:
        return True
    if extent is Extent.FIXED or change is Change.NEVER:
        return change is Change.NEVER
    if change is Change.BY_WRITE:
        return not name.endswith("gaps.dat")
    return change is Change.BY_FLUSH


def _as_sealed(file: Path, name: str, expected: Fingerprint, seal: Seal, *, grown: bool) -> bool:
    if expected.used is not None and grown:  # blocks in use stay in use until the next flush; pages are added
        before, now = unpacked_table(expected.used), np.frombuffer(file.read_bytes(), np.uint8)[: expected.size]
        return len(now) == len(before) and bool(np.array_equal(before & now, before))
    if file.stat().st_size != expected.size:
        return False
    if expected.checksum is None:
        return True
    table = seal.files.get(_table_of(name)) if expected.change == Change.BY_WRITE.value else None
    if table is not None and table.used is not None and (found := LOOSE.fullmatch(file.name)) and found[1]:
        return checksum_of_blocks(file, int(found[1]), unpacked_table(table.used)) == expected.checksum
    if expected.kept is not None:
        return checksum_of_beginning(file, expected.kept) == expected.checksum
    return checksum_of_file(file) == expected.checksum


def taken_seal(files: Path, before: Seal | None = None, *, closed: bool, unchanged: bool = False) -> Seal:
    """The seal of all files below `files`, which the engine has flushed.

    Files are read again, because modification times say nothing about files that are written through memory maps;
    but those that never change keep what `before` says, and what `unchanged` says holds for all that writes change.
    """
    known = before.files if before else {}
    finished = {path.parent.name for path in files.glob(f"segments/*/{FINISHED_IDS}")}
    kept_changes = {Change.NEVER.value, Change.BY_WRITE.value} if unchanged else {Change.NEVER.value}
    rows: dict[str, Fingerprint] = {}
    left = BUDGET
    for file in sorted((path for path in files.rglob("*") if path.is_file()), key=content_size):
        name = file.relative_to(files).as_posix()
        change = _change(name, finished)
        if change is Change.LOG and not closed:
            continue
        left -= content_size(file)
        earlier = known.get(name)
        if earlier and change.value == earlier.change in kept_changes and earlier.size == file.stat().st_size:
            rows[name] = earlier
        else:
            rows[name] = _taken(file, change, whole=left >= 0)
    return Seal(rows, closed)


def _taken(file: Path, change: Change, *, whole: bool) -> Fingerprint:
    size = file.stat().st_size
    if not whole:
        return Fingerprint(size, None, change.value)
    found = LOOSE.fullmatch(file.name) if change is Change.BY_WRITE else None
    if found and found[1] and (file.parent / "bitmask.dat").is_file():
        table = np.fromfile(file.parent / "bitmask.dat", np.uint8)
        return Fingerprint(size, checksum_of_blocks(file, int(found[1]), table), change.value)
    if found and found[2]:
        kept = bytes_in_use(file, int(found[2]), size)
        rows = checksums_of_rows(file, kept)
        packed = base64.b64encode(rows.tobytes()).decode() if rows is not None else None
        return Fingerprint(size, checksum_of_beginning(file, kept), change.value, kept, rows=packed)
    if found and file.name == "bitmask.dat":
        return Fingerprint(size, checksum_of_file(file), change.value, used=packed_table(file))
    return Fingerprint(size, checksum_of_file(file), change.value)


def _change(name: str, finished: set[str]) -> Change:
    path = PurePosixPath(name)
    if path.parts[0] == LOG_FOLDER:
        return Change.LOG
    if path.parts[0] != "segments":
        return Change.BY_FLUSH
    if path.parts[1] in finished:
        return Change.NEVER if FIXED.fullmatch(path.name) else Change.BY_FLUSH
    # the offsets of multi-vectors are chunks too, but written by a flush
    return Change.BY_WRITE if LOOSE.fullmatch(path.name) and path.parent.name != "offsets" else Change.BY_FLUSH


def _table_of(name: str) -> str:
    return str(PurePosixPath(name).with_name("bitmask.dat"))


def _rows_as_sealed(chunk: Path, expected: Fingerprint, touched: frozenset[bytes]) -> bool:
    """Whether every vector is what it was, but those of the points in `touched`."""
    now = checksums_of_rows(chunk, expected.kept or 0)
    before = np.frombuffer(base64.b64decode(expected.rows or ""), np.uint32)
    if now is None or len(now) != len(before):
        return False
    changed = np.flatnonzero(now != before)
    if not len(changed):
        return True
    settings = json.loads((chunk.parent / "config.json").read_bytes())
    found = LOOSE.fullmatch(chunk.name)
    first = int(found[2]) * int(settings["chunk_size_vectors"]) if found else 0
    allowed = rows_of_points(chunk.parents[2] / MUTABLE_IDS, touched)
    return all(int(row) + first in allowed for row in changed)


def _damaged(collection: str, file: Path, what: str) -> DamagedCollectionError:
    return DamagedCollectionError(
        f"collection '{collection}' is damaged: '{file}' {what}; restore the collection's folder or index it again "
        f"(without its {SEAL_FILE} it opens unchecked)"
    )


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
