"""What strangers write into their files -> what they mean by it; or one `InputError`, never a guess.

Two questions, asked by every reader of foreign rows. What does a cell say: nothing, no, yes, a rank? The spellings are
those of PostgreSQL, MySQL, SQL Server, pandas, R, Excel, JSON and the languages that write them; whatever else is in a
cell is refused. And may a field that no format knows be left unread? One whose name carries meaning (`label`, `score`,
`negative_0`, `split`, ...) may not: a row that says "wrong" would be read as one that says "right".

Guarantees: an unknown value is never taken for yes. Does not know: files, lines, which columns there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np

from qdrant_tools.errors import InputError, brief
from qdrant_tools.validation import number_in

__all__ = ["MEANINGFUL", "Unread", "as_flag", "as_vote", "as_rank", "carries_meaning", "is_missing"]

_MISSING = frozenset(
    {"", r"\n", "null", "(null)", "<null>", "nil", "none", "nan", "<na>", "nat", "n/a", "#n/a", "na", "-", "--", "–"}
)
_YES = frozenset({"true", "t", "yes", "y", "on", "wahr", "vrai", "verdadero", "vero", "\u2713", "\u2714"})
_NO = frozenset({"false", "f", "no", "n", "off", "falsch", "faux", "falso", "[]", "{}", "\u2717", "\u2718"})
# of thumbs: the words of rating widgets, and their signs
_UP = frozenset(
    {
        "up",
        "thumbs up",
        "thumb up",
        "upvote",
        "upvoted",
        "like",
        "liked",
        "positive",
        "good",
        "helpful",
        "\U0001f44d",
        "+1",
    }
)
_DOWN = frozenset(
    {
        "down",
        "thumbs down",
        "thumb down",
        "downvote",
        "downvoted",
        "dislike",
        "disliked",
        "negative",
        "bad",
        "unhelpful",
        "not helpful",
        "\U0001f44e",
        "-1",
    }
)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?( ?(Z|[+-]\d{2}(:?\d{2})?|UTC))?)?")


def is_missing(value: Any) -> bool:
    r"""Whether a cell says nothing: empty, `\N`, `NULL`, `NaN`, `<NA>`, `#N/A`, `-`, ..."""
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in _MISSING


def as_flag(name: str, value: Any, *, counts: bool = False) -> bool | None:
    """Yes, no, or None where the cell says nothing.

    counts: the column may also say how often (0, 1, 2, ...), or when (a date): what happened at some time happened.

    Raises:
        InputError: any other value; `name` says whose.
    """
    if is_missing(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (list, tuple, dict)) and not value:
        return False
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _YES or word in _NO:
        return word in _YES
    number = _number(value)
    if number in (0.0, 1.0) or (counts and number >= 0 and number == int(number)):
        return number > 0
    if counts and (isinstance(value, (datetime, date)) or _TIME.fullmatch(word.upper())):
        # MySQL's zero date stands for none
        return not word.startswith("0000-00-00")
    also = ", a count or a time" if counts else ""
    raise InputError(f"{name} is {brief(value)}, expected yes or no (true/false, t/f, 1/0, yes/no{also}) or nothing")


def as_vote(name: str, value: Any) -> bool | None:
    """A thumb: True is up, False is down, None is no vote. A plain yes (1, true) is up; a plain no is no vote.

    Raises:
        InputError: any other value; `name` says whose.
    """
    word = re.sub(r"[\s_-]+", " ", value.strip().lower()) if isinstance(value, str) else ""
    if word in _UP or (isinstance(value, str) and value.strip().lower() in _UP):
        return True
    if word in _DOWN or (isinstance(value, str) and value.strip().lower() in _DOWN) or _number(value) == -1.0:
        return False
    try:
        return as_flag(name, value) or None
    except InputError as error:
        raise InputError(f"{name} is {brief(value)}, expected a vote (up/down, like/dislike, 1/-1, yes/no)") from error


def as_rank(name: str, value: Any, *, first: int = 1) -> int:
    """A place in a ranking as a whole number from 1; `first` is what the file calls the first place, 0 or 1.

    Raises:
        InputError: anything else, a broken number (2.7) among them; `name` says whose.
    """
    number = _number(value)
    if not (number >= first and number == int(number) and number < 2**31):
        raise InputError(f"{name} is {brief(value)}, expected a rank: a whole number from {first}")
    return int(number) - first + 1


def _number(value: Any) -> float:
    """The finite number that a cell holds, NaN for any other."""
    if isinstance(value, str):
        return number_in(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return math.nan
    try:
        number = float(value)
    except OverflowError:  # an integer beyond what a float holds
        return math.nan
    return number if math.isfinite(number) else math.nan


MEANINGFUL = frozenset(
    [
        "label",
        "labels",
        "gold",
        "target",
        "class",
        "category",
        "score",
        "scores",
        "similarity",
        "distance",
        "margin",
        "margins",
        "relevance",
        "relevant",
        "irrelevant",
        "grade",
        "grades",
        "rating",
        "ratings",
        "rank",
        "weight",
        "weights",
        "importance",
        "negative",
        "negatives",
        "neg",
        "negs",
        "positive",
        "positives",
        "pos",
        "hard",
        "context",
        "contexts",
        "ctx",
        "ctxs",
        "split",
        "fold",
        "subset",
        "partition",
        "instruction",
        "prompt",
        "correct",
        "incorrect",
        "wrong",
        "valid",
        "invalid",
        "judgement",
        "judgment",
        "judgements",
        "judgments",
        "qrel",
        "qrels",
        "answer",
        "answers",
        "verdict",
        "annotation",
        "entailment",
        "contradiction",
        "duplicate",
        "teacher",
    ]
)
"""Words in the name of a field that say what its row means, in any format of the field."""


def carries_meaning(name: str) -> bool:
    """Whether the name of a field says what its row means: `label`, `neg_0`, `isRelevant`, `hard-negative`."""
    # camelCase, then everything that is no letter, ends a word
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())
    return not MEANINGFUL.isdisjoint(words)


@dataclass
class Unread:
    """The fields that a reader does not know: named at the end, or refused at once if they carry meaning."""

    names: dict[str, None] = field(default_factory=dict)

    def check(self, fields: Mapping[str, Any], known: Collection[str], *, way_out: str) -> None:
        """Note the fields of a row that are not `known`; those without a value count too.

        Raises:
            InputError: one of them carries meaning; `way_out` ends the message.
        """
        for name in map(str, fields):
            if name in known or name in self.names:
                continue
            if carries_meaning(name) and not is_missing(fields.get(name)):
                raise InputError(
                    f"the field {brief(name)} says what the row means, and nothing here reads it: {way_out}"
                )
            if not carries_meaning(name):
                self.names[name] = None

    def listed(self, names: Iterable[str] = ()) -> str:
        """ "`source`, `lang`", or the empty string."""
        return ", ".join(f"`{name}`" for name in [*names, *self.names])
