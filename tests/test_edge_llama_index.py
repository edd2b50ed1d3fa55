"""LlamaIndex's own QdrantVectorStore over the embedded clients, sync and async."""

from __future__ import annotations

import zlib

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore

from qdrant_tools.connect import aconnect, connect

WORDS = ["red apple", "green apple", "red wine", "white wine", "green tea"]


def sparse(texts):
    """Words as sparse vectors: one dimension per word."""
    words = [sorted(set(text.split())) for text in texts]
    return [[zlib.crc32(word.encode()) for word in found] for found in words], [[1.0] * len(found) for found in words]


def nodes():
    return [
        TextNode(
            text=text,
            metadata={"color": text.split()[0], "rank": i},
            embedding=[1.0, float(i), 0.0],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{i % 2}")},
        )
        for i, text in enumerate(WORDS)
    ]


def only(key, value, operator=FilterOperator.EQ):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def query(**settings):
    return VectorStoreQuery(query_embedding=[1.0, 4.0, 0.0], similarity_top_k=2, **settings)


def texts(result):
    return [node.get_content() for node in result.nodes]


@pytest.fixture
def store(tmp_path):
    client = connect(tmp_path)
    yield QdrantVectorStore(collection_name="docs", client=client, aclient=aconnect(tmp_path))
    client.close()


def test_nodes_are_found_by_vector_filter_and_id(store):
    added = store.add(nodes())
    assert texts(store.query(query())) == ["green tea", "white wine"]
    assert texts(store.query(query(filters=only("color", "red")))) == ["red wine", "red apple"]
    assert texts(store.query(query(filters=only("rank", 1, FilterOperator.LTE)))) == ["green apple", "red apple"]
    assert texts(store.query(query(filters=only("color", ["red", "white"], FilterOperator.NIN)))) == [
        "green tea",
        "green apple",
    ]
    assert [node.get_content() for node in store.get_nodes(added[:1])] == ["red apple"]


def test_documents_and_nodes_can_be_deleted(store):
    added = store.add(nodes())
    store.delete("doc-0")
    assert sorted(texts(store.query(query(filters=only("rank", 99, FilterOperator.LT))))) == [
        "green apple",
        "white wine",
    ]
    store.delete_nodes(added[1:2])
    assert texts(store.query(query())) == ["white wine"]
    store.clear()
    assert not store.client.collection_exists("docs")


def test_maximal_marginal_relevance(store):
    store.add(nodes())
    assert len(texts(store.query(query(mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)))) == 2


async def test_the_async_methods_work_on_the_same_collection(store):
    added = await store.async_add(nodes())
    assert texts(await store.aquery(query())) == ["green tea", "white wine"]
    assert texts(store.query(query())) == ["green tea", "white wine"]
    await store.adelete("doc-0")
    await store.adelete_nodes(added[1:2])
    assert [node.get_content() for node in await store.aget_nodes(added)] == ["white wine"]
    await store.aclear()
    assert not store.client.collection_exists("docs")


@pytest.fixture
def hybrid(tmp_path):
    client = connect(tmp_path)
    yield QdrantVectorStore(
        collection_name="hybrid",
        client=client,
        aclient=aconnect(tmp_path),
        enable_hybrid=True,
        sparse_doc_fn=sparse,
        sparse_query_fn=sparse,
    )
    client.close()


async def test_hybrid_search_fuses_words_and_vectors(hybrid):
    hybrid.add(nodes())
    words = {"query_str": "apple", "sparse_top_k": 2}
    lexical = texts(hybrid.query(query(mode=VectorStoreQueryMode.SPARSE, **words)))
    assert sorted(lexical) == ["green apple", "red apple"]
    fused = texts(hybrid.query(query(mode=VectorStoreQueryMode.HYBRID, hybrid_top_k=4, **words)))
    assert sorted(fused) == ["green apple", "green tea", "red apple", "white wine"]
    again = texts(await hybrid.aquery(query(mode=VectorStoreQueryMode.HYBRID, hybrid_top_k=4, **words)))
    assert sorted(again) == sorted(fused)
