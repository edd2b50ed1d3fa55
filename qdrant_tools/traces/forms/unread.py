"""What known tools write that has no searches in it -> why, and what to export instead.

Most log what was asked of a language model and what it said; which documents were retrieved for it, only its prompt
has, cut and without ids.

Guarantees: a row is told by fields that its tool alone writes together. Does not know: files; rows that are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_TRACE_IT = "trace the application itself, with OpenInference's instrumentation of its framework or with OpenLLMetry"


@dataclass(frozen=True)
class Unread:
    """What a tool writes: `signs` are fields of which a row has one whole set, `lacks` those that it must not have."""

    what: str
    signs: tuple[frozenset[str], ...]
    instead: str
    lacks: frozenset[str] = frozenset()

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of this kind."""
        return any(sign <= row.keys() for sign in self.signs) and self.lacks.isdisjoint(row)


def _fields(*names: str) -> frozenset[str]:
    return frozenset(names)


KNOWN = (
    Unread("Portkey's log of calls to language models", (_fields("ai_org", "ai_model", "request"),), _TRACE_IT),
    Unread(
        "Amazon Bedrock's log of model invocations",
        (_fields("schemaType", "modelId", "requestId"),),
        "for knowledge bases, log the trace of the agent (enableTrace), or write the query beside what Retrieve "
        f"answers; else {_TRACE_IT}",
    ),
    Unread(
        "answers of Amazon Bedrock without the question",
        (_fields("retrievalResults"), _fields("citations", "output")),
        'write the question beside each, as {"query": ..., "retrievalResults": [...]}',
        lacks=_fields("query", "retrievalQuery", "question", "input"),
    ),
    Unread(
        "a list of traces out of Tempo's search",
        (_fields("traceID", "rootTraceName"), _fields("traceID", "spanSets")),
        "fetch each trace by its id (/api/v2/traces/ID)",
    ),
    Unread(
        "a list of traces out of X-Ray",
        (_fields("TraceSummaries"), _fields("Id", "ResponseTime", "HasFault")),
        "fetch the traces by their ids (aws xray batch-get-traces)",
    ),
    Unread(
        "a list of traces out of Cloud Trace",
        (_fields("projectId", "traceId"),),
        "ask for the spans too (view=COMPLETE)",
        lacks=_fields("spans", "spanId", "type", "name", "input"),
    ),
    Unread("metrics of OpenTelemetry", (_fields("resourceMetrics"), _fields("resource_metrics")), "export the traces"),
    Unread("entries of Cloud Logging", (_fields("insertId", "logName"),), "export the spans of Cloud Trace"),
    Unread("Cloudflare's log of calls to language models", (_fields("tokens_in", "tokens_out", "cached"),), _TRACE_IT),
    Unread(
        "diagnostics of Azure",
        (_fields("resourceId", "operationName", "category"),),
        "export the tables of Application Insights (AppRequests, AppDependencies), or of the search service",
    ),
    Unread(
        "DSPy's history of calls to language models",
        (_fields("outputs", "kwargs", "messages", "uuid"),),
        "trace the program: mlflow.dspy.autolog(), or openinference-instrumentation-dspy",
    ),
    Unread(
        "TruLens' table of records",
        (_fields("record_id", "app_id", "record_json"), _fields("record_id", "app_name", "input", "output", "ts")),
        "export its events, which are spans (the table trulens_events), or the contexts with "
        "@instrument(span_type=RETRIEVAL)",
    ),
    Unread(
        "items of a data set of Langfuse",
        (_fields("datasetId", "expectedOutput"), _fields("dataset_id", "expected_output")),
        "export its observations",
    ),
    Unread(
        "what Ragas evaluated without contexts",
        (_fields("user_input", "response"),),
        "write retrieved_contexts, and retrieved_context_ids, for each row",
        lacks=_fields("retrieved_contexts", "trace_id", "span_id"),
    ),
    Unread(
        "what DeepEval evaluated without contexts",
        (_fields("input", "actual_output"), _fields("input", "actualOutput")),
        "write retrieval_context for each row",
        lacks=_fields("retrieval_context", "retrievalContext", "context", "trace_id", "span_id"),
    ),
    Unread(
        "chats without documents",
        (_fields("messages"),),
        _TRACE_IT,
        lacks=_fields("query", "id", "uuid", "trace_id", "chat", "input", "output", "documents"),
    ),
)

WITHOUT_RETRIEVAL: Mapping[str, str] = {
    "litellm": "LiteLLM logs a search where a request names vector stores (vector_store_ids); else " + _TRACE_IT,
    "helicone": "Helicone logs a search where the application tells its logger of one (_type vector_db); else "
    + _TRACE_IT,
    "lunary": "Lunary's screen exports the calls of models alone: take all runs from its API, those of type retriever "
    "too",
    "posthog": "events $ai_span have what a retriever found: export them too, with $ai_input_state and "
    "$ai_output_state",
    "newrelic": "spans of New Relic's own agent have no documents: export the events LlmVectorSearch and "
    "LlmVectorSearchResult",
    "newrelic-ai": "export the events LlmVectorSearch and LlmVectorSearchResult too",
    "bedrock-agents": "the agent has asked no knowledge base",
    "openllmetry": "instrument the framework too, not only the client of the vector store",
    "datadog": "instrument the retrieval (@retrieval) and annotate it with its documents",
}  # fmt: skip
"""For files that are read and have no retrieval, by the name of the form."""


def why_unread(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """What the first row of a known kind without searches is, and what to do; None if none is one."""
    found = next((kind for row in rows for kind in KNOWN if kind.recognises(row)), None)
    return None if found is None else f"it is {found.what}, and says of no search what was found: {found.instead}"


def without_retrieval(forms: Iterable[str]) -> str:
    """What to export, where files of these forms have no retrieval; the empty string if nothing is known."""
    names = [name for form in forms for name in form.split(", ")]
    return "; ".join(WITHOUT_RETRIEVAL[name] for name in dict.fromkeys(names) if name in WITHOUT_RETRIEVAL)
