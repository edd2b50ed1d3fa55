"""Spans in any order -> the spans of each trace that has a retrieval, with what was said of them; on disk meanwhile.

Tools write the spans of a trace over several lines and files, children first. They wait in a temporary database
without a name, which is gone with the process, however it ends. Of a span that says nothing here only its place in the
tree is kept, because a retrieval may lie below it; and when millions of such wait, those of traces without a retrieval
are let go of. If one comes later, `lacks` says that the files have to be read once more.

Guarantees: memory does not grow with the files. Does not know: what a search is.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from tempfile import gettempdir
from typing import Any

from qdrant_tools.errors import InputError, LogError
from qdrant_tools.same import query_key
from qdrant_tools.traces.records import Annotation, Span, SpanDocument
from qdrant_tools.validation import brief

MOST_WAITING = 1_000_000
"""Spans that wait before those of traces without a retrieval are let go of."""
MOST_IN_TRACE = 100_000
LONGEST_ID = 4096
_AT_ONCE = 1000
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16000;
PRAGMA temp_store = FILE;
CREATE TABLE spans (trace TEXT NOT NULL, id TEXT NOT NULL, parent TEXT, body BLOB);
CREATE TABLE retrieved (trace TEXT PRIMARY KEY, at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE annotations (trace TEXT, span TEXT, session TEXT, body BLOB);
"""
_LATEST = "9"


@dataclass(frozen=True)
class SpooledTrace:
    """A trace with a retrieval. `repeated` counts retrievals that were there twice, `differing` those that have the id
    of another one and other contents; `cut` says that spans are missing, because they are too many."""

    id: str
    spans: list[Span]
    annotations: list[Annotation]
    repeated: int
    differing: int
    cut: bool


class Spool:
    """Spans and annotations, until all were read. Close it, or use it in `with`."""

    def __init__(self, *, most_waiting: int = MOST_WAITING) -> None:
        self.lacks = False
        """Whether spans of traces with a retrieval may have been let go of."""
        self.traces_let_go = 0
        self._most_waiting, self._waiting = most_waiting, 0
        self._spans: list[tuple[str, str, str | None, bytes | None]] = []
        self._annotations: list[tuple[str | None, str | None, str | None, bytes]] = []
        with _errors():
            # a file without a name: the system frees it when the process ends
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._database.executescript(_SCHEMA)
            self._database.execute("BEGIN")

    def add(self, span: Span) -> None:
        """Keep a span for its trace. Raises `InputError` for an id without end."""
        for name, value in (("trace", span.trace), ("span", span.id), ("parent", span.parent or "")):
            if len(value) > LONGEST_ID:
                raise InputError(f"the id of a {name} is {brief(value)} of {len(value):,} characters")
        body = _packed(span) if _says_something(span) else None
        self._spans.append((span.trace, span.id, span.parent, body))
        if span.kind == "retrieval":
            at = _LATEST if span.at is None else span.at.isoformat()
            self._write(
                "INSERT INTO retrieved VALUES (?, ?) ON CONFLICT DO UPDATE SET at = min(at, excluded.at)",
                (span.trace, at),
            )
        self._waiting += 1
        if len(self._spans) >= _AT_ONCE:
            self._flush()
        if self._waiting >= self._most_waiting:
            self._let_go()

    def add_again(self, span: Span) -> None:
        """Of a second reading: keep what was let go of, and a retrieval needs it."""
        if span.kind == "retrieval":
            return  # was never let go of
        if self._read("SELECT 1 FROM retrieved WHERE trace = ?", (span.trace,)):
            body = _packed(span) if _says_something(span) else None
            self._spans.append((span.trace, span.id, span.parent, body))
            if len(self._spans) >= _AT_ONCE:
                self._flush()

    def annotate(self, annotation: Annotation) -> None:
        """Keep what somebody said until its span is known."""
        body = pickle.dumps(annotation, protocol=5)
        self._annotations.append((annotation.trace, annotation.span, annotation.session or None, body))
        if len(self._annotations) >= _AT_ONCE:
            self._flush()

    def settle(self) -> tuple[int, int]:
        """All was read: make ready for `traces`. Returns how many traces were told apart, and have no retrieval."""
        self._flush()
        ((without,),) = self._read(
            "SELECT count(DISTINCT trace) FROM spans WHERE trace NOT IN (SELECT trace FROM retrieved)"
        )
        ((having,),) = self._read("SELECT count(*) FROM retrieved")
        self._write("DELETE FROM spans WHERE trace NOT IN (SELECT trace FROM retrieved)")
        self._write("CREATE INDEX of_trace ON spans (trace)")
        self._write("CREATE INDEX of_span ON spans (id)")
        self._write(
            "UPDATE annotations SET trace = (SELECT trace FROM spans WHERE id = annotations.span LIMIT 1) "
            "WHERE trace IS NULL AND span IS NOT NULL"
        )
        self._write("CREATE INDEX about_trace ON annotations (trace)")
        without += self.traces_let_go
        return having + without, without

    def traces(self) -> Iterator[SpooledTrace]:
        """Yield the traces with a retrieval, in the order of their first one."""
        after = ("", "")
        while True:
            found = self._read(
                "SELECT at, trace FROM retrieved WHERE (at, trace) > (?, ?) ORDER BY at, trace LIMIT 256", after
            )
            if not found:
                return
            for _, trace in found:
                yield self._trace(trace)
            after = found[-1]

    def unmatched(self) -> Iterator[Annotation]:
        """Yield the annotations on no trace with a retrieval; those on sessions are among them."""
        after = 0
        while found := self._read(
            "SELECT rowid, body FROM annotations WHERE rowid > ? AND (trace IS NULL OR trace NOT IN "
            "(SELECT trace FROM retrieved)) ORDER BY rowid LIMIT 256",
            (after,),
        ):
            yield from (pickle.loads(body) for _, body in found)
            after = found[-1][0]

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _trace(self, trace: str) -> SpooledTrace:
        rows = self._read(
            "SELECT id, parent, body FROM spans WHERE trace = ? ORDER BY rowid LIMIT ?", (trace, MOST_IN_TRACE + 1)
        )
        said = self._read("SELECT body FROM annotations WHERE trace = ? ORDER BY rowid LIMIT ?", (trace, MOST_IN_TRACE))
        copies: dict[str, list[Span]] = {}
        for name, parent, body in rows[:MOST_IN_TRACE]:
            span = Span(trace, name, parent, "other") if body is None else _unpacked(body)
            copies.setdefault(name, []).append(span)
        alike = [_alike(each) for each in copies.values()]
        return SpooledTrace(
            trace,
            [_joined(each) for each in alike],
            [pickle.loads(body) for (body,) in said],
            sum(map(_repeats, alike)),
            sum(span.kind == "retrieval" for each in copies.values() for span in each)
            - sum(span.kind == "retrieval" for each in alike for span in each),
            len(rows) > MOST_IN_TRACE,
        )

    def _let_go(self) -> None:
        """Of all spans so far, keep those of traces with a retrieval."""
        self._flush()
        ((traces,),) = self._read(
            "SELECT count(DISTINCT trace) FROM spans WHERE trace NOT IN (SELECT trace FROM retrieved)"
        )
        self._write("DELETE FROM spans WHERE trace NOT IN (SELECT trace FROM retrieved)")
        self.traces_let_go += traces
        self.lacks = self.lacks or traces > 0
        self._waiting = 0

    def _flush(self) -> None:
        with _errors():
            self._database.executemany("INSERT INTO spans VALUES (?, ?, ?, ?)", self._spans)
            self._database.executemany("INSERT INTO annotations VALUES (?, ?, ?, ?)", self._annotations)
        self._spans, self._annotations = [], []

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with _errors():
            return self._database.execute(sql, values).fetchall()

    def _write(self, sql: str, values: Sequence[Any] = ()) -> None:
        with _errors():
            self._database.execute(sql, values)


_OF_EVERY_SPAN = frozenset({"trace", "id", "parent", "kind", "name", "at", "until", "service"})
_SAYING = attrgetter(*(each.name for each in fields(Span) if each.name not in _OF_EVERY_SPAN))
_NOTHING = _SAYING(Span("", "", None, "other"))


def _says_something(span: Span) -> bool:
    """Whether more of a span than its place is needed, should its trace have a retrieval."""
    # the service is that of all spans of a trace
    return span.kind == "retrieval" or _SAYING(span) != _NOTHING or (span.parent is None and bool(span.service))


# as plain tuples, which take a third of the time that dataclasses with slots take
_FIELDS = attrgetter(*(each.name for each in fields(Span)))
_LISTS = tuple(place for place, each in enumerate(fields(Span)) if each.name in ("documents", "context"))
_OF_DOCUMENT = attrgetter(*(each.name for each in fields(SpanDocument)))


def _packed(span: Span) -> bytes:
    values = list(_FIELDS(span))
    for place in _LISTS:
        if values[place] is not None:
            values[place] = [_OF_DOCUMENT(document) for document in values[place]]
    return pickle.dumps(values, protocol=5)


def _unpacked(body: bytes) -> Span:
    values = pickle.loads(body)
    for place in _LISTS:
        if values[place] is not None:
            values[place] = tuple(SpanDocument(*document) for document in values[place])
    return Span(*values)


def _alike(copies: Sequence[Span]) -> Sequence[Span]:
    """The first copy of a span, and those that do not contradict it: ids may be given twice."""
    if len(copies) == 1:
        return copies
    kept = [copies[0]]
    for span in copies[1:]:
        if not any(_contradict(span, before) for before in kept):
            kept.append(span)
    return kept


def _contradict(one: Span, other: Span) -> bool:
    """Whether two copies cannot be of one span: they were asked something else, or found something else in a place."""
    if one.query is not None and other.query is not None and query_key(one.query) != query_key(other.query):
        return True
    found = {document.position: document for document in other.documents or ()}
    pairs = ((document, found[document.position]) for document in one.documents or () if document.position in found)
    return any(_differ(first.id, second.id, first.text, second.text) for first, second in pairs)


def _differ(id: str | None, other_id: str | None, text: str | None, other_text: str | None) -> bool:
    if id is not None and other_id is not None:
        return id != other_id
    if text is None or other_text is None:
        return False
    shorter, longer = sorted((" ".join(text.split()), " ".join(other_text.split())), key=len)
    return not longer.startswith(shorter)


def _repeats(copies: Sequence[Span]) -> int:
    """How many copies of a retrieval say nothing that one before did not; of a list in pieces, none."""
    repeated, places = 0, set[int]()
    for span in copies if len(copies) > 1 else ():
        new = {document.position for document in span.documents or ()}
        # what has no list at all may be the query of a search whose documents have rows of their own
        repeated += bool(places) and new <= places and span.kind == "retrieval" and span.documents is not None
        places |= new
    return repeated


def _joined(copies: Sequence[Span]) -> Span:
    """The copy of a span that says most, with what only others say: some exports have a row for each document."""
    if len(copies) == 1:
        return copies[0]
    first, *others = sorted(copies, key=_fullness, reverse=True)
    # of two documents in one place, that of the fuller copy
    documents = {document.position: document for span in (*others[::-1], first) for document in span.documents or ()}

    def said(name: str) -> Any:
        return next((value for span in (first, *others) if (value := getattr(span, name))), getattr(first, name))

    return replace(
        first,
        documents=tuple(documents[place] for place in sorted(documents)) or first.documents,
        **{name: said(name) for name in ("parent", "at", "until", "query", "answer", "session", "user")},
    )


def _fullness(span: Span) -> tuple[int, int, int]:
    """Of two copies of a span, the one that says more."""
    lists = [*(span.documents or ()), *(span.context or ())]
    return (
        span.documents is not None,
        len(lists) + sum(document.text is not None for document in lists),
        sum(value is not None for value in (span.query, span.answer, span.at, span.parent)),
    )


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LogError(
            f"the spans that wait for the rest of their trace cannot be kept in the folder for temporary files "
            f"({error}): make room in {gettempdir()}, or name another folder in SQLITE_TMPDIR"
        ) from error
