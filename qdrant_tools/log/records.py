"""One logged search: its query, the hits as they were shown, and what the user did with them.

Row: `{"id","at","query","collection","space","hits":[{"id","rank","score"}],"feedback":[{"id","kind","value","at"}]}`
with times in ISO 8601. `dropped` and `hashed` are rules for `RetrievalLog(redact=...)` and `RetrievalLog.redact`: they
take the personal text out of a query.

Guarantees: `from_row(as_row())` is the same search; a row that is none is refused with the field's name; a redacted
query is recognised as one. Does not know: files.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qdrant_tools.errors import InputError

REDACTED = "redacted:"
"""How a redacted query begins."""

KINDS = {
    "click": "the hit was opened",
    "dwell": "seconds spent with it",
    "up": "thumb up",
    "down": "thumb down",
    "cited": "an answer was built on it",
    "rating": "a grade, 0 is not relevant",
}


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
class LoggedSearch:
    """One search. Hits are in the order shown, feedback is in the order of time."""

    id: str
    at: datetime
    query: str
    collection: str = ""
    space: str = ""
    hits: tuple[LoggedHit, ...] = ()
    feedback: tuple[Feedback, ...] = ()

    def as_row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "query": self.query,
            "collection": self.collection,
            "space": self.space,
            "hits": [{"id": hit.id, "rank": hit.rank, "score": hit.score} for hit in self.hits],
            "feedback": [
                {"id": event.id, "kind": event.kind, "value": event.value, "at": event.at.isoformat()}
                for event in self.feedback
            ],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> LoggedSearch:
        """Read a row; a missing time of feedback is the time of its search.

        Raises:
            InputError: a field is missing or has the wrong type.
        """
        if not isinstance(row, Mapping):
            raise InputError(f"a row is {type(row).__name__}, expected an object")
        at = _time(row, "at")
        hits = tuple(
            LoggedHit(_string(hit, "id"), _rank(hit), None if hit.get("score") is None else _number(hit, "score"))
            for hit in _objects(row, "hits")
        )
        events = tuple(
            Feedback(
                _string(event, "id"),
                _string(event, "kind"),
                _number(event, "value") if "value" in event else 1.0,
                _time(event, "at") if "at" in event else at,
            )
            for event in _objects(row, "feedback")
        )
        for event in events:
            check_feedback(event)
        return cls(
            _string(row, "id"),
            at,
            _string(row, "query"),
            str(row.get("collection", "")),
            str(row.get("space", "")),
            hits,
            events,
        )


def check_feedback(event: Feedback) -> None:
    """Refuse a kind that does not exist, and a value that the kind cannot have.

    Raises:
        InputError: the message names the kind or the value.
    """
    if event.kind not in KINDS:
        raise InputError(f"feedback kind is {event.kind!r}, expected one of {', '.join(KINDS)}")
    if not isinstance(event.value, int | float) or not math.isfinite(event.value):
        raise InputError(f"feedback value is {event.value!r}, expected a finite number")
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
    key = secret.encode("utf-8")

    def rule(query: str) -> str:
        if is_redacted(query):  # twice is once: a hash of a hash would be another query
            return query
        return REDACTED + hmac.new(key, query.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    return rule


def is_redacted(query: str) -> bool:
    """Whether a rule has taken the text out of this query."""
    return query.startswith(REDACTED)


def _objects(row: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise InputError(f"field {key!r} is not a list of objects")
    return value


def _rank(row: Mapping[str, Any]) -> int:
    rank = _number(row, "rank")
    if not (math.isfinite(rank) and rank == int(rank) and rank >= 1):
        raise InputError(f"rank is {rank}, expected a whole number of at least 1")
    return int(rank)


def _string(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise InputError(f"field {key!r} is {value!r}, expected a string")
    return value


def _number(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):  # to Python, true is the number 1
        raise InputError(f"field {key!r} is {value!r}, expected a number")
    return float(value)


def _time(row: Mapping[str, Any], key: str) -> datetime:
    text = _string(row, key)
    try:
        return as_time(datetime.fromisoformat(text))
    except ValueError as error:
        raise InputError(f"field {key!r} is {text!r}, expected a time such as 2025-01-31T12:00:00+00:00") from error
