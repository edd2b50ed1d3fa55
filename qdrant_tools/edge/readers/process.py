"""The program of a reader process: opens copies of collections and answers searches over sockets.

Its arguments are the numbers of its sockets. The first one brings orders (open, drop), the others requests. Before it
answers, it applies the writes that the request must see; while it waits, it applies those that come.

Guarantees: it writes to its own copies only; it ends with its parent. An error is only a text here: the parent repeats
the request with its own engine, which raises the right one. Does not know: the manifest, locks, durability.
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
    ERROR,
    REQUEST,
    RESULT,
    UNAVAILABLE,
    CopyInfo,
    Follower,
    PointColumns,
    ReaderProgress,
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

SHORT_WAIT, LONG_WAIT = 0.002, 0.05  # seconds without a request between two looks for writes: short while some come
CATCH_UP_SECONDS = 0.005  # applying writes, before it looks for requests again


class CopiedCollection(OpenCollection):
    """A copy of a collection, written without log and checksums, because nothing is lost with it."""

    def __init__(self, copy: CopyInfo) -> None:
        # not OpenCollection.__init__: it would check and note what a copy does not need
        settings = models.CreateCollection.model_validate_json(copy.settings)
        self.name, self.folder, self.settings = copy.name, copy.shard.parent, settings
        self.schema = vector_schema(copy.name, settings)
        self.call = EngineCall(copy.name)
        self._writing = self._calling = threading.RLock()  # one thread: nobody ever waits
        self._change = threading.local()
        self._shard = qe.EdgeShard.load(str(copy.shard))
        self._journal = None
        # its links are the collection's own files
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
        """The pool has required the room before the copy was made."""
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
    """An engine with one collection, for the methods of the client."""

    def __init__(self, collection: OpenCollection) -> None:
        self._collection = collection
        self.builds: Any = _NoBuilds()

    def collection(self, name: str) -> OpenCollection:
        if name != self._collection.name:
            raise CollectionNotFoundError(f"Collection {name} not found in this reader")
        return self._collection


class CopyMethods(WriteMethods, ReadMethods):
    """The methods of requests and of the journal's entries."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def _response(self, hits: Sequence[qe.ScoredPoint]) -> Any:
        return PointColumns.of(hits)

    def rankings(self, collection_name: str, queries: VectorQueries) -> Rankings:
        return engine_rankings(self.engine, collection_name, queries).packed()


class ServedCopy:
    """One open copy, and the journal that it follows."""

    def __init__(self, copy: CopyInfo) -> None:
        self.collection = CopiedCollection(copy)
        self._methods = CopyMethods(CopiedEngine(self.collection))
        self._follower = Follower(copy.journal, ReaderProgress(copy.progress))
        self.broken = False

    def answer(self, until: int, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        self._apply(until, math.inf)
        return getattr(self._methods, method)(self.collection.name, *arguments, **options)

    def catch_up(self) -> bool:
        """Apply writes for a while; whether there were any."""
        if self.broken or not self._follower.behind:
            return False
        self._apply(None, time.monotonic() + CATCH_UP_SECONDS)
        return True

    def _apply(self, until: int | None, deadline: float) -> None:
        while time.monotonic() < deadline and (next_entry := self._follower.take(until)) is not None:
            entry, applied = next_entry
            try:
                getattr(self._methods, entry.method)(self.collection.name, *entry.arguments, **entry.options)
                self.broken = self.broken or not applied  # it failed in the parent
            except PlusError:
                self.broken = self.broken or applied  # a write that failed in the parent fails here too
            except BaseException:
                self.broken = True
                raise


class Reader:
    """All open copies by their numbers."""

    def __init__(self, orders: socket.socket, requests: list[socket.socket]) -> None:
        self._orders, self._sockets = orders, [orders, *requests]
        self._copies: dict[int, ServedCopy] = {}
        self._dropped: list[ServedCopy] = []

    def serve(self) -> None:
        """Serve until the other end is closed."""
        wait = LONG_WAIT
        while True:
            ready, _, _ = select.select(self._sockets, [], [], wait if self._copies or self._dropped else None)
            if not ready:
                if self._dropped:  # closing takes a while, and no request must wait for it
                    with suppress(BaseException):  # its files may be gone already; a panic is no Exception
                        self._dropped.pop().collection.drop()
                wrote = [served.catch_up() for served in self._copies.values()]
                wait = SHORT_WAIT if any(wrote) else min(2 * wait, LONG_WAIT)
            for channel in ready:
                try:
                    _, content = receive(channel)
                except (EOFError, OSError):
                    return
                if channel is self._orders:
                    send(channel, *self._carry_out(content))
                else:
                    send(channel, *self._answer(content))

    def _carry_out(self, content: bytes) -> tuple[bytes, bytes]:
        order, value = pickle.loads(content)
        try:
            if order == "open":
                self._copies[value.number] = ServedCopy(value)
            elif value in self._copies:
                self._dropped.append(self._copies.pop(value))
        except BaseException as error:  # a panic of the engine is no Exception
            return _error_text(error), ERROR
        return b"", RESULT

    def _answer(self, content: bytes) -> tuple[bytes, bytes]:
        try:
            number, until = REQUEST.unpack_from(content)
            method, arguments, options = pickle.loads(memoryview(content)[REQUEST.size :])
            served = self._copies.get(number)
            if served is None or served.broken:
                return b"", UNAVAILABLE
            result = packed(served.answer(until, method, arguments, options))
            return (b"", UNAVAILABLE) if served.broken else (result, RESULT)
        except CollectionNotFoundError:  # another collection than the copied one
            return b"", UNAVAILABLE
        except BaseException as error:
            return _error_text(error), ERROR


def _error_text(error: BaseException) -> bytes:
    return f"{type(error).__name__}: {error}".encode("utf-8", "replace")


def main(numbers: list[int]) -> None:
    end_with_parent()
    orders, *requests = [socket.socket(fileno=number) for number in numbers]
    send(orders, b"ready")
    Reader(orders, requests).serve()


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]])
