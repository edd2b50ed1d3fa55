"""Spans of OpenTelemetry in every envelope -> spans: the forms `openinference`, ..., one for each convention.

An envelope is told by its own signs, the form by the attributes of the span; each of these forms reads all envelopes
and all conventions, because one file may hold several.

Guarantees: as `TraceForm`. Does not know: files, what is told of a whole trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_tools.errors import InputError, listed
from qdrant_tools.traces.forms.otel.dialects import DIALECTS, dialect_of, span_of
from qdrant_tools.traces.forms.otel.envelopes.clouds import is_cloud_trace, is_xray, read_cloud_trace, read_xray
from qdrant_tools.traces.forms.otel.envelopes.otlp import is_otlp_span, is_request, read_otlp_span, read_request
from qdrant_tools.traces.forms.otel.envelopes.phoenix import (
    is_exploded,
    is_phoenix_frame,
    is_phoenix_span,
    read_exploded,
    read_phoenix_frame,
    read_phoenix_span,
)
from qdrant_tools.traces.forms.otel.envelopes.platforms import PLATFORMS, read_platform, table_of
from qdrant_tools.traces.forms.otel.envelopes.sdk_json import is_sdk_json, read_sdk_json
from qdrant_tools.traces.forms.otel.envelopes.stores import (
    is_clickhouse,
    is_jaeger,
    is_javascript,
    is_zipkin,
    read_clickhouse,
    read_jaeger,
    read_javascript,
    read_zipkin,
)
from qdrant_tools.traces.forms.otel.envelopes.tables import is_app_insights, is_logfire, read_app_insights, read_logfire
from qdrant_tools.traces.forms.otel.genai import evaluations_of
from qdrant_tools.traces.forms.otel.phoenix_annotations import annotations_in, is_annotation
from qdrant_tools.traces.forms.raw import RawEvent, RawSpan
from qdrant_tools.traces.records import Annotation, Span, TraceForm, TraceSettings

Reader = Callable[[Mapping[str, Any], TraceSettings], Iterator[RawSpan | RawEvent]]
Envelope = tuple[Callable[[Mapping[str, Any]], bool], Reader]


def _is_of(platform: str) -> Callable[[Mapping[str, Any]], bool]:
    """What tells whether a row is of a platform."""
    return lambda row: (table := table_of(row)) is not None and table.name == platform


NAMED: tuple[tuple[str, Envelope], ...] = (
    ("sdk", (is_sdk_json, read_sdk_json)),
    ("otlp", (is_request, read_request)),
    ("otlp", (is_otlp_span, read_otlp_span)),
    ("jaeger", (is_jaeger, read_jaeger)),
    ("zipkin", (is_zipkin, read_zipkin)),
    ("clickhouse", (is_clickhouse, read_clickhouse)),
    ("javascript", (is_javascript, read_javascript)),
    ("phoenix", (is_phoenix_span, read_phoenix_span)),
    ("phoenix", (is_phoenix_frame, read_phoenix_frame)),
    ("appinsights", (is_app_insights, read_app_insights)),
    ("logfire", (is_logfire, read_logfire)),
    ("xray", (is_xray, read_xray)),
    ("cloudtrace", (is_cloud_trace, read_cloud_trace)),
    *((name, (_is_of(name), read_platform)) for name in PLATFORMS),
)
"""Every envelope with the name of its form."""
_WITH_FORMS = ("sdk", "phoenix")
"""Of these the form is another one than `EnvelopeForm`."""


def raw_spans(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan | RawEvent]:
    """The spans and events of a row in whichever envelope it is.

    Raises:
        InputError: it is in none, or damaged.
    """
    for _, (is_one, read) in NAMED:
        if is_one(row):
            yield from read(row, settings)
            return
    raise InputError(f"no span of OpenTelemetry: its fields are {listed(map(str, row))}")


@dataclass(frozen=True)
class SdkForm:
    """Spans as the SDK writes them, whose attributes are of one convention; without one, of none."""

    name: str
    dialect: str

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether it is such a span."""
        return is_sdk_json(row) and dialect_of(row["attributes"]) == self.dialect

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """Its span. Raises `InputError`."""
        return spans_in(row, settings)


@dataclass(frozen=True)
class PhoenixForm:
    """What Phoenix and Arize give out: spans, documents by themselves, and what was said of them."""

    name: str = "phoenix"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether it is any of these."""
        return is_phoenix_span(row) or is_phoenix_frame(row) or is_exploded(row) or is_annotation(row)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """Its span, document or annotations. Raises `InputError`."""
        if is_exploded(row):
            yield from read_exploded(row, settings)
        elif not is_annotation(row):
            yield from spans_in(row, settings)
        yield from annotations_in(row, settings)


@dataclass(frozen=True)
class EnvelopeForm:
    """Spans in one of the other envelopes, of any convention: a row may hold several."""

    name: str
    envelopes: tuple[Envelope, ...]

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether it is one of these envelopes."""
        return any(is_one(row) for is_one, _ in self.envelopes)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """Its spans, and what is said of them. Raises `InputError`."""
        return spans_in(row, settings)


def spans_in(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
    """The spans of a row, and what its events say. Raises as `raw_spans`."""
    for raw in raw_spans(row, settings):
        if isinstance(raw, RawSpan):
            yield span_of(raw, settings)
        yield from evaluations_of(raw)


_NONE = "opentelemetry"
"""Spans of the SDK with no convention's attributes: of a web server, of a database."""
OTEL_FORMS: tuple[TraceForm, ...] = (
    *(SdkForm(dialect.name, dialect.name) for dialect in DIALECTS),
    SdkForm(_NONE, ""),
    *(
        EnvelopeForm(name, tuple(envelope for other, envelope in NAMED if other == name))
        for name in dict.fromkeys(name for name, _ in NAMED)
        if name not in _WITH_FORMS
    ),
    PhoenixForm(),
)
CONVENTIONS = frozenset(dialect.name for dialect in DIALECTS)
WITH_CONVENTIONS = frozenset(form.name for form in OTEL_FORMS) - CONVENTIONS - {_NONE}
"""Envelopes, in which spans of any convention may be."""
