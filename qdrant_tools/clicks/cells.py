"""The fields of a row of a click log -> texts, ids, times, lists, objects.

Rows come as nested objects, with dotted names, or with objects as texts in the cells of a table; all three are one
here. Guarantees: what is neither missing nor what was expected is an `InputError` with the field and the value. Does
not know: which fields a form has.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import TimeFormat, as_time, is_absent, is_missing, whole_signs
from qdrant_tools.log.columns import value_in
from qdrant_tools.log.lists import list_in
from qdrant_tools.log.values import LONGEST_NAME, MOST_HITS
from qdrant_tools.validation import number_in

Fields = Mapping[str, Any]

# no two of them hold the same number for a time from 1990 to 2100
_UNITS: tuple[tuple[float, TimeFormat], ...] = (
    (1e11, "seconds"),
    (1e14, "milliseconds"),
    (1e17, "microseconds"),
    (float("inf"), "nanoseconds"),
)


def documents_in(row: Fields) -> list[Fields]:
    """All documents in what an engine answers to a search in its indexes, or rows in tables of Azure; else the row."""
    hits = row.get("hits")
    if isinstance(hits, Mapping) and isinstance(hits.get("hits"), list):
        return [each for each in hits["hits"] if isinstance(each, Mapping)]
    tables = row.get("tables")
    if isinstance(tables, list) and all(isinstance(table, Mapping) and "columns" in table for table in tables):
        return [
            dict(zip([str(column.get("name")) for column in objects(table, "columns")], cells))
            for table in tables
            for cells in value_in(table, "rows") or ()
            if isinstance(cells, list)
        ]
    return [row]


def unwrapped(row: Fields, *objects: str) -> Fields:
    """The document in a row of a search engine's export (`_source`), with the `objects` that are texts as objects."""
    inner = row.get("_source")
    fields = inner if isinstance(inner, Mapping) else row
    texts = {name: value for name in objects if isinstance(value := fields.get(name), str) and value.strip()}
    if not texts:
        return fields
    return {**fields, **{name: _object(name, text) for name, text in texts.items()}}


def _object(name: str, text: str) -> Any:
    """The object, or the list, that a cell holds as text: JSON, or what Python prints."""
    if is_missing(text):
        return None
    if text.strip()[:1] not in ("{", "["):
        raise InputError(f"{name} is {brief(text)}, expected an object")
    found = list_in(name, f"[{text.strip()}]").entries
    return found[0] if len(found) == 1 else found


def value(fields: Fields, *paths: str) -> Any:
    """The value of the first path that has one."""
    for path in paths:
        if not is_missing(found := value_in(fields, path)):
            return found
    return None


def text(fields: Fields, *paths: str) -> str | None:
    """A text that somebody typed, as it is; None where there is none."""
    for path in paths:
        found = value_in(fields, path)
        if is_absent(found):
            continue
        if not isinstance(found, str):
            raise InputError(f"{path} is {brief(found)}, expected a text")
        return whole_signs(found) if found.strip() else None
    return None


def name(fields: Fields, *paths: str) -> str:
    """The name of something: an id, a session, an action; "" where there is none."""
    found = value(fields, *paths)
    return "" if found is None else named(paths[0], found)


def named(path: str, found: Any) -> str:
    """An id, as a text. Numbers are ids too, and 7.0 is how a table with gaps writes 7."""
    if isinstance(found, float) and found.is_integer() and abs(found) < 2**53:
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise InputError(f"{path} is {brief(found)}, expected an id")
    if isinstance(found, int) and abs(found) >= 10**40:
        raise InputError(f"{path} is a number of more than 40 digits, expected an id")
    written = whole_signs(str(found).strip())
    if len(written) > LONGEST_NAME:
        raise InputError(
            f"{path} is {brief(written)} of {len(written):,} characters, expected at most {LONGEST_NAME:,}"
        )
    return written


def names(fields: Fields, *paths: str) -> tuple[str, ...] | None:
    """A list of ids, also as a text in a cell; None where there is none."""
    for path in paths:
        found = value_in(fields, path)
        if is_missing(found) and not isinstance(found, list):
            continue
        listed = list_in(path, found).entries if isinstance(found, str) else found
        if not isinstance(listed, list):
            raise InputError(f"{path} is {brief(found)}, expected a list of ids")
        if len(listed) > MOST_HITS:
            raise InputError(f"{path} has {len(listed):,} entries, expected at most {MOST_HITS:,}")
        return tuple(named(path, entry) for entry in listed)
    return None


def objects(fields: Fields, path: str) -> list[Fields]:
    """A list of objects; [] where there is none."""
    found = value_in(fields, path)
    if is_missing(found):
        return []
    if isinstance(found, Mapping) and len(found) == 1 and "list" in found:
        found = found["list"]  # Parquet's own form of a list
    if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
        raise InputError(f"{path} is {brief(found)}, expected a list of objects")
    if len(found) > MOST_HITS:
        raise InputError(f"{path} has {len(found):,} entries, expected at most {MOST_HITS:,}")
    return found


def moment(fields: Fields, zone: tzinfo | None, *paths: str) -> datetime | None:
    """A time: ISO 8601, or a number since 1970, whose size says its unit."""
    found = value(fields, *paths)
    if found is None:
        return None
    path = paths[0]
    number = number_in(found.strip()) if isinstance(found, str) else found
    if isinstance(number, int | float) and not isinstance(number, bool) and number == number:
        form = next(unit for limit, unit in _UNITS if abs(number) < limit)
        return as_time(path, found, form=form)
    return as_time(path, found, zone=zone)


def whole(fields: Fields, *paths: str) -> int | None:
    """A whole number of at least 0, also as a text; None where there is none."""
    found = value(fields, *paths)
    if found is None:
        return None
    number = number_in(found) if isinstance(found, str) else found
    if isinstance(number, bool) or not isinstance(number, int | float) or not (0 <= number < 2**31 and number % 1 == 0):
        raise InputError(f"{paths[0]} is {brief(found)}, expected a whole number from 0")
    return int(number)
