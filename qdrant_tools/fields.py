"""Names and values of metadata as their authors wrote them <-> the payload paths and the JSON values of engines.

A name is a name: dots, brackets, spaces and letters of any script in it mean nothing. What lies inside another value
is reached by a tuple of names; in it a whole number is a place in a list, and None stands for every place.

Guarantees: a name that no engine can be asked for is refused. A value is stored as JSON has it and says the same when
it is read, or is refused with its field: times as RFC 3339 (without a zone they are UTC), Decimals where a number of
JSON holds them. Values that are JSON already come back as they are. Does not know: passages, collections, filters.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np

from qdrant_tools.errors import InputError, brief
from qdrant_tools.validation import DEEPEST_PAYLOAD, checked_text

Field = str | tuple[str | int | None, ...]
"""The name of a metadata field; or the way to a value inside one, such as ("author", "name")."""

LEAST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1
"""What engines keep as an integer. They round others to a double without a word."""

LARGEST_WHOLE_DOUBLE = 2**49
"""Whole numbers up to here are read by every engine as they are, also where they are written with a fraction of 0."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
# more than engines take without quotes: they give names back whose letters Python does not count among its own
_STEP = re.compile(r'\.?(?:"(?P<quoted>[^"\\]*)"|(?P<plain>[^."\\\[\]]+))|\[(?P<place>[0-9]*)\]')


def steps_of(field: Any, what: str) -> tuple[str | int | None, ...]:
    """The way to a value, from a field; `what` says whose field it is. Raises `InputError`."""
    if isinstance(field, str):
        return (checked_text(what, field),)
    if isinstance(field, tuple) and field and isinstance(field[0], str) and all(map(_is_step, field)):
        return tuple(checked_text(what, step) if isinstance(step, str) else step for step in field)
    raise InputError(
        f"{what} is {brief(field)}, expected the name of a metadata field, or a tuple of names for what lies inside "
        "one, as in ('author', 'name')"
    )


def _is_step(step: Any) -> bool:
    return step is None or isinstance(step, str) or (isinstance(step, int) and not isinstance(step, bool) and step >= 0)


def payload_path(steps: Iterable[str | int | None]) -> str:
    """The engine's path. Raises `InputError` for a name that cannot be quoted."""
    path = "".join(
        f".{_quoted(step)}" if isinstance(step, str) else f"[{'' if step is None else step}]" for step in steps
    )
    return path[1:]


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    refuse_unquotable(name, "field")
    return f'"{name}"'


def refuse_unquotable(name: str, what: str) -> None:
    """Raise `InputError` for a name that has no place between the quotes of a payload path."""
    if '"' in name or "\\" in name:
        raise InputError(
            f"{what} {brief(name)} has a quotation mark or a backslash in its name, which no engine can be asked for: "
            "rename it before you index"
        )


def steps_in(path: str) -> tuple[str | int | None, ...] | None:
    """The way that a payload path describes; None for a text that is no path."""
    steps: list[str | int | None] = []
    end = 0
    while end < len(path):
        found = _STEP.match(path, end)
        # a dot stands between names, and nowhere else
        if found is None or (found["place"] is None and (end > 0) != found[0].startswith(".")):
            return None
        place = found["place"]
        steps.append((int(place) if place else None) if place is not None else found["quoted"] or found["plain"] or "")
        end = found.end()
    return tuple(steps) if steps and isinstance(steps[0], str) else None


def shown(steps: Iterable[str | int | None]) -> str:
    """A field as an error names it."""
    way = tuple(steps)
    return brief(way[0]) if len(way) == 1 else brief(way)


def values_at(metadata: Mapping[str, Any], field: Field) -> list[Any]:
    """What a filter on a field compares: the values that it leads to, those of a list one by one."""
    values: list[Any] = [metadata]
    for step in (field,) if isinstance(field, str) else field:
        if step is None:
            values = [part for value in values if isinstance(value, list) for part in value]
        elif isinstance(step, int):
            values = [value[step] for value in values if isinstance(value, list) and step < len(value)]
        else:
            values = [value[step] for value in values if isinstance(value, Mapping) and step in value]
    return [part for value in values for part in (value if isinstance(value, list) else [value])]


def json_metadata(metadata: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Metadata with the values that JSON has for it. Raises `InputError` with the field and its value.

    `what` begins the message.
    """
    for name in metadata:
        if isinstance(name, str):
            refuse_unquotable(name, f"{what} field")
    values: dict[str, Any] = _json(metadata, what, ())
    return values


def json_value(value: Any, what: str) -> Any:
    """A value of metadata or of a filter as JSON has it. Raises `InputError`."""
    return _json(value, what, ())


def _json(value: Any, what: str, way: tuple[Any, ...]) -> Any:
    """`value` as JSON; `way` leads to it."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return _checked(value, what, way) if kind is str else value
    if isinstance(value, Enum):
        return _json(value.value, what, way)
    if len(way) >= DEEPEST_PAYLOAD:
        raise InputError(
            f"{what} is nested more than {DEEPEST_PAYLOAD - 1} levels deep at {shown(way)}: make it flatter"
        )
    if isinstance(value, Mapping):
        return {_key(key, what, way): _json(part, what, (*way, key)) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.ndim:
        value = list(value)
    if isinstance(value, (list, tuple)):
        return [_json(part, what, (*way, place)) for place, part in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        # a set has no order of its own: in one of its own making it is the same passage the next time
        return sorted(
            (_json(part, what, way) for part in value), key=lambda part: (type(part).__name__, json.dumps(part))
        )
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _json(getattr(value, item.name), what, (*way, item.name)) for item in fields(value)}
    try:
        plain = plain_value(value)
        # a date keeps its own form, which engines read as its midnight in UTC
        if isinstance(plain, datetime):
            return _moment_text(value, plain)
    except InputError as error:
        raise InputError(f"{what} field {shown(way)} is {brief(value)}: {error}") from error
    if isinstance(plain, str):
        return _checked(plain, what, way)
    # the same number, which engines keep exactly only if it is written as an integer
    if isinstance(plain, float) and plain.is_integer() and LARGEST_WHOLE_DOUBLE < abs(plain) < 2**63:
        return int(plain)
    return plain


def _checked(text: str, what: str, way: tuple[Any, ...]) -> str:
    return checked_text(f"{what} field {shown(way)}", text)


def _key(key: Any, what: str, way: tuple[Any, ...]) -> str:
    if not isinstance(key, str):
        # JSON would write the key 1 as "1": another one is read than was given
        raise InputError(f"{what} has the key {brief(key)}, expected strings as keys")
    return str(key.value) if isinstance(key, Enum) else checked_text(f"{what} key", str(key))


def plain_value(value: Any) -> bool | int | float | str | datetime | None:
    """What a scalar says: None, a boolean, a finite number, a text, or a moment with its zone (a date's is midnight).

    Raises:
        InputError: it is no scalar that JSON has a form for; the message says the way out.
    """
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, Enum):
        return plain_value(value.value)
    if isinstance(value, str):
        return str(value)
    # before the numbers and the dates: NaT is a kind of datetime, and NumPy's timedelta one of its integers
    if _is_no_value(value):
        raise InputError("it is no value: use None, or leave the field out")
    if isinstance(value, np.timedelta64):
        raise InputError("JSON has no timedelta64: write it as a string or a number")
    if isinstance(value, (np.datetime64, datetime, date)):
        return _moment(value)
    if isinstance(value, (int, np.integer)):
        if not LEAST_INTEGER <= value <= LARGEST_INTEGER:
            raise InputError("engines would round an integer beyond 64 bits: write it as a string")
        return int(value)
    if isinstance(value, (float, np.floating)):
        return _finite(float(value), exact=value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, np.ndarray) and not value.ndim:
        return plain_value(value[()])
    if isinstance(value, (UUID, PurePath)):
        return str(value)
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise InputError("JSON has no bytes: decode them, or write them in base64")
    raise InputError(f"JSON has no {type(value).__name__}: write it as a string, a number, a list or a dict")


def _is_no_value(value: Any) -> bool:
    # pandas' own marks of what is missing, without pandas; NumPy's is an array that holds itself
    if type(value).__name__ in ("NaTType", "NAType") or value is np.ma.masked:
        return True
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def _finite(number: float, *, exact: Any) -> float:
    if math.isnan(number):
        raise InputError("JSON has no NaN: use None, or leave the field out")
    if math.isinf(number):
        raise InputError("JSON has no infinity and no number beyond 1.8e308: use None, or leave the field out")
    if number != exact:
        raise InputError("a double, which is what engines keep, rounds it: write it as a string")
    return number


def _decimal(value: Decimal) -> int | float:
    if not value.is_finite():
        raise InputError("JSON has neither NaN nor infinity: use None, or leave the field out")
    if value == value.to_integral_value() and LEAST_INTEGER <= value <= LARGEST_INTEGER:
        return int(value)
    number = float(value)
    # the shortest number that is written as this double must be the one that was given
    if math.isinf(number) or Decimal(repr(number)) != value:
        raise InputError("a double, which is what engines keep, rounds it: write it as a string")
    return number


def _moment(value: Any) -> datetime:
    if isinstance(value, np.datetime64):
        unit = np.datetime_data(value.dtype)[0]
        if unit in ("Y", "M", "W"):
            raise InputError("a year, a month or a week is no day: write it as a number or a string")
        micros = value.astype("datetime64[us]")
        if micros != value or not isinstance(micros.item(), datetime):
            raise InputError("engines compare times by the microsecond, from year 1 to 9999: write it as a string")
        value = micros.item()
    if getattr(value, "nanosecond", 0):
        raise InputError("engines compare times by the microsecond: round it, or write it as a string")
    if hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime()
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None or value.utcoffset() is None:
        return value.replace(tzinfo=UTC)
    return value


def _moment_text(value: Any, moment: datetime) -> str:
    """RFC 3339; a date as its day."""
    is_day = isinstance(value, date) and not isinstance(value, datetime)
    if is_day or (isinstance(value, np.datetime64) and np.datetime_data(value.dtype)[0] == "D"):
        return moment.date().isoformat()
    offset = moment.utcoffset()
    # RFC 3339 has no seconds in a zone, as those of local mean times have
    if offset is not None and offset.total_seconds() % 60:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError as error:
            raise InputError("in UTC it lies outside the years 1 to 9999: write it as a string") from error
    return moment.isoformat()


_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?( ?(Z|z|[+-]\d{2}(:?\d{2})?))?)?", re.ASCII
)


def moment_in(text: str) -> datetime | None:
    """The moment that a text writes as engines read it, a date or RFC 3339; None for any other text."""
    if not _MOMENT.fullmatch(text):
        return None
    try:
        return _moment(datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-").replace(" Z", "Z")))
    except ValueError:  # no such day or hour
        return None
