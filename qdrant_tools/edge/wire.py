"""Questions to reader processes and their answers, as bytes over a socket between two processes of one program.

Points travel as the dictionaries that they are made of: pickling a model takes several times as long.

Guarantees: what comes out is equal to what went in. Does not know: who asks, collections.
"""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdrant_client.http import models

from qdrant_tools.edge.records import unvalidated

QUESTION = struct.Struct("<QQ")
"""What stands before a question: the number of the copy, and up to where its journal must have been applied."""
HEADER = struct.Struct("<cQ")
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
    """Kind and content. Raises `EOFError` when the other end is gone."""
    kind, length = HEADER.unpack(_exactly(channel, HEADER.size))
    return kind, _exactly(channel, length)


def _exactly(channel: socket.socket, length: int) -> bytes:
    first = channel.recv(length)
    if len(first) == length:
        return first
    content = bytearray(first)
    while len(content) < length:
        part = channel.recv(length - len(content))
        if not part:
            raise EOFError("the other end of the socket is gone")
        content += part
    return bytes(content)


def packed(value: Any) -> bytes:
    """An answer as bytes. Raises what pickle raises."""
    if isinstance(value, models.QueryResponse):
        value = _Points([point.__dict__ for point in value.points])
    elif isinstance(value, list) and value and isinstance(value[0], models.QueryResponse):
        value = _Lists([[point.__dict__ for point in each.points] for each in value])
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpacked(content: bytes) -> Any:
    value = pickle.loads(content)
    if type(value) is _Points:
        return _response(value)
    if type(value) is _Lists:
        return [_response(each) for each in value]
    return value


class _Points(list[dict[str, Any]]):
    """The points of one response."""


class _Lists(list[list[dict[str, Any]]]):
    """The points of several responses."""


def _response(points: list[dict[str, Any]]) -> models.QueryResponse:
    return models.QueryResponse.model_construct(points=[unvalidated(models.ScoredPoint, each) for each in points])
