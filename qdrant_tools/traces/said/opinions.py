"""What somebody said of an answer or a document, in a tool's words -> a thumb, a grade, a comment; or why none.

Guarantees: an unknown label is never taken for yes, and a number only where its name or its label says of what. What
a language model said is never taken for a person's. Does not know: which search it is about.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from qdrant_tools.errors import InputError
from qdrant_tools.foreign import as_flag, as_vote, is_missing
from qdrant_tools.same import folded
from qdrant_tools.traces.records import Annotation, TraceSettings
from qdrant_tools.validation import brief, number_in

THUMBS = frozenset(
    ["thumb", "thumbs", "thumbs up", "thumbs down", "thumbs up down", "thumb up", "feedback", "user feedback"]
    + ["user score", "user thumb", "user thumbs", "user rating", "human feedback", "vote", "user vote", "like"]
    + ["reaction", "helpful", "is helpful", "was helpful", "end user feedback", "customer feedback"]
)
"""Names of what is clearly a user's thumb on an answer."""
RELEVANCE = frozenset(
    ["relevance", "relevant", "is relevant", "document relevance", "doc relevance", "relevancy", "retrieval relevance"]
    + ["documents relevance", "chunk relevance", "passage relevance", "context relevance", "node relevance"]
)
"""Names of what is clearly a grade of a document for its query."""
_RELEVANT = frozenset(["relevant", "highly relevant", "very relevant", "partially relevant", "correct", "good"])
_IRRELEVANT = frozenset(["irrelevant", "unrelated", "not relevant", "nonrelevant", "non relevant", "incorrect", "bad"])
_THUMBS = ("thumb", "upvote", "downvote", "like", "\U0001f44d", "\U0001f44e")
_PARTS = frozenset(["partially relevant"])


@dataclass(frozen=True)
class Opinion:
    """A thumb (1 or 0), a score from 0 to 1 of an answer, a grade of a document, or a comment."""

    kind: Literal["thumb", "score", "grade", "comment"]
    value: float
    by: str
    text: str = ""


def opinions_in(annotation: Annotation, settings: TraceSettings) -> list[Opinion] | str:
    """What an annotation says; or the reason why it says nothing here, as in `report.UNJOINED`."""
    is_of_document = annotation.position is not None or annotation.document is not None
    graded = _of_document(annotation, settings) if is_of_document else _of_answer(annotation, settings)
    # what language models explain is long, and nothing is learnt from it
    comment = annotation.comment.strip() if annotation.by == "person" and not is_of_document else ""
    said = [graded] if isinstance(graded, Opinion) else []
    if comment:
        said.append(Opinion("comment", 1.0, "person", comment))
    return said or str(graded)


def _of_answer(annotation: Annotation, settings: TraceSettings) -> Opinion | str:
    name = _name(annotation.name)
    if _is_judge(annotation, settings):
        value = _value(annotation, settings)
        return value if isinstance(value, str) else Opinion("score", value, "judge")
    if settings.thumb is not None:
        if name != _name(settings.thumb):
            return "another question"
    elif annotation.by == "judge" or not (name in THUMBS or _has_thumb(annotation.label)):
        return "by a program" if annotation.by == "code" else "another question"
    value = _value(annotation, settings)
    if isinstance(value, str):
        return value
    return Opinion("thumb" if value in (0.0, 1.0) else "score", value, "person")


def _of_document(annotation: Annotation, settings: TraceSettings) -> Opinion | str:
    name = _name(annotation.name)
    is_named = name in RELEVANCE or name in THUMBS or (settings.thumb is not None and name == _name(settings.thumb))
    is_judge = annotation.by == "judge" or _is_judge(annotation, settings)
    if settings.judge is not None and is_judge and not _is_judge(annotation, settings):
        return "another question"
    if not (is_named or _is_judge(annotation, settings) or _clear(annotation.label) is not None):
        return "another question"
    if annotation.by == "code" and not is_judge:
        return "by a program"
    value = _value(annotation, settings)
    return value if isinstance(value, str) else Opinion("grade", value, "judge" if is_judge else "person")


def _is_judge(annotation: Annotation, settings: TraceSettings) -> bool:
    return settings.judge is not None and _name(annotation.name) == _name(settings.judge)


def _value(annotation: Annotation, settings: TraceSettings) -> float | str:
    """From 0 to 1; or the reason why nothing certain is said."""
    label, value = annotation.label, annotation.value
    if is_missing(label) and value is None:
        return "empty"
    told = _told(label, settings)
    if told is None and value is not None:
        told = _told(value, settings)
    if told is not None:
        return told
    clear = None if is_missing(label) else _clear(label)
    number = _unit(value)
    if clear is None:
        return "not certain" if number is None else number
    # a score beside a label may be a confidence, but never the contrary
    return clear if number is None or (number >= 0.5) == (clear >= 0.5) else "not certain"


def _unit(value: float | None) -> float | None:
    """A number from 0 to 1; -1 is the thumb down of those who have 1 for up."""
    if value is None or not math.isfinite(value):
        return None
    return 0.0 if value == -1.0 else float(value) if 0.0 <= value <= 1.0 else None


def _told(said: str | float | None, settings: TraceSettings) -> float | None:
    """What `--up` and `--down` say of a label or a number."""
    for words, value in ((settings.up, 1.0), (settings.down, 0.0)):
        for word in words:
            if isinstance(said, str) and _name(said) == _name(word):
                return value
            number = number_in(word)
            if said is not None and not math.isnan(number) and number == _number(said):
                return value
    return None


def _number(said: str | float) -> float:
    return number_in(said) if isinstance(said, str) else float(said)


def _clear(label: str | None) -> float | None:
    """What a label says by itself."""
    if label is None or is_missing(label):
        return None
    word = _name(label)
    if word in _PARTS:
        return 0.5
    if word in _RELEVANT or word in _IRRELEVANT:
        return float(word in _RELEVANT)
    try:
        vote = as_vote("label", label)
        vote = as_flag("label", label) if vote is None else vote
    except InputError:
        return None
    return None if vote is None else float(vote)


def _has_thumb(label: str | None) -> bool:
    """Whether a label is a thumb whatever its question is: yes and good are not."""
    return label is not None and any(sign in label.casefold() for sign in _THUMBS) and _clear(label) is not None


def _name(name: str) -> str:
    """A name without the differences between `user_feedback`, `userFeedback` and `User-Feedback`."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip())
    return re.sub(r"[\s_\-./:]+", " ", folded(parted)).strip()


def told_of(annotation: Annotation) -> str:
    """An annotation for a report: its name, and what it says."""
    said = annotation.label if annotation.label is not None else annotation.value
    return f"{brief(annotation.name)}{'' if said is None else f' = {brief(said)}'}"
