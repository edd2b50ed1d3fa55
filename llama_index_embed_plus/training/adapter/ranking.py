"""Query vectors, stored vectors and answers -> how well each of many maps finds them, at little more than two searches.

Of maps that lie between two others only passages that one of the ends ranks high can come first. So the ends are
searched for, exactly, over everything; every map ranks what any of them has found, and the answers. Measured are

- nDCG@10, and
- the loss -log(exp(s_p / t) / (exp(s_p / t) + sum_n exp(s_n / t))), as a mean over the answers p of the query, over the
  passages n that do not answer it, at several temperatures t: n among the first 10, 20, 50 that the first map finds,
  which are what was shown if that is the base, and among all that any of the ends has found.

Guarantees: exact for the ends. Memory is one block of scores. Does not know: folds, how maps are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.training.adapter.arrays import Numbers, Rows
from qdrant_tools.records import Vectors
from qdrant_tools.validation import unit_rows

DEPTH = 10
SHORTLIST = 100
TEMPERATURES = np.array([0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 2.0])
"""At the last all passages count nearly alike: where labels are wrong, no map is worse than knowing nothing."""
CUTS = (10, 20, 50)
"""How many of the first map's hits may be all that was shown."""
_SCORES_AT_ONCE = 1 << 22
_QUERIES_AT_ONCE = 1024


def nearest(queries: Vectors, stored: Vectors, k: int, *, hidden: Rows | None = None) -> Rows:
    """(n, k) rows of `stored`, best first: the nearest of each query, without the hidden ones if enough are left."""
    k = min(k, len(stored))
    found = np.empty((len(queries), k), np.int64)
    gone = np.zeros(len(stored), bool)
    if hidden is not None:
        gone[hidden] = True
    size = max(1, min(_QUERIES_AT_ONCE, _SCORES_AT_ONCE // max(1, k)))
    for start in range(0, len(queries), size):
        found[start : start + size] = _nearest(queries[start : start + size], stored, k, gone)
    return found


def _nearest(queries: Vectors, stored: Vectors, k: int, gone: NDArray[np.bool_]) -> Rows:
    """Block of stored vectors by block: few of a later one are better than the best so far, so few are sorted."""
    size = max(k, _SCORES_AT_ONCE // len(queries))
    numbers = np.arange(len(queries))
    best, values = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), queries.dtype)
    for start in range(0, len(stored), size):
        scores = queries @ stored[start : start + size].T
        scores[:, gone[start : start + size]] = -np.inf
        if start:
            # of two axes nonzero is ten times slower than of one
            query, column = np.divmod(np.flatnonzero(scores > values[:, -1:]), scores.shape[1])
        else:
            query, column = np.repeat(numbers, k), np.argpartition(scores, -k, axis=1)[:, -k:].ravel()
        owner = np.concatenate([np.repeat(numbers, best.shape[1]), query])
        rows = np.concatenate([best.ravel(), start + column])
        found = np.concatenate([values.ravel(), scores[query, column]])
        order = np.lexsort((rows, -found, owner))
        firsts = np.searchsorted(owner[order], numbers)
        kept = order[firsts[:, None] + np.arange(k)]
        best, values = rows[kept], found[kept]
    return best


@dataclass(frozen=True, eq=False)
class Judged:
    """ndcg: (maps, n); losses: (cuts, temperatures, maps, n), the last of the cuts has all passages; shown: (cuts, n),
    the share of the answers of the query that is among the first hits of the first map, 1 for the last of the cuts."""

    ndcg: Numbers
    losses: Numbers
    shown: Numbers

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        """Of queries that were judged one part after the other."""
        return cls(
            np.concatenate([part.ndcg for part in parts], axis=1),
            np.concatenate([part.losses for part in parts], axis=3),
            np.concatenate([part.shown for part in parts], axis=1),
        )


def judge(
    queries: Vectors,
    stored: Vectors,
    answers: Sequence[Sequence[int]],
    maps: Sequence[Vectors],
    ends: Sequence[int],
    *,
    hidden: Rows,
    known: Rows | None = None,
) -> Judged:
    """Judge maps, matrices (dimension, dimension), by the answers of each query. `ends` are the numbers of those that
    the others lie between; what one more end has found may be `known`. `hidden` rows are not there."""
    searched = [nearest(unit_rows(queries @ maps[end]), stored, SHORTLIST, hidden=hidden) for end in ends]
    found = np.concatenate(searched if known is None else [known, *searched], axis=1)
    ndcg = np.empty((len(maps), len(queries)))
    losses = np.empty((len(CUTS) + 1, len(TEMPERATURES), *ndcg.shape))
    shown = np.ones((len(CUTS) + 1, len(queries)))
    mapped = np.stack([unit_rows(queries @ each) for each in maps], axis=1)  # (n, maps, dimension)
    gone = set(hidden.tolist())
    for query, own in enumerate(answers):
        rows = np.array(sorted({*found[query].tolist(), *own} - gone), np.int64)
        scores, is_answer = mapped[query] @ stored[rows].T, np.isin(rows, own)
        ndcg[:, query] = _ndcg(scores, is_answer)
        scores = scores.astype(np.float64)
        losses[-1, :, :, query] = _losses(scores, is_answer)
        order = np.argsort(-scores[0], kind="stable")
        for place, cut in enumerate(CUTS):
            first = np.zeros(len(rows), bool)
            first[order[:cut]] = True
            shown[place, query] = first[is_answer].mean()
            losses[place, :, :, query] = _losses(scores[:, first | is_answer], is_answer[first | is_answer])
    return Judged(ndcg, losses, shown)


def _losses(scores: Numbers, answers: NDArray[np.bool_]) -> Numbers:
    """(temperatures, maps) of scores (maps, passages)."""
    scaled = scores / TEMPERATURES[:, None, None]
    others, own = scaled[:, :, ~answers], scaled[:, :, answers]
    if not others.shape[2]:
        return np.zeros(scaled.shape[:2])
    top = others.max(axis=2)
    mass = np.log(np.exp(others - top[:, :, None]).sum(axis=2)) + top
    return np.asarray(np.logaddexp(0, mass[:, :, None] - own).mean(axis=2))


def _ndcg(scores: Vectors, answers: NDArray[np.bool_]) -> Numbers:
    """(maps,) of scores (maps, passages), with the same gain for every answer."""
    number = int(answers.sum())
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    gains = answers[order] * discounts[: order.shape[1]]
    return np.asarray(gains.sum(axis=1) / discounts[: min(number, DEPTH)].sum(), np.float64)
