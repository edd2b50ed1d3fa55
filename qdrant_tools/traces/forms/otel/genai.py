"""The conventions of OpenTelemetry for generative AI -> spans, and their evaluations -> annotations.

A retrieval has `gen_ai.operation.name` = `retrieval`; its query and its documents, a list of `{"id", "score"}`, are
written only where the application asks for it. What an evaluation says is an event of a span, or a record of a log.

Guarantees: a list whose documents have no id is given as such, with the reason. Does not know: texts of documents,
which this convention does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.otel.common import base_of, collection_of, sources_in
from qdrant_tools.traces.forms.raw import RawEvent, RawSpan, number_of, whole
from qdrant_tools.traces.forms.values import answer_in, is_hidden, json_in, query_in, text_of
from qdrant_tools.traces.records import Annotation, Span, SpanKind, TraceSettings

CAPTURE_HINT = (
    "GenAI spans have no query and no documents by default: set "
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY and "
    "OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental in the application"
)
NO_IDS_HINT = (
    "the GenAI instrumentation of LangChain writes no ids for documents of Qdrant, and no texts: instrument with "
    "openinference-instrumentation-langchain"
)
EVALUATION = "gen_ai.evaluation.result"
_KINDS: Mapping[str, SpanKind] = {
    "retrieval": "retrieval", "retrieve": "retrieval", "rerank": "rerank", "embeddings": "embedding",
    "chat": "llm", "text_completion": "llm", "generate_content": "llm",
    "invoke_agent": "chain", "create_agent": "chain", "invoke_workflow": "chain", "execute_tool": "chain",
}  # fmt: skip
_INPUTS = ("gen_ai.input.messages", "gen_ai.prompt", "gen_ai.tool.call.arguments")
_OUTPUTS = ("gen_ai.output.messages", "gen_ai.completion", "gen_ai.tool.call.result")


@dataclass(frozen=True)
class GenAI:
    """The dialect: `speaks` tells it by the attributes, `span` reads them."""

    name: str = "otel-genai"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span names its operation in this convention."""
        return "gen_ai.operation.name" in attributes or "gen_ai.retrieval.documents" in attributes

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The span that the attributes tell of."""
        kind = _KINDS.get(str(raw.attributes.get("gen_ai.operation.name", "retrieval")), "other")
        if kind == "retrieval":
            return _retrieval(raw, settings)
        given, made = (_first(raw.attributes, names) for names in (_INPUTS, _OUTPUTS))
        return Span(
            kind=kind,
            query=query_in(given) if given and kind != "llm" else None,
            answer=answer_in(made),
            context=sources_in(raw.attributes) if kind == "llm" else None,
            is_tool=raw.attributes.get("gen_ai.operation.name") == "execute_tool",
            **base_of(raw),
        )


def _first(attributes: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((value for name in names if (value := whole(attributes, name))), None)


def _retrieval(raw: RawSpan, settings: TraceSettings) -> Span:
    query, listed = (whole(raw.attributes, f"gen_ai.retrieval.{name}") for name in ("query.text", "documents"))
    # a list of nothing is written as one of JSON, or not at all
    documents = documents_in(listed, settings) if json_in(listed) is not None else None
    hint = ""
    if documents is None and json_in(listed):
        hint = NO_IDS_HINT
    elif documents is None or text_of(query) is None:
        hint = CAPTURE_HINT
    return Span(
        kind="retrieval",
        query=text_of(query),
        documents=documents,
        hidden=int(is_hidden(query)) + int(is_hidden(listed)),
        cut=int(isinstance(listed, str) and listed.startswith("[") and json_in(listed) is None),
        dropped=raw.dropped,
        collection=collection_of(raw.attributes),
        hint=hint,
        **base_of(raw),
    )


def evaluations_of(raw: RawSpan | RawEvent) -> Iterator[Annotation]:
    """What the events of a span, or a record of a log, say of a span."""
    if isinstance(raw, RawSpan):
        events = [RawEvent(raw.trace, raw.id, name, raw.until or raw.at, said) for name, said in raw.events]
    else:
        events = [raw]
    for event in events:
        name = text_of(event.attributes.get("gen_ai.evaluation.name"))
        if event.name == EVALUATION and name is not None:
            yield Annotation(
                name=name,
                trace=event.trace,
                span=event.span,
                label=text_of(event.attributes.get("gen_ai.evaluation.score.label")),
                value=number_of(event.attributes.get("gen_ai.evaluation.score.value")),
                comment=text_of(event.attributes.get("gen_ai.evaluation.explanation")) or "",
                by="judge",
                at=event.at,
                id=f"{event.trace}/{event.span or ''}/{name}",
            )
