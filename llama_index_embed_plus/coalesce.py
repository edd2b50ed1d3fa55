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

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.records import Vectors

WINDOW_SECONDS = 0.002
MAX_BATCH = 512

Row = NDArray[np.float32]
_Request = tuple[str, "Future[Row]"]


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
        with self._changed:
            alone = not self._busy
            self._busy = True
            request = None if alone else self._enqueue(text)
        if request is not None:
            return request.result()
        try:
            return self._encode([text])[0]
        finally:
            self._hand_over()

    async def aencode(self, text: str) -> Row:
        """Return the vector of `text`, shape (dimension,). Never blocks the event loop."""
        with self._changed:
            idle = not self._busy
            self._busy = True
            request = self._enqueue(text)
        if idle:
            self._worker.submit(self._drain)
        return await asyncio.wrap_future(request)

    def _enqueue(self, text: str) -> Future[Row]:
        request: Future[Row] = Future()
        self._waiting.append((text, request))
        self._changed.notify()
        return request

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
        wanted = [(text, request) for text, request in batch if request.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            rows = self._encode([text for text, _ in wanted])
        except BaseException as error:  # forwarded below: a caller must never wait for an answer that cannot come
            self._answer_one_by_one(wanted, error)
            return
        for (_, request), row in zip(wanted, rows, strict=True):
            request.set_result(row)

    def _answer_one_by_one(self, wanted: list[_Request], error: BaseException) -> None:
        """Find out whose text it was: every text of a failed batch is computed once by itself."""
        if len(wanted) == 1:
            wanted[0][1].set_exception(error)
            return
        for text, request in wanted:
            try:
                request.set_result(self._encode([text])[0])
            except BaseException as own_error:  # forwarded to the caller who asked
                request.set_exception(own_error)
