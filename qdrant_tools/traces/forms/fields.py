"""The fields of a row that a tracing tool writes: the first that says something, ids, tags, JSON in quotes.

Guarantees: an id is never a missing or hidden value; a float that pandas made of a whole number is that number.
Does not know: which tool has which field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.files.json_files import parse_json
from qdrant_tools.foreign import is_missing, whole_signs
from qdrant_tools.traces.forms.raw import texts_of
from qdrant_tools.traces.forms.values import is_hidden, json_in
from qdrant_tools.validation import brief

LONGEST_NAME = 4096


def first_of(row: Mapping[str, Any], *names: str) -> Any:
    """The first field of those that says something."""
    for name in names:
        if name in row and not is_missing(row[name]):
            return row[name]
    return None


def has(row: Mapping[str, Any], *names: str) -> bool:
    """Whether a row has all of these fields, with or without a value."""
    return all(name in row for name in names)


def name_of(value: Any) -> str | None:
    """An id as text: a whole number is one; what is missing or hidden is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes floats of a column with a gap
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or is_missing(value) or is_hidden(value):
        return None
    return whole_signs(value.strip())


def needed(row: Mapping[str, Any], what: str, *names: str) -> str:
    """The id under the first of these names. Raises `InputError`, in whose message it is `what`."""
    value = first_of(row, *names)
    text = name_of(value)
    if text is None or len(text) > LONGEST_NAME:
        raise InputError(f"{names[0]} is {brief(value)}, expected {what}")
    return text


def unquoted(value: Any) -> Any:
    """What JSON holds, also a text in quotes: for tools that write every value as JSON, and so quote a text twice."""
    if not isinstance(value, str):
        return value
    inside = json_in(value)
    if inside is not None:
        return inside
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return parse_json(text, "a text")
        except InputError:
            return value
    return value


def mapping_in(value: Any) -> Mapping[str, Any]:
    """An object, also one in JSON; an empty one for anything else."""
    inside = json_in(value)
    return inside if isinstance(inside, Mapping) else {}


def list_in(value: Any) -> list[Any]:
    """A list, also one in JSON; an empty one for anything else."""
    inside = json_in(value)
    return list(inside) if isinstance(inside, (list, tuple)) else []


def tags_in(value: Any) -> tuple[str, ...]:
    """Tags as a list, or as text of one."""
    inside = json_in(value)
    if isinstance(inside, Mapping):
        return tuple(f"{name}:{part}" for name, part in inside.items() if isinstance(part, (str, int, bool)))
    return texts_of(inside if isinstance(inside, Iterable) else value)
