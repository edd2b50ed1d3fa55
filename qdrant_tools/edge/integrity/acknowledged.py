"""What a collection has acknowledged, in a file mapped into memory: it survives the end of the process at any moment.

After every acknowledged operation the file says where the write-ahead log ends. So a log that was cut or changed is
noticed after a crash, before the engine takes a wrong checksum for the end. The file also says what may have changed
since the checksums of the collection's files were taken (`Dirty`).

Guarantees: a half-written row is noticed. Two slots are written in turn, each with a checksum, so that one is whole.
After a power failure the system may have kept an older or a newer state of any file. So what was noted since the last
flush counts only in the same boot of the machine.

Does not know: the engine.
"""

from __future__ import annotations

import mmap
import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import IO

from qdrant_tools.edge.integrity.wal import (
    SegmentEnd,
    closed_segments,
    empty_end,
    entry_ends,
    first_unflushed,
    header_end,
    open_segments,
)
from qdrant_tools.edge.storage.files import group_of
from qdrant_tools.errors import DamagedCollectionError, LocationError

ACKNOWLEDGED_FILE = "progress.bin"
OVERWRITTEN_FILE = "touched.bin"  # ids of the points whose vectors were overwritten since the last flush
MOST_OVERWRITTEN = 100_000  # 1.6 MB to read at the next opening; beyond it any vector counts as overwritten
ID_BYTES = 16
SLOT = 256
SLOTS = 2
ROW = struct.Struct("<IQ16sBBQqQIQIIIQIIII")
CLOSED = struct.Struct("<QIQIII")  # a closed segment: first operation, seed, bytes, crc, entries, checksum of these
SIZE = 1 << 16
MOST_CLOSED = (SIZE - SLOT * SLOTS) // CLOSED.size  # 64 GB of log without a flush


class Dirty(IntEnum):
    """What may have changed since the checksums were taken."""

    CLEAN = 0  # nothing
    POINTS = 1  # what operations on points change
    ANYTHING = 2  # anything but the files that never change


@dataclass(frozen=True)
class Acknowledged:
    """One row of the file."""

    boot: bytes = b""
    dirty: Dirty = Dirty.ANYTHING
    vectors_overwritten: bool = False  # vectors of any points, not only of those whose ids are noted
    operations: int = 0  # the number of the next operation
    first_unflushed: int = -1  # the first operation that the segments may lack, -1 for none noted
    start: int = 0  # the number of the first operation in the open segment of the log
    end: SegmentEnd = empty_end(0)
    flushed: SegmentEnd = empty_end(0)  # where the log ended at the last flush
    closed: int = 0  # how many closed segments of the log are noted
    overwritten: int = 0  # how many ids of points with overwritten vectors are noted


class AcknowledgedFile:
    """The mapped file. `row` is its content, `exists` whether there is any; `note` costs microseconds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ACKNOWLEDGED_FILE
        self._overwritten_path = folder / OVERWRITTEN_FILE
        self.row = Acknowledged()
        self._sequence = 0
        self.closed: list[tuple[int, SegmentEnd]] = []
        self.exists = self._read()
        self._map: mmap.mmap | None = None
        self._given_up = False

    def _read(self) -> bool:
        try:
            with open(self._path, "rb") as file:
                content = file.read(SIZE + 1)
        except OSError:
            return False
        if len(content) != SIZE:
            return False
        slots = [row for slot in range(SLOTS) if (row := _unpacked(content[slot * SLOT : slot * SLOT + ROW.size]))]
        if not slots:
            return False
        self._sequence, self.row = max(slots, key=lambda pair: pair[0])
        for number in range(self.row.closed):
            offset = SLOTS * SLOT + number * CLOSED.size
            *fields, checksum = CLOSED.unpack_from(content, offset)
            if zlib.crc32(content[offset : offset + CLOSED.size - 4]) == checksum:
                self.closed.append((fields[0], SegmentEnd(*fields[1:])))
        return True

    @property
    def same_boot(self) -> bool:
        return self.row.boot == boot_id()

    def note(self, row: Acknowledged, closed: Sequence[tuple[int, SegmentEnd]] | None = None) -> None:
        """Replace the row. Pass `closed` only if the closed segments of the log have changed."""
        if self._given_up:
            return
        mapped = self._map or self._mapped()
        if closed is not None:
            # the present slot stays valid only if the segments that it counts stay: additions go behind them
            for number, (start, end) in enumerate(closed[:MOST_CLOSED]):
                fields = CLOSED.pack(start, end.seed, end.bytes, end.crc, end.entries, 0)[:-4]
                offset = SLOTS * SLOT + number * CLOSED.size
                mapped[offset : offset + CLOSED.size] = fields + struct.pack("<I", zlib.crc32(fields))
            row = replace(row, closed=min(len(closed), MOST_CLOSED))
            self.closed = list(closed)
        # the other slot: a kill in the middle of this write leaves the last row whole
        self._sequence += 1
        offset = self._sequence % SLOTS * SLOT
        mapped[offset : offset + ROW.size] = _packed(self._sequence, row)
        self.row, self.exists = row, True

    def note_overwritten(self, ids: Sequence[int | str | uuid.UUID]) -> None:
        """The vectors of these points are overwritten, or may be."""
        row = self.row
        if row.vectors_overwritten or self._given_up:
            return
        if row.overwritten + len(ids) > MOST_OVERWRITTEN:
            self.note(replace(row, vectors_overwritten=True))
            return
        try:
            with _open_own(self._overwritten_path) as file:
                file.seek(row.overwritten * ID_BYTES)
                file.write(b"".join(map(id_bytes, ids)))
        except OSError:
            self.note(replace(row, vectors_overwritten=True))
        else:
            # the count after the ids: it never counts ids that are not in the file
            self.note(replace(row, overwritten=row.overwritten + len(ids)))

    def overwritten_ids(self) -> frozenset[bytes] | None:
        """The noted ids as `id_bytes` gives them, None if they cannot be read."""
        size = self.row.overwritten * ID_BYTES
        try:
            content = _beginning(self._overwritten_path, size) if size else b""
        except OSError:
            return None
        if len(content) != size:
            return None
        return frozenset(content[at : at + ID_BYTES] for at in range(0, size, ID_BYTES))

    def give_up(self) -> None:
        """Remove the file and note nothing from now on."""
        self.close()
        self._path.unlink(missing_ok=True)
        self.row, self.closed, self.exists, self._given_up = Acknowledged(), [], False, True

    def sync(self) -> None:
        """Make the file survive a power failure."""
        if self._map is not None:
            self._map.flush()

    def _mapped(self) -> mmap.mmap:
        try:
            with _open_own(self._path) as file:
                if os.fstat(file.fileno()).st_size != SIZE:
                    # real zeros, not a hole: a page of a hole that finds no room on the disk ends the process
                    file.write(bytes(SIZE))
                    file.flush()
                self._map = mmap.mmap(file.fileno(), SIZE)
        except OSError as error:
            raise LocationError(f"'{self._path}' cannot be written: {error.strerror}") from error
        return self._map

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    # -- after a crash

    def verify_log(self, collection: str, log: Path) -> bool:
        """Compare the log with what was noted. True if it holds further operations, which were not acknowledged.

        Raises `DamagedCollectionError` if an acknowledged operation is missing or changed.
        """
        if not self.exists:
            return True
        self._verify_first_unflushed(collection, log)
        expected = self.row.end if self.same_boot else self.row.flushed
        try:
            # all of them, so that one that cannot be read is an error wherever it is
            seeds = {path: _seed(path) for path in (*open_segments(log), *(path for _, path in closed_segments(log)))}
            path = next((path for path, seed in seeds.items() if seed == expected.seed), None)
            if path is None:
                if self.same_boot:
                    raise _damaged(collection, log, "has lost a segment that holds acknowledged writes")
                return True
            if self.same_boot:
                self._verify_closed_segments(collection, log)
            ends = list(entry_ends(path))
        except OSError as error:
            raise _damaged(collection, log, f"cannot be read ({error.strerror})") from error
        if expected not in ends:
            raise _damaged(collection, path, f"is cut or changed after {ends[-1].entries if ends else 0} operations")
        # more than one end: the first is that of the header
        filled = [other for other in open_segments(log) if other != path and len(list(entry_ends(other))) > 1]
        return ends[-1] != expected or bool(filled)

    def _verify_closed_segments(self, collection: str, log: Path) -> None:
        """Every closed segment that was noted is there, unless a flush under way may have removed it."""
        present = dict(closed_segments(log))
        needed = first_unflushed(log) or 0
        for start, end in self.closed:
            if start not in present and self.row.dirty == Dirty.ANYTHING and start + end.entries <= needed:
                continue
            if start not in present or list(entry_ends(present[start]))[-1:] != [end]:
                raise _damaged(collection, log / f"closed-{start}", "is missing, cut or changed")

    def _verify_first_unflushed(self, collection: str, log: Path) -> None:
        """The engine's own note of what it need not replay is what it was."""
        try:
            stored = first_unflushed(log)
        except (OSError, ValueError) as error:
            raise _damaged(collection, log, f"has an unreadable note of its beginning ({error})") from error
        first = -1 if stored is None else stored
        unchanged = self.same_boot and self.row.dirty != Dirty.ANYTHING
        if first < self.row.first_unflushed or (unchanged and first != self.row.first_unflushed):
            raise _damaged(collection, log, f"begins at operation {first}, {self.row.first_unflushed} was noted")
        if self.same_boot and first > self.row.operations:
            raise _damaged(collection, log, f"begins at operation {first}, after its end at {self.row.operations}")


def id_bytes(point_id: int | str | uuid.UUID) -> bytes:
    """A point id in 16 bytes, as the engine's table of ids has it: numbers little-endian, UUIDs as they are."""
    if isinstance(point_id, int):
        return point_id.to_bytes(ID_BYTES, "little")
    return (point_id if isinstance(point_id, uuid.UUID) else uuid.UUID(point_id)).bytes


def _open_own(path: Path) -> IO[bytes]:
    """Open a file of ours to change it; made if it is not there, never through a link."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return open(os.open(path, flags, 0o600 | group_of(path.parent)), "r+b")


def _beginning(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def _seed(path: Path) -> int | None:
    header = header_end(path)
    return header.seed if header else None


def _packed(sequence: int, row: Acknowledged) -> bytes:
    end, flushed = row.end, row.flushed
    state = (row.boot, row.dirty, row.vectors_overwritten, row.operations, row.first_unflushed, row.start)
    ends = (end.seed, end.bytes, end.crc, end.entries, flushed.seed, flushed.bytes, flushed.crc, flushed.entries)
    packed = ROW.pack(0, sequence, *state, *ends, row.closed, row.overwritten)
    return struct.pack("<I", zlib.crc32(packed[4:])) + packed[4:]


def _unpacked(packed: bytes) -> tuple[int, Acknowledged] | None:
    checksum, sequence, boot, dirty, any_vectors, operations, first, start, *rest = ROW.unpack(packed)
    if zlib.crc32(packed[4:]) != checksum:
        return None
    *places, closed, overwritten = rest
    # whoever computes a checksum can write any number
    if dirty not in set(Dirty) or closed > MOST_CLOSED or overwritten > MOST_OVERWRITTEN:
        return None
    ends = (SegmentEnd(*places[:4]), SegmentEnd(*places[4:]))
    state = (boot, Dirty(dirty), bool(any_vectors), operations, first, start)
    return sequence, Acknowledged(*state, *ends, closed, overwritten)


@lru_cache(maxsize=1)
def boot_id() -> bytes:
    """16 bytes that tell this boot of the machine from others. Where the system has none, new for every process."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)


def _damaged(collection: str, path: Path, problem: str) -> DamagedCollectionError:
    return DamagedCollectionError(
        f"collection '{collection}' is damaged: its write-ahead log '{path}' {problem}; restore the collection's "
        f"folder or index it again (without its {ACKNOWLEDGED_FILE} it opens unchecked)"
    )
