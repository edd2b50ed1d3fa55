"""What a person typed is kept as it was written, also where it is JSON itself."""

from __future__ import annotations

import json

import pytest
from written import imported, span

from qdrant_tools.traces.forms.values import query_in

HITS = [("a", 0.9), ("b", 0.8)]
TYPED = [
    '{"error": "E42", "code": 7}',
    '{"name": "x"}',
    '["first", "second"]',
    "[1, 2, 3]",
    '{"error": {"code": 7',
    '[{"error": 1}, ',
    "{}",
]


@pytest.mark.parametrize("query", TYPED[:5])
def test_a_query_that_is_json_is_that_of_the_search_and_no_language_models(query, tmp_path):
    rows = [
        span("find", "RETRIEVER", parent="ask", query=query, documents=HITS),
        span("ask", query=query, answer="an answer"),
    ]
    (search,), _ = imported(tmp_path, *rows)
    assert (search.query, search.generated) == (query, False)


@pytest.mark.parametrize("query", TYPED[:4])
def test_every_form_keeps_a_query_that_is_json(query, tmp_path):
    documents = [{"id": "a", "text": "x", "score": 0.9}]
    started = {"start_time": "2026-05-01T10:00:00Z"}
    rows = [
        {"trace_id": "1", "span_id": "1", "span_type": "retriever", "input": {"query": query}, "output": documents},
        {"request_id": "2", "query": query, "retrieved_documents": documents},
        {
            "id": "3", "trace_id": "3", "run_type": "retriever", "name": "r", "inputs": {"query": query},
            "outputs": {"documents": [{"page_content": "x", "metadata": {"_id": "a"}}]}, "dotted_order": "3",
        },
    ]  # fmt: skip
    searches, _ = imported(tmp_path, *({**row, **started} for row in rows))
    assert [search.query for search in searches] == [query] * 3


@pytest.mark.parametrize(
    ("value", "query"),
    [
        ('{"query_str": "why?"}', "why?"),
        ('{"str_or_query_bundle": {"query_str": "why?"}}', "why?"),
        ('{"messages": [{"role": "user", "content": "why?"}]}', "why?"),
        ('[{"role": "user", "content": "why?"}]', "why?"),
        ('{"args": ["why?"], "kwargs": {}}', "why?"),
        (json.dumps({"query": '{"error": 1}'}), '{"error": 1}'),
    ],
)
def test_what_a_framework_wraps_is_unwrapped(value, query):
    from qdrant_tools.traces.forms.steps import asked

    assert asked(value) == query
    assert value.startswith('{"args"') or query_in(value, plain=True) == query


def test_a_text_that_mlflow_quotes_is_what_was_typed():
    from qdrant_tools.traces.forms.raw import RawSpan
    from qdrant_tools.traces.forms.sdk_attributes import MlflowAttributes
    from qdrant_tools.traces.records import TraceSettings

    attributes = {
        "mlflow.spanType": '"RETRIEVER"',
        "mlflow.spanInputs": json.dumps(TYPED[0]),
        "mlflow.spanOutputs": json.dumps([{"page_content": "x", "id": "a", "metadata": {}}]),
    }
    assert MlflowAttributes().span(RawSpan("t", "s", None, attributes=attributes), TraceSettings()).query == TYPED[0]


@pytest.mark.parametrize("query", [*TYPED[:4], '{"id": 7, "name": "x"}'])
def test_a_retriever_of_langchain_is_asked_a_text_also_where_its_tool_calls_it_json(query, tmp_path):
    about = {"ls_retriever_name": "vectorstore", "ls_vector_store_provider": "QdrantVectorStore"}
    named = {f"langfuse.observation.metadata.{name}": json.dumps(value) for name, value in about.items()}
    found = json.dumps([{"id": None, "metadata": {"_id": "a"}, "page_content": "x", "type": "Document"}])
    of_json = {"input__mime_type": "application/json"}
    by_openinference = [
        span("find", "RETRIEVER", parent="ask", query=query, documents=HITS, metadata=json.dumps(about), **of_json),
        span("ask", query=query, answer="an answer", **of_json),
    ]
    sent = [
        {"langfuse.observation.type": kind, "langfuse.observation.input": query, "langfuse.observation.output": made}
        for kind, made in (("retriever", found), ("chain", "an answer"))
    ]
    by_langfuse = [
        {**span("find", trace="l", parent="ask"), "attributes": sent[0] | named},
        {**span("ask", trace="l"), "attributes": sent[1]},
    ]
    row = {
        "trace_id": "s", "environment": "default", "start_time": "2026-05-01 10:00:00", "level": "DEFAULT",
        "input": query, "end_time": None,
    }  # fmt: skip
    stored = [
        {"id": f"f{place}", "type": "RETRIEVER", "name": "find", "parent_observation_id": "c", "output": found, **row}
        | {"trace_id": f"s{place}", "metadata": metadata}
        for place, metadata in enumerate([about, {"attributes": json.dumps(named)}])
    ]
    searches, _ = imported(tmp_path, *by_openinference, *by_langfuse, *stored)
    assert [(search.query, search.generated) for search in searches] == [(query, False)] * 4
