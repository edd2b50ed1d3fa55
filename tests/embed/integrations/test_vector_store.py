"""LlamaIndex reads and writes a collection through its vector store, and no vector of another model gets in."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import uuid
from contextlib import closing

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import IndexNode, MetadataMode, NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from models import TEXTS, save_model
from qdrant_client import models
from tiny import ENGINES, DirectionEncoder, WordEncoder, client_of, numbered

from llama_index_embed_plus import PlusEmbedding
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.integrations.guard import SAMPLES
from llama_index_embed_plus.integrations.node_parser import plus_node_parser
from llama_index_embed_plus.integrations.vector_store import PlusVectorStore
from llama_index_embed_plus.serving import provenance
from llama_index_embed_plus.serving.provenance import Maker, remember
from qdrant_tools.client.connect import connect, engine_of
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import InputError, NotSupportedError, SpaceMismatchError, UsageError, VectorError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.dense import search
from qdrant_tools.sources.origin import SourceDocument

ENCODER, APART = WordEncoder(dimension=256), DirectionEncoder(dimension=64)


@pytest.fixture(params=ENGINES)
def collection(request, tmp_path):
    for client in client_of(request.param, tmp_path):
        collection = CollectionManager(client).ensure("docs", ENCODER)
        index_passages(collection, numbered(30), ENCODER)
        yield collection


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    """Vectors of one test are not known to the next."""
    monkeypatch.setattr(provenance, "_makers", {})


@pytest.fixture(scope="module")
def folder_of_models(tmp_path_factory):
    """Tiny models by name: `base`, and one that differs in its weights."""
    folder = tmp_path_factory.mktemp("models")
    for name, options in {"base": {}, "weights": {"seed": 1}}.items():
        save_model(folder / name, prompts={"query": "query : ", "document": "passage : "}, **options)
    return folder


def query(text, **settings):
    return VectorStoreQuery(
        query_embedding=ENCODER.encode_queries([text])[0].tolist(), similarity_top_k=3, query_str=text, **settings
    )


def only(*filters, condition=FilterCondition.AND):
    return MetadataFilters(filters=list(filters), condition=condition)


def test_the_store_finds_what_search_finds(collection):
    store = PlusVectorStore(collection)
    result, hits = store.query(query("thing17")), search(collection, "thing17", ENCODER, k=3)
    assert result.ids[0] == hits[0].id == "p17"
    assert result.nodes[0].get_content() == hits[0].text
    assert result.nodes[0].metadata == {"topic": 3, "even": False}
    assert result.similarities == pytest.approx([hit.score for hit in hits])


def test_filters_hold_on_the_metadata_also_nested(collection):
    store = PlusVectorStore(collection)
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
    store = PlusVectorStore(mine)
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
    store = PlusVectorStore(collection)
    assert set(store.query(query("passage", node_ids=["p3", "p5", "nobody"])).ids) == {"p3", "p5"}
    with pytest.raises(NotSupportedError, match="filter on the metadata field that names their document"):
        store.query(query("passage", doc_ids=["d1"]))


def test_nodes_know_their_place_as_llamaindex_has_it(collection):
    place = {
        "source": "manual",
        "file_path": "a/bees.pdf",
        "file_name": "bees.pdf",
        "file_type": "application/pdf",
        "file_size": 7,
        "last_modified_date": "2026-01-02",
        "page_label": "4",
        "header_path": "Bees > Honey",
    }
    document = "manual/a/bees.pdf"
    parts = [
        Passage(f"{document}#{i}", f"bees make honey thing{i}", {**place, "document": document, "part": i})
        for i in range(3)
    ]
    index_passages(collection, [*parts, Passage("row-1", "a row about honey", {"author": "Ann"})], ENCODER)
    store = PlusVectorStore(collection)
    (node, *_) = store.query(query("bees make honey thing1")).nodes
    assert (node.metadata["file_name"], node.metadata["page_label"]) == ("bees.pdf", "4")
    assert node.ref_doc_id == document and node.node_id == f"{document}#1"
    shown = node.get_content(MetadataMode.LLM)
    assert shown == node.get_content(MetadataMode.EMBED)
    assert set(shown.splitlines()) - {"", node.text} == {
        "file_path: a/bees.pdf",
        "page_label: 4",
        "header_path: Bees > Honey",
    }
    assert set(store.query(query("honey", doc_ids=[document, "row-1"])).ids) <= {*(part.id for part in parts), "row-1"}
    assert store.query(query("a row about honey", doc_ids=["row-1"])).ids == ["row-1"]
    assert store.query(query("honey", doc_ids=["nothing"])).ids == []
    row = store.query(query("a row about honey")).nodes[0]
    assert row.ref_doc_id is None and "author: Ann" in row.get_content(MetadataMode.LLM)


NODES = [
    TextNode(id_="plain", text="bees make honey"),
    TextNode(
        text="whales sing songs",
        metadata={"animal": "whale", "size": 30.5, "secret": "x"},
        excluded_embed_metadata_keys=["secret"],
        excluded_llm_metadata_keys=["size"],
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="sea", metadata={"page": 1}, hash="h"),
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="plain"),
        },
        start_char_idx=3,
        end_char_idx=20,
        metadata_template="{key}={value}",
        text_template="{metadata_str} | {content}",
    ),
    IndexNode(text="a table of ants", index_id="ants", metadata={"document": "its own"}),
    Document(id_="whole", text="a document without parts"),
]


def fresh(node, **fields):
    return type(node).from_dict({**node.to_dict(), **fields})


def test_what_is_written_is_what_is_read(collection):
    store = PlusVectorStore(collection)
    nodes = [fresh(node) for node in NODES]
    assert store.add(nodes) == [node.node_id for node in NODES]
    read = {node.node_id: node for node in store.get_nodes(node_ids=[node.node_id for node in NODES])}
    for node in NODES:
        back = read[node.node_id]
        # LlamaIndex reads a document as a node of text
        assert type(back) is (TextNode if type(node) is Document else type(node))
        assert fresh(back, embedding=None).to_dict() == type(back).from_dict(node.to_dict()).to_dict()
        own = ENCODER.encode_passages([node.get_content(MetadataMode.EMBED)])[0]
        assert back.embedding == pytest.approx(own.tolist(), abs=1e-6)
    found = store.query(query("honey")).nodes[0]
    assert found.text == "bees make honey" and found.embedding is None


def test_nodes_are_passages_of_the_collection_too(collection):
    PlusVectorStore(collection).add([fresh(node) for node in NODES])
    whale = NODES[1]
    passage = collection.fetch([whale.node_id])[whale.node_id]
    assert passage.text == whale.get_content(MetadataMode.EMBED) == "animal=whale\nsize=30.5 | whales sing songs"
    assert passage.metadata == {"animal": "whale", "size": 30.5, "secret": "x", "document": "sea"}
    assert collection.with_encoder(ENCODER).search(passage.text, k=1)[0].id == whale.node_id
    assert collection.fetch([NODES[2].node_id])[NODES[2].node_id].metadata == {"document": "its own"}


def test_nodes_that_are_added_again_replace_themselves(collection):
    store = PlusVectorStore(collection)
    store.add([fresh(node) for node in NODES])
    store.add([fresh(node) for node in NODES])
    assert len(store.get_nodes()) == 30 + len(NODES)
    store.add([fresh(NODES[0], text="bees sleep")])
    (bees,) = store.get_nodes(node_ids=["plain"])
    assert bees.text == "bees sleep" and len(store.get_nodes()) == 30 + len(NODES)


def test_nodes_go_by_document_id_and_filter_when_they_are_deleted(collection):
    store = PlusVectorStore(collection)
    store.add([fresh(node) for node in NODES])
    store.delete("sea")
    assert store.get_nodes(node_ids=[NODES[1].node_id]) == []
    store.delete("whole")
    assert store.get_nodes(node_ids=["whole"]) == []
    store.delete_nodes(filters=only(MetadataFilter(key="topic", value=3)))
    assert {node.metadata.get("topic") for node in store.get_nodes()} == {0, 1, 2, 4, 5, 6, None}
    store.delete_nodes(node_ids=["p0", "p1", "p2"], filters=only(MetadataFilter(key="topic", value=1)))
    assert [node.node_id for node in store.get_nodes(node_ids=["p0", "p1", "p2"])] in (["p0", "p2"], ["p2", "p0"])
    with pytest.raises(UsageError, match="say which nodes to delete; clear"):
        store.delete_nodes()
    store.clear()
    assert store.get_nodes() == []
    store.add([fresh(NODES[0])])
    assert [node.node_id for node in store.get_nodes()] == ["plain"]


def test_get_nodes_reads_no_more_than_the_limit_and_nothing_for_no_ids(collection):
    store = PlusVectorStore(collection)
    assert len(store.get_nodes(limit=7)) == 7
    assert store.get_nodes(node_ids=[]) == []
    assert len(store.query(query("passage", node_ids=[])).ids) == 3, "as an index asks"
    assert len(store.get_nodes(filters=only(MetadataFilter(key="even", value=1)))) == 0


def test_a_filter_without_a_value_names_the_operator_that_finds_missing_fields(collection):
    for operator in (FilterOperator.EQ, NE, GT):
        with pytest.raises(InputError, match="'year' has no value: FilterOperator.IS_EMPTY finds nodes without"):
            ids_of(PlusVectorStore(collection), MetadataFilter(key="year", value=None, operator=operator))


def test_an_embedding_in_place_of_its_encoder_is_refused_with_what_is_to_be_given(collection, folder_of_models):
    manager = CollectionManager(collection.client)
    embedding = PlusEmbedding(folder_of_models / "base", device="cpu")
    for method in (manager.ensure, manager.open, manager.adopt):
        with pytest.raises(
            InputError, match="encoder is a PlusEmbedding, .*: give the `encoder` of this PlusEmbedding"
        ):
            method(collection.name, embedding)


def test_a_node_whose_id_a_file_has_is_refused(collection):
    part = SourceDocument("bees.md", [Passage("bees.md#0", "bees make honey", {})])
    collection.with_encoder(ENCODER).sync([part], source="notes")
    with pytest.raises(InputError, match="belongs to source 'notes'"):
        PlusVectorStore(collection).add([TextNode(id_="bees.md#0", text="wasps do not")])


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (
            TextNode(id_="odd", text="  "),
            "node 'odd' has no text: leave pictures and empty nodes out, as plus_node_parser",
        ),
        (TextNode(id_="odd", text="a \ud800"), "text of node 'odd'"),
        (TextNode(id_="odd", text="a", metadata={"x": float("nan")}), "'odd': metadata field 'x' is nan"),
        (TextNode(id_="odd", text="a", embedding=[float("nan")] * 256), "vectors of nodes: row 0 holds NaN"),
        ("a text", "node is 'a text', expected a node of LlamaIndex"),
        (TextNode(id_="odd", text="a", metadata={"x": np.float32(1)}), "of node 'odd' cannot be written as JSON"),
    ],
    ids=["empty", "surrogate", "metadata", "vector", "text", "numpy"],
)
def test_a_node_that_cannot_be_stored_is_refused_by_name(collection, node, said):
    with pytest.raises(InputError, match=said):
        PlusVectorStore(collection).add([node])
    assert collection.gateway.count() == 30


# Search by words, by both, and for diverse hits


@pytest.fixture(params=ENGINES)
def worded(request, tmp_path):
    for client in client_of(request.param, tmp_path / "worded"):
        settings = CollectionSettings(lexical=Bm25())
        store = PlusVectorStore(CollectionManager(client).ensure("worded", APART, settings=settings))
        store.add([TextNode(id_=passage.id, text=passage.text, metadata={}) for passage in numbered(30)])
        yield store


def by(mode, text, **settings):
    vector = APART.encode_queries([text])[0].tolist()
    mode = VectorStoreQueryMode(mode)
    return VectorStoreQuery(query_embedding=vector, similarity_top_k=3, query_str=text, mode=mode, **settings)


def test_words_are_searched_as_the_collection_searches_them(worded):
    hits = worded.collection.search_lexical(["thing7"], k=3)[0]
    for mode in ("sparse", "text_search"):
        found = worded.query(by(mode, "thing7"))
        assert found.ids == [hit.id for hit in hits] == ["p7"]
        assert found.similarities == pytest.approx([hit.score for hit in hits])
    assert len(worded.query(by("sparse", "topic3", sparse_top_k=2)).ids) == 2


def test_hybrid_search_is_the_collections_own_and_alpha_weighs_it(worded):
    hits = worded.collection.search_hybrid(["passage thing7 topic2"], k=3)[0]
    for mode in ("hybrid", "semantic_hybrid"):
        assert worded.query(by(mode, "passage thing7 topic2")).ids == [hit.id for hit in hits]
    assert len(worded.query(by("hybrid", "passage thing7", hybrid_top_k=9)).ids) == 9
    dense, words = (worded.query(by(mode, "topic2 thing7")).ids for mode in ("default", "sparse"))
    assert worded.query(by("hybrid", "topic2 thing7", alpha=1.0)).ids == dense
    assert worded.query(by("hybrid", "topic2 thing7", alpha=0.0)).ids == words


def test_diverse_hits_are_those_of_a_search_with_diversity(worded):
    hits = worded.collection.search("topic2 thing7", k=3, diversity=0.9)
    assert worded.query(by("mmr", "topic2 thing7", mmr_threshold=0.1)).ids == [hit.id for hit in hits]
    assert (
        worded.query(by("mmr", "topic2 thing7"), mmr_threshold=1.0).ids
        == worded.query(by("default", "topic2 thing7")).ids
    )


def test_a_mode_or_option_that_there_is_not_is_refused_with_those_there_are(worded):
    with pytest.raises(NotSupportedError, match="no query mode 'svm' here, expected one of default, sparse"):
        worded.query(by("svm", "x"))
    with pytest.raises(NotSupportedError, match=r"no lexical vectors: add them with Collection.add_lexical"):
        PlusVectorStore(CollectionManager(worded.client).ensure("wordless", APART)).query(by("sparse", "x"))
    with pytest.raises(InputError, match=r"a query by words \(hybrid\) needs its text: give query_str"):
        worded.query(VectorStoreQuery(query_embedding=[1.0] * 64, mode=VectorStoreQueryMode.HYBRID))
    with pytest.raises(UsageError, match="search_params has 'indexed_only', expected hnsw_ef and exact"):
        worded.query(by("default", "x"), search_params={"indexed_only": True})
    with pytest.raises(InputError, match="alpha is 7"):
        worded.query(by("hybrid", "x", alpha=7))
    with pytest.raises(InputError, match="mmr_threshold is 2"):
        worded.query(by("mmr", "x", mmr_threshold=2))
    with pytest.raises(InputError, match="expected a VectorStoreQuery"):
        worded.query("x")
    with pytest.raises(NotSupportedError, match="no query mode 'nearest' here"):
        worded.query(VectorStoreQuery(query_str="x", mode="nearest"))
    exact = worded.query(by("default", "thing7"), search_params=models.SearchParams(exact=True))
    assert exact.ids[0] == "p7"
    topic = models.Filter(must=[models.FieldCondition(key="text", match=models.MatchText(text="thing7"))])
    assert worded.query(by("default", "thing3"), qdrant_filters=topic).ids == ["p7"]


def test_a_mode_may_be_given_by_its_name(worded):
    named = VectorStoreQuery(query_str="topic2 thing7", similarity_top_k=3, mode="hybrid")
    assert worded.query(named).ids == worded.query(by("hybrid", "topic2 thing7")).ids


async def test_an_option_that_nothing_reads_is_refused_and_not_left_out(worded):
    index = VectorStoreIndex.from_vector_store(worded, embed_model=MockEmbedding(64))
    misspelt = index.as_retriever(vector_store_query_mode="sparse", vector_store_kwargs={"mmr_treshold": 0.1})
    with pytest.raises(
        UsageError, match="no option 'mmr_treshold': expected one of qdrant_filters, search_params, mmr"
    ):
        misspelt.retrieve("thing7")
    with pytest.raises(UsageError, match="'shard_identifier': Qdrant chooses the shard here"):
        worded.query(by("default", "x"), shard_identifier=1)
    said = "has no option 'dry_run': it takes none"
    for call in (
        lambda: index.insert_nodes([TextNode(text="x")], dry_run=True),
        lambda: worded.delete("p1", dry_run=True),
        lambda: worded.delete_nodes(["p1"], dry_run=True),
    ):
        with pytest.raises(UsageError, match=said):
            call()
    for awaited in (
        worded.async_add([TextNode(text="x")], dry_run=True),
        worded.adelete("p1", dry_run=True),
        worded.adelete_nodes(["p1"], dry_run=True),
    ):
        with pytest.raises(UsageError, match=said):
            await awaited
    assert len(worded.get_nodes()) == 30


# The guard


def test_a_vector_of_another_model_is_neither_written_nor_searched(collection):
    store = PlusVectorStore(collection)
    with pytest.raises(SpaceMismatchError, match="node 'odd': its vector is not what 'words@"):
        store.add([TextNode(id_="fine", text="thing3"), TextNode(id_="odd", text="thing4", embedding=[1.0] * 256)])
    with pytest.raises(SpaceMismatchError, match=r"not what 'words@.* makes of 'thing17' \(cosine"):
        store.query(VectorStoreQuery(query_embedding=[1.0] * 256, query_str="thing17"))
    with pytest.raises(VectorError, match="expected"):
        store.query(VectorStoreQuery(query_embedding=[1.0] * 8, query_str="thing17"))
    assert len(store.get_nodes()) == 30


def test_one_odd_vector_among_many_of_an_unknown_model_is_found_where_all_are_odd(collection):
    encoder = DirectionEncoder(dimension=256)
    texts = [f"thing{i}" for i in range(300)]
    rows = encoder.encode_passages(texts).tolist()
    with pytest.raises(SpaceMismatchError):
        PlusVectorStore(collection).add(
            [TextNode(text=text, embedding=row) for text, row in zip(texts, rows, strict=True)]
        )
    assert len(PlusVectorStore(collection).get_nodes()) == 30


def test_few_vectors_of_a_call_are_made_again_and_none_that_our_embedding_made(collection):
    encoder = WordEncoder(dimension=256)
    store = PlusVectorStore(collection.with_encoder(encoder))
    texts = [f"number{i} of many" for i in range(300)]
    rows = ENCODER.encode_passages(texts).tolist()
    nodes = [TextNode(text=text, embedding=row) for text, row in zip(texts, rows, strict=True)]
    store.add(nodes)
    assert 0 < len(encoder.encoded) <= 2 * SAMPLES, "a call is written in pages of 256"
    remember(rows, Maker(ENCODER.space, ""))
    encoder.encoded.clear()
    store.add(nodes)
    assert encoder.encoded == []


def test_the_embeddings_of_two_models_are_told_apart_without_embedding_anything(folder_of_models):
    own, other = (PlusEmbedding(folder_of_models / name, device="cpu") for name in ("base", "weights"))
    store = PlusVectorStore.from_location(":memory:", "docs", own)
    nodes = [TextNode(text=text) for text in TEXTS]
    VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=own)
    assert len(store.get_nodes()) == len(TEXTS)
    named = re.escape(f"holds vectors of '{own.space}', this one is of '{other.space}'")
    with pytest.raises(SpaceMismatchError, match=named):
        VectorStoreIndex.from_vector_store(store, embed_model=other).insert_nodes([TextNode(text="a dog")])
    with pytest.raises(SpaceMismatchError, match=named):
        VectorStoreIndex.from_vector_store(store, embed_model=other).as_retriever().retrieve("a dog")
    assert len(store.get_nodes()) == len(TEXTS)
    assert VectorStoreIndex.from_vector_store(store, embed_model=own).as_retriever().retrieve("a dog")[0].text


def test_another_query_prompt_is_another_space(folder_of_models):
    own = PlusEmbedding(folder_of_models / "base", device="cpu")
    store = PlusVectorStore.from_location(":memory:", "docs", own)
    store.add([TextNode(text=text) for text in TEXTS])
    odd = PlusEmbedding(folder_of_models / "base", device="cpu", query_prompt="bird bird bird : ")
    with pytest.raises(SpaceMismatchError, match="give the index the embedding that filled"):
        VectorStoreIndex.from_vector_store(store, embed_model=odd).as_retriever().retrieve("a dog")


def test_a_model_that_says_nothing_of_itself_is_refused_by_what_it_makes(collection):
    store = PlusVectorStore(collection)
    mock = MockEmbedding(embed_dim=256)
    with pytest.raises(SpaceMismatchError, match="makes of 'anything'"):
        VectorStoreIndex.from_vector_store(store, embed_model=mock).as_retriever().retrieve("anything")
    with pytest.raises(SpaceMismatchError, match="of its text"):
        VectorStoreIndex.from_documents(
            [Document(text="x y")], StorageContext.from_defaults(vector_store=store), embed_model=mock
        )


def test_several_texts_for_one_query_may_make_its_vector(folder_of_models):
    own = PlusEmbedding(folder_of_models / "base", device="cpu")
    store = PlusVectorStore.from_location(":memory:", "docs", own)
    store.add([TextNode(text=text) for text in TEXTS])
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=own).as_retriever(similarity_top_k=1)
    imagined = QueryBundle("anything", custom_embedding_strs=["a dog", "the dog"])
    assert retriever.retrieve(imagined)[0].text == "a dog"


def test_a_query_of_text_alone_is_embedded_and_one_without_its_text_is_warned_of(worded, caplog):
    store = worded
    assert store.query(VectorStoreQuery(query_str="thing17")).ids == ["p17"]
    assert store.query(VectorStoreQuery(query_embedding=[0.0] * 64, query_str="thing17")).ids == ["p17"]
    vector = APART.encode_queries(["thing18 and more"])[0].tolist()
    assert store.query(VectorStoreQuery(query_embedding=vector)).ids == ["p18"]
    assert "a vector without its text" in caplog.text
    with pytest.raises(InputError, match="neither a text nor a vector"):
        store.query(VectorStoreQuery())


def test_the_adapter_of_the_collection_maps_the_vectors_of_its_base(worded, caplog):
    collection = worded.collection
    # turns every query towards another word
    turn = QueryAdapter(np.outer(APART.encode_queries(["thing5"]), APART.encode_queries(["thing9"])) * 5, APART.space)
    adapted = collection.with_encoder(AdaptedEncoder(APART, turn))
    expected, plain = ([hit.id for hit in each.search("thing5", k=3)] for each in (adapted, collection))
    assert expected[0] == "p9" and plain[0] == "p5"
    store = PlusVectorStore(adapted)
    assert store.query(by("default", "thing5")).ids == expected
    vector = adapted.required_encoder().encode_queries(["thing5"])[0].tolist()
    mapped = VectorStoreQuery(query_embedding=vector, query_str="thing5", similarity_top_k=3)
    assert store.query(mapped).ids == expected, "a vector that the adapter has mapped is not mapped twice"
    assert worded.query(by("default", "thing5")).ids == plain
    assert "serves with" not in caplog.text
    other = APART.encode_queries(["thing4 thing5"])
    remember(other.tolist(), Maker(APART.space, "adapter@0"))
    store.query(VectorStoreQuery(query_embedding=other[0].tolist(), query_str="thing4"))
    assert f"serves with {turn.build}, and is asked with adapter@0" in caplog.text


def test_a_collection_without_its_encoder_makes_no_store(collection):
    with pytest.raises(UsageError, match="was opened without an encoder: open it with one"):
        PlusVectorStore(CollectionManager(collection.client).open("docs"))
    for call in (lambda: PlusVectorStore("docs"), lambda: PlusVectorStore(client=1, collection_name="docs")):
        with pytest.raises(
            UsageError, match=r"(collection is 'docs'|no option 'client'), expected one .*from_location"
        ):
            call()
    with pytest.raises(UsageError, match=r"'all-MiniLM-L6-v2', expected a PlusEmbedding, such as PlusEmbedding"):
        PlusVectorStore.from_location(":memory:", "docs", "all-MiniLM-L6-v2")


def test_vectors_of_another_length_lead_to_the_embedding_of_the_index(collection):
    other = VectorStoreIndex.from_vector_store(PlusVectorStore(collection), embed_model=MockEmbedding(8))
    for call in (lambda: other.as_retriever().retrieve("bees"), lambda: other.insert_nodes([TextNode(text="bees")])):
        with pytest.raises(
            VectorError, match=r"has 8 numbers, expected 256 .*: give the index the embedding that fill"
        ):
            call()


# Collections of other programs


def test_a_collection_that_llamaindex_filled_is_written_as_llamaindex_writes_it(tmp_path):
    with closing(connect(tmp_path)) as client:
        vectors = ENCODER.encode_passages([passage.text for passage in numbered(20)])
        nodes = [
            TextNode(text=passage.text, embedding=row.tolist())
            for passage, row in zip(numbered(20), vectors, strict=True)
        ]
        theirs = QdrantVectorStore(collection_name="nodes", client=client)
        theirs.add(nodes)
        store = PlusVectorStore(CollectionManager(client).adopt("nodes", ENCODER))
        assert store.query(query("thing7")).nodes[0].get_content() == nodes[7].get_content()
        store.add([fresh(NODES[1])])
        (read,) = theirs.get_nodes(node_ids=[NODES[1].node_id])
        assert fresh(read, embedding=None).to_dict() == NODES[1].to_dict()
        assert client.count("nodes").count == 21
        with pytest.raises(InputError, match="ids in a collection that LlamaIndex filled are UUIDs"):
            store.add([TextNode(id_="plain", text="bees")])
        with pytest.raises(SpaceMismatchError):
            store.add([TextNode(text="bees", embedding=[1.0] * 256)])
        store.delete("sea")
        assert client.count("nodes").count == 20


def test_sparse_vectors_of_another_program_are_not_left_out(tmp_path):
    with closing(connect(tmp_path)) as client:
        vectors = {"text-dense": models.VectorParams(size=256, distance=models.Distance.COSINE)}
        client.create_collection(
            "nodes", vectors, sparse_vectors_config={"text-sparse-new": models.SparseVectorParams()}
        )
        theirs = QdrantVectorStore(collection_name="nodes", client=client)
        theirs.add([fresh(NODES[1], embedding=ENCODER.encode_passages([NODES[1].get_content(MetadataMode.EMBED)])[0])])
        store = PlusVectorStore(CollectionManager(client).adopt("nodes", ENCODER))
        assert store.query(query("whales sing")).ids == [NODES[1].node_id]
        with pytest.raises(NotSupportedError, match="sparse vectors 'text-sparse-new' of another program"):
            store.add([TextNode(text="bees")])


def test_a_collection_of_another_program_is_read_and_not_written(tmp_path):
    with closing(connect(tmp_path)) as client:
        vectors = models.VectorParams(size=256, distance=models.Distance.COSINE)
        client.create_collection("pages", vectors)
        row = ENCODER.encode_passages(["bees make honey"])[0].tolist()
        page = {"page_content": "bees make honey", "metadata": {"page": 3}}
        client.upsert("pages", [models.PointStruct(id=1, vector=row, payload=page)])
        store = PlusVectorStore(CollectionManager(client).adopt("pages", ENCODER))
        (node,) = store.query(query("honey")).nodes
        assert (node.text, node.metadata) == ("bees make honey", {"page": 3})
        for write in (lambda: store.add([TextNode(text="x")]), lambda: store.delete("x"), store.clear):
            with pytest.raises(NotSupportedError, match="layout of 'langchain', which holds no nodes"):
                write()
        assert client.count("pages").count == 1


@pytest.mark.parametrize(
    "content", ["", "nothing", "[]", '{"metadata": 3}', '{"class_name": "TextNode", "text": 4}', "[" * 5000]
)
def test_a_payload_that_is_no_node_is_read_as_a_passage(collection, content):
    payload = {"passage_id": "odd", "text": "bees make honey", "metadata": {}, "_node_content": content}
    row = ENCODER.encode_passages(["bees make honey"])[0].tolist()
    collection.client.upsert("docs", [models.PointStruct(id=1, vector=row, payload=payload)])
    (node,) = PlusVectorStore(collection).query(query("bees make honey", node_ids=None, doc_ids=None)).nodes[:1]
    assert node.get_content() == "bees make honey"


# Locations, asynchronous calls, processes


async def test_everything_can_be_awaited_over_the_same_engine(collection):
    store = PlusVectorStore(collection)
    await store.async_add([fresh(node) for node in NODES])
    found = await asyncio.gather(*(store.aquery(query(f"thing{i}")) for i in range(20)))
    assert [result.ids[0] for result in found] == [f"p{i}" for i in range(20)]
    assert len(await store.aget_nodes(node_ids=["plain", "p1"])) == 2
    await store.adelete("sea")
    await store.adelete_nodes(node_ids=["plain"])
    assert await store.aget_nodes(node_ids=["plain", NODES[1].node_id]) == []
    await store.aclear()
    assert await store.aget_nodes() == []


def test_a_location_is_opened_again_and_nothing_is_doubled(folder_of_models, tmp_path):
    embedding = PlusEmbedding(folder_of_models / "base", device="cpu")
    notes = [Document(id_=f"note-{i}", text=text) for i, text in enumerate(TEXTS)]
    for _ in range(2):
        with closing(PlusVectorStore.from_location(tmp_path / "notes", "notes", embedding)) as store:
            context = StorageContext.from_defaults(vector_store=store)
            VectorStoreIndex.from_documents(
                notes, context, embed_model=embedding, transformations=[plus_node_parser(embedding)]
            )
            stored = store.get_nodes()
    assert sorted({node.ref_doc_id for node in stored}) == [note.doc_id for note in notes]
    assert len(stored) == len(TEXTS)
    with closing(PlusVectorStore.from_location(tmp_path / "notes", "notes", embedding)) as store:
        assert store.collection.lexical == Bm25()
        retriever = VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(similarity_top_k=1)
        assert retriever.retrieve("a dog")[0].text == "a dog"
        with pytest.raises(NotSupportedError, match=r"make it there anew with from_location\(\)"):
            pickle.dumps(store)
        assert copy.deepcopy(store).get_nodes(limit=1) == store.get_nodes(limit=1)
    with pytest.raises(SpaceMismatchError):
        PlusVectorStore.from_location(
            tmp_path / "notes", "notes", PlusEmbedding(folder_of_models / "weights", device="cpu")
        )
    # the refused one has let go of the folder
    connect(tmp_path / "notes").close()


def test_a_pipeline_writes_into_the_store(folder_of_models, tmp_path):
    embedding = PlusEmbedding(folder_of_models / "base", device="cpu")
    store = PlusVectorStore.from_location(":memory:", "notes", embedding)
    pipeline = IngestionPipeline(
        transformations=[plus_node_parser(embedding), embedding], vector_store=store, docstore=SimpleDocumentStore()
    )
    notes = [Document(id_=f"note-{i}", text=text) for i, text in enumerate(TEXTS)]
    assert [len(pipeline.run(documents=notes)) for _ in range(2)] == [len(TEXTS), 0]
    changed = [notes[0], Document(id_="note-1", text="a bird")]
    assert len(pipeline.run(documents=changed)) == 1
    assert {node.text for node in store.get_nodes()} == {*TEXTS, "a bird"} - {TEXTS[1]}
