"""Queries, their answers and other passages -> a linear map, step by step, by gradients that are written out.

Of a query vector x and W, which is 0 at the start, scores are s_j = unit(x + x W) . d_j / t. The losses of a query are

    list      log(1 + sum_n exp(s_n) / sum_p exp(s_p))             over all of its positives p at once,
    each      mean over p of  log(1 + sum_n exp(s_n) / exp(s_p))   InfoNCE (van den Oord et al. 2018, arXiv 1807.03748)

over the candidates n that are neither a positive nor nearly the same as one. With S_n the softmax over the negatives,
S_p that over the positives and g = 1 - exp(-loss), the gradients by the scores are

    list      g S_n  and  -g S_p;             each      mean of g_p times S_n  and  -g_p / |P|,

by the mapped query y = x + x W of length |y| that is (G - (G . u) u) / |y|, with G = sum_j dL/ds_j d_j / t and
u = y / |y|, and by W the product of x and that. A step goes down the gradient of the weighted mean over all queries,
without momentum or decay: so W stays in the span of the queries.

Some encoders' vectors have a direction in common that is most of their length (of E5 four fifths of its square). A map
of it would move all queries alike, which tells no passage from another, and along it the slope is so steep that steps
climb. There W is learned from what is left of the queries without their mean direction. Anywhere, a step that would
raise the loss is taken back.

Guarantees: what is no number raises nothing here, it gives a map that is none. Memory is 4 bytes * 1,024 * candidates,
several times. Does not know: which queries are left out, which W is the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.training.adapter.arrays import Lists, Numbers, Rows
from llama_index_embed_plus.training.settings import AdapterLossName
from qdrant_tools.records import Vectors

Array = NDArray[Any]
_QUERIES_AT_ONCE = 1024
_SHORTEST = 1e-12
_ROUNDING = 1e-5
_SHARED = 0.5
"""Of the squared length of stored vectors."""
_SMALLEST_SHARE = 2.0**-20
"""Of the rate: below, nothing is learned any more."""


@dataclass(frozen=True, eq=False)
class Objective:
    """What a map is to bring about: queries (n, dimension) near their positives, away from other candidates.

    candidates: (c, dimension). positives, hidden: per query places among the candidates; `hidden` are no negatives,
    and hold the positives. varied: (n, dimension), what of the queries W is learned from.
    """

    queries: Vectors
    candidates: Vectors
    positives: Lists
    hidden: Lists
    weights: Numbers
    varied: Vectors

    @classmethod
    def of(
        cls,
        queries: Vectors,
        stored: Vectors,
        answers: Sequence[Sequence[int]],
        weights: Numbers,
        candidates: Rows,
        *,
        same: float,
    ) -> Objective:
        """From rows of `stored`. `candidates` hold every answer; those at least `same` like one are hidden with it."""
        place = np.full(len(stored), -1, np.int64)
        place[candidates] = np.arange(len(candidates))
        chosen = np.ascontiguousarray(stored[candidates])
        near: dict[int, list[int]] = {row: [] for each in answers for row in each}
        rows = np.array(list(near), np.int64)
        for start in range(0, len(rows), _QUERIES_AT_ONCE):
            part = rows[start : start + _QUERIES_AT_ONCE]
            found = stored[part] @ chosen.T >= same
            found[np.arange(len(part)), place[part]] = True
            for row, column in zip(*(each.tolist() for each in np.nonzero(found)), strict=True):
                near[int(part[row])].append(column)
        hidden = [sorted({column for row in each for column in near[row]}) for each in answers]
        positives = [place[list(dict.fromkeys(each))].tolist() for each in answers]
        varied = queries if is_spread(stored) else _without_mean(queries)
        return cls(queries, chosen, Lists.of(positives), Lists.of(hidden), weights, varied)

    def gradient(self, weight: Vectors, loss: AdapterLossName, temperature: float) -> tuple[float, Vectors]:
        """The weighted mean of the loss at W, and its gradient by W."""
        total, gradient = 0.0, np.zeros_like(weight)
        shares = (self.weights / self.weights.sum()).astype(weight.dtype)
        size = even_size(len(self.queries), _QUERIES_AT_ONCE)
        for start in range(0, len(self.queries), size):
            end = min(start + size, len(self.queries))
            # what is too large for a number is found by the caller, and named
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                value, moved = self._part(start, end, weight, loss, temperature, shares[start:end])
            total += value
            gradient += self.varied[start:end].T @ moved
        return total, gradient

    def _part(
        self, start: int, end: int, weight: Vectors, loss: AdapterLossName, temperature: float, shares: Vectors
    ) -> tuple[float, Vectors]:
        """The loss of some queries, and its gradient by what they are mapped to."""
        queries = self.queries[start:end]
        positives, hidden = self.positives.part(start, end), self.hidden.part(start, end)
        mapped = queries + queries @ weight
        length = np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), _SHORTEST)
        unit = mapped / length
        scores = (unit / temperature) @ self.candidates.T
        own = scores[positives.row, positives.values]
        scores[hidden.row, hidden.values] = -np.inf
        top = scores.max(axis=1, keepdims=True, initial=-np.inf)
        top[~np.isfinite(top)] = 0
        scores -= top
        np.exp(scores, out=scores)
        mass = scores.sum(axis=1)
        of_negatives = np.log(mass) + top[:, 0]
        losses, pull, push = _LOSSES[loss](own, of_negatives, positives)
        # from here on dL/ds, of positives too, so that one product of matrices is the gradient by y
        rates = shares / temperature
        scores *= (rates * push / np.maximum(mass, np.finfo(mass.dtype).tiny))[:, None]
        scores[positives.row, positives.values] = -pull * rates[positives.row]
        direction = scores @ self.candidates
        along = (direction * unit).sum(axis=1, keepdims=True)
        return float((losses * shares).sum()), (direction - along * unit) / length


def is_spread(stored: Vectors) -> bool:
    """Whether what unit vectors have in common is not most of them."""
    mean = stored.mean(axis=0, dtype=np.float64)
    return bool(mean @ mean <= _SHARED)


def _without_mean(queries: Vectors) -> Vectors:
    mean = queries.mean(axis=0, keepdims=True)
    mean /= max(float(np.linalg.norm(mean)), _SHORTEST)
    return np.asarray(queries - (queries @ mean.T) * mean)


def even_size(total: int, most: int) -> int:
    """The size of blocks, at most `most`, that are as few as can be and as large as each other."""
    return max(1, -(-total // max(1, -(-total // most))))


def _list(own: Array, of_negatives: Array, positives: Lists) -> tuple[Array, Array, Array]:
    """Per query the loss; per positive how hard it is pulled; per query how hard its negatives are pushed."""
    top = np.maximum.reduceat(own, positives.starts)
    each = np.exp(own - top[positives.row])
    mass = np.add.reduceat(each, positives.starts)
    losses = np.logaddexp(0, of_negatives - np.log(mass) - top)
    push = -np.expm1(-losses)
    return losses, each * (push / mass)[positives.row], push


def _each(own: Array, of_negatives: Array, positives: Lists) -> tuple[Array, Array, Array]:
    number = np.bincount(positives.row).astype(own.dtype)
    losses = np.logaddexp(0, of_negatives[positives.row] - own) / number[positives.row]
    pull = -np.expm1(-losses * number[positives.row]) / number[positives.row]
    return np.add.reduceat(losses, positives.starts), pull, np.add.reduceat(pull, positives.starts)


_LOSSES = {"list": _list, "each": _each}


def descend(
    objective: Objective, loss: AdapterLossName, *, steps: Sequence[int], rate: float, temperature: float
) -> tuple[list[Vectors], list[float]]:
    """W after each number of `steps`, which ascend, and the loss before every step.

    A step that would raise the loss is taken back, and the rate is halved from there on.
    """
    dimension = objective.queries.shape[1]
    weight, kept, losses = np.zeros((dimension, dimension), objective.queries.dtype), [], []
    value, gradient = objective.gradient(weight, loss, temperature)
    least = rate * _SMALLEST_SHARE
    for step in range(1, max(steps) + 1):
        losses.append(value)
        while rate > least:
            moved = weight - rate * gradient
            after, gradient_after = objective.gradient(moved, loss, temperature)
            if after <= value * (1 + _ROUNDING):
                weight, value, gradient = moved, after, gradient_after
                break
            rate /= 2
        if step in steps:
            kept.append(weight)
    return kept, losses
