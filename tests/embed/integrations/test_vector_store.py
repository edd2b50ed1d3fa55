"""LlamaIndex searches a collection of ours through its own store."""

from __future__ import annotations

import uuid

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import MetadataMode, TextNode
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
from qdrant_tools.client.connect import aconnect, connect, engine_of
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, NotSupportedError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
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


NE, IN, NIN, GT, LTE = (FilterOperator(operator) for operator in ("!=", "in", "nin", ">", "<="))
ANY, ALL, CONTAINS, TEXT, EMPTY = (FilterOperator(o) for o in ("any", "all", "contains", "text_match", "is_empty"))
STRANGE = {
    "int": {"year": 2020, "doc.type": "map", "tags": ["a", "b"]},
    "float": {"year": 2020.0, "doc.type": "letter", "tags": ["a"]},
    "text": {"year": "2020", "a/b": "red apple", "date": "2024-01-01"},
    "other": {"year": 2021, "author": {"name": "Ann"}, "date": "2024-06-01T00:00:00Z"},
}
FOUND = [
    ("year", 2020, FilterOperator.EQ, {"int", "float"}),
    ("year", 2020.0, FilterOperator.EQ, {"int", "float"}),
    ("year", "2020", FilterOperator.EQ, {"text"}),
    ("year", 2020, NE, {"text", "other"}),
    ("year", [2020, 2021], IN, {"int", "float", "other"}),
    ("year", [2020.0], IN, {"int", "float"}),
    ("year", "2020,1999", IN, {"text"}),
    ("year", [], IN, set()),
    ("year", [2020], NIN, {"text", "other"}),
    ("year", 2020, GT, {"other"}),
    ("year", 2020.5, LTE, {"int", "float"}),
    ("date", "2024-03-01", GT, {"other"}),
    ("date", "2024-01-01", LTE, {"text"}),
    ("doc.type", "map", FilterOperator.EQ, {"int"}),
    ("doc.type", "map", NE, {"float"}),
    ("doc.type", None, EMPTY, {"text", "other"}),
    ("tags", "b", CONTAINS, {"int"}),
    ("tags", ["b", "c"], ANY, {"int"}),
    ("tags", ["a", "b"], ALL, {"int"}),
    ("a/b", "apple", TEXT, {"text"}),
]


def ids_of(store, *filters, **how):
    return set(store.query(query("passage", filters=only(*filters, **how))).ids)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")  # LlamaIndex's store makes some in memory too
@pytest.mark.parametrize("kind", ["passages", "nodes"])
def test_filters_go_by_the_name_and_the_value_in_passages_and_in_nodes(collection, kind):
    client = collection.client
    if kind == "passages":
        mine = CollectionManager(client).ensure("strange", ENCODER)
        mine.index([Passage(name, f"passage {name}", metadata) for name, metadata in STRANGE.items()])
    else:
        nodes = [
            TextNode(text=name, id_=str(uuid.UUID(int=i)), metadata=metadata)
            for i, (name, metadata) in enumerate(STRANGE.items())
        ]
        for node in nodes:
            node.embedding = ENCODER.encode_passages([node.get_content(MetadataMode.EMBED)])[0].tolist()
        QdrantVectorStore(collection_name="strange", client=client).add(nodes)
        mine = CollectionManager(client).adopt("strange", ENCODER)
    store = as_vector_store(mine)
    names = {id: id for id in STRANGE} | {str(uuid.UUID(int=i)): name for i, name in enumerate(STRANGE)}
    for index in (None, *([] if engine_of(client) == "memory" else ["float", "keyword"])):
        if index is not None:
            client.create_payload_index("strange", mine.layout.metadata_field("year"), index, wait=True)
        for key, value, operator, expected in FOUND:
            filter_ = MetadataFilter(key=key, value=value, operator=operator)
            asked = VectorStoreQuery(
                query_embedding=[1.0] * ENCODER.dimension, similarity_top_k=10, filters=only(filter_)
            )
            assert {names[id] for id in store.query(asked).ids} == expected, (key, value, operator, index)
    with pytest.raises(
        InputError, match=r"no passage .* field 'author.name', .*`qdrant_filters`.*\('author', 'name'\)"
    ):
        ids_of(store, MetadataFilter(key="author.name", value="Ann"))
    with pytest.raises(InputError, match="filter on 'year'"):
        ids_of(store, MetadataFilter(key="year", value=None))


def test_nodes_are_named_by_their_passages_and_documents_by_a_filter(collection):
    store = as_vector_store(collection)
    assert set(store.query(query("passage", node_ids=["p3", "p5", "nobody"])).ids) == {"p3", "p5"}
    with pytest.raises(NotSupportedError, match="filter on the metadata field that names their document"):
        store.query(query("passage", doc_ids=["d1"]))


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
