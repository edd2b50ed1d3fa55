"""A collection -> LlamaIndex's `QdrantVectorStore` over the same points.

Collections that LlamaIndex filled get LlamaIndex's own store. Others hold passages instead of nodes. Their store reads
each passage as a `TextNode` (id, text, metadata) and filters on the passage's metadata. It does not write, because
LlamaIndex stores nodes in payloads of another form.

Guarantees: the store searches the collection that was opened, with its vector name and its `hnsw_ef`. Filters name
fields as plain filters of a search do: a name is a name, and numbers are equal if their values are. Does not know:
encoders. Give the index the embedding that filled the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import PrivateAttr
from qdrant_client import AsyncQdrantClient, models

from llama_index_embed_plus.errors import MissingExtraError
from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import LLAMA_INDEX, Layout
from qdrant_tools.collections.points import fetch
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.search.options import any_of, equal, refuse_paths, within
from qdrant_tools.validation import brief, checked_text

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

    def _build_subfilter(self, filters: MetadataFilters) -> models.Filter:
        way_out = "give `qdrant_filters` to the query, with the payload path of {}"
        refuse_paths(self._collection, _keys(filters), way_out=way_out)
        return _filter(filters, self._collection.layout)

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

    def _build_query_filter(self, query: VectorStoreQuery) -> models.Filter | None:
        if query.doc_ids:
            raise NotSupportedError(
                f"doc_ids: collection {self._collection.name!r} holds passages, which have no document's id of "
                "LlamaIndex's: filter on the metadata field that names their document"
            )
        must: list[models.Condition] = []
        if query.node_ids:
            stored = fetch(self._collection, query.node_ids, with_text=False).values()
            must.append(models.HasIdCondition(has_id=[passage.point_id for passage in stored]))
        if query.filters and query.filters.filters:
            must.append(self._build_subfilter(query.filters))
        return models.Filter(must=must) if must else None

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


def _filter(filters: MetadataFilters, layout: Layout) -> models.Filter:
    """LlamaIndex's filters as conditions on the fields of a layout, which find the same with an index and without."""
    conditions = [
        _filter(part, layout) if isinstance(part, MetadataFilters) else _condition(part, layout)
        for part in filters.filters
        if not isinstance(part, MetadataFilters) or part.filters
    ]
    if filters.condition == FilterCondition.OR:
        return models.Filter(should=conditions)
    if filters.condition == FilterCondition.NOT:
        return models.Filter(must_not=conditions)
    return models.Filter(must=conditions)


def _condition(filter: MetadataFilter, layout: Layout) -> models.Condition:
    path, value, operator = layout.metadata_field(filter.key), filter.value, filter.operator or FilterOperator.EQ
    what = f"filter on {brief(filter.key)}"
    missing = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    if operator in BOUND_OF:
        return within(path, {BOUND_OF[operator]: value}, what)
    if operator == FilterOperator.EQ:
        return any_of(path, value, what) if isinstance(value, list) else equal(path, value, what)
    if operator == FilterOperator.CONTAINS:
        return equal(path, value, what)
    if operator == FilterOperator.NE:
        # not the engine's "except", which with an index finds values of the same type only
        return models.Filter(must_not=[equal(path, value, what), missing])
    if operator == FilterOperator.IN or operator == FilterOperator.ANY:
        return _one_of(path, value, what)
    if operator == FilterOperator.NIN:
        return models.Filter(must_not=[_one_of(path, value, what), missing])
    if operator == FilterOperator.ALL:
        return models.Filter(must=[equal(path, part, what) for part in _values(value)])
    if operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        return models.FieldCondition(key=path, match=models.MatchText(text=checked_text(what, value)))
    if operator == FilterOperator.IS_EMPTY:
        return missing
    raise NotSupportedError(f"{what}: Qdrant has no {brief(str(operator))}")


BOUND_OF = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}


def _one_of(path: str, value: Any, what: str) -> models.Condition:
    values = _values(value)
    # nothing is among no values
    return any_of(path, values, what) if values else models.FieldCondition(key=path, match=models.MatchAny(any=[]))


def _values(value: Any) -> list[Any]:
    """The values of "in": a list, or as LlamaIndex's store has it a text with commas."""
    if isinstance(value, list):
        return value
    return value.split(",") if isinstance(value, str) else [value]


def _keys(filters: MetadataFilters) -> Iterator[str]:
    for part in filters.filters:
        if isinstance(part, MetadataFilters):
            yield from _keys(part)
        else:
            yield part.key
