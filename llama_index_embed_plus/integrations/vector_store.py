"""A collection -> a vector store of LlamaIndex over it, which refuses the vectors of another model.

Guarantees: a search finds what the collection's own search finds, with its settings, its words and its adapter; nodes
are written when `add` returns, under the ids they have, so that adding them again changes nothing; asynchronous methods
use the same engine. Does not know: how nodes are stored (`nodes`), how vectors are checked (`guard`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Never

import numpy as np
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from qdrant_client import QdrantClient, models

from llama_index_embed_plus.integrations.filters import filter_keys, metadata_filter
from llama_index_embed_plus.integrations.guard import GivenQuery, check_passages, query_vector, refuse_length
from llama_index_embed_plus.integrations.nodes import (
    REF_DOC_ID,
    beside_passage,
    checked_nodes,
    embedded_text,
    ids_of,
    llamaindex_payload,
    llamaindex_point_id,
    node_of,
    passage_of_node,
    refuse_foreign_layout,
)
from llama_index_embed_plus.integrations.options import (
    BY_BOTH,
    BY_WORDS,
    DIVERSITY,
    QUERY_OPTIONS,
    mode_of,
    refuse_options,
    search_options,
    share,
)
from llama_index_embed_plus.serving.embedding import PlusEmbedding
from qdrant_tools.client.connect import connect, engine_of
from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import LLAMA_INDEX, OURS
from qdrant_tools.collections.points import fetch
from qdrant_tools.collections.retirement import refuse_retired
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import CollectionNotFoundError, InputError, NotSupportedError, UsageError, brief
from qdrant_tools.indexing import store_embedded
from qdrant_tools.records import Encoder, Hit, Vectors
from qdrant_tools.search.around import DOCUMENT
from qdrant_tools.search.bm25 import VECTOR, Bm25
from qdrant_tools.search.choosing import keep_search
from qdrant_tools.search.dense import search_vectors
from qdrant_tools.search.fusion import USUAL, Fusion
from qdrant_tools.search.hybrid import search_hybrid, search_lexical
from qdrant_tools.search.options import occurs, refuse_paths
from qdrant_tools.validation import checked_text, checked_vectors

logger = logging.getLogger(__name__)

PAGE = 256
"""Nodes that are read or written at once."""


class PlusVectorStore(BasePydanticVectorStore):
    """LlamaIndex's vector store over a collection that knows its encoder.

    `PlusVectorStore(collection)`, for a collection that was opened with an encoder; or `from_location`, which opens or
    makes it. `VectorStoreIndex`, retrievers and `IngestionPipeline` read and write through it. Every vector is checked
    to be of the collection's space. Nodes without an embedding get the encoder's.

    Modes of a query: dense (default), `sparse` and `text_search` by words (BM25), `hybrid` and `semantic_hybrid` by
    both, where `alpha` weighs them (1 is dense alone), and `mmr` for diverse hits (`mmr_threshold`; 1 is the nearest).
    The methods for words need a collection with `CollectionSettings(lexical=Bm25())`, as `from_location` makes it.

    Raises:
        UsageError: the collection was opened without an encoder.
    """

    stores_text: bool = True
    collection_name: str = Field(description="The collection's own name.")
    space: str = Field(description="The vector space of what it holds, name@12hex.")

    _collection: Collection = PrivateAttr()
    _one_at_a_time: AbstractContextManager[Any] = PrivateAttr()
    _said_large: bool = PrivateAttr(default=False)

    def __init__(self, collection: Collection | None = None, **others: Never) -> None:
        if others or not isinstance(collection, Collection):
            # who moves from LlamaIndex's own store names a client and a collection
            problem = f"no option {brief(next(iter(others)))}" if others else f"collection is {brief(collection)}"
            raise UsageError(
                f"{problem}, expected one collection that CollectionManager(client).ensure(name, encoder) opened; "
                "PlusVectorStore.from_location(location, name, embedding) opens one too"
            )
        collection.check(collection.required_encoder())
        fields: dict[str, Any] = {"collection_name": collection.name, "space": collection.space}
        super().__init__(stores_text=True, **fields)
        self._collection = collection
        # the engine of ":memory:" is not made for several threads
        self._one_at_a_time = Lock() if engine_of(collection.client) == "memory" else nullcontext()

    @classmethod
    def from_location(
        cls,
        location: str | Path,
        name: str,
        embedding: PlusEmbedding | Encoder,
        *,
        settings: CollectionSettings | None = None,
        **options: Any,
    ) -> PlusVectorStore:
        """Open the collection `name` in a folder, on a server or in ":memory:", or make it, for this embedding.

        A new collection gets `settings`, by default with words for hybrid search (BM25) and an index of documents, so
        that deleting one looks at no other. `options` are those of
        `connect`: api_key, timeout, prefer_grpc, create, readers. Close the store to free the folder for others.

        Raises:
            SpaceMismatchError: another model filled the collection.
            PlusError: as `connect` and `CollectionManager.ensure` raise it.
        """
        encoder = embedding.encoder if isinstance(embedding, PlusEmbedding) else embedding
        if not hasattr(encoder, "space"):
            raise UsageError(
                f"embedding is {brief(embedding)}, expected a PlusEmbedding, such as "
                "PlusEmbedding('all-MiniLM-L6-v2'), or an encoder"
            )
        client = connect(location, **options)
        try:
            return cls(_opened(CollectionManager(client), name, encoder, settings))
        except BaseException:
            client.close()
            raise

    @classmethod
    def class_name(cls) -> str:
        return "PlusVectorStore"

    @property
    def client(self) -> QdrantClient:
        """The client of the collection."""
        return self._collection.client

    @property
    def collection(self) -> Collection:
        """The collection: `store.collection.search("...")`, `mine`, `describe` and the rest."""
        return self._collection

    def close(self) -> None:
        """Close the client; another process may then open the folder."""
        self.client.close()

    def __reduce__(self) -> Any:
        raise NotSupportedError("a vector store stays in its process: make it there anew with from_location()")

    def __copy__(self) -> PlusVectorStore:
        return type(self)(self._collection)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> PlusVectorStore:
        return self.__copy__()

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> PlusVectorStore:
        """Refuse: `to_dict` describes the store and holds neither its client nor its model."""
        raise NotSupportedError("a vector store cannot be read from a description: make it with from_location()")

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Store nodes; a node whose id is there replaces it. Return their ids.

        As long as they are few, searches are exact. A warning says when it is time to call `collection.build_index()`,
        which measures what a search finds, and chooses how to search.

        Raises:
            SpaceMismatchError: a node has the vector of another model.
            NotSupportedError: the collection belongs to another program than LlamaIndex, or has late chunking.
            InputError: a node without text, metadata that JSON cannot hold, or an id that cannot be stored.
            CollectionError: another collection takes its place just now: open the alias again and add again.
        """
        refuse_options("add", add_kwargs)
        if not nodes:
            return []
        with self._one_at_a_time:
            for start in range(0, len(nodes), PAGE):
                self._add(nodes[start : start + PAGE])
            self._keep_search()
        return ids_of(nodes)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        refuse_options("delete", delete_kwargs)
        self._delete(self._of_document([checked_text("ref_doc_id", ref_doc_id)]))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes that have one of these ids and match these filters.

        Raises:
            UsageError: neither is given.
        """
        refuse_options("delete_nodes", delete_kwargs)
        chosen = self._filter(node_ids, None, filters)
        if chosen is None:
            raise UsageError("neither node_ids nor filters: say which nodes to delete; clear() deletes all")
        self._delete(chosen)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As `delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Delete all points. The collection stays, with its settings and its encoder."""
        self._delete(models.Filter())

    async def aclear(self) -> None:
        """As `clear`."""
        await asyncio.to_thread(self.clear)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, limit: int | None = None
    ) -> list[BaseNode]:
        """Read nodes with their embeddings: those with one of these ids that match these filters; all without both."""
        nodes: list[BaseNode] = []
        with self._one_at_a_time:
            chosen = self._filter(node_ids, None, filters)
            for page in self._collection.gateway.pages(
                batch_size=PAGE, with_vectors=self._collection.vector_selector, scroll_filter=chosen
            ):
                nodes += map(self._node, page)
                if limit is not None and len(nodes) >= limit:
                    return nodes[:limit]
        return nodes

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, limit: int | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters, limit)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the nodes nearest to a query, best first.

        `qdrant_filters` takes a filter of Qdrant in place of the query's own; `search_params` a dict or a
        `SearchParams` with `hnsw_ef` and `exact`; `mmr_threshold` is for the mode of that name.

        Raises:
            UsageError: another option than these.
            VectorError: the vector of the query has another length.
            SpaceMismatchError: the vector of the query is of another model.
            NotSupportedError: the collection has no words for this mode, or there is no such mode or filter.
            InputError: neither text nor vector, or a filter that cannot be expressed.
        """
        if not isinstance(query, VectorStoreQuery):
            raise InputError(f"query is {brief(query)}, expected a VectorStoreQuery; a retriever takes a text")
        refuse_options("query", kwargs, QUERY_OPTIONS)
        with self._one_at_a_time:
            hits = self._hits(query, kwargs)
            records = self._collection.gateway.retrieve([hit.point_id for hit in hits])
        nodes = {plain_id(record.id): self._node(record) for record in records}
        # what was deleted since the search is no hit
        found = [(nodes[hit.point_id], hit.score) for hit in hits if hit.point_id in nodes]
        return VectorStoreQueryResult(
            nodes=[node for node, _ in found],
            similarities=[score for _, score in found],
            ids=[node.node_id for node, _ in found],
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    def _hits(self, query: VectorStoreQuery, options: dict[str, Any]) -> list[Hit]:
        collection, text = self._collection, query.query_str
        search = search_options(options.get("search_params"))
        chosen = options.get("qdrant_filters")
        if chosen is None:
            # an index that keeps its nodes in the store asks with an empty list
            chosen = self._filter(query.node_ids or None, query.doc_ids, query.filters)
        k, mode = query.similarity_top_k, mode_of(query.mode)
        alpha = share("alpha", query.alpha, 0.5)
        by_words = mode in BY_WORDS or (mode in BY_BOTH and alpha == 0)
        if mode in (*BY_WORDS, *BY_BOTH) and not text:
            raise InputError(
                f"a query by words ({mode.value}) needs its text: give query_str, or no mode to search by the vector"
            )
        if by_words:
            k = query.sparse_top_k or k if mode in BY_WORDS else query.hybrid_top_k or k
            return search_lexical(collection, [text or ""], k=k, filter=chosen, fields=(), text=False)[0]
        row = query_vector(collection, query.query_embedding, text)
        if mode in BY_BOTH and alpha < 1:
            given = GivenQuery(collection.space, row)
            depth = max(Fusion.depth, k, query.sparse_top_k or 0)
            if query.alpha is None:
                fusion = replace(collection.fusion or USUAL, depth=depth)
            else:
                fusion = Fusion("rrf", dense_weight=2 * alpha, lexical_weight=2 * (1 - alpha), depth=depth)
            k = query.hybrid_top_k or k
            return search_hybrid(
                collection, [text or ""], given, k=k, fusion=fusion, filter=chosen, fields=(), text=False
            )[0]
        if mode == VectorStoreQueryMode.MMR:
            threshold = options.get("mmr_threshold", query.mmr_threshold)
            search["diversity"] = 1 - share("mmr_threshold", threshold, 1 - DIVERSITY)
        k = query.hybrid_top_k or k if mode in BY_BOTH else k
        return search_vectors(collection, row, k=k, filter=chosen, fields=(), text=False, **search)[0]

    def _add(self, nodes: Sequence[BaseNode]) -> None:
        collection, layout = self._collection, self._collection.layout
        encoder = collection.required_encoder()
        refuse_foreign_layout(layout, collection.name)
        texts = [embedded_text(node, layout) for node in checked_nodes(nodes)]
        vectors = self._vectors(nodes, texts, encoder)
        check_passages(collection, ids_of(nodes), texts, vectors)
        if layout.name == OURS.name:
            passages, beside = [passage_of_node(node) for node in nodes], [beside_passage(node) for node in nodes]
            store_embedded(collection, passages, vectors, encoder, beside=beside)
        else:
            self._add_as_llamaindex(nodes, texts, vectors)

    def _keep_search(self) -> None:
        if keep_search(self._collection) or self._said_large:
            return
        self._said_large = True
        logger.warning(
            "collection %r has so many nodes by now that somebody should measure what a search finds: call "
            "store.collection.build_index() when all are in, which also chooses how to search",
            self._collection.name,
        )

    def _vectors(self, nodes: Sequence[BaseNode], texts: Sequence[str], encoder: Encoder) -> Vectors:
        """The nodes' own vectors (n, dimension); the encoder's for those that have none."""
        missing = [index for index, node in enumerate(nodes) if node.embedding is None]
        encoded = encoder.encode_passages([texts[index] for index in missing]) if missing else np.empty((0, 0))
        rows: list[Any] = [node.embedding for node in nodes]
        for index, row in zip(missing, encoded, strict=True):
            rows[index] = row
        for row in rows:
            refuse_length(self._collection, row, "the vector of a node")
        return checked_vectors(rows, dimension=self._collection.dimension, count=len(nodes), what="vectors of nodes")

    def _add_as_llamaindex(self, nodes: Sequence[BaseNode], texts: Sequence[str], vectors: Vectors) -> None:
        collection, name = self._collection, self._collection.layout.vector
        sparse = set(collection.gateway.info().config.params.sparse_vectors or {}) - {VECTOR}
        if sparse:
            raise NotSupportedError(
                f"collection {collection.name!r} has sparse vectors {brief(sorted(sparse)[0])} of another program, "
                "which these nodes would lack: write them with LlamaIndex's QdrantVectorStore(enable_hybrid=True), or "
                "to a new collection"
            )
        lexical = collection.lexical
        points = []
        for node, text, row in zip(nodes, texts, vectors.tolist(), strict=True):
            vector: Any = row
            if name or lexical is not None:
                vector = {name: row} | ({} if lexical is None else {VECTOR: lexical.passage(text)})
            points.append(
                models.PointStruct(id=llamaindex_point_id(node), vector=vector, payload=llamaindex_payload(node))
            )
        collection.gateway.upsert(points)
        refuse_retired(collection)

    def _delete(self, chosen: models.Filter) -> None:
        refuse_foreign_layout(self._collection.layout, self._collection.name)
        with self._one_at_a_time:
            self._collection.gateway.delete_matching(chosen)
            refuse_retired(self._collection)

    def _node(self, point: Any) -> BaseNode:
        layout = self._collection.layout
        node = node_of(point.payload, layout, point=plain_id(point.id))
        if point.vector is not None and layout.has_dense(point.vector):
            node.embedding = layout.dense(point.vector)
        return node

    def _filter(
        self, node_ids: list[str] | None, doc_ids: list[str] | None, filters: MetadataFilters | None
    ) -> models.Filter | None:
        must: list[models.Condition] = []
        if doc_ids:
            self._require_documents()
            must.append(self._of_document(doc_ids))
        if node_ids is not None:
            must.append(self._with_ids(node_ids))
        if filters is not None and filters.filters:
            way_out = "give `qdrant_filters` to the query, with the payload path of {}"
            refuse_paths(self._collection, filter_keys(filters), way_out=way_out)
            must.append(metadata_filter(filters, self._collection.layout))
        return models.Filter(must=must) if must else None

    def _require_documents(self) -> None:
        fields = [REF_DOC_ID, self._collection.layout.metadata_field(DOCUMENT)]
        if not any(occurs(self._collection, path) for path in fields):
            raise NotSupportedError(
                f"doc_ids: nothing in {self.collection_name!r} is part of a document: filter on the metadata field "
                "that names their document"
            )

    def _of_document(self, doc_ids: Sequence[str]) -> models.Filter:
        """The nodes of documents. A passage of ours may be one, under the id of the document itself."""
        layout, match = self._collection.layout, models.MatchAny(any=list(doc_ids))
        should: list[models.Condition] = [models.FieldCondition(key=REF_DOC_ID, match=match)]
        if layout.name != LLAMA_INDEX.name:
            should.append(models.FieldCondition(key=layout.metadata_field(DOCUMENT), match=match))
            should.append(self._with_ids(doc_ids))
        return models.Filter(should=should)

    def _with_ids(self, ids: Sequence[str]) -> models.Condition:
        stored = fetch(self._collection, ids, with_text=False).values()
        return models.HasIdCondition(has_id=[passage.point_id for passage in stored])


def _opened(manager: CollectionManager, name: str, encoder: Encoder, settings: CollectionSettings | None) -> Collection:
    """The collection, made if it is not there."""
    try:
        manager.resolve(name)
    except CollectionNotFoundError:
        if settings is None:
            # of what is asked for by documents, no point is read that is not theirs
            in_memory = engine_of(manager.client) == "memory"
            settings = CollectionSettings(lexical=Bm25(), payload_indexes={} if in_memory else {DOCUMENT: "keyword"})
        collection = manager.ensure(name, encoder, settings=settings)
        if DOCUMENT in settings.payload_indexes:
            collection.gateway.index_payload(REF_DOC_ID, models.PayloadSchemaType.KEYWORD)
        return collection
    return manager.ensure(name, encoder, settings=settings)
