"""Rows as other tools write them -> rows of our own names, for `reading`.

Guarantees: a row is recognised by its fields alone; what is recognised is read whole, or refused.
Does not know: files, kinds, losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """What the caller asks for. passages: id -> text, for rows that hold ids. scores: whether a teacher's are read."""

    passages: Mapping[str, str] | None = None
    scores: bool = True


@dataclass(frozen=True)
class Format:
    """One format of rows. `rows` gives ours: one, several or none (left out) for each.

    reads: the names that it understands. ignores: the names that it knows and leaves unread although they carry
    meaning elsewhere; they are named at the end.

    Our rows have the names of `reading`: `query`, `positives` and `negatives` (lists of `{"id", "text"}`), `weight`;
    or `query`, `positive`, `negative_1` ... with `positive_score`, `negative_score_1` ...; or `query`, `passage` and
    `label` for judged pairs; or `sentence1`, `sentence2` and `label`.
    """

    name: str
    reads: frozenset[str]
    matches: Callable[[Fields], bool]
    rows: Callable[[Fields, Asked], Iterator[Fields]]
    ignores: frozenset[str] = frozenset()


FORMATS: tuple[Format, ...] = ()
"""The formats, in the order in which they are tried."""


def format_of(fields: Fields) -> Format | None:
    """Return the format of a row, None for rows of our own names."""
    return next((form for form in FORMATS if form.matches(fields)), None)
