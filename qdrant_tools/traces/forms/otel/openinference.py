"""The attributes of OpenInference (Phoenix, Arize AX, and whoever sends to them) -> spans.

`openinference.span.kind` says what a span is; a RETRIEVER has `input.value` and `retrieval.documents.{i}.document.*`,
a RERANKER `reranker.*`. LlamaIndex's own postprocessors are CHAIN spans `<Class>._postprocess_nodes` with nothing but
reprs of what they returned.

Guarantees: the places of documents are those that were written, in the order of numbers; what is hidden or cut is
counted and never a text. Does not know: which span of a trace counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_tools.traces.forms.otel.common import base_of, collection_of, sources_in
from qdrant_tools.traces.forms.raw import RawSpan, number_of, numbered, under
from qdrant_tools.traces.forms.values import (
    answer_in,
    documents_in,
    id_of,
    is_cut_id,
    is_hidden,
    json_in,
    query_in,
    reprs_in,
    text_of,
)
from qdrant_tools.traces.records import Span, SpanDocument, SpanKind, TraceSettings

_KIND = "openinference.span.kind"
_KINDS: Mapping[str, SpanKind] = {
    "RETRIEVER": "retrieval", "RERANKER": "rerank", "CHAIN": "chain", "AGENT": "chain", "TOOL": "chain",
    "LLM": "llm", "EMBEDDING": "embedding",
}  # fmt: skip
HIDDEN_HINT = "its texts are hidden: unset OPENINFERENCE_HIDE_INPUTS and OPENINFERENCE_HIDE_OUTPUTS in the application"
CUT_HINT = "its values are cut: raise OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT in the application"
DROPPED_HINT = (
    "its first attributes are dropped: set OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=10000 in the application, or take the "
    "TracerProvider of openinference.instrumentation"
)
FEWEST_DROPPED = 128
"""The SDK keeps that many attributes of a span and drops the oldest of more."""


@dataclass(frozen=True)
class OpenInference:
    """The dialect: `speaks` tells it by the attributes, `span` reads them."""

    name: str = "openinference"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span says its kind in this convention, or has its lists."""
        return _KIND in attributes or any(
            name.startswith(("retrieval.documents.", "reranker.output_documents.")) for name in attributes
        )

    def span(self, raw: RawSpan, settings: TraceSettings) -> Span:
        """The span that the attributes tell of."""
        reader = _Reader(raw, settings)
        return reader.span(_kind_of(raw))


def _kind_of(raw: RawSpan) -> SpanKind:
    if raw.name.endswith("postprocess_nodes"):
        return "rerank"
    named = str(raw.attributes.get(_KIND, "")).upper()
    if not named:
        return "retrieval" if numbered(raw.attributes, "retrieval.documents") else "rerank"
    return _KINDS.get(named, "other")


class _Reader:
    """The attributes of one span, with counts of what is hidden and cut in them."""

    def __init__(self, raw: RawSpan, settings: TraceSettings) -> None:
        self.raw, self.attributes, self.field = raw, raw.attributes, settings.id_field
        self.limit = _limit_of(raw.attributes)
        self.hidden = self.cut = 0

    def span(self, kind: SpanKind) -> Span:
        """Of one kind."""
        query, answer, documents, context = None, None, None, None
        sources: tuple[str, ...] = ()
        if kind == "retrieval":
            query, documents = query_in(self.shown("input.value")), self.documents("retrieval.documents")
            documents = self.of_output() if documents is None else self.with_ids(documents)
        elif kind == "rerank":
            query = query_in(self.shown("reranker.query") or self.shown("input.value"))
            documents, context = self.documents("reranker.input_documents"), self.documents("reranker.output_documents")
            context = context or reprs_in(self.attributes.get("output.value"))
        elif kind == "chain":
            query, answer = query_in(self.shown("input.value")), answer_in(self.shown("output.value"))
        elif kind == "llm":
            answer, sources = answer_in(self.shown("output.value")), sources_in(self.attributes)
        dropped = self.raw.dropped or int(documents is not None and documents[:1] != () and documents[0].position > 0)
        return Span(
            kind=kind,
            query=query,
            documents=documents,
            context=context,
            answer=answer,
            sources=sources,
            hidden=self.hidden,
            cut=self.cut,
            dropped=dropped,
            collection=collection_of(self.attributes) if documents else "",
            hint=self.hint(dropped) if kind == "retrieval" else "",
            **base_of(self.raw),
        )

    def shown(self, name: str) -> Any:
        """A value that is neither hidden nor cut."""
        value = self.attributes.get(name)
        if is_hidden(value):
            self.hidden += 1
            return None
        if isinstance(value, str) and self.limit is not None and len(value) >= self.limit:
            self.cut += 1
            return None
        return value

    def documents(self, prefix: str) -> tuple[SpanDocument, ...] | None:
        """The list under a prefix; None if there is none."""
        given = self.attributes.get(prefix)
        found = numbered(self.attributes, prefix)
        if not found:
            return () if isinstance(given, (list, tuple)) and not given else documents_in(given, self.field)
        documents = [self.document(place, values) for place, values in found.items()]
        # of the document in which the dropped attributes end, the rest is of no use
        if len(documents) > 1 and documents[0].id is None and documents[1].id is not None and self.is_headless:
            del documents[0]
        return tuple(documents)

    @property
    def is_headless(self) -> bool:
        return self.raw.dropped > 0 or len(self.attributes) >= FEWEST_DROPPED or "input.value" not in self.attributes

    def document(self, place: int, values: Mapping[str, Any]) -> SpanDocument:
        own = {name.removeprefix("document."): value for name, value in values.items()}
        metadata = own.get("metadata")
        metadata = {**under(own, "metadata")} if metadata is None else metadata
        content = own.get("content")
        self.hidden += is_hidden(content)
        is_cut = isinstance(content, str) and self.limit is not None and len(content) >= self.limit
        self.cut += is_cut + is_cut_id(own.get("id"))
        return SpanDocument(
            place,
            id_of(own.get("id"), metadata, self.field),
            number_of(own.get("score")),
            None if is_cut else text_of(content),
        )

    def with_ids(self, documents: tuple[SpanDocument, ...]) -> tuple[SpanDocument, ...]:
        """The documents; where all lack an id, with those that the retriever's output has for the same texts."""
        if self.field is not None or any(document.id is not None for document in documents):
            return documents
        others = documents_in(self.attributes.get("output.value"), self.field) or ()
        ids = {document.position: (document.id, document.text) for document in others}
        return tuple(
            SpanDocument(document.position, ids[document.position][0], document.score, document.text)
            if ids.get(document.position, (None, None))[1] == document.text is not None
            else document
            for document in documents
        )

    def of_output(self) -> tuple[SpanDocument, ...] | None:
        """The list in the output where no attribute has it: of nothing, or of documents that LangChain dumped."""
        output = json_in(self.attributes.get("output.value"))
        if isinstance(output, (list, tuple)) and not output:
            return ()
        return documents_in(output, self.field)

    def hint(self, dropped: int) -> str:
        """What to set in the application so that this span says all."""
        return HIDDEN_HINT if self.hidden else CUT_HINT if self.cut else DROPPED_HINT if dropped else ""


def _limit_of(attributes: Mapping[str, Any]) -> int | None:
    """The length at which the SDK cut every value, told by a value that is damaged there; None if none is."""
    longest = max((len(value) for value in attributes.values() if isinstance(value, str)), default=0)
    for name, value in attributes.items():
        if (
            isinstance(value, str)
            and len(value) == longest
            and (is_cut_id(value) or _is_broken(name, value, attributes))
        ):
            return longest
    return None


def _is_broken(name: str, value: str, attributes: Mapping[str, Any]) -> bool:
    of_json = name.endswith(".metadata") or attributes.get(name.replace(".value", ".mime_type")) == "application/json"
    return of_json and value[:1] in ("{", "[") and json_in(value) is None
