"""Logs that other systems wrote, and the names of their columns -> logged searches.

Two shapes are read, from JSONL, CSV or TSV: one row per search with a list of hits in it (nested), or one row per hit
with the search's id in each (flat).

Guarantees: streams; the same file gives the same search ids, so that importing it twice adds nothing; what cannot be
read is an error with the file, the line and the column. Does not know: the retrieval log, whose `extend` takes the
searches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from qdrant_tools.errors import InputError, LogError
from qdrant_tools.files import Row, read_rows
from qdrant_tools.log.records import (
    KINDS,
    MOST_HITS,
    Feedback,
    LoggedHit,
    LoggedSearch,
    as_number,
    as_rank,
    as_score,
    as_time,
    check_feedback,
    check_hit,
    check_search,
)
from qdrant_tools.validation import brief

Fields = Mapping[str, Any]
TimeFormat = Literal["iso", "seconds", "milliseconds"]


_MOST_ROWS = 10 * MOST_HITS
"""Of one search in a flat file, which may have a row per event."""


@dataclass(frozen=True)
class LogColumns:
    """Where a foreign log keeps things. A dot reaches into nested objects: `"request.text"`.

    Flat: `LogColumns(query="q", search="session_id", hit="doc", rank="pos", feedback={"click": "clicked"})`.
    Nested: `LogColumns(query="q", hits="results", hit="doc_id", events="clicks", feedback={"click": "doc_id",
    "dwell": "dwell"})`. `hit`, `rank` and `score` are then fields of the entries of `hits`. Those of `feedback` are
    fields of the entries of `events`, which name their hit by `hit` too; without `events`, of the entries of `hits`.
    """

    query: str = "query"
    search: str | None = None
    """The id of the search; needed in flat files, made from the row in nested ones without it."""
    at: str | None = None
    """The time of the search. Without it, the time the file was last changed."""
    at_format: TimeFormat = "iso"
    hits: str | None = None
    hit: str = "id"
    rank: str | None = None
    """Rank from 1. Without it, the order in the file."""
    score: str | None = None
    events: str | None = None
    feedback: Mapping[str, str] = field(default_factory=dict)
    """Kind of feedback -> its column. Clicks, thumbs and citations count if the value is true, not 0 and not empty."""
    collection: str = ""
    space: str = ""

    def __post_init__(self) -> None:
        for name in ("query", "search", "at", "hits", "hit", "rank", "score", "events", "collection", "space"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name not in ("query", "hit")):
                raise InputError(f"{name} is {brief(value)}, expected the name of a column")
        if self.at_format not in get_args(TimeFormat):
            raise InputError(f"at_format is {brief(self.at_format)}, expected one of {', '.join(get_args(TimeFormat))}")
        if not isinstance(self.feedback, Mapping) or not all(isinstance(name, str) for name in self.feedback.values()):
            raise InputError(f"feedback is {brief(self.feedback)}, expected the column of each kind")
        for kind in self.feedback:
            if kind not in KINDS:
                raise InputError(f"feedback kind is {brief(kind)}, expected one of {', '.join(KINDS)}")
        if self.hits is None and self.search is None:
            raise InputError("one row per hit needs `search`, the column that tells which rows are one search")
        if self.hits is None and self.events is not None:
            raise InputError("`events` is a list in a row of its search: give `hits`, the list of its hits, too")


def read_log(path: str | Path, columns: LogColumns) -> Iterator[LoggedSearch]:
    """Read a `.jsonl`, `.csv` or `.tsv` file, as `read_rows` does. In a flat file the rows of one search come together.

    Raises:
        LogError: the file cannot be read, or a row has not what the columns promise.
    """
    file = Path(path)
    # not the time of the import: the same file must give equal searches when it is read again
    default = modified(file)
    seen: set[str] = set()
    for row, search in _searches(file, columns, default):
        with _errors_at(row):
            check_search(search)
            if search.id in seen:
                raise InputError(f"search {brief(search.id)} was there before: sort the rows by search")
        seen.add(search.id)
        yield search


def _rows(path: Path) -> Iterator[Row]:
    # stricter than `read_rows`, which takes any other ending for JSONL
    if path.suffix not in (".jsonl", ".csv", ".tsv"):
        raise LogError(f"{path} has the ending {path.suffix!r}, expected .jsonl, .csv or .tsv")
    try:
        yield from read_rows(path, pad=True)
    except InputError as error:
        raise LogError(str(error)) from error


@contextmanager
def _errors_at(row: Row) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise LogError(f"{row.where}: {error}") from error


def _searches(path: Path, columns: LogColumns, default: datetime) -> Iterator[tuple[Row, LoggedSearch]]:
    """The searches of a file, each with its first row: the only one, if the file is nested."""
    draft: _Draft | None = None
    for row in _rows(path):
        with _errors_at(row):
            if columns.hits is not None:
                whole = _Draft(row, columns, default)
                whole.add(_list(row.values, columns.hits), [] if columns.events else None)
                if columns.events:
                    whole.add([], _list(row.values, columns.events))
                yield row, whole.search()
                continue
            search_id = _text(row.values, columns.search or "")
        if draft is not None and search_id != draft.id:
            yield draft.row, draft.search()
            draft = None
        with _errors_at(row):
            draft = draft or _Draft(row, columns, default)
            draft.add([row.values])
    if draft is not None:
        yield draft.row, draft.search()


class _Draft:
    """A search whose rows are being read. It keeps the first of them, and of each what was shown and done."""

    def __init__(self, row: Row, columns: LogColumns, default: datetime) -> None:
        values = row.values
        self.row, self._columns = row, columns
        self.id = _text(values, columns.search) if columns.search else _made_id(values, row.line)
        self._at = default if columns.at is None else _time(values, columns.at, columns.at_format)
        self._query = _text(values, columns.query)
        # systems that write one row per event repeat the hit in each
        self._hits: dict[tuple[int, str], LoggedHit] = {}
        self._events: list[Feedback] = []
        self._entries = 0

    def add(self, shown: list[Fields], events: list[Fields] | None = None) -> None:
        """Take hits, and the feedback in the same entries or in others. Raises `InputError`."""
        for entry in shown:
            self._entries += 1
            if self._entries > _MOST_ROWS:
                raise InputError(f"more than {_MOST_ROWS:,} rows of one search, which no user saw")
            hit = _hit(entry, self._columns, self._entries)
            self._hits[hit.rank, hit.id] = hit
        for entry in shown if events is None else events:
            self._events += _events(entry, self._columns, self._at)
        if len(self._hits) > MOST_HITS or len(self._events) > MOST_HITS:
            raise InputError(f"more than {MOST_HITS:,} hits or events of feedback in one search, which no user saw")

    def search(self) -> LoggedSearch:
        hits = tuple(sorted(self._hits.values(), key=lambda hit: hit.rank))
        columns = self._columns
        return LoggedSearch(
            self.id, self._at, self._query, columns.collection, columns.space, hits, tuple(self._events)
        )


def _hit(entry: Fields, columns: LogColumns, position: int) -> LoggedHit:
    hit = LoggedHit(
        _text(entry, columns.hit),
        position if columns.rank is None else as_rank(_number(entry, columns.rank)),
        None if columns.score is None else as_score(_number(entry, columns.score)),
    )
    check_hit(hit)
    return hit


def _events(entry: Fields, columns: LogColumns, at: datetime) -> Iterator[Feedback]:
    for kind, column in columns.feedback.items():
        value = _value(entry, column)
        if value is None or value == "":
            continue
        # 0 is a value of these two; of the others it says that nothing happened
        if kind in ("dwell", "rating"):
            event = Feedback(_text(entry, columns.hit), kind, _number(entry, column), at)
        elif _is_true(value):
            event = Feedback(_text(entry, columns.hit), kind, 1.0, at)
        else:
            continue
        check_feedback(event)
        yield event


def _is_true(value: Any) -> bool:
    if isinstance(value, list | dict):
        return bool(value)
    return str(value).strip().lower() not in ("", "0", "0.0", "false", "no", "none", "null")


def _value(row: Fields, column: str) -> Any:
    value: Any = row
    for name in column.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    # A column whose own name has a dot in it.
    return row.get(column) if value is None else value


def _text(row: Fields, column: str) -> str:
    value = _value(row, column)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(
            f"column {column!r} is {brief(value)}, expected a text or whole number; columns: {_names(row)}"
        )
    try:
        return str(value)
    except ValueError as error:  # Python writes no number of more than 4,300 digits
        raise InputError(f"column {column!r} is a number of thousands of digits, expected a text") from error


def _number(row: Fields, column: str) -> float:
    value = _value(row, column)
    try:
        return as_number(f"column {column!r}", float(value) if isinstance(value, str) else value)
    except ValueError as error:
        raise InputError(f"column {column!r} is {brief(value)}, expected a finite number") from error


def _list(row: Fields, column: str) -> list[Fields]:
    value = _value(row, column)
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise InputError(f"column {column!r} is {type(value).__name__}, expected a list of objects")
    return value


def _time(row: Fields, column: str, form: str) -> datetime:
    if form == "iso":
        text = _text(row, column)
        try:
            return as_time(datetime.fromisoformat(text))
        except ValueError as error:
            raise InputError(f"column {column!r} is {brief(text)}, expected an ISO 8601 time with its zone") from error
    try:
        return datetime.fromtimestamp(_number(row, column) / (1000 if form == "milliseconds" else 1), UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise InputError(f"column {column!r} is {brief(_value(row, column))}, expected {form} since 1970") from error


def _made_id(row: Fields, number: int) -> str:
    # with the number of the line, because two searches may have equal rows
    try:
        content = json.dumps([number, dict(row)], sort_keys=True)
    except (RecursionError, ValueError) as error:
        raise InputError("the row is nested too deep, or holds a number of thousands of digits") from error
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _names(row: Fields) -> str:
    return brief(sorted(map(str, row)))


def modified(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError as error:
        raise LogError(f"cannot read {path}: {error}") from error
