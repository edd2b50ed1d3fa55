"""Recorded searches -> spans of OpenTelemetry, so that what people say of them in a tracing tool finds its way back.

Two lines in an application that sends traces somewhere::

    from llama_index_embed_plus import RetrievalRecorder, SearchSpans

    recorder = RetrievalRecorder("retrievals.sqlite", spans=SearchSpans()).start()

Each search that is recorded becomes one span, in the words of OpenInference (Phoenix, Arize, Langfuse) and of the GenAI
conventions: collection, space, the ids and scores of the hits in their order, the session, and the id of the search in
the log. A thumb on that span, or on the trace around it, is feedback on that search once `embed-plus log import` has
read the tool's export. Query and texts are written only with `capture_content`.

The SDK keeps 128 attributes of a span: OpenInference takes two or three for each hit, so hits that do not fit are in
the list of GenAI alone, which is one attribute.

Guarantees: whatever goes wrong is counted and warned of, never raised; the caller pays for reading the clock and the
context. What the log's redaction rule hides is in no span. Does not know: who collects the spans; without a tracer
provider nobody does, and they cost next to nothing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from llama_index_embed_plus.errors import MissingExtraError
from qdrant_tools.errors import UsageError, brief
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog

Convention = Literal["openinference", "genai"]

KEPT = 128
"""Attributes of a span that the SDK keeps by default: it drops the oldest of more."""
_LIMITS = ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """When a search began, and inside of which span, with the id of the span around that."""

    context: Any
    inside: int
    around: int
    nanoseconds: int


class SearchSpans:
    """Writes a span for each search that it is given.

    tracer_provider: writes the spans; the global one if None, whenever that is set.
    conventions: in whose words; both if not said.
    capture_content: queries and the texts of hits too, which everybody sees who sees the traces.

    `failed` counts the spans that could not be written.

    Raises:
        MissingExtraError: OpenTelemetry is not installed (extra `otel`).
        UsageError: there is no such convention.
    """

    def __init__(
        self,
        tracer_provider: Any = None,
        *,
        conventions: Sequence[Convention] = ("openinference", "genai"),
        capture_content: bool = False,
    ) -> None:
        unknown = [name for name in conventions if name not in get_args(Convention)]
        if unknown or not conventions:
            raise UsageError(f"conventions are {brief(list(conventions))}, expected openinference, genai or both")
        self._trace, self._current = _opentelemetry()
        self._tracer = self._trace.get_tracer("llama_index_embed_plus", tracer_provider=tracer_provider)
        self._conventions = frozenset(conventions)
        self.capture_content = capture_content
        self.failed = 0

    def begin(self) -> Begun:
        """To be called where a search begins."""
        context = self._current()
        span = self._trace.get_current_span(context)
        inside = span.get_span_context()
        around = getattr(getattr(span, "parent", None), "span_id", 0)
        # by its ids: another instrumentation may put another span in its place before ours is written
        fixed = self._trace.set_span_in_context(self._trace.NonRecordingSpan(inside), context)
        return Begun(fixed, inside.span_id, around, time.time_ns())

    def innermost(self, begun: Begun) -> Begun:
        """The same beginning, inside of the deeper one of the spans that were open then and are open now.

        Another instrumentation opens a span for the same search before us, or after us, and ours belongs inside of it:
        two spans beside each other would be two searches.
        """
        now = self.begin()
        is_deeper = now.inside != 0 and now.around == begun.inside
        return replace(now, nanoseconds=begun.nanoseconds) if is_deeper else begun

    def write(self, search: LoggedSearch, *, begun: Begun, ended: int, texts: Sequence[str] = ()) -> None:
        """Write the span of a search that ended at `ended`, in nanoseconds since 1970. Never raises.

        texts: those of its hits, which are written only with `capture_content`.
        """
        try:
            name = f"retrieval {search.collection}" if search.collection else "retrieval"
            span = self._tracer.start_span(
                name, begun.context, kind=self._trace.SpanKind.CLIENT, start_time=begun.nanoseconds
            )
            if span.is_recording():
                shown = texts if self.capture_content else ()
                span.set_attributes(_attributes(search, shown, self._conventions, capture=self.capture_content))
            span.end(max(ended, begun.nanoseconds))
        except Exception as error:  # a search never fails for what is only said of it
            self.failed += 1
            if self.failed == 1:
                logger.warning("the span of a search could not be written: %s", type(error).__name__)


class PendingSpan:
    """The span of a search that is to be written when the search is in the log."""

    def __init__(
        self, spans: SearchSpans, search: Callable[[], LoggedSearch], begun: Begun, texts: Sequence[str]
    ) -> None:
        self._spans, self._search, self._begun, self._texts = spans, search, begun, texts
        self._ended = time.time_ns()

    def __call__(self, log: RetrievalLog) -> None:
        """Write it, without what the rule of the log hides."""
        try:
            search = log.redacted(self._search())
        except Exception as error:  # the rule is the caller's
            self._spans.failed += 1
            logger.warning("a search has no span, as the rule that redacts failed: %s", type(error).__name__)
            return
        self._spans.write(search, begun=self._begun, ended=self._ended, texts=self._texts)


def _opentelemetry() -> tuple[Any, Any]:
    try:
        from opentelemetry import context, trace
    except ImportError as error:
        raise MissingExtraError("writing spans", extra="otel") from error
    return trace, context.get_current


def _attributes(
    search: LoggedSearch, texts: Sequence[str], conventions: frozenset[Convention], *, capture: bool
) -> dict[str, Any]:
    """The attributes of a span: the hits first, because the SDK drops the oldest ones."""
    found = {
        "embed_plus.search_id": search.id,
        "embed_plus.space": search.space,
        "db.system.name": "qdrant",
        "db.collection.name": search.collection,
    }
    query = search.query if capture and not search.redacted else ""
    if "genai" in conventions:
        found |= {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": search.collection,
            "gen_ai.conversation.id": search.session,
            "gen_ai.retrieval.query.text": query,
        }
    # of our own reader, which takes the whole list from here
    found["gen_ai.retrieval.documents"] = json.dumps([{"id": hit.id, "score": hit.score} for hit in search.hits])
    documents: dict[str, Any] = {}
    if "openinference" in conventions:
        found |= {"openinference.span.kind": "RETRIEVER", "session.id": search.session, "input.value": query}
        if query:
            found["input.mime_type"] = "text/plain"
        documents = _documents(search, texts, _room() - len(found))
    return documents | {name: value for name, value in found.items() if value != ""}


def _documents(search: LoggedSearch, texts: Sequence[str], room: int) -> dict[str, Any]:
    """Ids, scores and texts of the first hits, as many as there is room for."""
    found: dict[str, Any] = {}
    for place, hit in enumerate(search.hits):
        prefix = f"retrieval.documents.{place}.document"
        own: dict[str, Any] = {f"{prefix}.id": hit.id}
        if hit.score is not None:
            own[f"{prefix}.score"] = hit.score
        if place < len(texts):
            own[f"{prefix}.content"] = texts[place]
        if len(found) + len(own) > room:
            break
        found |= own
    return found


def _room() -> int:
    """How many attributes of a span are kept: never more than the default, which other tools count on too."""
    told = next((os.environ[name] for name in _LIMITS if os.environ.get(name)), "")
    return min(KEPT, int(told)) if told.strip().isdecimal() else KEPT
