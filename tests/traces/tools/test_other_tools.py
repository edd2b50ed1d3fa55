"""Tools that keep their traces in rows of their own, and applications that write a search a row."""

import json

import pytest
from tool_rows import WHEN, ids, imported, langchain, read, scored

from qdrant_tools.errors import InputError
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.importer import read_traces
from qdrant_tools.traces.records import TraceSettings


def opik(**other):
    return {
        "id": "s-1", "project_name": "rocks", "trace_id": "t-1", "name": "retrieve", "type": "tool",
        "start_time": WHEN, "input": {"query": "Which rock floats?"}, "output": {"output": scored("p1", "p2")},
        "last_updated_at": WHEN, **other,
    }  # fmt: skip


OPIK_TRACE = {
    "id": "t-1", "project_name": "rocks", "name": "ask", "start_time": WHEN,
    "input": {"question": "Which rock floats?"}, "output": {"output": "Pumice."},
    "thread_id": "visit", "last_updated_at": WHEN,
    "feedback_scores": [{"name": "user_feedback", "value": 1.0, "source": "ui", "created_by": "ann"}],
}  # fmt: skip
WEAVE = {
    "id": "c-1", "project_id": "team/rocks", "trace_id": "t-1", "parent_id": None, "started_at": WHEN,
    "op_name": "weave:///team/rocks/op/retrieve:abc", "inputs": {"query": "Which rock floats?"},
    "output": scored("p1", "p2"), "attributes": {}, "thread_id": "visit",
    "summary": {"weave": {"feedback": [{"id": "f", "feedback_type": "wandb.reaction.1", "payload": {"emoji": "👍"},
                                        "creator": "ann", "created_at": WHEN}]}},
}  # fmt: skip
BRAINTRUST = {
    "id": "e-1", "span_id": "s-1", "root_span_id": "s-1", "span_parents": None, "created": WHEN,
    "input": {"query": "Which rock floats?"}, "output": scored("p1", "p2"), "metadata": {"session_id": "visit"},
    "scores": {"user_rating": 1, "Factuality": 0.6}, "span_attributes": {"name": "retrieve", "type": "function"},
    "metrics": {"start": 1777629600.0, "end": 1777629601.0},
}  # fmt: skip
HONEYHIVE = {
    "event_id": "e-1", "session_id": "visit", "parent_id": "visit", "event_name": "retriever", "event_type": "tool",
    "inputs": {"query": "Which rock floats?"}, "outputs": {"documents": scored("p1", "p2")},
    "start_time": 1777629600000, "feedback": {"rating": True}, "source": "production",
}  # fmt: skip
DATADOG = {
    "id": "x", "type": "span",
    "attributes": {
        "span_id": "1", "trace_id": "2", "parent_id": "undefined", "name": "kb", "span_kind": "retrieval",
        "start_ns": 1777629600000000000, "ml_app": "bot", "status": "ok", "input": {"value": "Which rock floats?"},
        "output": {"documents": scored("p1", "p2")},
        "evaluation": {"user_feedback": {"value": "positive", "eval_metric_type": "categorical"}},
    },
}  # fmt: skip
LOGFIRE = {
    "trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": None, "span_name": "running tool",
    "start_timestamp": WHEN, "end_timestamp": WHEN, "service_name": "bot", "is_exception": False,
    "attributes": {
        "tool_arguments": '{"search_query": "Which rock floats?"}', "tool_response": json.dumps(scored("p1", "p2")),
    },
}  # fmt: skip
INSIGHTS = {
    "timestamp [UTC]": "5/1/2026, 10:00:00.000 AM", "id": "b" * 16, "operation_Id": "a" * 32,
    "operation_ParentId": "a" * 32, "name": "retrieval", "success": "True", "cloud_RoleName": "bot",
    "customDimensions": json.dumps({
        "gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": "Which rock floats?",
        "gen_ai.retrieval.documents": json.dumps([{"id": "p1", "score": 0.4}, {"id": "p2", "score": 0.3}]),
    }),
}  # fmt: skip
LUNARY = {
    "id": "r-2", "projectId": "rocks", "type": "retriever", "name": "retrieve", "createdAt": WHEN, "endedAt": WHEN,
    "tags": [], "input": "Which rock floats?", "output": scored("p1", "p2"), "error": None, "status": "success",
    "siblingRunId": None, "templateSlug": None, "metadata": {"threadId": "visit"}, "traceId": "r-1", "feedback": None,
}  # fmt: skip
LUNARY_ROOT = {
    **LUNARY, "id": "r-1", "type": "chain", "name": "ask", "input": {"question": "Which rock floats?"},
    "output": "Pumice.", "traceId": None, "feedback": {"thumb": "up", "comment": "clear"},
}  # fmt: skip


def posthog(event, **properties):
    return {
        "uuid": f"u-{event}", "event": event, "distinct_id": "ann", "timestamp": WHEN,
        "properties": json.dumps({"$ai_trace_id": "t-1", **properties}),
    }  # fmt: skip


POSTHOG = [
    posthog("$ai_span", **{
        "$ai_span_id": "s-1", "$ai_parent_id": "t-1", "$ai_span_name": "VectorStoreRetriever",
        "$ai_input_state": "Which rock floats?", "$ai_output_state": scored("p1", "p2"), "$ai_latency": 0.0,
    }),
    posthog("$ai_generation", **{
        "$ai_span_id": "s-2", "$ai_parent_id": "t-1", "$ai_input": [{"role": "user", "content": "Which rock floats?"}],
        "$ai_output_choices": [{"role": "assistant", "content": "Pumice."}],
    }),
    posthog("$ai_trace", **{"$ai_input_state": {"question": "Which rock floats?"}, "$ai_output_state": "Pumice."}),
    posthog("$ai_metric", **{"$ai_metric_name": "user_feedback", "$ai_metric_value": "thumbs up"}),
    posthog("$ai_feedback", **{"$ai_feedback_text": "clear"}),
]  # fmt: skip
HELICONE = {
    "request_id": "r-1", "request_created_at": WHEN, "response_created_at": WHEN, "request_user_id": "ann",
    "request_properties": {"Helicone-Session-Id": "visit"}, "feedback_rating": True, "request_path": "custom",
    "request_body": {"_type": "vector_db", "operation": "search", "text": "Which rock floats?", "topK": 2},
    "response_body": {"_type": "vector_db", "results": scored("p1", "p2")},
}  # fmt: skip
LITELLM = {
    "id": "c-1", "trace_id": "visit", "call_type": "acompletion", "startTime": 1777629600.0, "endTime": 1777629601.0,
    "model": "m", "messages": [{"role": "user", "content": "Which rock floats?"}],
    "response": {"choices": [{"message": {"role": "assistant", "content": "Pumice."}}]},
    "metadata": {"vector_store_request_metadata": [{
        "vector_store_id": "rocks", "query": "Which rock floats?", "start_time": 1777629600.0,
        "vector_store_search_response": {"object": "vector_store.search_results.page", "data": [
            {"score": 0.9 - place / 10, "content": [{"type": "text", "text": f"text {place}"}],
             "attributes": {"chunk_id": f"p{place}"}} for place in (1, 2)]},
    }]},
}  # fmt: skip
NEW_RELIC = [
    {"trace_id": "a" * 32, "span_id": "b" * 16, "id": "v-1", "request.query": "Which rock floats?", "request.k": 2,
     "response.number_of_documents": 2, "timestamp": 1777629600000, "vendor": "langchain", "appName": "rocks"},
    *({"trace_id": "a" * 32, "id": f"d-{place}", "search_id": "v-1", "sequence": place, "page_content": f"text {place}",
       "metadata._id": f"p{place + 1}", "timestamp": 1777629600000, "vendor": "langchain"} for place in (1, 0)),
    {"trace_id": "a" * 32, "id": "m-1", "completion_id": "k-1", "sequence": 1, "role": "assistant", "is_response": True,
     "content": "Pumice.", "timestamp": 1777629601000},
    {"trace_id": "a" * 32, "id": "f-1", "rating": "good", "category": "helpful", "message": "",
     "ingest_source": "Python", "timestamp": 1777629700000},
]  # fmt: skip


def bedrock_agent(**step):
    return {"agentId": "A", "sessionId": "visit", "eventTime": WHEN, "trace": {"orchestrationTrace": step}}


BEDROCK_AGENT = [
    bedrock_agent(invocationInput={
        "traceId": "t-0", "invocationType": "KNOWLEDGE_BASE",
        "knowledgeBaseLookupInput": {"text": "Which rock floats?", "knowledgeBaseId": "K"}}),
    bedrock_agent(observation={
        "traceId": "t-0", "type": "KNOWLEDGE_BASE", "knowledgeBaseLookupOutput": {"retrievedReferences": [
            {"content": {"text": "Pumice"}, "metadata": {"x-amz-bedrock-kb-chunk-id": f"p{n}"}} for n in (1, 2)]}}),
    bedrock_agent(observation={"traceId": "t-1", "type": "FINISH", "finalResponse": {"text": "Pumice."}}),
]  # fmt: skip
SPANS = {
    "trace_id": "t-1", "span_id": "s-1", "parent_span_id": None, "name": "search", "span_type": "retriever",
    "input": "Which rock floats?", "output": scored("p1", "p2"), "start_time": WHEN,
}  # fmt: skip
DIFY = {
    "id": "m-1", "conversation_id": "visit", "query": "Which rock floats?", "answer": "Pumice.", "inputs": {},
    "retriever_resources": [{"position": n, "document_id": "d", "segment_id": f"p{n}", "score": 0.5, "content": "text"}
                            for n in (1, 2)],
    "feedback": {"rating": "like"}, "created_at": 1777629600,
}  # fmt: skip
RAGAS = {
    "user_input": "Which rock floats?", "retrieved_contexts": ["Pumice floats.", "Slate splits."],
    "retrieved_context_ids": ["p1", "p2"], "response": "Pumice.", "timestamp": WHEN,
}  # fmt: skip
OWN = {
    "request_id": "r-1", "timestamp": WHEN, "request": {"question": "Which rock floats?", "session_id": "visit"},
    "retrieval": {"documents": [{"chunk_id": "p1", "score": 0.3}, {"chunk_id": "p2", "score": 0.2}]},
    "response": {"answer": "Pumice."}, "feedback": "thumbs up",
}  # fmt: skip
BEDROCK = {
    "requestId": "r-1", "timestamp": WHEN, "retrievalQuery": {"text": "Which rock floats?"},
    "retrievalResults": [
        {"content": {"text": "Pumice"}, "metadata": {"x-amz-bedrock-kb-chunk-id": f"p{n}"}, "score": 0.5}
        for n in (1, 2)
    ],
}  # fmt: skip
TOOLS = {
    "opik": [opik()], "opik with traces": [opik(), OPIK_TRACE], "weave": [WEAVE], "braintrust": [BRAINTRUST],
    "honeyhive": [HONEYHIVE], "datadog": [DATADOG], "logfire": [LOGFIRE], "appinsights": [INSIGHTS], "spans": [SPANS],
    "rows of dify": [DIFY], "rows of ragas": [RAGAS], "rows of one's own": [OWN],
    "rows of bedrock": [BEDROCK], "lunary": [LUNARY, LUNARY_ROOT], "posthog": POSTHOG, "helicone": [HELICONE],
    "litellm": [LITELLM], "newrelic-ai": NEW_RELIC, "bedrock-agents": BEDROCK_AGENT,
}  # fmt: skip
RATED = {
    "opik with traces", "weave", "braintrust", "honeyhive", "datadog", "rows of dify", "rows of one's own", "lunary",
    "posthog", "helicone", "newrelic-ai",
}  # fmt: skip
WRITTEN_BY_MODELS = {"bedrock-agents"}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_retrieval_is_read_as_it_was(tool, tmp_path):
    (search,), report = imported(tmp_path, *TOOLS[tool])
    assert (search.query, ids(search)) == ("Which rock floats?", ["p1", "p2"])
    assert search.at.isoformat() == "2026-05-01T10:00:00+00:00"
    assert report.dropped == {} and search.generated == (tool in WRITTEN_BY_MODELS)
    thumbs = [each for each in search.answer.verdicts if each.kind == "thumb"] if search.answer else []
    assert [(each.value, each.by) for each in thumbs] == ([(1.0, "person")] if tool in RATED else [])
    assert set(report.forms.values()) == {tool.split()[0]}


@pytest.mark.parametrize("tool", TOOLS)
def test_no_row_is_of_two_forms(tool):
    for row in TOOLS[tool]:
        assert len([form.name for form in FORMS if form.recognises(row)]) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "at": WHEN, "query": "q", "hits": [{"id": "a", "rank": 1, "score": 0.4}], "feedback": []},
        {"query": "q", "pos": ["a"], "neg": ["b"]},
        {"query": "q", "documents": ["a", "b"], "label": 1},
        {"query": "q", "doc_id": "d", "clicked": 1, "timestamp": WHEN},
        {"question": "q", "sources": [{"page": 1}, {"page": 2}]},
        {"query": "q", "results": [{"id": "a"}, {"name": "b"}]},
        {"query": "q", "documents": "a text"},
        {"trace_id": "t", "span_id": "s", "duration": 3},
        {"name": "x", "value": 3},
        {},
    ],
    ids=[
        "our own log",
        "training pairs",
        "labelled",
        "clicks",
        "pages",
        "bare",
        "a text",
        "no output",
        "metric",
        "empty",
    ],
)
def test_what_is_no_search_for_certain_is_of_no_form(row):
    assert [form.name for form in FORMS if form.recognises(row)] == []


def test_a_row_of_no_form_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(InputError, match=r"rows\.jsonl:1: .*its fields are .*doc_id.*--columns"):
        imported(tmp_path, {"query": "q", "doc_id": "d"})


def test_a_span_of_no_kind_that_returns_anything_else_is_no_retrieval():
    outputs = [
        "Pumice.", {"answer": "Pumice."}, [{"id": "u1", "name": "Ann"}], [{"label": "rock", "score": 0.9}],
        [{"role": "user", "content": "x", "id": "m"}], [1, 2], [], {"documents": []}, [{"text": "a"}, {"text": "b"}],
    ]  # fmt: skip
    for output in outputs:
        (span,), _ = read(opik(output={"output": output}))
        assert span.kind == "chain" and span.documents is None, output


def test_pairs_of_a_document_and_its_score_are_read(tmp_path):
    pairs = [[document, 0.5] for document in langchain("p1", "p2")]
    (search,), _ = imported(tmp_path, opik(output={"output": pairs}))
    assert [(hit.id, hit.score) for hit in search.hits] == [("p1", 0.5), ("p2", 0.5)]


@pytest.mark.parametrize(
    "documents",
    [
        [{"id": "p1", "version": 3, "score": 0.5, "payload": {"text": "Pumice"}, "vector": None}],
        [{"node": {"id_": "p1", "text": "Pumice", "class_name": "TextNode"}, "score": 0.5}],
        [{"id": "p1", "content": "Pumice", "meta": {"file": "a"}, "score": 0.5}],
        [{"document": {"page_content": "Pumice", "metadata": {"id": "p1"}}, "score": 0.5}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", "Document"],
          "kwargs": {"page_content": "Pumice", "metadata": {"_id": "p1", "_collection_name": "c", "score": 0.5}}}],
    ],
    ids=["qdrant", "llamaindex", "haystack", "wrapped", "constructor"],
)  # fmt: skip
def test_documents_of_every_framework_are_known_without_being_announced(documents):
    (span,), _ = read(opik(output=documents))
    assert [(each.id, each.score, each.text) for each in span.documents or ()] == [("p1", 0.5, "Pumice")]


def test_the_id_of_a_file_is_no_id_of_its_chunks_unless_nothing_else_is_there():
    chunks = [{"document_id": "d", "text": "a", "score": 0.5}, {"document_id": "d", "text": "b", "score": 0.4}]
    (span,), _ = read(SPANS | {"output": chunks})
    assert [each.id for each in span.documents] == [None, None]
    chunks[1]["document_id"] = "e"
    (span,), _ = read(SPANS | {"output": chunks})
    assert [each.id for each in span.documents] == ["d", "e"]


def test_the_field_that_is_named_holds_the_id_wherever_it_lies():
    documents = [{"id": "x", "text": "a", "score": 0.5, "metadata": {"source": {"key": "p1"}, "a.b": "p2"}}]
    for field, found in (("source.key", "p1"), ("a.b", "p2"), ("nothing", None)):
        (span,), _ = read(SPANS | {"output": documents}, settings=TraceSettings(id_field=field))
        assert [each.id for each in span.documents] == [found]


def test_a_distance_is_no_score_and_a_hidden_text_is_none():
    (span,), _ = read(SPANS | {"output": [{"id": "p1", "text": "__REDACTED__", "distance": 0.2}]})
    assert (span.documents[0].score, span.documents[0].text, span.hidden) == (None, None, 1)


def test_a_hidden_text_among_those_of_a_row_is_counted_and_the_others_are_read(tmp_path):
    hidden = "__REDACTED__"
    whole = {"query": "Which rock floats?", "timestamp": WHEN}
    objects = [{"id": "p1", "text": "Pumice floats."}, {"text": hidden}]
    rows = [
        RAGAS | {"retrieved_contexts": ["Pumice floats.", hidden]},
        whole | {"retrieved_documents": objects},
        whole | {"retrieved_contexts": [hidden, hidden]},
        RAGAS | {"user_input": hidden},
        {"user_input": hidden, "retrieved_contexts": []},
    ]
    searches, report = imported(tmp_path, *rows)
    # an id says which passage it was, whatever became of its text
    assert [ids(search) for search in searches] == [["p1", "p2"], ["p1"]]
    assert (report.dropped, report.documents_hidden, report.documents_without_id) == ({"redacted": 2}, 1, 0)
    assert "left out: 1 documents whose text is hidden in lists that have others" in report.lines()
    (span, retrieval), _ = read(whole | {"retrieved_contexts": ["Pumice floats.", hidden]})
    assert (retrieval.hidden, [each.text for each in retrieval.documents]) == (1, ["Pumice floats.", None])


def test_a_search_without_a_time_is_counted_as_one(tmp_path):
    (search,), report = imported(tmp_path, {name: value for name, value in RAGAS.items() if name != "timestamp"})
    assert ids(search) == ["p1", "p2"] and report.untimed == 1


def test_a_row_without_an_id_is_the_same_search_when_it_is_read_again(tmp_path):
    ((first,), _), ((again,), _) = imported(tmp_path, RAGAS), imported(tmp_path, RAGAS)
    assert first.id == again.id


def test_scores_that_a_tool_has_averaged_are_nobodys():
    score = OPIK_TRACE["feedback_scores"][0] | {"value": 0.5, "value_by_author": {"ann": {}, "bob": {}}}
    _, annotations = read(OPIK_TRACE | {"feedback_scores": [score]})
    assert annotations == []


def haystack(name, attributes, parent="c" * 16):
    return {
        "name": name, "context": {"trace_id": "0x" + "a" * 32, "span_id": "0x" + name[9] * 16}, "start_time": WHEN,
        "parent_id": parent and f"0x{parent}", "status": {"status_code": "UNSET"}, "attributes": attributes,
        "resource": {"attributes": {}},
    }  # fmt: skip


def test_components_of_haystack_say_what_they_are_by_their_class(tmp_path):
    component = {"haystack.component.name": "finder", "haystack.component.type": "QdrantEmbeddingRetriever"}
    found = component | {
        "haystack.component.input": '{"query_embedding": [0.1]}',
        "haystack.component.output": json.dumps({"documents": [{"id": "p1", "content": "Pumice", "score": 0.5}]}),
    }
    given = {"embedder": {"text": "Which rock floats?"}, "prompt": {"question": "Which rock floats?"}}
    pipeline = {
        "haystack.pipeline.input_data": json.dumps(given),
        "haystack.pipeline.output_data": json.dumps({"llm": {"replies": ["Pumice."]}}),
    }
    rows = [haystack("haystack.component.run", found, "p" * 16), haystack("haystack.pipeline.run", pipeline, None)]
    rows[0]["parent_id"] = rows[1]["context"]["span_id"]
    (search,), _ = imported(tmp_path, *rows)
    assert (search.query, ids(search)) == ("Which rock floats?", ["p1"])
    assert search.answer is not None and search.answer.text == "Pumice."
    lacking, report = imported(tmp_path, haystack("haystack.component.run", component, None))
    assert lacking == [] and any("HAYSTACK_CONTENT_TRACING_ENABLED" in hint for hint in report.hints)


def chat(rating=1):
    passages = {"source": {"name": "rocks"}, "document": ["Pumice floats.", "Slate splits."], "distances": [0.4, 0.3]}
    passages |= {"metadata": [{"name": "a.md", "key": "p1"}, {"name": "a.md", "key": "p2"}]}
    question = {"id": "u", "parentId": None, "role": "user", "content": "Which rock floats?", "timestamp": 1777629590}
    answer = {"id": "m", "parentId": "u", "role": "assistant", "content": "Pumice.", "timestamp": 1777629600}
    answer |= {"sources": [passages], "annotation": {"rating": rating}}
    return {
        "id": "chat",
        "user_id": "ann",
        "title": "Rocks",
        "chat": {"history": {"messages": {"u": question, "m": answer}}},
    }


def test_chats_of_open_webui_have_passages_below_the_answer(tmp_path):
    (search,), _ = imported(tmp_path, chat(), settings=TraceSettings(id_field="key"))
    assert (search.query, ids(search)) == ("Which rock floats?", ["p1", "p2"])
    assert search.answer is not None and [verdict.value for verdict in search.answer.verdicts] == [1.0]
    found, report = imported(tmp_path, chat())
    assert found == [] and report.dropped == {"no id": 1}
    assert any("--match text" in hint for hint in report.hints)


def test_feedback_of_open_webui_brings_its_chat(tmp_path):
    said = {"id": "f", "user_id": "ann", "data": {"rating": -1, "reason": "wrong"}, "created_at": 1777629700}
    said |= {"meta": {"message_id": "m", "chat_id": "chat"}, "snapshot": {"chat": chat(rating=None)}}
    (search,), _ = imported(tmp_path, said, settings=TraceSettings(id_field="key"))
    assert search.answer is not None
    assert [(each.kind, each.value) for each in search.answer.verdicts if each.kind == "thumb"] == [("thumb", 0.0)]


def test_contexts_of_trulens_are_texts(tmp_path):
    said = {
        "ai.observability.span_type": "retrieval", "ai.observability.retrieval.query_text": "Which rock floats?",
        "ai.observability.retrieval.retrieved_contexts": ["Pumice floats.", "Slate splits."],
    }  # fmt: skip
    (span,), _ = read(haystack("retrieval.run", said, None))
    assert (span.kind, span.query) == ("retrieval", "Which rock floats?")
    assert [each.text for each in span.documents] == ["Pumice floats.", "Slate splits."]


def test_ids_that_look_like_the_beginning_of_another_are_ids(tmp_path):
    (search,), _ = imported(
        tmp_path, SPANS | {"trace_id": "20260501-12", "output": [{"id": "20260501-7", "text": "a"}]}
    )
    assert ids(search) == ["20260501-7"]


@pytest.mark.parametrize(
    "page",
    [
        {"page": 1, "size": 10, "total": 1, "content": [opik()], "sortable_by": []},
        {"events": [BRAINTRUST], "cursor": "x"},
        {"calls": [WEAVE]},
        {"data": [DATADOG], "meta": {"page": {"after": "x"}}, "links": {"next": "x"}},
        {"data": [DIFY], "has_more": False, "limit": 20},
        {
            "tables": [
                {"name": "t", "columns": [{"name": name} for name in INSIGHTS], "rows": [list(INSIGHTS.values())]}
            ]
        },
    ],
    ids=["opik", "braintrust", "weave", "datadog", "dify", "appinsights"],
)
def test_pages_of_their_apis_are_read_as_they_are_saved(page, tmp_path):
    file = tmp_path / "page.json"
    file.write_text(json.dumps(page, indent=1), encoding="utf-8")
    with read_traces(file) as traces:
        (search,) = traces.searches()
    assert (search.query, ids(search)) == ("Which rock floats?", ["p1", "p2"])


def test_tools_of_vercels_sdk_lie_in_the_call_that_was_asked(tmp_path):
    asked = {
        "ai.operationId": "ai.generateText", "ai.response.text": "Pumice.", "ai.telemetry.metadata.sessionId": "visit",
        "ai.prompt": json.dumps({"messages": [{"role": "user", "content": "floats?"}]}),
    }  # fmt: skip
    called = {
        "ai.operationId": "ai.toolCall", "ai.toolCall.name": "search",
        "ai.toolCall.args": json.dumps({"query": "rock that floats"}),
        "ai.toolCall.result": json.dumps(scored("p1", "p2")),
    }  # fmt: skip
    rows = [haystack("xxxxxxxxxa", called, "b" * 16), haystack("xxxxxxxxxb", asked, None)]
    (search,), _ = imported(tmp_path, *rows)
    assert (search.query, ids(search), search.generated) == ("rock that floats", ["p1", "p2"], True)
    assert search.session and search.answer is not None and search.answer.text == "Pumice."


def test_a_message_for_which_nothing_was_retrieved_does_not_spoil_the_others(tmp_path):
    greeting = DIFY | {"id": "m0", "query": "Hello", "answer": "Hi", "feedback": None, "retriever_resources": []}
    (search,), report = imported(tmp_path, greeting, DIFY)
    assert (search.query, report.traces, report.without_retrieval) == ("Which rock floats?", 2, 1)
    assert not imported(tmp_path, greeting)[0]
