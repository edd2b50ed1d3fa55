"""Checks on arrays of vectors where they enter this package.

Guarantees: what passes is float32, C-contiguous, finite, of the expected shape, and has a direction.
Does not know: encoders, collections.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qdrant_tools.errors import VectorError
from qdrant_tools.records import Vectors

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
