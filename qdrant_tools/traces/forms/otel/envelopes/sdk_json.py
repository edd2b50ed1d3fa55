"""`ReadableSpan.to_json()` of the OpenTelemetry SDK -> raw spans: what its console exporter and file exporters write.

Guarantees: the span's own resource stays with it. Does not know: what an attribute means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.traces.forms.raw import SPAN_DIGITS, TRACE_DIGITS, RawSpan, flat, hex_id, moment, parent_id
from qdrant_tools.traces.records import TraceSettings


def is_sdk_json(row: Mapping[str, Any]) -> bool:
    """Whether a row is a span as the SDK writes one: its ids lie in `context`, its attributes beside it."""
    context = row.get("context")
    return (
        isinstance(context, Mapping)
        and "trace_id" in context
        and "span_id" in context
        and isinstance(row.get("attributes"), Mapping)
        and ("status" in row or "resource" in row)
    )


def read_sdk_json(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span that a row is. Raises `InputError` where an id or the time is damaged."""
    context, status = row["context"], row.get("status")
    start, end = row.get("start_time"), row.get("end_time")
    yield RawSpan(
        trace=hex_id("context.trace_id", context["trace_id"], TRACE_DIGITS),
        id=hex_id("context.span_id", context["span_id"], SPAN_DIGITS),
        parent=parent_id("parent_id", row.get("parent_id")),
        name=str(row.get("name") or ""),
        at=moment("start_time", start, settings.zone),
        until=moment("end_time", end, settings.zone),
        failed=isinstance(status, Mapping) and str(status.get("status_code")).upper().endswith("ERROR"),
        attributes=flat(row["attributes"]),
        resource=_inside(row, "resource"),
        events=tuple(_events(row.get("events"))),
    )


def _inside(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    attributes = holder.get("attributes") if isinstance(holder := row.get(name), Mapping) else None
    return flat(attributes) if isinstance(attributes, Mapping) else {}


def _events(events: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if events is not None and not isinstance(events, list):
        raise InputError(f"events are {brief(events)}, expected a list")
    for event in events or ():
        if isinstance(event, Mapping):
            attributes = event.get("attributes")
            yield str(event.get("name") or ""), flat(attributes) if isinstance(attributes, Mapping) else {}
