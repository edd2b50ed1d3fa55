"""Logs that other systems wrote, and the names of their columns -> logged searches.

Two shapes are read, from JSONL, CSV, TSV or Parquet, packed by gzip or not: one row per search with a list of hits in
it (nested), or one row per hit or event (flat). In a flat file a search is the rows of one search id; without such a
column, the rows that agree on session, query and time. A search has one query: rows of one id with several queries are
several searches, and the id is that of their session.

Guarantees: rows that contradict each other are never merged, and no cell is taken for more than it says: what is
neither certain nor missing is an error with the file, the line, the column and the value. Columns that were not read
are named. Memory does not grow with the file but for a few bytes per search; the same file gives the same search ids,
so that importing it twice adds nothing. Does not know: the retrieval log, whose `extend` takes the searches.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError, LogError
from qdrant_tools.files.rows import Row, ending
from qdrant_tools.foreign import is_missing
from qdrant_tools.log.columns import MOST_ROWS, Cells, Fields, LogColumns, lacking, value_in
from qdrant_tools.log.records import (
    Feedback,
    LoggedHit,
    LoggedSearch,
    check_feedback,
    check_hit,
    check_search,
)
from qdrant_tools.log.rows import rows_of_log
from qdrant_tools.log.values import MOST_HITS
from qdrant_tools.same import id_key, query_key, unlike_spelling
from qdrant_tools.validation import brief

_MOST_WAITING = 20_000
"""Searches whose next row may still come."""
_MOST_BYTES = 20_000_000
"""Of them, roughly."""
_LONGEST_PAUSE = timedelta(hours=24)
"""Between two events of one search that nothing but its session and its query tells from others."""


def read_log(path: str | Path, columns: LogColumns) -> LogReader:
    """The searches of a `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file, one after the other.

    The rows of one search need not follow each other, but must not lie far apart.

    Raises:
        LogError: the file cannot be read, a row has not what the columns promise, or two rows contradict each other.
    """
    return LogReader(Path(path), columns)


class LogReader(Iterator[LoggedSearch]):
    """The searches of a file, one after the other.

    When all were taken, `unread` names the columns that nothing reads, and `notes` says whatever else was odd.
    """

    def __init__(self, path: Path, columns: LogColumns) -> None:
        self._path, self._columns = path, columns
        self._cells = Cells(columns)
        self._searches = self._read()

    @property
    def unread(self) -> tuple[str, ...]:
        return tuple(self._cells.unread)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._cells.notes)

    def __next__(self) -> LoggedSearch:
        return next(self._searches)

    def _read(self) -> Iterator[LoggedSearch]:
        # not the time of the import: the same file must give equal searches when it is read again
        default = modified(self._path)
        yield from self._flat(default) if self._columns.hits is None else self._nested(default)
        try:
            self._cells.finish(self._path)
        except InputError as error:
            raise LogError(str(error)) from error

    def _nested(self, default: datetime) -> Iterator[LoggedSearch]:
        columns, cells, lines = self._columns, self._cells, dict[str, int]()
        for row in _rows(self._path):
            with _errors_at(row):
                cells.look_at(row)
                search_id = cells.name(row.values, columns.search) if columns.search else _made_id(row.values, row.line)
                if search_id in lines:
                    raise InputError(
                        f"search {brief(search_id)} is that of line {lines[search_id]} too, and each row is a search: "
                        f"if {columns.search!r} is a session, name it `session`"
                    )
                lines[search_id] = row.line
                draft = _Draft(row, cells, cells.session(row.values))
                query = cells.query(row.values)
                if query is None:
                    raise lacking(row.values, columns.query)
                draft.see(row, query, cells.time(row.values, columns.at))
                hits = cells.entries(row, "hit")
                for entry in hits:
                    draft.show(row, entry)
                    if columns.events is None:
                        draft.happen(row, entry)
                for entry in cells.listed_feedback(row, hits) if columns.events is None else ():
                    draft.happen(row, entry)
                for entry in cells.entries(row, "event") if columns.events else ():
                    draft.happen(row, entry)
                search = draft.search(search_id, default)
            yield search

    def _flat(self, default: datetime) -> Iterator[LoggedSearch]:
        """Keeps the searches whose next row may still come, the oldest of which is given up when they are many."""
        waiting: OrderedDict[bytes, _Group] = OrderedDict()
        done: set[bytes] = set()
        last: dict[str, _Group] = {}
        size = 0
        for row in _rows(self._path):
            with _errors_at(row):
                self._cells.look_at(row)
                group = self._group_of(row, waiting, done, last)
                size += group.add(row)
            while len(waiting) > 1 and (size > _MOST_BYTES or len(waiting) > _MOST_WAITING):
                key, oldest = waiting.popitem(last=False)
                done.add(key)
                size -= oldest.size
                if last.get(oldest.session) is oldest:
                    del last[oldest.session]
                yield from oldest.searches(default)
        while waiting:
            yield from waiting.popitem(last=False)[1].searches(default)

    def _group_of(self, row: Row, waiting: dict[bytes, _Group], done: set[bytes], last: dict[str, _Group]) -> _Group:
        """The group that a row belongs to; `last` has that of the last row of each session."""
        columns, cells = self._columns, self._cells
        session = cells.session(row.values)
        if columns.search is not None:
            search_id = cells.name(row.values, columns.search)
            key = _digest([search_id])
            _require_open(key, done)
            return waiting.setdefault(key, _Group(row, cells, session, search_id))
        query, at = cells.query(row.values), cells.time(row.values, columns.at)
        if query is None or (columns.at is not None and at is None):
            empty = columns.query if query is None else columns.at
            raise InputError(
                f"column {empty!r} is empty, and without it the row belongs to no search: leave out rows that are none"
            )
        if columns.at is None and not session:
            raise InputError(
                f"column {columns.session!r} is empty, and without `search` or `at` nothing tells whose row it is"
            )
        key = _digest([session, query_key(query), at.isoformat() if at else ""])
        _require_open(key, done)
        group, before = waiting.get(key), last.get(session)
        if group is None:
            group = waiting[key] = _Group(row, cells, session, None)
            if before is not None:
                self._refuse_one_list_at_two_times(row, query, before)
        elif columns.at is None and before is not group:
            between = "another" if before is None else f"that of line {before.line}"
            raise InputError(
                f"the query {brief(query)} of session {brief(session)} is that of line {group.line}, with {between} in "
                "between: one search or two? Give `search` or `at`"
            )
        last[session] = group
        return group

    def _refuse_one_list_at_two_times(self, row: Row, query: str, before: _Group) -> None:
        """A list whose rows have a time each: as searches of one hit they would be nonsense."""
        columns, draft = self._columns, before.only
        if draft is None or columns.rank is None or columns.hit in columns.feedback.values():
            return
        hit = self._cells.hit(row.values)
        if draft.key != query_key(query) or hit is None or is_missing(value_in(row.values, columns.rank)):
            return
        if draft.ranks and self._cells.rank(row.values) > max(draft.ranks) and id_key(hit) not in draft.hits:
            raise InputError(
                f"the ranks of the query {brief(query)} go on from line {before.line} at another time "
                f"({columns.at!r}): if that is the time of each event and not of the search, name it `event_at`; or "
                "give `search`"
            )


def _rows(path: Path) -> Iterator[Row]:
    # stricter than `read_rows`, which takes any other ending for JSONL
    if ending(path) not in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        raise LogError(
            f"{path} has the ending {path.suffix!r}, expected .jsonl, .json, .csv, .tsv or .parquet; of these, all but "
            "the last may be packed (.gz)"
        )
    try:
        yield from rows_of_log(path)
    except InputError as error:
        raise LogError(str(error)) from error


@contextmanager
def _errors_at(row: Row) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise LogError(f"{row.where}: {error}") from error


@dataclass
class _Shown:
    """A hit while its search is read: the ranks it has, with their lines."""

    id: str
    line: int
    ranks: dict[int, int] = field(default_factory=dict)
    score: float | None = None


class _Draft:
    """A search whose rows are being read: what was shown and done. All that its rows say must agree."""

    def __init__(self, row: Row, cells: Cells, session: str) -> None:
        self.row, self.session = row, session
        self._cells = cells
        self.text: str | None = None
        self.key = ""
        self.at: datetime | None = None
        self._at_line = row.line
        # systems that write one row per event repeat the hit in each
        self.hits: dict[str, _Shown] = {}
        self.ranks: dict[int, _Shown] = {}
        self._events: list[tuple[str, str, float, datetime | None]] = []
        self._verdicts: dict[tuple[str, bool, datetime | None], tuple[str, float, int]] = {}
        self._rows = self._position = 0
        self._first_event: datetime | None = None
        self._last_event: datetime | None = None
        self.size = 0

    def see(self, row: Row, query: str | None, at: datetime | None) -> None:
        """Take the query and the time of a row; both are those of the rows before."""
        if query is not None and self.text is None:
            self.text, self.key = query, query_key(query)
            self.size += len(query) + 500
        if at is not None and self.at is not None and at != self.at:
            columns = self._cells.columns
            raise InputError(
                f"the search has the time {self.at.isoformat()} in line {self._at_line} and {at.isoformat()} here: if "
                f"{columns.at!r} is the time of each event, name it `event_at`; if {columns.search!r} is the session, "
                "name it `session`"
            )
        if at is not None and self.at is None:
            self.at, self._at_line = at, row.line

    def show(self, row: Row, entry: Fields) -> None:
        """Take a hit. Raises `InputError` if it contradicts another row."""
        self._rows += 1
        if self._rows > MOST_ROWS:
            raise InputError(f"more than {MOST_ROWS:,} rows of one search, which no user saw")
        columns = self._cells.columns
        self._position += 1
        name = self._cells.hit(entry)
        if name is None:
            if columns.hits is not None:
                self._cells.name(entry, columns.hit)
            return
        shown = self.hits.get(id_key(name))
        if shown is None:
            check_hit(LoggedHit(name, 1))
            shown = self.hits[id_key(name)] = _Shown(name, row.line)
            self.size += len(name) + 400
            if len(self.hits) > MOST_HITS:
                raise InputError(f"more than {MOST_HITS:,} hits in one search, which no user saw")
        if columns.rank is None:
            # the place in the list; a hit that was there before has its place
            rank = self._position if columns.hits is not None else len(self.hits)
            if shown.ranks:
                rank = next(iter(shown.ranks))
        elif columns.hits is None and is_missing(value_in(entry, columns.rank)):
            rank = 0  # a row of an event, if another row has the rank
        else:
            rank = self._cells.rank(entry)
        if rank:
            other = self.ranks.setdefault(rank, shown)
            if other is not shown:
                raise InputError(
                    f"hits {brief(other.id)} (line {other.ranks[rank]}) and {brief(name)} both have rank {rank} in one "
                    "search"
                )
            shown.ranks.setdefault(rank, row.line)
        self._take_score(shown, row, entry)

    def _take_score(self, shown: _Shown, row: Row, entry: Fields) -> None:
        column = self._cells.columns.score
        if column is None or is_missing(value_in(entry, column)):
            return
        score = self._cells.amount(entry, column)
        if shown.score is None:
            shown.score = score
        # a passage may be in a list twice, with a score for each of its parts
        elif shown.score != score and len(shown.ranks) < 2 and self._cells.columns.hits is None:
            raise InputError(
                f"hit {brief(shown.id)} has the score {shown.score:g} in line {shown.line} and {score:g} here, in one "
                "search"
            )

    def happen(self, row: Row, entry: Fields) -> None:
        """Take the feedback in an entry."""
        cells = self._cells
        name = cells.hit(entry)
        at = cells.time(entry, cells.columns.event_at)
        if at is not None:
            if self._last_event is not None and cells.columns.search is None and cells.columns.hits is None:
                pause = max(at - self._last_event, self._last_event - at)
                if pause > _LONGEST_PAUSE:
                    raise InputError(
                        f"the query is that of line {self.row.line}, more than a day away: one search or two? Give "
                        "`search` or `at`"
                    )
            self._first_event = at if self._first_event is None else min(self._first_event, at)
            self._last_event = at if self._last_event is None else max(self._last_event, at)
        for kind, value in cells.events(entry):
            if name is None:
                raise InputError(f"a {kind}, and column {cells.columns.hit!r} is empty: which hit was it?")
            check_feedback(Feedback(name, kind, value, datetime.now(UTC)))
            self._require_one_verdict(row, name, kind, value, at)
            self._events.append((name, kind, value, at))
            self.size += len(name) + 200
        if len(self._events) > MOST_HITS:
            raise InputError(f"more than {MOST_HITS:,} events of feedback in one search, which no user saw")

    def _require_one_verdict(self, row: Row, name: str, kind: str, value: float, at: datetime | None) -> None:
        """Refuse two ratings, or thumbs up and down, of one hit, where no time says which is the later."""
        if kind not in ("rating", "up", "down"):
            return
        before = self._verdicts.setdefault((id_key(name), kind == "rating", at), (kind, value, row.line))
        if before[:2] != (kind, value):
            was, now = (
                f"{what} {amount:g}" if what == "rating" else what for what, amount in (before[:2], (kind, value))
            )
            raise InputError(
                f"hit {brief(name)} has {was} in line {before[2]} and {now} here, in one search and at one time: name "
                "the time of the feedback `event_at`, or keep one"
            )

    def search(self, search_id: str, default: datetime) -> LoggedSearch:
        """The whole search. Raises `InputError` if something is still missing, or its ranks make no list."""
        columns = self._cells.columns
        at = self.at or self._first_event
        if self.text is None:
            raise InputError(f"column {columns.query!r} is empty in all rows of the search, expected its query")
        if at is None and (columns.at is not None or columns.event_at is not None and self._events):
            raise InputError(f"column {(columns.at or columns.event_at)!r} is empty, expected the time of the search")
        self._cells.untimed += at is None
        at = at or default
        whole = sorted(self.ranks) == list(range(1, len(self.ranks) + 1))
        for shown in self.hits.values():
            if not shown.ranks:
                raise InputError(f"column {columns.rank!r} is empty in line {shown.line}, and no row has the rank")
            # a passage of several parts may be in a list twice; a list with gaps is rather two lists in one
            if len(shown.ranks) > 1 and not whole:
                (first, line), (second, other) = list(shown.ranks.items())[:2]
                raise InputError(
                    f"hit {brief(shown.id)} has rank {first} (line {line}) and rank {second} (line {other}) in one "
                    "search: are these two searches?"
                )
        hits = sorted((LoggedHit(hit.id, min(hit.ranks), hit.score) for hit in self.hits.values()), key=_rank_of)
        events = tuple(
            Feedback(self._spelled(name), kind, value, when or at) for name, kind, value, when in self._events
        )
        # files may have the newest first, and a later verdict goes before an earlier one
        events = tuple(sorted(events, key=_time_of))
        self._note_odd(at)
        search = LoggedSearch(
            search_id, at, self.text, columns.collection, columns.space, tuple(hits), events, session=self.session
        )
        check_search(search)
        return search

    def _note_odd(self, at: datetime) -> None:
        cells = self._cells
        cells.later += at > datetime.now(UTC) + timedelta(days=1)
        for name, kind, *_ in self._events:
            if kind in ("click", "dwell") and id_key(name) not in self.hits:
                alike = unlike_spelling([name], [shown.id for shown in self.hits.values()])
                seen = f", where {brief(alike[1])} was shown" if alike else ""
                # few examples, whatever the log
                cells.unshown[f"{brief(name)}{seen}" if len(cells.unshown) < 100 else "others"] += 1

    def _spelled(self, name: str) -> str:
        shown = self.hits.get(id_key(name))
        return name if shown is None else shown.id


def _rank_of(hit: LoggedHit) -> int:
    return hit.rank


def _time_of(event: Feedback) -> datetime:
    return event.at


class _Group:
    """The rows of a flat file under one search id, or one session, query and time: a search, or one per query."""

    def __init__(self, row: Row, cells: Cells, session: str, search_id: str | None) -> None:
        self.session, self.line = session, row.line
        self.size = 0
        self._cells, self._id = cells, search_id
        self._drafts: dict[str, _Draft] = {}
        self._without_query: int | None = None
        self._last: _Draft | None = None

    @property
    def only(self) -> _Draft | None:
        """The search, where there is one only."""
        return next(iter(self._drafts.values())) if len(self._drafts) == 1 else None

    def add(self, row: Row) -> int:
        """Take a row; returns how much larger the group has become. Raises `InputError` if it contradicts another."""
        cells = self._cells
        session = cells.session(row.values)
        if session and self.session and session != self.session:
            raise InputError(
                f"search {brief(self._id)} is of session {brief(self.session)} in line {self.line} and of "
                f"{brief(session)} here"
            )
        self.session = self.session or session
        query = cells.query(row.values)
        draft = self._draft_of(row, query)
        before = draft.size
        draft.see(row, query, cells.time(row.values, cells.columns.at))
        draft.show(row, row.values)
        draft.happen(row, row.values)
        self.size += draft.size - before
        return draft.size - before

    def _draft_of(self, row: Row, query: str | None) -> _Draft:
        drafts = self._drafts
        if query is None:
            self._without_query = self._without_query or row.line
            if not drafts:
                raise InputError(
                    f"{lacking(row.values, self._cells.columns.query)}; if a later row of its search has the query, "
                    "sort the rows by time"
                )
        elif query_key(query) not in drafts:
            if len(drafts) == MOST_HITS:
                raise InputError(f"more than {MOST_HITS:,} queries under one search id")
            drafts[query_key(query)] = _Draft(row, self._cells, self.session)
        if len(drafts) > 1 and self._without_query is not None:
            first, second = list(drafts.values())[:2]
            raise InputError(
                f"line {self._without_query} has no query, and search {brief(self._id)} has two: {brief(first.text)} "
                f"in line {first.row.line} and {brief(second.text or query)} in line {second.row.line}"
            )
        draft = next(iter(drafts.values())) if query is None else drafts[query_key(query)]
        before, self._last = self._last, draft
        if before not in (None, draft) and draft.text is not None and self._cells.columns.at is None:
            raise InputError(
                f"search {brief(self._id)} has the query {brief(query)} in line {draft.row.line} too, with "
                f"{brief(before.text if before else '')} in between: one search or two? Name the time of the searches "
                "`at`, and a session `session`"
            )
        return draft

    def searches(self, default: datetime) -> Iterator[LoggedSearch]:
        """The search of the group; or those of its queries, which are then those of a session."""
        self._cells.divided += len(self._drafts) > 1
        for key, draft in self._drafts.items():
            with _errors_at(draft.row):
                draft.session, search_id = self.session, self._id
                if search_id is None:
                    # the time tells equal queries apart; in a file without times, the line
                    moment = draft.row.line if draft.at is None else draft.at.isoformat()
                    search_id = _hashed(["search", self.session, key, moment])
                elif len(self._drafts) > 1:
                    draft.session = self.session or search_id
                    search_id = _hashed(["part", search_id, key])
                search = draft.search(search_id, default)
            yield search


def _digest(parts: list[str]) -> bytes:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def _require_open(key: bytes, done: set[bytes]) -> None:
    if key in done:
        raise InputError("the other rows of this search are tens of thousands of rows before: sort the rows by search")


def _made_id(row: Fields, number: int) -> str:
    # with the number of the line, because two searches may have equal rows
    try:
        return _hashed([number, dict(row)])
    except (RecursionError, ValueError) as error:
        raise InputError("the row is nested too deep, or holds a number of thousands of digits") from error


def _hashed(content: list[Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def modified(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError as error:
        raise LogError(f"cannot read {path}: {error}") from error
