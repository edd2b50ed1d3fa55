"""New Relic's events of language models -> spans and annotations.

A search is an event `LlmVectorSearch`, with the query, and an event `LlmVectorSearchResult` for each document, joined
by its `search_id`. Answers are messages (`LlmChatCompletionMessage`), thumbs are `LlmFeedbackMessage`. All name their
trace, which is one request of the application.

Guarantees: the events of a search may lie anywhere; ranks are `sequence`. Does not know: scores, which it has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from qdrant_tools.foreign import as_rank
from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.fields import first_of, name_of, needed
from qdrant_tools.traces.forms.raw import TRACE_DIGITS, hex_id, moment, number_of, under
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import Annotation, Span, SpanDocument, TraceSettings

CONTENT_HINT = (
    "New Relic has not recorded the query: set ai_monitoring.record_content.enabled to true in the agent's settings"
)


@dataclass(frozen=True)
class NewRelicEvents:
    """An event a row."""

    name: str = "newrelic-ai"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is an event of a search, an answer or a thumb."""
        return "trace_id" in row and _kind(row) is not None

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """What the event says. Raises `InputError` where an id, a rank or a time is damaged."""
        trace = hex_id("trace_id", row["trace_id"], TRACE_DIGITS)
        at = moment("timestamp", row.get("timestamp"), settings.zone or UTC)
        kind = _kind(row)
        if kind == "LlmFeedbackMessage":
            yield _thumb(row, trace, settings)
            return
        service = text_of(row.get("appName")) or ""
        session = name_of(first_of(row, "llm.conversation_id", "conversation_id")) or ""
        user = name_of(first_of(row, "llm.user_id", "enduser.id")) or ""
        # the request itself is no event: what was found and what was said lie in it
        yield Span(trace, trace, None, "chain", at=at, service=service, session=session, user=user)
        if kind == "LlmChatCompletionMessage":
            said = text_of(row.get("content")) if str(row.get("is_response")).lower() == "true" else None
            id = needed(row, "the id of a message", "id", "completion_id")
            yield Span(trace, f"message/{id}", trace, "llm", at=at, answer=said)
        elif kind == "LlmVectorSearch":
            query = text_of(row.get("request.query"))
            found = () if number_of(row.get("response.number_of_documents")) == 0 else None
            id, hint = needed(row, "the id of a search", "id"), "" if query else CONTENT_HINT
            yield Span(trace, id, trace, "retrieval", at=at, query=query, documents=found, hint=hint)
        else:
            id, hint = needed(row, "the id of a search", "search_id"), CONTENT_HINT
            yield Span(trace, id, trace, "retrieval", documents=(_document(row, settings),), hint=hint)


def _kind(row: Mapping[str, Any]) -> str | None:
    """What event a row is: queries of NRQL leave out the name of the table they are of."""
    if "search_id" in row and "sequence" in row:
        return "LlmVectorSearchResult"
    if "response.number_of_documents" in row or "request.query" in row:
        return "LlmVectorSearch"
    if "completion_id" in row and "sequence" in row:
        return "LlmChatCompletionMessage"
    return "LlmFeedbackMessage" if "rating" in row and {"category", "ingest_source"} & row.keys() else None


def _document(row: Mapping[str, Any], settings: TraceSettings) -> SpanDocument:
    fields = {"page_content": row.get("page_content"), "metadata": under(row, "metadata")}
    found = documents_in([fields], settings) or (SpanDocument(0, None),)
    return SpanDocument(as_rank("sequence", row["sequence"], first=0) - 1, found[0].id, None, found[0].text)


def _thumb(row: Mapping[str, Any], trace: str, settings: TraceSettings) -> Annotation:
    rating = row.get("rating")
    number = number_of(rating)
    return Annotation(
        name=settings.thumb or "user_feedback",
        trace=trace,
        label=str(rating) if isinstance(rating, bool) else text_of(rating) if number is None else None,
        value=number,
        comment=text_of(row.get("message")) or "",
        at=moment("timestamp", row.get("timestamp"), settings.zone or UTC),
        id=name_of(row.get("id")) or "",
    )
