"""Questions to reader processes and their answers, as bytes over a socket between two processes of one program.

Points travel as columns of their fields: pickling models takes several times as long.

Guarantees: what comes out is equal to what went in. Does not know: who asks, collections.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.checks import client_id
from qdrant_tools.edge.records import client_vector, unvalidated

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
