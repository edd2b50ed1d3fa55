"""A step as most tools store one (what went in, what came out, perhaps what kind it was) -> a span.

Langfuse, LangSmith, MLflow, Opik, Weave, Braintrust and others write the same under other names.

Guarantees: a step that its tool calls a retriever is a retrieval, with a list or with the reason why it has none; one
that its tool calls nothing, or a chain, is one only where its output can be nothing but a list of found documents, and
is marked as `implied`; one that was given documents and splits them or answers from them is none. Does not know: rows,
tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qdrant_tools.traces.forms.documents import LIST_KEYS, collection_in, documents_in, hidden_in
from qdrant_tools.traces.forms.values import answer_in, json_in, query_in, text_of
from qdrant_tools.traces.records import Span, SpanDocument, SpanKind, TraceSettings

_RERANK = re.compile(r"re-?rank|postprocess_nodes|compress_documents", re.IGNORECASE)
NO_LIST = "its output is no list of documents: return the documents with their ids from the function that is traced"
_ASKED = frozenset({"question", "query", "input", "user_query", "search_query", "chat_history", "history"})
"""What a state of an application still has of its input when it comes out."""
_DEEPEST = 3
HIDDEN_HINT = "its texts are hidden: stop masking inputs and outputs of retrievers in the application"


@dataclass(frozen=True, slots=True)
class Step:
    """What a tool knows of a step. `kind` is None where the tool does not say; `lacking` says why there is no list."""

    trace: str
    id: str
    parent: str | None
    name: str = ""
    kind: SpanKind | None = None
    at: datetime | None = None
    until: datetime | None = None
    input: Any = None
    output: Any = None
    failed: bool = False
    session: str = ""
    user: str = ""
    service: str = ""
    tags: tuple[str, ...] = ()
    lacking: str = ""


def as_typed(value: Any, *, plain: bool) -> Any:
    """An input of which it is known that a text in it is what somebody typed, also where that is JSON."""
    return {"query": value} if plain and isinstance(value, str) else value


def asked(value: Any) -> str | None:
    """The query in an input, also where a decorator has written the arguments of a function."""
    inside = json_in(value)
    for _ in range(_DEEPEST):
        # a function of one argument that is an object: {"state": {"question": …}}
        part = next(iter(inside.values())) if isinstance(inside, Mapping) and len(inside) == 1 else None
        if not isinstance(part, Mapping) or query_in(inside) is not None:
            break
        inside = part
    if isinstance(inside, Mapping) and set(inside) <= {"args", "kwargs"}:
        named = query_in(inside.get("kwargs")) if inside.get("kwargs") else None
        args = inside.get("args")
        texts = [text for arg in args if (text := text_of(arg)) is not None] if isinstance(args, (list, tuple)) else []
        # of several texts, the first may be the name of a collection
        return named or (texts[0] if len(texts) == 1 else None) or query_in(args)
    return query_in(value if inside is None else inside)


def span_of_step(step: Step, settings: TraceSettings) -> Span:
    """The span that a step is."""
    kind, documents, context, implied = step.kind, None, None, False
    if kind in (None, "chain") and _RERANK.search(step.name):
        context = documents_in(step.output, settings)
        # an engine may be named after its reranker, and answer
        answers = isinstance(json_in(step.output), Mapping) and _answer(step.output) is not None
        kind = kind if context is None or answers else "rerank"
    if kind == "retrieval":
        documents = documents_in(step.output, settings)
    elif kind == "rerank":
        documents, context = documents_in(step.input, settings), documents_in(step.output, settings)
    elif kind in (None, "chain"):
        documents = None if _works_on_documents(step) else documents_in(step.output, settings, certain=True)
        implied = documents is not None
        kind = "retrieval" if documents is not None else "chain"
    return _span(step, kind, documents, context, implied)


def _works_on_documents(step: Step) -> bool:
    """Whether a step was given the documents: it splits them, or answers from them, under new ids perhaps.

    A state that still holds those of the last question is given to a step that asks too, and comes out without answer.
    """
    if asked(step.input) is not None and _answer(step.output) is None:
        return False
    return documents_in(step.input, TraceSettings(), certain=True) is not None


def _answer(output: Any) -> str | None:
    """The answer; of a state that holds documents too, only what is called one."""
    inside = json_in(output)
    if isinstance(inside, Mapping):
        said = {name: value for name, value in inside.items() if name not in _ASKED}
        inside = {name: value for name, value in said.items() if name not in LIST_KEYS or isinstance(value, str)}
        return answer_in(inside) if inside else None
    return (
        None if isinstance(inside, list) and documents_in(inside, TraceSettings(), certain=True) else answer_in(output)
    )


def _span(
    step: Step,
    kind: SpanKind,
    documents: tuple[SpanDocument, ...] | None,
    context: tuple[SpanDocument, ...] | None,
    implied: bool,
) -> Span:
    query = asked(step.input) if kind in ("retrieval", "rerank", "chain") else None
    hidden = 0
    if kind in ("retrieval", "rerank"):
        shown = [document.text for document in documents or context or ()]
        hidden += hidden_in(step.output) if not shown or None in shown else 0
        hidden += hidden_in(step.input) if query is None else 0
    lacks = kind == "retrieval" and documents is None and not step.failed
    return Span(
        trace=step.trace,
        id=step.id,
        parent=step.parent,
        kind=kind,
        name=step.name,
        at=step.at,
        until=step.until,
        query=query,
        documents=documents,
        context=context,
        answer=_answer(step.output) if kind in ("chain", "llm") or implied else None,
        session=step.session,
        user=step.user,
        failed=step.failed,
        hidden=hidden,
        implied=implied,
        service=step.service,
        tags=step.tags,
        collection=collection_in(step.output) if documents else "",
        hint=HIDDEN_HINT if hidden else step.lacking if lacks else "",
    )
