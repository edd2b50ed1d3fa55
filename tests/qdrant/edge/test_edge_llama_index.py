"""LlamaIndex's own QdrantVectorStore over the embedded clients, sync and async."""

from __future__ import annotations

import zlib
from functools import partial

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_tools.client.connect import aconnect, connect

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")  # local mode says so, once

WORDS = ["red apple", "green apple", "red wine", "white wine", "green tea"]


def sparse(texts):
    """Words as sparse vectors: one dimension per word."""
    words = [sorted(set(text.split())) for text in texts]
    return [[zlib.crc32(word.encode()) for word in row] for row in words], [[1.0] * len(row) for row in words]


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


# -- the same over local mode: what LlamaIndex's own store does must not depend on which of the two it talks to

RICH = [
    {"author": "Ada", "rank": 3, "score": 0.5, "tags": ["x", "y"], "kind": "Note", "day": "2026-01-02"},
    {"author": "Bob", "rank": 1, "score": 1.5, "tags": ["y"], "kind": "note", "draft": True},
    {"author": "Ada", "rank": 7, "score": -2.0, "tags": [], "kind": "longer note"},
    {"author": "Cyd", "rank": 7, "score": 0.0, "tags": ["z", "x"], "draft": False},
    {"author": "", "rank": 0, "tags": None, "kind": "memo"},
]


def rich_nodes():
    return [
        TextNode(
            id_=f"00000000-0000-0000-0000-00000000000{i}",
            text=text,
            metadata=metadata,
            embedding=[1.0, float(i), 0.3 * i * i],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{i % 2}")},
        )
        for i, (text, metadata) in enumerate(zip(WORDS, RICH, strict=True))
    ]


@pytest.fixture
def pair(tmp_path):
    """One store over the embedded engine, one over local mode; both with words for the sparse modes, both filled."""
    clients = connect(tmp_path / "both"), QdrantClient(":memory:")
    stores = [
        QdrantVectorStore(
            collection_name="docs", client=client, enable_hybrid=True, sparse_doc_fn=sparse, sparse_query_fn=sparse
        )
        for client in clients
    ]
    for store in stores:
        assert store.add(rich_nodes()) == [node.node_id for node in rich_nodes()]
    yield stores
    clients[0].close()


def outcome(call):
    """What a call returns, or which error of the store's own it raises."""
    try:
        return call()
    except (NotImplementedError, ValueError, TypeError) as error:
        return type(error)


def results(result):
    if isinstance(result, type):
        return result
    pairs = sorted((node.node_id, node.get_content()) for node in result.nodes)
    return pairs, [round(score, 3) for score in result.similarities]


VALUES = {
    FilterOperator.IN: ["Ada", "Cyd"],
    FilterOperator.NIN: ["Ada", "Cyd"],
    FilterOperator.ANY: ["Ada", "Bob"],
    FilterOperator.ALL: ["Ada"],
    FilterOperator.TEXT_MATCH: "note",
    FilterOperator.IS_EMPTY: None,
}
CASES = [(operator, key, VALUES.get(operator, "Ada")) for operator in FilterOperator for key in ("author", "kind")]
CASES += [(operator, "rank", 3) for operator in FilterOperator if operator not in VALUES]
CASES += [(operator, "tags", "x") for operator in (FilterOperator.EQ, FilterOperator.NE, FilterOperator.CONTAINS)]
CASES += [(FilterOperator.GTE, "score", 0.5), (FilterOperator.EQ, "rank", 7)]
CASES += [(FilterOperator.IN, "rank", [1, 7]), (FilterOperator.NIN, "rank", [1, 7]), (FilterOperator.EQ, "none", 1)]


@pytest.mark.parametrize("condition", list(FilterCondition))
def test_every_filter_operator_means_the_same(pair, condition):
    for operator, key, value in CASES:
        other = MetadataFilter(key="rank", value=2, operator=FilterOperator.GT)
        filters = MetadataFilters(
            filters=[MetadataFilter(key=key, value=value, operator=operator), other], condition=condition
        )
        store_query = VectorStoreQuery(query_embedding=[1.0, 4.0, 0.0], similarity_top_k=5, filters=filters)
        ours, theirs = (results(outcome(partial(store.query, store_query))) for store in pair)
        assert ours == theirs, (condition, operator, key, value)
        nodes = [outcome(partial(store.get_nodes, filters=filters)) for store in pair]
        ids = [result if isinstance(result, type) else sorted(node.node_id for node in result) for result in nodes]
        assert ids[0] == ids[1], (condition, operator, key, value)


def test_nested_filters_mean_the_same(pair):
    inner = MetadataFilters(
        filters=[MetadataFilter(key="author", value="Ada"), MetadataFilter(key="rank", value=1)],
        condition=FilterCondition.OR,
    )
    outer = MetadataFilters(
        filters=[inner, MetadataFilter(key="rank", value=5, operator=FilterOperator.LT)], condition=FilterCondition.AND
    )
    ours, theirs = (results(store.query(query(filters=outer))) for store in pair)
    assert ours == theirs and len(ours[0]) == 2


@pytest.mark.parametrize("mode", list(VectorStoreQueryMode))
@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
def test_every_mode_of_a_query_means_the_same(pair, mode, alpha):
    store_query = query(
        mode=mode, query_str="red apple", sparse_top_k=3, hybrid_top_k=4, alpha=alpha, mmr_threshold=0.4
    )
    ours, theirs = (results(outcome(partial(store.query, store_query))) for store in pair)
    assert ours == theirs


def test_queries_among_nodes_and_documents_mean_the_same(pair):
    names = [node.node_id for node in rich_nodes()]
    for store_query in (
        query(node_ids=names[:2]),
        query(doc_ids=["doc-1"]),
        query(node_ids=names[:3], doc_ids=["doc-0"], filters=only("author", "Ada")),
    ):
        ours, theirs = (results(store.query(store_query)) for store in pair)
        assert ours == theirs and ours[0]


def test_what_is_deleted_is_the_same(pair):
    names = [node.node_id for node in rich_nodes()]
    for change in (
        lambda store: store.delete("doc-1"),
        lambda store: store.delete("no such document"),
        lambda store: store.delete_nodes(names[:1]),
        lambda store: store.delete_nodes(filters=only("author", "")),
        lambda store: store.add(rich_nodes()[:2]),
        lambda store: store.add(rich_nodes()[:2]),
        lambda store: store.clear(),
    ):
        for store in pair:
            change(store)
        left = [
            sorted(n.node_id for n in store.get_nodes(node_ids=names))
            if store.client.collection_exists("docs")
            else None
            for store in pair
        ]
        assert left[0] == left[1]


async def test_the_async_methods_mean_the_same(tmp_path):
    clients = aconnect(tmp_path / "both"), AsyncQdrantClient(":memory:")
    hybrid = {"enable_hybrid": True, "sparse_doc_fn": sparse, "sparse_query_fn": sparse}
    stores = [QdrantVectorStore(collection_name="docs", aclient=client, **hybrid) for client in clients]
    for store in stores:
        await store.async_add(rich_nodes())
    queries = [query(filters=only("rank", 2, FilterOperator.GT)), query(doc_ids=["doc-1"])]
    queries += [
        query(mode=mode, query_str="red apple", sparse_top_k=3, hybrid_top_k=4)
        for mode in (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SPARSE)
    ]
    for store_query in queries:
        ours, theirs = [results(await store.aquery(store_query)) for store in stores]
        assert ours == theirs
    for store in stores:
        await store.adelete("doc-1")
        await store.adelete_nodes(filters=only("author", ""))
    ours, theirs = [
        sorted(node.node_id for node in await store.aget_nodes(filters=only("rank", 0, FilterOperator.GTE)))
        for store in stores
    ]
    assert ours == theirs and len(ours) == 2
    for store in stores:
        await store.aclear()
    await clients[0].close()
