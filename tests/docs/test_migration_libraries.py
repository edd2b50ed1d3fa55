"""What the pages on migration say of other libraries holds for those libraries, where they are installed.

None of them is needed for anything else here: pip install --no-deps langchain-qdrant llama-index-embeddings-huggingface
"""

from __future__ import annotations

import re
from contextlib import closing

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.qdrant import QdrantVectorStore
from paths import DOCS
from qdrant_client import models
from tiny import DirectionEncoder

from llama_index_embed_plus import PlusEmbedding, PlusVectorStore
from qdrant_tools import CollectionManager, connect

LLAMA_INDEX = (DOCS / "migration" / "llamaindex.md").read_text()
LANGCHAIN = (DOCS / "migration" / "langchain.md").read_text()
ENCODER = DirectionEncoder()
TEXTS = {"Bees turn nectar into honey.": 6, "Whales sing to each other.": 0, "Herons wade in shallow water.": 2}
QUESTION = "who turns nectar into honey"


@pytest.fixture
def nodes():
    rows = ENCODER.encode_passages(list(TEXTS)).tolist()
    return [TextNode(text=text, metadata={"legs": TEXTS[text]}, embedding=row) for text, row in zip(TEXTS, rows)]


def test_ids_scores_and_metadata_of_an_adopted_collection_stay_what_they_were(tmp_path, nodes):
    question = VectorStoreQuery(query_str=QUESTION, query_embedding=ENCODER.encode_queries([QUESTION])[0].tolist())
    with closing(connect(tmp_path)) as client:
        theirs = QdrantVectorStore("notes", client=client)
        for node in nodes:
            node.excluded_embed_metadata_keys = ["legs"]
        theirs.add(nodes)
        before, after = (
            store.query(question)
            for store in (theirs, PlusVectorStore(CollectionManager(client).adopt("notes", ENCODER)))
        )
        assert after.ids == before.ids
        assert after.similarities == pytest.approx(before.similarities)
        assert [node.metadata for node in after.nodes] == [node.metadata for node in before.nodes]


def test_a_filter_of_qdrant_names_the_path_in_a_new_collection_and_the_field_in_an_adopted_one(tmp_path, nodes):
    assert "`metadata.legs` instead of `legs`" in LLAMA_INDEX
    with closing(connect(tmp_path)) as client:
        manager = CollectionManager(client)
        QdrantVectorStore("theirs", client=client).add([node.model_copy() for node in nodes])
        for node in nodes:
            node.embedding = None
        ours = PlusVectorStore(manager.ensure("ours", ENCODER))
        ours.add(nodes)
        for store, field in (
            (ours, "metadata.legs"),
            (PlusVectorStore(manager.adopt("theirs", ENCODER, similarity=0.1)), "legs"),
        ):
            condition = models.FieldCondition(key=field, match=models.MatchValue(value=0))
            by_path = store.query(VectorStoreQuery(query_str=QUESTION), qdrant_filters=models.Filter(must=[condition]))
            by_name = MetadataFilters(filters=[MetadataFilter(key="legs", value=0)])
            assert [node.get_content() for node in by_path.nodes] == ["Whales sing to each other."]
            assert store.query(VectorStoreQuery(query_str=QUESTION, filters=by_name)).ids == by_path.ids


def test_the_nodes_of_an_adopted_collection_become_a_hybrid_one_without_being_embedded(tmp_path, nodes):
    with closing(connect(tmp_path)) as client:
        QdrantVectorStore("notes", client=client).add([node.model_copy(update={"metadata": {}}) for node in nodes])
        store = PlusVectorStore(CollectionManager(client).adopt("notes", ENCODER))
        read = store.get_nodes()
    assert {node.get_content() for node in read} == {*TEXTS}
    with closing(PlusVectorStore.from_location(tmp_path / "new", "notes", ENCODER)) as new:
        ENCODER.encoded.clear()
        new.add(read)
        # a sample is compared with what the encoder makes of it, however many there are
        assert len(ENCODER.encoded) <= 4
        assert new.query(VectorStoreQuery(query_str="nectar", mode="hybrid", similarity_top_k=1)).nodes[0].text in TEXTS


def test_huggingface_embedding_makes_the_same_vectors_and_its_names_are_answered(minilm):
    theirs = pytest.importorskip("llama_index.embeddings.huggingface").HuggingFaceEmbedding(
        str(minilm), max_length=256, device="cpu"
    )
    ours = PlusEmbedding(minilm, max_tokens=256, device="cpu")
    for text in ("Bees make honey.", "Die Bienen machen Honig.", "word " * 600):
        assert ours.get_text_embedding(text) == pytest.approx(theirs.get_text_embedding(text), abs=1e-5)
        assert ours.get_query_embedding(text) == pytest.approx(theirs.get_query_embedding(text), abs=1e-5)
    table = LLAMA_INDEX.partition("## FastEmbed")[0]
    named = {name for row in re.findall(r"^\| (`[^|]+) \|", table, flags=re.M) for name in re.findall(r"`(\w+)", row)}
    known = {*type(theirs).model_fields, "max_length", "model_kwargs", "tokenizer", "target_devices", "backend"}
    assert named <= {*known, *type(theirs).__init__.__annotations__}


def test_a_collection_of_langchain_is_adopted_and_langchain_goes_on_with_it(tmp_path):
    langchain = pytest.importorskip("langchain_qdrant")
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings

    class Own(Embeddings):
        def embed_documents(self, texts):
            return ENCODER.encode_passages(texts).tolist()

        def embed_query(self, text):
            return ENCODER.encode_queries([text])[0].tolist()

    assert "LangChain goes on writing to it, and reading from it." in LANGCHAIN
    with closing(connect(tmp_path)) as client:
        client.create_collection("chain", models.VectorParams(size=64, distance=models.Distance.COSINE))
        theirs = langchain.QdrantVectorStore(client=client, collection_name="chain", embedding=Own())
        theirs.add_documents([Document(page_content=text, metadata={"legs": legs}) for text, legs in TEXTS.items()])
        adopted = CollectionManager(client).adopt("chain", ENCODER)
        (hit,) = adopted.search(QUESTION, k=1, filter={"legs": 6})
        assert hit.text == "Bees turn nectar into honey." and hit.metadata == {"legs": 6}
        theirs.add_texts(["Ants follow the scent of ants."])
        assert adopted.search("scent of ants", k=1)[0].text == "Ants follow the scent of ants."
        ((found, score),) = theirs.similarity_search_with_score(QUESTION, k=1)
        assert found.page_content == hit.text and score == pytest.approx(hit.score)
