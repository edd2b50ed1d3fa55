"""What people and judges said in Phoenix and Arize AX -> annotations of spans, documents, traces and sessions.

Read are rows of `get_span_annotations_dataframe`, of the REST API (`span_id`, `trace_id` or `session_id`, a `result`),
of GraphQL, which alone has the evaluations of documents (`documentEvaluations`), results of phoenix-evals, whose
table has no name of the evaluation, and Arize's columns `annotation.NAME.label` and `eval.NAME.score` of a span.

Guarantees: who says it is known: a person, a language model, a program; anything else is refused. Does not know: which
name is a thumb, what a label means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import as_rank, is_absent, is_missing
from qdrant_tools.traces.forms.raw import SPAN_DIGITS, TRACE_DIGITS, flat, hex_id, moment, number_of
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import Annotation, By, TraceSettings

_KINDS: Mapping[str, By] = {"HUMAN": "person", "LLM": "judge", "CODE": "code"}
_NAMES = ("annotation_name", "name", "annotationName")
_SPANS = ("span_id", "context.span_id", "spanId")
_SAYING = frozenset({"label", "score", "explanation"})
_EVALUATED = frozenset(
    {*_SPANS, *_NAMES, *_SAYING, "document_position", "context.trace_id", "trace_id", "metadata", "identifier"}
)
_TRACES = ("trace_id", "traceId", "context.trace_id")
_SESSIONS = ("session_id", "sessionId")
_LISTS: Mapping[str, By] = {
    "documentEvaluations": "judge", "documentAnnotations": "judge", "spanAnnotations": "person",
    "spanEvaluations": "judge",
}  # fmt: skip
_WHERE = {"span_id": "context.span_id", "trace_id": "context.trace_id", "session_id": "attributes.session.id"}
_OF = {"annotation": "span_id", "eval": "span_id", "trace_eval": "trace_id", "session_eval": "session_id"}
_SAID = ("label", "score", "explanation", "text", "updated_at", "updated_by")
_COLUMN = re.compile(r"(annotation|eval|trace_eval|session_eval)\.(.+)\.(label|score)")


def is_annotation(row: Mapping[str, Any]) -> bool:
    """Whether a row says something of a span, a trace or a session, and is none itself."""
    if "start_time" in row or "attributes" in row or "reference" in row:
        return False
    if _graphql(row):
        return True
    if "annotator_kind" in row or "annotatorKind" in row:
        return _target(row) is not None and any(name in row for name in _NAMES)
    # of phoenix-evals: the index of the table, and what the judge said
    return any(name in row for name in _SPANS[:2]) and row.keys() <= _EVALUATED and not _SAYING.isdisjoint(row)


def annotations_in(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Annotation]:
    """What a row says. Raises `InputError` where something is damaged."""
    if is_annotation(row):
        nodes = _graphql(row)
        if not nodes:
            yield _annotation(flat(row), settings, by="judge")
        for node in nodes:
            yield from _of_graphql(node, settings)
    elif "context.span_id" in row:
        yield from _of_columns(row, settings)
        if "document_position" in row and not is_absent(row.get("label")):
            yield _annotation(row, settings, by="judge")


def _annotation(row: Mapping[str, Any], settings: TraceSettings, *, by: By) -> Annotation:
    position = _first(row, "document_position", "documentPosition")
    kind = _first(row, "annotator_kind", "annotatorKind")
    if kind is not None and str(kind).upper() not in _KINDS:
        raise InputError(f"annotator_kind is {brief(kind)}, expected HUMAN, LLM or CODE")
    name = _first(row, *_NAMES)
    label, score = (_first(row, f"result.{part}", part) for part in ("label", "score"))
    value = number_of(score)
    if score is not None and value is None:
        raise InputError(f"the score of the annotation {brief(name)} is {brief(score)}, expected a number")
    trace, span, session = (_first(row, *names) for names in (_TRACES, _SPANS, _SESSIONS))
    who = str(_first(row, "user_id", "identifier") or "")
    return Annotation(
        name=str(name) if name is not None else settings.judge or "evaluation",
        trace=None if trace is None else hex_id("trace_id", trace, TRACE_DIGITS),
        span=None if span is None else hex_id("span_id", span, SPAN_DIGITS),
        session=None if session is None else str(session),
        position=None if position is None else as_rank("document_position", position, first=0) - 1,
        label=None if label is None else str(label),
        value=value,
        comment=text_of(_first(row, "result.explanation", "explanation")) or "",
        by=by if kind is None else _KINDS[str(kind).upper()],
        who=who,
        at=moment("updated_at", _first(row, "updated_at", "updatedAt", "created_at", "createdAt"), settings.zone),
        id=str(_first(row, "id") or ""),
    )


def _target(row: Mapping[str, Any]) -> Any:
    return _first(row, *_SPANS, *_TRACES, *_SESSIONS)


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if not is_missing(row.get(name))), None)


_DEEPEST = 16


def _graphql(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The spans with lists of annotations in an answer of GraphQL, wherever its query put them."""
    found, layer = [], [row] if not {"context", "context.span_id"} & row.keys() else []
    for _ in range(_DEEPEST):
        found += [holder for holder in layer if any(isinstance(holder.get(name), list) for name in _LISTS)]
        inside = [part for holder in layer for part in holder.values()]
        parts = [part for value in inside for part in (value if isinstance(value, list) else [value])]
        layer = [part for part in parts if isinstance(part, Mapping)]
    return found


def _of_graphql(node: Mapping[str, Any], settings: TraceSettings) -> Iterator[Annotation]:
    context = node.get("context")
    span = _first(node, *_SPANS) or (_first(context, *_SPANS) if isinstance(context, Mapping) else None)
    if span is None:
        raise InputError("a span with evaluations has no spanId: select it in the query")
    for name, by in _LISTS.items():
        listed = node.get(name)
        for said in listed if isinstance(listed, list) else ():
            if not isinstance(said, Mapping):
                raise InputError(f"{name} hold {brief(said)}, expected objects")
            yield _annotation({**said, "spanId": span}, settings, by=by)


def _of_columns(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Annotation]:
    """Of Arize's table of spans: `annotation.NAME.label`, `eval.NAME.score`."""
    seen: dict[tuple[str, str], None] = {}
    for column, value in row.items():
        if (found := _COLUMN.fullmatch(column)) is not None and not is_absent(value):
            seen[found[1], found[2]] = None
    for kind, name in seen:
        of, target = _OF[kind], row.get(_WHERE[_OF[kind]])
        said = {part: row.get(f"{kind}.{name}.{part}") for part in _SAID}
        if not is_missing(target):
            said |= {"name": name, of: target, "user_id": said.pop("updated_by")}
            said["explanation"] = _first(said, "explanation", "text")
            yield _annotation(said, settings, by="person" if kind == "annotation" else "judge")
