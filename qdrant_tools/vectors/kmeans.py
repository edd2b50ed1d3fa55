"""Unit vectors -> centres, by spherical k-means, and how many centres suit them.

Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning 2001: each
vector belongs to the centre of the largest cosine, and a centre is the mean of its vectors, scaled to length 1. It
begins with k-means++ (Arthur and Vassilvitskii, SODA 2007).

Guarantees: the same for a seed; no cluster is empty. Does not know: collections.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.records import Vectors
from qdrant_tools.validation import unit_rows

MOST_ROUNDS = 50
BEGINNINGS = 4
"""The best of so many is taken."""
CHOOSING = 4000
"""Vectors that decide how many clusters there are."""

Numbers = NDArray[np.int64]


def kmeans(rows: Vectors, count: int, *, seed: int = 0, beginnings: int = BEGINNINGS) -> tuple[Vectors, Numbers]:
    """Centres (m, dimension) of unit vectors (n, dimension), and the number of each vector's centre (n,). The largest
    cluster comes first; m is less than `count` where there are fewer different vectors."""
    count = min(count, len(np.unique(rows, axis=0)))
    draws = np.random.default_rng(seed)
    centres = max((_once(rows, count, draws) for _ in range(beginnings)), key=lambda found: found[1])[0]
    order = np.argsort(-np.bincount(nearest(rows, centres)[0], minlength=len(centres)), kind="stable")
    centres = centres[order]
    return centres, nearest(rows, centres)[0]


def nearest(rows: Vectors, centres: Vectors) -> tuple[Numbers, NDArray[np.float32]]:
    """The number of the nearest centre of each vector (n,), and the cosine with it (n,)."""
    cosines = rows @ centres.T
    numbers = cosines.argmax(axis=1)
    return numbers, cosines[np.arange(len(rows)), numbers]


def silhouette(rows: Vectors, centres: Vectors) -> float:
    """How much nearer the vectors are to their own centre than to the next one: -1 to 1, in the mean.

    (b - a) / max(a, b), where a is the distance 1 - cosine to the own centre and b that to the nearest other one
    (the simplified silhouette of Hruschka et al., "Evolutionary algorithms for clustering gene-expression data", ICDM
    2004, after Rousseeuw 1987).
    """
    if len(centres) < 2:
        return 0.0
    two = np.partition(rows @ centres.T, -2, axis=1)[:, -2:].astype(np.float64)
    near, far = np.maximum(1 - two[:, 1], 0), np.maximum(1 - two[:, 0], 1e-9)
    return float(np.mean((far - near) / np.maximum(far, near)))


def counts_to_try(vectors: int, most: int) -> list[int]:
    """Numbers of clusters from 2 to the square root of the vectors, each half as large again as the last."""
    largest, counts = max(2, min(most, math.isqrt(vectors))), [2]
    while counts[-1] < largest:
        counts.append(min(largest, max(counts[-1] + 1, round(counts[-1] * 1.5))))
    return counts


def choose_count(
    rows: Vectors, *, most: int, seed: int = 0, progress: Callable[[int], None] = lambda done: None
) -> dict[int, float]:
    """Numbers of clusters -> the silhouette that they get on some of the vectors. Half of these make the centres and
    the other half is measured, or more clusters would always seem better where there are few vectors."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:CHOOSING]
    making, measured = rows[chosen[::2]], rows[chosen[1::2]]
    found = {}
    for count in counts_to_try(len(chosen), most):
        centres, _ = kmeans(making, count, seed=seed, beginnings=2)
        found[count] = silhouette(measured if len(measured) else making, centres)
        progress(1)
    return found


def _once(rows: Vectors, count: int, draws: np.random.Generator) -> tuple[Vectors, float]:
    centres, before = _first_centres(rows, count, draws), -math.inf
    for _ in range(MOST_ROUNDS):
        numbers, cosines = nearest(rows, centres)
        total = float(cosines.sum(dtype=np.float64))
        if total - before <= 1e-5 * len(rows):
            break
        before, centres = total, _means(rows, numbers, cosines, count)
    return centres, float(nearest(rows, centres)[1].sum(dtype=np.float64))


def _first_centres(rows: Vectors, count: int, draws: np.random.Generator) -> Vectors:
    centres = [rows[draws.integers(len(rows))]]
    distances = np.maximum(1 - (rows @ centres[0]).astype(np.float64), 0)
    while len(centres) < count:
        total = distances.sum()
        # what is left lies on the centres up to rounding
        drawn = draws.choice(len(rows), p=distances / total) if total > 0 else draws.integers(len(rows))
        centres.append(rows[drawn])
        distances = np.minimum(distances, np.maximum(1 - (rows @ rows[drawn]).astype(np.float64), 0))
    return np.array(centres)


def _means(rows: Vectors, numbers: Numbers, cosines: NDArray[np.float32], count: int) -> Vectors:
    sums = np.zeros((count, rows.shape[1]))
    order = np.argsort(numbers, kind="stable")
    there, starts = np.unique(numbers[order], return_index=True)
    sums[there] = np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64)
    # an empty cluster gets the vector that fits its own worst; each another one
    empty = np.flatnonzero(np.bincount(numbers, minlength=count) == 0)
    for cluster, worst in zip(empty, np.argsort(cosines, kind="stable")):
        sums[cluster] = rows[worst]
    # opposite vectors have a mean without a direction
    flat = np.linalg.norm(sums, axis=1) < 1e-9
    sums[flat] = rows[[int(np.argmax(numbers == cluster)) for cluster in np.flatnonzero(flat)]]
    return unit_rows(sums)
