"""Many callers with one text each -> few batches: what arrives while a batch is being computed shares the next one.

A lone caller computes in its own thread and waits for nobody. A caller who finds a computation under way queues,
and everything queued becomes the next batch. After a shared batch the worker waits up to `WINDOW_SECONDS` for as
many callers as there were last time, because callers in a loop come back together.

Guarantees: each caller gets the row of its own text; an error reaches only the callers whose text caused it; safe
from any number of threads and event loops; an event loop is never blocked. Does not know: models, texts, caches.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.records import Vectors

WINDOW_SECONDS = 0.005
MAX_BATCH = 512

Row = NDArray[np.float32]


class _Request(NamedTuple):
    """A text, and where its answer goes: a thread's future (`loop` is None) or one of an event loop."""

    text: str
    future: Future[Row] | asyncio.Future[Row]
    loop: asyncio.AbstractEventLoop | None


_Answer = tuple[_Request, "Row | BaseException"]


class Coalescer:
    """Answers single texts through `encode`, which takes a list of texts and returns one row for each."""

    def __init__(self, encode: Callable[[list[str]], Vectors]) -> None:
        self._encode = encode
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._last_size = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed-plus-coalesce")

    def encode(self, text: str) -> Row:
        """Return the vector of `text`, shape (dimension,). Blocks the calling thread."""
        future: Future[Row] = Future()
        if not self._enqueue(_Request(text, future, None), unless_idle=True):
            return future.result()
        try:
            row: Row = self._encode([text])[0]
        finally:
            self._hand_over()
        return row

    async def aencode(self, text: str) -> Row:
        """Return the vector of `text`, shape (dimension,). Never blocks the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Row] = loop.create_future()
        if self._enqueue(_Request(text, future, loop)):
            self._worker.submit(self._drain)
        return await future

    def _enqueue(self, request: _Request, *, unless_idle: bool = False) -> bool:
        """Queue a request, but not `unless_idle`. Return whether nobody was computing: now it is the caller's turn."""
        with self._changed:
            idle, self._busy = not self._busy, True
            if not (idle and unless_idle):
                self._waiting.append(request)
                self._changed.notify()
            return idle

    def _hand_over(self) -> None:
        """Leave the queue to the worker, or to the next caller if nobody waits."""
        with self._changed:
            self._busy = bool(self._waiting)
            if not self._busy:
                return
        self._worker.submit(self._drain)

    def _drain(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)

    def _next_batch(self) -> list[_Request]:
        """Take what is queued, after a short wait for the company of last time; an empty list ends the drain."""
        with self._changed:
            if self._last_size > 1:
                self._changed.wait_for(lambda: len(self._waiting) >= self._last_size, WINDOW_SECONDS)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            self._last_size = len(batch)
            self._busy = bool(batch)
            return batch

    def _answer(self, batch: list[_Request]) -> None:
        wanted = [request for request in batch if not request.future.cancelled()]
        if not wanted:
            return
        try:
            rows = self._encode([request.text for request in wanted])
        except BaseException as error:  # forwarded: a caller must never wait for an answer that cannot come
            _deliver([(wanted[0], error)] if len(wanted) == 1 else [self._alone(request) for request in wanted])
            return
        _deliver(list(zip(wanted, rows, strict=True)))

    def _alone(self, request: _Request) -> _Answer:
        """Compute a text of a failed batch by itself, to find out whose text it was."""
        try:
            return request, self._encode([request.text])[0]
        except BaseException as error:  # forwarded to the caller whose text it is
            return request, error


def _deliver(answers: list[_Answer]) -> None:
    """Hand over the answers; an event loop is woken once for all of its own."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for request, answer in answers:
        if request.loop is None:
            _settle([(request, answer)])
        else:
            by_loop.setdefault(request.loop, []).append((request, answer))
    for loop, its in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits there any more
            loop.call_soon_threadsafe(_settle, its)


def _settle(answers: list[_Answer]) -> None:
    for request, answer in answers:
        if request.future.done():  # given up
            continue
        if isinstance(answer, BaseException):
            request.future.set_exception(answer)
        else:
            request.future.set_result(answer)
