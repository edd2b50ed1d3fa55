"""A raw span -> a span, by the convention of its attributes: each span by its own, never the file by its first.

Guarantees: of two conventions in one span, the one that has the list counts; a span of none is `other`, with its place
in the tree. Does not know: how the span was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from qdrant_tools.traces.forms.otel.common import base_of
from qdrant_tools.traces.forms.otel.genai import GenAI
from qdrant_tools.traces.forms.otel.openinference import OpenInference
from qdrant_tools.traces.forms.otel.openllmetry import OpenLLMetry
from qdrant_tools.traces.forms.otel.recorded import as_recorded
from qdrant_tools.traces.forms.raw import RawSpan
from qdrant_tools.traces.forms.sdk_attributes import (
    HaystackAttributes,
    LangfuseAttributes,
    LangSmithAttributes,
    MlflowAttributes,
    ToolCalls,
    TruLensAttributes,
)
from qdrant_tools.traces.records import Span, TraceSettings


class Dialect(Protocol):
    """A convention of attributes."""

    @property
    def name(self) -> str:
        """As in `--format`."""
        ...

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span has this convention's attributes."""
        ...

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """What they say."""
        ...


DIALECTS: tuple[Dialect, ...] = (
    OpenInference(),
    OpenLLMetry(),
    LangSmithAttributes(),  # its spans speak GenAI too, without lists
    GenAI(),
    LangfuseAttributes(),
    MlflowAttributes(),
    HaystackAttributes(),
    TruLensAttributes(),
    ToolCalls(),
)
"""The richest first."""


def dialect_of(attributes: Mapping[str, Any]) -> str:
    """The name of the first convention that a span has attributes of; the empty string if of none."""
    return next((dialect.name for dialect in DIALECTS if dialect.speaks(attributes)), "")


def span_of(raw: RawSpan, settings: TraceSettings) -> Span:
    """What a span says, in the convention that has a list, else in the first that it speaks."""
    raw, cut = _without_cut(raw)
    spans = [dialect.span(raw, settings) for dialect in DIALECTS if dialect.speaks(raw.attributes)]
    with_list = [span for span in spans if span.documents is not None or span.context is not None]
    span = next(iter(with_list or spans), None) or Span(kind="other", **base_of(raw))
    if cut:
        hint = STORE_HINT.format(raw.longest) if span.kind == "retrieval" else ""
        span = replace(span, cut=span.cut + cut, hint=hint)
    return as_recorded(span, raw, settings)


STORE_HINT = (
    "its values were cut at {:,} characters where they are stored: let the collector write the spans to a file as well"
)


def _without_cut(raw: RawSpan) -> tuple[RawSpan, int]:
    """A span without the values that its store has cut, and how many these are: a cut text is none."""
    said = raw.attributes
    cut = [name for name, value in said.items() if isinstance(value, str) and len(value) == raw.longest]
    if not cut or not raw.longest or any(isinstance(part, str) and len(part) > raw.longest for part in said.values()):
        return raw, 0
    return replace(raw, attributes={name: value for name, value in said.items() if name not in cut}), len(cut)
