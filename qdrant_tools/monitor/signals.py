"""Two windows of a log -> what has changed: shares of searches that go badly, click-through by rank, the queries.

Guarantees: every share has its count and a 95 % interval. Every p-value of a share is exact and one-sided: it tests
growth, because fewer searches that go badly are no alarm. The test of the queries is a permutation test: without drift
its p-value is at most `a` with probability `a` at most, whatever the distribution and however small the sets. All tests
take the searches as independent: of a session, which are not, one is tested. Where nobody recorded sessions, those of
one user in one sitting make a test fire more often. Does not know: time, texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.errors import InputError
from qdrant_tools.monitor.windows import Window, Windows
from qdrant_tools.records import Vectors
from qdrant_tools.statistics import growth_p_value, order_statistic_p_value, wilson
from qdrant_tools.validation import checked_vectors

FEWEST = 8
"""Vectors on each side of the drift test: with fewer, hardly any drift can show."""


@dataclass(frozen=True)
class Share:
    """`count` of `of`, and the ends of the 95 % Wilson interval of the share."""

    count: int
    of: int
    share: float
    low: float
    high: float

    @classmethod
    def from_counts(cls, count: int, of: int) -> Share:
        return cls(count, of, count / of if of else 0.0, *wilson(count, of))


@dataclass(frozen=True)
class Signal:
    """One share, then and now. `p_value` is None if a window has nothing to compare. `bound` is the score below which
    a score counts as low."""

    name: str
    reference: Share
    current: Share
    p_value: float | None
    bound: float | None = None

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RankClicks:
    """How often the hits of one rank were clicked, then and now."""

    rank: int
    reference: Share
    current: Share

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class DriftTest:
    """`p_value` is that of the energy distance `distance`. `share` is the size of the difference: 0 for one
    distribution, 1 for two points. However small, it becomes significant in a log that is large enough: read both."""

    distance: float
    share: float
    p_value: float
    reference: int
    current: int
    permutations: int

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def signals(windows: Windows, *, quantile: float = 0.05) -> list[Signal]:
    """Searches with a low best score, without hits, and without a click."""
    return [low_scores(windows, quantile=quantile), _without_hits(windows), _without_click(windows)]


def low_scores(windows: Windows, *, quantile: float = 0.05) -> Signal:
    """The share of searches whose best score is low: lower than all but the lowest `quantile` of the reference's.

    This bound is the reference's order statistic of rank quantile x n, and the test is exact for whatever distribution
    of scores: see `metrics.order_statistic_p_value`.

    Raises:
        InputError: `quantile` is no share.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile is {quantile}, expected a share between 0 and 1")
    reference, current = np.sort(windows.reference.top_scores), windows.current.top_scores
    if not len(reference) or not len(current):
        return Signal(
            "low_score", Share.from_counts(0, len(reference)), Share.from_counts(0, len(current)), p_value=None
        )
    rank = max(1, round(quantile * len(reference)))
    bound = float(reference[rank - 1])
    below = int((current < bound).sum())
    return Signal(
        "low_score",
        Share.from_counts(int((reference < bound).sum()), len(reference)),
        Share.from_counts(below, len(current)),
        order_statistic_p_value(rank, len(reference), below, len(current)),
        bound,
    )


def click_through(windows: Windows, *, ranks: int = 10) -> Iterator[RankClicks]:
    """Click-through of the first so many ranks."""
    for rank in range(1, ranks + 1):
        if any(rank in window.shown_at for window in (windows.reference, windows.current)):
            yield RankClicks(rank, _clicked_share(windows.reference, rank), _clicked_share(windows.current, rank))


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
    rng = np.random.default_rng(seed)
    shuffled = np.stack([weights, *(rng.permutation(weights) for _ in range(permutations))], axis=1)
    # With w = 1/n on one side and -1/m on the other, the energy distance is -w'Dw.
    energies = -np.einsum("ij,ij->j", shuffled, distances @ shuffled)
    observed = energies[0]
    # A permutation that restores the sides gives the observed value, but for rounding.
    as_far = int((energies[1:] >= observed - 1e-12).sum())
    between = float(distances[:n, n:].mean())
    share = float(observed) / (2 * between) if between > 0 else 0.0
    return DriftTest(float(observed), share, (1 + as_far) / (1 + permutations), n, m, permutations)


def _clicked_share(window: Window, rank: int) -> Share:
    return Share.from_counts(window.clicked_at.get(rank, 0), window.shown_at.get(rank, 0))


def _without_hits(windows: Windows) -> Signal:
    return _signal("without_hits", windows, of="searches")


def _without_click(windows: Windows) -> Signal:
    signal = _signal("without_click", windows, of="shown")
    # a window without any feedback: nobody recorded it, and a missing click says nothing
    recorded = all(window.counts["feedback"] for window in (windows.reference, windows.current))
    return signal if recorded else replace(signal, p_value=None)


def _signal(name: str, windows: Windows, *, of: str) -> Signal:
    def counts(window: Window) -> tuple[int, int]:
        return window.tested.get(name, 0), window.tested.get(of, 0)

    before, after = counts(windows.reference), counts(windows.current)
    p_value = growth_p_value(before, after) if before[1] and after[1] else None
    return Signal(name, Share.from_counts(*before), Share.from_counts(*after), p_value)


def _distances(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances (n, n) of the vectors (n, dimension)."""
    squares = (vectors**2).sum(axis=1)
    # rounding can make the square of a small distance negative
    distances: NDArray[np.float64] = np.sqrt(
        np.maximum(squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T, 0.0)
    )
    return distances
