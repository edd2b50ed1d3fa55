"""The names of fields that a reader does not know -> whether they may be left unread, and which were.

One whose name carries meaning (`label`, `score`, `negative_0`, `split`, ...) may not: a row that says "wrong" would be
read as "right". Does not know: what a cell says (`foreign`), files, which fields a reader knows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import is_missing

__all__ = ["MEANINGFUL", "Unread", "carries_meaning", "words_in_name"]

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


def words_in_name(name: str) -> list[str]:
    """The words in the name of a field: camelCase, and everything that is no letter, ends one."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())


def carries_meaning(name: str) -> bool:
    """Whether the name of a field says what its row means: `label`, `neg_0`, `isRelevant`, `hard-negative`."""
    return not MEANINGFUL.isdisjoint(words_in_name(name))


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
