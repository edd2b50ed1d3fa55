"""Room on the disk: how much a change can take at most, and a reserve for the time when the disk is full.

The engine writes through memory maps into files with holes. On a full disk the system ends the process instead of
returning an error. So every write asks first for all that it can take, in the log and in the segments. A file of real
blocks is kept in the folder of collections. It is given up when there is no room, so that deleting, opening, flushing
and closing still work, and made again when there is.

The factors are upper bounds of what was measured (docs/embedded-engine.md).
Does not know: locks, what is written.
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
from qdrant_tools.edge.storage.files import content_bytes, content_size, group_of
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
POINTS_AT_ONCE = 500  # points read at a time to learn their sizes
COMPRESSED = 20  # how much smaller payloads may be in their files than in the indexes
NEW_FILE = 32 * MEGABYTE  # how large a file of vectors is made before there is a vector in it
DELETED = 160  # a deleted point: its id in the log, and in the tables that mark it


# -- what is written


@dataclass(frozen=True)
class Sizes:
    """The sizes of points: how many, the numbers in their vectors, the bytes of their payloads."""

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
    """The sizes of the points of an upsert, after they have been checked."""
    points = getattr(points, "batch", getattr(points, "points", points))
    if isinstance(points, models.Batch):
        ids, payloads = points.ids, points.payloads or []
        vectors: Any = points.vectors
        numbers, sparse = _equal_numbers(len(ids), schema) or _column_numbers(vectors)
    else:
        ids, payloads = points, [point.payload for point in points]
        numbers, sparse = _equal_numbers(len(ids), schema) or vector_numbers(point.vector for point in points)
    return Sizes(len(ids), numbers, sparse, payload_bytes(payloads))


def _equal_numbers(points: int, schema: VectorSchema) -> tuple[int, int] | None:
    """The dense and sparse numbers of that many points, if every point has as many."""
    if schema.sparse or any(shape.multi for shape in schema.dense.values()):
        return None
    return points * schema.bytes_per_point // 4, 0


def _column_numbers(vectors: Any) -> tuple[int, int]:
    columns = vectors.values() if isinstance(vectors, Mapping) else [vectors]
    return vector_numbers(vector for column in columns for vector in column)


def vector_numbers(vectors: Iterable[Any]) -> tuple[int, int]:
    """How many numbers vectors have: dense ones with multi-vectors, and sparse ones."""
    dense = sparse = 0
    for vector in vectors:
        if isinstance(vector, Mapping):
            named_dense, named_sparse = vector_numbers(vector.values())
            dense, sparse = dense + named_dense, sparse + named_sparse
        elif hasattr(vector, "indices"):
            sparse += len(vector.indices) + 4
        elif vector is not None and len(vector) and hasattr(vector[0], "__len__"):
            dense += sum(len(row) + 4 for row in vector)
        elif vector is not None:
            dense += len(vector)
    return dense, sparse


def payload_bytes(payloads: Any) -> int:
    """Bytes of payloads as the engine's log holds them, or a little more."""
    # marshal is a little longer than the engine's encoding, and takes half a microsecond for each payload
    try:
        return len(marshal.dumps(payloads, 2))  # later versions write a repeated text only once
    except ValueError:  # a date or an array, which is stored as text or a list
        return len(marshal.dumps([json_payload(payload) for payload in payloads], 2))


class ChangeEstimate:
    """Bytes that changes of a collection's stored points take at most. `free` is the room on the disk, in bytes.

    A changed payload is written anew as a whole, and a point of a finished segment moves with all it has. So the
    stored points count. Reading them costs more than the change, and is done only if the disk might not have the room.
    """

    def __init__(self, files: Path, schema: VectorSchema) -> None:
        self._files = files
        self._schema = schema
        self._content: int | None = None

    def change(self, shard: qe.EdgeShard, free: int, added: int, ids: Sequence[Any]) -> int:
        """Bytes of a change that adds `added` bytes of payload to each of these points; 0 if it fits anyway."""
        indexes = len(shard.info().payload_schema)
        per_point = Sizes(1, self._schema.bytes_per_point // 4, 0, added).needed(indexes)
        if self._content is None:
            self._content = content_bytes(self._files)
        factor = INDEXED_PAYLOAD if indexes else PAYLOAD
        if free > 2 * MARGIN + added + len(ids) * per_point + factor * self._content:
            return 0
        stored = self._stored_sizes(shard, ids)
        return added + stored.points * per_point + stored.needed(indexes)

    def schema_change(self, shard: qe.EdgeShard, free: int, numbers: int, indexes: int) -> int:
        """Bytes of a change that adds `numbers` to the vectors of each point, or `indexes` to those of the payload."""
        points = shard.info().points_count
        needed = Sizes(0, points * numbers).needed(0) + points * POINT_IN_INDEX * indexes
        if indexes and free < needed + COMPRESSED * content_bytes(self._files):
            needed += self._stored_sizes(shard, None).needed(indexes)
        return needed

    def add(self, needed: int) -> None:
        """A write has just taken at most so many bytes."""
        if self._content is not None:
            self._content += needed

    def forget(self) -> None:
        """The files are about to be replaced."""
        self._content = None

    def _stored_sizes(self, shard: qe.EdgeShard, ids: Sequence[Any] | None) -> Sizes:
        """The sizes of stored points, of all of them for None, read a block at a time."""
        with_vectors = bool(self._schema.sparse) or any(shape.multi for shape in self._schema.dense.values())
        points = numbers = sparse = payload = 0
        for block in _blocks(shard, ids, with_vectors=with_vectors):
            points += len(block)
            payload += payload_bytes([point.payload or {} for point in block])
            if with_vectors:
                block_numbers, block_sparse = vector_numbers(point.vector for point in block)
                numbers, sparse = numbers + block_numbers, sparse + block_sparse
        return Sizes(points, numbers, sparse, payload)


def _blocks(shard: qe.EdgeShard, ids: Sequence[Any] | None, *, with_vectors: bool) -> Iterator[list[Any]]:
    if ids is not None:
        for start in range(0, len(ids), POINTS_AT_ONCE):
            yield shard.retrieve(list(ids[start : start + POINTS_AT_ONCE]), True, with_vectors)
        return
    offset = None
    while True:
        block, offset = shard.scroll(
            qe.ScrollRequest(
                offset=offset, limit=POINTS_AT_ONCE, filter=None, with_payload=True, with_vector=with_vectors
            )
        )
        yield block
        if offset is None:
            return


# -- what is kept free


class Reserve:
    """The file of real blocks in a folder of collections. Use `reserve_of`: a folder has one in a process."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = root / RESERVE_FILE
        self._size = 0
        self.refresh()

    def refresh(self) -> None:
        """Look how large the file is: another process may have given it up, or removed the folder."""
        self._size = self._file.stat().st_size if self._file.is_file() else 0

    @property
    def free(self) -> int:
        return shutil.disk_usage(self._root).free

    def require(self, needed: int) -> None:
        """Raise `LocationError` unless so many bytes are free beside the reserve."""
        if self._size < RESERVE and self.free > 4 * RESERVE:
            self.refill()
        # the write must leave room for what the reserve still lacks
        free, required = self.free, needed + MARGIN + RESERVE - self._size
        if free < required:
            raise self._full(free, required)

    def spend(self, needed: int = MARGIN) -> None:
        """Give the reserve up if less than `needed` bytes are free. Raise `LocationError` if that is not enough."""
        if self.free >= needed + MARGIN:
            return
        self._file.unlink(missing_ok=True)
        self._size = 0
        free = self.free
        if free < needed:
            raise self._full(free, needed)

    def refill(self) -> None:
        """Make the file again, as large as there is room for."""
        if self._size >= RESERVE:
            return
        free = self.free
        size = RESERVE if free > 2 * RESERVE else min(RESERVE, free - SLACK)
        if size <= max(self._size, SLACK):
            return
        try:
            self._file.unlink(missing_ok=True)
            group = group_of(self._file.parent)
            # a new file, never one that a link or another name leads to
            with open(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 | group), "wb") as file:
                # real blocks: a hole would reserve nothing
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.write(bytes(size))
            self._size = size
        except OSError:
            self._file.unlink(missing_ok=True)
            self._size = 0

    def _full(self, free: int, required: int) -> LocationError:
        return LocationError(
            f"no space left on the disk of '{self._root}': {free / MEGABYTE:.0f} MB free, "
            f"{required / MEGABYTE:.0f} MB needed; free some, nothing was written"
        )


@lru_cache(maxsize=256)
def reserve_of(root: Path) -> Reserve:
    """The one reserve of a folder of collections in this process."""
    return Reserve(root)


def require_room_for_build(folder: Path, reserve: Reserve) -> None:
    """Raise `LocationError` unless there is room for a copy of `folder` and for the segments built from it."""
    reserve.require(2 * (content_bytes(folder) + opening_bytes(folder)))


# -- holes in preallocated files


def opening_bytes(folder: Path) -> int:
    """Bytes that the holes in files of vectors and indexes take when the engine opens them.

    Only a file system in memory fills a hole that is read through a memory map.
    """
    return sum(hole for _, hole in _holes(folder)) if is_memory_filesystem(folder) else 0


def fill_holes(folder: Path) -> None:
    """Take now what the next opening would take: the disk may be full by then."""
    for path, hole in _holes(folder):
        if hole and shutil.disk_usage(folder).free > hole + RESERVE:
            # the write is applied already: it must not fail because another process takes the room meanwhile
            with suppress(OSError), open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _holes(folder: Path) -> list[tuple[Path, int]]:
    """Each file of vectors or indexes, with the bytes of its holes."""
    files = [path for path in folder.rglob("segments/**/*") if path.parent.name != "payload_storage" and path.is_file()]
    return [(path, path.stat().st_size - content_size(path)) for path in files]


@lru_cache(maxsize=256)
def is_memory_filesystem(folder: Path) -> bool:
    """Whether a folder lies on a file system in memory: the mount with the longest path says."""
    try:
        rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    path = folder.resolve()
    mounts = [(len(row[1]), row[2]) for row in rows if path.is_relative_to(row[1])]
    return bool(mounts) and max(mounts)[1] in ("tmpfs", "ramfs")
