"""How deep values may lie inside one another, and where one lies too deep.

A payload nested 124 levels deep is acknowledged by the embedded engine, and from then on its collection cannot be
opened; a server refuses it at 128. Long before that Python's own stack ends. So there is one limit for payloads and one
for requests, and one error that names the path to the place. Does not know: engines, models.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qdrant_tools.errors import InputError

DEEPEST_PAYLOAD = 64
"""Objects and lists inside one another, the payload itself among them."""
DEEPEST_REQUEST = 30
"""Filters, formulas or prefetches inside one another."""
LARGEST_NUMBER = int(sys.float_info.max)
"""Integers beyond 64 bits are stored as floats; beyond this one there are none."""


def parts(value: Any) -> Iterable[tuple[str, Any]] | None:
    """What is in an object or a list, by its step; None for a value that holds no others."""
    if isinstance(value, Mapping):
        return ((f".{key if isinstance(key, str) else type(key).__name__}", each) for key, each in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ((f"[{place}]", each) for place, each in enumerate(value))
    return None


def refuse_nesting(
    value: Any, inside_of: Callable[[Any], Iterable[tuple[str, Any]] | None], levels: int, what: str
) -> None:
    """Raise `InputError` with the path to the place where `value` holds more than `levels` values inside one another.

    `inside_of` gives what is in a value by its step, None for one that holds no others.
    """
    inside = inside_of(value)
    if inside is None:
        return
    # a stack of what is left to look at on each level, and the steps that led there: no recursion, cycles end too
    levels_left, steps = [iter(inside)], [""]
    while levels_left:
        if len(levels_left) > levels:
            path = "".join(steps[1:]).lstrip(".")
            shown = path if len(path) <= 60 else f"{path[:40]}...{path[-17:]}"
            raise InputError(f"{what} is nested more than {levels} levels deep at {shown}: make it flatter")
        for step, each in levels_left[-1]:
            inside = inside_of(each)
            if inside is not None:
                levels_left.append(iter(inside))
                steps.append(step)
                break
        else:
            levels_left.pop()
            steps.pop()


PATH_STEP = re.compile(r'"[^"]*"|\[[^\]]*\]|[^.\["]+')


def path_depth(path: str) -> int:
    """How many objects and lists lie inside one another along a payload path, for example 3 for `a.b[0]`."""
    return len(PATH_STEP.findall(path))
