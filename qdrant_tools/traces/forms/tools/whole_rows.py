"""A row that is a whole search: what was asked, the documents, perhaps the answer and what somebody said -> spans.

So write applications of their own, chat programs (Dify's messages with `retriever_resources`), and frameworks that
evaluate (Ragas: `user_input`, `retrieved_contexts`; DeepEval: `input`, `retrieval_context`, `actual_output`).

Guarantees: a row is one only where its query is a text and its documents are objects with an id or a text, or texts,
each under a name that is used for nothing else; other rows are refused by whoever finds no form. A row without an id
has one of its content, so that it is the same search when it is read again. Does not know: files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.documents import documents_in, hidden_in
from qdrant_tools.traces.forms.fields import first_of, list_in, mapping_in, name_of, tags_in
from qdrant_tools.traces.forms.raw import moment
from qdrant_tools.traces.forms.scores import About, scores_in
from qdrant_tools.traces.forms.values import answer_in, is_hidden, is_typed, json_in, python_in, query_in, text_of
from qdrant_tools.traces.records import Annotation, Span, SpanDocument, TraceSettings

QUERIES = (
    "query", "question", "user_query", "user_input", "user_question", "search_query", "query_text", "user_message",
    "userQuery", "userInput", "userMessage", "searchQuery", "queryText", "retrievalQuery", "prompt", "input", "message",
)  # fmt: skip
_TYPED = frozenset({"query", "question", "user_query", "user_input", "user_question", "search_query", "query_text"})
"""Under these, JSON is what somebody typed."""
_BUNDLES = ("query", "question", "retrievalQuery")
"""Of these, the text may lie in an object: Bedrock's `{"text": …}`, LlamaIndex' `{"query_str": …}`."""
LISTS = (
    "retrieved_documents", "retrieved_docs", "retrieved_contexts", "retrieved_chunks", "retrieved_nodes",
    "retrieved_passages", "retrieval_context", "retrieval_results", "retrieved_context", "retriever_resources",
    "retrieved", "retrievalResults", "source_documents", "source_nodes", "search_results", "documents", "docs",
    "chunks", "passages", "retrievedDocuments", "retrievedDocs", "retrievedChunks", "retrievedContexts",
    "sourceDocuments", "sourceNodes", "searchResults",
    "contexts", "sources", "nodes", "hits", "results", "matches", "references", "context",
)  # fmt: skip
ANSWERS = (
    "answer",
    "response",
    "actual_output",
    "output",
    "generated_answer",
    "completion",
    "reply",
    "llm_response",
    "actualOutput",
)
HOLDERS = ("request", "response", "retrieval", "search", "data", "payload", "event", "inputs", "outputs", "rag", "log")
"""Objects of a row in which these may lie."""
_IDS = (
    "trace_id", "request_id", "message_id", "query_id", "search_id", "interaction_id", "run_id", "record_id", "traceId",
    "requestId", "messageId", "queryId", "id",
)  # fmt: skip
_TIMES = (
    "start_time", "timestamp", "created_at", "createdAt", "created", "time", "datetime", "ts", "at", "request_time",
    "logged_at", "date", "start_timestamp",
)  # fmt: skip
_SESSIONS = ("session_id", "sessionId", "session", "conversation_id", "conversationId", "thread_id", "chat_id")
_USERS = ("user_id", "userId", "user", "end_user_id", "from_end_user_id", "from_account_id")
_OPINIONS = (
    "feedback", "feedbacks", "user_feedback", "userFeedback", "feedbackScore", "feedback_score", "thumb", "thumbs",
    "thumbs_up", "thumb_up", "rating", "user_rating", "vote", "liked", "helpful", "is_helpful", "annotation", "scores",
)  # fmt: skip
_OF_TEXTS = ("retrieved_context_ids", "retrieved_ids", "document_ids", "doc_ids", "context_ids", "ids")
_NOT_OF_LOGS = frozenset({"pos", "neg", "positives", "negatives", "positive", "negative", "hard_negatives", "label"})
"""Fields of data for training, which holds no searches of users."""
_OF_STEPS = ("parent_id", "parent_span_id", "parentSpanId", "parent_run_id", "span_id", "spanId")
"""Fields of a row that is a step among others."""


@dataclass(frozen=True)
class WholeRows:
    """One search a row, of any application."""

    name: str = "rows"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has a query and documents under certain names."""
        if not _NOT_OF_LOGS.isdisjoint(row) or _is_own(row) or first_of(row, *_OF_STEPS) is not None:
            return False
        return (_query(row) is not None or _hides_query(row)) and _documents(row, TraceSettings()) is not None

    def is_empty(self, row: Mapping[str, Any]) -> bool:
        """Whether a row among others of this form is one for which nothing was retrieved."""
        if not _NOT_OF_LOGS.isdisjoint(row) or _is_own(row) or first_of(row, *_OF_STEPS) is not None:
            return False
        lists = [holder[name] for holder in _holders(row) for name in LISTS if name in holder]
        is_asked = _query(row) is not None or _hides_query(row)
        return is_asked and bool(lists) and all(is_missing(each) or each in ([], "[]") for each in lists)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """The answer as the beginning, the retrieval in it, and what was said. Raises `InputError` for an odd time."""
        query, found = _query(row), _documents(row, settings)
        documents, hidden = found or (None, 0)
        hidden += query is None and _hides_query(row)
        if query is None and not hidden:
            return
        at = moment("timestamp", _found(row, _TIMES), settings.zone or UTC)
        trace = name_of(_found(row, _IDS)) or _of_content(query or "", documents or (), str(at))
        root = Span(
            trace=trace,
            id=trace,
            parent=None,
            kind="chain",
            at=at,
            query=query,
            answer=_answer(row),
            session=name_of(_found(row, _SESSIONS)) or "",
            user=name_of(_found(row, _USERS)) or "",
            service=text_of(_found(row, ("environment", "app_name", "application", "service", "project"))) or "",
            tags=tags_in(row.get("tags")),
        )
        yield root
        if found is None:
            return
        step = replace(root, id=f"{trace}/retrieval", parent=trace, kind="retrieval", answer=None)
        yield replace(step, documents=documents, hidden=hidden)
        for name in _OPINIONS:
            yield from _said(name, _found(row, (name,)), About(trace, trace), settings)


def _is_own(row: Mapping[str, Any]) -> bool:
    """Whether it is a search as this project's own log exports it."""
    return {"id", "at", "query", "hits"} <= row.keys()


def _holders(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row, *(inner for name in HOLDERS if name in row and (inner := mapping_in(row[name])))]


def _found(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((value for holder in _holders(row) if (value := first_of(holder, *names)) is not None), None)


def _query(row: Mapping[str, Any]) -> str | None:
    for holder in _holders(row):
        for name in QUERIES:
            value = holder.get(name)
            if isinstance(value, Mapping) and name in _BUNDLES:
                value = query_in(value)
            if (text := text_of(value)) is not None and (json_in(value) is None or (name in _TYPED and is_typed(text))):
                return text
    return None


def _hides_query(row: Mapping[str, Any]) -> bool:
    return any(is_hidden(holder.get(name)) for holder in _holders(row) for name in QUERIES)


def _answer(row: Mapping[str, Any]) -> str | None:
    for holder in _holders(row):
        for name in ANSWERS:
            if (text := answer_in(holder.get(name))) is not None:
                return text
    return None


def _documents(row: Mapping[str, Any], settings: TraceSettings) -> tuple[tuple[SpanDocument, ...] | None, int] | None:
    """The list under the first name that has one, and how many of its texts are hidden; None if none has.

    Ids may lie in a list beside the texts. The list itself is None where nothing of it is left.
    """
    for holder in _holders(row):
        for name in LISTS:
            listed = python_in(holder.get(name))
            if not isinstance(listed, (list, tuple)) or not listed:
                continue
            if not all(isinstance(item, (Mapping, str)) for item in listed):
                continue
            if all(isinstance(item, str) for item in listed) and not _is_of_texts(name):
                continue
            hidden = [hidden_in([item]) > 0 for item in listed]
            documents = documents_in(listed, settings)
            if documents is None and all(hidden):
                return None, len(hidden)
            if documents is None or len(documents) != len(listed):
                continue
            if all(is_one or _says_something(each) for is_one, each in zip(hidden, documents, strict=True)):
                return _with_ids(documents, holder), sum(hidden)
    return None


def _is_of_texts(name: str) -> bool:
    """Whether texts under a name are documents."""
    return name.startswith("retriev") or name in ("contexts", "context", "passages", "chunks", "documents", "docs")


def _says_something(document: SpanDocument) -> bool:
    """Whether it can be a document that was found: an id alone is that of anything."""
    return document.text is not None or document.score is not None


def _with_ids(documents: tuple[SpanDocument, ...], holder: Mapping[str, Any]) -> tuple[SpanDocument, ...]:
    if any(document.id is not None for document in documents):
        return documents
    for name in _OF_TEXTS:
        ids = [name_of(value) for value in list_in(python_in(holder.get(name)))]
        if len(ids) == len(documents) and all(ids):
            return tuple(replace(document, id=id) for document, id in zip(documents, ids, strict=True))
    return documents


def _of_content(query: str, documents: tuple[SpanDocument, ...], at: str) -> str:
    content = "\0".join([query, at, *(document.id or document.text or "" for document in documents)])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _said(name: str, value: Any, about: About, settings: TraceSettings) -> Iterator[Annotation]:
    if value is None:
        return
    if not isinstance(json_in(value), (Mapping, list, tuple)):
        yield from scores_in({name: value}, about, settings)
        return
    for each in scores_in(value, about, settings):
        # Dify: {"rating": "like"}; several: [{"rating": "like"}, …]
        is_nameless = each.name in ("rating", "value", "thumb", "thumbs", "score", "comment", "")
        yield replace(each, name="user_feedback", by="person") if is_nameless and name != "scores" else each
