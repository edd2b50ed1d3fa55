"""The rows of tools that store steps in nearly the same way, each known by the names of its fields -> spans.

A `Layout` says which fields tell a row of a tool, and where it has what. Known are Opik (Comet), Weave (Weights and
Biases), Braintrust, HoneyHive, Lunary and Datadog's LLM Observability. The last layout is any tool's: a row with a
trace, a step, and an input or an output under the names that tools use.

Guarantees: a row is of the first layout whose signs it has all; a step is a retrieval where the tool says so, or where
its output can be nothing else. Does not know: what a score's name means; averages over several scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.fields import mapping_in, name_of, needed, tags_in
from qdrant_tools.traces.forms.raw import moment
from qdrant_tools.traces.forms.scores import About, scores_in
from qdrant_tools.traces.forms.steps import NO_LIST, Step, span_of_step
from qdrant_tools.traces.forms.values import json_in, text_of
from qdrant_tools.traces.records import Annotation, Span, SpanKind, TraceSettings

_NAMES = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Where a tool's rows have what; a dotted name goes into objects, and the first that says something counts.

    `signs` are sets of fields, of which a row has one whole set; `lacks` are fields that it must not have. A row
    without `trace` is the beginning of its own.
    """

    name: str
    signs: tuple[frozenset[str], ...]
    id: _NAMES
    trace: _NAMES = ("trace_id",)
    parent: _NAMES = ("parent_id",)
    step: _NAMES = ("name",)
    kind: _NAMES = ("type",)
    input: _NAMES = ("input",)
    output: _NAMES = ("output",)
    start: _NAMES = ("start_time",)
    end: _NAMES = ("end_time",)
    error: _NAMES = ("error",)
    session: _NAMES = ()
    user: _NAMES = ()
    service: _NAMES = ()
    tags: _NAMES = ("tags",)
    scores: _NAMES = ()
    lacks: frozenset[str] = field(default_factory=frozenset)
    inside: str = ""
    """The field in which the others lie."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has a whole set of signs."""
        row = self.opened(row)
        return any(sign <= row.keys() for sign in self.signs) and self.lacks.isdisjoint(row)

    def opened(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The object that has the fields."""
        return mapping_in(row.get(self.inside)) if self.inside else row

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """The step of a row, and what was said of it. Raises `InputError` where an id or a time is damaged."""
        row = self.opened(row)
        id = needed(row, "the id of a step", *self.id)
        trace = name_of(_at(row, self.trace)) or id
        parent = name_of(_first(_at(row, self.parent)))
        zone = settings.zone or UTC
        step = Step(
            trace=trace,
            id=id,
            parent=None if parent in (None, id, "undefined", "0", "") else parent,
            name=_plain_name(text_of(_at(row, self.step)) or ""),
            kind=kind_of(_at(row, self.kind), _at(row, self.step)),
            at=moment(self.start[0], _at(row, self.start), zone),
            until=moment(self.end[0], _at(row, self.end), zone) if self.end else None,
            input=_at(row, self.input),
            output=_at(row, self.output),
            failed=_failed(_at(row, self.error)),
            session=name_of(_at(row, self.session)) or "",
            user=name_of(_at(row, self.user)) or "",
            service=text_of(_at(row, self.service)) or "",
            tags=tags_in(_at(row, self.tags)),
            lacking=NO_LIST,
        )
        yield span_of_step(step, settings)
        for name in self.scores:
            yield from scores_in(_at(row, (name,)), About(trace, id), settings)


def _at(row: Mapping[str, Any], names: _NAMES) -> Any:
    """What lies under the first of these names that says something."""
    for name in names:
        value: Any = row.get(name)
        if value is None and "." in name:
            value = row
            for part in name.split("."):
                value = mapping_in(value).get(part)
                if value is None:
                    break
        if not is_missing(value) and value not in ([], {}):
            return value
    return None


def _first(value: Any) -> Any:
    """Of several parents the first."""
    inside = json_in(value)
    return next(iter(inside), None) if isinstance(inside, (list, tuple)) else value


def _plain_name(name: str) -> str:
    """`retrieve` of `weave:///team/project/op/retrieve:hash`."""
    return name.rpartition("/")[2].partition(":")[0] if name.startswith("weave:///") else name


def _failed(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("", "ok", "success", "unset", "false", "completed", "none", "0")
    return bool(value) and not is_missing(value)


_KINDS: tuple[tuple[tuple[str, ...], SpanKind], ...] = (
    (("rerank", "ranker"), "rerank"),
    (("retriev",), "retrieval"),
    (("embed",), "embedding"),
    (("llm", "generation", "chat", "completion", "model"), "llm"),
    (("eval", "score", "guardrail", "parser", "prompt"), "other"),
)


def kind_of(said: Any, name: Any = None) -> SpanKind | None:
    """What a tool's word for a kind of step means; None where it does not say what kind it is."""
    word = said.lower() if isinstance(said, str) else ""
    for parts, kind in _KINDS:
        if any(part in word for part in parts):
            return kind
    return None


OPIK = Layout(
    "opik",
    (
        frozenset({"id", "trace_id", "name", "start_time", "project_name", "type"}),
        frozenset({"id", "trace_id", "name", "start_time", "project_id", "type"}),
        frozenset({"id", "trace_id", "parent_span_id", "name", "start_time", "last_updated_at"}),
    ),
    ("id",),
    parent=("parent_span_id", "trace_id"),
    error=("error_info",),
    session=("thread_id",),
    service=("project_name", "environment"),
    scores=("feedback_scores", "comments"),
    lacks=frozenset({"run_type", "span_id", "event_type", "dotted_order", "parent_observation_id", "status_message"}),
)
OPIK_TRACE = Layout(
    "opik",
    (
        frozenset({"id", "name", "start_time", "project_name", "last_updated_at"}),
        frozenset({"id", "name", "start_time", "project_id", "feedback_scores"}),
        frozenset({"id", "name", "start_time", "project_id", "span_count"}),
        frozenset({"id", "name", "start_time", "project_id", "thread_id", "last_updated_at"}),
    ),
    ("id",),
    error=("error_info",),
    session=("thread_id",),
    service=("project_name", "environment"),
    scores=("feedback_scores", "comments"),
    lacks=frozenset({"trace_id", "run_type", "event_type"}),
)
WEAVE = Layout(
    "weave",
    (frozenset({"id", "trace_id", "op_name", "started_at", "inputs"}),),
    ("id",),
    step=("display_name", "op_name"),
    kind=("attributes.kind", "attributes.weave.kind"),
    input=("inputs",),
    start=("started_at",),
    end=("ended_at",),
    error=("exception",),
    session=("thread_id", "attributes.session_id", "attributes.thread_id"),
    user=("attributes.user_id",),
    service=("project_id",),
    scores=("summary.weave.feedback", "feedback"),
)
BRAINTRUST = Layout(
    "braintrust",
    (frozenset({"span_id", "root_span_id", "span_attributes"}),),
    ("span_id", "id"),
    trace=("root_span_id",),
    parent=("span_parents",),
    step=("span_attributes.name",),
    kind=("span_attributes.type",),
    start=("metrics.start", "created"),
    end=("metrics.end",),
    session=("metadata.session_id", "metadata.thread_id", "metadata.conversation_id"),
    user=("metadata.user_id", "metadata.user"),
    service=("project_name", "metadata.environment"),
    scores=("scores", "comments"),
)
HONEYHIVE = Layout(
    "honeyhive",
    (frozenset({"event_id", "session_id", "event_type", "event_name"}),),
    ("event_id",),
    trace=("session_id",),
    step=("event_name",),
    kind=("event_type",),
    input=("inputs",),
    output=("outputs",),
    session=("metadata.thread_id", "metadata.conversation_id", "session_id"),
    user=("user_properties.user_id",),
    service=("source", "project"),
    scores=("feedback",),
)
DATADOG = Layout(
    "datadog",
    (frozenset({"span_id", "trace_id", "span_kind", "start_ns", "ml_app"}),),
    ("span_id",),
    kind=("span_kind",),
    input=("input.value", "input.messages", "input"),
    output=("output.documents", "output.value", "output.messages", "output"),
    start=("start_ns",),
    end=(),
    error=("status",),
    session=("session_id",),
    service=("ml_app",),
    scores=("evaluation",),
)
DATADOG_EVENT = Layout(**{**{f: getattr(DATADOG, f) for f in DATADOG.__dataclass_fields__}, "inside": "attributes"})
LUNARY = Layout(
    "lunary",
    (
        frozenset({"id", "type", "createdAt", "siblingRunId", "templateSlug"}),
        frozenset({"id", "type", "createdAt", "parentRunId", "projectId"}),
    ),
    ("id",),
    trace=("traceId", "rootParentRunId"),
    parent=("parentRunId", "traceId"),
    start=("createdAt",),
    end=("endedAt",),
    session=("metadata.threadId", "metadata.sessionId"),
    user=("user.externalId", "user.id"),
    service=("metadata.environment",),
    scores=("feedback", "scores"),
)
ANY = Layout(
    "spans",
    tuple(
        frozenset({trace, span, end})
        for trace in ("trace_id", "traceId")
        for span in ("span_id", "spanId", "id", "step_id")
        for end in ("output", "outputs", "output_value")
    ),
    ("span_id", "spanId", "step_id", "id"),
    trace=("trace_id", "traceId"),
    parent=("parent_span_id", "parentSpanId", "parent_id", "parentId", "parent"),
    step=("name", "span_name", "step_name", "operation_name", "operation"),
    kind=("span_type", "spanType", "span_kind", "spanKind", "node_type", "kind", "type"),
    input=("input", "inputs", "input_value"),
    output=("output", "outputs", "output_value"),
    start=("start_time", "startTime", "started_at", "start", "created_at", "createdAt", "timestamp"),
    end=("end_time", "endTime", "ended_at", "end", "completed_at"),
    error=("error", "status_code", "status"),
    session=("session_id", "sessionId", "thread_id", "conversation_id", "metadata.session_id", "metadata.thread_id"),
    user=("user_id", "userId", "metadata.user_id"),
    service=("project_name", "project", "service_name", "service", "environment"),
    scores=("feedback", "scores", "feedback_scores", "evaluations"),
    lacks=frozenset({"run_type", "attributes", "resourceSpans", "dataType", "data_type"}),
)
KNOWN: tuple[Layout, ...] = (OPIK, OPIK_TRACE, WEAVE, BRAINTRUST, HONEYHIVE, DATADOG, DATADOG_EVENT, LUNARY)


@dataclass(frozen=True)
class LayoutForm:
    """The rows of one tool, in any of its layouts."""

    name: str
    layouts: tuple[Layout, ...]

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of one of them."""
        return any(layout.recognises(row) for layout in self.layouts)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """What the row says. Raises `InputError`."""
        layout = next((layout for layout in self.layouts if layout.recognises(row)), self.layouts[0])
        return layout.read(row, settings)


LAYOUT_FORMS = tuple(
    LayoutForm(name, tuple(layout for layout in KNOWN if layout.name == name))
    for name in dict.fromkeys(layout.name for layout in KNOWN)
)
