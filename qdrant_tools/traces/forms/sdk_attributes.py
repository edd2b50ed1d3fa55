"""What Langfuse, LangSmith, MLflow, Haystack and TruLens write into the spans that they send -> spans.

All store what a function was given and what it returned: Langfuse as text or JSON, MLflow always as JSON, so that a
text is quoted, Haystack what its components had.

Guarantees: as `steps.py`. Does not know: rows, and what these tools make of the spans later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qdrant_tools.traces.forms.fields import first_of, mapping_in, tags_in, unquoted
from qdrant_tools.traces.forms.otel.common import base_of, in_metadata, is_langchains
from qdrant_tools.traces.forms.raw import RawSpan, under
from qdrant_tools.traces.forms.steps import NO_LIST, Step, as_typed, span_of_step
from qdrant_tools.traces.forms.values import answer_in, text_of
from qdrant_tools.traces.records import Span, SpanKind, TraceSettings

LANGFUSE_KINDS: Mapping[str, SpanKind | None] = {
    "RETRIEVER": "retrieval", "GENERATION": "llm", "EMBEDDING": "embedding", "CHAIN": "chain", "AGENT": "chain",
    "SPAN": None, "TOOL": None, "EVENT": None, "EVALUATOR": "other", "GUARDRAIL": "other",
}  # fmt: skip
RUN_KINDS: Mapping[str, SpanKind | None] = {
    "retriever": "retrieval", "llm": "llm", "chat_model": "llm", "embedding": "embedding", "chain": "chain",
    "tool": None, "prompt": "other", "parser": "other",
}  # fmt: skip
MLFLOW_KINDS: Mapping[str, SpanKind | None] = {
    "RETRIEVER": "retrieval", "RERANKER": "rerank", "LLM": "llm", "CHAT_MODEL": "llm", "EMBEDDING": "embedding",
    "CHAIN": "chain", "AGENT": "chain", "WORKFLOW": "chain", "TASK": "chain", "TOOL": None, "UNKNOWN": None,
    "PARSER": "other", "MEMORY": "other", "GUARDRAIL": "other", "EVALUATOR": "other",
}  # fmt: skip


@dataclass(frozen=True)
class LangfuseAttributes:
    """The dialect of the spans that Langfuse's SDK sends."""

    name: str = "langfuse"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span has an observation's attributes."""
        return any(name.startswith(("langfuse.observation.", "langfuse.trace.")) for name in attributes)

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The observation that the attributes tell of."""
        said = raw.attributes
        step = Step(
            trace=raw.trace,
            id=raw.id,
            parent=raw.parent,
            name=raw.name,
            kind=LANGFUSE_KINDS.get(str(said.get("langfuse.observation.type", "span")).upper()),
            at=raw.at,
            until=raw.until,
            input=as_typed(
                first_of(said, "langfuse.observation.input", "langfuse.trace.input"), plain=is_langchains(said)
            ),
            output=first_of(said, "langfuse.observation.output", "langfuse.trace.output"),
            failed=raw.failed or str(said.get("langfuse.observation.level", "")).upper() == "ERROR",
            session=text_of(first_of(said, "session.id", "langfuse.session.id")) or "",
            user=text_of(first_of(said, "user.id", "langfuse.user.id")) or "",
            service=text_of(said.get("langfuse.environment")) or text_of(raw.resource.get("service.name")) or "",
            tags=tags_in(said.get("langfuse.trace.tags")),
            lacking=NO_LIST,
        )
        return replace(span_of_step(step, settings), dropped=raw.dropped)


_LANGSMITH = "langsmith."


@dataclass(frozen=True)
class LangSmithAttributes:
    """The dialect of the spans that LangSmith's SDK sends where it is told to speak OpenTelemetry."""

    name: str = "langsmith"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span has a run's attributes."""
        return f"{_LANGSMITH}span.kind" in attributes

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The run that the attributes tell of."""
        said, whose = raw.attributes, base_of(raw)
        about = under(said, f"{_LANGSMITH}metadata")
        names = ("session_id", "thread_id", "conversation_id")
        step = Step(
            **whose
            | {
                "session": whose["session"] or text_of(first_of(about, *names)) or "",
                "user": whose["user"] or text_of(about.get("user_id")) or "",
                "service": text_of(said.get(f"{_LANGSMITH}trace.session_name")) or whose["service"],
                "tags": (*whose["tags"], *tags_in(said.get(f"{_LANGSMITH}span.tags"))),
            },
            kind=RUN_KINDS.get(str(said.get(f"{_LANGSMITH}span.kind")).lower(), "other"),
            input=said.get("gen_ai.prompt"),
            output=said.get("gen_ai.completion"),
            lacking=NO_LIST,
        )
        return replace(span_of_step(step, settings), dropped=raw.dropped)


@dataclass(frozen=True)
class MlflowAttributes:
    """The dialect of the spans that MLflow's tracing makes, in its own traces and over OTLP."""

    name: str = "mlflow"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span has MLflow's attributes."""
        return (
            "mlflow.spanInputs" in attributes or "mlflow.spanOutputs" in attributes or "mlflow.spanType" in attributes
        )

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The span that the attributes tell of."""
        said = {
            name: unquoted(raw.attributes.get(f"mlflow.{name}")) for name in ("spanType", "spanInputs", "spanOutputs")
        }
        step = Step(
            trace=raw.trace,
            id=raw.id,
            parent=raw.parent,
            name=raw.name,
            kind=MLFLOW_KINDS.get(str(said["spanType"]).upper()),
            at=raw.at,
            until=raw.until,
            input=as_typed(said["spanInputs"], plain=True),  # a text in quotes is what somebody typed
            output=said["spanOutputs"],
            failed=raw.failed,
            session=_of_trace(raw, "mlflow.trace.session", "session.id") or in_metadata(raw.attributes, "session"),
            user=_of_trace(raw, "mlflow.trace.user", "user.id") or in_metadata(raw.attributes, "user"),
            service=text_of(raw.resource.get("service.name")) or "",
            lacking=NO_LIST,
        )
        return replace(span_of_step(step, settings), dropped=raw.dropped)


def _of_trace(raw: RawSpan, *names: str) -> str:
    return text_of(unquoted(first_of(raw.attributes, *names))) or ""


_ARGUMENTS = ("gen_ai.tool.call.arguments", "tool_arguments", "ai.toolCall.args")
_OPERATION = "ai.operationId"
_RESULTS = ("gen_ai.tool.call.result", "tool_response", "ai.toolCall.result")


@dataclass(frozen=True)
class ToolCalls:
    """The dialect of an agent's tools (GenAI, Pydantic AI, Vercel's AI SDK): one that returns documents has searched.

    In Vercel's SDK, the call of the model that holds the tools is what was asked and answered.
    """

    name: str = "tools"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span has what a tool returned."""
        return _OPERATION in attributes or any(name in attributes for name in _RESULTS)

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The call that the attributes tell of."""
        said = raw.attributes
        given, result = first_of(said, *_ARGUMENTS, "ai.prompt"), first_of(said, *_RESULTS, "ai.response.text")
        whose = base_of(raw)
        for name, key in (("session", "sessionId"), ("user", "userId")):
            whose[name] = whose[name] or text_of(said.get(f"ai.telemetry.metadata.{key}")) or ""
        kind: SpanKind | None = "llm" if ".do" in str(said.get(_OPERATION)) else None
        step = Step(**whose, kind=kind, input=given, output=result, lacking=NO_LIST)
        return replace(span_of_step(step, settings), dropped=raw.dropped)


_COMPONENT = "haystack.component."
_PIPELINE = "haystack.pipeline."
_HAYSTACK_KINDS: Mapping[str, SpanKind] = {
    "Retriever": "retrieval", "Ranker": "rerank", "Generator": "llm", "Embedder": "embedding",
}  # fmt: skip
HAYSTACK_HINT = "its content is not in the span: set HAYSTACK_CONTENT_TRACING_ENABLED=true in the application"


@dataclass(frozen=True)
class HaystackAttributes:
    """The dialect of Haystack's own tracing: a span for each component that ran, and one for the pipeline.

    Inputs and outputs are only there where content tracing is on. The input of a retriever by vectors has no text, so
    that its query is the pipeline's, if that was given one text alone.
    """

    name: str = "haystack"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span is a component's or a pipeline's."""
        return any(name.startswith((_COMPONENT, _PIPELINE)) for name in attributes)

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The step that the attributes tell of."""
        said, whose = raw.attributes, base_of(raw)
        type = str(said.get(f"{_COMPONENT}type", ""))
        given = said.get(f"{_COMPONENT}input", _texts_given(said.get(f"{_PIPELINE}input_data")))
        output = said.get(f"{_COMPONENT}output", _reply_in(said.get(f"{_PIPELINE}output_data")))
        step = Step(
            **{**whose, "name": text_of(said.get(f"{_COMPONENT}name")) or raw.name},
            kind=_haystack_kind(type),
            input=given,
            output=output,
            lacking=HAYSTACK_HINT if output is None else NO_LIST,
        )
        return replace(span_of_step(step, settings), dropped=raw.dropped)


def _haystack_kind(type: str) -> SpanKind:
    """By the name of a component's class, which says what it is."""
    for end, kind in _HAYSTACK_KINDS.items():
        if type.endswith(end):
            return kind
    return "other" if type else "chain"


def _texts_given(value: Any) -> str | None:
    """The one text that the components of a pipeline were given, however many were given it."""
    texts = {text for part in mapping_in(value).values() for text in _questions(part)}
    return texts.pop() if len(texts) == 1 else None


def _questions(given: Any) -> list[str]:
    named = mapping_in(given)
    found = [named.get(name) for name in ("query", "question", "text")]
    return [text for value in found if (text := text_of(value)) is not None]


def _reply_in(value: Any) -> str | None:
    """The one reply in the outputs of a pipeline's components."""
    outputs = [mapping_in(part) for part in mapping_in(value).values()]
    replies = {text for part in outputs for name in ("replies", "answers") if (text := answer_in(part.get(name)))}
    return replies.pop() if len(replies) == 1 else None


_TRULENS = "ai.observability."


@dataclass(frozen=True)
class TruLensAttributes:
    """The dialect of TruLens: contexts are texts without ids, found in the collection by `--match text`."""

    name: str = "trulens"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span has TruLens' attributes."""
        return f"{_TRULENS}span_type" in attributes or f"{_TRULENS}retrieval.retrieved_contexts" in attributes

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The step that the attributes tell of."""
        said = under(raw.attributes, _TRULENS.rstrip("."))
        type = str(said.get("span_type", "retrieval"))
        kind: SpanKind = "retrieval" if type == "retrieval" else "llm" if type == "generation" else "chain"
        step = Step(
            **base_of(raw),
            kind=kind,
            input=first_of(said, "retrieval.query_text", "record_root.input"),
            output=first_of(said, "retrieval.retrieved_contexts", "record_root.output"),
            lacking=NO_LIST,
        )
        return replace(span_of_step(step, settings), dropped=raw.dropped)
