"""Conditions as people write them, `year>=2020`, `author=Ann` -> a filter on metadata.

Guarantees: a value finds what is stored as a text or as a number or boolean that is written like it; the same field
given twice with `=` may have either value; all other conditions must hold. What cannot be read is refused. Does not
know: queries.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError, brief
from qdrant_tools.fields import Field, shown, steps_of
from qdrant_tools.search.options import equal, refuse_paths, within

BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}

_CONDITION = re.compile(r"(?P<field>\(.*?\)|.+?)\s*(?P<sign>!=|>=|<=|=|>|<)\s*(?P<value>.+)", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Written:
    """One condition: a field, a sign, and the values that its text may mean."""

    field: Field
    sign: str
    values: tuple[Any, ...]


def written_filter(conditions: Sequence[str], collection: Collection) -> models.Filter | None:
    """The filter of conditions like `field=value`; the signs are = != > >= < <=. None without conditions.

    A value in quotation marks is a text and nothing else. A field inside another one is a tuple of names, as in
    `('author', 'name')=Ann`.

    Raises:
        InputError: what is no condition; a bound that is neither a number nor a date; or a field that no passage has
            while the path that it would be leads somewhere.
    """
    written = [read_condition(condition) for condition in conditions]
    if not written:
        return None
    fields = list(dict.fromkeys(condition.field for condition in written))
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for field in fields:
        path, what = collection.layout.metadata_field(field), f"filter on {shown(steps_of(field, 'filter field'))}"
        own = [condition for condition in written if condition.field == field]
        if wanted := [value for condition in own if condition.sign == "=" for value in condition.values]:
            must.append(models.Filter(should=[equal(path, value, what) for value in wanted]))
        must_not += [
            equal(path, value, what) for condition in own if condition.sign == "!=" for value in condition.values
        ]
        if bounds := {BOUNDS[condition.sign]: condition.values[0] for condition in own if condition.sign in BOUNDS}:
            must.append(within(path, bounds, what))
    refuse_paths(collection, fields, way_out='write "{}=..."')
    return models.Filter(must=must or None, must_not=must_not or None)


def read_condition(text: str) -> Written:
    """Read `field=value`. Raises `InputError`."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise InputError(f"filter is {brief(text)}, expected a condition such as author=Ann, year>=2020 or page!=3")
    field, sign, value = match["field"], match["sign"], match["value"]
    return Written(read_field(field), sign, _bound(value) if sign in BOUNDS else _meanings(value))


def read_field(text: str) -> Field:
    """Read a name, or names as in `('author', 'name')`. Raises `InputError`."""
    if not text.startswith("("):
        return text
    try:
        field = ast.literal_eval(text)
        steps_of(field, "filter field")
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"filter field is {brief(text)}, expected a name or names as in ('author', 'name')") from error
    return field  # type: ignore[no-any-return]


def _meanings(value: str) -> tuple[Any, ...]:
    """What a text may be stored as."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return (value[1:-1],)
    if value in ("true", "false"):
        return (value, value == "true")
    number = _number(value)
    return (value,) if number is None else (value, number)


def _bound(value: str) -> tuple[Any, ...]:
    number = _number(value)
    return (value if number is None else number,)


def _number(text: str) -> int | float | None:
    # twenty digits hold all that engines keep, and `int` refuses thousands of them
    if len(text) > 40 or not _NUMBER.fullmatch(text):
        return None
    number = json.loads(text)
    return number if isinstance(number, int) and abs(number) < 1 << 63 else _finite(float(number))


def _finite(number: float) -> float | None:
    return number if abs(number) < float("inf") else None
