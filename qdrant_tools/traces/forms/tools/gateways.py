"""What gateways to language models log of the searches that they make or are told of -> spans and annotations.

Helicone logs a request a row; one to a vector store has `_type: "vector_db"`, logged by its logger. LiteLLM searches
the stores that a request names, and writes what it found into `vector_store_request_metadata`.

Guarantees: a request to a language model alone is no search, and says so. Does not know: which request of a session
the answer of another was made for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.fields import first_of, list_in, mapping_in, name_of, needed, tags_in, unquoted
from qdrant_tools.traces.forms.raw import moment
from qdrant_tools.traces.forms.steps import NO_LIST
from qdrant_tools.traces.forms.values import answer_in, query_in, text_of
from qdrant_tools.traces.records import Annotation, Span, TraceSettings

NO_BODY_HINT = (
    "Helicone's rows have no bodies: fetch the `signed_body_url` of each, or export with the bodies (includeInputs)"
)
_HELICONE_SESSION = "Helicone-Session-Id"


@dataclass(frozen=True)
class Helicone:
    """A request a row."""

    name: str = "helicone"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is a request as the API gives it out."""
        return {"request_id", "request_created_at"} <= row.keys() and (
            "request_body" in row or "signed_body_url" in row or "request_properties" in row
        )

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """The request, and the thumb that it was given. Raises `InputError` where an id or a time is damaged."""
        request, response = mapping_in(row.get("request_body")), unquoted(row.get("response_body"))
        properties = mapping_in(row.get("request_properties"))
        id = needed(row, "the id of a request", "request_id")
        is_search = request.get("_type") == "vector_db"
        documents = documents_in(response, settings) if is_search else None
        yield Span(
            trace=id,
            id=id,
            parent=None,
            kind="retrieval" if is_search else "llm",
            name=text_of(properties.get("Helicone-Session-Name")) or "",
            at=moment("request_created_at", row["request_created_at"], settings.zone or UTC),
            query=query_in(first_of(request, "text", "query")) if is_search else None,
            documents=documents,
            answer=None if is_search else answer_in(response),
            session=name_of(properties.get(_HELICONE_SESSION)) or "",
            user=name_of(first_of(row, "request_user_id", "user_id")) or "",
            service=text_of(first_of(properties, "Environment", "environment")) or "",
            collection=text_of(request.get("databaseName")) or "" if documents else "",
            hint=(NO_LIST if response else NO_BODY_HINT) if is_search and documents is None else "",
        )
        rating = row.get("feedback_rating")
        if isinstance(rating, bool) or str(rating).lower() in ("true", "false"):
            at = moment("feedback_created_at", row.get("feedback_created_at"), settings.zone or UTC)
            yield Annotation(
                name=settings.thumb or "user_feedback",
                trace=id,
                span=id,
                label=str(rating),
                at=at,
                id=name_of(row.get("feedback_id")) or f"{id}/rating",
            )


_SEARCHES = "vector_store_request_metadata"


@dataclass(frozen=True)
class LiteLLM:
    """A call a row: the standard payload of its loggers, or a row of its table of spending."""

    name: str = "litellm"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is a call."""
        return {"call_type", "startTime", "model"} <= row.keys() and ("messages" in row or "response" in row)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """The call, and the searches in it. Raises `InputError` where an id or a time is damaged."""
        id = needed(row, "the id of a call", "id", "request_id")
        metadata = mapping_in(row.get("metadata"))
        given, made = unquoted(row.get("messages")), unquoted(row.get("response"))
        call = Span(
            trace=id,
            id=id,
            parent=None,
            kind="chain",
            at=moment("startTime", row["startTime"], settings.zone or UTC),
            until=moment("endTime", row.get("endTime"), settings.zone or UTC),
            query=query_in(given),
            answer=_chosen(made),
            session=name_of(first_of(row, "session_id", "trace_id")) or "",
            user=name_of(first_of(row, "end_user", "user")) or name_of(metadata.get("user_api_key_end_user_id")) or "",
            failed=str(row.get("status")).lower() == "failure",
            tags=tags_in(row.get("request_tags")),
        )
        yield call
        for number, search in enumerate(list_in(metadata.get(_SEARCHES))):
            step, found = mapping_in(search), mapping_in(mapping_in(search).get("vector_store_search_response"))
            yield replace(
                call,
                id=f"{id}/search/{number}",
                parent=id,
                kind="retrieval",
                at=moment("start_time", step.get("start_time"), settings.zone or UTC) or call.at,
                until=moment("end_time", step.get("end_time"), settings.zone or UTC),
                query=text_of(first_of(step, "query")) or text_of(found.get("search_query")),
                documents=documents_in([_document(each) for each in list_in(found.get("data"))], settings),
                answer=None,
                failed=False,
                hint=NO_LIST,
            )


def _chosen(made: Any) -> str | None:
    """The message of the first choice."""
    choices = list_in(mapping_in(made).get("choices"))
    return answer_in(mapping_in(choices[0]).get("message")) if choices else answer_in(made)


def _document(found: Any) -> Mapping[str, Any]:
    """A result of OpenAI's form: its content is a list of parts, its metadata are `attributes`."""
    result = mapping_in(found)
    texts = [text for part in list_in(result.get("content")) if (text := text_of(mapping_in(part).get("text")))]
    return {**result, "content": "\n".join(texts), "metadata": mapping_in(result.get("attributes"))}
