"""The tables of a log -> its searches, a page at a time, each row checked.

Guarantees: a page holds some hundred searches at most, and fewer where they are large; a row that we have not written
(another type, text that is not UTF-8, a time that is none, rows without end) is a `LogError` with its number, and never
a wrong search. Logs of earlier versions are read as they are. Does not know: what writes them.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.log.answers import COLUMNS, answer_of, read_time
from qdrant_tools.log.records import Answer, Feedback, LoggedHit, LoggedSearch, check_search, is_redacted
from qdrant_tools.log.store import LogStore, Row
from qdrant_tools.log.values import LONGEST_NAME, MOST_HITS, finite
from qdrant_tools.validation import brief

PAGE = 256
_MOST_CHARACTERS = 4_000_000
_MOST_ITEMS = 20_000
"""Hits, and events of feedback, of a page. More than one search has."""


def page_of(store: LogStore, after: int, collection: str | None) -> list[tuple[int, LoggedSearch]]:
    """Up to `PAGE` searches after a number, with their numbers: the order of writing.

    Raises:
        LogError: the file cannot be read, or a row is none of ours.
    """
    with store.snapshot():
        rows = _searches(store, after, collection)
        if not rows:
            return []
        first, last = rows[0][0], rows[-1][0]
        # by range instead of by join: one row per search and one per hit, not their product
        hits, last = _items(store, "hits", "hit_id, rank, score", "rank", (1,), first, last)
        # a log of version 1 has no numbers: the order of its key
        number = ", number" if store.version > 1 else ""
        columns, key = f"hit_id, kind, value, at{number}", "hit_id, kind, at, value"
        events, last = _items(store, "feedback", columns, key, (0, 1, 3, 2), first, last)
        return [
            (row[0], _search(store, row, hits.get(row[0], []), events.get(row[0], [])))
            for row in rows
            if row[0] <= last
        ]


def _searches(store: LogStore, after: int, collection: str | None) -> list[Row]:
    redacted = "redacted" if store.version > 2 else "NULL"
    more, answers = "", ""
    if store.has_answers:
        more = f", user, generated, scored_by, answer, {COLUMNS}"
        answers = "LEFT JOIN answers a ON a.seq = s.answer"
    sql = (
        f"SELECT s.seq, s.id, at, query, collection, space, {redacted}, {store.session}{more} "
        f"FROM searches s {answers} WHERE s.seq > ?1 AND (?2 IS NULL OR collection = ?2) ORDER BY s.seq LIMIT ?3"
    )
    found: list[Row] = []
    characters, last = 0, after
    with closing(store.rows(sql, [after, collection, PAGE])) as rows:
        for row in rows:
            # a damaged file can give the same rows for ever
            if row[0] <= last:
                raise store.damaged("searches", row[0], "its rows are out of order")
            found.append(row)
            last = row[0]
            # the query; and the text and the lists of the answer
            characters += sum(
                len(row[at]) for at in (3, 14, 16, 17) if at < len(row) and isinstance(row[at], str | bytes)
            )
            if characters > _MOST_CHARACTERS:
                break
    return found


def _items(
    store: LogStore, table: str, columns: str, key: str, places: tuple[int, ...], first: int, last: int
) -> tuple[dict[int, list[Row]], int]:
    """Rows of the searches of a range, by the number of the search; and the last search of which all were read.

    `key`: the order of the table's key, which SQLite reads without sorting. `places`: where among the columns it is.
    """
    items: dict[int, list[Row]] = {}
    sql = f"SELECT seq, {columns} FROM {table} WHERE seq BETWEEN ? AND ? ORDER BY seq, {key}"
    total = 0
    before: tuple[Any, ...] = (first - 1,)
    with closing(store.rows(sql, [first, last])) as rows:
        for seq, *values in rows:
            group = items.setdefault(seq, [])
            # a damaged file can give the same rows for ever, as its tree may have one page at many places, and an index
            # can name rows that are not there
            place = (seq, *(values[index] for index in places))
            if not isinstance(seq, int) or not _is_behind(place, before) or len(group) == MOST_HITS:
                raise store.damaged(table, seq, f"rows out of order, or more than {MOST_HITS:,} of one search")
            total, before = total + 1, place
            if total > _MOST_ITEMS:
                del items[seq]
                return items, seq - 1
            if not isinstance(values[0], str) or len(values[0]) > LONGEST_NAME:
                raise store.damaged(table, seq, "its passage has no id")
            group.append(tuple(values))
    return items, last


def _is_behind(place: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    try:
        return place > before
    except TypeError:  # another type in a column
        return False


def _search(store: LogStore, row: Row, hits: list[Row], events: list[Row]) -> LoggedSearch:
    seq, search_id, at, query, collection, space, redacted, session, *more = row
    try:
        # equal times in the order of writing, which is the last column
        events.sort(key=lambda event: (str(event[3]), *event[4:]))
        search = LoggedSearch(
            search_id,
            read_time(at),
            query,
            collection,
            space,
            tuple(LoggedHit(passage, rank, finite(score)) for passage, rank, score in hits),
            tuple(Feedback(passage, kind, value, read_time(moment)) for passage, kind, value, moment, *_ in events),
            is_redacted(query) if redacted is None else _flag(redacted),
            session,
            *_of_answers(store, more),
        )
        check_search(search)
        if len({hit.rank for hit in search.hits}) < len(hits):
            raise InputError("two hits of one rank")
    except (InputError, TypeError) as error:
        raise store.damaged("searches", seq, error) from error
    return search


def _of_answers(store: LogStore, more: list[Any]) -> tuple[str, bool, str, Answer | None]:
    """User, generated, owner of the scores and answer; an earlier version knows none of them."""
    if not more:
        return "", False, "", None
    user, generated, scored_by, number, *answer = more
    if number is None:
        return user, _flag(generated), scored_by, None
    if answer[0] is None:
        raise InputError("its answer is not there")
    return user, _flag(generated), scored_by, answer_of(store, tuple(answer))


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise InputError(f"a flag is {brief(value)}, expected 0 or 1")
    return bool(value)
