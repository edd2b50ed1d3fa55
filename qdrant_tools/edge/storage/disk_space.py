"""Room on the disk, asked for before the engine writes.

The engine writes through memory maps into files with holes: on a full disk the system ends the process instead of
returning an error. So every write asks first for all that it can take, in the log and in the segments, and a file of
real blocks is kept in the folder of collections: it is given up when there is no room, so that deleting, opening,
flushing and closing still work, and made again when there is.

The factors are upper bounds of what was measured (docs/embedded-engine.md). Does not know: the engine.

A change of points that are stored -> the bytes it takes on the disk at most.

A changed payload is written anew as a whole, and a point of a finished segment moves with all it has: so what the
points hold counts. Reading it costs more than the change, and is done only where the disk might not have the room.

Does not know: the disk, locks.
"""

from __future__ import annotations

import marshal
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import VectorSchema, json_payload
from qdrant_tools.edge.storage.files import content_bytes, content_size
from qdrant_tools.errors import LocationError

MEGABYTE = 1 << 20
RESERVE_FILE = ".reserve"
RESERVE = 8 * MEGABYTE  # kept for deletions, opening, flushing and closing
SLACK = MEGABYTE // 2  # left free beside the reserve
MARGIN = 2 * MEGABYTE  # pages begun, tables of free blocks, settings that are written anew
POINT = 512  # a point's id in the log and in the tables, and what its blocks are rounded up to
POINT_IN_INDEX = 192
NUMBER = 10  # a number of a dense vector: five bytes in the log, four in the segment
SPARSE_NUMBER = 24
PAYLOAD = 2  # a payload is in the log and in the segment
INDEXED_PAYLOAD = 4  # and its values in the payload indexes, which do not compress them
NEW_FILE = 32 * MEGABYTE  # how large a file of vectors is made before there is a vector in it
DELETED = 160  # a deleted point: its id in the log, marks and journals of the tables


@dataclass(frozen=True)
class Sizes:
    """What points bring along: how many, the numbers of their vectors, the bytes of their payloads."""

    points: int = 0
    numbers: int = 0
    sparse_numbers: int = 0
    payload: int = 0

    def needed(self, indexes: int) -> int:
        """Bytes on the disk that writing them takes at most, with this many payload indexes."""
        payload = self.payload * (INDEXED_PAYLOAD if indexes else PAYLOAD)
        vectors = NUMBER * self.numbers + SPARSE_NUMBER * self.sparse_numbers
        return self.points * (POINT + indexes * POINT_IN_INDEX) + vectors + payload


def point_sizes(points: Any, schema: VectorSchema) -> Sizes:
    """The sizes of what `upsert` takes, after it has been checked."""
    points = getattr(points, "batch", getattr(points, "points", points))
    if isinstance(points, models.Batch):
        ids, payloads = points.ids, points.payloads or []
        vectors: Any = points.vectors
        numbers, sparse = _fixed(len(ids), schema) or _column_numbers(vectors)
    else:
        ids, payloads = points, [point.payload for point in points]
        numbers, sparse = _fixed(len(ids), schema) or vector_numbers(point.vector for point in points)
    return Sizes(len(ids), numbers, sparse, payload_bytes(payloads))


def _fixed(points: int, schema: VectorSchema) -> tuple[int, int] | None:
    """The numbers of that many points where all have as many."""
    if schema.sparse or any(shape.multi for shape in schema.dense.values()):
        return None
    return points * schema.bytes_per_point // 4, 0


def _column_numbers(vectors: Any) -> tuple[int, int]:
    columns = vectors.values() if isinstance(vectors, Mapping) else [vectors]
    return vector_numbers(vector for column in columns for vector in column)


def vector_numbers(vectors: Iterable[Any]) -> tuple[int, int]:
    """How many numbers vectors have, dense ones and multi-vectors, and sparse ones."""
    dense = sparse = 0
    for vector in vectors:
        if isinstance(vector, Mapping):
            more = vector_numbers(vector.values())
            dense, sparse = dense + more[0], sparse + more[1]
        elif hasattr(vector, "indices"):
            sparse += len(vector.indices) + 4
        elif vector is not None and len(vector) and hasattr(vector[0], "__len__"):
            dense += sum(len(row) + 4 for row in vector)
        elif vector is not None:
            dense += len(vector)
    return dense, sparse


def payload_bytes(payloads: Any) -> int:
    """Bytes of payloads as the engine's log holds them, or a little more. Half a microsecond for each."""
    try:
        return len(marshal.dumps(payloads, 2))
    except ValueError:  # a date or an array, which is stored as text or a list
        return len(marshal.dumps([json_payload(payload) for payload in payloads], 2))


class Reserve:
    """The file of real blocks in a folder of collections."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = root / RESERVE_FILE
        self._kept = 0
        self.look()

    def look(self) -> None:
        """See how large the file is: another process may have given it up, or removed the folder."""
        self._kept = self._file.stat().st_size if self._file.is_file() else 0

    @property
    def free(self) -> int:
        return shutil.disk_usage(self._root).free

    def require(self, needed: int) -> None:
        """Raise `LocationError` unless so many bytes are free, beside what is kept for deletions."""
        if self._kept < RESERVE and self.free > 4 * RESERVE:
            self.keep()
        free, wanted = self.free, needed + MARGIN + RESERVE - self._kept
        if free < wanted:
            raise self._full(free, wanted)

    def spend(self, needed: int = MARGIN) -> None:
        """Give the kept file up if less than `needed` bytes are free. Raise `LocationError` if that is not enough."""
        if self.free >= needed + MARGIN:
            return
        self._file.unlink(missing_ok=True)
        self._kept = 0
        free = self.free
        if free < needed:
            raise self._full(free, needed)

    def keep(self) -> None:
        """Make the file, as large as there is room for."""
        if self._kept >= RESERVE:
            return
        free = self.free
        size = RESERVE if free > 2 * RESERVE else min(RESERVE, free - SLACK)
        if size <= max(self._kept, SLACK):
            return
        try:
            with open(self._file, "wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.write(bytes(size))
            self._kept = size
        except OSError:
            self._file.unlink(missing_ok=True)
            self._kept = 0

    def _full(self, free: int, wanted: int) -> LocationError:
        return LocationError(
            f"no space left on the disk of '{self._root}': {free / MEGABYTE:.0f} MB free, "
            f"{wanted / MEGABYTE:.0f} MB needed; free some, nothing was written"
        )


@lru_cache(maxsize=256)
def reserve_of(root: Path) -> Reserve:
    """The one reserve of a folder of collections in this process."""
    return Reserve(root)


def room_for_build(folder: Path, reserve: Reserve) -> None:
    """Raise `LocationError` unless there is room for a copy of `folder` and for the segments built from it."""
    reserve.require(2 * (content_bytes(folder) + filled_by_opening(folder)))


def filled_by_opening(folder: Path) -> int:
    """Bytes that the holes in files of vectors and indexes come to take when the engine maps and reads them through.

    A file system in memory fills a hole that is read through a map; others do not.
    """
    return sum(hole for _, hole in _holes(folder)) if in_memory(folder) else 0


def fill_holes(folder: Path) -> None:
    """Take now what the next opening would take, so that it needs no room on a disk that is full by then."""
    for path, hole in _holes(folder):
        if hole and shutil.disk_usage(folder).free > hole + RESERVE:
            # the write before it is done and acknowledged: what another process takes meanwhile fails no call
            with suppress(OSError), open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _holes(folder: Path) -> list[tuple[Path, int]]:
    files = [path for path in folder.rglob("segments/**/*") if path.parent.name != "payload_storage" and path.is_file()]
    return [(path, path.stat().st_size - content_size(path)) for path in files]


@lru_cache(maxsize=256)
def in_memory(folder: Path) -> bool:
    """Whether a folder lies on a file system in memory."""
    try:
        rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    own = folder.resolve()
    mounts = [(len(row[1]), row[2]) for row in rows if own.is_relative_to(row[1])]
    return bool(mounts) and max(mounts)[1] in ("tmpfs", "ramfs")


BLOCK = 500  # points read at a time to learn their sizes
COMPRESSED = 20  # how much smaller payloads may be in their files than in the indexes


class Estimate:
    """What changes of one collection take. `free` is always the room there is on the disk, in bytes."""

    def __init__(self, files: Path, schema: VectorSchema) -> None:
        self._files = files
        self._schema = schema
        self._content: int | None = None

    def change(self, shard: qe.EdgeShard, free: int, added: int, ids: Sequence[Any]) -> int:
        """Bytes that a change takes, which adds `added` bytes of payload to each of these points; 0 for "it fits"."""
        indexes = len(shard.info().payload_schema)
        every = Sizes(1, self._schema.bytes_per_point // 4, 0, added).needed(indexes)
        if self._content is None:
            self._content = content_bytes(self._files)
        factor = INDEXED_PAYLOAD if indexes else PAYLOAD
        if free > 2 * MARGIN + added + len(ids) * every + factor * self._content:
            return 0
        held = self._held(shard, ids)
        return added + held.points * every + held.needed(indexes)

    def restructuring(self, shard: qe.EdgeShard, free: int, numbers: int, indexes: int) -> int:
        """Bytes that `numbers` more in the vectors of each point take, or `indexes` more on the payload."""
        points = shard.info().points_count
        needed = Sizes(0, points * numbers).needed(0) + points * POINT_IN_INDEX * indexes
        if indexes and free < needed + COMPRESSED * content_bytes(self._files):
            needed += self._held(shard, None).needed(indexes)
        return needed

    def wrote(self, needed: int) -> None:
        """Something was written for which so many bytes were asked."""
        if self._content is not None:
            self._content += needed

    def forget(self) -> None:
        """The files are about to be others."""
        self._content = None

    def _held(self, shard: qe.EdgeShard, ids: Sequence[Any] | None) -> Sizes:
        """The sizes of stored points, of all of them for None, read a block at a time."""
        vectors = bool(self._schema.sparse) or any(shape.multi for shape in self._schema.dense.values())
        points = numbers = sparse = payload = 0
        for block in _blocks(shard, ids, vectors=vectors):
            points += len(block)
            payload += payload_bytes([point.payload or {} for point in block])
            if vectors:
                more = vector_numbers(point.vector for point in block)
                numbers, sparse = numbers + more[0], sparse + more[1]
        return Sizes(points, numbers, sparse, payload)


def _blocks(shard: qe.EdgeShard, ids: Sequence[Any] | None, *, vectors: bool) -> Iterator[list[Any]]:
    if ids is not None:
        for start in range(0, len(ids), BLOCK):
            yield shard.retrieve(list(ids[start : start + BLOCK]), True, vectors)
        return
    offset = None
    while True:
        block, offset = shard.scroll(
            qe.ScrollRequest(offset=offset, limit=BLOCK, filter=None, with_payload=True, with_vector=vectors)
        )
        yield block
        if offset is None:
            return
