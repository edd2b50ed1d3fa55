"""What travels between this process and its readers: requests and responses over sockets, writes through a file.

Requests and responses are pickles, one at a time on a socket. Points travel as columns of their fields, because
pickling models takes several times as long.

Writes are appended to the journal of their collection once the engine has applied them. Readers apply them to their own
copies and publish how far they have come. The journal lives as long as the copies. It makes nothing durable: the
engine's own log does.

Guarantees: an unpacked response is equal to the packed one; a write that returned lies below the journal's `size`; a
reader sees whole entries only, in the order in which they were applied. Does not know: collections, what a write does.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import client_id
from qdrant_tools.edge.convert.records import client_vector, unvalidated

REQUEST = struct.Struct("<QQ")
"""The head of a request: the number of the copy, and up to where its journal must have been applied."""
HEADER = struct.Struct("<cQ")
FIRST_READ, LARGEST_READ = 1 << 15, 1 << 20  # bytes
RESULT, ERROR, UNAVAILABLE = b"a", b"r", b"e"
"""Kinds of a response: a result, the text of an error, and nothing because the copy is missing or of no use."""


@dataclass(frozen=True)
class CopyInfo:
    """A reader's copy: its number, its collection, and where shard, journal and progress are."""

    number: int
    name: str
    settings: str
    shard: Path
    journal: Path
    progress: Path


def send(channel: socket.socket, content: bytes, kind: bytes = RESULT) -> None:
    channel.sendall(HEADER.pack(kind, len(content)) + content)


def receive(channel: socket.socket) -> tuple[bytes, bytes]:
    """Kind and content of a message. Raises `EOFError` when the other end is gone."""
    # only one message is under way on a socket, so that the first read may take more than the header: mostly all of it
    message = bytearray(channel.recv(FIRST_READ))
    while len(message) < HEADER.size:
        message += _received(channel, HEADER.size)
    kind, length = HEADER.unpack_from(message)
    while len(message) < HEADER.size + length:
        message += _received(channel, min(LARGEST_READ, HEADER.size + length - len(message)))
    return kind, bytes(message[HEADER.size :])


def _received(channel: socket.socket, length: int) -> bytes:
    part = channel.recv(length)
    if not part:
        raise EOFError("the other end of the socket is gone")
    return part


class PointColumns(tuple[Any, ...]):
    """The points of one response, field by field: a reader's replacement of `QueryResponse`."""

    @classmethod
    def of(cls, points: Sequence[models.ScoredPoint | qe.ScoredPoint]) -> PointColumns:
        columns = [
            [client_id(point.id) for point in points],
            [point.version for point in points],
            [point.score for point in points],
            [point.payload for point in points],
        ]
        vectors = [client_vector(point.vector) for point in points]
        orders = [point.order_value for point in points]
        optional = [column if any(value is not None for value in column) else None for column in (vectors, orders)]
        return cls([*columns, *optional])

    @property
    def points(self) -> list[models.ScoredPoint]:
        """As in a `QueryResponse`."""
        return _response(self).points


def packed(value: Any) -> bytes:
    """A result as bytes. Raises what pickle raises."""
    if isinstance(value, models.QueryResponse):
        value = PointColumns.of(value.points)
    elif isinstance(value, list):
        value = [PointColumns.of(item.points) if isinstance(item, models.QueryResponse) else item for item in value]
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpacked(content: bytes) -> Any:
    value = pickle.loads(content)
    if type(value) is PointColumns:
        return _response(value)
    if type(value) is list:
        return [_response(item) if type(item) is PointColumns else item for item in value]
    return value


def _response(point_columns: PointColumns) -> models.QueryResponse:
    *columns, vectors, orders = point_columns
    count = len(columns[0])
    rows = zip(*columns, vectors or [None] * count, orders or [None] * count, strict=True)
    return models.QueryResponse.model_construct(
        points=[
            unvalidated(
                models.ScoredPoint,
                {
                    "id": point_id,
                    "version": version,
                    "score": score,
                    "payload": payload,
                    "vector": vector,
                    "shard_key": None,
                    "order_value": order,
                },
            )
            for point_id, version, score, payload, vector, order in rows
        ]
    )


# -- the journal

LARGEST_JOURNAL = 64 << 20  # bytes after which new copies cost less than to keep the journal
LARGEST_LAG = 8 << 20  # bytes of writes that a reader may lag behind: not each of them should repeat a bulk load
LENGTH = struct.Struct("<Q")
OFFSET = struct.Struct("<Q")

UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, OSError)


class Entry(NamedTuple):
    """One write: the method of `WriteMethods` and its arguments, without the collection's name."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Journal:
    """The writer's end. Its methods are called while nothing else writes to the collection."""

    def __init__(self, path: Path, progress: Sequence[ReaderProgress], on_invalid: Callable[[], None]) -> None:
        self._file = path.open("xb", buffering=0)  # a reader must see an entry when the write returns
        self._progress = progress
        self._on_invalid = on_invalid
        self.size = 0
        self.valid = True

    def append(self, entry: Entry, *, applied: bool) -> None:
        """Add a write; `applied` tells whether the engine applied it whole.

        An entry that cannot be written ends the journal.
        """
        if not self.valid:
            return
        try:
            content = pickle.dumps((entry, applied), pickle.HIGHEST_PROTOCOL)
            frame = LENGTH.pack(len(content)) + content
            if self._file.write(frame) != len(frame):
                raise OSError("the disk is full")
        except UNPICKLABLE:
            self.invalidate()
            return
        self.size += len(frame)
        lag = self.size - min((progress.offset for progress in self._progress), default=self.size)
        if self.size > LARGEST_JOURNAL or lag > LARGEST_LAG:
            self.invalidate()

    def invalidate(self) -> None:
        """End the journal: from now on the copies differ from the collection, and new ones are needed."""
        if self.valid:
            self.valid = False
            self._file.close()
            self._on_invalid()


class ReaderProgress:
    """Up to where one reader has applied the journal: eight bytes of a file that both processes map."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(OFFSET.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), OFFSET.size)

    @property
    def offset(self) -> int:
        offset: int = OFFSET.unpack_from(self._map)[0]
        return offset

    @offset.setter
    def offset(self, value: int) -> None:
        OFFSET.pack_into(self._map, 0, value)


class Follower:
    """A reader's end."""

    def __init__(self, path: Path, progress: ReaderProgress) -> None:
        self._file = path.open("rb", buffering=0)
        self._progress = progress

    @property
    def behind(self) -> bool:
        return os.fstat(self._file.fileno()).st_size > self._progress.offset

    def take(self, until: int | None = None) -> tuple[Entry, bool] | None:
        """The next entry below an offset (default: of all that there are), and whether the engine applied it whole.

        None if there is no other. The entry counts as applied: apply it now.
        """
        # safe to unpickle: only the process that owns the collection writes to this file
        end = os.fstat(self._file.fileno()).st_size if until is None else until
        start = self._progress.offset + LENGTH.size
        if start > end:
            return None
        following = start + LENGTH.unpack(os.pread(self._file.fileno(), LENGTH.size, start - LENGTH.size))[0]
        if following > end:
            return None  # the rest of it is still being written
        entry: tuple[Entry, bool] = pickle.loads(os.pread(self._file.fileno(), following - start, start))
        self._progress.offset = following
        return entry
