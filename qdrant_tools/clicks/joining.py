"""Who asked and what was done, in any order of rows and files -> searches with their clicks.

What is joined waits in a temporary database that the system has unlinked: memory does not grow with the logs, and a
process that is killed leaves nothing. Of one id with several lists, or several queries, each is a search; an action
goes to the latest of them that showed its hit. Without ids it goes to the latest search of its session, of the same
query where rows repeat it, within half an hour.

Guarantees: a hit that nobody says was shown is never made the only one that was: such a search has no hits, and its
clicks count where a position is not needed. A list that contradicts the positions of its clicks is none. What is left
out is counted by reason. The same rows give the same ids of searches. Does not know: forms, files.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from tempfile import gettempdir
from typing import Any

from qdrant_tools.clicks.records import Asked, ClickForm, ClickSettings, Done, Judged
from qdrant_tools.errors import LogError
from qdrant_tools.log.records import Feedback, LoggedHit, LoggedSearch
from qdrant_tools.log.values import MOST_HITS
from qdrant_tools.same import folded, id_key, query_key
from qdrant_tools.traces.trees import pseudonym

_AT_ONCE = 1000
"""Rows that are written to the temporary database together."""
MOST_ROWS = 100_000
"""Of one search, or of one session: nobody does more."""
MOST_LISTS = 100
"""Of one id: pages, or queries under an id that is rather that of a session."""
WINDOW = timedelta(minutes=30)
"""Between a search and a click on one of its hits, where only the time joins them: the usual end of a session."""
_MOST_OPEN = 20
"""Searches of a session to which a click may belong."""
_SKEW = timedelta(seconds=5)
"""By which the clock of a browser may be before that of the server."""


class Waiting:
    """Rows that wait for the others of their search."""

    def __init__(self) -> None:
        self._new: list[tuple[bytes, float | None, str]] = []
        with _errors():
            self._database = sqlite3.connect("", isolation_level=None)
            for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16000", "temp_store = FILE"):
                self._database.execute(f"PRAGMA {setting}")
            self._database.execute("CREATE TABLE waiting (key BLOB, at REAL, what TEXT)")
            self._database.execute("BEGIN")

    def add(self, entry: Asked | Done) -> None:
        key = hashlib.blake2b(entry.key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        at = None if entry.at is None else entry.at.timestamp()
        self._new.append((key, at, _packed(entry)))
        if len(self._new) >= _AT_ONCE:
            self._write()

    def _write(self) -> None:
        with _errors():
            self._database.executemany("INSERT INTO waiting VALUES (?, ?, ?)", self._new)
        self._new.clear()

    def groups(self) -> Iterator[tuple[list[Asked | Done], int]]:
        """The rows of each key by time, and how many more there were; the keys in the order of their first time."""
        self._write()
        with _errors():
            self._database.execute("CREATE INDEX by_key ON waiting (key, at)")
            self._database.execute(
                "CREATE TABLE keys AS SELECT key, count(*) AS n FROM waiting GROUP BY key ORDER BY min(at), min(rowid)"
            )
        after = 0
        while keys := self._read("SELECT rowid, key, n FROM keys WHERE rowid > ? ORDER BY rowid LIMIT 1000", (after,)):
            after = keys[-1][0]
            for _, key, count in keys:
                rows = self._read(
                    f"SELECT what FROM waiting WHERE key = ? ORDER BY at, rowid LIMIT {MOST_ROWS}", (key,)
                )
                yield [_unpacked(what) for (what,) in rows], max(0, count - MOST_ROWS)

    def _read(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with _errors():
            return self._database.execute(sql, values).fetchall()

    def close(self) -> None:
        self._database.close()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LogError(
            f"the rows that wait for the rest of their search cannot be kept in the folder for temporary files "
            f"({error}): make room in {gettempdir()}, or name another folder in SQLITE_TMPDIR"
        ) from error


_ASKED, _DONE = ([each.name for each in fields(kind) if each.name != "at"] for kind in (Asked, Done))


def _packed(entry: Asked | Done) -> str:
    names = _ASKED if isinstance(entry, Asked) else _DONE
    at = None if entry.at is None else entry.at.isoformat()
    return json.dumps([isinstance(entry, Asked), at, *(getattr(entry, name) for name in names)])


def _unpacked(text: str) -> Asked | Done:
    is_asked, at, *values = json.loads(text)
    values = [tuple(found) if isinstance(found, list) else found for found in values]
    named = dict(zip(_ASKED if is_asked else _DONE, values), at=None if at is None else datetime.fromisoformat(at))
    return Asked(**named) if is_asked else Done(**named)


class _Draft:
    """A search that is being put together."""

    def __init__(self, asked: Asked, *done: Done) -> None:
        self.asked, self.done = asked, list[Done]()
        self.latest = asked.at
        """When something happened in it last."""
        self._shown = {id_key(hit) for hit in asked.hits or ()}
        self._touched: set[str] = set()
        for row in done:
            self.add(row)

    def add(self, row: Done) -> None:
        self.done.append(row)
        self._touched.update(row.ids)
        if row.at is not None:
            self.latest = row.at if self.latest is None else max(self.latest, row.at)

    def list(self, row: Asked) -> None:
        """Take the list of a row."""
        self.asked = replace(self.asked, hits=row.hits, first=row.first)
        self._shown = {id_key(hit) for hit in row.hits or ()}

    def shows(self, ids: tuple[str, ...]) -> bool:
        return any(id_key(each) in self._shown for each in ids)

    def has(self, ids: tuple[str, ...]) -> bool:
        """Whether it showed one of the hits, or something was done with one before."""
        return self.shows(ids) or not self._touched.isdisjoint(ids)


class Joiner:
    """The searches of the rows of one form, and what was left out, by reason."""

    def __init__(self, form: ClickForm, settings: ClickSettings, default: datetime) -> None:
        self.form, self.settings, self._default = form, settings, default
        self.dropped: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        """Actions that are no feedback, by name."""
        self.counts: Counter[str] = Counter()
        self.indexes: Counter[str] = Counter()
        """What the engine calls the places that were searched: other names than those of collections here."""
        self._kinds = {folded(action): "click" for action in settings.click or form.clicks}
        for kind, actions in (("up", settings.up), ("down", settings.down)):
            self._kinds |= {folded(action): kind for action in actions}
        self.told = {folded(action) for action in (*settings.click, *settings.up, *settings.down)}
        """The names that were given, without those that were found."""
        self._waiting = Waiting()

    def add(self, entry: Asked | Done) -> None:
        if isinstance(entry, Done):
            kind = self._kinds.get(folded(entry.action))
            self.told.discard(folded(entry.action))
            if kind is None and entry.seconds is None:
                self.actions[entry.action[:100] if len(self.actions) < 1000 else "others"] += 1
                if entry.query is None:
                    return
        self._waiting.add(entry)

    def searches(self) -> Iterator[LoggedSearch]:
        try:
            for rows, more in self._waiting.groups():
                self.dropped["more rows of one search or session than anybody makes"] += more
                by_id = self.form.joined_by == "id"
                drafts = self._by_id(rows) if by_id else self._by_time(rows)
                for number, draft in enumerate(drafts):
                    search = self._search(draft, number)
                    if search is not None:
                        yield search
        finally:
            self._waiting.close()

    def _by_id(self, rows: list[Asked | Done]) -> list[_Draft]:
        done = [row for row in rows if isinstance(row, Done)]
        lists = _merged([row for row in rows if isinstance(row, Asked)])
        self.dropped["more lists or queries of one id than anybody sees"] += max(0, len(lists) - MOST_LISTS)
        drafts = [_Draft(asked) for asked in lists[:MOST_LISTS]]
        if not drafts:
            repeated = next((row for row in done if row.query), None)
            if repeated is None:
                self.dropped[f"actions of a search that no file has: {self.form.hint}"] += len(done)
                return []
            drafts = [_Draft(_asked_by(repeated))]
        self.counts["ids of several lists or queries"] += len(drafts) > 1
        for row in done:
            of = [draft for draft in drafts if draft.shows(row.ids)] or drafts
            before = [draft for draft in of if _is_before(draft.asked.at, row.at)]
            (before or of[:1])[-1].add(row)
        return drafts

    def _by_time(self, rows: list[Asked | Done]) -> list[_Draft]:
        drafts: list[_Draft] = []
        for row in sorted(rows, key=_in_time):
            near = [draft for draft in drafts[-_MOST_OPEN:] if _is_near(draft, row.at)]
            if isinstance(row, Asked):
                self._ask(drafts, near[-1] if near else None, row)
            elif of := next((draft for draft in reversed(near) if self._is_of(draft, row)), None):
                of.add(row)
            elif row.query:
                drafts.append(_Draft(_asked_by(row), row))
            else:
                self.dropped[f"actions that no search of the session explains: {self.form.hint}"] += 1
        return drafts

    def _ask(self, drafts: list[_Draft], last: _Draft | None, row: Asked) -> None:
        """Begin a search, or tell the list of the one before."""
        if row.query is not None:
            is_same = last is not None and not last.done and last.asked.at == row.at and last.asked.hits == row.hits
            if not is_same:
                drafts.append(_Draft(row))
        elif last is not None and last.asked.hits is None:
            last.list(row)
        else:
            self.dropped["lists that no search of the session explains" if last is None else "further lists"] += 1

    def _is_of(self, draft: _Draft, row: Done) -> bool:
        """Whether an action is of a search that only the time names: a purchase is of what was clicked there."""
        kind = self._kinds.get(folded(row.action))
        if kind == "click" or row.query is not None:
            return row.hits is None or draft.asked.hits is None or row.hits == draft.asked.hits
        return draft.has(row.ids)

    def _search(self, draft: _Draft, number: int) -> LoggedSearch | None:
        asked = draft.asked
        if asked.query is None:
            reason = f"searches whose query no file has: {self.form.hint}"
            self.dropped[reason] += 1
            return None
        at = asked.at or min((row.at for row in draft.done if row.at), default=None)
        self.counts["searches without a time"] += at is None
        at = at or self._default
        hits = self._hits(draft)
        shown = {id_key(hit.id): hit.id for hit in hits}
        events = tuple(sorted(self._events(draft, shown, at), key=lambda event: event.at))
        if hits == () and asked.hits != () and not events:
            self.dropped["searches without a click, of which no file says what was shown"] += 1
            return None
        if asked.hits is None:
            self.counts["searches whose list no file has"] += 1
        elif hits:
            self.counts["actions on hits that the list does not have"] += sum(
                event.kind == "click" and id_key(event.id) not in shown for event in events
            )
        self.indexes[asked.index[:100] if len(self.indexes) < 1000 else "others"] += 1
        every: list[Asked | Done] = [asked, *draft.done]
        user = next((row.user for row in every if row.user), "")
        session = next((row.session for row in every if row.session), user)
        return LoggedSearch(
            self._id(asked, at, number),
            at,
            asked.query,
            hits=hits,
            feedback=events,
            session=pseudonym("session", session),
            user=pseudonym("user", user),
        )

    def _hits(self, draft: _Draft) -> tuple[LoggedHit, ...]:
        """The list with its ranks; () for one that is not known, or that its clicks contradict."""
        listed = list(dict.fromkeys(draft.asked.hits or ()))[:MOST_HITS]
        place = {id_key(hit): number for number, hit in enumerate(listed, start=1)}
        shifts = {
            rank - place[id_key(hit)]
            for row in draft.done
            for hit, rank in zip(row.ids, row.ranks)
            if id_key(hit) in place
        }
        first = draft.asked.first
        # a later page is told by the positions alone; two shifts, or one upwards, are those of another order
        if first == 1 and len(shifts) == 1 and min(shifts) > 0:
            first = 1 + shifts.pop()
        elif shifts - {0, first - 1}:
            self.counts["lists in another order than the positions of the clicks"] += 1
            return ()
        return tuple(LoggedHit(hit, rank) for rank, hit in enumerate(listed, start=first))

    def _events(self, draft: _Draft, shown: dict[str, str], at: datetime) -> Iterator[Feedback]:
        seen: set[Feedback] = set()
        for row in draft.done:
            kind = self._kinds.get(folded(row.action))
            ids = row.ids
            if row.same_hit:
                ids = next(((each,) for each in ids if id_key(each) in shown), ids[:1])
            for each in ids:
                hit = shown.get(id_key(each), each)
                for event in (
                    *([Feedback(hit, kind, 1.0, row.at or at)] if kind else []),
                    *([Feedback(hit, "dwell", row.seconds, row.at or at)] if row.seconds is not None else []),
                ):
                    if event not in seen and len(seen) < MOST_HITS:
                        seen.add(event)
                        yield event

    def _id(self, asked: Asked, at: datetime, number: int) -> str:
        # the id of the tool itself, so that what an application knows of its searches finds them
        if self.form.joined_by == "id" and number == 0:
            return asked.key
        parts = [self.form.name, asked.key, query_key(asked.query or ""), at.isoformat(), number]
        return _digest(parts if self.form.joined_by == "id" else parts[:-1])


def judged_search(judged: Judged, form: str, default: datetime) -> LoggedSearch:
    """A search without hits, whose feedback are the grades of a list of judgements."""
    at = judged.at or default
    events = tuple(Feedback(passage, judged.kind, grade, at) for passage, grade in judged.grades[:MOST_HITS])
    # of the grades too: two lists may judge one query
    return LoggedSearch(
        _digest([form, query_key(judged.query), judged.kind, judged.grades]), at, judged.query, feedback=events
    )


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _asked_by(row: Done) -> Asked:
    """The search that the row of an action repeats."""
    return Asked(row.key, row.query, row.at, row.hits, session=row.session, user=row.user, index=row.index)


def _merged(rows: list[Asked]) -> list[Asked]:
    """The searches of one id: a row that says only the words, or only the list, is one with the row that says both."""
    rows = _joined_parts(rows)
    queries = {query_key(row.query): row.query for row in rows if row.query is not None}
    if len(queries) == 1:
        query = next(iter(queries.values()))
        rows = [replace(row, query=query) for row in rows]
        listed = [row for row in rows if row.hits is not None]
        if listed and len(listed) < len(rows):
            earliest = min((row.at for row in rows if row.at is not None), default=None)
            rows = [replace(listed[0], at=earliest), *listed[1:]]
    found: dict[tuple[str | None, tuple[str, ...] | None], Asked] = {}
    for row in rows:
        found.setdefault((None if row.query is None else query_key(row.query), row.hits), row)
    return list(found.values())


def _joined_parts(rows: list[Asked]) -> list[Asked]:
    """The rows, with one list for all parts of it; none of the parts where a row has the whole list."""
    parts = [row for row in rows if row.part]
    whole = [row for row in rows if not row.part]
    if not parts:
        return rows
    if any(row.hits is not None for row in whole):
        # what is seen of a list says when it was shown, and to whom
        earliest = min((row.at for row in parts if row.at is not None), default=None)
        return [replace(row, at=row.at or earliest, user=row.user or parts[0].user) for row in whole]
    hits = tuple(dict.fromkeys(hit for row in parts for hit in row.hits or ()))
    return [*whole, replace(parts[0], hits=hits)]


def _in_time(row: Asked | Done) -> tuple[datetime, bool]:
    # what was shown comes before what was clicked at the same moment
    return row.at or datetime.min.replace(tzinfo=UTC), isinstance(row, Done)


def _is_before(asked: datetime | None, done: datetime | None) -> bool:
    return asked is None or done is None or asked <= done + _SKEW


def _is_near(draft: _Draft, at: datetime | None) -> bool:
    return draft.latest is None or at is None or at - draft.latest <= WINDOW
