"""Spans as tools write them, about texts of our own: one span in every envelope, and a real application's spans."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.records import Annotation, Span, TraceForm, TraceSettings

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
START = 1_795_735_775_682_156_456
STARTED = "2026-11-26T23:29:35.682156Z"

TEXTS = {
    "bread": "Sourdough bread rises because wild yeast makes gas in the dough.",
    "tea": "Green tea turns bitter when the water is hotter than eighty degrees.",
    "rust": "Iron rusts when water and oxygen reach its surface.",
    "glass": "Glass is made of sand that is melted in a furnace with soda.",
    "tides": "Tides rise twice a day because the moon pulls the sea.",
    "soap": "Soap forms when fat is cooked with lye.",
}


def form_of(row: Mapping[str, Any]) -> TraceForm:
    """The one form that claims a row."""
    found = [form for form in FORMS if form.recognises(row)]
    assert len(found) == 1, [form.name for form in found]
    return found[0]


def read(*rows: Mapping[str, Any], **settings: Any) -> list[Span | Annotation]:
    """What rows say, each read by the one form that claims it."""
    return [said for row in rows for said in form_of(row).read(row, TraceSettings(**settings))]


def only(*rows: Mapping[str, Any], **settings: Any) -> Span:
    """The one span in these rows."""
    (span,) = read(*rows, **settings)
    assert isinstance(span, Span)
    return span


def sdk(attributes: Mapping[str, Any], name: str = "VectorIndexRetriever.retrieve", **changes: Any) -> dict[str, Any]:
    """As `ReadableSpan.to_json()` writes it."""
    return {
        "name": name,
        "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{SPAN}", "trace_state": "[]"},
        "kind": "SpanKind.INTERNAL",
        "parent_id": f"0x{PARENT}",
        "start_time": STARTED,
        "end_time": "2026-11-26T23:29:36.000000Z",
        "status": {"status_code": "OK"},
        "attributes": dict(attributes),
        "events": [],
        "links": [],
        "resource": {"attributes": {"service.name": "kitchen"}, "schema_url": ""},
        **changes,
    }


def value_of(value: Any) -> dict[str, Any]:
    """A value as OTLP JSON writes it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [value_of(part) for part in value]}}
    return {"stringValue": value}


def pairs_of(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": value_of(value)} for name, value in attributes.items()]


def otlp_span(attributes: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE, "spanId": SPAN, "parentSpanId": PARENT, "name": "VectorIndexRetriever.retrieve", "kind": 1,
        "startTimeUnixNano": str(START), "endTimeUnixNano": str(START + 10**9), "attributes": pairs_of(attributes),
        "status": {"code": 1}, **changes,
    }  # fmt: skip


def otlp(*spans: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the collector's file exporter."""
    resource = {"attributes": pairs_of({"service.name": "kitchen"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}]}]}


def retrieved(query: str, *texts: str, ids: bool = True) -> dict[str, Any]:
    """The attributes of a retriever's span in OpenInference."""
    attributes: dict[str, Any] = {"session.id": "s-1", "user.id": "u-1", "input.value": query}
    for place, name in enumerate(texts):
        start = f"retrieval.documents.{place}.document"
        if ids:
            attributes |= {f"{start}.id": f"id-{name}"}
        attributes |= {f"{start}.content": TEXTS[name], f"{start}.score": 0.9 - place / 10}
        attributes |= {f"{start}.metadata": json.dumps({"file_name": f"{name}.md"})}
    return {**attributes, "openinference.span.kind": "RETRIEVER"}


def embedded(text: str, size: int = 48) -> list[float]:
    """A vector of the words of a text."""
    vector = [0.0] * size
    for word in re.findall(r"[a-z]+", text.lower()):
        vector[int(hashlib.md5(word.encode()).hexdigest(), 16) % size] += 1
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


@contextmanager
def instrumented(**options: Any) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """LlamaIndex under openinference-instrumentation-llama-index; the call gives the rows that were written so far.

    `options` are those of the SDK's limits; without any, its tracer provider is the one that OpenInference brings.
    """
    from openinference.instrumentation import TracerProvider as Unlimited
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    resource, exporter = Resource.create({"service.name": "kitchen"}), InMemorySpanExporter()
    if options:
        provider = TracerProvider(resource=resource, span_limits=SpanLimits(**options))
    else:
        provider = Unlimited(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        yield lambda: [json.loads(span.to_json(indent=None)) for span in exporter.get_finished_spans()]
    finally:
        instrumentor.uninstrument()
