"""Events of LlamaIndex' instrumentation, dumped as JSON -> spans and what was said in them.

`model_dump_json()` of an event has no type, so an event is told by its fields; `model_dump()` has a `class_name`. An
event knows the step that it fired in (`span_id`, which begins with the name of the method), but no step above it and
no trace. What belongs to a query is told by the order: it lies between the query's start and its end.

Guarantees: a retrieval, a reranked list and an answer are joined only where one query is open that can have them, or a
tag names their trace; else each stands alone, and an answer is nobody's. Times have no zone: they are of the clock of
the machine that ran the application, and refused without `--timezone`. Does not know: sessions, unless tagged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import as_time
from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.fields import first_of, mapping_in, name_of
from qdrant_tools.traces.forms.steps import asked
from qdrant_tools.traces.forms.values import answer_in
from qdrant_tools.traces.records import Span, SpanKind, TraceForm, TraceSettings

_STEP = re.compile(r"([\w.<>]+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS: Mapping[str, SpanKind] = {
    "RetrievalEndEvent": "retrieval", "ReRankEndEvent": "rerank",
    "QueryEndEvent": "chain", "StreamChatEndEvent": "other", "SynthesizeEndEvent": "other",
}  # fmt: skip
_ASKS_OTHERS = re.compile(r"(?:SubQuestion|Router|MultiStep|Retry|Transform|Flare|FLARE|Join)\w*QueryEngine")
"""Engines that put queries of their own to other engines."""
MOST_OPEN = 10_000
"""Queries that began and have not ended: more are those of a process that was killed."""
_HINT = "LlamaIndex writes the local time of the application's machine: say its zone (--timezone UTC, Europe/Berlin)"


@dataclass
class _Query:
    """A query that is being answered."""

    step: str
    asked: str | None
    parent: str | None
    root: str
    found: set[str] = field(default_factory=set)
    """The ids that its retrievals returned."""


@dataclass(frozen=True)
class LlamaIndexEvents:
    """One event a row. `open` has the queries that have begun, by their step."""

    name: str = "llamaindex"
    open: dict[str, _Query] = field(default_factory=dict)

    def begin(self) -> TraceForm:
        """At the beginning of a file no query is open."""
        return LlamaIndexEvents()

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is an event: it has LlamaIndex' own id, the step, a time and tags."""
        return "id_" in row and "timestamp" in row and "span_id" in row and "tags" in row and "trace_id" not in row

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span]:
        """The step that an event ends. Events that begin one, or lie within it, say nothing more.

        Raises:
            InputError: the time has no zone, and none is given.
        """
        type, step = _type_of(row), name_of(row.get("span_id"))
        kind = _KINDS.get(type)
        if step is None:
            return
        given = first_of(row, "str_or_query_bundle", "query")
        query = asked({"query": given} if isinstance(given, str) else given)
        if type == "QueryStartEvent":
            self._begins(step, query)
        if kind in (None, "other"):
            return
        yield self._ended(step, kind, query, row, settings)

    def _begins(self, step: str, query: str | None) -> None:
        if len(self.open) >= MOST_OPEN:
            del self.open[next(iter(self.open))]
        same = [each for each in self.open.values() if each.asked == query]
        above = same[-1:] or [each for each in self._of_one_run() if _ASKS_OTHERS.search(each.step)][-1:]
        self.open[step] = _Query(step, query, above[0].step if above else None, above[0].root if above else step)

    def _ended(
        self, step: str, kind: SpanKind, query: str | None, row: Mapping[str, Any], settings: TraceSettings
    ) -> Span:
        tags = mapping_in(row.get("tags"))
        nodes = row.get("nodes") if kind != "chain" else mapping_in(row.get("response")).get("source_nodes")
        listed = documents_in(nodes, settings)
        if kind != "chain" and listed is None:
            raise InputError(f"nodes are {brief(nodes)}, expected a list of nodes with their scores")
        names = {document.id for document in listed or () if document.id}
        of = self.open.pop(step, None) if kind == "chain" else self._holder(kind, query, names)
        trace = name_of(first_of(tags, "trace_id", "trace", "request_id", "query_id", "run_id"))
        return Span(
            trace=trace or (step if of is None else of.root),
            id=step,
            parent=None if of is None else of.parent if kind == "chain" else of.step,
            kind=kind,
            name=found[1] if (found := _STEP.fullmatch(step)) else step,
            at=_time(row, settings),
            query=query,
            documents=listed if kind == "retrieval" else None,
            context=listed if kind == "rerank" else None,
            answer=answer_in(row.get("response")) if kind == "chain" else None,
            session=name_of(first_of(tags, "session_id", "session", "thread_id", "conversation_id")) or "",
            user=name_of(first_of(tags, "user_id", "user")) or "",
        )

    def _holder(self, kind: SpanKind, query: str | None, names: set[str]) -> _Query | None:
        """The one open query that a list belongs to: the innermost of one run, or the only one that asked this."""
        run = self._of_one_run()
        if kind == "rerank":
            fitting = [each for each in self.open.values() if names and names <= each.found]
        else:
            # engines rewrite what was asked; of several runs at a time, nobody knows whose it is
            fitting = [each for each in self.open.values() if each.asked == query] or run
        if not fitting or not (len(fitting) == 1 or run):
            return None
        fitting[-1].found |= names
        return fitting[-1]

    def _of_one_run(self) -> list[_Query]:
        """The open queries, if all lie in one another."""
        queries = list(self.open.values())
        return queries if len({each.root for each in queries}) == 1 else []


def _type_of(row: Mapping[str, Any]) -> str:
    """The type of an event, by its name or, where the dump left that out, by the fields that it alone has."""
    named = first_of(row, "class_name", "event", "event_type", "type")
    if isinstance(named, str) and named.endswith("Event"):
        return named
    has_nodes, found = isinstance(row.get("nodes"), list), _STEP.fullmatch(str(row.get("span_id")))
    method = found[1].rpartition(".")[2] if found else ""
    if has_nodes and "str_or_query_bundle" in row:
        return "RetrievalEndEvent"
    if has_nodes and "query" not in row and "model_name" not in row:
        return "ReRankEndEvent"
    # a synthesis begins and ends with the same fields
    if "query" in row and method in ("query", "aquery"):
        return "QueryEndEvent" if "response" in row else "QueryStartEvent"
    return ""


def _time(row: Mapping[str, Any], settings: TraceSettings) -> datetime:
    try:
        return as_time("timestamp", row.get("timestamp"), zone=settings.zone)
    except InputError as error:
        if "without a zone" in str(error):
            raise InputError(f"timestamp is {brief(row.get('timestamp'))}, a time without a zone: {_HINT}") from error
        raise
