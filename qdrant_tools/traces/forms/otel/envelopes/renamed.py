"""The name of an attribute as a store writes it -> the name that the application gave it.

Some stores have no dots in names: Elastic APM and X-Ray write underscores, OpenSearch `@`. Which underscore was a dot
cannot be told in general, so only names of the known conventions are put back.

Guarantees: a name that is of no known convention stays as it is. Does not know: values.
"""

from __future__ import annotations

import re

_KNOWN = (
    "openinference.span.kind", "input.value", "input.mime_type", "output.value", "output.mime_type", "session.id",
    "user.id", "reranker.query", "tag.tags", "retrieval.documents",
    "gen_ai.operation.name", "gen_ai.retrieval.query.text", "gen_ai.retrieval.documents", "gen_ai.data_source.id",
    "gen_ai.conversation.id", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt", "gen_ai.completion",
    "gen_ai.task.input", "gen_ai.task.output", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result",
    "traceloop.span.kind", "traceloop.entity.name", "traceloop.entity.input", "traceloop.entity.output",
    "traceloop.workflow.name", "traceloop.association.properties.session_id",
    "traceloop.association.properties.user_id", "traceloop.association.properties.thread_id",
    "langfuse.observation.type", "langfuse.observation.input", "langfuse.observation.output", "langfuse.session.id",
    "langfuse.user.id", "langsmith.span.kind", "mlflow.spanType", "mlflow.spanInputs", "mlflow.spanOutputs",
    "db.system", "db.collection.name", "embed_plus.search_id",
)  # fmt: skip
_DOTTED = {name.replace(".", "_"): name for name in _KNOWN}
_OF_LISTS = (
    (re.compile(r"(retrieval|reranker)_((?:input_|output_)?documents)_(\d+)_document_(\w+)"), r"\1.\2.\3.document.\4"),
    (re.compile(r"llm_(input|output)_messages_(\d+)_message_(\w+)"), r"llm.\1_messages.\2.message.\3"),
)


def underscores_as_dots(name: str) -> str:
    """`retrieval.documents.0.document.id` out of `retrieval_documents_0_document_id`."""
    if name in _DOTTED:
        return _DOTTED[name]
    for written, meant in _OF_LISTS:
        if written.fullmatch(name):
            return written.sub(meant, name)
    return name


def at_signs_as_dots(name: str) -> str:
    """`input.value` out of `input@value`."""
    return name.replace("@", ".")


def plain_name(name: str) -> str:
    """The name as it is."""
    return name
