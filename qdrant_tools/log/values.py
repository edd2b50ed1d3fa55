"""Values of a row of a log -> numbers, names and lists within their bounds, or one error that names the field.

Guarantees: a number is finite and fits a float; a name and a list have an end; no error quotes a long value. Does not
know: which fields a row has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.validation import brief, checked_number

MOST_HITS = 10_000
"""Hits of one search, and events of feedback on it."""
MOST_RANK = 2**31 - 1
LONGEST_NAME = 4096
"""Characters of the id of a search or a passage, of the name of a collection or a space."""


def as_rank(value: object) -> int:
    """A place in a ranking, which starts at 1. Raises `InputError`."""
    return as_count("rank", value)


def as_count(name: str, value: object) -> int:
    """A whole number of at least 1. Raises `InputError`."""
    count = as_number(name, value)
    if not (count == int(count) and 1 <= count <= MOST_RANK):
        raise InputError(f"{name} is {brief(value)}, expected a whole number from 1 to {MOST_RANK}")
    return int(count)


def as_score(value: object) -> float | None:
    """A finite number, or none. Raises `InputError`."""
    return None if value is None else as_number("score", value)


def finite(score: float | None) -> float | None:
    """A score as a float; none for one that says nothing: NaN or infinity."""
    return None if score is None or not math.isfinite(score) else float(score)


def as_number(name: str, value: object) -> float:
    """A finite number: not NaN, and not one with more digits than a float can count. Raises `InputError`."""
    checked_number(name, value)
    return float(value)  # type: ignore[arg-type]


def check_name(what: str, value: object) -> None:
    """Refuse what is no text, or one without end. Raises `InputError`."""
    if not isinstance(value, str):
        raise InputError(f"{what} is {brief(value)}, expected a string")
    if len(value) > LONGEST_NAME:
        raise InputError(f"{what} is {brief(value)} of {len(value):,} characters, expected at most {LONGEST_NAME:,}")


def objects_of(row: Mapping[str, Any], key: str, most: int = MOST_HITS) -> list[Mapping[str, Any]]:
    """The objects of a field; none if the row lacks it. Raises `InputError`."""
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise InputError(f"field {key!r} is not a list of objects")
    if len(value) > most:
        raise InputError(f"field {key!r} has {len(value):,} entries, expected at most {most:,}")
    return value


def names_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts of a field; none if the row lacks it. Raises `InputError`."""
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"field {key!r} is not a list of strings")
    return tuple(value)


def string_of(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """The text of a field. Raises `InputError`."""
    value = row.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"field {key!r} is {brief(value)}, expected a string")
    return value
