"""An encoder that is opened when first needed, behind a cache and a queue: what a server or a pipeline asks.

Guarantees: the encoder is opened once, whoever asks first; equal texts in one call are computed once; vectors come
back in input order; single texts from concurrent callers share batches; asynchronous callers never block their
event loop and at most `workers` of their bulk calls run at a time. Does not know: LlamaIndex, files of models.

Many callers with one text each -> few batches: what arrives while a batch is being computed shares the next one.

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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.encoders.text_encoder import TextEncoder, check_texts
from llama_index_embed_plus.errors import CacheError
from llama_index_embed_plus.serving.cache import KeySpace, Role, VectorCache
from llama_index_embed_plus.serving.identity import base_build
from qdrant_tools.records import Progress, Vectors

SLAB = 4096  # texts computed between two writes to the cache; sorting more of them by length gains nothing
DEFAULT_WORKERS = 2  # a small bulk call can overtake a large one; the encoder itself uses every core


P = ParamSpec("P")
T = TypeVar("T")


class EncoderService:
    """Turns texts into vectors for many callers at once. Opens encoder and cache once, at the first text."""

    def __init__(
        self,
        open_encoder: Callable[[], TextEncoder],
        *,
        open_cache: Callable[[], VectorCache] | None = None,
        workers: int | None = None,
    ) -> None:
        self._open_encoder, self._open_cache = open_encoder, open_cache
        self._encoder: TextEncoder | None = None
        self._cache: VectorCache | None = None
        self._opening = threading.Lock()
        self._singles = {role: Coalescer(partial(self.encode, role)) for role in ("query", "passage")}
        self._workers = ThreadPoolExecutor(workers or DEFAULT_WORKERS, thread_name_prefix="embed-plus-bulk")

    @property
    def encoder(self) -> TextEncoder:
        """The encoder, opened if it was not yet."""
        if self._encoder is None:
            with self._opening:
                if self._encoder is None:
                    self._cache = self._open_cache() if self._open_cache is not None else None
                    self._encoder = self._open_encoder()
        return self._encoder

    def keyspace(self, role: Role) -> KeySpace:
        """Name what decides a vector besides its text: for queries, the very adapter that maps them too."""
        encoder = self.encoder
        build = base_build(encoder.build)
        if role == "query" and encoder.adapter is not None:
            build += f"+{encoder.adapter.build}"
        return KeySpace(encoder.space, build, role)

    async def akeyspace(self, role: Role) -> KeySpace:
        """Like `keyspace`; opens the encoder, if it must, in a worker thread."""
        return self.keyspace(role) if self._encoder is not None else await self.arun(self.keyspace, role)

    def encode(self, role: Role, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Return one unit row for each text, (n, dimension) float32. `progress` counts texts, duplicates too."""
        if not texts:
            return np.empty((0, self.encoder.dimension), np.float32)
        position = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        unique = list(position)
        if progress and len(unique) < len(texts):
            progress(len(texts) - len(unique))
        vectors = (self._compute if self._open_cache is None else self._cached)(role, unique, progress)
        return vectors if len(unique) == len(texts) else vectors[[position[text] for text in texts]]

    def encode_one(self, role: Role, text: str) -> Row:
        """Return the vector of one text, (dimension,). Concurrent callers share batches."""
        check_texts([text])
        return self._singles[role].encode(text)

    async def arun(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call `work` in a worker thread, when one is free, and wait for it without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, partial(work, *arguments, **options))

    async def aencode(self, role: Role, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Like `encode`, in one of the worker threads."""
        return await self.arun(self.encode, role, texts, progress)

    async def aencode_one(self, role: Role, text: str) -> Row:
        """Like `encode_one`, in the thread that serves the queue."""
        check_texts([text])
        return await self._singles[role].aencode(text)

    def _compute(self, role: Role, texts: list[str], progress: Progress | None) -> Vectors:
        encoder = self.encoder
        encode = encoder.encode_queries if role == "query" else encoder.encode_passages
        return encode(texts, progress=progress)

    def _cached(self, role: Role, texts: list[str], progress: Progress | None) -> Vectors:
        """Look up, compute what is missing in slabs, and store each slab at once: a crash loses one slab at most."""
        keyspace, dimension, cache = self.keyspace(role), self.encoder.dimension, self._cache
        assert cache is not None  # opened with the encoder
        keys = {text: keyspace.key(text) for text in texts}
        known = cache.get(list(keys.values()))
        if wrong := {row.size for row in known.values()} - {dimension}:
            raise CacheError(
                f"vector cache {cache.path} holds vectors of {wrong.pop()}, expected {dimension}: delete it"
            )
        missing = [text for text in texts if keys[text] not in known]
        if progress and known:
            progress(len(known))
        for start in range(0, len(missing), SLAB):
            slab = missing[start : start + SLAB]
            fresh = {keys[text]: row for text, row in zip(slab, self._compute(role, slab, progress))}
            cache.put(fresh)
            known.update(fresh)
        return np.stack([known[keys[text]] for text in texts])


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
