"""One span, in every way in which SDKs, collectors, stores and Phoenix write it, is one and the same span."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import random
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from spans_written import (
    PARENT,
    SPAN,
    START,
    STARTED,
    TEXTS,
    TRACE,
    form_of,
    only,
    otlp,
    otlp_span,
    pairs_of,
    read,
    retrieved,
    sdk,
)

from qdrant_tools.errors import InputError
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.records import Span, TraceSettings

ATTRIBUTES = retrieved("Why does bread rise?", "bread", "tea", "rust")


def base64_of(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def with_underscores(value: Any) -> Any:
    """Names as Phoenix's own protocol writes them, with the null of everything that is not set."""
    if isinstance(value, list):
        return [with_underscores(part) for part in value]
    if not isinstance(value, dict):
        return value
    names = {"".join(f"_{c.lower()}" if c.isupper() else c for c in name): part for name, part in value.items()}
    if set(names) & {"string_value", "double_value"}:
        names = dict.fromkeys(["array_value", "bool_value", "bytes_value", "int_value", "kvlist_value"]) | names
    return {name: with_underscores(part) for name, part in names.items()}


def as_protobuf() -> dict[str, Any]:
    """What protobuf makes of a request: ids in base64, enums by their names."""
    span = otlp_span(ATTRIBUTES, traceId=base64_of(TRACE), spanId=base64_of(SPAN), parentSpanId=base64_of(PARENT))
    return otlp({**span, "kind": "SPAN_KIND_INTERNAL", "status": {"code": "STATUS_CODE_OK"}})


def as_jaeger() -> dict[str, Any]:
    """A trace of Jaeger's API. It writes ids without their zeros."""
    tags = [{"key": name, "type": "string", "value": value} for name, value in ATTRIBUTES.items()]
    span = {
        "traceID": TRACE.lstrip("0"), "spanID": SPAN, "operationName": "VectorIndexRetriever.retrieve",
        "references": [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": PARENT.lstrip("0")}],
        "startTime": START // 1000, "duration": 10**6, "tags": tags, "processID": "p1",
    }  # fmt: skip
    return {"traceID": TRACE, "spans": [span], "processes": {"p1": {"serviceName": "kitchen", "tags": []}}}


def as_zipkin() -> dict[str, Any]:
    return {
        "traceId": TRACE, "id": SPAN, "parentId": PARENT, "name": "VectorIndexRetriever.retrieve",
        "timestamp": START // 1000, "duration": 10**6, "localEndpoint": {"serviceName": "kitchen"},
        "tags": {name: str(value) for name, value in ATTRIBUTES.items()},
    }  # fmt: skip


def as_clickhouse() -> dict[str, Any]:
    return {
        "Timestamp": "2026-11-26 23:29:35.682156456", "TraceId": TRACE, "SpanId": SPAN, "ParentSpanId": PARENT,
        "SpanName": "VectorIndexRetriever.retrieve", "SpanKind": "Internal", "ServiceName": "kitchen",
        "ResourceAttributes": {}, "SpanAttributes": {name: str(value) for name, value in ATTRIBUTES.items()},
        "StatusCode": "Ok",
    }  # fmt: skip


def as_javascript() -> dict[str, Any]:
    return {
        "resource": {"attributes": {"service.name": "kitchen"}}, "traceId": TRACE, "id": SPAN, "kind": 0,
        "parentSpanContext": {"traceId": TRACE, "spanId": PARENT}, "name": "VectorIndexRetriever.retrieve",
        "timestamp": START // 1000, "duration": 10**6, "attributes": ATTRIBUTES, "status": {"code": 1}, "events": [],
    }  # fmt: skip


def as_phoenix(attributes: dict[str, Any] = ATTRIBUTES) -> dict[str, Any]:
    """A span of the REST API: the kind lies beside the attributes, and metadata is flat like everything else."""
    flat = {name: value for name, value in attributes.items() if not name.endswith((".metadata", "span.kind"))}
    for place in range(3):
        flat[f"retrieval.documents.{place}.document.metadata.file_name"] = "x.md"
    return {
        "id": "U3BhbjoxNDg=", "name": "VectorIndexRetriever.retrieve", "span_kind": "RETRIEVER",
        "context": {"trace_id": TRACE, "span_id": SPAN}, "parent_id": PARENT, "start_time": STARTED,
        "end_time": STARTED, "status_code": "OK", "status_message": "", "attributes": flat, "events": [],
    }  # fmt: skip


def documents() -> list[dict[str, Any]]:
    return [
        {"document.metadata": {"file_name": f"{name}.md"}, "document.content": TEXTS[name],
         "document.score": round(0.9 - place / 10, 10), "document.id": f"id-{name}"}
        for place, name in enumerate(["bread", "tea", "rust"])
    ]  # fmt: skip


def as_frame(listed: Any) -> dict[str, Any]:
    """A row of Phoenix's dataframe."""
    return {
        "context.span_id": SPAN, "context.trace_id": TRACE, "name": "VectorIndexRetriever.retrieve",
        "span_kind": "RETRIEVER", "parent_id": PARENT, "start_time": STARTED, "end_time": STARTED, "status_code": "OK",
        "attributes.input.value": "Why does bread rise?", "attributes.retrieval.documents": listed,
        "attributes.session.id": "s-1", "attributes.user.id": "u-1", "attributes.reranker.query": None,
    }  # fmt: skip


ENVELOPES = {
    "openinference": lambda: sdk(ATTRIBUTES),
    "otlp": lambda: otlp(otlp_span(ATTRIBUTES)),
    "otlp, protobuf": as_protobuf,
    "otlp, Phoenix": lambda: with_underscores(otlp_span(ATTRIBUTES)),
    "otlp, Tempo": lambda: {"batches": otlp(otlp_span(ATTRIBUTES))["resourceSpans"]},
    "otlp, Tempo 2": lambda: {"trace": otlp(otlp_span(ATTRIBUTES))},
    "jaeger": as_jaeger,
    "zipkin": as_zipkin,
    "clickhouse": as_clickhouse,
    "javascript": as_javascript,
    "phoenix, REST": as_phoenix,
    "phoenix, dataframe": lambda: as_frame(documents()),
    "phoenix, CSV": lambda: as_frame(str(documents())),
    "phoenix, milliseconds": lambda: {**as_frame(documents()), "start_time": START // 10**6},
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_span_is_the_same_in_every_envelope(name):
    row = json.loads(json.dumps(ENVELOPES[name]()))
    assert form_of(row).name == name.partition(",")[0]
    span, expected = only(row), only(sdk(ATTRIBUTES))
    assert (span.trace, span.id, span.parent) == (TRACE, SPAN, PARENT)
    assert span.at is not None and abs((span.at - expected.at).total_seconds()) < 0.001
    assert [(d.position, d.id, d.text) for d in span.documents] == [
        (place, f"id-{name}", TEXTS[name]) for place, name in enumerate(["bread", "tea", "rust"])
    ]
    assert [d.score for d in span.documents] == pytest.approx([0.9, 0.8, 0.7])
    same = {field: getattr(expected, field) for field in ("kind", "name", "query", "session", "user", "failed", "hint")}
    assert replace(span, **same) == span


def test_documents_are_in_the_order_of_numbers():
    names = list(TEXTS)
    attributes = retrieved("q", *(names[place % len(names)] for place in range(12)))
    attributes = dict(sorted(attributes.items()))
    assert list(attributes).index("retrieval.documents.10.document.id") < list(attributes).index(
        "retrieval.documents.2.document.id"
    )
    assert [document.position for document in only(sdk(attributes)).documents] == list(range(12))
    assert only(sdk(attributes)).documents[2].id == "id-rust"


def test_a_list_without_its_head_keeps_its_ranks():
    kept = {name: value for name, value in ATTRIBUTES.items() if ".0." not in name and name != "input.value"}
    # of rank 2, the id is dropped too: the rest of it is of no use
    del kept["retrieval.documents.1.document.id"]
    span = only(sdk(kept))
    assert (span.query, [document.position for document in span.documents]) == (None, [2])
    assert span.dropped and "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in span.hint
    told = only(otlp(otlp_span(ATTRIBUTES, droppedAttributesCount=4)))
    assert (told.dropped, len(told.documents)) == (4, 3)


def test_ids_are_the_metadatas_where_a_document_has_none_or_a_field_is_named():
    point = json.dumps({"source": "bread.md", "_id": "point-1", "_collection_name": "kitchen", "sku": 17})
    attributes = {
        "input.value": "q", "openinference.span.kind": "RETRIEVER",
        "retrieval.documents.0.document.content": TEXTS["bread"], "retrieval.documents.0.document.metadata": point,
    }  # fmt: skip
    span = only(sdk(attributes))
    assert (span.documents[0].id, span.documents[0].score, span.collection) == ("point-1", None, "kitchen")
    assert only(sdk(attributes), id_field="sku").documents[0].id == "17"
    nested = {**attributes, "retrieval.documents.0.document.metadata": json.dumps({"shop": {"sku": "a-9"}})}
    assert only(sdk(nested), id_field="shop.sku").documents[0].id == "a-9"
    # a field that is not there is no id, and no other one stands in for it
    assert only(sdk(attributes), id_field="isbn").documents[0].id is None
    # LangChain dumps what other stores call a document
    del attributes["retrieval.documents.0.document.metadata"]
    attributes["output.value"] = json.dumps({"documents": [{"id": "chroma-7", "page_content": TEXTS["bread"]}]})
    assert only(sdk(attributes)).documents[0].id == "chroma-7"


def test_a_step_of_any_kind_that_has_the_list_of_a_retriever_is_one():
    span = only(sdk({**ATTRIBUTES, "openinference.span.kind": "TOOL"}))
    assert (span.kind, span.implied, len(span.documents)) == ("retrieval", False, 3)


def test_a_retriever_that_found_nothing_has_an_empty_list():
    nothing = {"input.value": "q", "output.value": "[]", "openinference.span.kind": "RETRIEVER"}
    assert only(sdk(nothing)).documents == ()
    assert only(sdk({**nothing, "output.value": '{"documents": []}'})).documents == ()


def test_sessions_users_projects_environments_and_tags_are_known():
    resource = {"service.name": "api", "openinference.project.name": "kitchen", "deployment.environment": "staging"}
    span = only(sdk({**ATTRIBUTES, "tag.tags": ["beta"]}, resource={"attributes": resource}))
    assert (span.session, span.user, span.service, span.tags) == ("s-1", "u-1", "kitchen", ("beta", "api", "staging"))
    failed = only(sdk(ATTRIBUTES, status={"status_code": "ERROR", "description": "x"}, parent_id=None))
    assert (failed.failed, failed.parent) == (True, None)


def test_a_csv_of_phoenix_has_lists_as_numpy_writes_them():
    listed = "[" + "\n ".join(map(str, documents())) + "]"
    row = as_frame(listed)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, row)
    writer.writeheader()
    writer.writerow(row)
    buffer.seek(0)
    (read_back,) = csv.DictReader(buffer)
    assert only(read_back).documents == only(as_frame(documents())).documents
    odd = listed.replace("0.9", "np.float64(0.9)").replace("'file_name': 'bread.md'", "'page': nan, 'at': None")
    assert only(as_frame(odd)).documents == only(as_frame(documents())).documents
    # an apostrophe makes Python write the other quotes
    quoted = documents()
    quoted[0]["document.content"] = "It's \"bread\"\n [and] {'tea'}\n {'rust'}"
    assert only(as_frame(str(quoted))).documents[0].text == quoted[0]["document.content"]
    with pytest.raises(InputError, match="retrieval.documents is .*expected a list of documents"):
        only(as_frame("[{'document.content': open('x')"))


def test_arizes_lists_in_columns_are_lists_of_documents():
    row = as_frame(None)
    del row["attributes.retrieval.documents"]
    columns = {
        "ids": ["id-bread", "id-tea"], "scores": [0.9, 0.8], "contents": [TEXTS["bread"], TEXTS["tea"]],
        "metadatas": [{"sku": "a"}, {"sku": "b"}],
    }  # fmt: skip
    named = {f"attributes.retrieval.documents.{name}": values for name, values in columns.items()}
    for cells in (named, {name: str(values) for name, values in named.items()}):
        span = only({**row, **cells})
        assert [(d.position, d.id, d.score, d.text) for d in span.documents] == [
            (0, "id-bread", 0.9, TEXTS["bread"]), (1, "id-tea", 0.8, TEXTS["tea"]),
        ]  # fmt: skip
        assert [d.id for d in only({**row, **cells}, id_field="sku").documents] == ["a", "b"]
    # those that an application wrote by hand; of two lengths, nobody knows which belong together
    by_hand = {"input.value": "q", "openinference.span.kind": "CHAIN", "retrieval.documents.ids": '["a", "b"]'}
    assert [d.id for d in only(sdk(by_hand)).documents] == ["a", "b"]
    assert only(sdk({**by_hand, "retrieval.documents.scores": [1.0]})).documents is None
    assert only(sdk({"retrieval.documents.count": 3, "openinference.span.kind": "CHAIN"})).kind == "chain"


@pytest.mark.parametrize("kind", ["RETRIEVER", "CHAIN", None])
@pytest.mark.parametrize("nested", ["flat", "nested", "plain"])
def test_a_list_that_is_one_json_text_is_read(kind, nested):
    documents = [
        {
            "document.id": "a",
            "document.score": 0.5,
            "document.content": TEXTS["bread"],
            "document.metadata": {"sku": 7},
        },
        {"document.id": "b", "document.score": 0.4, "document.content": "__REDACTED__"},
    ]
    if nested != "flat":
        documents = [{name.removeprefix("document."): part for name, part in each.items()} for each in documents]
    if nested == "nested":
        documents = [{"document": each} for each in documents]
    said = {"input.value": "q", "retrieval.documents": json.dumps(documents), "openinference.span.kind": kind}
    attributes = {name: value for name, value in said.items() if value is not None}
    found = only(sdk(attributes))
    assert (found.kind, found.query, found.hidden) == ("retrieval", "q", 1)
    assert [(d.id, d.score, d.text) for d in found.documents] == [("a", 0.5, TEXTS["bread"]), ("b", 0.4, None)]
    assert only(sdk(attributes | {"retrieval.documents": "[]"})).documents == ()
    if nested == "flat":
        assert only(sdk(attributes), id_field="sku").documents[0].id == "7"
    cut = only(sdk(attributes | {"retrieval.documents": json.dumps(documents)[:60]}))
    assert cut.documents is None and "LENGTH_LIMIT" in cut.hint


def test_nothing_in_a_cell_is_run(tmp_path):
    target = tmp_path / "made"
    cell = f"[{{'document.id': __import__('pathlib').Path({str(target)!r}).touch()}}]"
    with pytest.raises(InputError):
        only(as_frame(cell))
    assert not target.exists()


def test_an_exploded_query_gives_the_pieces_of_a_span():
    rows = [
        {"context.span_id": SPAN, "document_position": str(place), "context.trace_id": TRACE, "input.value": "q?",
         "reference": TEXTS[name], "document_score": "0.5", "document_id": f"id-{name}"}
        for place, name in enumerate(["bread", "tea"])
    ]  # fmt: skip
    spans = read(*rows)
    assert [(s.trace, s.id, s.query, s.kind) for s in spans] == [(TRACE, SPAN, "q?", "retrieval")] * 2
    assert [s.documents[0].position for s in spans] == [0, 1]
    assert [s.documents[0].id for s in spans] == ["id-bread", "id-tea"]
    # of Phoenix's own helper, which has no ids and no query that selects the trace
    helper = {
        "context.span_id": SPAN,
        "document_position": 0,
        "input": "q?",
        "document": TEXTS["tea"],
        "document_score": 1,
    }
    span = only(helper)
    assert (span.trace, span.documents[0].id, span.documents[0].text) == (SPAN, None, TEXTS["tea"])
    sold = {**helper, "document_metadata": "{'sku': 'a-1'}"}
    assert only(sold, id_field="sku").documents[0].id == "a-1"
    with pytest.raises(InputError, match="document_position is '-1', expected a rank"):
        read({**rows[0], "document_position": "-1"})


def test_a_span_of_another_application_is_a_span_without_a_search():
    span = only(sdk({"http.method": "GET", "http.route": "/search"}, name="GET /search"))
    assert (span.kind, span.documents, span.trace) == ("other", None, TRACE)
    assert form_of(sdk({"http.method": "GET"})).name == "opentelemetry"
    assert read({"resourceSpans": []}) == []


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (sdk(ATTRIBUTES, context={"trace_id": None, "span_id": SPAN}), "context.trace_id is None"),
        (sdk(ATTRIBUTES, start_time="yesterday"), "start_time is 'yesterday'"),
        (sdk(ATTRIBUTES, events="none"), "events are 'none'"),
        (otlp(otlp_span(ATTRIBUTES, spanId="")), "spanId is ''"),
        (otlp(otlp_span(ATTRIBUTES, startTimeUnixNano="12")), "startTimeUnixNano is '12'"),
        (otlp({**otlp_span(ATTRIBUTES), "attributes": "x"}), "attributes are 'x'"),
        ({"resourceSpans": [1]}, "resourceSpans are"),
        ({"traceID": TRACE, "spans": [1], "processes": {}}, "spans hold 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_span_is_refused_with_the_field_and_the_value(row, named):
    with pytest.raises(InputError) as refused:
        list(form_of(row).read(row, TraceSettings()))
    assert named in str(refused.value)


def test_a_value_that_is_nested_without_end_is_refused():
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(60):
        value = {"arrayValue": {"values": [value]}}
    row = otlp({**otlp_span({}), "attributes": [{"key": "a", "value": value}]})
    with pytest.raises(InputError, match="nested more than 32 levels"):
        read(row)


def test_attributes_of_every_type_of_the_protocol_are_read():
    pairs = [
        *pairs_of({"input.value": "q", "openinference.span.kind": "RETRIEVER"}),
        {"key": "retrieval.documents", "value": {"arrayValue": {"values": [
            {"kvlistValue": {"values": [
                {"key": "document.id", "value": {"intValue": "7"}},
                {"key": "document.score", "value": {"doubleValue": "NaN"}},
            ]}},
        ]}}},
    ]  # fmt: skip
    span = only(otlp({**otlp_span({}), "attributes": pairs}))
    (document,) = span.documents
    assert document.id == "7" and math.isnan(document.score), "it is there, and the report counts it"
    assert isinstance(span, Span)


def test_a_pipeline_that_hands_its_question_to_several_parts_asks_it_once():
    given = {"data": {"embedder": {"text": "Why?"}, "prompt": {"question": "Why?"}}, "include_outputs_from": "set()"}
    made = {"llm": {"replies": ["Yeast."]}, "retriever": {"documents": ["Document(id=1, content: 'x')"]}}
    attributes = {
        "input.value": json.dumps(given),
        "output.value": json.dumps(made),
        "openinference.span.kind": "CHAIN",
    }
    span = only(sdk(attributes, name="Pipeline.run"))
    assert (span.kind, span.query, span.answer) == ("chain", "Why?", "Yeast.")
    given["data"]["prompt"]["question"] = "Why not?"
    assert only(sdk({**attributes, "input.value": json.dumps(given)})).query is None


def test_the_step_of_a_workflow_is_not_asked_its_event():
    given = {"input.value": '{"ev": "StartEvent()"}', "openinference.span.kind": "CHAIN"}
    assert only(sdk(given)).query is None
    assert only(sdk({**given, "input.value": '{"topic": "Why?"}'})).query == "Why?"


@pytest.mark.parametrize("value", ['{"query": "Why', '["Why', '[{"role": "user"', "<generator object at 0x7f>", "***"])
def test_what_is_no_whole_text_is_no_query(value):
    assert only(sdk({"input.value": value, "openinference.span.kind": "RETRIEVER"})).query is None


ODD = [
    None, [], {}, "", 0, -1, 1e308, math.nan, "\ud800", "x" * 700, True, [[]], [None], {"a": None}, "{", "[1", "[{}]",
    [{}], "__REDACTED__", "StopEvent(result='", "[{'document.id': -}]", "((((", "[" * 500, {"kvlistValue": 1},
    {"arrayValue": {"values": 3}}, {"intValue": "x"}, "\u0663", "\u00b2", 10**40, {"node": 5}, '[{"node": 5}]',
    '{"messages": [["x"]]}', '{"messages": [{"role": {}}]}', '{"messages": [{"role": "user", "parts": [{"text": 5}]}]}',
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    for step in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[step], (*at, step))


def check_odd_values(row: Any, seed: str) -> None:
    """Put odd values into every place of the row: at most one form knows it, and that one reads or refuses it."""
    chance = random.Random(seed)
    for at in places(row):
        for odd in chance.sample(ODD, 3):
            changed = deepcopy(row)
            holder = changed
            for step in at[:-1]:
                holder = holder[step]
            holder[at[-1]] = odd
            forms = [form for form in FORMS if form.recognises(changed)]
            assert len(forms) <= 1
            with suppress(InputError):
                [repr(said) for form in forms for said in form.read(changed, TraceSettings())]


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_row_with_odd_values_anywhere_is_read_or_refused_and_nothing_else(name):
    check_odd_values(json.loads(json.dumps(ENVELOPES[name]())), name)


@pytest.mark.parametrize(
    "text",
    ["[{}" + "\n" * 400_000 + "x", "StopEvent(" + "role=<MessageRole.A:" * 100_000, "<NodeWithScore(" * 100_000],
    ids=["line ends", "roles", "nodes"],
)
def test_a_text_that_is_made_to_be_looked_at_for_ever_is_looked_at_once(text):
    chain = {"input.value": text, "output.value": text, "openinference.span.kind": "CHAIN"}
    assert only(sdk(chain)).documents is None
    with suppress(InputError):
        only(as_frame(text))
