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
from qdrant_tools.traces.forms.dialects import DIALECTS, dialect_of, span_of
from qdrant_tools.traces.forms.raw import RawSpan, flat
from qdrant_tools.traces.forms.sdk_json import is_sdk_json, read_sdk_json
from qdrant_tools.traces.records import Annotation, Span, TraceForm, TraceSettings

Envelope = tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any], TraceSettings], Iterator[RawSpan]]]

ENVELOPES: tuple[Envelope, ...] = ((is_sdk_json, read_sdk_json),)


def raw_spans(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The spans of a row in whichever envelope it is.

    Raises:
        InputError: it is in none, or damaged.
    """
    for is_one, read in ENVELOPES:
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
        return is_sdk_json(row) and dialect_of(flat(row["attributes"])) == self.dialect

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """Its span. Raises `InputError`."""
        for raw in raw_spans(row, settings):
            yield span_of(raw, settings)


OTEL_FORMS: tuple[TraceForm, ...] = (
    *(SdkForm(dialect.name, dialect.name) for dialect in DIALECTS),
    SdkForm("opentelemetry", ""),
)
