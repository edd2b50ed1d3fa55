"""What programs give to `Collection.index`: objects of LlamaIndex and LangChain, dicts, strings; cut where too long."""

from __future__ import annotations

import re
import uuid

import pytest
from langchain_core.documents import Document as Page
from llama_index.core import SimpleDirectoryReader
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from tiny import WordEncoder

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.documents.passages import passage_cutter
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import IndexReport
from qdrant_tools.records import LimitedEncoder, Passage
from qdrant_tools.sources.origin import SourceDocument

LONG = " ".join(f"Sentence number {i} says that bee {i} makes honey." for i in range(60))


@pytest.fixture(scope="module")
def encoder(minilm):
    return open_encoder(minilm, backend="torch")


@pytest.fixture
def empty():
    return CollectionManager(connect(":memory:")).ensure("docs", WordEncoder())


@pytest.fixture
def docs(encoder):
    return CollectionManager(connect(":memory:")).ensure("docs", encoder)


def stored(collection):
    """Id -> (text, metadata) of all that is stored."""
    records, _ = collection.client.scroll(collection.name, limit=1000, with_payload=True)
    return {r.payload["passage_id"]: (r.payload["text"], r.payload["metadata"]) for r in records}


def test_llamaindex_documents_and_nodes_keep_their_ids_their_text_and_their_metadata(empty):
    document = Document(
        id_="d1", text="Bees make honey.", metadata={"file_name": "bees.txt", "year": 2020},
        excluded_embed_metadata_keys=["year"],
    )  # fmt: skip
    node = TextNode(id_="n1", text="Dogs bark.", metadata={"page": 3})
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="pets.txt")
    scored = NodeWithScore(node=TextNode(id_="n2", text="Cats purr."), score=0.5)
    assert empty.index([document, node, scored]) == IndexReport(added=3)
    assert stored(empty) == {
        "d1": ("Bees make honey.", {"file_name": "bees.txt", "year": 2020}),
        "n1": ("Dogs bark.", {"page": 3, "document": "pets.txt"}),
        "n2": ("Cats purr.", {}),
    }
    assert empty.index([document, node, scored]) == IndexReport(unchanged=3)
    # the text alone is embedded, whatever LlamaIndex would put in front of it
    assert {"Bees make honey.", "Dogs bark.", "Cats purr."} == set(empty.encoder.encoded)


def test_a_field_document_of_a_node_is_its_own(empty):
    node = TextNode(id_="n1", text="Dogs bark.", metadata={"document": "mine"})
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="pets.txt")
    empty.index([node])
    assert stored(empty)["n1"][1] == {"document": "mine"}


def test_langchain_documents_have_their_id_or_one_of_their_content(empty):
    pages = [
        Page(id="p1", page_content="Bees make honey.", metadata={"source": "a.txt"}),
        Page(page_content="Dogs bark.", metadata={"source": "a.txt"}),
        Page(page_content="Dogs bark.", metadata={"source": "b.txt"}),
    ]
    assert empty.index(pages) == IndexReport(added=3)
    ids = set(stored(empty)) - {"p1"}
    assert len(ids) == 2 and all(re.fullmatch("[0-9a-f]{32}", name) for name in ids)
    assert empty.index(pages) == IndexReport(unchanged=3)


def test_ids_of_a_database_are_ids_of_dicts(empty):
    name = uuid.uuid4()
    empty.index([{"id": 7, "text": "Bees make honey."}, {"id": name, "text": "Dogs bark."}])
    assert set(stored(empty)) == {"7", str(name)}
    assert empty.index([{"id": "7", "text": "Bees make honey."}]) == IndexReport(unchanged=1)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"id": "a", "page_content": "x"}, "has no field 'text', .*: is 'page_content' its text? Rename it"),
        ({"id": "a", "content": "x"}, "is 'content' its text? Rename it"),
        ({"id": True, "text": "x"}, "passage id is True, expected a non-empty string"),
        ({"id": 1.5, "text": "x"}, "passage id is 1.5, expected a non-empty string"),
        (object(), "expected a Passage, a dict with 'id' and 'text', or a string; or a document of LlamaIndex"),
        (TextNode(id_="n", text=""), "passage 'n' has the text '', expected a non-empty string"),
        (Document(id_="d", text="x", metadata={"made": 1j}), "metadata field 'made' is 1j"),
        (Page(page_content="x", metadata={"n": float("nan")}), "metadata field 'n' is nan: JSON has no NaN"),
    ],
)
def test_what_is_no_passage_is_refused_or_counted(empty, item, message):
    message = message.replace("?", r"\?").replace("(", r"\(")
    with pytest.raises(InputError, match=message):
        empty.index([{"id": "good", "text": "text"}, item])
    report = empty.index([{"id": "good", "text": "text"}, item], on_bad="count")
    assert (report.failed, len(stored(empty))) == (1, 1)
    assert re.search(message, report.failures[0].reason)


@pytest.mark.parametrize("alone", [Document(text="x"), TextNode(text="x"), Page(page_content="x")])
def test_one_document_instead_of_several_is_refused(empty, alone):
    with pytest.raises(InputError, match="expected several"):
        empty.index(alone)


@pytest.mark.parametrize(
    "document",
    [
        Document(id_="long", text=LONG, metadata={"year": 2020}),
        TextNode(id_="long", text=LONG, metadata={"year": 2020}),
        Page(id="long", page_content=LONG, metadata={"year": 2020}),
    ],
    ids=["LlamaIndex document", "LlamaIndex node", "LangChain document"],
)
def test_a_document_that_is_too_long_is_cut_and_a_passage_is_not(docs, encoder, document):
    report = docs.index([document])
    parts = stored(docs)
    assert report == IndexReport(added=len(parts)) and len(parts) > 1
    ordered = sorted(parts.items(), key=lambda part: part[1][1]["part"])
    assert " ".join(text for _, (text, _) in ordered).split() == LONG.split()
    assert all(re.fullmatch("long#[0-9a-f]{12}", name) for name in parts)
    assert [metadata for _, (_, metadata) in ordered] == [
        {"year": 2020, "document": "long", "part": part} for part in range(len(parts))
    ]
    assert encoder.count_overlong([text for text, _ in parts.values()]) == 0
    assert docs.index([document]) == IndexReport(unchanged=len(parts))
    assert docs.index([Passage("p", LONG), {"id": "d", "text": LONG}, "short", LONG]) == IndexReport(
        added=4, truncated=3
    )


def test_a_document_that_fits_keeps_its_id_and_its_text_as_it_is(docs):
    text = "# Bees\n\n\n  Bees make honey.\n"
    docs.index([Document(id_="d", text=text, metadata={"file_name": "bees.md"})])
    assert stored(docs) == {"d": (text, {"file_name": "bees.md"})}


def test_a_cutter_that_is_given_cuts_everything(docs, encoder):
    cutter = passage_cutter(encoder, CutSettings(max_tokens=64))
    docs.index([Passage("p", LONG), {"id": "d", "text": LONG}, Document(id_="n", text=LONG)], cutter=cutter)
    found = stored(docs)
    assert {metadata["document"] for _, metadata in found.values()} == {"p", "d", "n"}
    assert max(encoder.tokenizer.counts([text for text, _ in found.values()])) <= 64


def test_a_cutter_may_be_any_function(empty):
    def halves(passage):
        middle = len(passage.text) // 2
        return [
            Passage(f"{passage.id}/{i}", text) for i, text in enumerate((passage.text[:middle], passage.text[middle:]))
        ]

    empty.index(["bees wasp"], cutter=halves)
    assert sorted(text for text, _ in stored(empty).values()) == [" wasp", "bees"]
    report = empty.index(["bees wasp"], cutter=lambda passage: [3], on_bad="count")
    assert report.failed == 1


def test_an_encoder_that_cannot_cut_indexes_documents_whole(empty):
    assert not isinstance(empty.encoder, LimitedEncoder)
    assert empty.index([Document(id_="long", text=LONG)]) == IndexReport(added=1)


def test_an_adapter_leaves_what_its_encoder_can(encoder):
    adapted = AdaptedEncoder(encoder, QueryAdapter.identity(encoder.dimension, encoder.space))
    assert isinstance(adapted, LimitedEncoder)
    assert list(adapted.cut(Passage("p", LONG))) == list(encoder.cut(Passage("p", LONG)))
    assert adapted.count_overlong([LONG, "short"]) == 1
    words = WordEncoder()
    over_words = AdaptedEncoder(words, QueryAdapter.identity(words.dimension, words.space))
    assert list(over_words.cut(Passage("p", LONG))) == [Passage("p", LONG)]
    assert over_words.count_overlong([LONG]) == 0


def test_documents_of_files_with_random_ids_are_said(empty, tmp_path, caplog):
    (tmp_path / "bees.txt").write_text("Bees make honey.")
    empty.index(SimpleDirectoryReader(tmp_path).load_data())
    assert "1 documents of files have random ids" in caplog.text and "filename_as_id=True" in caplog.text
    caplog.clear()
    named = SimpleDirectoryReader(tmp_path, filename_as_id=True).load_data()
    report = empty.index(named)
    assert report.added == 1 and not caplog.text
    assert empty.index(named) == IndexReport(unchanged=1)


def test_nodes_of_a_llamaindex_splitter_name_their_document(empty):
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=0).get_nodes_from_documents([Document(id_="d1", text=LONG)])
    empty.index(nodes)
    assert {metadata["document"] for _, metadata in stored(empty).values()} == {"d1"}


def test_documents_that_programs_give_are_kept_in_step(docs):
    node = TextNode(
        id_="n1", text="Owls hunt.", relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="birds")}
    )
    given = [
        Document(id_="bees", text=LONG),
        node,
        Page("Herons wade.", id="heron"),
        {"id": 7, "text": "Seven."},
        "Words.",
    ]
    first = docs.sync(given, source="mine")
    assert first.documents == 5 and first.passages.added > 6 and first.passages.truncated == 0
    assert docs.sync(given, source="mine").passages == IndexReport(unchanged=first.passages.added)
    shorter = docs.sync([Document(id_="bees", text="Bees make honey."), *given[1:]], source="mine")
    assert (shorter.passages.added, shorter.replaced) == (1, first.passages.added - 4)
    gone = docs.sync([*given[2:]], source="mine", delete_missing=True)
    assert (gone.gone, gone.passages.unchanged) == (2, 3)
    within = SourceDocument("birds", [node, {"id": "n2", "text": "Owls sleep."}])
    assert docs.sync([within], source="mine").passages.added == 2


def test_what_is_no_document_of_a_source_is_refused_or_counted(empty):
    with pytest.raises(InputError, match="passage is 3, expected a Passage"):
        empty.sync([3], source="mine")
    for bad in (None, SourceDocument("a", [None]), SourceDocument("a", [Passage(None, "text")]), {"id": "a"}):
        assert empty.sync([bad, "Good words."], source="mine", on_bad="count").passages.failed == 1
    for alone in ("words", Passage("a", "words"), Document(text="words"), SourceDocument("a", [])):
        with pytest.raises(InputError, match="expected several"):
            empty.sync(alone, source="mine")
