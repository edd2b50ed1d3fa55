"""The OpenTelemetry protocol as JSON -> raw spans and events: what collectors, file exporters and APIs write.

Read are requests (`resourceSpans`, Tempo's `batches`), single spans (Phoenix's `otlpv1`), and the logs signal
(`resourceLogs`), which has the events of GenAI. Names are in camelCase or, as in protobuf, with underscores; ids are
hex or, out of protobuf's own JSON, base64; numbers may be texts; what is not set may be null.

Guarantees: all of these are read alike. Does not know: what an attribute means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import as_time, is_missing
from qdrant_tools.traces.forms.raw import (
    SPAN_DIGITS,
    TRACE_DIGITS,
    UNREAD,
    RawEvent,
    RawSpan,
    flat,
    hex_id,
    number_of,
    parent_id,
    score_of,
)
from qdrant_tools.traces.records import TraceSettings

_REQUESTS = ("resourceSpans", "resource_spans", "batches", "resourceLogs", "resource_logs")
_SCOPES = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "ilSpans", "scopeLogs", "scope_logs")
_DEEPEST = 32


def is_request(row: Mapping[str, Any]) -> bool:
    """Whether a row is a batch of spans or logs, or an answer of Tempo's or Jaeger's with one in it."""
    return any(isinstance(_opened(row).get(name), list) for name in _REQUESTS)


def _opened(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((inside for name in ("trace", "result") if isinstance(inside := row.get(name), Mapping)), row)


def is_otlp_span(row: Mapping[str, Any]) -> bool:
    """Whether a row is one span of the protocol."""
    return (
        get(row, "traceId") is not None
        and get(row, "spanId") is not None
        and get(row, "startTimeUnixNano") is not None
        and "attributes" in row
    )


def get(holder: Mapping[str, Any], name: str) -> Any:
    """A field by its name in camelCase, however it is written; null is nothing."""
    value = holder.get(name)
    return holder.get(_with_underscores(name)) if value is None else value


@cache
def _with_underscores(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def read_request(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan | RawEvent]:
    """The spans and events of a batch. Raises `InputError` where one is damaged."""
    for name in _REQUESTS:
        for resource in _objects(name, _opened(row).get(name)):
            attributes = attributes_of(get(_object("resource", resource.get("resource")), "attributes"))
            for scopes in _SCOPES:
                for scope in _objects(scopes, resource.get(scopes)):
                    for span in _objects("spans", scope.get("spans")):
                        yield span_in(span, attributes)
                    for record in _objects("logRecords", get(scope, "logRecords")):
                        yield from _event_in(record)


def read_otlp_span(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span that a row is. Raises `InputError`."""
    resource = attributes_of(get(_object("resource", row.get("resource")), "attributes"))
    yield span_in(row, resource)


def span_in(span: Mapping[str, Any], resource: Mapping[str, Any]) -> RawSpan:
    """A span of the protocol. Raises `InputError`."""
    code = get(_object("status", span.get("status")), "code")
    return RawSpan(
        trace=hex_id("traceId", get(span, "traceId"), TRACE_DIGITS),
        id=hex_id("spanId", get(span, "spanId"), SPAN_DIGITS),
        parent=parent_id("parentSpanId", get(span, "parentSpanId")),
        name=str(span.get("name") or ""),
        at=_time("startTimeUnixNano", get(span, "startTimeUnixNano")),
        until=_time("endTimeUnixNano", get(span, "endTimeUnixNano")),
        failed=code == 2 or str(code).upper().endswith("ERROR"),
        attributes=attributes_of(span.get("attributes")),
        resource=resource,
        events=tuple(
            (str(event.get("name") or ""), attributes_of(event.get("attributes")))
            for event in _objects("events", span.get("events"))
        ),
        dropped=int(number_of(get(span, "droppedAttributesCount")) or 0),
    )


def _event_in(record: Mapping[str, Any]) -> Iterator[RawEvent]:
    attributes = attributes_of(record.get("attributes"))
    name = get(record, "eventName") or attributes.get("event.name")
    trace = get(record, "traceId")
    # a line of a log that belongs to no trace says nothing of a search
    if isinstance(name, str) and not is_missing(trace):
        span = parent_id("spanId", get(record, "spanId"))
        time = next((t for n in ("timeUnixNano", "observedTimeUnixNano") if (t := get(record, n)) not in (None, 0)), 0)
        yield RawEvent(hex_id("traceId", trace, TRACE_DIGITS), span, name, _time("timeUnixNano", time), attributes)


def _time(name: str, value: Any) -> Any:
    return None if value in (None, 0, "0", "") else as_time(name, value, form="nanoseconds")


def attributes_of(pairs: Any) -> dict[str, Any]:
    """The attributes in a list of `{"key", "value"}`, or in an object, as some exporters simplify them."""
    if isinstance(pairs, Mapping):
        return flat(pairs)
    named = ((str(pair.get("key")), pair.get("value")) for pair in _objects("attributes", pairs))
    # a vector has thousands of values, each an object
    return flat({name: _value(value) for name, value in named if not name.startswith(UNREAD)})


def _value(value: Any, deep: int = _DEEPEST) -> Any:
    """What a value of the protocol holds; one that is written plainly is itself."""
    if not isinstance(value, Mapping):
        return value
    if not deep:
        raise InputError(f"an attribute is nested more than {_DEEPEST} levels deep")
    for kind, found in value.items():
        # of the types that a value may have, all but one are missing or null
        if found is None:
            continue
        match kind.replace("_v", "V"):
            case "stringValue" | "boolValue" | "bytesValue":
                return found
            case "intValue":
                number = number_of(found)
                return found if isinstance(found, int) or number is None else int(found)
            case "doubleValue":
                return score_of(found)  # of NaN a score says that it is none
            case "arrayValue" if isinstance(found, Mapping):
                parts = found.get("values") or ()
                return [_value(part, deep - 1) for part in parts] if isinstance(parts, (list, tuple)) else []
            case "kvlistValue" if isinstance(found, Mapping):
                pairs = _objects("values", found.get("values"))
                return {str(pair.get("key")): _value(pair.get("value"), deep - 1) for pair in pairs}
    return None


def _objects(name: str, values: Any) -> list[Mapping[str, Any]]:
    if values is None:
        return []
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, Mapping) for value in values):
        raise InputError(f"{name} are {brief(values)}, expected a list of objects")
    return list(values)


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{name} is {brief(value)}, expected an object")
    return value or {}
