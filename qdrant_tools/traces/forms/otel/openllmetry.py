"""The attributes of OpenLLMetry (Traceloop) -> spans: JSON in JSON, in `traceloop.entity.input` and `.output`.

LlamaIndex: a retriever's output is a list of nodes, each the JSON of one; a postprocessor's input has `nodes`.
LangChain: `{"query"}` and `{"documents"}`. The spans of clients of vector stores have no query and no list; they tell
the collection.

Guarantees: an output is a list of documents only where each is surely one. Does not know: which span of a trace counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_tools.traces.forms.documents import collection_in, documents_in
from qdrant_tools.traces.forms.otel.common import base_of, collection_of, first_text, sources_in
from qdrant_tools.traces.forms.raw import RawSpan
from qdrant_tools.traces.forms.values import answer_in, is_hidden, json_in, query_in, sources_of_answer
from qdrant_tools.traces.records import Span, SpanDocument, SpanKind, TraceSettings

CONTENT_HINT = "OpenLLMetry writes no contents here: unset TRACELOOP_TRACE_CONTENT=false in the application"
CLIENT_HINT = (
    "spans of a client of Qdrant have neither query nor ids: instrument the framework too "
    "(openinference-instrumentation-llama-index, opentelemetry-instrumentation-llamaindex or -langchain)"
)
CUT_HINT = "its values are cut: raise OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT in the application"
_INPUTS = ("traceloop.entity.input", "gen_ai.task.input", "gen_ai.tool.call.arguments")
_OUTPUTS = ("traceloop.entity.output", "gen_ai.task.output", "gen_ai.tool.call.result")
_CLIENT = ("qdrant.", "db.vector.query", "vector_db.")


@dataclass(frozen=True)
class OpenLLMetry:
    """The dialect: `speaks` tells it by the attributes, `span` reads them."""

    name: str = "openllmetry"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span has attributes of this library."""
        if _is_client(attributes):
            return True
        return any(name.startswith(("traceloop.", "gen_ai.task.")) for name in attributes)

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The span that the attributes tell of."""
        if _is_client(raw.attributes):
            return Span(kind="other", collection=collection_of(raw.attributes), hint=CLIENT_HINT, **base_of(raw))
        given, made = (first_text(raw.attributes, names) for names in (_INPUTS, _OUTPUTS))
        documents, inside = _documents(made, settings), json_in(given)
        kind = _kind_of(raw, inside, documents)
        if kind == "retrieval":
            return _retrieval(raw, given, made, documents)
        if kind == "rerank":
            nodes = inside.get("nodes") if isinstance(inside, Mapping) else None
            asked = first_text(raw.attributes, ("gen_ai.input.messages",)) or given
            before = None if nodes is None else documents_in(nodes, settings)
            return Span(kind=kind, query=query_in(asked), documents=before, context=documents, **base_of(raw))
        implied = documents_in(_inner(made), settings, certain=True) if kind == "chain" else None
        return Span(
            kind=kind if implied is None else "retrieval",
            query=query_in(given) if given and kind == "chain" else None,
            documents=implied,
            implied=implied is not None,
            answer=answer_in(made) if made and not (implied and isinstance(_inner(made), list)) else None,
            context=sources_in(raw.attributes) if kind == "llm" else sources_of_answer(made),
            is_tool=raw.attributes.get("traceloop.span.kind") == "tool",
            hidden=int(is_hidden(given)) + int(is_hidden(made)),
            **base_of(raw),
        )


def _is_client(attributes: Mapping[str, Any]) -> bool:
    return "db.system" in attributes and any(name.startswith(_CLIENT) for name in attributes)


def _kind_of(raw: RawSpan, given: Any, documents: tuple[SpanDocument, ...] | None) -> SpanKind:
    operation = str(raw.attributes.get("gen_ai.operation.name", ""))
    if operation == "rerank" or (isinstance(given, Mapping) and "nodes" in given and "response" not in given):
        return "rerank"
    named = str(raw.attributes.get("traceloop.entity.name", "")) or raw.name
    if documents or operation in ("vector_db_retrieve", "retrieval") or "retriever." in f"{named.lower()}.":
        return "retrieval"
    if operation in ("chat", "text_completion", "generate_content") or "llm.request.type" in raw.attributes:
        return "llm"
    if operation == "embeddings":
        return "embedding"
    return "chain" if "traceloop.span.kind" in raw.attributes else "other"


def _documents(made: str, settings: TraceSettings) -> tuple[SpanDocument, ...] | None:
    """The list that an output is, or has under `documents`; an answer with its sources is none."""
    inside = json_in(made)
    if isinstance(inside, Mapping):
        inside = json_in(inside.get("documents"))
    if not isinstance(inside, (list, tuple)):
        return None
    objects = [json_in(part) for part in inside]
    sure = all(isinstance(part, Mapping) and ("node" in part or "page_content" in part) for part in objects)
    return documents_in(objects, settings) if sure else None


def _inner(made: str) -> Any:
    """What a step of LangChain gave on."""
    inside = json_in(made)
    return inside.get("outputs") if isinstance(inside, Mapping) and "outputs" in inside else inside


def _retrieval(raw: RawSpan, given: str, made: str, documents: tuple[SpanDocument, ...] | None) -> Span:
    hidden = int(is_hidden(given)) + int(is_hidden(made))
    cut = int(documents is None and made[:1] in ("[", "{") and json_in(made) is None)
    hint = CUT_HINT if cut else CONTENT_HINT if not made else ""
    return Span(
        kind="retrieval",
        query=query_in(given) if given and not (given[:1] == "{" and json_in(given) is None) else None,
        documents=documents,
        hidden=hidden,
        cut=cut,
        dropped=raw.dropped,
        collection=collection_of(raw.attributes) or collection_in(made),
        hint=hint,
        **base_of(raw),
    )
