"""Numbers of settings, which a recipe from somebody else may say -> the same, or `UsageError`.

Guarantees: a whole number is one, and below a limit that no run reaches; a number is finite. So a batch of 10**18, a
rate of 10**400 or a length of 2**70 is one error, before anything is loaded. Does not know: what the numbers mean.
"""

from __future__ import annotations

import math
from typing import Any

from qdrant_tools.errors import UsageError, brief

LARGEST_SEED = 2**32 - 1
"""numpy's old generator, which sentence-transformers uses, takes no larger ones."""


def check_whole(name: str, value: Any, *, least: int = 1, most: int = 1_000_000) -> None:
    """Raise UsageError unless `value` is a whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{name} is {brief(value)}, expected a whole number")
    if value < least:
        raise UsageError(f"{name} is {brief(value)}, expected {f'at least {least}' if least else '0 or more'}")
    if value > most:
        raise UsageError(f"{name} is {brief(value)}, expected at most {most:,}")


def check_number(name: str, value: Any, *, above_zero: bool = True, most: float = 1e9) -> None:
    """Raise UsageError unless `value` is a finite number above 0, or from 0 on, and up to `most`."""
    expected = "a number above 0" if above_zero else "0 or more"
    if not is_number(value) or not (value > 0 if above_zero else value >= 0):
        raise UsageError(f"{name} is {brief(value)}, expected {expected}")
    if value > most:
        raise UsageError(f"{name} is {brief(value)}, expected at most {most:g}")


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number, which an integer beyond all floats is not."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
