"""The trace of an agent of Amazon Bedrock -> spans: a knowledge base that it asked, what came back, its last answer.

An event has one part of a step in `orchestrationTrace`: what the agent asked (`invocationInput`), or what it saw
(`observation`). Both name the step, whose number is the end of the id.

Guarantees: what an agent asks is a language model's query. Does not know: what the user asked, which no event has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.fields import first_of, mapping_in, name_of, needed
from qdrant_tools.traces.forms.raw import moment
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import Annotation, Span, TraceSettings

_ASKED, _FOUND = "knowledgeBaseLookupInput", "knowledgeBaseLookupOutput"


@dataclass(frozen=True)
class BedrockAgents:
    """An event a row."""

    name: str = "bedrock-agents"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is an event of a trace."""
        return bool(_step(row))

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span | Annotation]:
        """The part of a step that an event has. Raises `InputError` where its id or time is damaged."""
        step = _step(row)
        asked, seen = mapping_in(step.get("invocationInput")), mapping_in(step.get("observation"))
        about = next((part for part in (asked, seen, mapping_in(step.get("modelInvocationInput"))) if part), {})
        if "traceId" not in about:
            return
        id = needed(about, "the id of a step", "traceId")
        trace, _, number = id.rpartition("-") if id.rpartition("-")[2].isdigit() else (id, "", "")
        session = name_of(row.get("sessionId")) or ""
        at = moment("eventTime", row.get("eventTime"), settings.zone or UTC)
        final = text_of(mapping_in(seen.get("finalResponse")).get("text"))
        yield Span(trace, trace, None, "chain", at=at, answer=final, session=session)
        if not {_ASKED, _FOUND} & {*asked, *seen}:
            return
        tool = f"{trace}/step/{number}"
        yield Span(trace, tool, trace, "chain", at=at, is_tool=True)
        given, made = mapping_in(asked.get(_ASKED)), mapping_in(seen.get(_FOUND))
        yield Span(
            trace,
            f"{tool}/search",
            tool,
            "retrieval",
            at=at,
            query=text_of(given.get("text")),
            documents=documents_in(made.get("retrievedReferences"), settings) if made else None,
            session=session,
            collection=text_of(first_of(given, "knowledgeBaseId")) or "",
        )


def _step(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The step that an event tells of; the SDK gives the event in `trace`, and its own trace in that."""
    inner = mapping_in(row.get("trace"))
    inner = mapping_in(inner.get("trace")) or inner
    return mapping_in(inner.get("orchestrationTrace"))
