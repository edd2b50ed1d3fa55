"""The engine's write-ahead log, read as files: where it ends, and whether it still holds what it held.

The log is a folder of segments: `closed-N`, whose first operation is number N, and `open-M`, to which the engine
appends; further `open` files wait empty. A segment is a header (magic, a random seed) and entries: length, data,
padding, CRC. Each CRC goes on from the one before, the first from the seed, so the last one vouches for the whole
segment. The engine reads a segment up to the first CRC that is wrong and takes that for the end, without a word:
a flipped byte in the middle loses everything behind it. So the end is remembered elsewhere and compared.

Does not know: what an operation says; other files of a shard.
"""

from __future__ import annotations

import json
import os
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

MAGIC = b"wal\x00"
HEADER = 8  # bytes before the first entry, and before an entry's data
CRC = 4
POLYNOMIAL = 0x82F63B78  # of CRC-32C, bits reversed
LANE = 1024  # bytes that one lane of the parallel checksum takes
FIRST_INDEX_FILE = "first-index"

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class SegmentEnd:
    """How far a segment of the log reached: which segment (its seed), bytes, the CRC there, operations."""

    seed: int
    bytes: int
    crc: int
    entries: int


def empty_end(seed: int) -> SegmentEnd:
    return SegmentEnd(seed, HEADER, seed, 0)


class LogEnd:
    """The end of a log that the engine of this process writes: `advance` after every operation.

    Reads the length and the CRC of each new entry, never its data.
    """

    def __init__(
        self, folder: Path, known: SegmentEnd | None = None, closed: Sequence[tuple[int, SegmentEnd]] = ()
    ) -> None:
        """Find the end. What is `known` of it, and of segments closed earlier, is not read again."""
        self._folder = folder
        noted = dict(closed)
        self.closed = [(start, noted.get(start) or segment_end(path)) for start, path in closed_segments(folder)]
        self.start = self.closed[-1][0] + self.closed[-1][1].entries if self.closed else 0
        self._path, self.end = self._current(known)
        self._file = os.open(self._path, os.O_RDONLY)

    def _current(self, known: SegmentEnd | None) -> tuple[Path, SegmentEnd]:
        """The open segment: the last one that holds something, or the first one."""
        found = []
        for path in open_segments(self._folder):
            header = _header_end(path)
            begin = known if known and header and known.seed == header.seed else None
            found.append((path, segment_end(path, begin)))
        if not found:
            raise OSError(f"no open segment in {self._folder}")
        filled = [(path, end) for path, end in found if end.entries]
        return filled[-1] if filled else found[0]

    @property
    def operations(self) -> int:
        """The number of the next operation."""
        return self.start + self.end.entries

    def advance(self) -> None:
        """The engine has just written one operation."""
        if not self._path.exists():  # renamed: the segment was full
            self.closed.append((self.start, self.end))
            self.start += self.end.entries
            self.close()
            self._path = open_segments(self._folder)[0]
            self._file = os.open(self._path, os.O_RDONLY)
            self.end = _header_end(self._path) or empty_end(0)
        self.end = self._after(self.end)

    def advance_perhaps(self) -> None:
        """The engine was to write one operation and failed: before it was in the log, or after."""
        if not self._path.exists() or any(end != self.end for end in ends(self._path, self.end)):
            self.advance()

    def dropped(self) -> None:
        """The engine has just removed what it needs no more."""
        there = {start for start, _ in closed_segments(self._folder)}
        self.closed = [(start, end) for start, end in self.closed if start in there]

    def _after(self, end: SegmentEnd) -> SegmentEnd:
        (length,) = struct.unpack("<Q", _read(self._file, 8, end.bytes))
        after = end.bytes + HEADER + length + -(length + CRC) % 8 + CRC
        (crc,) = struct.unpack("<I", _read(self._file, CRC, after - CRC))
        return SegmentEnd(end.seed, after, crc, end.entries + 1)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def closed_segments(folder: Path) -> list[tuple[int, Path]]:
    """The number of the first operation and the file of each closed segment, in order."""
    return _numbered(folder, "closed-")


def open_segments(folder: Path) -> list[Path]:
    return [path for _, path in _numbered(folder, "open-")]


def _numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    names = [name.removeprefix(prefix) for name in os.listdir(folder) if name.startswith(prefix)]
    return sorted((int(number), folder / f"{prefix}{number}") for number in names if number.isdigit())


def first_needed(folder: Path) -> int | None:
    """The number of the first operation that the segments of points may lack; None if the engine noted none.

    Raises `ValueError` if its note cannot be read.
    """
    try:
        return int(json.loads((folder / FIRST_INDEX_FILE).read_bytes())["ack_index"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


def segment_end(path: Path, after: SegmentEnd | None = None) -> SegmentEnd:
    """Where the last whole entry of a segment ends, as the engine finds it: every CRC is computed (from `after` on)."""
    return deque(ends(path, after), maxlen=1).pop() if _header_end(path) else empty_end(0)


def ends(path: Path, after: SegmentEnd | None = None) -> Iterator[SegmentEnd]:
    """Where the header ends, and every whole entry up to the first that is not; or all that from `after` on.

    Nothing if the file is no segment.
    """
    end = after or _header_end(path)
    if end is None:
        return
    yield end
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size // 8 * 8
        while end.bytes + HEADER + CRC < size:
            (length,) = struct.unpack("<Q", _read(file.fileno(), 8, end.bytes))
            padded = HEADER + length + -(length + CRC) % 8
            if end.bytes + padded + CRC > size:
                return
            entry = _read(file.fileno(), padded + CRC, end.bytes)
            (stored,) = struct.unpack("<I", entry[padded:])
            if crc32c(entry[:padded], _reversed(end.crc)) != stored:
                return
            end = SegmentEnd(end.seed, end.bytes + padded + CRC, stored, end.entries + 1)
            yield end


def _header_end(path: Path) -> SegmentEnd | None:
    with open(path, "rb") as file:
        head = file.read(HEADER)
    return empty_end(struct.unpack("<I", head[4:])[0]) if len(head) == HEADER and head[:4] == MAGIC else None


def _read(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def _reversed(word: int) -> int:
    """A checksum's state for the next entry: the engine's log reverses the bits of the one before and inverts them."""
    return int(f"{word:032b}"[::-1], 2)


# -- CRC-32C: Python has no fast one


def crc32c(data: bytes, register: int = 0xFFFFFFFF) -> int:
    """The CRC-32C of at least 4 bytes, from this state of the register on; many megabytes in a tenth of a second.

    Long data is cut into lanes of equal length whose checksums are computed side by side and then joined.
    """
    head = bytes(a ^ b for a, b in zip(data[:4], register.to_bytes(4, "little"), strict=True))
    data = head + data[4:]
    if len(data) < 2 * LANE:
        return _one_by_one(data)
    rows = -(-len(data) // LANE)
    padded = bytes(rows * LANE - len(data)) + data  # zeros in front of a zero register change nothing
    columns = np.ascontiguousarray(np.frombuffer(padded, "<u2").reshape(rows, LANE // 2).T)
    state = np.zeros(rows, np.uint32)
    table = _table_of_pairs()
    for column in columns:
        state = (state >> np.uint32(16)) ^ table[(state & np.uint32(0xFFFF)) ^ column]
    return int(_joined(state)) ^ 0xFFFFFFFF


def _one_by_one(data: bytes) -> int:
    state, table = 0, _bytes_table()
    for byte in data:
        state = (state >> 8) ^ table[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


def _joined(states: Words) -> Words:
    """The checksum of lanes one after another: each is pushed through as many zeros as come behind it."""
    zeros = LANE
    while len(states) > 1:
        if len(states) % 2:
            states = np.concatenate([np.zeros(1, np.uint32), states])
        states = _pushed(states[0::2], _zeros_tables(zeros)) ^ states[1::2]
        zeros *= 2
    return states[0]  # type: ignore[no-any-return]


def _pushed(states: Words, tables: Words) -> Words:
    """Registers after the zeros that the tables stand for."""
    low, high = states & 0xFFFF, states >> 16
    pushed: Words = tables[0][low & 0xFF] ^ tables[1][low >> 8] ^ tables[2][high & 0xFF] ^ tables[3][high >> 8]
    return pushed


@lru_cache(maxsize=1)
def _bytes_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


@lru_cache(maxsize=1)
def _table_of_pairs() -> Words:
    """What two bytes do to an empty register."""
    one = np.array(_bytes_table(), np.uint32)
    pairs = np.arange(1 << 16, dtype=np.uint32)
    first = one[pairs & 0xFF] ^ (pairs >> np.uint32(8))
    pushed: Words = (first >> np.uint32(8)) ^ one[first & np.uint32(0xFF)]
    return pushed


@lru_cache(maxsize=64)
def _zeros_tables(count: int) -> Words:
    """For each byte of a register, what it becomes after `count` zeros, a power of two times `LANE`."""
    bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    if count == LANE:
        one = np.array(_bytes_table(), np.uint32)
        for _ in range(count):
            bits = (bits >> np.uint32(8)) ^ one[bits & np.uint32(0xFF)]
    else:
        half = _zeros_tables(count // 2)
        for _ in range(2):
            bits = (
                half[0][bits & 0xFF] ^ half[1][(bits >> 8) & 0xFF] ^ half[2][(bits >> 16) & 0xFF] ^ half[3][bits >> 24]
            )
    values = np.arange(256, dtype=np.uint32)
    tables = np.zeros((4, 256), np.uint32)
    for bit in range(8):
        chosen = (values >> np.uint32(bit)) & np.uint32(1) != 0
        for byte in range(4):
            tables[byte, chosen] ^= bits[8 * byte + bit]
    return tables
