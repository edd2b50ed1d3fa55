"""Spans and annotations with halves of characters in their texts -> the same with U+FFFD in their place.

JSON of a program that cut a text in the middle of an emoji has such a half (`"\\ud83d"`), which no file and no database
can hold. One answer of many is no reason to refuse a file.

Guarantees: what has none comes back as it is. Does not know: files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from qdrant_tools.traces.records import Annotation, Span

Said = TypeVar("Said", Span, Annotation)


def without_halves(said: Said) -> Said:
    """The same, with whole characters only."""
    try:
        "".join(_texts(said)).encode()
    except UnicodeEncodeError:
        return cast(Said, _whole(said))
    return said


def _texts(value: Any) -> Iterable[str]:
    for name in value.__slots__ if hasattr(value, "__slots__") else [field.name for field in fields(value)]:
        part = getattr(value, name)
        if isinstance(part, str):
            yield part
        elif isinstance(part, tuple):
            for each in part:
                if isinstance(each, str):
                    yield each
                else:
                    yield from _texts(each)


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, tuple):
        return tuple(map(_whole, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _whole(getattr(value, field.name)) for field in fields(value)})
    return value
