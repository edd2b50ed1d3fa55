"""What Phoenix and Arize AX give out of their spans -> raw spans, or the documents of a span one by one.

Spans of the REST API have flat attributes, the metadata of documents too. A dataframe has a column for each attribute,
`attributes.retrieval.documents` being a list of objects; out of CSV that is Python's repr of one. An exploded query has
a row for each document, with its `document_position` from 0: each row is a piece of its span.

Guarantees: the three give the same spans; a document of an exploded query has the place that its row names. Does not
know: annotations, what an attribute means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import as_rank, is_absent, is_missing
from qdrant_tools.traces.forms.raw import SPAN_DIGITS, TRACE_DIGITS, RawSpan, flat, hex_id, moment, parent_id, score_of
from qdrant_tools.traces.forms.values import id_of, json_in, python_in, query_in, text_of
from qdrant_tools.traces.records import Span, SpanDocument, TraceSettings

_SPAN, _TRACE, _PREFIX = "context.span_id", "context.trace_id", "attributes."
TIME_HINT = 'an exploded query has no times unless "start_time" is among what it selects'
PARENT_NOTE = (
    'no row has the field "parent_id": a retrieval inside of another one, as a fusion makes them, cannot be told from '
    "what a user asked, and counts as a search; export that field too"
)
_POSITION = "document_position"
_ASKED = ("input.value", "attributes.input.value", "input", "query", "question")
_SELECTED = frozenset({"input.value", "output.value", "retrieval.documents", "retrieval", "reranker.output_documents"})


def is_phoenix_span(row: Mapping[str, Any]) -> bool:
    """Whether a row is a span of the REST API."""
    return isinstance(row.get("context"), Mapping) and isinstance(row.get("attributes"), Mapping) and "span_kind" in row


def read_phoenix_span(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span that a row is. Raises `InputError`."""
    context = row["context"]
    yield _raw(row, context.get("trace_id"), context.get("span_id"), flat(row["attributes"]), settings)


def is_phoenix_frame(row: Mapping[str, Any]) -> bool:
    """Whether a row is of a dataframe of spans, or of a query that selects attributes and leaves the lists whole."""
    if _SPAN not in row or _POSITION in row:
        return False
    return any(name.startswith(_PREFIX) for name in row) or not _SELECTED.isdisjoint(row)


def read_phoenix_frame(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span that a row is. Raises `InputError`."""
    # of a query, the columns are attributes without their prefix
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in row) else ""
    cells = {name[len(prefix) :]: value for name, value in row.items() if name.startswith(prefix)}
    attributes = {name: _cell(name, value) for name, value in cells.items() if not is_absent(value)}
    yield _raw(row, row.get(_TRACE), row[_SPAN], flat(attributes), settings)


_TEXTS = ("input.value", "output.value", "reranker.query", "llm.prompt_template.template")


def _cell(name: str, value: Any) -> Any:
    """A value of a table: lists and objects out of CSV are texts. What a person or a model wrote stays one."""
    if name in _TEXTS or not isinstance(value, str):
        return value
    found = python_in(value)
    if found is None and name.endswith("documents"):
        raise InputError(f"{name} is {brief(value)}, expected a list of documents as JSON or as Python writes it")
    return value if found is None else found


def _raw(row: Mapping[str, Any], trace: Any, span: Any, attributes: dict[str, Any], settings: TraceSettings) -> RawSpan:
    identity, kind = hex_id(_SPAN, span, SPAN_DIGITS), row.get("span_kind")
    if text_of(kind) is not None:
        attributes.setdefault("openinference.span.kind", kind)
    return RawSpan(
        # a query need not select the trace: such a span is known by its own id alone
        trace=identity if is_missing(trace) else hex_id(_TRACE, trace, TRACE_DIGITS),
        id=identity,
        parent=parent_id("parent_id", row.get("parent_id")),
        name=str(row.get("name") or ""),
        at=moment("start_time", row.get("start_time"), settings.zone),
        until=moment("end_time", row.get("end_time"), settings.zone),
        failed=str(row.get("status_code", "")).upper().endswith("ERROR"),
        attributes=attributes,
        resource={"openinference.project.name": row.get("project_name") or row.get("project")},
    )


def is_exploded(row: Mapping[str, Any]) -> bool:
    """Whether a row is a document of a span, out of a query that was exploded by documents."""
    return _SPAN in row and _POSITION in row and any(name in row for name in (*_ASKED, *_CONTENTS, *_IDS))


def is_without_parents(files: Iterable[Iterable[str]]) -> bool:
    """Whether the spans of a file never say their parent; of each kind of row there are the names of its fields."""
    rows = [dict.fromkeys(fields) for fields in files]
    return any(is_phoenix_frame(row) or is_exploded(row) for row in rows) and not any(
        "parent_id" in row for row in rows
    )


_CONTENTS = ("reference", "document", "document_content", "document.content", "context", "content")
_IDS = ("document_id", "document.id", "node_id")
_SCORES = ("document_score", "document.score")
_METADATA = ("document_metadata", "document.metadata")


def read_exploded(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[Span]:
    """The piece of a span that a row is. Raises `InputError`."""
    span, trace = hex_id(_SPAN, row[_SPAN], SPAN_DIGITS), next((row[n] for n in (_TRACE, "trace_id") if n in row), None)
    field = settings.id_field
    # the application may have selected its own field under its own name
    own = row.get(field) if field is not None and field in row else _first(row, _IDS)
    metadata = python_in(_first(row, _METADATA))
    identity = id_of(own, None, None) if field is None or field in row else None
    document = SpanDocument(
        position=as_rank(_POSITION, row[_POSITION], first=0) - 1,
        id=id_of(own, metadata, field) if identity is None else identity,
        score=score_of(_first(row, _SCORES)),
        text=text_of(_first(row, _CONTENTS)),
    )
    asked = _first(row, _ASKED)
    yield Span(
        trace=span if is_missing(trace) else hex_id(_TRACE, trace, TRACE_DIGITS),
        id=span,
        parent=parent_id("parent_id", row.get("parent_id")),
        kind="retrieval",
        name=str(row.get("name") or ""),
        at=moment("start_time", row.get("start_time"), settings.zone),
        query=query_in(asked) if json_in(asked) is not None else text_of(asked),
        documents=(document,),
        session=text_of(_first(row, ("session.id", "attributes.session.id"))) or "",
        user=text_of(_first(row, ("user.id", "attributes.user.id"))) or "",
        hint=TIME_HINT,
    )


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if name in row and not is_absent(row[name])), None)
