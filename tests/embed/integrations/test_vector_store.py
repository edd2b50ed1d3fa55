"""LlamaIndex searches a collection of ours through its own store."""

from __future__ import annotations

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from tiny import ENGINES, WordEncoder, client_of, numbered

from llama_index_embed_plus.integrations.vector_store import as_vector_store
from qdrant_tools.client.connect import aconnect, connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.indexing import index_passages
from qdrant_tools.search.dense import search

ENCODER = WordEncoder(dimension=256)


@pytest.fixture(params=ENGINES)
def collection(request, tmp_path):
    for client in client_of(request.param, tmp_path):
        collection = CollectionManager(client).ensure("docs", ENCODER)
        index_passages(collection, numbered(30), ENCODER)
        yield collection


def query(text, **settings):
    return VectorStoreQuery(
        query_embedding=ENCODER.encode_queries([text])[0].tolist(), similarity_top_k=3, query_str=text, **settings
    )


def only(*filters, condition=FilterCondition.AND):
    return MetadataFilters(filters=list(filters), condition=condition)


def test_the_store_finds_what_search_finds(collection):
    store = as_vector_store(collection)
    assert isinstance(store, QdrantVectorStore)
    result, hits = store.query(query("thing17")), search(collection, "thing17", ENCODER, k=3)
    assert result.ids[0] == hits[0].id == "p17"
    assert result.nodes[0].get_content() == hits[0].text
    assert result.nodes[0].metadata == {"topic": 3, "even": False}
    assert result.similarities == pytest.approx([hit.score for hit in hits])


def test_filters_hold_on_the_metadata_also_nested(collection):
    store = as_vector_store(collection)
    topic = [MetadataFilter(key="topic", value=value) for value in (3, 4)]
    nested = only(only(*topic, condition=FilterCondition.OR), MetadataFilter(key="topic", value=4))
    found = store.query(query("passage", filters=nested))
    assert [node.metadata["topic"] for node in found.nodes] == [4, 4, 4]
    above = only(MetadataFilter(key="topic", value=5, operator=FilterOperator.GT))
    assert {node.metadata["topic"] for node in store.query(query("passage", filters=above)).nodes} == {6}


def test_nodes_are_not_written_among_passages(collection):
    store = as_vector_store(collection)
    node = TextNode(text="a node", embedding=[1.0] * 256)
    for write in (lambda: store.add([node]), lambda: store.delete("doc")):
        with pytest.raises(NotSupportedError, match="index_passages"):
            write()
    assert collection.client.count("docs").count == 30


def test_a_collection_that_llamaindex_filled_gets_its_own_store(tmp_path):
    client = connect(tmp_path)
    first = QdrantVectorStore(collection_name="nodes", client=client)
    vectors = ENCODER.encode_passages([passage.text for passage in numbered(20)])
    nodes = [
        TextNode(text=passage.text, metadata={}, embedding=row.tolist())
        for passage, row in zip(numbered(20), vectors, strict=True)
    ]
    first.add(nodes)
    store = as_vector_store(CollectionManager(client).adopt("nodes", ENCODER))
    assert store.query(query("thing7")).nodes[0].get_content() == nodes[7].get_content()
    store.add([TextNode(text="another", embedding=vectors[0].tolist())])
    assert client.count("nodes").count == 21
    client.close()


async def test_the_store_can_be_awaited(tmp_path):
    client, aclient = connect(tmp_path), aconnect(tmp_path)
    collection = CollectionManager(client).ensure("docs", ENCODER)
    index_passages(collection, numbered(30), ENCODER)
    result = await as_vector_store(collection, aclient=aclient).aquery(query("thing17"))
    assert result.ids[0] == "p17"
    client.close()
    await aclient.close()


def test_an_index_can_be_made_over_it(collection):
    store = as_vector_store(collection)
    index = VectorStoreIndex.from_vector_store(
        store,
        embed_model=MockEmbedding(embed_dim=256),
        storage_context=StorageContext.from_defaults(vector_store=store),
    )
    assert len(index.as_retriever(similarity_top_k=4).retrieve("anything")) == 4
