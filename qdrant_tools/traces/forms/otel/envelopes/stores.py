"""Spans as the stores of traces give them out -> raw spans: Jaeger, Zipkin, ClickHouse, and the SDK for JavaScript.

Jaeger's API and its interface write a trace with `spans` and `processes`; its Elasticsearch index a span with its
`process`. Zipkin writes spans with `tags`. ClickHouse has the collector's table `otel_traces`, on which several tools
build. The JavaScript SDK writes spans with `traceId`, `id` and times as pairs or microseconds.

Guarantees: as for every envelope. Does not know: what an attribute means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import as_time, is_missing
from qdrant_tools.traces.forms.raw import SPAN_DIGITS, TRACE_DIGITS, RawSpan, flat, hex_id, number_of, parent_id
from qdrant_tools.traces.forms.values import json_in
from qdrant_tools.traces.records import TraceSettings


def is_jaeger(row: Mapping[str, Any]) -> bool:
    """Whether a row is a trace of Jaeger, or a span of its index."""
    return "traceID" in row and (isinstance(row.get("spans"), list) or {"spanID", "operationName"} <= row.keys())


def read_jaeger(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """Its spans. Raises `InputError` where one is damaged."""
    spans = row["spans"] if isinstance(row.get("spans"), list) else [row]
    processes = row.get("processes")
    for span in spans:
        if not isinstance(span, Mapping):
            raise InputError(f"spans hold {brief(span)}, expected objects")
        process = span.get("process")
        if not isinstance(process, Mapping) and isinstance(processes, Mapping):
            process = processes.get(str(span.get("processID")))
        yield _of_jaeger(span, process if isinstance(process, Mapping) else {})


def _of_jaeger(span: Mapping[str, Any], process: Mapping[str, Any]) -> RawSpan:
    attributes = _tags(span.get("tags"))
    parents = [
        reference.get("spanID")
        for reference in _listed("references", span.get("references"))
        if isinstance(reference, Mapping) and reference.get("refType") == "CHILD_OF"
    ]
    start, lasted = span.get("startTime"), number_of(span.get("duration"))
    return RawSpan(
        trace=hex_id("traceID", span.get("traceID"), TRACE_DIGITS),
        id=hex_id("spanID", span.get("spanID"), SPAN_DIGITS),
        parent=parent_id("spanID of a parent", parents[0] if parents else span.get("parentSpanID")),
        name=str(span.get("operationName") or ""),
        at=_micro("startTime", start),
        until=_micro("duration", start + int(lasted)) if lasted is not None and isinstance(start, int) else None,
        failed=attributes.get("error") in (True, "true") or attributes.get("otel.status_code") == "ERROR",
        attributes=attributes,
        resource={"service.name": process.get("serviceName"), **_tags(process.get("tags"))},
        dropped=int(number_of(attributes.get("otel.dropped_attributes_count")) or 0),
    )


def _tags(tags: Any) -> dict[str, Any]:
    if isinstance(tags, Mapping):
        return flat(tags)
    listed = _listed("tags", tags)
    return flat({str(tag.get("key")): tag.get("value") for tag in listed if isinstance(tag, Mapping)})


def _listed(name: str, values: Any) -> list[Any]:
    if values is not None and not isinstance(values, list):
        raise InputError(f"{name} are {brief(values)}, expected a list")
    return values or []


def _micro(name: str, value: Any) -> datetime | None:
    return None if is_missing(value) else as_time(name, value, form="microseconds")


def is_zipkin(row: Mapping[str, Any]) -> bool:
    """Whether a row is a span of Zipkin's API, version 2."""
    return {"traceId", "id", "tags"} <= row.keys() and isinstance(row["tags"], Mapping) and "attributes" not in row


def read_zipkin(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span that a row is. Raises `InputError`."""
    start, lasted, place = row.get("timestamp"), number_of(row.get("duration")), row.get("localEndpoint")
    tags = flat(row["tags"])
    yield RawSpan(
        trace=hex_id("traceId", row["traceId"], TRACE_DIGITS),
        id=hex_id("id", row["id"], SPAN_DIGITS),
        parent=parent_id("parentId", row.get("parentId")),
        name=str(row.get("name") or ""),
        at=_micro("timestamp", start),
        until=None if lasted is None or not isinstance(start, int) else _micro("duration", start + int(lasted)),
        failed="error" in tags or tags.get("otel.status_code") == "ERROR",
        attributes=tags,
        resource={"service.name": place.get("serviceName")} if isinstance(place, Mapping) else {},
        dropped=int(number_of(tags.get("otel.dropped_attributes_count")) or 0),
    )


_CLICKHOUSE = frozenset({"TraceId", "SpanId", "SpanName", "SpanAttributes"})


def is_clickhouse(row: Mapping[str, Any]) -> bool:
    """Whether a row is of the table that the collector's exporter for ClickHouse makes."""
    return row.keys() >= _CLICKHOUSE


def read_clickhouse(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span that a row is; its times are in UTC and say no zone. Raises `InputError`."""
    resource = json_in(row.get("ResourceAttributes"))
    attributes = json_in(row["SpanAttributes"])
    if not isinstance(attributes, Mapping):
        raise InputError(f"SpanAttributes are {brief(row['SpanAttributes'])}, expected an object")
    start = row.get("Timestamp")
    yield RawSpan(
        trace=hex_id("TraceId", row["TraceId"], TRACE_DIGITS),
        id=hex_id("SpanId", row["SpanId"], SPAN_DIGITS),
        parent=parent_id("ParentSpanId", row.get("ParentSpanId")),
        name=str(row.get("SpanName") or ""),
        at=None if is_missing(start) else as_time("Timestamp", start, zone=settings.zone or UTC),
        failed=str(row.get("StatusCode", "")).upper().endswith("ERROR"),
        attributes=flat(attributes),
        resource={"service.name": row.get("ServiceName"), **(flat(resource) if isinstance(resource, Mapping) else {})},
    )


def is_javascript(row: Mapping[str, Any]) -> bool:
    """Whether a row is a span of the SDK for JavaScript, written as JSON."""
    return {"traceId", "id", "attributes"} <= row.keys() and isinstance(row["attributes"], Mapping) and "kind" in row


def read_javascript(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span that a row is. Raises `InputError`."""
    parent, status, resource = row.get("parentSpanContext"), row.get("status"), row.get("resource")
    start = row.get("timestamp")
    attributes = resource.get("attributes") if isinstance(resource, Mapping) else None
    yield RawSpan(
        trace=hex_id("traceId", row["traceId"], TRACE_DIGITS),
        id=hex_id("id", row["id"], SPAN_DIGITS),
        parent=parent_id("parentId", parent.get("spanId") if isinstance(parent, Mapping) else row.get("parentId")),
        name=str(row.get("name") or ""),
        at=_micro("timestamp", int(start) if isinstance(start, float) else start),
        failed=isinstance(status, Mapping) and status.get("code") == 2,
        attributes=flat(row["attributes"]),
        resource=flat(attributes) if isinstance(attributes, Mapping) else {},
        dropped=int(number_of(row.get("droppedAttributesCount")) or 0),
    )
