"""The account of a mining run: how many of what, and how the scores are distributed.

Guarantees: constant size, whatever the run; goes to JSON and back, so that a run can be resumed. Does not know:
collections, examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BINS_PER_UNIT = 50
"""Histogram bins are 0.02 wide."""

REMOVED = ("known_positive", "skipped", "same_document", "close_to_positive", "near_duplicate", "judged_relevant")
"""Rules that remove candidates, in their order."""
OTHER_LOSSES = ("unknown_positive", "without_text", "redacted", "no_positive", "too_few", "below_minimum")
SCORES = ("positives", "candidates", "negatives")


@dataclass
class Tally:
    """`counts` by name; `histograms` of the scores of positives, candidates and negatives, as bin -> count, where bin b
    holds scores from b / 50 up to (b + 1) / 50."""

    counts: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in SCORES})

    def add_scores(self, name: str, scores: ArrayLike) -> None:
        """Count scores, of any shape."""
        bins = np.floor(np.asarray(scores, dtype=np.float64).ravel() * BINS_PER_UNIT).astype(np.int64)
        found, counts = np.unique(bins, return_counts=True)
        self.histograms[name].update(dict(zip(found.tolist(), counts.tolist())))

    def discarded(self) -> dict[str, int]:
        """What each rule removed, and what else was lost; only what is not 0."""
        return {name: self.counts[name] for name in (*REMOVED, *OTHER_LOSSES) if self.counts[name]}

    def as_row(self) -> dict[str, Any]:
        return {
            "counts": {name: int(count) for name, count in sorted(self.counts.items())},
            "histograms": {name: {str(b): n for b, n in sorted(its.items())} for name, its in self.histograms.items()},
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Tally:
        histograms = {name: Counter({int(b): n for b, n in row["histograms"][name].items()}) for name in SCORES}
        return cls(Counter(row["counts"]), histograms)
