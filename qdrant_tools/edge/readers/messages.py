"""Questions to reader processes and their answers, as bytes over a socket between two processes of one program.

Points travel as columns of their fields: pickling models takes several times as long.

Guarantees: what comes out is equal to what went in. Does not know: who asks, collections.

The writes of one collection, in order, in a file that other processes follow.

The process that owns a collection appends each write once the engine has taken it; readers apply them to copies of
their own and say how far they have come. The file lives as long as the copies and is no record of anything: what makes
a write durable is the engine's own log.

Guarantees: a write that returned lies below `size`; a reader sees whole entries only, in the order in which they were
applied. Does not know: what a write does, who reads.
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

QUESTION = struct.Struct("<QQ")
"""What stands before a question: the number of the copy, and up to where its journal must have been applied."""
HEADER = struct.Struct("<cQ")
ENOUGH, MOST = 1 << 15, 1 << 20  # bytes to read at first, and at once
ANSWER, REFUSAL, ELSEWHERE = b"a", b"r", b"e"
"""What came out; the text of an error; "ask another": the collection is not here, or its copy is of no use."""


@dataclass(frozen=True)
class Copy:
    """What a reader is told of a copy: its number, the collection, and where shard, journal and progress are."""

    number: int
    name: str
    settings: str
    shard: Path
    journal: Path
    progress: Path


def send(channel: socket.socket, content: bytes, kind: bytes = ANSWER) -> None:
    channel.sendall(HEADER.pack(kind, len(content)) + content)


def receive(channel: socket.socket) -> tuple[bytes, bytes]:
    """Kind and content. Raises `EOFError` when the other end is gone.

    One message is under way at a time, so that what is there belongs to it: mostly one call reads all of it.
    """
    content = bytearray(channel.recv(ENOUGH))
    while len(content) < HEADER.size:
        content += _more(channel, HEADER.size)
    kind, length = HEADER.unpack_from(content)
    while len(content) < HEADER.size + length:
        content += _more(channel, min(MOST, HEADER.size + length - len(content)))
    return kind, bytes(content[HEADER.size :])


def _more(channel: socket.socket, length: int) -> bytes:
    part = channel.recv(length)
    if not part:
        raise EOFError("the other end of the socket is gone")
    return part


class Columns(tuple[Any, ...]):
    """The points of one response, field by field: what a reader makes instead of `QueryResponse`."""

    @classmethod
    def of(cls, points: Sequence[models.ScoredPoint | qe.ScoredPoint]) -> Columns:
        plain = [
            [client_id(point.id) for point in points],
            [point.version for point in points],
            [point.score for point in points],
            [point.payload for point in points],
        ]
        vectors = [client_vector(point.vector) for point in points]
        orders = [point.order_value for point in points]
        rare = [column if any(value is not None for value in column) else None for column in (vectors, orders)]
        return cls([*plain, *rare])

    @property
    def points(self) -> list[models.ScoredPoint]:
        """As in a `QueryResponse`."""
        return _response(self).points


def packed(value: Any) -> bytes:
    """An answer as bytes. Raises what pickle raises."""
    if isinstance(value, models.QueryResponse):
        value = Columns.of(value.points)
    elif isinstance(value, list):
        value = [Columns.of(each.points) if isinstance(each, models.QueryResponse) else each for each in value]
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpacked(content: bytes) -> Any:
    value = pickle.loads(content)
    if type(value) is Columns:
        return _response(value)
    if type(value) is list:
        return [_response(each) if type(each) is Columns else each for each in value]
    return value


def _response(columns: Columns) -> models.QueryResponse:
    *plain, vectors, orders = columns
    count = len(plain[0])
    rows = zip(*plain, vectors or [None] * count, orders or [None] * count, strict=True)
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


LONGEST = 64 << 20  # bytes after which new copies cost less than to keep the journal
FURTHEST_BEHIND = 8 << 20  # bytes of writes that readers may owe: a bulk load need not be done by each of them
LENGTH = struct.Struct("<Q")
PLACE = struct.Struct("<Q")

UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, OSError)


class Entry(NamedTuple):
    """One write: the method of `WriteMethods` and its arguments, without the collection's name."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Journal:
    """The writer's end. Its methods are called while nothing else writes to the collection."""

    def __init__(self, path: Path, progress: Sequence[Progress], spoilt: Callable[[], None]) -> None:
        self._file = path.open("xb", buffering=0)
        self._progress = progress
        self._when_spoilt = spoilt
        self.size = 0
        self.spoilt = False

    def append(self, entry: Entry, *, applied: bool) -> None:
        """Add a write; `applied` is whether the engine took it whole. One that cannot be kept spoils the journal."""
        if self.spoilt:
            return
        try:
            content = pickle.dumps((entry, applied), pickle.HIGHEST_PROTOCOL)
            frame = LENGTH.pack(len(content)) + content
            if self._file.write(frame) != len(frame):
                raise OSError("the disk is full")
        except UNPICKLABLE:
            self.spoil()
            return
        self.size += len(frame)
        behind = self.size - min((each.place for each in self._progress), default=self.size)
        if self.size > LONGEST or behind > FURTHEST_BEHIND:
            self.spoil()

    def spoil(self) -> None:
        """The copies no longer hold what the collection holds; new ones are needed."""
        if not self.spoilt:
            self.spoilt = True
            self._file.close()
            self._when_spoilt()


class Progress:
    """How far one reader has come, in eight bytes of a file that both processes map."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(PLACE.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), PLACE.size)

    @property
    def place(self) -> int:
        place: int = PLACE.unpack_from(self._map)[0]
        return place

    @place.setter
    def place(self, value: int) -> None:
        PLACE.pack_into(self._map, 0, value)


class Follower:
    """A reader's end."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._file = path.open("rb", buffering=0)
        self._progress = progress

    @property
    def behind(self) -> bool:
        return os.fstat(self._file.fileno()).st_size > self._progress.place

    def take(self, until: int | None = None) -> tuple[Entry, bool] | None:
        """The next entry, below a place in the file or of those that are there now, and whether the engine took it
        whole; None if there is no other. It counts as applied: apply it now.
        """
        # nothing but what the owner of the collection has written is unpickled here
        end = os.fstat(self._file.fileno()).st_size if until is None else until
        start = self._progress.place + LENGTH.size
        if start > end:
            return None
        following = start + LENGTH.unpack(os.pread(self._file.fileno(), LENGTH.size, start - LENGTH.size))[0]
        if following > end:
            return None  # the rest of it is still being written
        found: tuple[Entry, bool] = pickle.loads(os.pread(self._file.fileno(), following - start, start))
        self._progress.place = following
        return found
