"""Single values that a caller gives: shown in one line, read as text, counted, measured.

Guarantees: whatever the value is, at worst one `InputError` with its beginning. Does not know: what a value is for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qdrant_tools.errors import InputError


def brief(value: Any) -> str:
    """The beginning of a value's repr, for a one-line message."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever a stranger's __repr__ raises, a RecursionError for deep values among them
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_text(name: str, value: Any) -> str:
    """A text that can be written as UTF-8. Raises `InputError` for others."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {brief(value)}, expected a string")
    if not is_unicode(value):
        raise InputError(f"{name} {brief(value)} holds a lone surrogate, expected Unicode text")
    return value


def checked_count(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number of at least `least`. Raises `InputError` for others, `True` among them."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {brief(value)}, expected a whole number of at least {least}")
    return int(value)


def checked_number(
    name: str, value: Any, *, least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> None:
    """Raise `InputError` unless `value` is a finite number within these bounds."""
    if not _is_finite_number(value) or not least <= value <= most or value <= above:
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("of at least", least), ("above", above), ("of at most", most))
            if math.isfinite(bound)
        ]
        raise InputError(f"{name} is {brief(value)}, expected a finite number {' and '.join(bounds)}".rstrip())


def _is_finite_number(value: Any) -> bool:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond what a float holds
        return False
