"""LangSmith's runs and feedback -> spans and annotations.

A run as its API, its SDK (`list_runs`), its bulk export (Parquet, where objects are JSON) or its SDK's own requests
write it; and runs of LangChain's tracers, which have the same fields, with their children inside (`child_runs`).
Retrievers of LangChain return `outputs.documents`; a function with `@traceable(run_type="retriever")` has its list in
`outputs.output`.

Guarantees: the session is that of the metadata (`session_id`, `thread_id`, `conversation_id`); the `session_id` of a
run itself is a project. Times without a zone are UTC, as the SDK makes them. `feedback_stats` count only where one
voice was heard, as they are averages. Does not know: what a key of feedback means beyond thumbs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.fields import first_of, list_in, mapping_in, name_of, needed, tags_in
from qdrant_tools.traces.forms.raw import moment, number_of
from qdrant_tools.traces.forms.scores import OF_PEOPLE
from qdrant_tools.traces.forms.sdk_attributes import RUN_KINDS
from qdrant_tools.traces.forms.steps import NO_LIST, Step, span_of_step
from qdrant_tools.traces.forms.values import json_in, python_in, text_of
from qdrant_tools.traces.records import Annotation, By, Span, TraceSettings
from qdrant_tools.unread import words_in_name

_SESSIONS = ("session_id", "thread_id", "conversation_id")
_LACKING = "its outputs are not in the file: select them (list_runs(select=[..., 'inputs', 'outputs']))"
_DEEPEST = 40


@dataclass(frozen=True)
class LangSmith:
    """Rows of runs and of feedback."""

    name: str = "langsmith"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is a run or a feedback."""
        return _is_run(row) or _is_feedback(row)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """What a row says. Raises `InputError` where an id or a time is damaged."""
        if _is_feedback(row):
            yield from _feedback(row, settings)
        else:
            yield from _runs(row, settings)


def _is_run(row: Mapping[str, Any]) -> bool:
    return (
        "run_type" in row
        and "id" in row
        and "name" in row
        and any(name in row for name in ("inputs", "outputs", "dotted_order", "parent_run_id", "trace_id"))
    )


def _is_feedback(row: Mapping[str, Any]) -> bool:
    return (
        "key" in row
        and "run_id" in row
        and "run_type" not in row
        and any(name in row for name in ("feedback_source", "score", "value", "trace_id", "correction"))
    )


def _runs(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
    """The run of a row and those inside it, parents first, without recursion."""
    todo: list[tuple[Mapping[str, Any], str | None, str | None, int]] = [(row, None, None, 0)]
    while todo:
        run, parent, trace, depth = todo.pop()
        id = needed(run, "the id of a run", "id", "run_id")
        trace = name_of(run.get("trace_id")) or _root_of(run.get("dotted_order")) or trace
        parent = name_of(first_of(run, "parent_run_id", "parent_id")) or parent
        # of a tracer without either: a root is its own trace, and a child's cannot be known
        trace = trace or (id if parent is None else parent)
        step = _step(run, trace, id, parent, settings)
        yield span_of_step(step, settings)
        yield from _stats(run, trace, id, settings)
        children = [child for child in list_in(run.get("child_runs")) if isinstance(child, Mapping) and "id" in child]
        if depth < _DEEPEST:
            todo.extend((child, id, trace, depth + 1) for child in reversed(children))


def _root_of(dotted: Any) -> str | None:
    """The id of the root in `20261126T232333321173Z<id>.20261126T…Z<id>`."""
    first = dotted.partition(".")[0] if isinstance(dotted, str) else ""
    _, found, id = first.partition("Z")
    return name_of(id) if found else None


def _step(run: Mapping[str, Any], trace: str, id: str, parent: str | None, settings: TraceSettings) -> Step:
    extra = mapping_in(python_in(run.get("extra")))
    metadata = mapping_in(first_of(extra, "metadata") or run.get("metadata"))
    zone = settings.zone or UTC
    # pandas writes objects into CSV as Python does
    inputs, outputs = (_read(run.get(name)) for name in ("inputs", "outputs"))
    return Step(
        trace=trace,
        id=id,
        parent=parent if parent != id else None,
        name=text_of(run.get("name")) or "",
        kind=RUN_KINDS.get(str(run["run_type"]).lower(), "other") if "run_type" in run else None,
        at=moment("start_time", run.get("start_time"), zone),
        until=moment("end_time", run.get("end_time"), zone),
        input=inputs,
        output=outputs,
        failed=not is_missing(run.get("error")),
        session=next((name for key in _SESSIONS if (name := name_of(metadata.get(key)))), ""),
        user=name_of(first_of(metadata, "user_id", "userId", "user")) or "",
        service=text_of(first_of(run, "session_name", "project_name")) or "",
        tags=_tags(run, metadata),
        lacking=NO_LIST if json_in(outputs) else _LACKING,
    )


def _read(value: Any) -> Any:
    found = python_in(value)
    return value if found is None else found


def _tags(run: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The run's own, and the name of an evaluation if it is part of one."""
    example = "experiment" if not is_missing(run.get("reference_example_id")) else ""
    return (*tags_in(run.get("tags")), *([example] if example or "ls_experiment_id" in metadata else []))


def _stats(run: Mapping[str, Any], trace: str, id: str, settings: TraceSettings) -> Iterator[Annotation]:
    for name, said in mapping_in(run.get("feedback_stats")).items():
        value = number_of(said.get("avg")) if isinstance(said, Mapping) and said.get("n") == 1 else None
        if value is not None:
            by = _by(name, "", settings)
            yield Annotation(name, trace=trace, span=id, value=value, by=by, id=f"{id}/{name}", summary=True)


def _feedback(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Annotation]:
    source = mapping_in(row.get("feedback_source"))
    name = text_of(row.get("key")) or ""
    value, label = number_of(row.get("score")), row.get("value")
    if isinstance(row.get("score"), bool):
        value = float(row["score"])
    where = mapping_in(source.get("metadata"))
    yield Annotation(
        name=name,
        trace=name_of(row.get("trace_id")),
        span=name_of(row.get("run_id")),
        document=name_of(first_of(where, "document_id", "documentId", "chunk_id", "point_id")),
        label=str(label) if isinstance(label, bool) else text_of(label),
        value=number_of(label) if value is None else value,
        comment=text_of(row.get("comment")) or "",
        by=_by(name, str(source.get("type", "")).lower(), settings),
        who=name_of(first_of(source, "user_id", "user_name")) or "",
        at=moment("created_at", first_of(row, "modified_at", "created_at"), settings.zone or UTC),
        id=name_of(row.get("id")) or "",
    )


def _by(name: str, source: str, settings: TraceSettings) -> By:
    """Who gave it: the app is a person at LangSmith's screen, a model a judge, the API whatever the name says."""
    if source == "app" or name == settings.thumb:
        return "person"
    if source in ("model", "auto_eval") or name == settings.judge:
        return "judge"
    return "person" if not OF_PEOPLE.isdisjoint(words_in_name(name)) else "code"
