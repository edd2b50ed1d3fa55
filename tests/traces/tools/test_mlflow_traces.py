"""MLflow's traces with their assessments, in each way out of it."""

import csv
import json

import pytest
from tool_rows import ROOT, STEP, TEXTS, TRACE, base64_of, ids, imported, langchain, read

from qdrant_tools.traces.importer import read_traces


def span(id=STEP, parent=ROOT, type="RETRIEVER", inputs=None, outputs=None, name="search"):
    """A span as `Trace.to_dict()` has it: ids in base64, every value as JSON, so that a text is quoted twice."""
    attributes = {"mlflow.spanType": type, "mlflow.spanInputs": inputs, "mlflow.spanOutputs": outputs}
    return {
        "trace_id": base64_of(TRACE), "span_id": base64_of(id), "parent_span_id": parent and base64_of(parent),
        "name": name, "start_time_unix_nano": 1777629600250000001, "end_time_unix_nano": 1777629600350000001,
        "events": [], "status": {"code": "STATUS_CODE_OK"},
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
    }  # fmt: skip


def nodes(*names):
    """Documents as MLflow's LlamaIndex integration writes them."""
    return [{"page_content": TEXTS[n], "metadata": {"score": 0.5}, "id": n} for n in names]


def trace(*spans, assessments=(), **about):
    info = {
        "trace_id": f"tr-{TRACE}", "request_time": "2026-05-01T10:00:00Z", "state": "OK", "tags": {},
        "trace_metadata": {"mlflow.trace.session": "visit", "mlflow.trace.user": "ann"}, "assessments": [*assessments],
    }  # fmt: skip
    return {"info": info | about, "data": {"spans": [*spans]}}


def assessment(name, value=None, *, source="HUMAN", expected=None, **other):
    said = {"feedback": {"value": value}} if expected is None else {"expectation": expected}
    return {
        "assessment_id": f"a-{name}", "assessment_name": name, "trace_id": f"tr-{TRACE}",
        "source": {"source_type": source, "source_id": "ann"}, "create_time": "2026-05-01T10:05:00Z", **said, **other,
    }  # fmt: skip


def root(answer="Pumice."):
    return span(ROOT, None, "CHAIN", {"question": "Which rock floats?"}, {"answer": answer}, "app")


def test_ids_are_hex_and_texts_lose_their_second_quotes(tmp_path):
    row = trace(span(inputs='Which "light" rock floats?', outputs=langchain("p1", "p2")), root())
    (first, _), _ = read(row)
    assert (first.trace, first.id, first.parent) == (TRACE, STEP, ROOT)
    (search,), _ = imported(tmp_path, row)
    assert (search.query, ids(search)) == ('Which "light" rock floats?', ["p1", "p2"])
    assert search.answer is not None and search.answer.text == "Pumice."
    assert search.session and search.user


def test_the_session_of_langchains_config_is_that_of_the_trace(tmp_path):
    (named,), _ = imported(tmp_path, trace(span(outputs=langchain("p1")), root()))
    step = span(inputs="Which rock floats?", outputs=langchain("p1"))
    step["attributes"]["metadata"] = json.dumps({"session_id": "visit", "user_id": "ann"})
    (search,), _ = imported(tmp_path, trace(step, root(), trace_metadata={}))
    assert (search.session, search.user) == (named.session, named.user) and search.user


def test_two_retrievers_of_llamaindex_with_the_same_list_are_one_search(tmp_path):
    bundle = {"str_or_query_bundle": {"query_str": "Which rock floats?", "embedding": None}}
    outer = span(inputs=bundle, outputs=nodes("p1", "p2"), name="VectorIndexRetriever.retrieve")
    inner = span("aa" * 8, STEP, inputs={"query_bundle": bundle["str_or_query_bundle"]}, outputs=nodes("p1", "p2"))
    (search,), report = imported(tmp_path, trace(outer, inner, root()))
    assert report.dropped == {"inner": 1}
    assert search.query == "Which rock floats?" and [hit.score for hit in search.hits] == [0.5, 0.5]


def test_the_answers_own_sources_are_no_search_of_their_own(tmp_path):
    said = {"response": "Pumice.", "source_nodes": [{"node": {"id_": "new", "text": "x", "class_name": "TextNode"}}]}
    whole = span(ROOT, None, "CHAIN", {"str_or_query_bundle": "Which rock floats?"}, said, "Engine.query")
    (search,), report = imported(tmp_path, trace(whole, span(inputs="Which rock floats?", outputs=nodes("p1"))))
    assert ids(search) == ["p1"] and report.dropped == {"inner": 1}
    assert search.answer is not None and search.answer.text == "Pumice."


def test_assessments_in_hex_find_their_span_and_each_document_of_it(tmp_path):
    said = [
        assessment("user_feedback", True, rationale="right"),
        assessment("relevance", {"0": True, "1": False}, source="LLM_JUDGE", span_id=STEP),
    ]
    row = trace(span(inputs="Which rock floats?", outputs=langchain("p1", "p2")), root(), assessments=said)
    (search,), report = imported(tmp_path, row)
    assert search.answer is not None
    assert [(each.kind, each.value) for each in search.answer.verdicts if each.kind == "thumb"] == [("thumb", 1.0)]
    assert sorted((event.id, event.kind, event.value) for event in search.feedback) == [
        ("p1", "judged", 1.0),
        ("p2", "judged", 0.0),
    ]
    assert report.unjoined == {}


def test_the_judges_of_mlflow_name_the_chunk_in_their_metadata():
    judged = [
        assessment("retrieval_relevance", word, source="LLM_JUDGE", span_id=STEP, metadata={"chunk_index": place})
        for place, word in (("0", "yes"), ("1", "no"))
    ]
    _, annotations = read(trace(span(inputs="q", outputs=langchain("p1", "p2")), assessments=judged))
    assert [(each.position, each.label, each.by) for each in annotations] == [(0, "yes", "judge"), (1, "no", "judge")]


def test_expected_context_is_a_persons_label_of_what_was_found_and_expected_facts_are_none(tmp_path):
    wanted = json.dumps([{"content": f"  {TEXTS['p2']} ", "doc_uri": "slate.md"}])
    value = {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": wanted}}
    said = [assessment("expected_retrieved_context", expected=value)]
    said.append(assessment("expected_facts", expected={"serialized_value": {"value": '["floats"]'}}))
    inner = span("aa" * 8, STEP, inputs="q", outputs=nodes("p1", "p2"))
    row = trace(span(inputs="q", outputs=nodes("p1", "p2")), inner, root(), assessments=said)
    (search,), _ = imported(tmp_path, row)
    assert [(event.id, event.kind, event.value) for event in search.feedback] == [("p2", "rating", 1.0)]


def test_an_assessment_that_a_later_one_replaced_does_not_count():
    said = [assessment("thumbs", False, valid=False), assessment("thumbs", True, valid=True)]
    _, annotations = read(trace(span(inputs="q", outputs=nodes("p1")), assessments=said))
    assert [each.value for each in annotations] == [1.0]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_rows_of_a_search_for_traces_are_the_same(ending, tmp_path):
    whole = trace(span(inputs="Which rock floats?", outputs=langchain("p1", "p2")), root())
    said = [assessment("user_feedback", True)]
    whole["info"]["assessments"] = said
    row = {
        "trace_id": f"tr-{TRACE}", "trace": json.dumps(whole), "client_request_id": None, "state": "OK",
        "request": "{}", "trace_metadata": {}, "tags": {}, "spans": whole["data"]["spans"], "assessments": said,
    }  # fmt: skip
    file = tmp_path / f"traces.{ending}"
    with file.open("w", newline="", encoding="utf-8") as opened:
        if ending == "csv":  # pandas writes lists and objects as Python's repr
            writer = csv.DictWriter(opened, row)
            writer.writeheader()
            writer.writerow(row)
        else:
            opened.write(json.dumps(row) + "\n")
    with read_traces(file) as traces:
        (search,) = traces.searches()
    (other,), _ = imported(tmp_path, whole)
    assert (search.id, search.hits, search.answer) == (other.id, other.hits, other.answer)


def test_rows_without_the_whole_trace_have_spans_as_pythons_repr():
    rows = {"trace_id": f"tr-{TRACE}", "request_metadata": "{}", "spans": repr([span(inputs="q", outputs=nodes("p1"))])}
    (found,), _ = read(rows)
    assert (found.trace, found.query, found.documents[0].id) == (TRACE, "q", "p1")


def test_traces_before_mlflow_3_have_their_ids_in_a_context():
    old = {
        "name": "search", "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{STEP}"}, "parent_id": None,
        "start_time": 1777629600250000001, "status_code": "OK",
        "attributes": span(inputs="q", outputs=langchain("p1"))["attributes"],
    }  # fmt: skip
    (found,), _ = read({"info": {"request_id": f"tr-{TRACE}", "request_metadata": []}, "data": {"spans": [old]}})
    assert (found.trace, found.id, found.documents[0].id) == (TRACE, STEP, "p1")


def test_indexing_is_no_search(tmp_path):
    split = span(ROOT, None, "CHAIN", {"nodes": [{"text": "a"}]}, nodes("p1"), "SentenceSplitter.__call__")
    embedded = span("aa" * 8, None, "EMBEDDING", {"texts": ["a"]}, [[0.1]], "Embedding.get_text_embedding_batch")
    found, _ = imported(tmp_path, trace(embedded))
    assert found == []
    found, report = imported(tmp_path, trace(split))
    assert found == [] and sum(report.dropped.values()) == 1


def test_steps_that_split_documents_or_answer_from_them_are_no_searches_of_their_own(tmp_path):
    def node(name):
        return {"id_": name, "text": TEXTS["p1"], "class_name": "TextNode"}

    retrieved = span(inputs={"query_bundle": {"query_str": "Which rock floats?"}}, outputs=nodes("p1", "p2"))
    split = span("aa" * 8, ROOT, "CHAIN", {"nodes": [node("file")]}, [node("new")], "SentenceSplitter._parse_nodes")
    answer = {"response": "Pumice.", "source_nodes": [{"node": node("cut"), "score": 0.5}]}
    given = {"query": {"query_str": "Which rock floats?"}, "nodes": [{"node": node("cut"), "score": 0.5}]}
    made = span("bb" * 8, ROOT, "CHAIN", given, answer, "CompactAndRefine.synthesize")
    (search,), _ = imported(tmp_path, trace(retrieved, split, made, root()))
    assert ids(search) == ["p1", "p2"]
    state = {"question": "Which rock floats?", "documents": langchain("p3")}
    graph = span("cc" * 8, ROOT, "CHAIN", state, {"documents": langchain("p1")}, "retrieve")
    (search,), _ = imported(tmp_path, trace(graph, root()))
    assert ids(search) == ["p1"], "the state still held what was found for the last question"


def test_spans_that_mlflow_sends_over_otlp_are_the_same_searches(tmp_path):
    own = span(parent=None, inputs="Which rock floats?", outputs=langchain("p1", "p2"))
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in own["attributes"].items()]
    sent = {
        "traceId": TRACE, "spanId": STEP, "name": "search", "startTimeUnixNano": str(own["start_time_unix_nano"]),
        "endTimeUnixNano": str(own["end_time_unix_nano"]), "attributes": attributes, "status": {},
    }  # fmt: skip
    line = {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {}, "spans": [sent]}]}]}
    (over,), _ = imported(tmp_path, line)
    (kept,), _ = imported(tmp_path, trace(own))
    assert (over.id, over.query, over.hits, over.at) == (kept.id, kept.query, kept.hits, kept.at)


def test_request_logs_of_databricks_have_the_trace_beside_the_request(tmp_path):
    whole = trace(span(inputs="Which rock floats?", outputs=langchain("p1")), root())
    row = {"databricks_request_id": "r", "request": "{}", "response": "{}", "trace": json.dumps(whole)}
    (logged,), _ = imported(tmp_path, row, row | {"trace": None})
    (kept,), _ = imported(tmp_path, whole)
    assert (logged.id, logged.hits, logged.answer) == (kept.id, kept.hits, kept.answer)


def test_a_document_whose_score_is_no_number_is_a_document_and_its_score_is_counted(tmp_path):
    documents = [{**node, "metadata": {"score": score}} for node, score in zip(nodes("p1", "p2"), (float("nan"), 0.5))]
    (search,), report = imported(tmp_path, trace(span(inputs="Which rock floats?", outputs=documents), root()))
    assert [(hit.id, hit.score) for hit in search.hits] == [("p1", None), ("p2", 0.5)]
    assert report.scores_without_number == 1
