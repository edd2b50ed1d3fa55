"""Texts -> lists of floats, and nodes -> nodes with an embedding: LlamaIndex's `BaseEmbedding` over our encoders.

Guarantees: queries and passages each get their own prompt, and no cache confuses them; a bad text fails before it is
reported, looked up or computed; `from_dict(to_dict())`, pickling and spawned workers give the same vectors or an
error; the identity Fields (`space`, `build`, `dimension`) make LlamaIndex's ingestion cache notice another model,
precision, pooling, prompt or dimension. Does not know: how vectors are computed and shared among callers (`service`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, Unpack

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.utils import get_tokenizer
from llama_index_instrumentation import get_dispatcher
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import CheckedTexts, OnMismatch, TextEncoder, check_texts
from llama_index_embed_plus.errors import ModelError
from llama_index_embed_plus.models.spec import LongText
from llama_index_embed_plus.serving.cache import Role, StoreCache, VectorCache
from llama_index_embed_plus.serving.fields import EmbeddingFields, refuse_unknown
from llama_index_embed_plus.serving.identity import (
    DEFAULT_MODEL,
    StaleNode,
    base_build,
    model_arguments,
    resolve_fields,
    set_embeddings,
    stale_nodes,
)
from llama_index_embed_plus.serving.overlong import announce_overlong
from llama_index_embed_plus.serving.provenance import Maker, remember
from llama_index_embed_plus.serving.service import EncoderService
from qdrant_tools.client.forks import renew_in_children, undivided
from qdrant_tools.records import Progress

dispatcher = get_dispatcher(__name__)
logger = logging.getLogger(__name__)

T = TypeVar("T")


def _fixed(default: Any, description: str) -> Any:
    """Return a Field that is part of what the embedding is. To change it, make another embedding."""
    return Field(default=default, description=description, frozen=True)


class PlusEmbedding(BaseEmbedding):
    """An embedding for `Settings.embed_model`, `VectorStoreIndex` and `IngestionPipeline`.

    `PlusEmbedding("all-MiniLM-L6-v2")`, or a folder. Every Field below is a keyword argument. An unknown model is an
    error at once; the model is opened, with torch or onnxruntime, at the first text. Fields that are left out take the
    values of the model's own files: pooling, prompts and so on. `space`, `build` and `dimension` come from there, too.
    If they are given, as `from_dict` and unpickling do, a model that no longer has this space raises `ModelError`.

    There are two caches with the same keys, made of space, build, role and text: `vector_cache`, a SQLite file of ours,
    and `embeddings_cache`, any LlamaIndex key-value store. `rate_limiter` is acquired once per `embed_batch_size` texts
    to be computed; the encoder's own batches follow the lengths of texts. `num_workers` limits how many asynchronous
    bulk calls are computed at a time (default 2). Single calls share batches instead.
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
    late: bool | None = _fixed(None, "True: for queries to a collection with late chunking; texts alone are refused.")

    space: str = _fixed("", "Identity of the vector space, name@12hex.")
    # not fixed: the model may be opened as another build here, see _open
    build: str = Field(default="", description="How the numbers are computed, such as onnx-int8.")
    dimension: int = _fixed(0, "Length of a vector.")

    _service: EncoderService | None = PrivateAttr(default=None)
    _opening: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, model: str | Path | None = None, **fields: Unpack[EmbeddingFields]) -> None:
        refuse_unknown(fields, type(self).model_fields)
        super().__init__(**resolve_fields(model, fields))
        renew_in_children(self, PlusEmbedding._renew)

    @classmethod
    def class_name(cls) -> str:
        return "PlusEmbedding"

    def to_payload(self) -> dict[str, Any]:
        """Return what events and callbacks show of this embedding. It holds no credentials."""
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

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Embed queries and make one vector of them: their mean, or what `agg_fn` makes of the list."""
        embedding = super().get_agg_embedding_from_queries(queries, agg_fn)
        remember([embedding], self._maker("query"))
        return embedding

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Embed queries and make one vector of them: their mean, or what `agg_fn` makes of the list."""
        embedding = await super().aget_agg_embedding_from_queries(queries, agg_fn)
        remember([embedding], self._maker("query"))
        return embedding

    # The hooks that the base class demands: the same vectors without events, limits and `embeddings_cache`.

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._served().encode("query", [query])[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._served().aencode("query", [query]))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._served().encode("passage", [text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._served().aencode("passage", [text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._served().encode("passage", texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._served().aencode("passage", texts)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Give every node an embedding; nodes that have one of this space for their current text keep it."""
        stale = self._stale(nodes)
        set_embeddings(stale, self.get_text_embedding_batch([node.text for node in stale], **kwargs))
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Give every node an embedding; nodes that have one of this space for their current text keep it."""
        # hashing the texts of many nodes would hold up the event loop
        stale = await asyncio.to_thread(self._stale, nodes)
        embeddings = await self.aget_text_embedding_batch([node.text for node in stale], **kwargs)
        await asyncio.to_thread(set_embeddings, stale, embeddings)
        return nodes

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the Fields. The encoder is opened anew, and what `to_dict` leaves out belongs to this process."""
        fields = {name: getattr(self, name) for name, info in type(self).model_fields.items() if not info.exclude}
        return _rebuild, (type(self), fields)

    def __copy__(self) -> Any:
        # a copy stays in this process: it shares caches and callbacks, and opens its own encoder
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        return self.__copy__()

    @property
    def encoder(self) -> TextEncoder:
        """The encoder behind this embedding, opened if it was not yet."""
        return self._served().encoder

    def _served(self) -> EncoderService:
        with self._opening:
            if self._service is None:
                open_cache = partial(VectorCache, self.vector_cache) if self.vector_cache else None
                self._service = EncoderService(self._open, open_cache=open_cache, workers=self.num_workers)
            return self._service

    def _renew(self) -> None:
        self._opening = threading.Lock()  # the service renews itself

    def _open(self) -> TextEncoder:
        encoder = open_encoder(self.model, device=self.device, **model_arguments(self.__dict__))
        if encoder.space != self.space:
            raise ModelError(
                f"model {self.model} is now of space {encoder.space}, this embedding was made for {self.space}: "
                "make it anew without space=, and embed the stored passages again"
            )
        encoder.announce = partial(announce_overlong, encoder, get_tokenizer)
        if (build := base_build(encoder.build)) != self.build:
            logger.warning("%s is computed by build %s instead of %s", self.model, build, self.build)
            self.build = build  # builds of one space are interchangeable within the parity bound
        return encoder

    def _embed(self, role: Role, texts: Sequence[str], show_progress: bool = False) -> list[Embedding]:
        return _run(self._embed_with(_call, role, check_texts(texts), show_progress))

    async def _aembed(self, role: Role, texts: Sequence[str], show_progress: bool = False) -> list[Embedding]:
        # one text is checked sooner than a thread is reached
        checked = check_texts(texts) if len(texts) == 1 else await asyncio.to_thread(check_texts, texts)
        return await self._embed_with(_await, role, checked, show_progress)

    async def _embed_with(self, call: _Caller, role: Role, texts: CheckedTexts, show_progress: bool) -> list[Embedding]:
        """Embed texts, synchronously or not: `call` takes a method and its asynchronous twin, and calls one of them."""
        if not texts:
            return []
        with self._observed(texts) as embeddings:
            # An empty store counts as false, so only None means that there is none.
            compute = self._compute if self.embeddings_cache is None else self._look_up
            embeddings += await compute(call, role, texts, show_progress)
        remember(embeddings, self._maker(role))
        return embeddings

    def _maker(self, role: Role) -> Maker:
        adapter = self.encoder.adapter if role == "query" else None
        return Maker(self.space, "" if adapter is None else adapter.build)

    async def _look_up(self, call: _Caller, role: Role, texts: CheckedTexts, show_progress: bool) -> list[Embedding]:
        """Take what `embeddings_cache` has, compute the rest and store it."""
        store: Any = self.embeddings_cache
        cache, service = StoreCache(store), self._served()
        keyspace = await call(service.keyspace, service.akeyspace, role)
        keys = list(map(keyspace.key, texts))
        stored = await call(cache.get, cache.aget, dict.fromkeys(keys))
        missing = {key: text for key, text in zip(keys, texts) if key not in stored}
        computed = await self._compute(call, role, CheckedTexts(missing.values()), show_progress)
        fresh = dict(zip(missing, computed))
        await call(cache.put, cache.aput, fresh)
        stored |= fresh
        return [list(stored[key]) for key in keys]  # equal texts get lists of their own

    async def _compute(self, call: _Caller, role: Role, texts: CheckedTexts, show_progress: bool) -> list[Embedding]:
        service, limiter = self._served(), self.rate_limiter
        if limiter is not None:
            # Equal texts are computed once, so they count once.
            for _ in range(math.ceil(len(set(texts)) / self.embed_batch_size)):
                await call(limiter.acquire, limiter.async_acquire)
        with _progress_bar(len(texts), show_progress) as progress:
            return await call(service.encode, service.aencode, role, texts, progress)

    @contextmanager
    def _observed(self, texts: Sequence[str]) -> Iterator[list[Embedding]]:
        """Report one call to LlamaIndex's instrumentation and callbacks. The caller fills in the embeddings."""
        payload = self.to_payload()
        chunks = list(texts)
        embeddings: list[Embedding] = []
        with undivided():  # pydantic has a lock at the first event of a process
            started = EmbeddingStartEvent(model_dict=payload)
        dispatcher.event(started)
        start: dict[str, Any] = {EventPayload.SERIALIZED: payload}
        with self.callback_manager.event(CBEventType.EMBEDDING, payload=start) as event:
            yield embeddings
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: embeddings})
        end = EmbeddingEndEvent(chunks=chunks, embeddings=[])
        end.embeddings = embeddings  # the constructor would copy every vector
        dispatcher.event(end)

    def _stale(self, nodes: Sequence[BaseNode]) -> list[StaleNode]:
        return stale_nodes(nodes, (node.get_content(MetadataMode.EMBED) for node in nodes), self.space)


def _rebuild(kind: type[PlusEmbedding], fields: dict[str, Any]) -> PlusEmbedding:
    return kind(**fields)


class _Caller(Protocol):
    """Calls a blocking function, or awaits its twin."""

    async def __call__(
        self, function: Callable[..., T], twin: Callable[..., Awaitable[T]], /, *arguments: Any
    ) -> T: ...


async def _call(function: Callable[..., T], twin: Callable[..., Awaitable[T]], /, *arguments: Any) -> T:
    return function(*arguments)


async def _await(function: Callable[..., T], twin: Callable[..., Awaitable[T]], /, *arguments: Any) -> T:
    return await twin(*arguments)


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that only awaits `_call`. It never suspends, so it needs no event loop and ends at once."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    raise RuntimeError("a blocking call was suspended")


@contextmanager
def _progress_bar(total: int, show: bool) -> Iterator[Progress | None]:
    if not show:
        yield None
        return
    with tqdm(total=total, desc="Generating embeddings") as bar:
        yield bar.update
