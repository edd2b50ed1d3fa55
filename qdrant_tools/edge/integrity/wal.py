"""The engine's write-ahead log, read as files: where it ends, and whether it still holds what was written.

The log is a folder of segments: `closed-N`, whose first operation is number N, and `open-M`, to which the engine
appends. Further `open` files wait empty. A segment is a header (magic, a random seed) and entries: length, data,
padding, CRC. Each CRC goes on from the one before, the first one from the seed, so that the last one vouches for the
whole segment. The engine reads a segment up to the first wrong CRC and takes that for the end, without an error: a
flipped byte in the middle loses everything behind it. So the end is remembered elsewhere (`acknowledged.py`) and
compared.

Does not know: what an operation says; other files of a shard.
"""

from __future__ import annotations

import os
import re
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qdrant_tools.edge.storage.files import content_size
from qdrant_tools.files.json_files import read_json
from qdrant_tools.validation import brief

MAGIC = b"wal\x00"
HEADER = 8  # bytes before the first entry, and before an entry's data
CRC = 4
FIRST_INDEX_FILE = "first-index"
POLYNOMIAL = 0x82F63B78  # of CRC-32C, bits reversed
LARGEST_HOLE = 64 << 20  # bytes: the engine makes segments of 32 MB, and larger ones for larger operations
LARGEST_INDEX = 1 << 12  # bytes of the note of the first operation
NUMBER = re.compile("[0-9]{1,18}")
LANE = 1024  # bytes that one lane of the parallel checksum takes

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class SegmentEnd:
    """How far a segment of the log reaches: which segment (its seed), bytes, the CRC there, operations."""

    seed: int
    bytes: int
    crc: int
    entries: int


def empty_end(seed: int) -> SegmentEnd:
    return SegmentEnd(seed, HEADER, seed, 0)


# -- the files


def closed_segments(folder: Path) -> list[tuple[int, Path]]:
    """The number of the first operation and the file of each closed segment, in order."""
    return _numbered(folder, "closed-")


def open_segments(folder: Path) -> list[Path]:
    return [path for _, path in _numbered(folder, "open-")]


def _numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    numbers = [name.removeprefix(prefix) for name in os.listdir(folder) if name.startswith(prefix)]
    return sorted((int(number), folder / f"{prefix}{number}") for number in numbers if NUMBER.fullmatch(number))


def first_unflushed(folder: Path) -> int | None:
    """The number of the first operation that the flushed segments may lack; None if the engine noted none.

    Raises `ValueError` if the engine's note cannot be read.
    """
    try:
        first = read_json(folder / FIRST_INDEX_FILE, most=LARGEST_INDEX)["ack_index"]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    if type(first) is not int or not 0 <= first < 1 << 63:
        raise ValueError(f"{brief(first)} is no number of an operation")
    return first


# -- reading a segment


def segment_end(path: Path, after: SegmentEnd | None = None) -> SegmentEnd:
    """Where the last whole entry of a segment ends, as the engine finds it. Every CRC is computed, from `after` on."""
    return deque(entry_ends(path, after), maxlen=1).pop() if header_end(path) else empty_end(0)


def header_end(path: Path) -> SegmentEnd | None:
    """The end of a segment's header; None if the file is no segment."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    return empty_end(struct.unpack("<I", head[4:])[0]) if len(head) == HEADER and head[:4] == MAGIC else None


def entry_ends(path: Path, after: SegmentEnd | None = None) -> Iterator[SegmentEnd]:
    """The end of the header and of every whole entry up to the first damaged one; or from `after` on.

    Nothing if the file is no segment.
    """
    end = after or header_end(path)
    if end is None:
        return
    yield end
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size // 8 * 8
        while end.bytes + HEADER + CRC < size:
            (length,) = struct.unpack("<Q", _read(file.fileno(), 8, end.bytes))
            # an entry ends on a multiple of 8 with its CRC
            padded = HEADER + length + -(length + CRC) % 8
            if end.bytes + padded + CRC > size:  # a damaged length may be any number
                return
            if padded > content_size(path) + LARGEST_HOLE:  # as may be the size of a file of holes
                return
            entry = _read(file.fileno(), padded + CRC, end.bytes)
            (stored,) = struct.unpack("<I", entry[padded:])
            if crc32c(entry[:padded], _reversed_bits(end.crc)) != stored:
                return
            end = SegmentEnd(end.seed, end.bytes + padded + CRC, stored, end.entries + 1)
            yield end


def _read(descriptor: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def _reversed_bits(crc: int) -> int:
    """The CRC register for the next entry: the engine's log reverses the bits of the CRC before and inverts them."""
    return int(f"{crc:032b}"[::-1], 2)


# -- following a log that is written


class WalEnd:
    """The end of a log that the engine of this process writes: call `advance` after every operation.

    It reads the length and the CRC of each new entry, never its data.
    """

    def __init__(
        self, folder: Path, noted: SegmentEnd | None = None, noted_closed: Sequence[tuple[int, SegmentEnd]] = ()
    ) -> None:
        """Find the end. What was noted of it, and of segments closed earlier, is not read again."""
        self._folder = folder
        ends = dict(noted_closed)
        self.closed = [(start, ends.get(start) or segment_end(path)) for start, path in closed_segments(folder)]
        self.start = self.closed[-1][0] + self.closed[-1][1].entries if self.closed else 0
        self._path, self.end = self._current_segment(noted)
        self._file = os.open(self._path, os.O_RDONLY)

    def _current_segment(self, noted: SegmentEnd | None) -> tuple[Path, SegmentEnd]:
        """The open segment: the last one that holds something, or the first one."""
        segments = []
        for path in open_segments(self._folder):
            header = header_end(path)
            begin = noted if noted and header and noted.seed == header.seed else None
            segments.append((path, segment_end(path, begin)))
        if not segments:
            raise OSError(f"no open segment in {self._folder}")
        filled = [(path, end) for path, end in segments if end.entries]
        return filled[-1] if filled else segments[0]

    @property
    def operations(self) -> int:
        """The number of the next operation."""
        return self.start + self.end.entries

    def advance(self) -> None:
        """The engine has just written one operation."""
        if not self._path.exists():  # renamed to `closed-N`, because it was full: the operation is in the next one
            self.closed.append((self.start, self.end))
            self.start += self.end.entries
            self.close()
            self._path = open_segments(self._folder)[0]
            self._file = os.open(self._path, os.O_RDONLY)
            self.end = header_end(self._path) or empty_end(0)
        self.end = self._next_end(self.end)

    def advance_if_written(self) -> None:
        """The engine was to write one operation and failed: before the log had it, or after."""
        if not self._path.exists() or any(end != self.end for end in entry_ends(self._path, self.end)):
            self.advance()

    def drop_removed(self) -> None:
        """The engine has just removed closed segments that it needs no more."""
        present = {start for start, _ in closed_segments(self._folder)}
        self.closed = [(start, end) for start, end in self.closed if start in present]

    def _next_end(self, end: SegmentEnd) -> SegmentEnd:
        (length,) = struct.unpack("<Q", _read(self._file, 8, end.bytes))
        after = end.bytes + HEADER + length + -(length + CRC) % 8 + CRC
        (crc,) = struct.unpack("<I", _read(self._file, CRC, after - CRC))
        return SegmentEnd(end.seed, after, crc, end.entries + 1)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


# -- CRC-32C: the standard library has none, and a loop over bytes is too slow for a log


def crc32c(data: bytes, register: int = 0xFFFFFFFF) -> int:
    """The CRC-32C of at least 4 bytes, from this state of the register on; many megabytes in a tenth of a second.

    Long data is cut into lanes of equal length. Their checksums are computed side by side and then combined, as in
    zlib's crc32_combine.
    """
    # a register that is not zero is the same as a zero register and its bits in the first four bytes
    head = bytes(a ^ b for a, b in zip(data[:4], register.to_bytes(4, "little"), strict=True))
    data = head + data[4:]
    if len(data) < 2 * LANE:
        return _one_by_one(data)
    rows = -(-len(data) // LANE)
    padded = bytes(rows * LANE - len(data)) + data  # leading zeros leave a zero register zero
    columns = np.ascontiguousarray(np.frombuffer(padded, "<u2").reshape(rows, LANE // 2).T)
    state = np.zeros(rows, np.uint32)
    table = _pairs_table()
    for column in columns:  # two bytes of every lane at a time
        state = (state >> np.uint32(16)) ^ table[(state & np.uint32(0xFFFF)) ^ column]
    return int(_combined(state)) ^ 0xFFFFFFFF


def _one_by_one(data: bytes) -> int:
    state, table = 0, _bytes_table()
    for byte in data:
        state = (state >> 8) ^ table[(state ^ byte) & 0xFF]
    return state ^ 0xFFFFFFFF


def _combined(states: Words) -> Words:
    """The register after all lanes: each one is shifted by the bytes behind it, and a CRC is linear."""
    zeros = LANE
    while len(states) > 1:
        if len(states) % 2:
            states = np.concatenate([np.zeros(1, np.uint32), states])
        states = _shifted(states[0::2], _zeros_tables(zeros)) ^ states[1::2]
        zeros *= 2
    return states[0]  # type: ignore[no-any-return]


def _shifted(states: Words, tables: Words) -> Words:
    """Registers after as many zero bytes as the tables stand for."""
    low, high = states & 0xFFFF, states >> 16
    shifted: Words = tables[0][low & 0xFF] ^ tables[1][low >> 8] ^ tables[2][high & 0xFF] ^ tables[3][high >> 8]
    return shifted


@lru_cache(maxsize=1)
def _bytes_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


@lru_cache(maxsize=1)
def _pairs_table() -> Words:
    """The register after each pair of bytes, from zero."""
    one = np.array(_bytes_table(), np.uint32)
    pairs = np.arange(1 << 16, dtype=np.uint32)
    first = one[pairs & 0xFF] ^ (pairs >> np.uint32(8))
    shifted: Words = (first >> np.uint32(8)) ^ one[first & np.uint32(0xFF)]
    return shifted


@lru_cache(maxsize=64)
def _zeros_tables(count: int) -> Words:
    """For each byte of a register, what it becomes after `count` zero bytes, a power of two times `LANE`."""
    bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    if count == LANE:
        one = np.array(_bytes_table(), np.uint32)
        for _ in range(count):
            bits = (bits >> np.uint32(8)) ^ one[bits & np.uint32(0xFF)]
    else:
        half = _zeros_tables(count // 2)  # applied twice
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
