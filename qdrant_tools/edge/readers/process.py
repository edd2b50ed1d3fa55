"""The reader process: opens copies of collections and answers searches over sockets.

Run as a file with the numbers of its sockets; the first one brings orders (open, drop), the others questions. Before it
answers it applies the writes that the question must see, and while nobody asks it applies what comes.

Guarantees: it writes into its own copies only; it ends with its parent. Errors are not told apart here: whoever asked
asks the engine of the parent, which raises what is to be raised. Does not know: the manifest, locks, durability.
"""

from __future__ import annotations

import math
import pickle
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.config import vector_schema
from qdrant_tools.edge.errors import EngineCall
from qdrant_tools.edge.rankings import Rankings, VectorQueries, engine_rankings
from qdrant_tools.edge.readers.messages import (
    ANSWER,
    ELSEWHERE,
    QUESTION,
    REFUSAL,
    Columns,
    Copy,
    Follower,
    Progress,
    packed,
    receive,
    send,
)
from qdrant_tools.edge.reads import ReadMethods
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.files import require_unwritten_links
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.edge.storage.worker import end_with_parent
from qdrant_tools.edge.writes import WriteMethods
from qdrant_tools.errors import CollectionNotFoundError, PlusError

SOON, LATER = 0.002, 0.05  # seconds without a question after which a reader looks for writes: fewer while some come
TURN = 0.005  # seconds that it applies writes before it looks for questions again


class CopiedCollection(OpenCollection):
    """A copy of a collection: written without guard, log and seal, because nothing is lost with it."""

    def __init__(self, copy: Copy) -> None:
        settings = models.CreateCollection.model_validate_json(copy.settings)
        self.name, self.folder, self.settings = copy.name, copy.shard.parent, settings
        self.schema = vector_schema(copy.name, settings)
        self.call = EngineCall(copy.name)
        self._writing = self._calling = threading.RLock()
        self._change = threading.local()
        self._shard = qe.EdgeShard.load(str(copy.shard))
        self._journal = None
        require_unwritten_links(copy.shard)

    @contextmanager
    def hold(self) -> Iterator[qe.EdgeShard]:
        with self.call:
            if self._shard is None:
                raise CollectionNotFoundError(f"the copy of collection {self.name} was closed")
            yield self._shard

    def write(self, operation: qe.UpdateOperation, *_: Any, **__: Any) -> None:
        with self.hold() as shard:
            shard.update(operation)

    def delete(self, operation: qe.UpdateOperation, *_: Any, **__: Any) -> None:
        self.write(operation)

    def upsert_bytes(self, *_: Any, **__: Any) -> int:
        """Room on the disk was asked for before the copy was made."""
        return 0

    def change_bytes(self, *_: Any, **__: Any) -> int:
        return 0

    def drop(self) -> None:
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.close()


class _NoBuilds:
    """Indexes are built by the owner of the collection, not in copies."""

    def wrote(self, collection: OpenCollection) -> None:
        return None


class CopiedEngine(Engine):
    """The one collection that a question is about."""

    def __init__(self, collection: OpenCollection) -> None:
        self._collection = collection
        self.builds: Any = _NoBuilds()

    def collection(self, name: str) -> OpenCollection:
        if name != self._collection.name:
            raise CollectionNotFoundError(f"Collection {name} not found in this reader")
        return self._collection


class CopyMethods(WriteMethods, ReadMethods):
    """The methods that are asked for, and those that are in the journal."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def _response(self, hits: Sequence[qe.ScoredPoint]) -> Any:
        return Columns.of(hits)

    def rankings(self, collection_name: str, queries: VectorQueries) -> Rankings:
        return engine_rankings(self.engine, collection_name, queries).packed()


class Served:
    """One open copy, and the writes that it follows."""

    def __init__(self, copy: Copy) -> None:
        self.copied = CopiedCollection(copy)
        self._methods = CopyMethods(CopiedEngine(self.copied))
        self._follower = Follower(copy.journal, Progress(copy.progress))
        self.broken = False

    def answer(self, until: int, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        self._apply(until, math.inf)
        return getattr(self._methods, method)(self.copied.name, *arguments, **options)

    def catch_up(self) -> bool:
        """Apply writes for a while; whether there were any."""
        if self.broken or not self._follower.behind:
            return False
        self._apply(None, time.monotonic() + TURN)
        return True

    def _apply(self, until: int | None, deadline: float) -> None:
        while time.monotonic() < deadline and (taken := self._follower.take(until)) is not None:
            entry, applied = taken
            try:
                getattr(self._methods, entry.method)(self.copied.name, *entry.arguments, **entry.options)
                self.broken = self.broken or not applied
            except PlusError:
                self.broken = self.broken or applied  # what failed there fails here
            except BaseException:
                self.broken = True
                raise


class Reader:
    """All open copies by their numbers."""

    def __init__(self, orders: socket.socket, questions: list[socket.socket]) -> None:
        self._orders, self._sockets = orders, [orders, *questions]
        self._copies: dict[int, Served] = {}
        self._dropped: list[Served] = []

    def serve(self) -> None:
        """Serve until the other end is closed."""
        wait = LATER
        while True:
            ready, _, _ = select.select(self._sockets, [], [], wait if self._copies or self._dropped else None)
            if not ready:
                if self._dropped:  # closing takes a while, and nobody must wait for it
                    with suppress(BaseException):  # its files may be gone already; a panic is no Exception
                        self._dropped.pop().copied.drop()
                came = [served.catch_up() for served in self._copies.values()]
                wait = SOON if any(came) else min(2 * wait, LATER)
            for channel in ready:
                try:
                    _, content = receive(channel)
                except (EOFError, OSError):
                    return
                if channel is self._orders:
                    send(channel, *self._ordered(content))
                else:
                    send(channel, *self._answered(content))

    def _ordered(self, content: bytes) -> tuple[bytes, bytes]:
        order, value = pickle.loads(content)
        try:
            if order == "open":
                self._copies[value.number] = Served(value)
            elif value in self._copies:
                self._dropped.append(self._copies.pop(value))
        except BaseException as error:  # a panic of the engine is no Exception
            return _told(error), REFUSAL
        return b"", ANSWER

    def _answered(self, content: bytes) -> tuple[bytes, bytes]:
        try:
            number, until = QUESTION.unpack_from(content)
            method, arguments, options = pickle.loads(memoryview(content)[QUESTION.size :])
            served = self._copies.get(number)
            if served is None or served.broken:
                return b"", ELSEWHERE
            answer = packed(served.answer(until, method, arguments, options))
            return (b"", ELSEWHERE) if served.broken else (answer, ANSWER)
        except CollectionNotFoundError:  # another collection than the copied one
            return b"", ELSEWHERE
        except BaseException as error:
            return _told(error), REFUSAL


def _told(error: BaseException) -> bytes:
    return f"{type(error).__name__}: {error}".encode("utf-8", "replace")


def main(numbers: list[int]) -> None:
    end_with_parent()
    orders, *questions = [socket.socket(fileno=number) for number in numbers]
    send(orders, b"ready")
    Reader(orders, questions).serve()


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]])
