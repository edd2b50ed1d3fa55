"""The same things measured before and after -> the difference, its 95 % interval, and what that allows to say.

Guarantees: pure functions over numbers, the same seed gives the same interval. Does not know: what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.metrics import mean, paired_bootstrap

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """One metric before and after, the difference (after - before) and its 95 % interval."""

    metric: str
    before: float
    after: float
    difference: float
    low: float
    high: float

    def excludes_loss_of(self, margin: float) -> bool:
        """Whether the whole interval lies above `-margin`: a loss as large as that is excluded.

        With margin 0 that is proof of a gain, with a margin above 0 a test of non-inferiority (Piaggio et al.,
        "Reporting of noninferiority and equivalence randomized trials", JAMA 2012).
        """
        return self.low > -margin

    def __str__(self) -> str:
        return f"{self.metric} {self.difference:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def change_of_means(metric: str, before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0) -> Change:
    """Compare the means of values per query: paired bootstrap over the queries."""
    interval = paired_bootstrap(before, after, seed=seed)
    return Change(metric, mean(before), mean(after), interval.difference, interval.low, interval.high)


def change_of_correlation(
    gold: Numbers, before: Numbers, after: Numbers, *, seed: int = 0, resamples: int = 2000
) -> Change:
    """Compare the Spearman correlations of two score columns with `gold`: paired bootstrap over the rows."""
    generator = np.random.default_rng(seed)

    def difference(rows: NDArray[np.int64]) -> float:
        return spearman(gold[rows], after[rows]) - spearman(gold[rows], before[rows])

    drawn = [difference(generator.integers(len(gold), size=len(gold))) for _ in range(resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    first, second = spearman(gold, before), spearman(gold, after)
    return Change("spearman", first, second, second - first, float(low), float(high))


def spearman(first: Numbers, second: Numbers) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, ties share their mean rank; 0 if one side is constant."""
    a, b = (_ranks(each) for each in (first, second))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _ranks(values: Numbers) -> Numbers:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], np.float64)
