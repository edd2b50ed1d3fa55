"""What every tracing tool says in its own words, in ours: spans with documents, and what somebody said of them.

A form (a module of `forms/`) turns each row of a file into these; `trees.py` makes searches of the spans of a trace.

Guarantees: frozen; a text that the tool has hidden, cut or replaced is None, never that replacement. Does not know:
files, tools, the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Literal, Protocol, runtime_checkable

SpanKind = Literal["retrieval", "rerank", "chain", "llm", "embedding", "other"]
"""`chain` is whatever has an input and an output of the application: a query engine, an agent, a workflow, a root."""

By = Literal["person", "judge", "code"]
"""Who said it: a person, a language model, a program."""


@dataclass(frozen=True, slots=True)
class SpanDocument:
    """A document in the list of a retriever or reranker.

    `position` counts from 0 and is absolute: a list whose first position is 3 has lost its head. `id` is what the tool
    or the field `TraceSettings.id_field` names, None if nothing does. `score` is NaN where the tool wrote no finite
    number for one. `text` is None if it is missing, hidden or cut.
    """

    position: int
    id: str | None
    score: float | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One step of an application. Ids are lower-case hex or the tool's own text, the same in all forms of one tool.

    `query` is what a retriever was asked, or the input of a chain. `documents` is None for a span without a list, and
    () for a list of nothing. `context` is the list that a reranker or postprocessor returned, which is what the
    language model saw; of a chain, the passages that its answer names as its sources; of a language model, the numbered
    texts of its prompt. `answer` is the output of a chain as text. `hidden` counts needed values that the tool replaced
    (`__REDACTED__`), `cut` those that it shortened, `dropped` attributes that the SDK gave up.
    """

    trace: str
    id: str
    parent: str | None
    kind: SpanKind
    name: str = ""
    at: datetime | None = None
    query: str | None = None
    documents: tuple[SpanDocument, ...] | None = None
    context: tuple[SpanDocument, ...] | None = None
    answer: str | None = None
    session: str = ""
    user: str = ""
    failed: bool = False
    hidden: int = 0
    cut: int = 0
    dropped: int = 0
    service: str = ""
    """The application, project or environment, as the tool calls it: evaluation runs are told by it."""
    tags: tuple[str, ...] = ()
    collection: str = ""
    until: datetime | None = None
    """When it ended: tells what lies in what where the spans between are not in the file."""
    is_tool: bool = False
    """A tool that a language model called: what is asked below it are the model's words."""
    implied: bool = False
    """Only its list says that it is a retrieval. A step that passes on what another has found looks the same, so it
    does not count where a span of the trace that is not implied, or an earlier one, has that list."""
    search: str = ""
    """The id under which the application itself has logged this search, where it says so: it is the same search."""
    hint: str = ""
    """Why a span of a retrieval has no list or no query, and which setting of its tool would write it."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What somebody said of a trace, a span, a session, or of the document at `position` of a span's list."""

    name: str
    trace: str | None = None
    span: str | None = None
    session: str | None = None
    position: int | None = None
    document: str | None = None
    """The id of the document, where the tool has one instead of a position."""
    label: str | None = None
    value: float | None = None
    comment: str = ""
    by: By = "person"
    who: str = ""
    at: datetime | None = None
    id: str = ""
    """The tool's own id of it, or whatever makes a later one replace an earlier one."""
    summary: bool = False
    """A tool's summary in the row of the span: it gives way to what was said itself, where that is in a file too."""


@dataclass(frozen=True)
class TraceSettings:
    """How traces are read; the options of `log import`.

    id_field: the metadata field that holds a document's id; the tool's own if None.
    match: "id" takes ids as they are; "text" finds each document by its exact text in the collection.
    query: whose query counts: the retriever's own, or that of the root ("root"), for engines with one retrieval.
    thumb: the name of the annotation that is a person's thumb; all names that are clearly a thumb if None.
    up, down: labels that mean yes and no, beside those that are known.
    judge: the name of the annotation with which a language model grades documents.
    left_out: services, projects, environments or tags whose traces are no users'.
    zone: the zone of times that name none; each tool's documented one if None.
    """

    id_field: str | None = None
    match: Literal["id", "text"] = "id"
    query: Literal["retriever", "root"] = "retriever"
    thumb: str | None = None
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    judge: str | None = None
    left_out: tuple[str, ...] = ()
    zone: tzinfo | None = None


class TraceForm(Protocol):
    """One way in which a tool writes traces: a module of `forms/` has one such object for each."""

    @property
    def name(self) -> str:
        """As in `--format`."""
        ...

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of a file is of this form. Only certain signs count: two forms never claim one row."""
        ...

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterable[Span | Annotation]:
        """What a row says. A row that is valid and says nothing gives nothing.

        Raises:
            InputError: the row is damaged or of another form; the message names the field and the value.
        """
        ...


@runtime_checkable
class BegunForm(Protocol):
    """A form whose rows are understood by those before them."""

    def begin(self) -> TraceForm:
        """The form at the beginning of a file."""
        ...
