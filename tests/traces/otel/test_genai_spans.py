"""Spans in the conventions of GenAI and of OpenLLMetry: their lists, and the reasons why there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from spans_written import SPAN, TEXTS, TRACE, form_of, only, otlp_span, pairs_of, read, sdk

from qdrant_tools.traces import read_traces
from qdrant_tools.traces.records import Annotation


def genai(**attributes: Any) -> dict[str, Any]:
    names = {name.replace("__", "."): value for name, value in attributes.items()}
    return sdk({"gen_ai.operation.name": "retrieval", **names}, name="retrieval kitchen")


def test_a_retrieval_of_genai_has_ids_and_scores_and_no_texts():
    listed = json.dumps([{"id": "id-bread", "score": 0.5}, {"id": "id-tea", "score": 0.25}])
    row = genai(
        gen_ai__retrieval__query__text="Why?", gen_ai__retrieval__documents=listed, gen_ai__conversation__id="c-1",
        gen_ai__data_source__id="kitchen",
    )  # fmt: skip
    span = only(row)
    assert form_of(row).name == "otel-genai"
    assert (span.kind, span.query, span.session, span.collection) == ("retrieval", "Why?", "c-1", "kitchen")
    assert [(d.position, d.id, d.score, d.text) for d in span.documents] == [
        (0, "id-bread", 0.5, None), (1, "id-tea", 0.25, None),
    ]  # fmt: skip
    # the list itself, where an exporter keeps structures
    attributes = pairs_of({"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": "Why?"})
    objects = [{"kvlistValue": {"values": pairs_of({"id": "id-bread", "score": 0.5})}}]
    attributes.append({"key": "gen_ai.retrieval.documents", "value": {"arrayValue": {"values": objects}}})
    (document,) = only({**otlp_span({}), "attributes": attributes}).documents
    assert (document.id, document.score) == ("id-bread", 0.5)


@pytest.mark.parametrize(
    ("attributes", "hint"),
    [
        ({}, "CAPTURE_MESSAGE_CONTENT=SPAN_ONLY"),
        ({"gen_ai.retrieval.query.text": "q"}, "CAPTURE_MESSAGE_CONTENT=SPAN_ONLY"),
        (
            {"gen_ai.retrieval.query.text": "q", "gen_ai.retrieval.documents": '[{"id":null,"score":null}]'},
            "openinference-instrumentation-langchain",
        ),
    ],
    ids=["nothing captured", "no documents", "documents without ids"],
)
def test_a_retrieval_of_genai_that_says_nothing_says_what_to_set(tmp_path, attributes, hint):
    row = sdk({"gen_ai.operation.name": "retrieval", **attributes}, parent_id=None)
    assert only(row).documents is None
    file = Path(tmp_path, "spans.jsonl")
    file.write_text(json.dumps(row) + "\n")
    with read_traces(file) as traces:
        assert list(traces) == [] and dict(traces.report.dropped) == {"no documents": 1}
        assert any(hint in line for line in traces.report.lines())


def test_an_evaluation_is_said_of_the_span_that_it_is_an_event_of_and_of_the_one_a_log_names():
    said = {
        "gen_ai.evaluation.name": "Relevance", "gen_ai.evaluation.score.value": 0.75,
        "gen_ai.evaluation.score.label": "pass", "gen_ai.evaluation.explanation": "fits",
    }  # fmt: skip
    event = {"name": "gen_ai.evaluation.result", "timestamp": "2026-11-26T10:00:00Z", "attributes": said}
    _, of_event = read(sdk({"gen_ai.operation.name": "chat"}, events=[event, {"name": "exception"}]))
    record = {
        "traceId": TRACE, "spanId": SPAN, "timeUnixNano": "1795735775000000000", "attributes": pairs_of(said),
        "eventName": "gen_ai.evaluation.result",
    }  # fmt: skip
    other = {"timeUnixNano": "1795735775000000000", "body": {"stringValue": "started"}, "attributes": []}
    logs = {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": [record, other]}]}]}
    (of_log,) = read(logs)
    for annotation in (of_event, of_log):
        assert isinstance(annotation, Annotation)
        assert (annotation.trace, annotation.span, annotation.name) == (TRACE, SPAN, "Relevance")
        assert (annotation.value, annotation.label, annotation.comment) == (0.75, "pass", "fits")
        assert annotation.by == "judge"


def test_an_agent_and_a_model_of_genai_say_what_was_asked_and_answered():
    asked = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Why does bread rise?"}]}])
    said = [{"role": "assistant", "parts": [{"type": "text", "content": "Yeast."}], "finish_reason": "stop"}]
    contents = {"gen_ai.input.messages": asked, "gen_ai.output.messages": said}
    agent = only(sdk({"gen_ai.operation.name": "invoke_agent", **contents}))
    assert (agent.kind, agent.query, agent.answer) == ("chain", "Why does bread rise?", "Yeast.")
    model = only(sdk({"gen_ai.operation.name": "chat", **contents}))
    assert (model.kind, model.query, model.answer) == ("llm", None, "Yeast.")
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": '{"query": "yeast"}'}
    assert (only(sdk(tool)).is_tool, only(sdk(tool)).query) == (True, "yeast")


def node(name: str, score: float) -> str:
    """A node with its score, as OpenLLMetry writes it: JSON in JSON."""
    related = {"1": {"node_id": f"doc-{name}", "node_type": "4"}}
    held = {"id_": f"id-{name}", "embedding": None, "metadata": {"file_name": name}, "relationships": related}
    return json.dumps({"node": {**held, "text": TEXTS[name], "class_name": "TextNode"}, "score": score})


def openllmetry(given: Any, made: Any, name: str = "VectorIndexRetriever.task", **more: Any) -> dict[str, Any]:
    attributes = {"traceloop.span.kind": "task", "traceloop.entity.name": name}
    contents = {"traceloop.entity.input": json.dumps(given), "traceloop.entity.output": json.dumps(made)}
    return sdk({**attributes, **contents, **more}, name=name)


@pytest.mark.parametrize(
    "given",
    [
        {"str_or_query_bundle": "Why?"},
        {"str_or_query_bundle": {"query_str": "Why?", "image_path": None, "embedding": None}},
        {"query_bundle": {"query_str": "Why?"}},
    ],
    ids=["text", "bundle", "inner"],
)
def test_a_retriever_of_llamaindex_in_openllmetry_has_the_ids_of_nodes_and_not_of_documents(given):
    row = openllmetry(
        given, [node("bread", 0.5), node("tea", 0.25)], **{"traceloop.association.properties.session_id": "s-7"}
    )
    span = only(row)
    assert (form_of(row).name, span.kind, span.query, span.session) == ("openllmetry", "retrieval", "Why?", "s-7")
    assert [(d.id, d.score, d.text) for d in span.documents] == [
        ("id-bread", 0.5, TEXTS["bread"]), ("id-tea", 0.25, TEXTS["tea"]),
    ]  # fmt: skip


def test_a_retriever_of_langchain_in_openllmetry_has_the_ids_of_points():
    documents = [
        {"page_content": TEXTS["bread"], "metadata": {"source": "a", "_id": "p-1", "_collection_name": "kitchen"}}
    ]
    given = {"query": "Why?", "tags": ["QdrantVectorStore"], "metadata": {}, "kwargs": {"name": "VectorStoreRetriever"}}
    span = only(
        openllmetry(given, {"documents": documents}, **{"gen_ai.operation.name": "vector_db_retrieve"})
    )  # fmt: skip
    assert (span.kind, span.query, span.collection) == ("retrieval", "Why?", "kitchen")
    assert [(d.id, d.score, d.text) for d in span.documents] == [("p-1", None, TEXTS["bread"])]
    chain = only(openllmetry({"inputs": "Why?", "tags": []}, {"outputs": "Yeast."}, name="RunnableSequence.workflow"))
    assert (chain.kind, chain.query, chain.answer) == ("chain", "Why?", "Yeast.")


def test_a_postprocessor_in_openllmetry_says_what_came_in_and_what_it_left():
    given = {"nodes": [node("bread", 0.5), node("tea", 0.25)], "query_str": "Why?"}
    span = only(openllmetry(given, [node("tea", 2.0)], name="Overlap.task"))
    assert (span.kind, span.query) == ("rerank", "Why?")
    assert [d.id for d in span.documents] == ["id-bread", "id-tea"]
    assert [(d.id, d.score) for d in span.context] == [("id-tea", 2.0)]


def test_an_engine_in_openllmetry_names_the_sources_of_its_answer():
    made = {"response": "Yeast.", "metadata": {"id-bread": {"file_name": "a"}, "id-tea": {"file_name": "b"}}}
    span = only(openllmetry({"query_bundle": {"query_str": "Why?"}}, made, name="RetrieverQueryEngine.task"))
    assert (span.kind, span.query, span.answer) == ("chain", "Why?", "Yeast.")
    assert [d.id for d in span.context] == ["id-bread", "id-tea"]


def test_a_client_of_qdrant_says_the_collection_and_what_to_instrument_besides():
    row = sdk({"db.system": "Qdrant", "qdrant.search.collection_name": "kitchen"}, name="qdrant.query_points")
    span = only(row)
    assert (span.kind, span.collection, span.documents) == ("other", "kitchen", None)
    assert "openinference-instrumentation-llama-index" in span.hint


def test_openllmetry_without_contents_says_what_to_set():
    bare = {"traceloop.span.kind": "task", "traceloop.entity.name": "VectorIndexRetriever.task"}
    span = only(sdk(bare))
    assert (span.kind, span.documents) == ("retrieval", None)
    assert "TRACELOOP_TRACE_CONTENT" in span.hint
    cut = json.dumps([node("bread", 0.5)])[:80]
    span = only(sdk({**bare, "traceloop.entity.input": '{"str_or_query_bundle": "Wh', "traceloop.entity.output": cut}))
    assert (span.query, span.documents, span.cut) == (None, None, 1)
    assert "ATTRIBUTE_VALUE_LENGTH_LIMIT" in span.hint


def test_a_span_that_speaks_two_conventions_is_read_in_the_one_that_has_the_list():
    both = {"openinference.span.kind": "CHAIN", "gen_ai.operation.name": "retrieval"}
    listed = {"gen_ai.retrieval.query.text": "q", "gen_ai.retrieval.documents": '[{"id": "a", "score": 1}]'}
    span = only(sdk({**both, **listed}))
    assert (span.kind, [d.id for d in span.documents]) == ("retrieval", ["a"])


def test_a_step_of_langchain_that_returns_documents_has_found_them():
    document = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "document", "Document"]}
    held = {"page_content": TEXTS["tea"], "metadata": {"_id": "p-2", "_collection_name": "kitchen"}}
    made = {"outputs": [{**document, "kwargs": held}], "kwargs": {"tags": []}}
    span = only(openllmetry({"inputs": "Why?", "tags": []}, made, name="find"))
    assert (span.kind, span.implied, span.query, span.answer) == ("retrieval", True, "Why?", None)
    assert [d.id for d in span.documents] == ["p-2"]
