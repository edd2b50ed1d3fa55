"""The attributes of OpenInference (Phoenix, Arize AX, and whoever sends to them) -> spans.

`openinference.span.kind` says what a span is; a RETRIEVER has `input.value` and `retrieval.documents.{i}.document.*`,
a RERANKER `reranker.*`. LlamaIndex's own postprocessors are CHAIN spans `<Class>._postprocess_nodes` with nothing but
reprs of what they returned.

Guarantees: the places of documents are those that were written, in the order of numbers; what is hidden or cut is
counted and never a text. Does not know: which span of a trace counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

from qdrant_tools.traces.forms.documents import documents_in, hidden_in
from qdrant_tools.traces.forms.otel.common import base_of, collection_of, is_langchains, sources_in
from qdrant_tools.traces.forms.raw import RawSpan, flat, numbered, score_of, under, whole
from qdrant_tools.traces.forms.values import (
    answer_in,
    id_of,
    is_cut_id,
    is_hidden,
    json_in,
    query_in,
    reprs_in,
    sources_of_answer,
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
_LIST = "retrieval.documents"
_OF_LIST = re.compile(r"retrieval\.documents\.(?:\d|ids$|contents$)")
_COLUMNS = ("ids", "scores", "contents", "metadatas")
_SHORTEST_CUT = 32
MOST_KEPT = 128
"""The SDK keeps that many attributes of a span and drops the oldest of more."""


@dataclass(frozen=True)
class OpenInference:
    """The dialect: `speaks` tells it by the attributes, `span` reads them."""

    name: str = "openinference"

    def speaks(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a span says its kind in this convention, or has its lists."""
        return _KIND in attributes or any(
            name == _LIST or name.startswith((f"{_LIST}.", "reranker.output_documents.")) for name in attributes
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
        return "retrieval" if _LIST in raw.attributes or numbered(raw.attributes, _LIST) else "rerank"
    kind = _KINDS.get(named, "other")
    is_listed = isinstance(raw.attributes.get(_LIST), str) or any(map(_OF_LIST.match, raw.attributes))
    if kind in ("chain", "other") and is_listed:
        return "retrieval"
    return kind


class _Reader:
    """The attributes of one span, with counts of what is hidden and cut in them."""

    def __init__(self, raw: RawSpan, settings: TraceSettings) -> None:
        self.raw, self.attributes, self.settings = raw, raw.attributes, settings
        self.hidden = self.cut = 0

    @cached_property
    def limit(self) -> int | None:
        """The length at which the SDK cut every value, if it did."""
        return _limit_of(self.attributes)

    @cached_property
    def output(self) -> Any:
        """What the span gave: an object or a list, where it is one."""
        made = self.shown("output.value")
        inside = json_in(made)
        return made if inside is None else inside

    def span(self, kind: SpanKind) -> Span:
        """The span, which is of this kind."""
        documents, context, answer, implied = None, None, None, False
        is_tool = str(self.attributes.get(_KIND)).upper() == "TOOL"
        # what can be read as JSON is called so, also where somebody typed it
        is_text = self.attributes.get("input.mime_type") != "application/json" or is_langchains(self.attributes)
        is_plain = kind == "retrieval" and is_text
        asked = self.shown("reranker.query") or self.shown("input.value")
        query = query_in(asked, plain=is_plain) if kind != "llm" else None
        if kind == "retrieval":
            documents = self.retrieved()
        elif kind == "rerank":
            documents, context = self.listed("reranker.input_documents"), self.returned()
        else:
            answer = answer_in(self.output) if not is_tool else None
        if kind == "chain":
            context = sources_of_answer(self.output)
            # a function that is traced without a kind of its own, and returns what it has found
            documents = documents_in(self.output, self.settings, certain=True)
            implied = documents is not None
            answer = None if implied and isinstance(self.output, (list, tuple)) else answer
            kind = "retrieval" if implied else "chain"
        headless = documents is not None and documents[:1] != () and documents[0].position > 0
        return Span(
            kind=kind,
            query=query,
            documents=documents,
            context=sources_in(self.attributes) if kind == "llm" else context,
            answer=answer,
            hidden=self.hidden,
            cut=self.cut,
            dropped=self.raw.dropped or int(headless),
            implied=implied,
            is_tool=is_tool,
            collection=collection_of(self.attributes) if documents else "",
            hint=self.hint(headless or self.raw.dropped > 0) if kind == "retrieval" else "",
            **base_of(self.raw),
        )

    def shown(self, name: str) -> Any:
        """A value that is neither hidden nor cut."""
        value = self.attributes.get(name)
        if is_hidden(value):
            self.hidden += 1
            return None
        if isinstance(value, str) and (self.is_cut(value) or _is_broken(name, value, self.attributes)):
            self.cut += 1
            return None
        return value

    def is_cut(self, value: Any) -> bool:
        """Whether a text is as long as the longest that was kept, and so probably not whole."""
        return isinstance(value, str) and self.limit is not None and len(value) >= self.limit

    def retrieved(self) -> tuple[SpanDocument, ...] | None:
        """The list of a retriever: of its attributes, else of its output, where that is more than reprs."""
        documents = self.listed(_LIST)
        if documents is not None:
            return self.with_ids(self.with_head(documents))
        named = reprs_in(self.output)
        # LlamaIndex's inner spans have reprs, and a span above them that has the list
        return (
            None
            if named or isinstance(self.output, str)
            else ()
            if named == ()
            else documents_in(self.output, self.settings)
        )

    def returned(self) -> tuple[SpanDocument, ...] | None:
        """The list that a reranker or postprocessor gave back."""
        documents = self.listed("reranker.output_documents")
        if documents is None:
            return reprs_in(self.output)
        return self.with_head(documents)

    def listed(self, prefix: str) -> tuple[SpanDocument, ...] | None:
        """The list under a prefix; None if there is none."""
        given, found = self.attributes.get(prefix), numbered(self.attributes, prefix)
        if not found and isinstance(given, str):
            return self.in_text(prefix)
        if not found:
            return () if isinstance(given, (list, tuple)) and not given else self.in_columns(prefix)
        documents = [self.document(place, values) for place, values in found.items()]
        # of the document in which the dropped attributes end, the rest is of no use
        if len(documents) > 1 and documents[0].id is None and documents[1].id is not None and self.is_headless:
            del documents[0]
        return tuple(documents)

    def in_text(self, prefix: str) -> tuple[SpanDocument, ...] | None:
        """A list that is written as one JSON text, as by an application that knows no nested attributes."""
        given = self.shown(prefix)
        inside = json_in(given)
        if inside is None:
            self.cut += isinstance(given, str) and given.lstrip()[:1] == "["
            return None
        found = numbered(flat({prefix: inside}), prefix)
        if found and all(any(name.startswith("document.") for name in values) for values in found.values()):
            return tuple(self.document(place, values) for place, values in found.items())
        self.hidden += hidden_in(inside)
        return documents_in(inside, self.settings)

    def in_columns(self, prefix: str) -> tuple[SpanDocument, ...] | None:
        """A list that is written as lists of ids, scores and contents, as by Arize AX; None if there is none."""
        ids, scores, texts, metadata = (self.column(f"{prefix}.{name}") for name in _COLUMNS)
        count = len(ids or texts or ())
        if not count or any(len(each) not in (0, count) for each in (ids, scores, texts, metadata)):
            return None
        rows = zip_longest(ids, scores, texts, metadata)
        return tuple(
            self.document(place, {"id": own, "score": score, "content": text, "metadata": about})
            for place, (own, score, text, about) in enumerate(rows)
        )

    def column(self, name: str) -> list[Any]:
        """The list under a name, which may be written as JSON; an empty one if there is none."""
        found = json_in(whole(self.attributes, name))
        return list(found) if isinstance(found, (list, tuple)) else []

    @property
    def is_headless(self) -> bool:
        return self.raw.dropped > 0 or len(self.attributes) >= MOST_KEPT or "input.value" not in self.attributes

    def document(self, place: int, values: Mapping[str, Any]) -> SpanDocument:
        """A document of the list."""
        own = {name.removeprefix("document."): value for name, value in values.items()}
        metadata = own.get("metadata", under(own, "metadata"))
        content, score = own.get("content"), score_of(own.get("score"))
        is_cut = self.is_cut(content)
        self.hidden += is_hidden(content)
        self.cut += is_cut + is_cut_id(own.get("id"))
        identity = id_of(own.get("id"), metadata, self.settings.id_field)
        return SpanDocument(place, identity, score, None if is_cut else text_of(content))

    def with_head(self, documents: tuple[SpanDocument, ...]) -> tuple[SpanDocument, ...]:
        """A headless list with its head, where LlamaIndex's output has the whole list as reprs.

        The output is written last, so it is there when the oldest attributes are gone.
        """
        if not documents or documents[0].position == 0 or self.settings.id_field is not None:
            return documents
        whole = reprs_in(self.output) or ()
        known = {document.position: document.id for document in documents}
        agree = all(document.id == known.get(document.position, document.id) for document in whole)
        if not agree or len(whole) <= documents[-1].position:
            return documents
        return whole[: documents[0].position] + documents

    def with_ids(self, documents: tuple[SpanDocument, ...]) -> tuple[SpanDocument, ...]:
        """The documents; where all lack an id, with those that the retriever's output has beside the same texts."""
        if any(document.id is not None for document in documents):
            return documents
        found = (documents_in(self.output, self.settings) if not isinstance(self.output, str) else None) or ()
        ids = {(other.position, other.text): other.id for other in found if other.text is not None}
        return tuple(replace(each, id=ids.get((each.position, each.text or ""))) for each in documents)

    def hint(self, is_dropped: bool) -> str:
        """What to set in the application so that this span says all."""
        return HIDDEN_HINT if self.hidden else CUT_HINT if self.cut else DROPPED_HINT if is_dropped else ""


def _limit_of(attributes: Mapping[str, Any]) -> int | None:
    """The length at which the SDK cut every value; None if it did not, as far as can be told.

    It is told by a value that is damaged there, or by a query that is just as long as the texts of two documents, and
    none is longer.
    """
    longest = max((len(value) for value in attributes.values() if isinstance(value, str)), default=0)
    asked = attributes.get("input.value")
    if isinstance(asked, str) and len(asked) == longest and len(asked) >= _SHORTEST_CUT:
        as_long = {value for value in attributes.values() if isinstance(value, str) and len(value) == longest}
        if len(as_long - {asked}) >= 2:
            return longest
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
    # the end of JSON is easily told: to read it takes long
    return of_json and value[:1] in ("{", "[") and value[-1] != {"{": "}", "[": "]"}[value[0]]
