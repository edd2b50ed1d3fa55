"""Scores and feedback that lie in the row of a step, in the shapes that tools use -> annotations.

An object of names and values, or a list of objects with a name and a value; a value is a number, a word, a flag, or an
object that has one of these with a comment and an author. Reactions by emoji are thumbs.

Guarantees: a person's is told from a program's by what the tool says of its source, else by the name alone; a number
that a tool has averaged over several is none. Does not know: what a name means beyond that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.fields import first_of, mapping_in, name_of
from qdrant_tools.traces.forms.raw import moment, number_of
from qdrant_tools.traces.forms.values import json_in, text_of
from qdrant_tools.traces.records import Annotation, By, TraceSettings
from qdrant_tools.unread import words_in_name

OF_PEOPLE = frozenset(
    {
        "user",
        "feedback",
        "thumb",
        "thumbs",
        "rating",
        "like",
        "liked",
        "vote",
        "human",
        "helpful",
        "reaction",
        "customer",
    }
)
"""Words in the name of a score that say that a person gave it."""
_WRITTEN_BY_PEOPLE = frozenset({"reaction", "note", "comment"})
_FLAGS = frozenset({"rating", "user_rating", "liked"})
_PEOPLE = frozenset({"ui", "app", "human", "person", "user", "annotation", "annotator", "manual", "end_user"})
_JUDGES = frozenset({"llm", "llm_judge", "model", "eval", "judge", "online_scoring", "ai", "auto_eval"})
_NAMES = ("name", "key", "metric", "label_name", "feedback_type", "eval_name", "score_name")
_VALUES = ("value", "score", "rating", "thumbs", "result")
_LABELS = ("label", "category_name", "string_value", "category", "sentiment")
_COMMENTS = ("reason", "comment", "explanation", "rationale", "note", "text", "reasoning")
_SOURCES = ("source", "source_type", "annotator_kind", "evaluator", "type")
_AUTHORS = ("created_by", "creator", "author", "user_id", "userId", "wb_user_id", "last_updated_by")
_TIMES = ("last_updated_at", "updated_at", "created_at", "createdAt", "timestamp")
LONGEST_WORD = 200


@dataclass(frozen=True)
class About:
    """What a score is about."""

    trace: str
    span: str | None


def by_of(name: str, source: Any, settings: TraceSettings) -> By:
    """Who said it: as the tool or the settings say, else as the name does."""
    word = source.lower() if isinstance(source, str) else ""
    if word in _PEOPLE or name == settings.thumb:
        return "person"
    if word in _JUDGES or name == settings.judge:
        return "judge"
    return "person" if not OF_PEOPLE.isdisjoint(words_in_name(name)) else "code"


def scores_in(value: Any, about: About, settings: TraceSettings) -> Iterator[Annotation]:
    """The annotations in the field of a row. What is no score gives none."""
    inside = json_in(value)
    if isinstance(inside, Mapping):
        named = _named(inside)
        pairs = [(named, inside)] if named else _with_comment(inside)
    elif isinstance(inside, (list, tuple)):
        pairs = [(_named(each), each) for each in inside if isinstance(each, Mapping)]
    else:
        return
    for name, each in pairs:
        said = _said(name, each, about, settings)
        if said is not None:
            yield said


def _named(value: Mapping[str, Any]) -> str:
    name = text_of(first_of(value, *_NAMES)) or ""
    # Weave: wandb.reaction.1, wandb.runnable.<scorer>
    if name.startswith("wandb."):
        kind, _, rest = name.removeprefix("wandb.").partition(".")
        return rest or kind if kind == "runnable" else kind
    # a thumb with a comment beside it is no comment
    is_comment = text_of(first_of(value, "text", "comment")) and OF_PEOPLE.isdisjoint(map(str, value))
    return name or ("comment" if is_comment else "")


def _with_comment(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The values of an object by their names; a comment among them is that of the thumb or the grade beside it."""
    comment = text_of(first_of(value, *_COMMENTS))
    pairs = [(str(name), each) for name, each in value.items()]
    if comment is None:
        return pairs
    graded = [name for name, _ in pairs if name in OF_PEOPLE]
    rest = [(name, each) for name, each in pairs if name not in _COMMENTS and name not in graded]
    return [(name, {"value": value[name], "comment": comment}) for name in graded] + rest


def _said(name: str, value: Any, about: About, settings: TraceSettings) -> Annotation | None:
    details = mapping_in(value)
    payload = mapping_in(details.get("payload"))  # Weave's
    if payload:
        details = {**details, **mapping_in(payload.get("output")), **payload}
    plain = first_of(details, *_VALUES) if details else value
    label = first_of(details, "emoji", *_LABELS) if details else None
    if isinstance(plain, bool) or (isinstance(plain, str) and number_of(plain) is None):
        label = plain if label is None else label
    comment = text_of(first_of(details, *_COMMENTS)) or ""
    number = float(plain) if isinstance(plain, bool) else number_of(plain)
    word = str(label) if isinstance(label, bool) else text_of(label)
    if word is not None and len(word) > LONGEST_WORD:
        word = None
    if (number is None and word is None and not comment) or is_missing(name) or _is_average(details):
        return None
    about_all = Annotation(
        name=name,
        trace=about.trace,
        span=about.span,
        label=word,
        value=number,
        comment=comment,
        by=by_of(name, _source(details), settings),
        who=name_of(first_of(details, *_AUTHORS)) or "",
        at=moment("created_at", first_of(details, *_TIMES), settings.zone or UTC),
        id=name_of(details.get("id")) or f"{about.span or about.trace}/{name}",
    )
    if isinstance(plain, bool) and name in _FLAGS:
        return replace(about_all, name="user_feedback")  # a grade that is yes or no is a thumb
    return replace(about_all, by="person") if name in _WRITTEN_BY_PEOPLE else about_all


def _source(details: Mapping[str, Any]) -> Any:
    source = first_of(details, *_SOURCES)
    return source.get("type") if isinstance(source, Mapping) else source


def _is_average(details: Mapping[str, Any]) -> bool:
    """Whether several people's scores were made into one (Opik: `value_by_author`)."""
    return len(mapping_in(details.get("value_by_author"))) > 1
