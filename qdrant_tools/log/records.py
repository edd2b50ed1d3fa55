"""One logged search: its query, the hits as they were shown, and what the user did with them.

Row: `{"id","at","session","query","redacted","collection","space","hits":[{"id","rank","score"}],
"feedback":[{"id","kind","value","at"}]}` with times in ISO 8601, and, where they are known,
`"user","generated","scored_by","answer":{"id","text","searches","context","cited","verdicts":[{"kind","value","at",
"by","name","who","text"}]}`. `dropped` and `hashed` are rules for `RetrievalLog(redact=...)` and `RetrievalLog.redact`:
they take the personal text out of a query and an answer, and the name of a session or user, which may be that of a
person.

Guarantees: `from_row(as_row())` is the same search; a row that is none is refused with the field's name, whatever its
numbers and however many its hits; a redacted query is recognised as one, and what a user typed is not. Does not know:
files.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.log.values import (
    MOST_HITS,
    MOST_RANK,
    as_count,
    as_number,
    as_rank,
    as_score,
    check_name,
    names_of,
    objects_of,
    string_of,
)
from qdrant_tools.validation import brief, checked_number

REDACTED = "redacted:"
"""What stands in place of a redacted query: this, with or without a hash behind it."""
_REDACTED = re.compile(f"{REDACTED}(?:[0-9a-f]{{32}})?")

MOST_VERDICTS = 1000
"""Of one answer."""
LONGEST_COMMENT = 65_536
"""Characters of what somebody wrote about an answer."""

KINDS = {
    "click": "the hit was opened",
    "dwell": "seconds spent with it",
    "up": "thumb up",
    "down": "thumb down",
    "cited": "an answer was built on it",
    "rating": "a grade, 0 is not relevant",
    "judged": "a language model's grade of the hit for the query, from 0 to 1",
    "reranked": "the score that a reranker gave the hit; scores of one search compare, those of two do not",
}

BY_MACHINES = ("judged", "reranked")
"""Kinds of feedback that no user gave."""

VERDICTS = {
    "thumb": "1 is up, 0 is down",
    "score": "a grade of the answer, from 0 to 1",
    "comment": "what somebody wrote",
}
"""What can be said of an answer. None of it is said of the passages that the answer was made from."""

JUDGES = ("person", "judge", "code")
"""Who says it: a person, a language model, a program."""


@dataclass(frozen=True)
class LoggedHit:
    """A hit as shown; `rank` starts at 1. Logs of other systems may have no score."""

    id: str
    rank: int
    score: float | None = None


@dataclass(frozen=True)
class Feedback:
    """What a user did with the hit `id`; `kind` is one of `KINDS`."""

    id: str
    kind: str
    value: float
    at: datetime


@dataclass(frozen=True)
class Verdict:
    """What somebody said of a whole answer: `kind` is one of `VERDICTS`, `by` one of `JUDGES`.

    `name` is that of the question ("user_feedback"), `who` tells the people apart (a hash). A later verdict of one
    kind, name and person replaces an earlier one.
    """

    kind: str
    value: float
    at: datetime
    by: str = "person"
    name: str = ""
    who: str = ""
    text: str = ""
    """Of a comment."""

    def as_row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"kind": self.kind, "value": self.value, "at": self.at.isoformat(), "by": self.by}
        return row | {name: getattr(self, name) for name in ("name", "who", "text") if getattr(self, name)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Verdict:
        """Read a row. Raises `InputError`: a field is missing or has the wrong type."""
        return cls(
            string_of(row, "kind"),
            as_number("value", row.get("value", 1.0)),
            _time(row, "at"),
            string_of(row, "by", "person"),
            string_of(row, "name", ""),
            string_of(row, "who", ""),
            string_of(row, "text", ""),
        )


@dataclass(frozen=True)
class Answer:
    """The answer that an application gave, made of what one or several searches found.

    `searches` is how many: of more than one, nobody knows which of them a verdict is about. `context` has the passages
    that the language model saw, in that order, as far as they are known; () is unknown. `cited` has the passages that
    the text refers to, as far as a reference can be followed.
    """

    id: str
    text: str = ""
    searches: int = 1
    context: tuple[str, ...] = ()
    cited: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    def as_row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "text": self.text,
            "searches": self.searches,
            "context": list(self.context),
            "cited": list(self.cited),
            "verdicts": [verdict.as_row() for verdict in self.verdicts],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Answer:
        """Read a row. Raises `InputError`: a field is missing or has the wrong type."""
        return cls(
            string_of(row, "id"),
            string_of(row, "text", ""),
            as_count("searches", row.get("searches", 1)),
            names_of(row, "context"),
            names_of(row, "cited"),
            tuple(Verdict.from_row(verdict) for verdict in objects_of(row, "verdicts", MOST_VERDICTS)),
        )


@dataclass(frozen=True)
class LoggedSearch:
    """One search. Hits are in the order shown, feedback is in the order of time.

    `redacted` says that a rule has taken the text out of the query. The text alone does not: a user may type any.
    `session` names the searches that belong together, and are not independent of each other; "" where nobody knows.
    `user` tells the people apart, by a hash. `generated` says that a language model wrote the query, and no user.
    `scored_by` names whose the scores of the hits are ("retriever", "fusion", "reranker"), which do not compare.
    `answer` is what the application made of the hits.
    """

    id: str
    at: datetime
    query: str
    collection: str = ""
    space: str = ""
    hits: tuple[LoggedHit, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    redacted: bool = False
    session: str = ""
    user: str = ""
    generated: bool = False
    scored_by: str = ""
    answer: Answer | None = None

    def as_row(self) -> dict[str, Any]:
        row = {
            "id": self.id,
            "at": self.at.isoformat(),
            "session": self.session,
            "query": self.query,
            "redacted": self.redacted,
            "collection": self.collection,
            "space": self.space,
            "hits": [{"id": hit.id, "rank": hit.rank, "score": hit.score} for hit in self.hits],
            "feedback": [
                {"id": event.id, "kind": event.kind, "value": event.value, "at": event.at.isoformat()}
                for event in self.feedback
            ],
        }
        # what most logs have not is no field of theirs, and an earlier version reads them
        known = {"user": self.user, "generated": self.generated, "scored_by": self.scored_by}
        row |= {name: value for name, value in known.items() if value}
        return row if self.answer is None else row | {"answer": self.answer.as_row()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> LoggedSearch:
        """Read a row; a missing time of feedback is the time of its search.

        Raises:
            InputError: a field is missing or has the wrong type.
        """
        if not isinstance(row, Mapping):
            raise InputError(f"a row is {type(row).__name__}, expected an object")
        at = _time(row, "at")
        query = string_of(row, "query")
        search = cls(
            string_of(row, "id"),
            at,
            query,
            string_of(row, "collection", ""),
            string_of(row, "space", ""),
            tuple(
                LoggedHit(string_of(hit, "id"), as_rank(hit.get("rank")), as_score(hit.get("score")))
                for hit in objects_of(row, "hits")
            ),
            tuple(
                Feedback(
                    string_of(event, "id"),
                    string_of(event, "kind"),
                    as_number("value", event.get("value", 1.0)),
                    _time(event, "at") if "at" in event else at,
                )
                for event in objects_of(row, "feedback")
            ),
            # exports of earlier versions say it by the text alone
            row.get("redacted", is_redacted(query)),
            string_of(row, "session", ""),
            string_of(row, "user", ""),
            row.get("generated", False),
            string_of(row, "scored_by", ""),
            _answer_of(row),
        )
        check_search(search)
        return search


def check_search(search: LoggedSearch) -> None:
    """Refuse what no search can be: names without end, too many hits, a rank that is no place in a ranking.

    Raises:
        InputError: the message names the field and never quotes the query.
    """
    for name in ("id", "session", "collection", "space", "user", "scored_by"):
        check_name(name, getattr(search, name))
    if not isinstance(search.query, str):
        raise InputError(f"query is {type(search.query).__name__}, expected a string")
    if not isinstance(search.redacted, bool) or (search.redacted and not is_redacted(search.query)):
        raise InputError(f"redacted is {brief(search.redacted)}, which the query does not look like")
    for what, items in (("hits", search.hits), ("events of feedback", search.feedback)):
        if len(items) > MOST_HITS:
            raise InputError(f"search {brief(search.id)} has {len(items):,} {what}, expected at most {MOST_HITS:,}")
    for hit in search.hits:
        check_hit(hit)
    for event in search.feedback:
        check_feedback(event)
    if not isinstance(search.generated, bool):
        raise InputError(f"generated is {brief(search.generated)}, expected true or false")
    if search.answer is not None:
        check_answer(search.answer)


def check_answer(answer: Answer) -> None:
    """Refuse an answer without a name or without end, and verdicts that nobody can give.

    Raises:
        InputError: the message names the field and never quotes the answer.
    """
    check_name("id of an answer", answer.id)
    if not answer.id:
        raise InputError("the id of an answer is empty, expected a name of its own")
    if not isinstance(answer.text, str):
        raise InputError(f"text of an answer is {type(answer.text).__name__}, expected a string")
    as_count("searches of an answer", answer.searches)
    for what, items, most in (
        ("passages of its context", answer.context, MOST_HITS),
        ("citations", answer.cited, MOST_HITS),
        ("verdicts", answer.verdicts, MOST_VERDICTS),
    ):
        if len(items) > most:
            raise InputError(f"answer {brief(answer.id)} has {len(items):,} {what}, expected at most {most:,}")
    for passage in (*answer.context, *answer.cited):
        check_name("id of a passage of an answer", passage)
    for verdict in answer.verdicts:
        check_verdict(verdict)


def check_verdict(verdict: Verdict) -> None:
    """Refuse a kind or a judge that does not exist, and a value that the kind cannot have. Raises `InputError`."""
    if not isinstance(verdict.kind, str) or verdict.kind not in VERDICTS:
        raise InputError(f"a verdict is {brief(verdict.kind)}, expected one of {', '.join(VERDICTS)}")
    if not isinstance(verdict.by, str) or verdict.by not in JUDGES:
        raise InputError(f"a verdict is by {brief(verdict.by)}, expected one of {', '.join(JUDGES)}")
    for name in ("name", "who"):
        check_name(f"{name} of a verdict", getattr(verdict, name))
    if not isinstance(verdict.text, str) or len(verdict.text) > LONGEST_COMMENT:
        raise InputError(f"a comment is {brief(verdict.text)}, expected a text of at most {LONGEST_COMMENT:,}")
    checked_number("value of a verdict", verdict.value)
    if verdict.kind == "thumb" and verdict.value not in (0, 1):
        raise InputError(f"a thumb is {verdict.value:g}, expected 1 (up) or 0 (down)")
    if verdict.kind == "score" and not 0 <= verdict.value <= 1:
        raise InputError(f"a score of an answer is {verdict.value:g}, expected a number from 0 to 1")


def check_hit(hit: LoggedHit) -> None:
    """Refuse a hit without a usable id, rank or score. Raises `InputError`."""
    check_name("id of a hit", hit.id)
    # most are, and logs have millions
    if type(hit.rank) is not int or not 1 <= hit.rank <= MOST_RANK:
        as_rank(hit.rank)
    if hit.score is not None and (type(hit.score) is not float or not math.isfinite(hit.score)):
        as_score(hit.score)


def check_feedback(event: Feedback) -> None:
    """Refuse a kind that does not exist, and a value that the kind cannot have.

    Raises:
        InputError: the message names the kind or the value.
    """
    check_name("id of feedback", event.id)
    if not isinstance(event.kind, str) or event.kind not in KINDS:
        raise InputError(f"feedback kind is {brief(event.kind)}, expected one of {', '.join(KINDS)}")
    checked_number("feedback value", event.value)
    if event.kind == "dwell" and event.value < 0:
        raise InputError(f"dwell is {event.value}, expected seconds of at least 0")


def as_time(at: datetime | None) -> datetime:
    """The time in UTC; now, if there is none.

    Raises:
        InputError: the time has no time zone, so it names no moment, or is outside of the years 1 to 9999 in UTC.
    """
    if at is None:
        return datetime.now(UTC)
    if at.tzinfo is None:
        raise InputError(f"the time {at.isoformat()} has no time zone, expected one such as {at.isoformat()}+00:00")
    try:
        return at.astimezone(UTC)  # year 1 or 9999 can leave the calendar on its way to UTC
    except OverflowError as error:
        raise InputError(f"the time {at.isoformat()} is outside of the years 1 to 9999 in UTC") from error


def dropped(query: str) -> str:
    """A rule: nothing remains of the query."""
    return REDACTED


def hashed(secret: str) -> Callable[[str], str]:
    """A rule: queries cannot be read, and equal ones stay equal, so that they can be counted or fit a click model.

    The hash is keyed: without the secret, a guessed query cannot be checked against the log either.

    Raises:
        InputError: the secret is shorter than 16 characters.
    """
    if len(secret) < 16:
        raise InputError(f"the secret has {len(secret)} characters, expected at least 16 that nobody can guess")
    key = secret.encode("utf-8", "surrogatepass")

    def rule(query: str) -> str:
        return REDACTED + hmac.new(key, query.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    return rule


def is_redacted(query: str) -> bool:
    """Whether a text is one that `dropped` or `hashed` leaves. A user can type it: see `LoggedSearch.redacted`."""
    return _REDACTED.fullmatch(query) is not None


def redacted_by(rule: Callable[[str], str], query: str, redacted: bool) -> tuple[str, bool]:
    """What a rule makes of a query that is redacted already or not, and whether the result is redacted."""
    text = rule(query)
    if not isinstance(text, str):
        raise InputError(f"the rule that redacts returned {type(text).__name__}, expected a string")
    if redacted and text != REDACTED and is_redacted(text):
        return query, True  # twice is once: a hash of a hash would be another query
    # a rule of one's own may leave a query as it is, whatever it looks like
    return text, is_redacted(text) and (redacted or text != query or rule is dropped)


def answer_redacted_by(rule: Callable[[str], str], text: str) -> str:
    """What a rule makes of an answer, or of a comment on one: a hash of it is of no use, so that nothing is left."""
    if not text:
        return ""
    result, is_gone = redacted_by(rule, text, False)
    return "" if is_gone else result


def verdict_redacted_by(rule: Callable[[str], str], verdict: Verdict) -> Verdict:
    """What a rule makes of what somebody said, and of who it was."""
    who, text = session_redacted_by(rule, verdict.who), answer_redacted_by(rule, verdict.text)
    return replace(verdict, who=who, text=text)


def search_redacted_by(rule: Callable[[str], str], search: LoggedSearch) -> LoggedSearch:
    """What a rule makes of all personal texts of a search. Who searched is still told apart as far as hashes are."""
    query, redacted = redacted_by(rule, search.query, search.redacted)
    answer = search.answer
    if answer is not None:
        verdicts = tuple(verdict_redacted_by(rule, verdict) for verdict in answer.verdicts)
        answer = replace(answer, text=answer_redacted_by(rule, answer.text), verdicts=verdicts)
    session, user = session_redacted_by(rule, search.session), session_redacted_by(rule, search.user)
    return replace(search, query=query, redacted=redacted, session=session, user=user, answer=answer)


def session_redacted_by(rule: Callable[[str], str], session: str) -> str:
    """What a rule makes of the name of a session or a user: nothing, or a hash that still tells them apart."""
    if not session:
        return ""
    text = rule(session)
    if not isinstance(text, str):
        raise InputError(f"the rule that redacts returned {type(text).__name__}, expected a string")
    # one name for all would make one session of them
    if text == REDACTED:
        return ""
    return session if is_redacted(session) else text


def _answer_of(row: Mapping[str, Any]) -> Answer | None:
    answer = row.get("answer")
    if answer is None:
        return None
    if not isinstance(answer, Mapping):
        raise InputError(f"field 'answer' is {brief(answer)}, expected an object")
    return Answer.from_row(answer)


def _time(row: Mapping[str, Any], key: str) -> datetime:
    text = string_of(row, key)
    try:
        return as_time(datetime.fromisoformat(text))
    except ValueError as error:
        expected = "a time such as 2025-01-31T12:00:00+00:00"
        raise InputError(f"field {key!r} is {brief(text)}, expected {expected}") from error
