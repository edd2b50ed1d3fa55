"""What a caller gives -> the same value, checked; or one `InputError` that shows its beginning.

Texts, numbers, arrays of vectors, and how deep values may lie inside one another. Vectors that pass are float32,
C-contiguous, finite, of the expected shape, and have a direction. Does not know: what a value is for.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdrant_tools.errors import InputError, VectorError
from qdrant_tools.errors import brief as brief  # most of its callers check values too
from qdrant_tools.records import Vectors

Float = TypeVar("Float", bound=np.floating[Any])


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


def checked_texts(name: str, values: Any) -> list[str]:
    """Several texts as a list. Raises `InputError` for a single one, and for what is no text."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InputError(f"{name} are {brief(values)}, expected several strings")
    return [checked_text(name, value) for value in values]


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


def number_in(text: str) -> float:
    """The finite number that a text writes in ASCII digits, as JSON or CSV would; NaN for any other text.

    `float` alone also reads "1_000", "infinity" and the digits of every script.
    """
    number = float(text) if len(text) <= 400 and _NUMBER.fullmatch(text.strip()) else math.nan
    return number if math.isfinite(number) else math.nan


_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _is_finite_number(value: Any) -> bool:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond what a float holds
        return False


LARGEST_GRADE = 2**31 - 1
"""Of a judgement. Grades are gains that are added up; trec_eval reads no larger ones on every system either."""

UNIT_TOLERANCE = 1e-3
"""How far from 1 the length of a unit vector may be; float16 arithmetic stays within it."""


def checked_vectors(vectors: ArrayLike, *, dimension: int, count: int | None = None, what: str) -> Vectors:
    """Return `vectors` as float32 (count, dimension).

    Raises:
        VectorError: wrong shape, not a number, or a row of zeros; `what` says whose vectors they are.
    """
    try:
        array = np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorError(f"{what}: not an array of numbers of shape (n, {dimension})") from error
    expected = f"({'n' if count is None else count}, {dimension})"
    if array.ndim != 2 or array.shape[1] != dimension or (count is not None and len(array) != count):
        raise VectorError(f"{what}: shape {array.shape}, expected {expected}")
    # after the conversion: a number that is too large for float32 is infinite by now
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise VectorError(f"{what}: row {int(np.argmin(finite))} holds NaN or infinity, expected finite numbers")
    zero = ~array.any(axis=1)
    if zero.any():
        raise VectorError(f"{what}: row {int(np.argmax(zero))} is all zeros, expected a vector with a direction")
    return array


def checked_unit_vectors(vectors: ArrayLike, *, dimension: int, count: int, what: str) -> Vectors:
    """As `checked_vectors`, and every row has length 1."""
    array = checked_vectors(vectors, dimension=dimension, count=count, what=what)
    lengths = np.linalg.norm(array, axis=1)
    off = np.abs(lengths - 1.0) > UNIT_TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        raise VectorError(f"{what}: row {row} has length {lengths[row]:.4f}, expected unit length")
    return array


@overload
def unit_rows(vectors: NDArray[Any]) -> Vectors: ...
@overload
def unit_rows(vectors: NDArray[Any], dtype: type[Float]) -> NDArray[Float]: ...
def unit_rows(vectors: NDArray[Any], dtype: Any = np.float32) -> NDArray[Any]:
    """Scale the rows of (n, dimension) to length 1; a row of zeros stays one."""
    rows = np.asarray(vectors, np.float64)  # in single precision the squares of small numbers vanish
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), dtype)


# A payload that is nested 124 levels deep is acknowledged by the embedded engine, and its collection can then no longer
# be opened; a server refuses it at 128. Python's own stack may end before that. Hence limits far below.
DEEPEST_PAYLOAD = 64
"""Objects and lists inside one another, the payload itself among them."""
DEEPEST_REQUEST = 30
"""Filters, formulas or prefetches inside one another."""
LARGEST_NUMBER = int(sys.float_info.max)
"""Integers beyond 64 bits are stored as floats; beyond this one there are none."""


def parts(value: Any) -> Iterable[tuple[str, Any]] | None:
    """The values in an object or a list, each with its step in a path; None for a value that holds no others."""
    if isinstance(value, Mapping):
        return ((f".{key if isinstance(key, str) else type(key).__name__}", part) for key, part in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ((f"[{index}]", part) for index, part in enumerate(value))
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
    # an explicit stack instead of recursion, so that the depth of the value does not matter; a cycle ends at the limit
    stack, path_steps = [iter(inside)], [""]
    while stack:
        if len(stack) > levels:
            path = "".join(path_steps[1:]).lstrip(".")
            short = path if len(path) <= 60 else f"{path[:40]}...{path[-17:]}"
            raise InputError(f"{what} is nested more than {levels} levels deep at {short}: make it flatter")
        for step, part in stack[-1]:
            inside = inside_of(part)
            if inside is not None:
                # one level down; the iterator of the level above goes on later where it stopped
                stack.append(iter(inside))
                path_steps.append(step)
                break
        else:
            stack.pop()
            path_steps.pop()


# quoted keys come first: they may hold dots and brackets
PATH_STEP = re.compile(r'"[^"]*"|\[[^\]]*\]|[^.\["]+')


def path_depth(path: str) -> int:
    """How many objects and lists lie inside one another along a payload path, for example 3 for `a.b[0]`."""
    return len(PATH_STEP.findall(path))
