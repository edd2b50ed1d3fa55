"""The fields of one row of a file -> checked values; every error names the field. Does not know: kinds of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llama_index_embed_plus.errors import InputError

Fields = Mapping[str, Any]


def value_of(fields: Fields, aliases: Sequence[str]) -> Any:
    """Return the value of the first of `aliases` that is there."""
    for name in aliases:
        if fields.get(name) is not None:
            return fields[name]
    raise InputError(f"has no field {aliases[0]!r}, only {listed(fields)}")


def text_of(fields: Fields, aliases: Sequence[str]) -> str:
    """Return the text of the first of `aliases` that is there."""
    return as_text(value_of(fields, aliases), aliases[0])


def numbered(fields: Fields, name: str, check: Callable[[Any, str], Any]) -> Iterator[Any]:
    """Yield `name`, or `name_1`, `name_2`, ... as long as there is a next one, each through `check`."""
    if fields.get(name) is not None:
        yield check(fields[name], name)
        return
    place = 1
    while fields.get(f"{name}_{place}") is not None:
        yield check(fields[f"{name}_{place}"], f"{name}_{place}")
        place += 1


def as_text(value: Any, name: str) -> str:
    """Return `value` if it is a text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"the field {name!r} is {value!r}, expected a text")
    return value


def as_number(value: Any, name: str) -> float:
    """Return `value` as a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"the field {name!r} is {value!r}, expected a number")
    return number


def as_weight(value: Any) -> float:
    """Return `value` as a number above 0."""
    weight = as_number(value, "weight")
    if weight <= 0:
        raise InputError(f"the weight is {weight}, expected a number above 0")
    return weight


def listed(fields: Fields) -> str:
    """Return the names of the fields, for a message."""
    return ", ".join(map(str, fields)) if isinstance(fields, Mapping) else repr(fields)
