"""Documents of traces are found in the collection: by the id of the passage or its point, or by their whole text."""

from __future__ import annotations

import pytest
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores.utils import node_to_metadata_dict
from qdrant_client import models
from tiny import ENGINES, WordEncoder, client_of
from written import annotation, ids, question, span, text_of, write

from qdrant_tools import CollectionManager
from qdrant_tools.collections.points import point_id
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Passage
from qdrant_tools.traces import TraceSettings, read_traces


@pytest.fixture(params=ENGINES)
def client(request, tmp_path):
    yield from client_of(request.param, tmp_path)


@pytest.fixture
def docs(client):
    collection = CollectionManager(client).ensure("docs", WordEncoder())
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


def test_ids_that_are_hardly_ever_there_are_answered_with_the_way_to_texts(tmp_path, docs):
    _, report = found(tmp_path, docs, *question("t", "q", [("old-1", 0.9), ("old-2", 0.8)]))
    assert any("--match text" in line for line in report.lines())
    _, report = found(tmp_path, docs, *question("t", "q", [("tea", 0.9), ("old-2", 0.8)]))
    assert not any("--match text" in line for line in report.lines())


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "edge"])
def test_nodes_that_llamaindex_embeds_with_their_metadata_are_found_by_their_own_text(tmp_path, engine):
    """OpenInference writes the text of a node, as do the others; what was embedded is the node with its metadata."""
    nodes = [
        TextNode(id_=point_id(name), text=text_of(name), metadata={"file_name": f"{name}.md"})
        for name in ("honey", "owls")
    ]
    encoder = WordEncoder()
    for client in client_of(engine, tmp_path):
        client.create_collection("docs", models.VectorParams(size=encoder.dimension, distance=models.Distance.COSINE))
        vectors = encoder.encode_passages([node.get_content(MetadataMode.EMBED) for node in nodes])
        points = [
            models.PointStruct(id=node.node_id, vector=vector.tolist(), payload=node_to_metadata_dict(node))
            for node, vector in zip(nodes, vectors, strict=True)
        ]
        client.upsert("docs", points, wait=True)
        docs = CollectionManager(client).adopt("docs", encoder)
        rows = question("t", "q", [("old-1", 0.9), ("old-2", 0.8)])
        for place, text in enumerate([text_of("owls"), nodes[0].get_content(MetadataMode.EMBED)]):
            rows[0]["attributes"][f"retrieval.documents.{place}.document.content"] = text
        (search,), report = found(tmp_path, docs, *rows, match="text")
        assert ids(search) == [point_id("owls"), point_id("honey")] and report.found == 1.0


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "edge"])
def test_points_with_numbers_and_uuids_as_ids_are_found(tmp_path, engine):
    encoder, uuid = WordEncoder(), point_id("owls")
    for client in client_of(engine, tmp_path):
        client.create_collection("docs", models.VectorParams(size=encoder.dimension, distance=models.Distance.COSINE))
        vectors = encoder.encode_passages([text_of("honey"), text_of("owls")])
        points = [
            models.PointStruct(id=name, vector=vector.tolist(), payload={"text": text})
            for name, vector, text in zip((7, uuid), vectors, (text_of("honey"), text_of("owls")), strict=True)
        ]
        client.upsert("docs", points, wait=True)
        docs = CollectionManager(client).adopt("docs", encoder)
        (search,), report = found(tmp_path, docs, *question("t", "q", [("7", 0.9), (uuid.upper(), 0.8), ("8", 0.1)]))
        assert ids(search) == ["7", uuid, "8"] and (report.ids, report.ids_found) == (3, 2)


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
