"""Events of LlamaIndex' instrumentation, dumped as JSON -> spans and what was said in them.

`model_dump_json()` of an event has no type, so an event is told by its fields; `model_dump()` has a `class_name`. An
event knows the step that it fired in (`span_id`, which begins with the name of the method), but no step above it and
no trace. Events of one query share nothing but their time and the tags that the application set (`trace_id`).

Guarantees: a retrieval is one step, its query as it was asked; a reranked list and an answer are joined to it only
where a tag says that they belong together, or where the answer's own list of sources does. Times have no zone: they
are of the clock of the machine that ran the application, and refused without `--timezone`. Does not know: sessions,
unless tagged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import as_time
from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.fields import first_of, mapping_in, name_of
from qdrant_tools.traces.forms.steps import asked
from qdrant_tools.traces.forms.values import answer_in
from qdrant_tools.traces.records import Span, SpanKind, TraceSettings

_STEP = re.compile(r"[\w.<>]+-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS: Mapping[str, SpanKind] = {
    "RetrievalEndEvent": "retrieval",
    "ReRankEndEvent": "rerank",
    "QueryEndEvent": "chain",
}
_ZONE_HINT = (
    "LlamaIndex writes the local time of the application's machine: say its zone (--timezone UTC, Europe/Berlin)"
)


@dataclass(frozen=True)
class LlamaIndexEvents:
    """One event a row."""

    name: str = "llamaindex"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is an event: it has LlamaIndex' own id, the step, a time and tags."""
        return "id_" in row and "timestamp" in row and "span_id" in row and "tags" in row and "trace_id" not in row

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span]:
        """The step that an event ends. Events that begin or lie within one say nothing that those do not.

        Raises:
            InputError: the time has no zone, and none is given.
        """
        kind = _KINDS.get(_type_of(row))
        step = name_of(row.get("span_id"))
        if kind is None or step is None:
            return
        tags = mapping_in(row.get("tags"))
        trace = name_of(first_of(tags, "trace_id", "trace", "request_id", "query_id", "run_id"))
        documents = documents_in(row.get("nodes"), settings) if kind == "retrieval" else None
        if kind == "retrieval" and documents is None:
            raise InputError(f"nodes are {brief(row.get('nodes'))}, expected a list of nodes with their scores")
        response = row.get("response")
        yield Span(
            trace=trace or step,
            id=step,
            parent=None,
            kind=kind,
            name=step.rpartition("-")[0] if _STEP.fullmatch(step) is None else step[:-37],
            at=_time(row, settings),
            query=asked(first_of(row, "str_or_query_bundle", "query")),
            documents=documents,
            context=_context(kind, row, settings),
            answer=answer_in(response) if kind == "chain" else None,
            session=name_of(first_of(tags, "session_id", "session", "thread_id", "conversation_id")) or "",
            user=name_of(first_of(tags, "user_id", "user")) or "",
        )


def _type_of(row: Mapping[str, Any]) -> str:
    """The type of an event, by its name or, where the dump left that out, by the fields that it alone has."""
    named = first_of(row, "class_name", "event", "event_type", "type")
    if isinstance(named, str) and named.endswith("Event"):
        return named
    has_nodes = isinstance(row.get("nodes"), list)
    if has_nodes and "str_or_query_bundle" in row:
        return "RetrievalEndEvent"
    if has_nodes and "query" not in row and "model_name" not in row:
        return "ReRankEndEvent"
    # the end of a synthesis has the same fields, and says the same
    return "QueryEndEvent" if "query" in row and "response" in row else ""


def _context(kind: SpanKind, row: Mapping[str, Any], settings: TraceSettings) -> Any:
    if kind == "rerank":
        return documents_in(row.get("nodes"), settings)
    if kind == "chain":
        return documents_in(mapping_in(row.get("response")).get("source_nodes"), settings)
    return None


def _time(row: Mapping[str, Any], settings: TraceSettings) -> datetime:
    try:
        return as_time("timestamp", row.get("timestamp"), zone=settings.zone)
    except InputError as error:
        if "without a zone" in str(error):
            raise InputError(
                f"timestamp is {brief(row.get('timestamp'))}, a time without a zone: {_ZONE_HINT}"
            ) from error
        raise
