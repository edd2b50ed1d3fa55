"""A span as OpenTelemetry has it, before anything in it is understood.

An envelope (SDK JSON, OTLP, Phoenix, Jaeger, ...) makes one of a row; a dialect (OpenInference, GenAI, OpenLLMetry)
makes a `Span` of it.

Guarantees: attributes are flat, `retrieval.documents.0.document.id` wherever it lay; ids are lower-case hex, as long as
OpenTelemetry writes them, out of `0x...`, base64 or shortened hex. Does not know: what an attribute means.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.foreign import TimeFormat, as_time, is_missing


@dataclass(frozen=True, slots=True)
class RawSpan:
    """A span and its attributes; `parent` is None for a root, `dropped` counts attributes that the SDK gave up, and
    `longest` is the length at which the store that it comes from cuts values, 0 if it cuts none."""

    trace: str
    id: str
    parent: str | None
    name: str = ""
    at: datetime | None = None
    until: datetime | None = None
    failed: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    resource: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    dropped: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True)
class RawEvent:
    """Something that was said in a trace, perhaps of a span, as the signal of logs has it."""

    trace: str
    span: str | None
    name: str
    at: datetime | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


UNREAD = ("embedding.embeddings", "llm.tools", "gen_ai.tool.definitions")
"""Long, and nothing is made of them: vectors, descriptions of tools."""


def flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested objects and lists of objects under dotted names; lists of plain values stay lists."""
    found: dict[str, Any] = {}
    for outer, value in attributes.items():
        if isinstance(value, _PLAIN):  # nearly all are, and there are many
            if not outer.startswith(UNREAD):
                found[outer] = value
            continue
        todo = [(outer, value)]
        while todo:
            name, part = todo.pop()
            if name.startswith(UNREAD) or part is None:
                continue
            inside = _inside(part)
            if inside is None:
                found[name] = part
            else:
                todo.extend((f"{name}.{key}", each) for key, each in reversed(inside))
    return found


_PLAIN = (str, int, float)


def _inside(value: Any) -> list[tuple[str, Any]] | None:
    if isinstance(value, Mapping) and value:
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, (list, tuple)) and any(isinstance(part, (Mapping, list, tuple)) for part in value):
        return [(str(place), part) for place, part in enumerate(value)]
    return None


def numbered(attributes: Mapping[str, Any], prefix: str) -> dict[int, dict[str, Any]]:
    """What lies under `prefix.0.`, `prefix.1.`, ... by its number, in the order of numbers: 2 before 10."""
    found: dict[int, dict[str, Any]] = {}
    start = f"{prefix}."
    for name, value in attributes.items():
        if not name.startswith(start):
            continue
        place, _, rest = name[len(start) :].partition(".")
        if place.isascii() and place.isdigit() and len(place) < 10:
            found.setdefault(int(place), {})[rest] = value
    return dict(sorted(found.items()))


def under(attributes: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What lies under `prefix.`, by the rest of its name."""
    start = f"{prefix}."
    return {name[len(start) :]: value for name, value in attributes.items() if name.startswith(start)}


def whole(attributes: Mapping[str, Any], name: str) -> Any:
    """What lies under a name, put together again where `flat` took it apart; None if nothing does."""
    if name in attributes:
        return attributes[name]
    found: dict[str, Any] = {}
    for path, value in under(attributes, name).items():
        *steps, last = path.split(".")
        holder = found
        for step in steps:
            inner = holder.setdefault(step, {})
            holder = inner if isinstance(inner, dict) else {}
        holder[last] = value
    return _with_lists(found) if found else None


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    parts = {name: _with_lists(part) for name, part in value.items()}
    is_list = parts.keys() == {str(place) for place in range(len(parts))}
    return [parts[str(place)] for place in range(len(parts))] if is_list else parts


TRACE_DIGITS, SPAN_DIGITS = 32, 16
_HEX = re.compile(r"(?:0x)?([0-9a-fA-F]+)")
LONGEST_ID = 512


def hex_id(name: str, value: Any, digits: int) -> str:
    """The id of a trace or span: hex of `digits`, or the tool's own text where it is no such number.

    Raises:
        InputError: it is missing, no text, or longer than an id is; `name` says whose.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not 0 < len(text) <= LONGEST_ID:
        raise InputError(f"{name} is {brief(value)}, expected the id of a {'trace' if digits > 16 else 'span'}")
    found = _HEX.fullmatch(text)
    if found is not None and len(found[1]) <= digits:
        return found[1].lower().zfill(digits)
    return _of_base64(text, digits) or text


def parent_id(name: str, value: Any) -> str | None:
    """The id of a span's parent; None for a root: null, an empty text, or zeros alone."""
    if is_missing(value):
        return None
    found = hex_id(name, value, SPAN_DIGITS)
    return found if found.strip("0") else None


def _of_base64(text: str, digits: int) -> str | None:
    # 16 bytes are 24 characters of base64, 8 bytes are 12: no number in hex has those lengths
    if len(text) != {32: 24, 16: 12}[digits]:
        return None
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return None


_UNITS: tuple[tuple[float, TimeFormat], ...] = ((1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"))


def moment(name: str, value: Any, zone: tzinfo | None) -> datetime | None:
    """A time in ISO, or a number since 1970 in the unit that its size tells; None for nothing.

    Raises:
        InputError: anything else; `name` says whose.
    """
    if is_missing(value):
        return None
    number = number_of(value)
    if number is None:
        return as_time(name, value, zone=zone)
    unit: TimeFormat = next((unit for most, unit in _UNITS if abs(number) < most), "nanoseconds")
    return as_time(name, value, form=unit)


def number_of(value: Any) -> float | None:
    """A finite number out of a number or its text; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number - number == 0 else None


def score_of(value: Any) -> float | None:
    """A score: NaN where what is written is NaN or infinite, which the report counts; None for no number at all."""
    number = number_of(value)
    if number is None and not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            return float(value) * 0  # NaN, of infinity too
        except OverflowError:
            return math.nan
        except ValueError:
            return None
    return number


def texts_of(value: Any) -> tuple[str, ...]:
    """The texts in a list of texts, or in one that is written into a text with commas."""
    if isinstance(value, str):
        value = value.strip("[] ").split(",")
    if not isinstance(value, Iterable) or isinstance(value, (Mapping, bytes)):
        return ()
    return tuple(text for part in value if isinstance(part, str) and (text := part.strip(" '\"")))
