"""Texts of many callers -> vectors: an encoder that is opened when first needed, behind a queue and a cache.

Single texts of concurrent callers share batches (`Coalescer`); longer lists are computed in slabs, each stored in the
cache at once.

Guarantees: the encoder is opened once, whoever asks first; vectors are in the order of the texts; a bad text fails
before anything is computed or stored; an event loop is never blocked, and at most `workers` of its bulk calls are
computed at a time; safe from any number of threads and event loops, and in a forked child. Does not know: LlamaIndex,
files of models.
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

from llama_index_embed_plus.encoders.text_encoder import CheckedTexts, TextEncoder, check_texts
from llama_index_embed_plus.errors import CacheError
from llama_index_embed_plus.serving.cache import KeySpace, Role, VectorCache
from llama_index_embed_plus.serving.identity import base_build
from qdrant_tools.client.forks import renew_in_children, undivided
from qdrant_tools.records import Progress, Vectors

SLAB = 4096  # texts computed between two writes to the cache; sorting more of them by length gains nothing
DEFAULT_WORKERS = 2  # a small bulk call can overtake a large one; the encoder itself uses every core
WINDOW_SECONDS = 0.005  # how long single texts wait for the company of the batch before
MAX_BATCH = 512  # single texts computed at once

P = ParamSpec("P")
T = TypeVar("T")
Row = NDArray[np.float32]


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
        self._most_workers = workers or DEFAULT_WORKERS
        self._make_threads()
        renew_in_children(self, EncoderService._make_threads)

    def _make_threads(self) -> None:
        self._opening = threading.Lock()
        self._singles = {role: Coalescer(partial(self._encode_singles, role)) for role in ("query", "passage")}
        self._workers = ThreadPoolExecutor(self._most_workers, thread_name_prefix="embed-plus-bulk")

    @property
    def encoder(self) -> TextEncoder:
        """The encoder, opened if it was not yet."""
        if self._encoder is None:
            with self._opening:
                if self._encoder is None:  # still: another thread may have opened it while this one waited
                    # the cache first: a wrong path fails before a model is loaded
                    self._cache = self._open_cache() if self._open_cache is not None else None
                    # a child that is forked while a library is imported would wait for that for ever
                    with undivided():
                        # the encoder last: the check outside the lock reads it
                        self._encoder = self._open_encoder()
        return self._encoder

    def keyspace(self, role: Role) -> KeySpace:
        """Return what decides a vector besides its text. For queries that includes the adapter that maps them."""
        encoder = self.encoder
        build = base_build(encoder.build)
        if role == "query" and encoder.adapter is not None:
            build += f"+{encoder.adapter.build}"
        return KeySpace(encoder.space, build, role)

    async def akeyspace(self, role: Role) -> KeySpace:
        """Like `keyspace`. If the encoder must be opened, a worker thread does it."""
        return self.keyspace(role) if self._encoder is not None else await self._in_worker(self.keyspace, role)

    def encode(self, role: Role, texts: Sequence[str], progress: Progress | None = None) -> list[list[float]]:
        """Return one unit vector for each text. A single text shares a batch with those of concurrent callers.

        Raises:
            TextError: A text cannot be embedded.
            CacheError: The cache cannot be used.
        """
        texts = check_texts(texts)
        if len(texts) != 1:
            return self._encode_lists(role, texts, progress)
        return _single(self._singles[role].encode(texts[0]), progress)

    async def aencode(self, role: Role, texts: Sequence[str], progress: Progress | None = None) -> list[list[float]]:
        """Like `encode`, in a worker thread."""
        if len(texts) != 1:
            return await self._in_worker(self._encode_lists, role, texts, progress)
        (text,) = check_texts(texts)
        return _single(await self._singles[role].aencode(text), progress)

    async def _in_worker(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._workers, partial(work, *arguments, **options))

    def _encode_lists(self, role: Role, texts: Sequence[str], progress: Progress | None) -> list[list[float]]:
        if not texts:
            return []
        # Row by row, so that other threads, an event loop's among them, get a turn.
        return [row.tolist() for row in self._encode(role, check_texts(texts), progress)]

    def _encode_singles(self, role: Role, texts: list[str]) -> Vectors:
        return self._encode(role, CheckedTexts(texts), None)

    def _encode(self, role: Role, texts: CheckedTexts, progress: Progress | None) -> Vectors:
        encoder = self.encoder
        if self._cache is None:
            return _compute(encoder, role, texts, progress)
        keys = list(map(self.keyspace(role).key, texts))
        stored = self._cache.get(list(dict.fromkeys(keys)))
        if wrong := {row.size for row in stored.values()} - {encoder.dimension}:
            raise CacheError(
                f"vector cache {self._cache.path} holds vectors of {wrong.pop()}, expected {encoder.dimension}: "
                "delete it"
            )
        missing = {key: text for key, text in zip(keys, texts) if key not in stored}
        if progress and len(missing) < len(texts):
            progress(len(texts) - len(missing))
        # Every slab is stored at once: a crash loses one slab at most.
        items = list(missing.items())
        for start in range(0, len(items), SLAB):
            slab = dict(items[start : start + SLAB])
            rows = dict(zip(slab, _compute(encoder, role, CheckedTexts(slab.values()), progress)))
            self._cache.put(rows)
            stored |= rows
        return np.stack([stored[key] for key in keys])


def _compute(encoder: TextEncoder, role: Role, texts: CheckedTexts, progress: Progress | None) -> Vectors:
    encode = encoder.encode_queries if role == "query" else encoder.encode_passages
    return encode(texts, progress=progress)


def _single(row: Row, progress: Progress | None) -> list[list[float]]:
    if progress:
        progress(1)
    return [row.tolist()]


class _Request(NamedTuple):
    """A text and the future for its row, which belongs to a thread (`loop` is None) or to an event loop."""

    text: str
    future: Future[Row] | asyncio.Future[Row]
    loop: asyncio.AbstractEventLoop | None


_Answer = tuple[_Request, "Row | BaseException"]


class Coalescer:
    """Answers single texts through `encode`, which takes a list of texts and returns one row for each.

    A lone caller computes in its own thread and waits for nobody. A caller who comes during a computation queues, and
    everything queued becomes the next batch. After a shared batch the worker waits up to `WINDOW_SECONDS` for as many
    callers as there were last time, because callers in a loop come back together.

    An error reaches only the callers whose text caused it.
    """

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
        """Queue a request. Return whether nobody was computing; then, with `unless_idle`, it is not queued."""
        with self._changed:
            idle, self._busy = not self._busy, True
            if not (idle and unless_idle):
                self._waiting.append(request)
                self._changed.notify()
            return idle

    def _hand_over(self) -> None:
        """Leave the queue to the worker. If nobody waits, the next caller will compute itself."""
        with self._changed:
            self._busy = bool(self._waiting)
            if not self._busy:
                return
        self._worker.submit(self._drain)

    def _drain(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)

    def _next_batch(self) -> list[_Request]:
        """Take what is queued, after a short wait for as many callers as last time. An empty list ends the drain."""
        with self._changed:
            if self._last_size > 1:
                self._changed.wait_for(lambda: len(self._waiting) >= self._last_size, WINDOW_SECONDS)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            self._last_size = len(batch)
            # under the same lock as the queue: who comes later is seen by the next round, or finds nobody busy
            self._busy = bool(batch)
            return batch

    def _answer(self, batch: list[_Request]) -> None:
        waiting = [request for request in batch if not request.future.cancelled()]
        if not waiting:
            return
        try:
            rows = self._encode([request.text for request in waiting])
        except BaseException as error:  # forwarded: a caller must never wait for an answer that cannot come
            _deliver([(waiting[0], error)] if len(waiting) == 1 else [self._alone(request) for request in waiting])
            return
        _deliver(list(zip(waiting, rows, strict=True)))

    def _alone(self, request: _Request) -> _Answer:
        """Compute a text of a failed batch alone, to find out whose text was the cause."""
        try:
            return request, self._encode([request.text])[0]
        except BaseException as error:  # forwarded to the caller whose text it is
            return request, error


def _deliver(answers: list[_Answer]) -> None:
    """Hand over the answers. Each event loop is woken once, with all answers for it."""
    # A future of asyncio may be set only by the thread of its loop.
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for request, answer in answers:
        if request.loop is None:
            _resolve([(request, answer)])
        else:
            by_loop.setdefault(request.loop, []).append((request, answer))
    for loop, loop_answers in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed, so nobody waits there any more
            loop.call_soon_threadsafe(_resolve, loop_answers)


def _resolve(answers: list[_Answer]) -> None:
    for request, answer in answers:
        if request.future.done():  # the caller gave up
            continue
        if isinstance(answer, BaseException):
            request.future.set_exception(answer)
        else:
            request.future.set_result(answer)
