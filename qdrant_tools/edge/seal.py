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
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

import numpy as np

from qdrant_tools.edge.contents import (
    bytes_in_use,
    checksum_of_beginning,
    checksum_of_blocks,
    checksum_of_file,
    checksums_of_rows,
    packed_table,
    rows_of_points,
    unpacked_table,
)
from qdrant_tools.edge.files import LOG_FOLDER, content_size
from qdrant_tools.edge.manifest import replace_file
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
