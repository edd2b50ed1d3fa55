"""The names of a foreign log's columns, and its rows -> what their cells say.

Guarantees: a cell that is neither certain nor empty is an `InputError` with the column and the value; a column that was
named and is nowhere is one too. The columns that nothing reads are kept by name. Does not know: which rows are one
search.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from qdrant_tools.errors import InputError, listed
from qdrant_tools.files.rows import Row, ending
from qdrant_tools.foreign import (
    WITH_ZONE,
    TimeFormat,
    as_amount,
    as_flag,
    as_rank,
    as_seconds,
    as_time,
    as_vote,
    as_zone,
    is_absent,
    is_missing,
)
from qdrant_tools.log.lists import SEPARATORS, list_in
from qdrant_tools.log.records import KINDS
from qdrant_tools.log.values import LONGEST_NAME, MOST_HITS
from qdrant_tools.same import folded
from qdrant_tools.unread import carries_meaning, words_in_name
from qdrant_tools.validation import brief

Fields = Mapping[str, Any]
Level = Literal["row", "hit", "event"]
"""Where a column is: in the row of a search, in an entry of its hits, or of its events. A flat row is all of them."""

logger = logging.getLogger(__name__)

MOST_ROWS = 10 * MOST_HITS
"""Of one search in a flat file, which may have a row per event."""
_MOST_NAMES = 1000
"""Columns that are named because nothing reads them."""
_LONGEST_DWELL = 86_400.0
_ROUNDED = re.compile(r"[0-9]([.,][0-9]+)?[eE]\+[0-9]+")
"""A long number as a spreadsheet shows and saves it."""
_BROKEN = frozenset(
    {"#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#BEZUG!", "#WERT!", "#NOM?", "#VALEUR!"}
)
"""What a spreadsheet shows in the place of a text that it could not compute."""
_NO_NAMES = frozenset({"nan", "none", "null", "nil", "na", "n/a", "<na>", "nat", "undefined", "(none)", "-", "--"})
"""Of ids: what programs write for nothing, and no collection calls a passage."""
_NO_SESSIONS = _NO_NAMES | {"-1", "unknown", "anonymous"}
_ESCAPED = re.compile(r"\\[\\tnr'\"]")
"""What PostgreSQL's COPY, MySQL and ClickHouse write for a tab, a line's end, a backslash or a quote in a TSV."""
_FORMULA = re.compile('="([^"]+)"')
"""A text as exports write it for Excel, which would otherwise take it for a number: `="007"`."""
_WHOLE = re.compile(r"[0-9]+\.0")
_RANK = re.compile(r"[0-9]{1,3}(\.0)?")
_LONG_DWELL = 600.0
"""Seconds. Where most are longer, they are rather milliseconds."""
_WHAT_HAPPENED = frozenset(
    ["click", "clicked", "clicks", "action", "event", "type", "kind", "verb", "impression", "feedback", "status"]
    + ["dwell", "position", "pos"]
)
"""Words in the names of columns that say what a row of events is about."""
_TIMES = frozenset(["time", "timestamp", "date", "datetime", "ts", "at", "when", "created"])
_EVENTS = frozenset(["click", "clicked", "action", "event", "type", "kind", "verb"])
_NO_CLICKS = frozenset(
    [
        "view",
        "viewed",
        "impression",
        "exposure",
        "shown",
        "hover",
        "scroll",
        "search",
        "pageview",
        "dismiss",
        "dismissed",
    ]
)
"""What a field of an event says if it is no click, and the field's name may be that of anything:"""
_ANYTHING = frozenset(
    ["name", "activity", "interaction", "operation", "behavior", "behaviour", "what", "method", "status"]
)
_OTHER_UNITS = frozenset(
    ["ms", "msec", "msecs", "millis", "millisecond", "milliseconds", "us", "micros"]
    + ["min", "mins", "minute", "minutes", "hours"]
)


@dataclass(frozen=True)
class LogColumns:
    """Where a foreign log keeps things. A dot reaches into nested objects: `"request.text"`.

    Flat: `LogColumns(query="q", session="visit", at="time", hit="doc", rank="pos", feedback={"click": "clicked"})`.
    Nested: `LogColumns(query="q", hits="results", hit="doc_id", events="clicks", feedback={"click": "doc_id",
    "dwell": "dwell"})`. `hit`, `rank` and `score` are then fields of the entries of `hits`, which may also be plain
    ids. Those of `feedback` are fields of the entries of `events`, which name their hit by `hit` too; without `events`,
    of the entries of `hits`, or of the row, if they list ids there: `LogColumns(query="q", hits="shown",
    feedback={"click": "clicked"})`.
    """

    query: str = "query"
    search: str | None = None
    """The id of the search. A flat file needs it, or `at`, or `session`."""
    session: str | None = None
    """Whose searches belong together: a session, a visit, a conversation. No session id is a search id."""
    at: str | None = None
    """The time of the search. Without it, that of its first event, or the time the file was last changed."""
    at_format: TimeFormat = "iso"
    """Of `at` and `event_at`."""
    zone: str | None = None
    """Of times that name none: "UTC", "+02:00", "Europe/Berlin"."""
    hits: str | None = None
    separator: str | None = None
    """Between the values of a list in a cell ("|"), where that is not certain. " " is any white space."""
    hit: str = "id"
    rank: str | None = None
    """Without it, the order in the file."""
    rank_from: Literal[0, 1] = 1
    """What the file calls the first place."""
    score: str | None = None
    events: str | None = None
    event_at: str | None = None
    """The time of what the user did, where the rows of one search have several."""
    feedback: Mapping[str, str] = field(default_factory=dict)
    """Kind of feedback -> its column, or `"column=word"` where a column says which kind of event a row is. The column
    of the hit itself says that every row, or entry of `events`, is one."""
    feedback_by: Literal["id", "rank"] = "id"
    """What feedback that is listed in the row of a search names: ids of hits, or their ranks."""
    dwell_unit: Literal["seconds", "milliseconds"] | None = None
    """Of bare numbers; seconds, unless the name of the column says another unit: then it has to be given."""
    collection: str = ""
    space: str = ""

    def __post_init__(self) -> None:
        texts = ("query", "search", "session", "at", "zone", "hits", "hit", "rank", "score", "events", "event_at")
        for name in (*texts, "collection", "space"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name not in ("query", "hit")):
                raise InputError(f"{name} is {brief(value)}, expected the name of a column")
        if self.at_format not in get_args(TimeFormat):
            raise InputError(f"at_format is {brief(self.at_format)}, expected one of {', '.join(get_args(TimeFormat))}")
        if self.zone is not None:
            as_zone("zone", self.zone)
            if self.at_format not in WITH_ZONE:
                raise InputError(f"zone is {brief(self.zone)}, and {self.at_format} since 1970 have none: leave it out")
        if self.separator is not None and (not isinstance(self.separator, str) or not 1 <= len(self.separator) <= 10):
            raise InputError(f"separator is {brief(self.separator)}, expected the sign between two values, such as '|'")
        if self.feedback_by not in ("id", "rank"):
            raise InputError(f"feedback_by is {brief(self.feedback_by)}, expected id or rank")
        if repr(self.rank_from) not in ("0", "1"):
            raise InputError(f"rank_from is {brief(self.rank_from)}, expected 0 or 1")
        self._check_feedback()
        if self.hits is None and self.search is None and self.at is None and self.session is None:
            raise InputError("one row per hit needs `search`, `at` or `session`: which rows are one search?")
        if self.hits is None and self.events is not None:
            raise InputError("`events` is a list in a row of its search: give `hits`, the list of its hits, too")

    def _check_feedback(self) -> None:
        if not isinstance(self.feedback, Mapping) or not all(isinstance(name, str) for name in self.feedback.values()):
            raise InputError(f"feedback is {brief(self.feedback)}, expected the column of each kind")
        for kind, column in self.feedback.items():
            if kind not in KINDS:
                raise InputError(f"feedback kind is {brief(kind)}, expected one of {', '.join(KINDS)}")
            if column == self.hit and kind in ("dwell", "rating"):
                raise InputError(f"feedback {kind} is in {brief(column)}, the column of the hit's id")
            if column == self.hit and self.hits is not None and self.events is None:
                raise InputError(f"feedback {kind} is the id of every hit shown: give `events`, the list of {kind}s")
        if self.dwell_unit not in (None, "seconds", "milliseconds"):
            raise InputError(f"dwell_unit is {brief(self.dwell_unit)}, expected seconds or milliseconds")
        if self.dwell_unit is None and not _OTHER_UNITS.isdisjoint(words_in_name(self.feedback.get("dwell", ""))):
            raise InputError(f"dwell is in {brief(self.feedback['dwell'])}, whose name says a unit: give dwell_unit")


class Cells:
    """What the cells of a row say, under the names of the columns; and which columns there were."""

    def __init__(self, columns: LogColumns) -> None:
        self.columns = columns
        self.unread: dict[str, None] = {}
        self.notes: list[str] = []
        self._zone = None if columns.zone is None else as_zone("zone", columns.zone)
        self._marks: dict[str, str] = {}
        self._counts_from_first = columns.rank is None or columns.rank_from == 1
        self.divided = 0
        """Search ids whose rows had several queries."""
        self.unshown: Counter[str] = Counter()
        """Events on passages that their search did not show, by an example of each kind of spelling."""
        self.later = 0
        """Searches of the future."""
        self.untimed = 0
        """Searches without a time of their own."""
        self.missing_names: dict[tuple[str, str], None] = {}
        """Columns of ids, and the words in them that stand for nothing."""
        self._is_tsv = False
        self._short: tuple[int, int] | None = None
        self._odd_texts: dict[tuple[str, str], str] = {}
        self._parted: dict[str, str] = {}
        self._lone: Counter[str] = Counter()
        self._dwells = self._long_dwells = 0
        self._words_found: set[str] = set()
        self._other_words: dict[str, str] = {}
        self._looked: set[Level] = set()
        what = [*map(_column, columns.feedback.values()), columns.event_at]
        inner = [columns.hit, columns.rank, columns.score]
        tops = [columns.query, columns.search, columns.session, columns.at]
        named: dict[Level, list[str | None]]
        if columns.hits is None:
            named = {"row": [*tops, *inner, *what]}
        elif columns.events is None:
            named = {"row": [*tops, columns.hits], "hit": [*inner, *what]}
        else:
            named = {"row": [*tops, columns.hits, columns.events], "hit": [*inner], "event": [columns.hit, *what]}
        self._lost = {level: dict.fromkeys(filter(None, names)) for level, names in named.items()}
        self._known: dict[Level, frozenset[str]] = {level: frozenset(lost) for level, lost in self._lost.items()}
        # of a path into nested objects, its beginnings
        self._above = {
            level: frozenset(path[:place] for path in lost for place, mark in enumerate(path) if mark == ".")
            for level, lost in self._lost.items()
        }

    def look_at(self, row: Row) -> None:
        """Note the columns of a row. Raises `InputError` if a table lacks one that was named."""
        is_table = ending(row.path) not in (".jsonl", ".json")
        if row.is_short:
            first, count = self._short or (row.line, 0)
            self._short = (first, count + 1)
        if is_table and "row" in self._looked:
            return  # all rows of a table have the columns of the first
        self._is_tsv = ending(row.path) == ".tsv"
        self._look("row", row.values, "")
        if is_table and self._lost["row"]:
            raise InputError(
                f"there is no column {next(iter(self._lost['row']))!r}; columns: {names_in(row.values)}"
                f"{_why_no_column(row.values)}"
            )

    def _look(self, level: Level, values: Fields, prefix: str) -> None:
        self._looked.add(level)
        if self._lost[level]:
            for name in [name for name in self._lost[level] if _has(values, name)]:
                del self._lost[level][name]
        if len(self.unread) < _MOST_NAMES:
            self._note_unread(level, values, prefix, "")

    def _note_unread(self, level: Level, values: Fields, prefix: str, path: str) -> None:
        known, above = self._known[level], self._above[level]
        for name in values:
            # pandas leaves its index without a name
            where = f"{path}{name}"
            if not name or where in known:
                continue
            inner = values[name]
            if where in above and isinstance(inner, Mapping):
                self._note_unread(level, inner, prefix, f"{where}.")
            elif len(self.unread) < _MOST_NAMES:
                self.unread[f"{prefix}{where}"] = None

    def finish(self, path: Path) -> None:
        """Name what was not read, when all rows were seen.

        Raises:
            InputError: a column that was named is in no row, or a unit cannot be right.
        """
        self.notes += self._notes_of_missing_columns(path)
        if self._long_dwells * 2 > self._dwells:
            raise InputError(
                f"{path}: {self._long_dwells} of {self._dwells} dwells in {self.columns.feedback['dwell']!r} would be "
                "longer than ten minutes: give dwell_unit, seconds or milliseconds"
            )
        self._require_lists(path)
        self.notes += [*self._notes_of_searches(), *self._notes_of_cells(), *self._notes_of_unread()]
        for note in self.notes:
            logger.warning("%s: %s", path, note)

    def _notes_of_missing_columns(self, path: Path) -> Iterator[str]:
        columns = self.columns
        feedback = {_column(column) for column in columns.feedback.values()}
        for level in self._looked:
            for lost in self._lost[level]:
                alike = next((name for name in self.unread if _bare(name.split("[].")[-1]) == _bare(lost)), None)
                # who clicks nothing may have no such field; but not one of another spelling either
                if alike == lost and level != "row":
                    raise InputError(
                        f"{path}: the column {lost!r} is in the rows, and is looked for in the entries of "
                        f"{(columns.events if level == 'event' else columns.hits)!r}"
                    )
                if alike is not None or lost not in feedback:
                    other = f", but {brief(alike)}" if alike else f"; not read: {listed(self.unread) or 'none'}"
                    raise InputError(f"{path}: no row has the column {lost!r}{other}")
                yield f"no row has the column {brief(lost)}, so there is no such feedback"

    def _require_lists(self, path: Path) -> None:
        """Refuse a column of lists that has never one: it is rather that of one hit."""
        column = self.columns.hits
        if column is not None and self._lone[column] > 1 and self.columns.separator is None:
            raise InputError(
                f"{path}: {column!r} is never a list: if each row is one hit of a search, name it `hit` and give "
                "`search`, `at` or `session`; if every search showed one, give a separator"
            )

    def _notes_of_searches(self) -> Iterator[str]:
        columns = self.columns
        for column, sign in self._parted.items():
            if columns.separator is None:
                yield f"the lists in {column!r} are parted by {sign!r}"
        if not self._counts_from_first:
            yield "no row has rank 0, although rank_from=0 says that the file counts from there"
        if self.divided:
            yield (
                f"{self.divided} ids of {columns.search!r} had rows of several queries: each query is a search, "
                "and the id that of its session"
            )
        worded = [column for column in columns.feedback.values() if "=" in column]
        for column in worded:
            if column not in self._words_found:
                yield f"no row says {column!r}, so there is no such feedback"
        named = {folded(column.partition("=")[2]).strip() for column in worded}
        unknown = [shown for word, shown in self._other_words.items() if word not in named]
        if unknown:
            yield f"other events are not read: {listed(unknown)}"
        if self.unshown:
            example = max(self.unshown, key=len)
            yield (
                f"{self.unshown.total()} clicks or dwells are on passages that their searches did not show, and count "
                f"for nothing: {example}"
            )
        if self.later:
            yield f"{self.later} searches are of the future"
        if self.untimed and columns.event_at is not None:
            yield (
                f"{self.untimed} searches have no event with a time, and get the time of the file: is there a column "
                "for `at`?"
            )

    def _notes_of_cells(self) -> Iterator[str]:
        for column, word in list(self.missing_names)[:10]:
            yield f"column {column!r} is {brief(word)} in some rows, which is taken for nothing"
        if self._short is not None:
            yield (
                f"{self._short[1]} rows are shorter than the header, the first in line {self._short[0]}, and what they "
                "lack is taken as empty"
            )
        for (column, what), text in self._odd_texts.items():
            yield f"column {column!r} has {brief(text)}: {what}"

    def _notes_of_unread(self) -> Iterator[str]:
        times = [name for name in self.unread if not _TIMES.isdisjoint(words_in_name(name))]
        if times and self.columns.at is None and self.columns.event_at is None:
            yield f"without `at`, the searches get the time of the file: {listed(times)} may be theirs"
        telling = [
            name for name in self.unread if carries_meaning(name) or not _WHAT_HAPPENED.isdisjoint(words_in_name(name))
        ]
        if self.unread:
            also = f"; of these, {listed(telling)} may say what users did or saw" if telling else ""
            yield f"not read: {listed(self.unread)}{also}"

    def name(self, row: Fields, column: str) -> str:
        """An id, which is never empty."""
        value = text_in(row, column)
        if value is None or (column == self.columns.search and value.strip().lower() in _NO_NAMES):
            raise lacking(row, column)
        self._look_at_text(column, value)
        if _WHOLE.fullmatch(value):
            self._note_odd(column, value, "if a program wrote whole numbers so, no id of the collection is equal to it")
        if _ROUNDED.fullmatch(value):
            raise InputError(
                f"column {column!r} is {brief(value)}, a long number that a spreadsheet has rounded: export it as text"
            )
        if len(value) > LONGEST_NAME:
            raise InputError(
                f"column {column!r} is {brief(value)} of {len(value):,} characters, expected at most {LONGEST_NAME:,}"
            )
        return value.strip()

    def hit(self, entry: Fields) -> str | None:
        """The id of the hit of a row; a row without one is of a search that showed or led to nothing."""
        column = self.columns.hit
        return None if self._is_nothing(entry, column, _NO_NAMES) else self.name(entry, column)

    def session(self, row: Fields) -> str:
        column = self.columns.session
        return "" if column is None or self._is_nothing(row, column, _NO_SESSIONS) else self.name(row, column)

    def query(self, row: Fields) -> str | None:
        query = text_in(row, self.columns.query)
        if query is not None:
            self._look_at_text(self.columns.query, query)
            if query.strip().lower() in _NO_NAMES:
                self._note_odd(
                    self.columns.query, query, "programs write this for nothing, and it is taken for what a user typed"
                )
        return query

    def _is_nothing(self, row: Fields, column: str, words: frozenset[str]) -> bool:
        """Whether an id is none; what only seems to be none is counted."""
        value = value_in(row, column)
        if is_absent(value):
            return True
        word = str(value).strip() if isinstance(value, str | int) else ""
        if word.lower() not in words:
            return False
        self.missing_names.setdefault((column, word))
        return True

    def _look_at_text(self, column: str, text: str) -> None:
        if text.strip() in _BROKEN:
            raise InputError(f"column {column!r} is {brief(text)}, a spreadsheet's error: export its text")
        if self._is_tsv and "\\" in text and _ESCAPED.search(text):
            self._note_odd(
                column, text, "backslashes stay as they are; if a database wrote them as escapes, export CSV"
            )

    def _note_odd(self, column: str, text: str, what: str) -> None:
        self._odd_texts.setdefault((column, what), text)

    def time(self, row: Fields, column: str | None) -> datetime | None:
        value = None if column is None else value_in(row, column)
        if column is None or is_missing(value):
            return None
        return as_time(f"column {column!r}", value, form=self.columns.at_format, zone=self._zone)

    def rank(self, entry: Fields) -> int:
        column, first = self.columns.rank or "", self.columns.rank_from
        value = value_in(entry, column)
        try:
            rank = as_rank(f"column {column!r}", value, first=first)
            self._counts_from_first = self._counts_from_first or rank == 1
            return rank
        except InputError as error:
            if first == 1 and not isinstance(value, bool) and str(value).strip() in ("0", "0.0"):
                raise InputError(f"{error}; say rank_from=0 if the file counts from 0") from error
            raise

    def amount(self, entry: Fields, column: str) -> float:
        value = value_in(entry, column)
        number = as_amount(f"column {column!r}", value)
        self._require_one_mark(column, value)
        return number

    def dwell(self, entry: Fields, column: str) -> float:
        value, unit = value_in(entry, column), self.columns.dwell_unit or "seconds"
        seconds = as_seconds(f"column {column!r}", value, unit=unit)
        self._require_one_mark(column, value)
        if self.columns.dwell_unit is None and not (isinstance(value, str) and re.search("[a-z:]", value.lower())):
            self._dwells += 1
            self._long_dwells += seconds >= _LONG_DWELL
        if seconds > _LONGEST_DWELL:
            raise InputError(
                f"column {column!r} is {brief(value)}, longer than a day in {unit}: give dwell_unit if it is another"
            )
        return seconds

    def _require_one_mark(self, column: str, value: Any) -> None:
        """Refuse "1.234" in a column of "0,87": the point may part thousands there."""
        mark = "" if not isinstance(value, str) else "," if "," in value else "." if "." in value else ""
        if mark and self._marks.setdefault(column, mark) != mark:
            raise InputError(f"column {column!r} is {brief(value)}, and other rows have the other decimal mark")

    def events(self, entry: Fields) -> Iterator[tuple[str, float]]:
        """Each kind of feedback in a row, with its value."""
        feedback = self.columns.feedback
        for kind, column in feedback.items():
            if kind == "down" and feedback.get("up") == column:
                continue  # a column of votes was read with `up`
            name, _, word = column.partition("=")
            if word and not _has(entry, column):
                said = value_in(entry, name)
                if folded(str(said)).strip() == folded(word).strip():
                    self._words_found.add(column)
                    yield kind, 1.0
                elif not is_missing(said) and len(self._other_words) < _MOST_NAMES:
                    self._other_words.setdefault(folded(str(said)[:100]).strip(), brief(said))
                continue
            value = value_in(entry, column)
            if is_missing(value):
                continue
            if kind in ("dwell", "rating"):
                yield kind, self.dwell(entry, column) if kind == "dwell" else self.amount(entry, column)
            elif column == self.columns.hit:
                self._require_nothing_else_said(entry, kind)
                yield kind, 1.0
            else:
                said = self._said(kind, column, value)
                if said is not None:
                    yield said, 1.0

    def _said(self, kind: str, column: str, value: Any) -> str | None:
        """The kind of event that a cell of a column of flags or votes records."""
        name = f"column {column!r}"
        if kind in ("up", "down"):
            both = self.columns.feedback.get("up") == self.columns.feedback.get("down")
            vote = as_vote(name, value, yes=kind == "up", no=False if both else None)
            return None if vote is None else "up" if vote else "down"
        try:
            return kind if as_flag(name, value, counts=kind == "click") else None
        except InputError as error:
            if isinstance(value, str) and value.strip().isalpha():
                way = json.dumps({kind: f"{column}={kind}"})
                raise InputError(f"{error}; if the column names what happened, write feedback={way}") from error
            raise

    def _require_nothing_else_said(self, entry: Fields, kind: str) -> None:
        """Where every entry is a click: none that says that it is another event."""
        level: Level = "row" if self.columns.hits is None else "event"
        for name, value in entry.items():
            if name in self._known[level] or is_missing(value):
                continue
            words = words_in_name(str(name))
            says_no_click = not _ANYTHING.isdisjoint(words) and _bare(str(value)[:20]) in _NO_CLICKS
            if _EVENTS.isdisjoint(words) and not says_no_click:
                continue
            if folded(str(value)).strip() not in (kind, f"{kind}ed", "true", "1"):
                raise InputError(
                    f"every row is taken for a {kind}, and the field {brief(name)} says {brief(value)}: name it in "
                    f"`feedback`, for example {json.dumps({kind: f'{name}={kind}'})}"
                )

    def entries(self, row: Row, level: Literal["hit", "event"]) -> list[Fields]:
        """The objects of a list in a row; plain ids stand for objects with nothing else."""
        column = (self.columns.hits if level == "hit" else self.columns.events) or ""
        value = value_in(row.values, column)
        if is_absent(value) and (level == "event" or ending(row.path) not in (".jsonl", ".json")):
            value = []
        found = [
            entry if isinstance(entry, Mapping) else {self.columns.hit: entry} for entry in self._list(column, value)
        ]
        for entry in found:
            self._look(level, entry, f"{column}[].")
        return found

    def _list(self, column: str, value: Any, shown: Collection[str] = ()) -> list[Any]:
        """The list in a cell. One that is a hit in `shown`, whole, is that one; the sign of the hits parts others."""
        if isinstance(value, str) and value.strip() in shown:
            return [value.strip()]
        if isinstance(value, str) and not is_absent(value):
            usual = self._parted.get(column)
            if usual is None and shown and (sign := self._parted.get(self.columns.hits or "")) is not None:
                usual = sign if sign in value or not any(other in value for other in SEPARATORS) else None
            cell = list_in(f"column {column!r}", value, separator=self.columns.separator, usual=usual)
            if cell.parted_by:
                self._parted[column] = cell.parted_by
            # a cell that is no list in any case: any other row that has several settles it
            if cell.parted_by is None and column not in self._parted:
                self._lone[column] += 1
            else:
                self._lone[column] = -MOST_ROWS * 10**6
            value = cell.entries
        if not isinstance(value, list) or not all(isinstance(entry, (Mapping, str, int, float)) for entry in value):
            hint = ": leave out the rows that are no searches" if value is None else ""
            raise InputError(f"column {column!r} is {type(value).__name__}, expected a list of objects or ids{hint}")
        if len(value) > MOST_ROWS:
            raise InputError(f"more than {MOST_ROWS:,} rows of one search, which no user saw")
        return value

    def listed_feedback(self, row: Row, hits: list[Fields]) -> Iterator[Fields]:
        """What a row says of its hits itself: the ids, or ranks, of those that were clicked. An entry for each."""
        listed: dict[str, list[Any]] = {}
        shown = [value_in(entry, self.columns.hit) for entry in hits]
        names = frozenset(str(each).strip() for each in shown)
        for kind, column in self.columns.feedback.items():
            inside = any(_has(entry, column) for entry in hits)
            if inside or column in (self.columns.hit, self.columns.hits) or not _has(row.values, column):
                continue
            self._lost["hit"].pop(column, None)
            self._known["row"] |= {column}
            self.unread.pop(column, None)
            value = value_in(row.values, column)
            if not is_missing(value) and value is not False:
                named = names if self.columns.feedback_by == "id" and kind not in ("dwell", "rating") else ()
                listed[kind] = self._list(column, value if isinstance(value, (str, list)) else [value], named)
        for kind, values in listed.items():
            if kind in ("dwell", "rating"):
                continue
            for place, value in enumerate(values):
                entry = {self.columns.hit: self._named(kind, value, shown), self.columns.feedback[kind]: True}
                if kind == "click":
                    entry |= self._beside_clicks(listed, place, len(values))
                if self.columns.event_at is not None:
                    entry[self.columns.event_at] = value_in(row.values, self.columns.event_at)
                yield entry
        lone = next((kind for kind in ("dwell", "rating") if listed.get(kind) and not listed.get("click")), None)
        if lone is not None:
            raise InputError(
                f"column {self.columns.feedback[lone]!r} is {brief(listed[lone])}, and no click says of which hit"
            )

    def _beside_clicks(self, listed: Mapping[str, list[Any]], place: int, clicks: int) -> dict[str, Any]:
        """The dwell and the rating that a row lists for the click at a place of its list."""
        beside = {}
        for kind in ("dwell", "rating"):
            values = listed.get(kind)
            if not values:
                continue
            column = self.columns.feedback[kind]
            if len(values) != clicks:
                raise InputError(
                    f"column {column!r} has {len(values)} values for {clicks} clicks, expected one for each"
                )
            beside[column] = values[place]
        return beside

    def _named(self, kind: str, value: Any, shown: list[Any]) -> Any:
        """The hit that a value in the row of its search names."""
        column, names = self.columns.feedback[kind], {str(each).strip() for each in shown}
        if isinstance(value, Mapping):
            raise InputError(f"column {column!r} lists objects: name it `events`, and in `feedback` the field of each")
        if self.columns.feedback_by == "rank":
            rank = as_rank(f"column {column!r}", value, first=self.columns.rank_from)
            if rank > len(shown):
                raise InputError(f"column {column!r} is {brief(value)}, and the search showed {len(shown)} hits")
            return shown[rank - 1]
        if str(value).strip() in names:
            return value
        try:
            is_flag = as_flag("", value, counts=True) is not None
        except InputError:
            return value
        if is_flag:
            raise InputError(
                f"column {column!r} is {brief(value)}, expected ids of hits that were shown"
                + ("; if it is the rank of the hit, say feedback_by=rank" if _RANK.fullmatch(str(value)) else "")
            )
        return value


_NOWHERE = object()


def value_in(row: Fields, column: str) -> Any:
    value = _found(row, column)
    return None if value is _NOWHERE else value


def _has(row: Fields, column: str) -> bool:
    return _found(row, column) is not _NOWHERE


def _found(row: Fields, column: str) -> Any:
    """What a path leads to. Names may have dots of their own, as those of OpenTelemetry's attributes."""
    if column in row:
        return row[column]
    place = column.find(".")
    while place > 0:
        inner = row.get(column[:place])
        if isinstance(inner, Mapping) and (value := _found(inner, column[place + 1 :])) is not _NOWHERE:
            return value
        place = column.find(".", place + 1)
    return _NOWHERE


def _why_no_column(row: Fields) -> str:
    """What a header seems to be, where it is no row of names."""
    names = list(row)
    if len(names) == 1 and "|" in names[0]:
        return ": they are parted by |, write them with commas (psql --csv)"
    if names and all(len(name) > 1 and name[0] == name[-1] == '"' for name in names):
        return ": in a .tsv a quote is a character like any other, and a .csv may be parted by tabs: name the file so"
    return ""


def _column(mapped: str) -> str:
    """The column in "column" or "column=word"."""
    return mapped.partition("=")[0]


def text_in(row: Fields, column: str) -> str | None:
    """A text or a whole number; None where there is none."""
    value = value_in(row, column)
    if is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise lacking(row, column)
    if isinstance(value, str) and (told := _FORMULA.fullmatch(value.strip())) is not None:
        return told[1]
    try:
        return str(value)
    except ValueError as error:  # Python writes no number of more than 4,300 digits
        raise InputError(f"column {column!r} is a number of thousands of digits, expected a text") from error


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", folded(name))


def lacking(row: Fields, column: str) -> InputError:
    """The error for a cell that must not be empty."""
    cell = brief(value_in(row, column))
    return InputError(f"column {column!r} is {cell}, expected a text or whole number; columns: {names_in(row)}")


def names_in(row: Fields) -> str:
    return brief(sorted(map(str, row)))
