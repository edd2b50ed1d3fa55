"""What every convention says in nearly the same words: whose a span is, where it lies, what its prompt cites.

Guarantees: what is hidden is not there. Does not know: which convention a span speaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from qdrant_tools.traces.forms.raw import RawSpan, texts_of
from qdrant_tools.traces.forms.values import json_in, text_of
from qdrant_tools.traces.records import SpanDocument

_ASSOCIATED = "traceloop.association.properties."
_SESSIONS = (
    "session.id", "gen_ai.conversation.id", "langfuse.session.id",
    *(_ASSOCIATED + name for name in ("session_id", "thread_id", "conversation_id", "chat_id")),
)  # fmt: skip
_USERS = ("user.id", "enduser.id", "langfuse.user.id", _ASSOCIATED + "user_id")
_IN_METADATA = {"session": ("session_id", "thread_id", "conversation_id"), "user": ("user_id",)}
_PROJECTS = ("openinference.project.name", "service.name")
_ENVIRONMENTS = ("deployment.environment.name", "deployment.environment")
_COLLECTIONS = ("qdrant.search.collection_name", "db.collection.name", "gen_ai.data_source.id")
_PROMPTS = ("llm.prompts", "llm.input_messages", "gen_ai.prompt", "gen_ai.input.messages", "input.value")


def base_of(raw: RawSpan) -> dict[str, Any]:
    """The fields of a span that need no convention: its place, its times, session, user, service and tags."""
    services = [name for key in _PROJECTS if (name := text_of(raw.resource.get(key)))]
    others = [text_of(raw.resource.get(key)) for key in _ENVIRONMENTS]
    tags = [*texts_of(raw.attributes.get("tag.tags")), *services[1:], *filter(None, others)]
    return {
        "trace": raw.trace,
        "id": raw.id,
        "parent": raw.parent,
        "name": raw.name,
        "at": raw.at,
        "until": raw.until,
        "failed": raw.failed,
        "session": first_text(raw.attributes, _SESSIONS) or in_metadata(raw.attributes, "session"),
        "user": first_text(raw.attributes, _USERS) or in_metadata(raw.attributes, "user"),
        "service": services[0] if services else "",
        "tags": tuple(tag for tag in dict.fromkeys(tags) if tag not in services[:1]),
    }


def in_metadata(attributes: Mapping[str, Any], what: Literal["session", "user"]) -> str:
    """The session or user in what the application has put beside a step, as LangChain's `config` has it."""
    metadata = attributes.get("metadata")
    if isinstance(metadata, str):
        metadata = json_in(metadata) if any(name in metadata for name in _IN_METADATA[what]) else None
    if isinstance(metadata, Mapping):
        return first_text(metadata, _IN_METADATA[what])
    return first_text(attributes, [f"metadata.{name}" for name in _IN_METADATA[what]])


_LANGCHAIN = "ls_retriever_name"


def is_langchains(attributes: Mapping[str, Any]) -> bool:
    """Whether a retriever is one of LangChain's, which are asked a text and nothing else, also where it is JSON."""
    metadata = attributes.get("metadata")
    inside = metadata if isinstance(metadata, (str, Mapping)) else ()
    return _LANGCHAIN in inside or any(name.endswith(f"metadata.{_LANGCHAIN}") for name in attributes)


def first_text(attributes: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these attributes that says something, as text; numbers are ids too."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if (text := text_of(value)) is not None:
            return text
    return ""


_SOURCE = re.compile(r"^Source (\d{1,4}):[ \t]*\n", re.MULTILINE)
_RULE = re.compile(r"\n\s*[-=]{3,}\s*(?:\n|$)")


def sources_in(attributes: Mapping[str, Any]) -> tuple[SpanDocument, ...] | None:
    """The numbered sources of a prompt, as LlamaIndex's citation engine writes them: `Source 1:` and its text.

    They are what the language model saw; None if no prompt numbers any.
    """
    prompts = [value for name, value in attributes.items() if name.startswith(_PROMPTS)]
    for prompt in _texts([prompt for prompt in prompts if not isinstance(prompt, str) or "Source 1:" in prompt]):
        found = list(_SOURCE.finditer(prompt))
        # the template begins with examples; the last run from 1 on is the one that was asked about
        starts = [place for place, match in enumerate(found) if match[1] == "1"]
        run = found[starts[-1] :] if starts else []
        if run and [match[1] for match in run] == [str(place + 1) for place in range(len(run))]:
            ends = [match.start() for match in run[1:]] + [len(prompt)]
            texts = [_RULE.split(prompt[match.end() : end])[0].strip() for match, end in zip(run, ends, strict=True)]
            return tuple(SpanDocument(place, None, None, text) for place, text in enumerate(texts))
    return None


def _texts(values: list[Any]) -> Iterator[str]:
    """The texts in these values, in JSON and in lists too."""
    todo = values[::-1]
    while todo:
        value = todo.pop()
        inside = json_in(value)
        if isinstance(inside, Mapping):
            todo.extend(inside.values())
        elif inside is not None:
            todo.extend(inside)
        elif isinstance(value, str):
            yield value


def collection_of(attributes: Mapping[str, Any]) -> str:
    """The name of the collection: langchain-qdrant writes it beside the id of every point, clients on their spans."""
    if found := first_text(attributes, _COLLECTIONS):
        return found
    for name, value in attributes.items():
        if name.endswith("metadata._collection_name"):
            return text_of(value) or ""
        if name.endswith("metadata") and isinstance(value, str) and "_collection_name" in value:
            metadata = json_in(value)
            return text_of(metadata.get("_collection_name")) or "" if isinstance(metadata, Mapping) else ""
    return ""
