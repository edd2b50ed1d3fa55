"""Pairs of queries and stored answers -> what an adapter is fitted by: InfoNCE, its gradient, and who is no negative.

The formula stands in `adapter`. Guarantees: a stored vector that is a known positive of the query, or nearly the same
as one, is never a negative. Which ones those are is computed once, as far as 128 megabytes hold them.
Does not know: epochs, folds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.training.adapter_data import Pairs, Rows
from llama_index_embed_plus.training.adapter_maps import Array, FittingMap, Gradients
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.validation import unit_rows

_SCORES_AT_ONCE = 1 << 22
"""Scores computed at a time outside of a batch: 16 megabytes."""

_MOST_KEPT = 1 << 24

_SHORTEST = 1e-12


class AdapterLoss:
    """The loss of any rows of the pairs, under any map."""

    def __init__(self, pairs: Pairs, settings: AdapterSettings) -> None:
        self.pairs, self.settings = pairs, settings
        self._near: dict[int, Rows] = {}
        self._kept = 0

    def candidates(self, rows: Rows, random: np.random.Generator) -> Rows:
        """(c,) ascending: the numbers of the stored vectors that are the rows' negatives, apart from `hidden` ones."""
        sources, pairs = self.settings.negatives, self.pairs
        if "collection" in sources and len(pairs.stored) <= self.settings.sampled:
            return np.arange(len(pairs.stored))
        drawn = [np.empty(0, np.int64)]
        if "in_batch" in sources:
            drawn.append(pairs.positive[rows])
        if "mined" in sources:
            drawn.append(np.array([n for q in pairs.query[rows].tolist() for n in pairs.mined[q]], np.int64))
        if "collection" in sources:
            drawn.append(random.integers(len(pairs.stored), size=self.settings.sampled))
        return np.unique(np.concatenate(drawn))

    def loss(self, fitting: FittingMap, rows: Rows, candidates: Rows) -> tuple[float, Gradients]:
        """The weighted mean of InfoNCE over the rows, each against the candidates that are no positive of its query,
        and its gradient by the map's parameters."""
        pairs, t = self.pairs, self.settings.temperature
        # candidates are distinct, so as many as stored vectors are all of them: no copy
        others = pairs.stored if len(candidates) == len(pairs.stored) else pairs.stored[candidates]
        queries, positives = pairs.queries[pairs.query[rows]], pairs.stored[pairs.positive[rows]]
        weights = pairs.weight[rows] / pairs.weight[rows].sum()
        mapped = fitting(queries)
        length = np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), _SHORTEST)
        adapted = mapped / length
        # what is too large for a number is found by the caller, and named
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            losses, shares = self._infonce(adapted, positives, others, rows, candidates)
            shares[:, 0] -= 1  # the loss falls by the score of the own positive itself
            direction = (shares[:, :1] * positives + shares[:, 1:] @ others) * (weights[:, None] / t)
            # a change along the vector is undone by its normalisation
            along = (direction * adapted).sum(axis=1, keepdims=True)
            return float((losses * weights).sum()), fitting.gradients(queries, (direction - along * adapted) / length)

    def summed(self, fitting: FittingMap, rows: Rows) -> tuple[float, float]:
        """The weighted sum of InfoNCE over the rows, each against all stored vectors, and the sum of their weights."""
        pairs, everything, total = self.pairs, np.arange(len(self.pairs.stored)), 0.0
        for part in parts(rows, _SCORES_AT_ONCE // len(pairs.stored)):
            adapted = unit_rows(fitting(pairs.queries[pairs.query[part]]))
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                losses, _ = self._infonce(adapted, pairs.stored[pairs.positive[part]], pairs.stored, part, everything)
            total += float((losses * pairs.weight[part]).sum())
        return total, float(pairs.weight[rows].sum())

    def _infonce(
        self, adapted: Array, positives: Array, others: Array, rows: Rows, candidates: Rows
    ) -> tuple[Array, Array]:
        """(rows,) losses, and (rows, 1 + c) shares of the own positive and of the candidates in the softmax."""
        t = self.settings.temperature
        # hidden among the candidates with the query's other positives, and put in front by itself
        own = (adapted * positives).sum(axis=1, keepdims=True) / t
        scores = np.concatenate([own, adapted @ others.T / t], axis=1)
        scores[:, 1:][self.hidden(rows, candidates)] = -np.inf
        top = scores.max(axis=1, keepdims=True)
        shares = np.exp(scores - top)
        total = shares.sum(axis=1, keepdims=True)
        return (np.log(total) + top - own)[:, 0], shares / total

    def hidden(self, rows: Rows, candidates: Rows) -> NDArray[np.bool_]:
        """(rows, c) bool: True where a candidate is a positive of the row's query, or nearly the same as one."""
        place = np.full(len(self.pairs.stored), -1)
        place[candidates] = np.arange(len(candidates))
        hidden = np.zeros((len(rows), len(candidates)), np.bool_)
        for row, query in enumerate(self.pairs.query[rows].tolist()):
            for position in self.pairs.known[self.pairs.group[query]]:
                places = place[self._nearly(position)]
                hidden[row, places[places >= 0]] = True
        return hidden

    def _nearly(self, position: int) -> Rows:
        """The stored vectors that are nearly the same as one of them, itself among them."""
        near = self._near.get(position)
        if near is None:
            same = self.pairs.stored @ self.pairs.stored[position] >= self.settings.same_passage_similarity
            same[position] = True
            near = np.flatnonzero(same)
            if self._kept + len(near) <= _MOST_KEPT:
                self._near[position], self._kept = near, self._kept + len(near)
        return near


def parts(rows: Rows, size: int) -> Iterator[Rows]:
    """Cut into parts of at most `size` rows, but at least one."""
    size = max(1, size)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
