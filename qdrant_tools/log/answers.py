"""Answers and verdicts <-> the tables of a log.

An answer stands once, however many searches it was made of. A verdict is one of each (answer, kind, judge, name,
person): a later one replaces an earlier one, and of one time the lower one stays, so that the order in which files are
imported decides nothing.

Guarantees: importing an answer twice changes nothing; what is known of an answer is never overwritten, only what is
missing filled in; a row that we have not written is an `InputError`. Does not know: searches, transactions, rules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.log.records import (
    MOST_VERDICTS,
    Answer,
    Verdict,
    answer_redacted_by,
    as_time,
    verdict_redacted_by,
)
from qdrant_tools.log.store import LogStore
from qdrant_tools.validation import brief

COLUMNS = ", ".join(f"a.{name}" for name in ("seq", "id", "text", "searches", "context", "cited"))
"""SQL: what `answer_of` reads, of `answers a`."""

_ADD = """
    INSERT INTO answers (id, text, searches, context, cited) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        text = iif(text = '', excluded.text, text),
        searches = max(searches, excluded.searches),
        context = iif(context = '[]', excluded.context, context),
        cited = iif(cited = '[]', excluded.cited, cited)
"""
_SAY = """
    INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at, text = excluded.text
    WHERE excluded.at > at OR (excluded.at = at AND excluded.value < value)
"""


def add_answer(store: LogStore, answer: Answer) -> tuple[int, int]:
    """Write an answer that is not there, fill in what is missing in one that is.

    Returns its number, and how many of its verdicts are new.
    """
    lists = (json.dumps(list(ids), ensure_ascii=False) for ids in (answer.context, answer.cited))
    store.write(_ADD, (answer.id, answer.text, int(answer.searches), *lists))
    ((seq,),) = store.read("SELECT seq FROM answers WHERE id = ?", [answer.id])
    return int(seq), add_verdicts(store, seq, answer.verdicts)


def add_verdicts(store: LogStore, seq: int, verdicts: Iterable[Verdict]) -> int:
    """Write what was said of the answer of a number; returns how many are new, or replace an earlier one.

    Raises:
        InputError: it has more verdicts than any answer has.
    """
    rows = [
        (seq, said.kind, said.by, said.name, said.who, float(said.value), stored_time(said.at), said.text)
        for said in verdicts
    ]
    if not rows:
        return 0
    new = store.write_many(_SAY, rows)
    ((count,),) = store.read("SELECT count(*) FROM verdicts WHERE seq = ?", [seq])
    if count > MOST_VERDICTS:
        raise InputError(f"an answer has {count:,} verdicts, expected at most {MOST_VERDICTS:,}")
    return new


def redact_answers(store: LogStore, numbers: Iterable[int], rule: Callable[[str], str]) -> None:
    """Replace texts, comments and people of the answers of these numbers by what the rule makes of them.

    Where nothing tells the people apart any more, the last of their verdicts stays.
    """
    for seq in numbers:
        for row in store.read(f"SELECT {COLUMNS} FROM answers a WHERE a.seq = ?", [seq]):
            try:
                answer = answer_of(store, row)
            except (InputError, TypeError) as error:
                raise store.damaged("answers", seq, error) from error
            store.write("UPDATE answers SET text = ? WHERE seq = ?", (answer_redacted_by(rule, answer.text), seq))
            store.write("DELETE FROM verdicts WHERE seq = ?", [seq])
            add_verdicts(store, seq, (verdict_redacted_by(rule, said) for said in answer.verdicts))


def drop_answers_of_no_search(store: LogStore) -> None:
    """Delete them with their verdicts: their searches were deleted, by us or by another program without care."""
    store.write("DELETE FROM answers WHERE seq NOT IN (SELECT answer FROM searches WHERE answer IS NOT NULL)")
    store.write("DELETE FROM verdicts WHERE seq NOT IN (SELECT seq FROM answers)")


def answer_of(store: LogStore, row: tuple[Any, ...]) -> Answer:
    """The answer of a row of `COLUMNS`, with its verdicts in the order of time.

    Raises:
        InputError: the row is none of ours.
    """
    seq, answer_id, text, searches, context, cited = row
    sql = f"SELECT kind, value, at, said_by, name, who, text FROM verdicts WHERE seq = ? LIMIT {MOST_VERDICTS + 1}"
    verdicts = [
        Verdict(kind, value, read_time(at), said_by, name, who, comment)
        for kind, value, at, said_by, name, who, comment in store.read(sql, [seq])
    ]
    verdicts.sort(key=lambda said: (said.at, said.kind, said.by, said.name, said.who))
    return Answer(answer_id, text, searches, _ids(context), _ids(cited), tuple(verdicts))


def stored_time(at: datetime) -> str:
    """A text of a fixed width, so that it sorts as the time does."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def read_time(text: Any) -> datetime:
    """The time of a stored text. Raises `InputError`: it is none."""
    try:
        return as_time(datetime.fromisoformat(text))
    except (TypeError, ValueError) as error:
        raise InputError(f"a time is {brief(text)}") from error


def _ids(text: Any) -> tuple[str, ...]:
    try:
        ids = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError("passages of an answer are no list") from error
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise InputError("passages of an answer are no list of ids")
    return tuple(ids)
