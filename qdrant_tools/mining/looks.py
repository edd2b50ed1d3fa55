"""Passages that were shown for one query at several ranks -> how likely each rank is looked at.

Such a passage is equally good an answer at either rank, so that the clicks on it tell the ranks apart and nothing else
does: "intervention harvesting" (Agarwal, Zaitsev, Wang, Li, Najork and Joachims, "Estimating position bias without
intrusive interventions", WSDM 2019), here as a Poisson model of the click rates, clicks at rank k of the pairs shown at
k and at l = look(k) * attraction(k, l), fitted by alternating maximum likelihood. `debias.fit_click_model` needs no
such passages, and takes a good ranking for a steep one.

What follows from the looks should not rest on their noise. So each is the upper end of its interval (a bootstrap over
queries): a look that is thought too likely makes clicks far below count too little, and what was shown first keeps some
of its advantage. And no rank is looked at more than the one above it, nor less than half as much.

Guarantees: deterministic for a seed; a log that cannot tell is said to be one, never guessed at. Does not know: what
the clicks are used for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.debias.click_rules import clicks, shown
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.records import Label
from qdrant_tools.same import id_key, query_key

Numbers = NDArray[np.float64]

RANKS = 10
"""Ranks that are told apart; those below count as the last."""
LEAST_CLICKS = 100
"""Clicks on passages shown at several ranks, below which nothing is told."""
CLIP = 10.0
"""No click counts more than so many: some bias for less variance."""
_RESAMPLES, _ITERATIONS = 200, 200
_UPPER = 0.95


@dataclass(frozen=True)
class Looks:
    """`likely[r - 1]`: how likely rank r is looked at, relative to the first, as the upper end of its interval.
    `estimate` is the middle. `pairs` were shown at several ranks, with `clicks` on them."""

    likely: tuple[float, ...]
    estimate: tuple[float, ...]
    pairs: int
    clicks: int

    def at(self, rank: int) -> float:
        """How likely a rank is looked at; below the last one as little as that."""
        return self.likely[min(rank, len(self.likely)) - 1]


def fit_looks(searches: Iterable[LoggedSearch], *, seed: int = 0) -> Looks | None:
    """Fit the looks; None if the log does not tell: too few clicks on passages shown at several ranks."""
    rates, counts = _rates_by_query(searches)
    if counts[1] < LEAST_CLICKS or not rates:
        return None
    table = np.array([_table(pairs) for pairs in rates])
    estimate = _fitted(table.sum(axis=0))
    if estimate is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = [_fitted(table[rng.integers(0, len(table), len(table))].sum(axis=0)) for _ in range(_RESAMPLES)]
    known = np.array([looks for looks in drawn if looks is not None])
    if len(known) < _RESAMPLES // 2:
        return None
    upper = np.maximum(estimate, np.quantile(known, _UPPER, axis=0))
    return Looks(tuple(_falling(upper)), tuple(_falling(estimate)), *counts)


def with_debiased(labels: Iterable[Label], searches: Iterable[LoggedSearch], looks: Looks) -> list[Label]:
    """Labels of clicks with what they count by the looks: the mean over the impressions of click / look."""
    values: dict[tuple[str, str], list[float]] = {}
    for search in searches:
        clicked, key = set(clicks(search)), query_key(search.query)
        for rank, passage in enumerate(shown(search), start=1):
            weight = min(1 / looks.at(rank), CLIP) if passage in clicked else 0.0
            values.setdefault((key, id_key(passage)), []).append(weight)
    found = []
    for label in labels:
        weights = values.get((query_key(label.query), id_key(label.passage_id)), [])
        found.append(replace(label, debiased=sum(weights) / len(weights)) if any(weights) else label)
    return found


Pairs = Sequence[tuple[int, int, float, float]]
"""(rank, other rank, click rate there, click rate at the other) of one passage; ranks from 0."""


def _rates_by_query(searches: Iterable[LoggedSearch]) -> tuple[list[Pairs], tuple[int, int]]:
    """For each query its passages that were shown at several ranks; how many those are, and the clicks on them."""
    impressions: dict[str, dict[str, dict[int, list[int]]]] = {}
    for search in searches:
        clicked, of_query = set(clicks(search)), impressions.setdefault(query_key(search.query), {})
        for rank, passage in enumerate(shown(search)[:RANKS]):
            of_query.setdefault(id_key(passage), {}).setdefault(rank, []).append(passage in clicked)
    found: list[Pairs] = []
    pairs = clicked_pairs = 0
    for of_query in impressions.values():
        rows: list[tuple[int, int, float, float]] = []
        for by_rank in of_query.values():
            if len(by_rank) < 2:
                continue
            pairs += 1
            clicked_pairs += sum(map(sum, by_rank.values()))
            rates = {rank: sum(each) / len(each) for rank, each in by_rank.items()}
            rows += [(k, j, rates[k], rates[j]) for k in sorted(rates) for j in sorted(rates) if k < j]
        if rows:
            found.append(rows)
    return found, (pairs, clicked_pairs)


def _table(pairs: Pairs) -> Numbers:
    """(2, RANKS, RANKS): [0, k, j] sums the click rates at k of passages shown at k and j, [1] counts these."""
    table = np.zeros((2, RANKS, RANKS))
    for k, j, at_k, at_j in pairs:
        table[0, k, j] += at_k
        table[0, j, k] += at_j
        table[1, k, j] += 1
        table[1, j, k] += 1
    return table


def _falling(looks: Numbers) -> Iterator[float]:
    """No rank is looked at more than the one above it, nor, where hardly a click tells, less than half as much."""
    above = 1.0
    for look in looks.tolist():
        above = min(above, max(above / 2, look))
        yield above


def _fitted(table: Numbers) -> Numbers | None:
    """The looks (RANKS,), the first of which is 1; None where ranks hang together by no clicks."""
    rates, numbers = table
    seen = numbers.sum(axis=1) > 0
    look = np.ones(RANKS)
    for _ in range(_ITERATIONS):
        expected = numbers * (look[:, None] + look[None, :])
        both = rates + rates.T
        attraction = np.divide(both, expected, out=np.zeros_like(both), where=expected > 0)
        weights = (numbers * attraction).sum(axis=1)
        look = np.divide(rates.sum(axis=1), weights, out=np.zeros(RANKS), where=weights > 0)
        if look[0] <= 0:
            return None
        look /= look[0]
    # a rank that no passage changed places with is looked at as likely as the one above it
    for rank in range(1, RANKS):
        if not seen[rank]:
            look[rank] = look[rank - 1]
    return np.asarray(np.minimum(look, 1e3))
