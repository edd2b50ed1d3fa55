"""The same queries under two systems -> how large the difference is, and whether luck explains it.

Guarantees: both tests are paired, two-sided where it applies, and the same for a seed. Does not know: metrics, runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import InputError
from qdrant_tools.metrics import mean, paired_bootstrap

_NUMBERS_AT_ONCE = 4_000_000
SAME = 1e-12
"""Two values nearer than this are the same: the arithmetic of a metric is not exact."""


@dataclass(frozen=True)
class PairedTest:
    """One metric under two systems: means, `difference` (after - before) with its 95 % bootstrap interval, and the
    p-value of the randomisation test; and for how many queries `after` is better, worse, or the same.
    """

    metric: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int
    same: int


def paired_test(
    before: Mapping[str, float], after: Mapping[str, float], *, metric: str = "", seed: int = 0, resamples: int = 10_000
) -> PairedTest:
    """Test two mappings of query -> value with both paired tests.

    Raises:
        InputError: the two hold different queries, or none, or resamples is below 1.
    """
    interval = paired_bootstrap(before, after, seed=seed, resamples=resamples)
    differences = _differences(before, after)
    return PairedTest(
        metric,
        mean(before),
        mean(after),
        interval.difference,
        interval.low,
        interval.high,
        paired_randomisation(before, after, seed=seed, resamples=resamples),
        better=int((differences > SAME).sum()),
        worse=int((differences < -SAME).sum()),
        same=int((np.abs(differences) <= SAME).sum()),
    )


def paired_randomisation(
    before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> float:
    """Two-sided p-value of Fisher's randomisation test on the mean difference.

    If the systems were the same, each query's two values could as well stand the other way round: the p-value is the
    share of such exchanges whose mean difference is at least as large as the real one (Smucker, Allan and Carterette,
    "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007). All exchanges
    are looked at if they are no more than `resamples`; else so many are drawn, and the real one counts as one of
    them (Phipson and Smyth, "Permutation p-values should never be zero", 2010).

    Raises:
        InputError: the two hold different queries, or none, or resamples is below 1.
    """
    differences = _differences(before, after)
    if resamples < 1:
        raise InputError(f"resamples is {resamples}, expected at least 1")
    changed = differences[np.abs(differences) > SAME]  # the others add nothing, whichever way round
    if not len(changed):
        return 1.0
    least = abs(float(changed.sum())) - SAME * len(changed)
    if 2 ** min(len(changed), 62) <= resamples:
        every = 1 - 2 * ((np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed))) & 1)
        return float((np.abs(every @ changed) >= least).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    rows = max(1, _NUMBERS_AT_ONCE // len(changed))
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), len(changed))
        signs = 1.0 - 2.0 * generator.integers(2, size=size, dtype=np.int8)
        extreme += int((np.abs(signs @ changed) >= least).sum())
    return (extreme + 1) / (resamples + 1)


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> NDArray[np.float64]:
    if before.keys() != after.keys() or not before:
        odd = sorted(before.keys() ^ after.keys())
        what = f"{len(odd)} queries are in only one of the two, such as {odd[0]!r}" if odd else "there are no queries"
        raise InputError(f"{what}: compare two systems on the same queries")
    return np.array([after[query] - before[query] for query in sorted(before)])
