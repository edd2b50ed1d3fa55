"""Documents of traces are found in the collection: by the id of the passage or its point, or by their whole text."""

from __future__ import annotations

import pytest
from tiny import WordEncoder
from written import annotation, ids, question, span, text_of, write

from qdrant_tools import CollectionManager, connect
from qdrant_tools.collections.points import point_id
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Passage
from qdrant_tools.traces import TraceSettings, read_traces


@pytest.fixture
def docs():
    collection = CollectionManager(connect(":memory:")).ensure("docs", WordEncoder())
    collection.index([Passage(name, text_of(name)) for name in ("honey", "owls", "tea")])
    return collection


def found(tmp_path, docs, *rows, **settings):
    with read_traces(write(tmp_path / "rows.jsonl", rows), TraceSettings(**settings), collection=docs) as traces:
        return list(traces.searches()), traces.report


def test_the_share_of_ids_in_the_collection_is_told_with_examples_of_the_others(tmp_path, docs):
    hits = [("honey", 0.9), ("parent-1", 0.8), ("owls", 0.7)]
    searches, report = found(tmp_path, docs, *question("t", "q", hits), *question("u", "r", hits, at=5))
    assert (report.ids, report.ids_found, report.not_found) == (3, 2, ["parent-1"])
    assert ids(searches[0]) == ["honey", "parent-1", "owls"], "what is not there was shown all the same"
    assert "2 of 3 ids (67%) are in the collection; not there: 'parent-1'" in report.lines()


def test_the_id_of_a_point_is_that_of_its_passage(tmp_path, docs):
    """LlamaIndex and LangChain know points."""
    rows = [
        span("retrieve", "RETRIEVER", parent="ask", at=1, query="q", documents=[(point_id("owls"), 0.9), ("tea", 0.8)]),
        span("rerank", "RERANKER", parent="ask", at=2, query="q", reranked=[(point_id("owls").upper(), 5.0)]),
        span("ask", query="q", answer="at night", lasts=4),
        annotation("relevance", "retrieve", label="relevant", document_position=0),
    ]
    rows[1]["attributes"]["reranker.output_documents.0.document.id"] = point_id("owls")
    (search,), report = found(tmp_path, docs, *rows)
    assert ids(search) == ["owls", "tea"] and report.found == 1.0
    assert {event.id for event in search.feedback} == {"owls"} and search.answer.context == ("owls",)


def test_after_everything_was_indexed_anew_texts_tell_which_passage_it_was(tmp_path, docs):
    retrieve, ask = question("t", "q", [("old-1", 0.9), ("old-2", 0.8), ("old-3", 0.7)])
    for place, text in enumerate(
        [f"  {text_of('tea')}\n", "a text that is gone", text_of("honey").replace(" ", "\n", 1)]
    ):
        retrieve["attributes"][f"retrieval.documents.{place}.document.content"] = text
    (search,), report = found(tmp_path, docs, retrieve, ask, match="text")
    assert [(hit.id, hit.rank) for hit in search.hits] == [("tea", 1), ("honey", 3)]
    assert report.documents_without_id == 1 and report.found == 1.0
    assert found(tmp_path, docs, *question("t", "q", [("tea", 0.9)]), match="text")[0]
    hidden, _ = question("t", "q", [("x", 0.9)])
    hidden["attributes"]["retrieval.documents.0.document.content"] = "not there"
    searches, report = found(tmp_path, docs, hidden, match="text")
    assert searches == [] and report.dropped == {"no text": 1}


def test_a_postprocessor_that_names_old_ids_alone_is_understood_by_the_list_that_it_had(tmp_path, docs):
    retrieve, ask = question("t", "q", [("old-1", 0.9), ("old-2", 0.8)])
    for place, name in enumerate(["tea", "honey"]):
        retrieve["attributes"][f"retrieval.documents.{place}.document.content"] = text_of(name)
    left = span("postprocess", "CHAIN", parent="ask", at=2, query="q")
    left["name"] = "Overlap._postprocess_nodes"
    left["attributes"]["output.value"] = '["<NodeWithScore(node=TextNode(id_=old-2), score=3.0)>"]'
    (search,), _ = found(tmp_path, docs, retrieve, left, ask, match="text")
    assert search.answer.context == ("honey",)
    assert [(event.id, event.kind, event.value) for event in search.feedback] == [("honey", "reranked", 3.0)]


def test_texts_cannot_be_found_without_a_collection(tmp_path):
    with pytest.raises(UsageError, match="name the collection"):
        read_traces(write(tmp_path / "rows.jsonl", question("t", "q", [("a", 1.0)])), TraceSettings(match="text"))


def test_ids_with_quotes_and_very_long_ones_are_looked_up(tmp_path, docs):
    names = ["o'neil; DROP TABLE ids", 'say "hi"', "x" * 4000]
    (search,), report = found(tmp_path, docs, *question("t", "q", [(name, 0.5) for name in names]))
    assert ids(search) == names and report.ids_found == 0 and len(report.not_found) == 3
