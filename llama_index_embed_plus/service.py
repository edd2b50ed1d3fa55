"""An encoder that is opened when first needed, behind a cache and a queue: what a server or a pipeline asks.

Guarantees: the encoder is opened once, whoever asks first; equal texts in one call are computed once; vectors come
back in input order; single texts from concurrent callers share batches; asynchronous callers never block their
event loop and at most `workers` of their bulk calls run at a time. Does not know: LlamaIndex, files of models.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np

from llama_index_embed_plus.cache import KeySpace, Role, VectorCache
from llama_index_embed_plus.coalesce import Coalescer, Row
from llama_index_embed_plus.encoders.text_encoder import TextEncoder, check_texts
from llama_index_embed_plus.errors import CacheError
from llama_index_embed_plus.identity import base_build
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
