"""`plus_node_parser` in LlamaIndex's own machinery, and the warning that names it."""

from __future__ import annotations

import random
import re
import uuid

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode, NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from llama_index_embed_plus import PlusEmbedding
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.integrations.node_parser import PlusNodeParser, plus_node_parser
from llama_index_embed_plus.serving import overlong
from qdrant_tools.errors import InputError, UsageError

PARAGRAPHS = [
    " ".join(f"Sentence {i} of paragraph {p} says that bees make honey in summer." for i in range(12)) for p in range(8)
]
LONG = "\n\n".join(PARAGRAPHS)
CHINESE = "".join(f"第{i}句说蜜蜂在夏天酿蜜。" for i in range(300))
GERMAN = " ".join(
    f"Die Donaudampfschifffahrtsgesellschaft {i} befördert Rindfleischetikettierungen." for i in range(150)
)
METADATA = {"file_path": "docs/bees.txt", "author": "Ann Example of the honey board", "year": 2020}


@pytest.fixture(scope="module")
def embedding(minilm):
    return PlusEmbedding(minilm, backend="torch")


@pytest.fixture(scope="module")
def parser(embedding):
    return plus_node_parser(embedding)


def lengths(embedding, nodes):
    return embedding.encoder.tokenizer.counts([node.get_content(MetadataMode.EMBED) for node in nodes])


@pytest.mark.parametrize("text", [LONG, CHINESE, GERMAN], ids=["english", "chinese", "german"])
@pytest.mark.parametrize("metadata", [{}, METADATA], ids=["bare", "with metadata"])
def test_no_node_is_longer_with_its_metadata_than_the_embedding_reads(embedding, parser, text, metadata):
    nodes = parser.get_nodes_from_documents([Document(id_="d", text=text, metadata=metadata)])
    assert len(nodes) > 2 and max(lengths(embedding, nodes)) <= embedding.encoder.tokenizer.room
    assert "".join(node.text for node in nodes).split() and re.sub(r"\s", "", "".join(n.text for n in nodes)) == re.sub(
        r"\s", "", text
    )
    before = embedding.encoder.truncated
    embedding(nodes)
    assert embedding.encoder.truncated == before


def test_excluded_metadata_takes_no_room(embedding, parser):
    bulky = {"note": "word " * 300, "year": 2020}
    document = Document(id_="d", text=LONG, metadata=bulky, excluded_embed_metadata_keys=["note"])
    nodes = parser.get_nodes_from_documents([document])
    assert max(lengths(embedding, nodes)) <= embedding.encoder.tokenizer.room
    assert all(node.metadata == bulky and node.excluded_embed_metadata_keys == ["note"] for node in nodes)
    document.excluded_embed_metadata_keys = []
    with pytest.raises(
        InputError, match=r"document 'd': its metadata.* leaves 0 of 254 tokens for the text: .*excluded_"
    ):
        parser.get_nodes_from_documents([document])


def test_nodes_know_their_document_their_neighbours_and_their_place(parser):
    document = Document(id_="d", text=LONG, metadata=METADATA)
    nodes = parser.get_nodes_from_documents([document])
    assert {node.ref_doc_id for node in nodes} == {"d"}
    for before, after in zip(nodes, nodes[1:], strict=False):
        assert before.relationships[NodeRelationship.NEXT].node_id == after.node_id
        assert after.relationships[NodeRelationship.PREVIOUS].node_id == before.node_id
    placed = [node for node in nodes if node.start_char_idx is not None]
    assert placed and all(LONG[node.start_char_idx : node.end_char_idx] == node.text for node in placed)


def test_ids_are_uuids_of_the_document_and_the_text(parser):
    first = parser.get_nodes_from_documents([Document(id_="d", text=LONG)])
    again = parser.get_nodes_from_documents([Document(id_="d", text=LONG)])
    assert [node.node_id for node in first] == [node.node_id for node in again]
    assert all(uuid.UUID(node.node_id) for node in first) and len({node.node_id for node in first}) == len(first)
    other = {node.node_id for node in parser.get_nodes_from_documents([Document(id_="e", text=LONG)])}
    assert not other & {node.node_id for node in first}


def test_an_edit_keeps_the_ids_of_what_it_does_not_touch(parser):
    chosen = random.Random(0)
    words = [f"word{i}" for i in range(500)]
    book = "\n\n".join(
        ". ".join(" ".join(chosen.choices(words, k=chosen.randint(4, 14))) for _ in range(chosen.randint(1, 9))) + "."
        for _ in range(120)
    )
    before, after = (
        {node.node_id for node in parser.get_nodes_from_documents([Document(id_="d", text=text)])}
        for text in (book, "A new first paragraph about wax and wood.\n\n" + book)
    )
    assert len(before) > 20 and len(before & after) >= len(before) - 5


def test_a_document_that_fits_is_one_node_as_it_is(parser):
    text = "# Bees\n\n\n  Bees make honey.\n"
    (node,) = parser.get_nodes_from_documents([TextNode(id_="n", text=text)])
    assert node.text == text and node.ref_doc_id == "n"


def test_headings_of_markdown_are_metadata_that_is_not_embedded(embedding):
    text = "# Bees\n\n" + PARAGRAPHS[0] + "\n\n## Honey\n\n" + "\n\n".join(PARAGRAPHS[1:3])
    document = Document(id_="d", text=text, metadata={"file_name": "bees.md"})
    nodes = plus_node_parser(embedding).get_nodes_from_documents([document])
    assert nodes[-1].metadata["header_path"] == "Bees > Honey"
    assert "Bees > Honey" not in nodes[-1].get_content(MetadataMode.EMBED)
    in_front = plus_node_parser(embedding, CutSettings(context="headings")).get_nodes_from_documents([document])
    assert "Bees > Honey" in in_front[-1].get_content(MetadataMode.EMBED)
    assert max(lengths(embedding, in_front)) <= embedding.encoder.tokenizer.room


def test_settings_are_kept(embedding):
    nodes = plus_node_parser(embedding, CutSettings(max_tokens=64)).get_nodes_from_documents([Document(text=LONG)])
    assert max(lengths(embedding, nodes)) <= 64
    with pytest.raises(UsageError, match="overlap is 200, expected at most"):
        plus_node_parser(embedding, CutSettings(overlap=200)).get_nodes_from_documents([Document(text=LONG)])


def test_an_empty_document_gives_no_node_and_is_said(parser, caplog):
    nodes = parser.get_nodes_from_documents([Document(text=" ", id_="notes/blank.txt"), Document(text="Bees.")])
    assert [node.text for node in nodes] == ["Bees."]
    assert "1 of 2 documents have no text and give no nodes: 'notes/blank.txt'" in caplog.text


def test_what_it_is_can_be_written_and_read(embedding):
    parser = plus_node_parser(embedding, CutSettings(max_tokens=100, overlap=10, context="headings"))
    again = PlusNodeParser.from_dict(parser.to_dict())
    assert (again.max_tokens, again.overlap, again.context) == (100, 10, "headings")
    assert again.embedding.space == embedding.space
    documents = [Document(id_="d", text=LONG)]
    assert [node.text for node in again(documents)] == [node.text for node in parser(documents)]


def test_a_pipeline_with_a_docstore_does_only_what_changed(embedding, parser):
    pipeline = IngestionPipeline(
        transformations=[parser, embedding],
        docstore=SimpleDocumentStore(),
        vector_store=SimpleVectorStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )
    documents = [Document(id_="a", text=LONG), Document(id_="b", text="Dogs bark.")]
    nodes = pipeline.run(documents=documents)
    assert len(nodes) > 2 and all(node.embedding for node in nodes)
    assert pipeline.run(documents=documents) == []
    assert [node.text for node in pipeline.run(documents=[documents[0], Document(id_="b", text="Dogs sleep.")])] == [
        "Dogs sleep."
    ]


async def test_asynchronously_too(embedding, parser):
    documents = [Document(id_="a", text=LONG, metadata=METADATA)]
    expected = [node.node_id for node in parser(documents)]
    assert [node.node_id for node in await parser.acall(documents)] == expected
    nodes = await IngestionPipeline(transformations=[parser, embedding]).arun(documents=documents)
    assert [node.node_id for node in nodes] == expected


def test_an_index_finds_the_end_of_a_long_document(embedding, parser):
    text = LONG + "\n\nThe lighthouse keeper repairs clocks at night."
    index = VectorStoreIndex.from_documents([Document(text=text)], embed_model=embedding, transformations=[parser])
    (hit,) = index.as_retriever(similarity_top_k=1).retrieve("who repairs clocks")
    assert "lighthouse" in hit.text


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(overlong, "_told", {})


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if "plus_node_parser" in record.getMessage()]


@pytest.mark.parametrize("text", [LONG, CHINESE, GERMAN], ids=["english", "chinese", "german"])
def test_texts_that_do_not_fit_are_said_once_with_settings_that_fit(minilm, caplog, untold, text):
    documents = [Document(text=text, metadata=METADATA)]
    nodes = SentenceSplitter(chunk_size=1024)(documents)
    first, second = PlusEmbedding(minilm, backend="torch"), PlusEmbedding(minilm, backend="torch")
    first(nodes)
    first.get_text_embedding(text)
    second.get_text_embedding(text)
    (said,) = warnings_of(caplog)
    assert "more than the 254 tokens" in said and "further ones are only counted" not in caplog.text
    size, overlap = map(int, re.search(r"chunk_size = (\d+) and Settings.chunk_overlap = (\d+)", said).groups())
    third = PlusEmbedding(minilm, backend="torch")
    third(SentenceSplitter(chunk_size=size, chunk_overlap=overlap)(documents))
    assert third.encoder.truncated == 0
