"""PostHog's events of language models -> spans and annotations.

A trace is an event `$ai_trace`, its steps are `$ai_span`, `$ai_generation` and `$ai_embedding`; what a user said is
`$ai_feedback`, a text, `$ai_metric`, a name and a value, or the answer to a survey. Everything lies in `properties`,
which tables have as JSON; an export of SQL may have a column for each of them.

Guarantees: an event is written when a step has ended, so that it began earlier by its `$ai_latency`. Does not know:
what the numbers of a survey mean, which `--up` and `--down` say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.fields import first_of, mapping_in, name_of, needed
from qdrant_tools.traces.forms.raw import moment, number_of
from qdrant_tools.traces.forms.scores import by_of
from qdrant_tools.traces.forms.steps import NO_LIST, Step, span_of_step
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import Annotation, Span, SpanKind, TraceSettings

_KINDS: Mapping[str, SpanKind | None] = {
    "$ai_trace": "chain", "$ai_span": None, "$ai_generation": "llm", "$ai_embedding": "embedding",
}  # fmt: skip
_SAYING = frozenset({"$ai_feedback", "$ai_metric", "survey sent"})
_OWN = "properties."


@dataclass(frozen=True)
class PostHog:
    """An event a row."""

    name: str = "posthog"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is an event of a trace, or what somebody said of one."""
        event = row.get("event")
        if not isinstance(event, str) or (event not in _KINDS and event not in _SAYING):
            return False
        return not is_missing(_of(row).get("$ai_trace_id"))

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """What the event says. Raises `InputError` where an id or a time is damaged."""
        said = _of(row)
        if row["event"] in _SAYING:
            yield from _opinion(row, said, settings)
        else:
            yield span_of_step(_step(row, said, settings), settings)


def _of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties of an event."""
    inside = mapping_in(row.get("properties"))
    if inside:
        return inside
    return {name.removeprefix(_OWN): value for name, value in row.items() if name.removeprefix(_OWN)[:1] == "$"}


def _step(row: Mapping[str, Any], said: Mapping[str, Any], settings: TraceSettings) -> Step:
    trace = needed(said, "the id of a trace", "$ai_trace_id")
    is_trace = row["event"] == "$ai_trace"
    id = trace if is_trace else name_of(said.get("$ai_span_id")) or needed(row, "the id of an event", "uuid", "id")
    parent = name_of(said.get("$ai_parent_id"))
    until = moment("timestamp", row.get("timestamp"), settings.zone or UTC)
    lasted = number_of(said.get("$ai_latency")) or 0.0
    failed = said.get("$ai_is_error")
    return Step(
        trace=trace,
        id=id,
        parent=None if is_trace or parent == id else parent or trace,
        name=text_of(first_of(said, "$ai_span_name", "$ai_trace_name")) or "",
        kind="retrieval" if "retriev" in str(said.get("$ai_span_name")).lower() else _KINDS[row["event"]],
        at=None if until is None else until - timedelta(seconds=max(lasted, 0.0)),
        until=until,
        input=first_of(said, "$ai_input_state", "$ai_input"),
        output=first_of(said, "$ai_output_state", "$ai_output_choices", "$ai_output"),
        failed=failed is True or failed == "true",
        session=name_of(first_of(said, "$ai_session_id", "$session_id")) or "",
        user=name_of(first_of(row, "distinct_id")) or name_of(said.get("distinct_id")) or "",
        service=text_of(first_of(said, "$lib_environment", "environment")) or "",
        lacking=NO_LIST,
    )


def _opinion(row: Mapping[str, Any], said: Mapping[str, Any], settings: TraceSettings) -> Iterator[Annotation]:
    # a text beside a thumb must not replace it
    name = text_of(said.get("$ai_metric_name")) or ("survey" if row["event"] == "survey sent" else "comment")
    given = first_of(said, "$ai_metric_value", "$survey_response")
    number = number_of(given)
    yield Annotation(
        name=name,
        trace=needed(said, "the id of a trace", "$ai_trace_id"),
        label=str(given) if isinstance(given, bool) else text_of(given) if number is None else None,
        value=number,
        comment=text_of(said.get("$ai_feedback_text")) or "",
        by=by_of(name, None, settings) if row["event"] == "$ai_metric" else "person",
        who=name_of(row.get("distinct_id")) or "",
        at=moment("timestamp", row.get("timestamp"), settings.zone or UTC),
        id=name_of(first_of(row, "uuid", "id")) or "",
    )
