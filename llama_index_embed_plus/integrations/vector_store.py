"""A collection -> LlamaIndex's `QdrantVectorStore` over the same points.

Collections that LlamaIndex filled get LlamaIndex's own store. Others hold passages instead of nodes. Their store reads
each passage as a `TextNode` (id, text, metadata) and filters on the passage's metadata. It does not write, because
LlamaIndex stores nodes in payloads of another form.

Guarantees: the store searches the collection that was opened, with its vector name and its `hnsw_ef`. Does not know:
encoders. Give the index the embedding that filled the collection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQueryResult
from pydantic import PrivateAttr
from qdrant_client import AsyncQdrantClient

from llama_index_embed_plus.errors import MissingExtraError
from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import LLAMA_INDEX, Layout
from qdrant_tools.errors import NotSupportedError

try:
    from llama_index.vector_stores.qdrant import QdrantVectorStore
except ImportError as error:
    raise MissingExtraError("LlamaIndex's Qdrant store", extra="store") from error


def as_vector_store(collection: Collection, *, aclient: AsyncQdrantClient | None = None) -> QdrantVectorStore:
    """Return LlamaIndex's store over this collection. Asynchronous methods need `aclient`, see `aconnect`.

    LlamaIndex's sparse and hybrid modes are not set up; see `search_hybrid` of `qdrant_tools.search`.
    """
    layout = collection.layout
    settings = {
        "collection_name": collection.name,
        "client": collection.client,
        "aclient": aclient,
        "text_key": layout.text,
        "dense_vector_name": layout.vector or None,
    }
    if layout.name == LLAMA_INDEX.name:
        return _CollectionStore(collection, **settings)
    return PassageVectorStore(collection, **settings)


class _CollectionStore(QdrantVectorStore):  # type: ignore[misc]
    """LlamaIndex's store, searching as the collection says unless the call says otherwise."""

    _collection: Collection = PrivateAttr()

    def __init__(self, collection: Collection, **settings: Any) -> None:
        super().__init__(**settings)
        self._collection = collection

    def query(self, query: Any, **kwargs: Any) -> VectorStoreQueryResult:
        kwargs.setdefault("search_params", self._collection.search_params())
        result: VectorStoreQueryResult = super().query(query, **kwargs)
        return result

    async def aquery(self, query: Any, **kwargs: Any) -> VectorStoreQueryResult:
        kwargs.setdefault("search_params", self._collection.search_params())
        result: VectorStoreQueryResult = await super().aquery(query, **kwargs)
        return result


class PassageVectorStore(_CollectionStore):
    """Reads the passages of a collection as nodes. Does not write: `qdrant_tools.indexing` does."""

    def parse_to_query_result(self, response: list[Any]) -> VectorStoreQueryResult:
        nodes = [self._node(point) for point in response]
        return VectorStoreQueryResult(
            nodes=nodes,
            # get_nodes of the store comes here too, with points that have no score
            similarities=[getattr(point, "score", 1.0) for point in response],
            ids=[node.node_id for node in nodes],
        )

    def _node(self, point: Any) -> BaseNode:
        layout = self._collection.layout
        passage = layout.passage(point.payload, point_id=plain_id(point.id))
        vector = None if point.vector is None else layout.dense(point.vector)
        return TextNode(id_=passage.id, text=passage.text, metadata=dict(passage.metadata), embedding=vector)

    def _build_subfilter(self, filters: MetadataFilters) -> Any:
        return super()._build_subfilter(_on_metadata(filters, self._collection.layout))

    def add(self, nodes: Sequence[BaseNode], *args: Any, **kwargs: Any) -> list[str]:
        raise self._read_only("add")

    async def async_add(self, nodes: Sequence[BaseNode], *args: Any, **kwargs: Any) -> list[str]:
        raise self._read_only("async_add")

    def delete(self, ref_doc_id: str, **kwargs: Any) -> None:
        raise self._read_only("delete")

    async def adelete(self, ref_doc_id: str, **kwargs: Any) -> None:
        raise self._read_only("adelete")

    def _read_only(self, method: str) -> NotSupportedError:
        return NotSupportedError(
            f"{method}: collection {self._collection.name!r} holds passages, not nodes: fill it with "
            "qdrant_tools.indexing.index_passages"
        )


def _on_metadata(filters: MetadataFilters, layout: Layout) -> MetadataFilters:
    """Return the filters with field names of the payload. The store translates nested filters by calling this again."""

    def translated(filter: MetadataFilter | MetadataFilters) -> MetadataFilter | MetadataFilters:
        if isinstance(filter, MetadataFilters):
            return filter
        return filter.model_copy(update={"key": layout.metadata_field(filter.key)})

    return filters.model_copy(update={"filters": list(map(translated, filters.filters))})
