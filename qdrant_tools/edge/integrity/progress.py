"""How far a collection has got, in a file mapped into memory: it survives the end of the process at any moment.

After every acknowledged operation it says where the write-ahead log ends, so that after a crash a log that was cut or
changed is noticed before the engine takes a wrong checksum for the end. And it says what may have changed in the
files since their checksums were taken (`seal.py`): nothing, what point operations change, or more.

Guarantees: half-written rows are told from whole ones (two slots in turn, each with its checksum). After a power
failure the operating system may have kept an older or newer state of any file, so what was noted since the last flush
counts only in the same boot of the machine.

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

from qdrant_tools.edge.integrity.oplog import SegmentEnd, closed_segments, empty_end, ends, first_needed, open_segments
from qdrant_tools.errors import DamagedCollectionError, LocationError

PROGRESS_FILE = "progress.bin"
TOUCHED_FILE = "touched.bin"  # ids of the points whose vectors were overwritten since the last flush
MOST_TOUCHED = 100_000
KEY = 16  # bytes of an id
SLOT = 256
SLOTS = 2
CLOSED = struct.Struct("<QIQIII")  # first operation, seed, bytes, crc, entries, checksum of these
ROW = struct.Struct("<IQ16sBBQqQIQIIIQIIII")
SIZE = 1 << 16
MOST_CLOSED = (SIZE - SLOT * SLOTS) // CLOSED.size  # 64 GB of log without a flush


class State(IntEnum):
    """What may have changed since the seal was written."""

    SETTLED = 0  # nothing
    WRITING = 1  # what operations on points change
    UNSETTLED = 2  # anything but the files that never change


@dataclass(frozen=True)
class Progress:
    """One row of the file."""

    boot: bytes = b""
    state: State = State.UNSETTLED
    rewrites: bool = False  # any vectors that the seal knows may have been overwritten, not only those noted
    operations: int = 0  # the number of the next operation
    needed: int = -1  # the first operation that the segments may lack, -1 for none noted
    start: int = 0  # the number of the first operation in the open segment of the log
    end: SegmentEnd = empty_end(0)
    flushed: SegmentEnd = empty_end(0)  # where the log ended at the last flush
    closed: int = 0  # how many closed segments of the log are noted
    touched: int = 0  # how many ids of points with overwritten vectors are noted


class ProgressFile:
    """The file, mapped: `note` costs microseconds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROGRESS_FILE
        self._touched = folder / TOUCHED_FILE
        self.row = Progress()
        self._sequence = 0
        self.closed: list[tuple[int, SegmentEnd]] = []
        self.known = self._read()
        self._map: mmap.mmap | None = None
        self._given_up = False

    def _read(self) -> bool:
        try:
            content = self._path.read_bytes()
        except OSError:
            return False
        if len(content) != SIZE:
            return False
        found = [row for slot in range(SLOTS) if (row := _unpacked(content[slot * SLOT : slot * SLOT + ROW.size]))]
        if not found:
            return False
        self._sequence, self.row = max(found, key=lambda pair: pair[0])
        for number in range(self.row.closed):
            offset = SLOTS * SLOT + number * CLOSED.size
            *fields, check = CLOSED.unpack_from(content, offset)
            if zlib.crc32(content[offset : offset + CLOSED.size - 4]) == check:
                self.closed.append((fields[0], SegmentEnd(*fields[1:])))
        return True

    @property
    def same_boot(self) -> bool:
        return self.row.boot == boot_id()

    def note(self, row: Progress, closed: Sequence[tuple[int, SegmentEnd]] | None = None) -> None:
        """Replace the row; `closed` only where the closed segments of the log have changed."""
        if self._given_up:
            return
        mapped = self._map or self._mapped()
        if closed is not None:
            # the rows of the present slot stay valid only if what they count stays: additions go behind them
            for number, (start, end) in enumerate(closed[:MOST_CLOSED]):
                fields = CLOSED.pack(start, end.seed, end.bytes, end.crc, end.entries, 0)[:-4]
                offset = SLOTS * SLOT + number * CLOSED.size
                mapped[offset : offset + CLOSED.size] = fields + struct.pack("<I", zlib.crc32(fields))
            row = replace(row, closed=min(len(closed), MOST_CLOSED))
            self.closed = list(closed)
        self._sequence += 1
        offset = self._sequence % SLOTS * SLOT
        mapped[offset : offset + ROW.size] = _packed(self._sequence, row)
        self.row, self.known = row, True

    def touch(self, ids: Sequence[int | str | uuid.UUID]) -> None:
        """The vectors of these points are overwritten, or may be."""
        row = self.row
        if row.rewrites or self._given_up:
            return
        if row.touched + len(ids) > MOST_TOUCHED:
            self.note(replace(row, rewrites=True))
            return
        try:
            with open(self._touched, "r+b" if self._touched.exists() else "w+b") as file:
                file.seek(row.touched * KEY)
                file.write(b"".join(map(id_key, ids)))
        except OSError:
            self.note(replace(row, rewrites=True))
        else:
            self.note(replace(row, touched=row.touched + len(ids)))

    def touched_ids(self) -> frozenset[bytes] | None:
        """The noted ids as `id_key` gives them, None if they cannot be read."""
        size = self.row.touched * KEY
        try:
            content = self._touched.read_bytes()[:size] if size else b""
        except OSError:
            return None
        if len(content) != size:
            return None
        return frozenset(content[at : at + KEY] for at in range(0, size, KEY))

    def give_up(self) -> None:
        """Nothing is known any more, and nothing is noted from now on."""
        self.close()
        self._path.unlink(missing_ok=True)
        self.row, self.closed, self.known, self._given_up = Progress(), [], False, True

    def sync(self) -> None:
        """Make the file survive a power failure."""
        if self._map is not None:
            self._map.flush()

    def _mapped(self) -> mmap.mmap:
        try:
            with open(self._path, "r+b" if self._path.exists() else "w+b") as file:
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

    def check_log(self, collection: str, log: Path) -> bool:
        """Compare the log with what was noted; whether it holds operations behind that, which nobody acknowledged.

        Raises `DamagedCollectionError` if an acknowledged operation is missing or changed.
        """
        if not self.known:
            return True
        self._check_note(collection, log)
        wanted = self.row.end if self.same_boot else self.row.flushed
        try:
            files = {path: _seed(path) for path in (*open_segments(log), *(path for _, path in closed_segments(log)))}
            path = next((path for path, seed in files.items() if seed == wanted.seed), None)
            if path is None:
                if self.same_boot:
                    raise _damaged(collection, log, "has lost a segment that holds acknowledged writes")
                return True
            if self.same_boot:
                self._check_closed(collection, log)
            reached = list(ends(path))
        except OSError as error:
            raise _damaged(collection, log, f"cannot be read ({error.strerror})") from error
        if wanted not in reached:
            raise _damaged(
                collection, path, f"is cut or changed after {reached[-1].entries if reached else 0} operations"
            )
        filled = [other for other in open_segments(log) if other != path and len(list(ends(other))) > 1]
        return reached[-1] != wanted or bool(filled)

    def _check_closed(self, collection: str, log: Path) -> None:
        """Every closed segment that was noted is there, unless a flush under way may have removed it."""
        there = dict(closed_segments(log))
        needed = first_needed(log) or 0
        for start, end in self.closed:
            if start not in there and self.row.state == State.UNSETTLED and start + end.entries <= needed:
                continue
            if start not in there or list(ends(there[start]))[-1:] != [end]:
                raise _damaged(collection, log / f"closed-{start}", "is missing, cut or changed")

    def _check_note(self, collection: str, log: Path) -> None:
        """The engine's own note of what it need not replay is what it was."""
        try:
            noted = first_needed(log)
        except (OSError, ValueError) as error:
            raise _damaged(collection, log, f"has an unreadable note of its beginning ({error})") from error
        found = -1 if noted is None else noted
        settled = self.same_boot and self.row.state != State.UNSETTLED
        if found < self.row.needed or (settled and found != self.row.needed):
            raise _damaged(collection, log, f"begins at operation {found}, {self.row.needed} was noted")
        if self.same_boot and found > self.row.operations:
            raise _damaged(collection, log, f"begins at operation {found}, after its end at {self.row.operations}")


def id_key(point_id: int | str | uuid.UUID) -> bytes:
    """A point id in 16 bytes, as the engine's table of ids has it: numbers little-endian, UUIDs as they are."""
    if isinstance(point_id, int):
        return point_id.to_bytes(KEY, "little")
    return (point_id if isinstance(point_id, uuid.UUID) else uuid.UUID(point_id)).bytes


def _seed(path: Path) -> int | None:
    first = next(ends(path), None)
    return first.seed if first else None


def _packed(sequence: int, row: Progress) -> bytes:
    end, flushed = row.end, row.flushed
    state = (row.boot, row.state, row.rewrites, row.operations, row.needed, row.start)
    places = (end.seed, end.bytes, end.crc, end.entries, flushed.seed, flushed.bytes, flushed.crc, flushed.entries)
    packed = ROW.pack(0, sequence, *state, *places, row.closed, row.touched)
    return struct.pack("<I", zlib.crc32(packed[4:])) + packed[4:]


def _unpacked(packed: bytes) -> tuple[int, Progress] | None:
    check, sequence, boot, state, rewrites, operations, needed, start, *places, closed, touched = ROW.unpack(packed)
    if zlib.crc32(packed[4:]) != check:
        return None
    ends_at = (SegmentEnd(*places[:4]), SegmentEnd(*places[4:]))
    return sequence, Progress(boot, State(state), bool(rewrites), operations, needed, start, *ends_at, closed, touched)


@lru_cache(maxsize=1)
def boot_id() -> bytes:
    """What tells this boot of the machine from others, 16 bytes; new for every process where that cannot be known."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return os.urandom(16)


def _damaged(collection: str, path: Path, what: str) -> DamagedCollectionError:
    return DamagedCollectionError(
        f"collection '{collection}' is damaged: its write-ahead log '{path}' {what}; restore the collection's folder "
        f"or index it again (without its {PROGRESS_FILE} it opens unchecked)"
    )
