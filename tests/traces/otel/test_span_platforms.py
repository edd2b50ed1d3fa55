"""Platforms that store spans in tables of their own, and clouds: the same span, and a whole trace of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from spans_written import PARENT, SPAN, START, TRACE, form_of, only, otlp, otlp_span, retrieved, sdk
from test_span_envelopes import check_odd_values

from qdrant_tools.errors import InputError
from qdrant_tools.traces import TraceSettings, read_traces
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.records import Span

NAME = "VectorIndexRetriever.retrieve"
ASKED = "Why does bread rise?"
FOUND = retrieved(ASKED, "bread", "tea", "rust")
ANSWERED = {
    "openinference.span.kind": "CHAIN", "input.value": ASKED, "output.value": "Yeast makes gas.", "session.id": "s-1",
    "user.id": "u-1",
}  # fmt: skip
WHEN, UNTIL = "2026-11-26T23:29:35.682156Z", "2026-11-26T23:29:36.682156Z"
MILLISECONDS = START / 1e6

Writer = Callable[[str, str, str | None, Mapping[str, Any]], dict[str, Any]]
"""Of the id of a trace, of a span, of its parent, and the attributes."""


def underscored(attributes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    numbers = {name: value for name, value in attributes.items() if isinstance(value, float)}
    texts = {name: value for name, value in attributes.items() if name not in numbers}
    return {
        "labels": {name.replace(".", "_"): value for name, value in texts.items()},
        "numeric_labels": {name.replace(".", "_"): value for name, value in numbers.items()},
    }


def elastic(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    kind = "span" if parent else "transaction"
    return {
        "_index": "traces-apm-default", "_source": {
            "@timestamp": WHEN, "processor": {"event": kind}, "trace": {"id": trace},
            kind: {"id": span, "name": NAME, "duration": {"us": 1_000_000}}, "event": {"outcome": "success"},
            "service": {"name": "kitchen"}, **({"parent": {"id": parent}} if parent else {}), **underscored(said),
        },
    }  # fmt: skip


def elastic_columns(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """As Discover exports a table."""
    labels = {f"{of}.{name}": value for of, values in underscored(said).items() for name, value in values.items()}
    return {
        "@timestamp": WHEN, "processor.event": "span", "trace.id": trace, "span.id": span, "span.name": NAME,
        "parent.id": parent or "-", "span.duration.us": 1_000_000, "service.name": "kitchen", **labels,
    }  # fmt: skip


def elastic_otel(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@timestamp": WHEN, "trace_id": trace, "span_id": span, "parent_span_id": parent or "", "name": NAME,
        "duration": 10**9, "kind": "Internal", "status": {"code": "Ok"}, "attributes": dict(said),
        "resource": {"attributes": {"service.name": "kitchen"}},
    }  # fmt: skip


def data_prepper(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "traceId": trace, "spanId": span, "parentSpanId": parent or "", "name": NAME, "startTime": WHEN,
        "endTime": UNTIL, "durationInNanos": 10**9, "serviceName": "kitchen", "status.code": 0, "traceGroup": NAME,
        **{f"span.attributes.{name.replace('.', '@')}": value for name, value in said.items()},
    }  # fmt: skip


def signoz(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {name: value for name, value in said.items() if isinstance(value, float)}
    return {
        "timestamp": "2026-11-26 23:29:35.682156456", "trace_id": trace, "span_id": span,
        "parent_span_id": parent or "", "name": NAME, "duration_nano": "1000000000", "has_error": False,
        "attributes_string": {name: value for name, value in said.items() if name not in numbers},
        "attributes_number": numbers, "attributes_bool": {}, "resources_string": {"service.name": "kitchen"},
    }  # fmt: skip


def new_relic(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trace.id": trace, "guid": span, "id": span, **({"parent.id": parent} if parent else {}), "name": NAME,
        "timestamp": int(MILLISECONDS), "duration.ms": 1000.0, "service.name": "kitchen", "entity.name": "kitchen",
        "otel.status_code": "OK", **said,
    }  # fmt: skip


def honeycomb(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "time": WHEN, "samplerate": 1, "data": {
            "trace.trace_id": trace, "trace.span_id": span, "trace.parent_id": parent, "name": NAME,
            "duration_ms": 1000, "service.name": "kitchen", **said,
        },
    }  # fmt: skip


def traceloop(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "environment": "prd", "timestamp": int(MILLISECONDS), "trace_id": trace, "span_id": span,
        "parent_span_id": parent or "", "span_name": NAME, "service_name": "kitchen", "duration": 10**9,
        "resource_attributes": {}, "span_attributes": dict(said), "status_code": "OK",
    }  # fmt: skip


def trulens(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event_id": span, "record": json.dumps({"name": NAME, "parent_span_id": parent or "", "status": "OK"}),
        "record_type": "SPAN", "record_attributes": json.dumps(said), "start_timestamp": WHEN, "timestamp": UNTIL,
        "trace": json.dumps({"trace_id": trace, "span_id": span, "parent_id": parent or ""}),
        "resource_attributes": json.dumps({"service.name": "kitchen"}),
    }  # fmt: skip


def any_table(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    """As BigQuery keeps the spans of Google's Telemetry API, or anybody's table."""
    return {
        "trace_id": trace, "span_id": span, "parent_span_id": parent, "name": NAME, "start_time": WHEN,
        "end_time": UNTIL, "attributes": json.dumps(said), "resource": {"attributes": {"service.name": "kitchen"}},
        "status": {"code": 0},
    }  # fmt: skip


def xray(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    document = {
        "id": span, "name": "kitchen", "trace_id": f"1-{trace[:8]}-{trace[8:]}", "start_time": START / 1e9,
        "end_time": START / 1e9 + 1, "metadata": {"default": dict(said)}, "annotations": {},
        **({"parent_id": parent} if parent else {}),
    }  # fmt: skip
    return {
        "Traces": [
            {"Id": document["trace_id"], "Segments": [{"Id": span, "Document": json.dumps(document)}]},
        ],
        "UnprocessedTraceIds": [],
    }


def cloud_trace(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    one = {
        "spanId": str(int(span, 16)), "name": NAME, "startTime": WHEN, "endTime": UNTIL,
        "labels": {name: str(value) for name, value in said.items()},
        **({"parentSpanId": str(int(parent, 16))} if parent else {}),
    }  # fmt: skip
    return {"projectId": "p", "traceId": trace, "spans": [one]}


def cloud_trace_2(trace: str, span: str, parent: str | None, said: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: {"stringValue": {"value": str(value), "truncatedByteCount": 0}} for name, value in said.items()}
    return {
        "name": f"projects/p/traces/{trace}/spans/{span}", "spanId": span, "parentSpanId": parent or "",
        "displayName": {"value": NAME}, "startTime": WHEN, "endTime": UNTIL, "attributes": {"attributeMap": values},
    }  # fmt: skip


PLATFORMS: dict[str, Writer] = {
    "elastic-apm": elastic, "elastic-apm as a table": elastic_columns, "elastic-apm of OpenTelemetry": elastic_otel,
    "data-prepper": data_prepper, "signoz": signoz, "newrelic": new_relic, "honeycomb": honeycomb,
    "traceloop": traceloop, "trulens": trulens, "otel-table": any_table, "xray": xray, "cloudtrace": cloud_trace,
    "cloudtrace 2": cloud_trace_2,
}  # fmt: skip


def meaning(span: Span) -> tuple[object, ...]:
    return (
        span.trace, span.id, span.parent, span.kind, span.query, span.session, span.user, span.failed,
        [(each.position, each.id, each.score, each.text) for each in span.documents or ()],
    )  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_span_of_a_platform_is_the_span_that_the_application_wrote(platform: str) -> None:
    row = PLATFORMS[platform](TRACE, SPAN, PARENT, FOUND)
    assert form_of(row).name == platform.split()[0]
    assert meaning(only(row)) == meaning(only(sdk(FOUND)))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_trace_of_a_platform_gives_its_search_and_its_answer(platform: str, tmp_path: Path) -> None:
    write = PLATFORMS[platform]
    file = tmp_path / "rows.jsonl"
    rows = [write(TRACE, SPAN, PARENT, FOUND), write(TRACE, PARENT, None, ANSWERED)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with read_traces(file) as traces:
        (search,) = traces.searches()
    assert (search.query, [hit.id for hit in search.hits]) == (ASKED, ["id-bread", "id-tea", "id-rust"])
    assert search.answer is not None
    assert search.answer.text == "Yeast makes gas."
    assert abs(search.at.timestamp() - START / 1e9) < 0.01
    assert not search.generated


def test_subsegments_lie_in_the_segment_that_holds_them() -> None:
    inner = {"id": SPAN, "name": NAME, "start_time": 1.7e9, "end_time": 1.7e9 + 1, "metadata": {"default": FOUND}}
    segment = {
        "id": PARENT, "name": "kitchen", "trace_id": f"1-{TRACE[:8]}-{TRACE[8:]}", "start_time": 1.7e9,
        "subsegments": [inner],
    }  # fmt: skip
    spans = list(form_of(segment).read(segment, TraceSettings()))
    assert [(each.id, each.parent, each.trace) for each in spans if isinstance(each, Span)] == [
        (PARENT, None, TRACE),
        (SPAN, PARENT, TRACE),
    ]


def test_an_answer_of_elasticsearch_holds_its_documents() -> None:
    hits = [elastic(TRACE, SPAN, PARENT, FOUND), elastic(TRACE, PARENT, None, ANSWERED)]
    row = {"took": 3, "hits": {"total": {"value": 2}, "hits": hits}}
    assert form_of(row).name == "elastic-apm"
    assert [each.id for each in form_of(row).read(row, TraceSettings()) if isinstance(each, Span)] == [SPAN, PARENT]


def test_jaegers_newer_api_has_spans_of_the_protocol() -> None:
    assert meaning(only({"result": otlp(otlp_span(FOUND))})) == meaning(only(sdk(FOUND)))


@pytest.mark.parametrize(("platform", "longest"), [("elastic-apm", 1024), ("newrelic", 4095), ("cloudtrace", 256)])
def test_a_value_that_a_platform_has_cut_is_no_text(platform: str, longest: int) -> None:
    long = {**FOUND, "retrieval.documents.1.document.content": "x" * longest}
    span = only(PLATFORMS[platform](TRACE, SPAN, PARENT, long))
    assert [document.text is None for document in span.documents or ()] == [False, True, False]
    assert (span.cut, f"cut at {longest:,} characters" in span.hint) == (1, True)
    whole = only(PLATFORMS[platform](TRACE, SPAN, PARENT, {**long, "output.value": "y" * (longest + 1)}))
    assert (whole.cut, whole.hint) == (0, "")  # this one keeps more


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_row_with_odd_values_anywhere_is_read_or_refused_and_is_of_one_form(platform: str) -> None:
    check_odd_values(json.loads(json.dumps(PLATFORMS[platform](TRACE, SPAN, PARENT, {"input.value": ASKED}))), platform)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("trace", "span"), [("", SPAN), (TRACE, "9" * 600)], ids=["no trace", "an endless span"])
def test_a_damaged_id_is_refused(platform: str, trace: str, span: str) -> None:
    row = PLATFORMS[platform](trace, span, PARENT, FOUND)
    for form in FORMS:
        if form.recognises(row):
            with pytest.raises(InputError):
                list(form.read(row, TraceSettings()))
