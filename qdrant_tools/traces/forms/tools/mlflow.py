"""MLflow's traces, with what was said of them -> spans and annotations.

Read are `Trace.to_dict()` and `Trace.to_json()`, the rows of `search_traces()` (CSV, where spans are Python's repr,
JSONL, Parquet), the request logs of Databricks, and assessments on rows of their own. The spans that MLflow sends over
OTLP are a dialect: `sdk_attributes.py`.

Guarantees: ids are hex, whether MLflow writes base64 (spans) or hex (assessments), and a trace is the same with `tr-`
before its id and without. A judge's grade of one chunk (`chunk_index`, or a list by number) is one of that document.
Expected context is a person's label where a document that was found has its text or its address. Previews are cut, and
never read. Does not know: expected facts and answers, which are about no passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.fields import first_of, mapping_in, name_of
from qdrant_tools.traces.forms.otel.dialects import span_of
from qdrant_tools.traces.forms.raw import (
    SPAN_DIGITS,
    TRACE_DIGITS,
    RawSpan,
    hex_id,
    moment,
    number_of,
    parent_id,
)
from qdrant_tools.traces.forms.values import json_in, python_in, text_of
from qdrant_tools.traces.records import Annotation, By, Span, TraceSettings

_BY: Mapping[str, By] = {"HUMAN": "person", "LLM_JUDGE": "judge", "AI_JUDGE": "judge", "CODE": "code"}
EXPECTED_CONTEXT = "expected_retrieved_context"
_TAGS = ("mlflow.source.name", "mlflow.traceName")


@dataclass(frozen=True)
class MlflowTraces:
    """A trace a row, or an assessment a row."""

    name: str = "mlflow"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is a trace, of either shape, or an assessment."""
        return _is_trace(row) or _is_row_of_search(row) or _is_assessment(row)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """What a row says. Raises `InputError` where a trace, an id or a time is damaged."""
        if _is_assessment(row):
            yield from _assessments([row], [], settings)
            return
        info, spans = _parts(row)
        read = [_span(span, info, settings) for span in spans]
        yield from read
        said = info.get("assessments")
        yield from _assessments(_objects(row.get("assessments") if said is None else said), read, settings)


def _is_trace(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("info"), Mapping) and isinstance(row.get("data"), Mapping) and "spans" in row["data"]


def _is_row_of_search(row: Mapping[str, Any]) -> bool:
    # tables of Databricks have the trace beside its request
    of_three = "trace" in row and ({"trace_id", "trace_metadata"} <= row.keys() or "databricks_request_id" in row)
    return of_three or ("spans" in row and "request_metadata" in row and ("request_id" in row or "trace_id" in row))


def _is_assessment(row: Mapping[str, Any]) -> bool:
    return (
        "assessment_name" in row
        and "trace_id" in row
        and "spans" not in row
        and any(name in row for name in ("feedback", "expectation", "source"))
    )


def _parts(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """What is said of the trace, and its spans."""
    whole = row if _is_trace(row) else mapping_in(row.get("trace"))
    if _is_trace(whole):
        return whole["info"], _objects(whole["data"]["spans"])
    spans = python_in(row.get("spans"))
    if spans is None and "databricks_request_id" in row:
        return row, []  # a request whose trace was not kept
    if not isinstance(spans, (list, tuple)):
        raise InputError(f"spans are {brief(row.get('spans'))}, expected the list of a trace's spans")
    return row, _objects(spans)


def _objects(value: Any) -> list[Mapping[str, Any]]:
    inside = python_in(value)
    objects = [json_in(item) for item in inside] if isinstance(inside, (list, tuple)) else []
    return [item for item in objects if isinstance(item, Mapping)]


def _trace_id(name: str, value: Any) -> str:
    """Hex, without what MLflow puts before it: `tr-`, or where it lies (`trace:/catalog.schema/…`)."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str):
        text = text.rpartition("/")[2] if text.startswith("trace:/") else text.removeprefix("tr-")
    return hex_id(name, text, TRACE_DIGITS)


def _span(span: Mapping[str, Any], info: Mapping[str, Any], settings: TraceSettings) -> Span:
    # before MLflow 3 the ids lay in a context, as in the SDK's own JSON
    context = mapping_in(span.get("context"))
    trace = first_of(span, "trace_id") or first_of(info, "trace_id", "request_id") or context.get("trace_id")
    status = span.get("status")
    code = status.get("code") if isinstance(status, Mapping) else span.get("status_code")
    about = {**_pairs(info.get("request_metadata")), **_pairs(info.get("trace_metadata"))}
    attributes = dict(mapping_in(span.get("attributes")))
    for name in ("mlflow.trace.session", "mlflow.trace.user"):
        if name in about:
            attributes.setdefault(name, about[name])
    raw = RawSpan(
        trace=_trace_id("trace_id", trace),
        id=hex_id("span_id", first_of(span, "span_id") or context.get("span_id"), SPAN_DIGITS),
        parent=parent_id("parent_span_id", first_of(span, "parent_span_id", "parent_id")),
        name=text_of(span.get("name")) or "",
        at=moment("start_time", first_of(span, "start_time_unix_nano", "start_time"), settings.zone or UTC),
        until=moment("end_time", first_of(span, "end_time_unix_nano", "end_time"), settings.zone or UTC),
        failed=str(code).upper().endswith("ERROR"),
        attributes=attributes,
        resource={"service.name": _experiment(info, about)},
    )
    return span_of(raw, settings)


def _pairs(value: Any) -> dict[str, Any]:
    """Tags and metadata: an object, or a list of keys with values, as before MLflow 3."""
    inside = python_in(value)
    if isinstance(inside, Mapping):
        return dict(inside)
    return {str(item["key"]): item.get("value") for item in _objects(inside) if "key" in item}


def _experiment(info: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """What tells an evaluation from an application: MLflow's evaluations are runs, which the trace names."""
    if "mlflow.sourceRun" in about and "mlflow.trace.session" not in about and _is_evaluation(info):
        return "evaluation"
    return ""


def _is_evaluation(info: Mapping[str, Any]) -> bool:
    tags = _pairs(info.get("tags"))
    return any(str(name).startswith("mlflow.eval") for name in tags)


def _assessments(rows: list[Mapping[str, Any]], spans: list[Span], settings: TraceSettings) -> Iterator[Annotation]:
    for row in rows:
        if row.get("valid") is False:
            continue  # a later one has replaced it
        source = mapping_in(row.get("source"))
        span = first_of(row, "span_id")
        said = Annotation(
            name=text_of(first_of(row, "assessment_name", "name")) or "",
            trace=_trace_id("trace_id", row.get("trace_id")),
            span=None if span is None else hex_id("span_id", span, SPAN_DIGITS),
            by=_BY.get(str(first_of(source, "source_type")).upper(), "code"),
            who=name_of(source.get("source_id")) or "",
            comment=text_of(row.get("rationale")) or "",
            at=moment("create_time", first_of(row, "last_update_time", "create_time"), settings.zone or UTC),
            id=name_of(row.get("assessment_id")) or "",
        )
        if "expectation" in row and not is_missing(row["expectation"]):
            yield from _expected(row, said, spans)
        elif (feedback := mapping_in(row.get("feedback"))) and "error" not in feedback:
            yield from _said(said, feedback.get("value"), mapping_in(row.get("metadata")))


def _said(said: Annotation, value: Any, metadata: Mapping[str, Any]) -> Iterator[Annotation]:
    """A feedback: of the span, of one chunk of it, or of several by their numbers."""
    place = number_of(metadata.get("chunk_index"))
    if isinstance(value, Mapping) and value and all(str(key).isdigit() for key in value):
        for key, each in value.items():
            yield from _said(said, each, {"chunk_index": int(key)})
        return
    if isinstance(value, (Mapping, list, tuple)) or is_missing(value):
        return  # several values of the application's own
    yield _changed(
        said,
        position=None if place is None or place < 0 or place != int(place) else int(place),
        label=str(value) if isinstance(value, bool) else text_of(value),
        value=float(value) if isinstance(value, bool) else number_of(value),
    )


def _expected(row: Mapping[str, Any], said: Annotation, spans: list[Span]) -> Iterator[Annotation]:
    """What should have been found: a label of each document that was."""
    if said.name != EXPECTED_CONTEXT:
        return
    value = mapping_in(row.get("expectation"))
    serialized = mapping_in(value.get("serialized_value"))
    for wanted in _objects(serialized.get("value") if serialized else value.get("value")):
        text, address = text_of(wanted.get("content")), name_of(first_of(wanted, "doc_uri", "id", "document_id"))
        # the steps of one retrieval all have its list
        found = {
            document.id: document
            for span in spans
            if span.kind == "retrieval"
            for document in span.documents or ()
            if (address is not None and document.id == address)
            or (text is not None and document.text is not None and document.text.split() == text.split())
        }
        names: list[str | None] = [name for name in found if name is not None]
        for name in names or [address]:
            if name is not None:
                yield _changed(said, document=name, label="relevant", value=1.0)


def _changed(said: Annotation, **values: Any) -> Annotation:
    """The same annotation about something of its own, with an id of its own where it is one of several."""
    where = [str(values[name]) for name in ("span", "position", "document") if values.get(name) is not None]
    fields = {name: getattr(said, name) for name in ("name", "trace", "span", "comment", "by", "who", "at", "id")}
    return Annotation(**{**fields, **values, "id": "/".join([said.id, *where])})
