"""A vector store searches as its collection is served: exactly where that is cheap, and with the promoted adapter."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.qdrant import QdrantVectorStore
from models import TEXTS, save_model
from tiny import ENGINES, DirectionEncoder, client_of, numbered

from llama_index_embed_plus import PlusEmbedding
from llama_index_embed_plus.integrations.vector_store import PlusVectorStore
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.switch import rollback
from qdrant_tools.search import choosing
from qdrant_tools.search.adapters import AdaptedEncoder, Adapter, OrthogonalMap

ENCODER = DirectionEncoder(dimension=64)


def nodes(count: int, start: int = 0) -> list[TextNode]:
    return [TextNode(id_=passage.id, text=passage.text) for passage in numbered(count, start=start)]


def asked(text: str) -> VectorStoreQuery:
    return VectorStoreQuery(query_str=text, similarity_top_k=3)


# How it is searched


def test_a_store_of_few_nodes_is_searched_exactly_by_whoever_opens_it(tmp_path):
    with closing(connect(tmp_path)) as client:
        store = PlusVectorStore(CollectionManager(client).ensure("docs", ENCODER))
        for start in range(0, 60, 20):
            store.add(nodes(20, start))
        for collection in (store.collection, CollectionManager(client).open("docs")):
            assert collection.searches_exactly
            assert collection.metadata.search.points == 60 and collection.metadata.search.recall == 1.0


def test_what_was_said_of_the_search_stays(tmp_path):
    with closing(connect(tmp_path)) as client:
        store = PlusVectorStore(CollectionManager(client).ensure("docs", ENCODER))
        store.add(nodes(20))
        store.collection.choose_search(hnsw_ef=77)
        store.add(nodes(20, 20))
        assert store.collection.hnsw_ef == 77 and not store.collection.searches_exactly


def test_a_store_of_many_nodes_says_once_what_measures_its_search(tmp_path, monkeypatch, caplog):
    with closing(connect(tmp_path)) as client:
        store = PlusVectorStore(CollectionManager(client).ensure("docs", ENCODER))
        monkeypatch.setattr(choosing, "EXACT_BYTES", 64 * 4 * 30)
        for start in range(0, 60, 20):
            store.add(nodes(20, start))
        (said,) = [record.getMessage() for record in caplog.records if "measure" in record.getMessage()]
        assert "call store.collection.build_index()" in said
        store.collection.build_index()
        caplog.clear()
        PlusVectorStore(store.collection).add(nodes(1, 60))
        assert store.collection.metadata.search.points == 60 and not caplog.records


def test_a_collection_of_llamaindex_finds_what_exact_search_finds_once_it_is_adopted(tmp_path):
    with closing(connect(tmp_path)) as client:
        texts = [node.text for node in nodes(60)]
        rows = ENCODER.encode_passages(texts).tolist()
        theirs = QdrantVectorStore(collection_name="docs", client=client)
        theirs.add([TextNode(text=text, embedding=row) for text, row in zip(texts, rows, strict=True)])
        store = PlusVectorStore(CollectionManager(client).adopt("docs", ENCODER))
        assert store.collection.searches_exactly and CollectionManager(client).open("docs").searches_exactly
        nearest = np.argsort(-(np.array(rows) @ ENCODER.encode_queries(["thing7 topic3"])[0]))[:3]
        assert [node.text for node in store.query(asked("thing7 topic3")).nodes] == [texts[i] for i in nearest]
        # the program that filled it goes on
        assert len(theirs.get_nodes(limit=10)) == 10


# What serves


@pytest.fixture(params=ENGINES)
def alias(request, tmp_path):
    """A manager of the empty collection `docs-1` behind the alias `docs`, and the embedding that it is for."""
    save_model(tmp_path / "model")
    embedding = PlusEmbedding(tmp_path / "model", device="cpu")
    for client in client_of(request.param, tmp_path / "served"):
        manager = CollectionManager(client)
        manager.ensure("docs-1", embedding.encoder)
        manager.switch_alias("docs", "docs-1")
        yield manager, embedding


def retriever_of(manager: CollectionManager, embedding: PlusEmbedding):
    """What an application holds, from a start on."""
    store = PlusVectorStore(manager.open("docs", embedding.encoder))
    return VectorStoreIndex.from_vector_store(store, embed_model=embedding).as_retriever(similarity_top_k=1)


def from_text_to_text(embedding: PlusEmbedding, asked: str, found: str) -> Adapter:
    """The reflection that takes the query of one text to the passage of another."""
    (one,), (other,) = embedding.encoder.encode_queries([asked]), embedding.encoder.encode_passages([found])
    step = (one - other) / np.linalg.norm(one - other)
    return Adapter(OrthogonalMap((np.eye(len(one)) - 2 * np.outer(step, step)).astype(np.float32)), embedding.space)


async def test_a_promoted_adapter_serves_the_stores_that_are_opened_from_then_on_until_it_is_rolled_back(alias):
    manager, embedding = alias
    running = PlusVectorStore(manager.open("docs", embedding.encoder))
    VectorStoreIndex(
        [TextNode(text=text) for text in TEXTS],
        storage_context=StorageContext.from_defaults(vector_store=running),
        embed_model=embedding,
    )

    async def first(retriever) -> str:
        (one,), (other,) = retriever.retrieve(TEXTS[0]), await retriever.aretrieve(TEXTS[0])
        assert one.text == other.text
        return one.text

    before = retriever_of(manager, embedding)
    plain = await first(before)
    found = next(text for text in TEXTS if text != plain)
    adapted = AdaptedEncoder(embedding.encoder, from_text_to_text(embedding, TEXTS[0], found))
    promotion = Promotion(manager, "docs", adapted)
    promotion.build()
    promotion.switch(force=True)
    assert await first(before) == plain, "what is open goes on as it was opened"
    assert await first(retriever_of(manager, embedding)) == found
    rollback(manager, "docs")
    assert await first(retriever_of(manager, embedding)) == plain
