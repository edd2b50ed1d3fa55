"""How often is an interval wrong, and how often does it see a gain? By the number of queries.

    python benchmarks/intervals.py [--draws 2000]

Three kinds of interval of a mean difference in nDCG@10: percentile bootstrap, Student's t, and the one that proofs use
(`qdrant_tools.metrics.paired_interval`: below 100 queries the farther ends of both). A query has one answer; each
system puts it at a rank of its own, drawn around a rank that the query has in both.

`false_better`: the share of draws in which the interval lies above 0 although the two systems are equal in the mean;
2.5 % is what a 95 % interval promises. `alike`: the two are drawn in the same way. `rare losses`: a query in twenty
loses 0.4, half of all win a little, so that the mean is 0; the hardest case, as a small draw may hold no loss.
`power`: the share of draws in which the proof's interval lies above 0 when the second system is really better by so
much. Seeded; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.metrics import paired_bootstrap
from qdrant_tools.statistics import FEW, mean_half_width

Numbers = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Numbers]
"""(random, queries) -> differences in nDCG@10 (queries,)."""

SIZES = (20, 30, 50, 75, 100, 200, 400)
GAINS = (0.01, 0.02, 0.03, 0.05)
RESAMPLES = 1000
MIDDLE, SPREAD, NOISE = 1.0, 1.4, 0.35
"""Of the logarithm of a rank: its mean, how far queries differ, and how far a system puts one query's answer off."""


def values(log_ranks: Numbers) -> Numbers:
    """nDCG@10 of one answer."""
    ranks = np.maximum(1, np.ceil(np.exp(log_ranks)))
    return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)


def ranked(shift: float) -> Draw:
    """Two systems, of which the second has ranks lower by `shift` in their logarithm."""

    def draw(random: np.random.Generator, queries: int) -> Numbers:
        shared = random.normal(MIDDLE, SPREAD, queries)
        before = values(shared + random.normal(0, NOISE, queries))
        return values(shared + random.normal(0, NOISE, queries) - shift) - before

    return draw


def rare_losses(random: np.random.Generator, queries: int) -> Numbers:
    kind = random.random(queries)
    return np.where(kind < 0.05, -0.4, np.where(kind < 0.55, 0.04, 0.0)) + 0.0


def shift_for(gain: float) -> float:
    """The shift that makes so large a mean difference, by bisection over many queries."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        mean = float(ranked(middle)(np.random.default_rng(0), 1_000_000).mean())
        low, high = (middle, high) if mean < gain else (low, middle)
    return high


def lows(differences: Numbers) -> dict[str, float]:
    """The lower end of each interval."""
    before = {str(i): 0.0 for i in range(len(differences))}
    after = {str(i): float(value) for i, value in enumerate(differences)}
    bootstrap = paired_bootstrap(before, after, resamples=RESAMPLES).low
    t = float(differences.mean()) - mean_half_width(differences)
    # as `paired_interval` has it, without drawing once more
    return {"bootstrap": bootstrap, "t": t, "proof": min(bootstrap, t) if len(differences) < FEW else bootstrap}


def above_zero(draw: Draw, queries: int, draws: int) -> dict[str, float]:
    """The share of draws in which each interval lies above 0."""
    random = np.random.default_rng(queries)
    found = {"bootstrap": 0, "t": 0, "proof": 0}
    for _ in range(draws):
        for name, low in lows(draw(random, queries)).items():
            found[name] += low > 0
    return {name: count / draws for name, count in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    shifts = {gain: shift_for(gain) for gain in GAINS}
    spread = float(ranked(0.0)(np.random.default_rng(0), 1_000_000).std())
    rows = []
    for queries in SIZES:
        row = {
            "queries": queries,
            "alike": above_zero(ranked(0.0), queries, draws),
            "rare losses": above_zero(rare_losses, queries, draws),
            "power": {gain: above_zero(ranked(shift), queries, draws)["proof"] for gain, shift in shifts.items()},
        }
        rows.append(row)
        print(row, flush=True)
    print(json.dumps({"draws": draws, "spread": spread, "rows": rows}))


if __name__ == "__main__":
    main()
