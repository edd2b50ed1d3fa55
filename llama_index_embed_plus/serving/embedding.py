"""LlamaIndex's `BaseEmbedding` over one of our encoders: its whole contract, and none of its base's surprises.

What it turns into what: texts -> lists of floats, nodes -> nodes that carry an embedding. Guarantees: queries and
passages each get their own prompt and are never exchanged by a cache; texts are sorted by length over everything
passed; a bad text fails at once; `from_dict(to_dict())`, pickling and spawned workers give the same vectors or an
error, never others; the identity Fields (`space`, `build`, `dimension`) make LlamaIndex's ingestion cache notice
another model, precision, pooling, prompt or dimension. The only module that knows LlamaIndex besides `events`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index_instrumentation import get_dispatcher
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import OnMismatch, TextEncoder, check_texts
from llama_index_embed_plus.errors import ModelError
from llama_index_embed_plus.models.spec import LongText
from llama_index_embed_plus.serving.cache import KeySpace, Known, Role, StoreCache, VectorCache
from llama_index_embed_plus.serving.identity import (
    DEFAULT_MODEL,
    Stale,
    attach,
    base_build,
    overrides_of,
    runtime_of,
    settle,
    stale_nodes,
)
from llama_index_embed_plus.serving.service import EncoderService
from qdrant_tools.records import Progress

dispatcher = get_dispatcher(__name__)
logger = logging.getLogger(__name__)


def _fixed(default: Any, description: str) -> Any:
    """A Field that is part of what the embedding is: to change it, make another embedding."""
    return Field(default=default, description=description, frozen=True)


class PlusEmbedding(BaseEmbedding):
    """An embedding for `Settings.embed_model`, `VectorStoreIndex` and `IngestionPipeline`.

    `PlusEmbedding("all-MiniLM-L6-v2")`, or a folder; every Field below is a keyword argument. An unknown model is an
    error at once; opening it (torch or onnxruntime) waits for the first text. Fields left out show what the model's
    own files say: pooling, prompts and so on. `space`, `build` and `dimension` are found out too; when they are
    given, as `from_dict` and unpickling do, a model that no longer has this space raises `ModelError`.

    Two caches, both keyed by space, build, role and text: `vector_cache`, a SQLite file of ours, and
    `embeddings_cache`, any LlamaIndex key-value store. `embed_batch_size` counts the texts per acquisition of
    `rate_limiter`; the encoder's own batches follow the texts' lengths. `num_workers` limits how many asynchronous
    bulk calls are computed at a time (default 2); single calls share batches instead.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = _fixed(DEFAULT_MODEL, "Folder or name of the model.")
    backend: BackendName = _fixed("auto", "auto takes an artifact's best build; or torch, onnx, onnx-fp32, onnx-int8.")
    device: str | None = _fixed(None, "Where torch computes; None chooses.")
    revision: str | None = _fixed(None, "Revision of a model from the hub.")
    cache_folder: str | None = _fixed(None, "Where models from the hub are kept.")
    trust_remote_code: bool = _fixed(False, "Run code that lies in the model's own repository.")
    threads: int | None = _fixed(None, "Cores an ONNX build may use; None: all.")
    batch_tokens: int | None = _fixed(None, "Padded tokens per batch; None: what suits the backend.")
    on_mismatch: OnMismatch = _fixed("fallback", "When a build gives other vectors here: fallback to fp32, or error.")
    vector_cache: str | None = _fixed(None, "SQLite file that keeps vectors across runs.")
    num_workers: int | None = _fixed(None, "Asynchronous bulk calls computed at a time.")

    pooling: str | tuple[str, ...] | None = _fixed(None, "How token states become one vector.")
    include_prompt: bool | None = _fixed(None, "False: the prompt is read, but left out of the pooling.")
    query_prompt: str | None = _fixed(None, "What precedes every query.")
    passage_prompt: str | None = _fixed(None, "What precedes every passage.")
    normalize: bool | None = _fixed(None, "True: vectors have unit length.")
    max_tokens: int | None = _fixed(None, "Longest token sequence the model is given.")
    long_text: LongText | None = _fixed(None, "A longer text is cut (truncate), averaged (mean) or refused (error).")
    truncate_dim: int | None = _fixed(None, "Keep only the first components of a vector.")

    space: str = _fixed("", "Identity of the vector space, name@12hex.")
    build: str = Field(default="", description="How the numbers are computed, such as onnx-int8.")
    dimension: int = _fixed(0, "Length of a vector.")

    _service: EncoderService | None = PrivateAttr(default=None)
    _process: int = PrivateAttr(default=0)
    _opening: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, model: str | Path | None = None, **fields: Any) -> None:
        super().__init__(**settle(model, fields))

    @classmethod
    def class_name(cls) -> str:
        return "PlusEmbedding"

    def to_payload(self) -> dict[str, Any]:
        """What events and callbacks show of this embedding. No credentials are known here."""
        return {**super().to_payload(), "space": self.space, "build": self.build, "dimension": self.dimension}

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed one query. Concurrent callers share batches."""
        return self._embed("query", [query])[0]

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed one query. Concurrent callers share batches."""
        return (await self._aembed("query", [query]))[0]

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed one passage. Concurrent callers share batches."""
        return self._embed("passage", [text])[0]

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed one passage. Concurrent callers share batches."""
        return (await self._aembed("passage", [text]))[0]

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> list[Embedding]:
        """Embed passages, in input order. One start and one end event cover the whole call."""
        return self._embed("passage", texts, show_progress=show_progress)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed passages, in input order. One start and one end event cover the whole call."""
        return await self._aembed("passage", texts, show_progress=show_progress)

    # The hooks that the base class demands: the same vectors without events, limits and `embeddings_cache`.

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._compute("query", [query])[query]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._acompute("query", [query]))[query]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._compute("passage", [text])[text]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._acompute("passage", [text]))[text]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        known = self._compute("passage", texts)
        return [known[text] for text in texts]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        known = await self._acompute("passage", texts)
        return [known[text] for text in texts]

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Give every node an embedding; nodes that carry one of this space for their present text keep it."""
        stale = self._stale(nodes)
        attach(stale, self.get_text_embedding_batch([each.text for each in stale], **kwargs))
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Give every node an embedding; nodes that carry one of this space for their present text keep it."""
        stale = await asyncio.to_thread(self._stale, nodes)
        embeddings = await self.aget_text_embedding_batch([each.text for each in stale], **kwargs)
        await asyncio.to_thread(attach, stale, embeddings)
        return nodes

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the Fields; the encoder is opened anew. What `to_dict` leaves out belongs to this process."""
        fields = {name: getattr(self, name) for name, info in type(self).model_fields.items() if not info.exclude}
        return _rebuild, (type(self), fields)

    def __copy__(self) -> Any:
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        return self.__copy__()

    def _served(self) -> EncoderService:
        with self._opening:
            if self._service is None or self._process != os.getpid():  # threads and sessions do not survive a fork
                open_cache = partial(VectorCache, self.vector_cache) if self.vector_cache else None
                self._service = EncoderService(self._open, open_cache=open_cache, workers=self.num_workers)
                self._process = os.getpid()
            return self._service

    def _open(self) -> TextEncoder:
        encoder = open_encoder(
            self.model,
            backend=self.backend,
            device=self.device,
            revision=self.revision,
            cache_folder=self.cache_folder,
            overrides=overrides_of(self.__dict__),
            runtime=runtime_of(self.__dict__),
        )
        if encoder.space != self.space:
            raise ModelError(
                f"model {self.model} is now of space {encoder.space}, this embedding was made for {self.space}: "
                "make it anew without space=, and embed the stored passages again"
            )
        if (build := base_build(encoder.build)) != self.build:
            logger.warning("%s is computed by build %s instead of %s", self.model, build, self.build)
            self.build = build  # of one space, so interchangeable within the parity bound
        return encoder

    def _embed(self, role: Role, texts: Sequence[str], show_progress: bool = False) -> list[Embedding]:
        check_texts(texts)
        if not texts:
            return []
        with self._observed(texts) as embeddings:
            store = self._store(self._served().keyspace(role)) if self._has_store else None
            known = store.get(texts) if store else {}
            missing = [text for text in dict.fromkeys(texts) if text not in known]
            for limiter in self._turns(missing):
                limiter.acquire()
            with _progress_bar(len(missing), show_progress) as progress:
                fresh = self._compute(role, missing, progress)
            if store:
                store.put(fresh)
            known |= fresh
            embeddings += _in_order(known, texts)
        return embeddings

    async def _aembed(self, role: Role, texts: Sequence[str], show_progress: bool = False) -> list[Embedding]:
        check_texts(texts) if len(texts) == 1 else await asyncio.to_thread(check_texts, texts)
        if not texts:
            return []
        with self._observed(texts) as embeddings:
            store = self._store(await self._served().akeyspace(role)) if self._has_store else None
            known = await store.aget(texts) if store else {}
            missing = [text for text in dict.fromkeys(texts) if text not in known]
            for limiter in self._turns(missing):
                await limiter.async_acquire()
            with _progress_bar(len(missing), show_progress) as progress:
                fresh = await self._acompute(role, missing, progress)
            if store:
                await store.aput(fresh)
            known |= fresh
            embeddings += _in_order(known, texts)
        return embeddings

    def _compute(self, role: Role, texts: list[str], progress: Progress | None = None) -> Known:
        service = self._served()
        if len(texts) == 1:
            return {texts[0]: service.encode_one(role, texts[0]).tolist()}
        # Row by row, so that other threads, an event loop's among them, get a turn.
        return {text: row.tolist() for text, row in zip(texts, service.encode(role, texts, progress))} if texts else {}

    async def _acompute(self, role: Role, texts: list[str], progress: Progress | None = None) -> Known:
        service = self._served()
        if len(texts) == 1:
            return {texts[0]: (await service.aencode_one(role, texts[0])).tolist()}
        return await service.arun(self._compute, role, texts, progress)

    def _store(self, keyspace: KeySpace) -> StoreCache:
        store: Any = self.embeddings_cache
        return StoreCache(store, keyspace)

    @property
    def _has_store(self) -> bool:
        return self.embeddings_cache is not None  # an empty store may well be false

    def _turns(self, missing: list[str]) -> list[Any]:
        """Name the rate limiter as often as it must be asked: once per `embed_batch_size` texts to be computed."""
        return [self.rate_limiter] * math.ceil(len(missing) / self.embed_batch_size) if self.rate_limiter else []

    @contextmanager
    def _observed(self, texts: Sequence[str]) -> Iterator[list[Embedding]]:
        """Report one call to LlamaIndex's instrumentation and callbacks; the caller fills in the embeddings."""
        payload = self.to_payload()
        chunks = list(texts)
        embeddings: list[Embedding] = []
        dispatcher.event(EmbeddingStartEvent(model_dict=payload))
        start: dict[str, Any] = {EventPayload.SERIALIZED: payload}
        with self.callback_manager.event(CBEventType.EMBEDDING, payload=start) as event:
            yield embeddings
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: embeddings})
        end = EmbeddingEndEvent(chunks=chunks, embeddings=[])
        end.embeddings = embeddings  # not through the constructor, which copies every vector
        dispatcher.event(end)

    def _stale(self, nodes: Sequence[BaseNode]) -> list[Stale]:
        return stale_nodes(nodes, (node.get_content(MetadataMode.EMBED) for node in nodes), self.space)


def _rebuild(kind: type[PlusEmbedding], fields: dict[str, Any]) -> PlusEmbedding:
    return kind(**fields)


def _in_order(known: Known, texts: Sequence[str]) -> list[Embedding]:
    """Return one list per text; equal texts get lists of their own."""
    distinct = len(known) == len(texts)
    return [known[text] if distinct else list(known[text]) for text in texts]


@contextmanager
def _progress_bar(total: int, wanted: bool) -> Iterator[Progress | None]:
    if not wanted:
        yield None
        return
    with tqdm(total=total, desc="Generating embeddings") as bar:
        yield bar.update
