"""Open WebUI's exports of chats and of feedback -> spans and annotations.

A chat holds its messages by id; a message of a model has the `sources` that were put before it, each with the texts of
its passages, and the `annotation` that a person gave it. An export of feedback has a rating and, in `snapshot`, the
chat.

Guarantees: what was asked is the person's message above the model's; its search queries, which a language model writes,
are not in the file. Passages have texts and no ids of points: match them by text, or name a field of their metadata.
Does not know: what `distances` are, which differs between versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.fields import first_of, list_in, mapping_in, name_of
from qdrant_tools.traces.forms.raw import moment, number_of
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import Annotation, Span, TraceSettings


@dataclass(frozen=True)
class OpenWebui:
    """A chat a row, or a feedback a row."""

    name: str = "openwebui"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is one of the two."""
        return bool(_messages(row)) or _is_feedback(row)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """The searches of a chat, and what was said of its answers. Raises `InputError` for an odd time."""
        if _is_feedback(row):
            data, meta = mapping_in(row["data"]), mapping_in(row["meta"])
            yield from _chat(mapping_in(mapping_in(row.get("snapshot")).get("chat")), settings)
            said = _said(data, name_of(meta.get("message_id")), settings)
            at = moment("updated_at", first_of(row, "updated_at", "created_at"), settings.zone or UTC)
            who = name_of(row.get("user_id")) or ""
            yield from (replace(each, at=at, who=who, id=name_of(row.get("id")) or each.id) for each in said)
        else:
            yield from _chat(row, settings)


def _is_feedback(row: Mapping[str, Any]) -> bool:
    meta = mapping_in(row.get("meta"))
    return "rating" in mapping_in(row.get("data")) and "message_id" in meta


def _messages(row: Mapping[str, Any]) -> Mapping[str, Any]:
    history = mapping_in(mapping_in(row.get("chat")).get("history"))
    return mapping_in(history.get("messages"))


def _chat(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
    messages = {name: message for name, message in _messages(row).items() if isinstance(message, Mapping)}
    session, user = name_of(row.get("id")) or "", name_of(row.get("user_id")) or ""
    for name, message in messages.items():
        if message.get("role") != "assistant":
            continue
        passages = [passage for source in list_in(message.get("sources")) for passage in _passages(source)]
        documents = documents_in(passages, settings) if passages else None
        above = messages.get(name_of(message.get("parentId")) or "", {})
        root = Span(
            trace=name,
            id=name,
            parent=None,
            kind="chain",
            at=moment("timestamp", message.get("timestamp"), settings.zone or UTC),
            query=text_of(above.get("content")),
            answer=text_of(message.get("content")),
            session=session,
            user=user,
            tags=tuple(tag for tag in list_in(mapping_in(row.get("meta")).get("tags")) if isinstance(tag, str)),
        )
        yield root
        if documents:
            yield replace(root, id=f"{name}/retrieval", parent=name, kind="retrieval", answer=None, documents=documents)
        yield from _said(mapping_in(message.get("annotation")), name, settings)


def _passages(source: Any) -> Iterator[Mapping[str, Any]]:
    """The passages of one source: texts, and beside each its metadata."""
    source = mapping_in(source)
    about = list_in(source.get("metadata"))
    for place, text in enumerate(list_in(source.get("document"))):
        yield {"text": text, "metadata": mapping_in(about[place]) if place < len(about) else {}}


def _said(data: Mapping[str, Any], message: str | None, settings: TraceSettings) -> Iterator[Annotation]:
    """A thumb: 1 is up, -1 is down."""
    value = number_of(data.get("rating"))
    if value is None or message is None:
        return
    yield Annotation(
        name=settings.thumb or "user_feedback",
        trace=message,
        span=message,
        label="up" if value > 0 else "down" if value < 0 else None,
        value=value,
        comment=text_of(first_of(data, "comment", "reason")) or "",
        id=f"{message}/rating",
    )
