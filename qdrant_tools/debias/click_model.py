"""A position-based click model: how likely each rank is looked at, and labels that make up for it.

The model says P(click) = P(rank is looked at) * P(passage attracts for this query): Chuklin, Markov, de Rijke, "Click
Models for Web Search", 2015, section 3.3. Attractions are drawn from one distribution, a histogram that is estimated
along with the propensities by expectation maximisation of the marginal likelihood. A log has few impressions of most
pairs; fitting one free attraction to each, as the book does, would explain their clicks by themselves and flatten the
propensities. These then weigh clicks (inverse propensity scoring: Joachims, Swaminathan, Schnabel, "Unbiased learning
to rank with biased feedback", WSDM 2017).

Guarantees: deterministic; the most looked-at rank has propensity 1. Only a passage that was shown at several ranks for
one query can tell a good hit from a looked-at rank. A log of nothing else gives the click rates of the ranks, which is
too steep where the ranking was good. `ClickModel.repeated` says how many such pairs there were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.debias.rules import clicks, query_key, shown
from qdrant_tools.errors import InputError
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.records import Label

Numbers = NDArray[np.float64]
Pair = tuple[str, str]

ATTRACTIONS: Numbers = (np.arange(20) + 0.5) / 20
"""The middles of the histogram's bins."""


@dataclass(frozen=True)
class ClickModel:
    """`propensities[r - 1]` is how likely rank r is looked at, relative to the most looked-at rank; `attraction` is by
    (query key, passage); `repeated` is the number of pairs that were shown at several ranks."""

    propensities: tuple[float, ...]
    attraction: Mapping[Pair, float] = field(repr=False)
    iterations: int
    repeated: int

    def propensity(self, rank: int) -> float:
        """Ranks below those of the log are looked at as little as its last one."""
        return self.propensities[min(rank, len(self.propensities)) - 1]


@dataclass(frozen=True)
class _Counts:
    """Impressions and clicks per distinct (pair, position); `pair` and `position` are indices."""

    pairs: list[Pair]
    pair: NDArray[np.int64]
    position: NDArray[np.int64]
    impressions: Numbers
    clicks: Numbers


def fit_click_model(searches: Iterable[LoggedSearch], *, iterations: int = 500, tolerance: float = 1e-4) -> ClickModel:
    """Fit propensities and attractions, until no propensity moves by more than `tolerance`.

    Raises:
        InputError: no search with a click on a hit that it showed.
    """
    counts = _count(searches)
    if not counts.clicks.sum():
        raise InputError("no clicks on shown hits in this log: a click model needs some")
    propensity = np.linspace(1.0, 0.5, int(counts.position.max()) + 1)
    histogram = np.full(len(ATTRACTIONS), 1 / len(ATTRACTIONS))
    posterior = np.empty((0, len(ATTRACTIONS)))
    done, moved = 0, np.inf
    while done < iterations and moved > tolerance:
        before = propensity
        propensity, histogram, posterior = _em_step(counts, propensity, histogram)
        done, moved = done + 1, float(np.abs(propensity - before).max())
    # Only the product of look and attraction is observed: the scale is fixed by the most looked-at rank.
    scale = propensity.max()
    attraction = posterior @ ATTRACTIONS * scale
    repeated = int((np.bincount(counts.pair) > 1).sum())
    return ClickModel(
        tuple((propensity / scale).tolist()), dict(zip(counts.pairs, attraction.tolist())), done, repeated
    )


def inverse_propensity(
    searches: Iterable[LoggedSearch], model: ClickModel, *, clip: float = 10.0, examined: float = 0.9
) -> list[Label]:
    """One label per (query, passage): clicks weighed by how unlikely their rank was looked at.

    The weight is the mean over impressions of click / propensity, each at most `clip` (which trades some bias for
    less variance). A pair without clicks is a label against once it was probably looked at: when the propensities of
    its impressions add up to `examined` or more. Other pairs without clicks give no label.
    """
    if clip < 1 or examined <= 0:
        raise InputError(f"clip is {clip} and examined {examined}, expected at least 1 and above 0")
    weights: dict[Pair, list[float]] = {}
    looked_at: dict[Pair, float] = {}
    spelling: dict[str, str] = {}
    for search in searches:
        clicked = set(clicks(search))
        spelling.setdefault(query_key(search.query), search.query)
        for rank, passage in enumerate(shown(search), start=1):
            pair = (query_key(search.query), passage)
            propensity = model.propensity(rank)
            weights.setdefault(pair, []).append(min(1 / propensity, clip) if passage in clicked else 0.0)
            looked_at[pair] = looked_at.get(pair, 0.0) + propensity
    return [
        Label(spelling[query], passage, sum(each) / len(each), "click / propensity" if any(each) else "examined")
        for (query, passage), each in weights.items()
        if any(each) or looked_at[query, passage] >= examined
    ]


def _count(searches: Iterable[LoggedSearch]) -> _Counts:
    numbers: dict[Pair, int] = {}
    totals: dict[tuple[int, int], list[int]] = {}
    for search in searches:
        clicked = set(clicks(search))
        for position, passage in enumerate(shown(search)):
            pair = numbers.setdefault((query_key(search.query), passage), len(numbers))
            total = totals.setdefault((pair, position), [0, 0])
            total[0] += 1
            total[1] += passage in clicked
    table = np.array([(pair, position, *total) for (pair, position), total in totals.items()]).reshape(-1, 4)
    numbers_of = table.astype(np.float64)
    return _Counts(list(numbers), table[:, 0], table[:, 1], numbers_of[:, 2], numbers_of[:, 3])


def _em_step(counts: _Counts, propensity: Numbers, histogram: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """One step of expectation maximisation. Returns propensities (ranks,), the histogram of attractions (bins,), and
    the posterior of each pair's attraction (pairs, bins)."""
    clicked = propensity[counts.position][:, None] * ATTRACTIONS
    unclicked = (counts.impressions - counts.clicks)[:, None]
    evidence = counts.clicks[:, None] * np.log(clicked) + unclicked * np.log1p(-clicked)
    posterior = np.tile(np.log(histogram), (len(counts.pairs), 1))
    np.add.at(posterior, counts.pair, evidence)
    posterior = np.exp(posterior - posterior.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    # A hit without a click may have been looked at all the same: the less, the more it attracts.
    looked = unclicked * (propensity[counts.position][:, None] * (1 - ATTRACTIONS)) / (1 - clicked)
    looks = counts.clicks + (looked * posterior[counts.pair]).sum(axis=1)
    shown_at = np.bincount(counts.position, counts.impressions)
    updated = np.bincount(counts.position, looks) / np.maximum(shown_at, 1e-12)
    return np.clip(updated, 1e-4, 1.0), np.maximum(posterior.mean(axis=0), 1e-12), posterior
