"""Vectors with classes -> multinomial logistic regression: how likely each class is for another vector.

The mean cross-entropy plus |W|^2 / (2 strength n) is minimised by accelerated gradient steps with restarts (Nesterov
1983; O'Donoghue and Candes, Foundations of Computational Mathematics 2015), as scikit-learn's `LogisticRegression`
minimises it with `C=strength`. The offsets are not made small.

Guarantees: the same for the same input. Does not know: collections, names of classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 2000
SMALL = 1e-5
"""Of the largest slope, where the search ends."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Logistic:
    """`weights` (classes, dimension) and `offsets` (classes,)."""

    weights: Floats
    offsets: Floats

    def probabilities(self, rows: NDArray[np.floating]) -> Floats:
        """How likely each class is for each vector: (n, classes), every row adds up to 1."""
        return _softmax(np.asarray(rows, np.float64) @ self.weights.T + self.offsets)


def fit(rows: NDArray[np.floating], classes: Integers, count: int, *, strength: float) -> Logistic:
    """Fit vectors (n, dimension) whose classes (n,) are 0 to count - 1."""
    values = np.asarray(rows, np.float64)
    basis = None
    if len(values) < values.shape[1]:
        # few vectors: the weights lie in the space that they span
        left, sizes, basis = np.linalg.svd(values, full_matrices=False)
        values = left * sizes
    ones = np.eye(count)[classes]
    penalty = 1 / (strength * len(values))
    # the curvature of the softmax is 1/2 at most; the column of ones belongs to the offsets
    step = 1 / (0.5 * (np.linalg.norm(values, 2) ** 2 / len(values) + 1) + penalty)
    weights, offsets = np.zeros((count, values.shape[1])), np.zeros(count)
    ahead, ahead_offsets, momentum = weights, offsets, 1.0
    for _ in range(STEPS):
        error = (_softmax(values @ ahead.T + ahead_offsets) - ones) / len(values)
        slope, slope_offsets = error.T @ values + penalty * ahead, error.sum(axis=0)
        if max(np.abs(slope).max(), np.abs(slope_offsets).max()) < SMALL:
            weights, offsets = ahead, ahead_offsets
            break
        new, new_offsets = ahead - step * slope, ahead_offsets - step * slope_offsets
        if (slope * (new - weights)).sum() + (slope_offsets * (new_offsets - offsets)).sum() > 0:
            momentum = 1.0  # it went uphill: begin the acceleration anew
        next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = (momentum - 1) / next_momentum
        ahead, ahead_offsets = new + share * (new - weights), new_offsets + share * (new_offsets - offsets)
        weights, offsets, momentum = new, new_offsets, next_momentum
    return Logistic(weights if basis is None else weights @ basis, offsets)


def log_loss(probabilities: Floats, classes: Integers) -> float:
    """Mean of -log of the probability that the true classes got."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(classes)), classes], 1e-15)).mean())


def folds_of(classes: Integers, folds: int, *, seed: int) -> Integers:
    """The fold (n,) of each vector, so that every fold has its share of each class."""
    order = np.random.default_rng(seed).permutation(len(classes))
    by_class = order[np.argsort(classes[order], kind="stable")]
    numbers = np.empty(len(classes), np.int64)
    # one after the other through all classes, so that folds are equally large too
    numbers[by_class] = np.arange(len(classes)) % folds
    return numbers


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
