"""Langfuse's observations, traces and scores, in every way out of it -> spans and annotations.

Read are the export of the UI (CSV, JSON, JSONL), the API (camelCase), blob storage (snake_case; `observations_v2`, and
the older `observations` with `traces`). The spans that its SDK sends are a dialect: `sdk_attributes.py`.

The type of an observation is not trusted alone: rerankers and GenAI retrievals arrive as SPAN, and LlamaIndex' lists
lie in `metadata.attributes`, as OpenInference wrote them. A score without an observation is about the whole trace.

Guarantees: a time without a zone is UTC, as Langfuse writes it; a score that came by the API is a person's only if its
name, or the option, says so. Does not know: what a score's name means beyond that; averages over several scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.fields import first_of, mapping_in, name_of, needed, tags_in, unquoted
from qdrant_tools.traces.forms.otel.common import is_langchains
from qdrant_tools.traces.forms.otel.dialects import dialect_of, span_of
from qdrant_tools.traces.forms.raw import RawSpan, flat, moment, number_of
from qdrant_tools.traces.forms.scores import OF_PEOPLE
from qdrant_tools.traces.forms.sdk_attributes import LANGFUSE_KINDS as KINDS
from qdrant_tools.traces.forms.steps import NO_LIST, Step, as_typed, span_of_step
from qdrant_tools.traces.forms.values import json_in, text_of
from qdrant_tools.traces.records import Annotation, By, Span, TraceSettings
from qdrant_tools.unread import words_in_name

_SOURCES = frozenset({"API", "EVAL", "ANNOTATION"})
_SCORE_TYPES = frozenset({"NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"})
_LACKING = "it has no output: export the fields of the groups io and metadata too"
_KNOWN = frozenset(
    [
        "id", "type", "name", "traceid", "parentobservationid", "starttime", "endtime", "input", "output",
        "metadata", "level", "statusmessage", "environment", "version", "tracename", "tracetags", "tracetimestamp",
        "userid", "sessionid", "scores", "projectid", "promptid", "promptname", "promptversion", "model",
        "internalmodelid", "modelid", "modelparameters", "usage", "usagedetails", "costdetails",
        "providedusagedetails", "providedcostdetails", "totalcost", "inputcost", "outputcost",
        "calculatedinputcost", "calculatedoutputcost", "calculatedtotalcost", "latency", "timetofirsttoken",
        "completionstarttime", "createdat", "updatedat", "tags", "release", "public", "bookmarked", "timestamp",
        "inputtokens", "outputtokens", "totaltokens", "inputusage", "outputusage", "totalusage",
        "usagepricingtiername", "usagepricingtierid", "inputprice", "outputprice", "totalprice",
        "providedmodelname", "comments", "htmlpath", "observations", "observationcount", "errorcount",
        "warningcount", "defaultcount", "debugcount", "isrootobservation", "toolcalls", "tooldefinitions",
        "toolcallnames", "unit", "eventts", "isdeleted", "resourceattributes",
    ]
)  # fmt: skip
"""Columns of exports that are no scores: without signs, in lower case."""


@dataclass(frozen=True)
class Langfuse:
    """Rows of observations, of traces, and of scores."""

    name: str = "langfuse"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is one of the three."""
        return _is_observation(row) or _is_score(row) or _is_trace(row)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """What a row says. Raises `InputError` where an id or a time is damaged."""
        if _is_score(row):
            yield from _scores([row], settings, None, None)
        elif _is_observation(row):
            yield from _observation(row, settings)
        else:
            yield from _trace(row, settings)


def _is_observation(row: Mapping[str, Any]) -> bool:
    if "type" not in row or str(row["type"]).upper() not in KINDS or "name" not in row:
        return False
    return ("parentObservationId" in row and "traceId" in row) or (
        "trace_id" in row and ("parent_observation_id" in row or ("status_message" in row and "start_time" in row))
    ) or ("traceId" in row and "startTime" in row and ("level" in row or "statusMessage" in row))  # fmt: skip


def _is_score(row: Mapping[str, Any]) -> bool:
    return (
        (any(name in row for name in ("dataType", "data_type", "observationId", "observation_id")))
        and "name" in row
        and "value" in row
        and str(row.get("source", "")).upper() in _SOURCES
        and ("traceId" in row or "trace_id" in row)
        and str(first_of(row, "dataType", "data_type") or "NUMERIC").upper() in _SCORE_TYPES
    )


def _is_trace(row: Mapping[str, Any]) -> bool:
    return (
        "id" in row
        and "timestamp" in row
        and ("sessionId" in row or "session_id" in row)
        and ("userId" in row or "user_id" in row)
        and ("bookmarked" in row or "htmlPath" in row or ("release" in row and "version" in row))
    )


def _observation(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
    trace, id = needed(row, "the id of a trace", "traceId", "trace_id"), needed(row, "the id of an observation", "id")
    metadata = mapping_in(row.get("metadata"))
    kind = KINDS[str(row["type"]).upper()]
    given = unquoted(row.get("input"))
    if kind == "retrieval" and not isinstance(given, str) and _is_langchains(metadata):
        given = as_typed(row.get("input"), plain=True)
    has_output = "output" in row and not is_missing(row["output"])
    step = Step(
        trace=trace,
        id=id,
        parent=name_of(first_of(row, "parentObservationId", "parent_observation_id")),
        name=text_of(row.get("name")) or "",
        kind=kind,
        at=moment("startTime", first_of(row, "startTime", "start_time"), settings.zone or UTC),
        until=moment("endTime", first_of(row, "endTime", "end_time"), settings.zone or UTC),
        input=given,
        output=unquoted(row.get("output")),
        failed=str(row.get("level", "")).upper() == "ERROR",
        lacking=NO_LIST if has_output else _LACKING,
        **_whose(row, metadata),
    )
    yield _with_attributes(span_of_step(step, settings), step, metadata, settings)
    if isinstance(json_in(row.get("scores")), (Mapping, list)):
        yield from _scores_beside(row.get("scores"), settings, trace, id)
    yield from _score_columns(row, settings, trace, id)


def _is_langchains(metadata: Mapping[str, Any]) -> bool:
    return is_langchains({"metadata": metadata}) or is_langchains(mapping_in(metadata.get("attributes")))


def _whose(row: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    resource = mapping_in(metadata.get("resourceAttributes"))
    service = text_of(resource.get("service.name"))
    environment = text_of(row.get("environment"))
    tags = [*tags_in(first_of(row, "tags", "traceTags", "trace_tags")), *([service] if service else [])]
    return {
        "session": text_of(first_of(row, "sessionId", "session_id")) or "",
        "user": text_of(first_of(row, "userId", "user_id")) or "",
        "service": environment if environment and environment != "default" else "",
        "tags": tuple(tags),
    }


def _with_attributes(span: Span, step: Step, metadata: Mapping[str, Any], settings: TraceSettings) -> Span:
    """The span, with what a convention of OpenTelemetry says where Langfuse was sent one by another instrumentation."""
    attributes = flat(mapping_in(metadata.get("attributes")))
    if not dialect_of(attributes):
        return span
    for name, value in (("input.value", step.input), ("output.value", step.output)):
        if value is not None:
            attributes.setdefault(name, value)
    raw = RawSpan(step.trace, step.id, step.parent, step.name, step.at, failed=step.failed, attributes=attributes)
    said = span_of(raw, settings)
    if said.documents is None and span.documents is not None and said.kind != "rerank":
        return span  # the output had a list, the attributes have none
    return replace(
        said,
        query=said.query or span.query,
        answer=said.answer or span.answer,
        until=span.until,
        session=span.session or said.session,
        user=span.user or said.user,
        service=span.service or said.service,
        tags=(*span.tags, *said.tags),
        hint=said.hint or span.hint if said.documents is None else said.hint,
    )


def _trace(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
    """The row of a trace: its own input and output, whose it is, and what is listed inside it."""
    trace = needed(row, "the id of a trace", "id")
    step = Step(
        trace=trace,
        id=trace,
        parent=None,
        name=text_of(row.get("name")) or "",
        kind="chain",
        at=moment("timestamp", row.get("timestamp"), settings.zone or UTC),
        input=unquoted(row.get("input")),
        output=unquoted(row.get("output")),
        **_whose(row, mapping_in(row.get("metadata"))),
    )
    # what a trace says at its end was found by a step inside it
    yield replace(span_of_step(step, settings), kind="chain", documents=None, implied=False)
    for inner in _rows(row.get("observations")):
        if _is_observation(inner):
            yield from _observation({"traceId": trace, **inner}, settings)
    yield from _scores_beside(row.get("scores"), settings, trace, None)
    yield from _score_columns(row, settings, trace, None)


def _rows(value: Any) -> list[Mapping[str, Any]]:
    inside = json_in(value)
    return [item for item in inside if isinstance(item, Mapping)] if isinstance(inside, (list, tuple)) else []


def _scores_beside(value: Any, settings: TraceSettings, trace: str, span: str | None) -> Iterator[Annotation]:
    inside = json_in(value)
    if isinstance(inside, Mapping):
        yield from _score_columns(inside, settings, trace, span, known=frozenset())
    else:
        yield from _scores([row for row in _rows(inside) if "name" in row], settings, trace, span)


def _scores(
    rows: list[Mapping[str, Any]], settings: TraceSettings, trace: str | None, span: str | None
) -> Iterator[Annotation]:
    for row in rows:
        form = str(first_of(row, "dataType", "data_type") or "NUMERIC").upper()
        word = text_of(first_of(row, "stringValue", "string_value"))
        value = number_of(row.get("value"))
        if form == "CORRECTION" or (value is None and word is None and is_missing(row.get("comment"))):
            continue
        name, metadata = text_of(row.get("name")) or "", mapping_in(row.get("metadata"))
        # the flag of a categorical score is the place of its category, which says nothing
        is_label = form in ("CATEGORICAL", "BOOLEAN")
        yield Annotation(
            name=name,
            trace=name_of(first_of(row, "traceId", "trace_id")) or trace,
            span=name_of(first_of(row, "observationId", "observation_id")) or span,
            session=text_of(first_of(row, "sessionId", "session_id")),
            document=name_of(first_of(metadata, "document_id", "documentId", "chunk_id", "point_id")),
            label=(word or (None if value is None else str(bool(value)))) if is_label else None,
            value=None if form == "CATEGORICAL" else value,
            comment=text_of(row.get("comment")) or (word if form == "TEXT" and word else ""),
            by=_by(name, str(row.get("source", "")).upper(), settings),
            who=text_of(first_of(row, "authorUserId", "author_user_id")) or "",
            at=moment("timestamp", first_of(row, "timestamp", "updated_at", "updatedAt"), settings.zone or UTC),
            id=name_of(row.get("id")) or "",
        )


def _by(name: str, source: str, settings: TraceSettings) -> By:
    if source == "ANNOTATION" or name == settings.thumb:
        return "person"
    if source == "EVAL" or name == settings.judge:
        return "judge"
    return "person" if not OF_PEOPLE.isdisjoint(words_in_name(name)) else "code"


def _score_columns(
    row: Mapping[str, Any],
    settings: TraceSettings,
    trace: str,
    span: str | None,
    known: frozenset[str] = _KNOWN,
) -> Iterator[Annotation]:
    """A column per name of a score, as the UI exports them: a number, or a list of what was said."""
    for name, cell in row.items():
        if is_missing(cell) or str(name).replace("_", "").lower() in known:
            continue
        inside = json_in(cell)
        said = inside if isinstance(inside, (list, tuple)) else [cell]
        for place, value in enumerate(said):
            number = number_of(value)
            word = str(value) if isinstance(value, bool) else text_of(value) if number is None else None
            if (number is None and word is None) or (word is not None and len(word) > 200):
                continue
            yield Annotation(
                name=str(name),
                trace=trace,
                span=span,
                label=word,
                value=number,
                by=_by(str(name), "", settings),
                id=f"{span or trace}/{name}/{place}",
                summary=True,
            )
