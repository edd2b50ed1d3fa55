"""Two sets of query vectors -> do they come from one distribution?

Guarantees: a permutation test, so that without drift the p-value is at most `a` with probability `a` at most, whatever
the distribution and however small the sets. It takes the searches as independent: those of one user in one sitting are
not quite, and make the test fire more often. Does not know: texts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.errors import InputError
from qdrant_tools.records import Vectors
from qdrant_tools.vectors import checked_vectors

FEWEST = 8
"""Vectors per side: with fewer, hardly any drift can show."""


@dataclass(frozen=True)
class DriftTest:
    """`share` is the size of the difference: 0 for one distribution, 1 for two points; however small, it becomes
    significant in a log that is large enough, so look at both. `p_value` is that of the energy distance `distance`."""

    distance: float
    share: float
    p_value: float
    reference: int
    current: int
    permutations: int

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def energy_test(reference: Vectors, current: Vectors, *, permutations: int = 999, seed: int = 0) -> DriftTest:
    """Test whether two sets of vectors, (n, dimension) and (m, dimension), come from one distribution.

    The statistic is the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo, "Energy statistics",
    Journal of Statistical Planning and Inference 2013), which is the squared maximum mean discrepancy of the kernel
    -|x - y| (Sejdinovic et al., Annals of Statistics 2013): it is 0 for equal distributions only, and has no bandwidth
    to choose. The p-value is (1 + permutations at least as far apart) / (1 + permutations): Phipson and Smyth,
    "Permutation p-values should never be zero", 2010. Memory is O((n + m) x (n + m + permutations)).

    Raises:
        InputError: fewer than 8 vectors on a side, fewer than 1 permutation.
        VectorError: other dimensions, NaN.
    """
    n, m = len(reference), len(current)
    if min(n, m) < FEWEST or permutations < 1:
        raise InputError(f"{n} and {m} vectors and {permutations} permutations, expected at least {FEWEST} and 1")
    first = checked_vectors(reference, dimension=np.shape(reference)[1], what="reference vectors")
    second = checked_vectors(current, dimension=first.shape[1], what="current vectors")
    distances = _distances(np.concatenate([first, second]).astype(np.float64))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    luck = np.random.default_rng(seed)
    shuffled = np.stack([weights, *(luck.permutation(weights) for _ in range(permutations))], axis=1)
    # With w = 1/n on one side and -1/m on the other, the energy distance is -w'Dw.
    energies = -np.einsum("ij,ij->j", shuffled, distances @ shuffled)
    observed = energies[0]
    # A permutation that restores the sides gives the observed value but for rounding.
    beyond = int((energies[1:] >= observed - 1e-12).sum())
    between = float(distances[:n, n:].mean())
    share = float(observed) / (2 * between) if between > 0 else 0.0
    return DriftTest(float(observed), share, (1 + beyond) / (1 + permutations), n, m, permutations)


def _distances(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean, (n, n)."""
    squares = (vectors**2).sum(axis=1)
    distances: NDArray[np.float64] = np.sqrt(
        np.maximum(squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T, 0.0)
    )
    return distances
