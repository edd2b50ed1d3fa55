"""Spans that this project's own applications write: which search of their log a span is.

Such a span has the id of the search, and its whole list in the convention of GenAI, however many of its documents fit
among the attributes of OpenInference, which have the texts.

Guarantees: an id that could be none of a log is none. Does not know: the log.
"""

from __future__ import annotations

from dataclasses import replace

from qdrant_tools.log.values import LONGEST_NAME
from qdrant_tools.traces.forms.documents import documents_in
from qdrant_tools.traces.forms.raw import RawSpan
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import Span, TraceSettings

SEARCH_ID = "embed_plus.search_id"
"""The attribute that names the search in the log of the application."""


def as_recorded(span: Span, raw: RawSpan, settings: TraceSettings) -> Span:
    """A span, with the search that it is and its whole list, where an application of ours has written them."""
    search = text_of(raw.attributes.get(SEARCH_ID))
    if search is None or len(search) > LONGEST_NAME:
        return span
    whole = documents_in(raw.attributes.get("gen_ai.retrieval.documents"), settings)
    if whole is None or (span.documents is not None and len(whole) <= len(span.documents)):
        return replace(span, search=search)
    texts = {document.position: document.text for document in span.documents or ()}
    documents = tuple(replace(document, text=texts.get(document.position)) for document in whole)
    return replace(span, search=search, documents=documents, dropped=0)
