"""Two windows of a log -> what share of searches goes badly now and went badly then, and click-through by rank.

Guarantees: every share has its count and a 95 % interval; every p-value is exact, and of growth: that fewer searches
go badly is no alarm. Does not know: time, texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qdrant_tools.errors import InputError
from qdrant_tools.monitor.windows import Window, Windows
from qdrant_tools.proportions import growth_p_value, order_statistic_p_value, wilson


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
    """One share, then and now. `p_value` is None where there is nothing to compare; `bound` is the score of a low
    score."""

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


def signals(windows: Windows, *, quantile: float = 0.05) -> list[Signal]:
    """Searches with a low best score, without hits, and without a click."""
    return [low_scores(windows, quantile=quantile), _without_hits(windows), _without_click(windows)]


def low_scores(windows: Windows, *, quantile: float = 0.05) -> Signal:
    """The share of searches whose best score is below what only `quantile` of the reference window's were below.

    The bound is the reference's order statistic of rank quantile x n, and the test is exact for whatever distribution
    of scores: see `proportions.order_statistic_p_value`.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile is {quantile}, expected a share between 0 and 1")
    reference, current = np.sort(windows.reference.top_scores), windows.current.top_scores
    if not len(reference) or not len(current):
        nothing = Share.from_counts(0, len(reference)), Share.from_counts(0, len(current))
        return Signal("low_score", *nothing, None)
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
        of = [each.shown_at.get(rank, 0) for each in (windows.reference, windows.current)]
        if any(of):
            clicked = [each.clicked_at.get(rank, 0) for each in (windows.reference, windows.current)]
            yield RankClicks(rank, *(Share.from_counts(*pair) for pair in zip(clicked, of)))


def _without_hits(windows: Windows) -> Signal:
    return _signal("without_hits", windows, of="searches")


def _without_click(windows: Windows) -> Signal:
    """Nothing to compare where a window has no feedback at all: then nobody recorded any."""
    found = _signal("without_click", windows, of="shown")
    recorded = all(each.counts["feedback"] for each in (windows.reference, windows.current))
    return found if recorded else Signal(found.name, found.reference, found.current, None)


def _signal(name: str, windows: Windows, *, of: str) -> Signal:
    def counts(window: Window) -> tuple[int, int]:
        return window.counts[name], window.counts[of]

    before, after = counts(windows.reference), counts(windows.current)
    p_value = growth_p_value(before, after) if before[1] and after[1] else None
    return Signal(name, Share.from_counts(*before), Share.from_counts(*after), p_value)
