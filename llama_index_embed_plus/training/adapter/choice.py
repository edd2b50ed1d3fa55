"""How well each map did for queries that it was not fitted on -> the one that is taken, and why.

What is measured is the loss of `ranking`, at the temperature that suits the map best: maps that bring all passages
nearer gain nothing by that. Two things are known beforehand, and count:

- **Labels are picked from what was shown.** Nobody clicks on a passage that the base did not show. Whatever moves the
  shown ones further from the query looks bad then, and the more so, the more of the labels are wrong. So if nearly all
  answers are among the first 10 (or 20, or 50) that the base finds, only these are compared with each other.
- **Maps that need no labels help in most collections.** So the last of them is taken, unless another map is better by
  more than one standard error of the difference; of those that are, the one with the least loss (after Breiman et al.
  1984, who take the simplest within one standard error). Few labels, or wrong ones, then do not choose at random.

Guarantees: without a query the last of the maps that need no labels is taken. Does not know: how maps are made.
"""

from __future__ import annotations

import numpy as np

from llama_index_embed_plus.training.adapter.arrays import Numbers
from llama_index_embed_plus.training.adapter.ranking import Judged

NEARLY_ALL = 0.95
STANDARD_ERRORS = 1.0
ONE_QUERY = 1 - 1e-12
"""The sum of squared shares from which on one query has all the weight: of a spread nothing is known."""


def losses_of(judged: Judged, weights: Numbers) -> Numbers:
    """(maps, n): the loss of each map and query, at the temperature that suits the map best."""
    shares = weights / weights.sum()
    cut = int(np.argmax(judged.shown @ shares >= NEARLY_ALL))
    losses = judged.losses[cut]
    best = (losses @ shares).argmin(axis=0)
    return np.asarray(losses[best, np.arange(losses.shape[1])])


def choose(losses: Numbers, weights: Numbers, plain: int) -> int:
    """The number of the map to take; `plain` is that of the one that needs no labels."""
    shares = weights / weights.sum()
    squares = float((shares * shares).sum())
    if squares >= ONE_QUERY:
        return plain
    better = losses[plain] - losses
    mean = better @ shares
    errors = np.sqrt(((better - mean[:, None]) ** 2 @ shares) * squares / (1 - squares))
    sure = np.flatnonzero(mean > STANDARD_ERRORS * errors)
    return int(sure[mean[sure].argmax()]) if len(sure) else plain
