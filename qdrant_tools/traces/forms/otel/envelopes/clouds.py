"""Traces as AWS X-Ray and Google's Cloud Trace give them out -> raw spans.

X-Ray has traces of segments, each a document of JSON in a text, with `subsegments` inside one another. Cloud Trace has,
in its first version, a trace with spans and `labels`, in its second a span with an `attributeMap`.

Guarantees: attributes have the names that the application gave them, where these are of a known convention; what a
cloud has cut is not there. Does not know: what an attribute means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.traces.forms.fields import first_of, list_in, mapping_in
from qdrant_tools.traces.forms.otel.envelopes.renamed import underscores_as_dots
from qdrant_tools.traces.forms.raw import SPAN_DIGITS, TRACE_DIGITS, RawSpan, flat, hex_id, moment, number_of, parent_id
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import TraceSettings

_XRAY_ID = re.compile(r"(?:1-)?([0-9a-f]{8})-?([0-9a-f]{24})", re.IGNORECASE)
_DEEPEST = 100
LONGEST_LABEL = 256
"""Bytes of a value that Cloud Trace's own API keeps."""


def is_xray(row: Mapping[str, Any]) -> bool:
    """Whether a row is an answer with traces, a trace with segments, or the document of a segment."""
    if isinstance(row.get("Traces"), list) or (isinstance(row.get("Segments"), list) and "Id" in row):
        return True
    if not {"id", "start_time", "trace_id"} <= row.keys() or "span_id" in row:
        return False
    return str(row["trace_id"]).startswith("1-") and _XRAY_ID.fullmatch(str(row["trace_id"])) is not None


def read_xray(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """Its spans. Raises `InputError` where one is damaged."""
    if "Traces" in row:
        for trace in list_in(row["Traces"]):
            yield from read_xray(mapping_in(trace), settings)
    elif "Segments" in row:
        for segment in list_in(row["Segments"]):
            document = mapping_in(mapping_in(segment).get("Document"))
            if not document:
                raise InputError(f"the document of a segment is {brief(segment)}, expected an object as JSON")
            yield from _of_segment({"trace_id": row.get("Id"), **document}, settings)
    else:
        yield from _of_segment(row, settings)


def _of_segment(segment: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    found = _XRAY_ID.fullmatch(str(segment.get("trace_id")))
    if found is None:
        raise InputError(f"trace_id is {brief(segment.get('trace_id'))}, expected 1-, 8 digits in hex, -, and 24")
    trace = hex_id("trace_id", f"{found[1]}{found[2]}", TRACE_DIGITS)
    todo: list[tuple[Mapping[str, Any], Any, int]] = [(segment, segment.get("parent_id"), 0)]
    while todo:
        step, parent, deep = todo.pop()
        if deep > _DEEPEST:
            raise InputError(f"subsegments lie more than {_DEEPEST} levels deep in one another")
        spoken = {**mapping_in(step.get("annotations")), **mapping_in(mapping_in(step.get("metadata")).get("default"))}
        yield RawSpan(
            trace=trace,
            id=hex_id("id", step.get("id"), SPAN_DIGITS),
            parent=parent_id("parent_id", parent),
            name=text_of(step.get("name")) or "",
            at=moment("start_time", step.get("start_time"), settings.zone or UTC),
            until=moment("end_time", step.get("end_time"), settings.zone or UTC),
            failed=step.get("fault") is True or step.get("error") is True,
            attributes={underscores_as_dots(name): value for name, value in flat(spoken).items()},
            resource={"service.name": segment.get("name")},
        )
        todo.extend((mapping_in(inner), step.get("id"), deep + 1) for inner in list_in(step.get("subsegments")))


def is_cloud_trace(row: Mapping[str, Any]) -> bool:
    """Whether a row is a trace of the first version, or a span of the second."""
    if {"projectId", "traceId"} <= row.keys() and isinstance(row.get("spans"), list):
        return True
    return "displayName" in row and "spanId" in row and "/spans/" in str(row.get("name"))


def read_cloud_trace(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """Its spans. Raises `InputError` where one is damaged."""
    if "displayName" in row:
        yield _of_second(row, settings)
        return
    for span in row["spans"]:
        if not isinstance(span, Mapping):
            raise InputError(f"spans hold {brief(span)}, expected objects")
        yield RawSpan(
            trace=hex_id("traceId", row["traceId"], TRACE_DIGITS),
            id=_of_number("spanId", span.get("spanId")) or "",
            parent=_of_number("parentSpanId", span.get("parentSpanId")),
            name=text_of(span.get("name")) or "",
            at=moment("startTime", span.get("startTime"), settings.zone or UTC),
            until=moment("endTime", span.get("endTime"), settings.zone or UTC),
            attributes=flat(mapping_in(span.get("labels"))),
            longest=LONGEST_LABEL,
        )


def _of_number(name: str, value: Any) -> str | None:
    """The id of a span in hex, which the first version writes as a decimal number."""
    text = str(value) if isinstance(value, int) else value
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 20:
        return f"{int(text):016x}" if int(text) else None
    if name == "parentSpanId" and text in (None, ""):
        return None
    raise InputError(f"{name} is {brief(value)}, expected a number")


def _of_second(row: Mapping[str, Any], settings: TraceSettings) -> RawSpan:
    trace = re.search(r"/traces/([^/]+)/spans/", str(row["name"]))
    return RawSpan(
        trace=hex_id("name", trace[1] if trace else None, TRACE_DIGITS),
        id=hex_id("spanId", row.get("spanId"), SPAN_DIGITS),
        parent=parent_id("parentSpanId", row.get("parentSpanId")),
        name=text_of(first_of(mapping_in(row.get("displayName")), "value")) or text_of(row.get("displayName")) or "",
        at=moment("startTime", row.get("startTime"), settings.zone or UTC),
        until=moment("endTime", row.get("endTime"), settings.zone or UTC),
        failed=bool(number_of(mapping_in(row.get("status")).get("code"))),
        attributes={
            name: value
            for name, said in mapping_in(mapping_in(row.get("attributes")).get("attributeMap")).items()
            if (value := _value(said)) is not None
        },
        longest=LONGEST_LABEL,
    )


def _value(said: Any) -> Any:
    """A value of the second version; None for a text that was cut."""
    text = mapping_in(mapping_in(said).get("stringValue"))
    if text:
        return None if number_of(text.get("truncatedByteCount")) else text.get("value")
    plain = first_of(mapping_in(said), "intValue", "boolValue")
    return number_of(plain) if isinstance(plain, str) else plain
