"""What a query adapter is fitted on, as arrays.

Guarantees: every row number lies inside of `stored`, every vector is of finite numbers, every query has a weight.
Vectors of length 0 are taken: they are like nothing. Does not know: texts, collections, how a map is fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import TrainingError
from qdrant_tools.records import Vectors

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PseudoQueries:
    """Queries that were made of stored passages: `vectors` (p, dimension), of which `passage` (p,) are the rows."""

    vectors: Vectors
    passage: Rows


@dataclass(frozen=True, eq=False)
class AdapterData:
    """Queries, the stored vectors that they search, and which of these answer them.

    stored: (m, dimension) unit vectors, the whole collection or a part that holds every answer.
    queries: (n, dimension) unit vectors; none for a fit without labels.
    answers: per query the rows of `stored` that answer it, at least one.
    weights: (n,) how much each query counts.
    hard: rows that are to be among the negatives, such as mined ones.
    pseudo: queries without labels.
    """

    stored: Vectors
    queries: Vectors
    answers: tuple[tuple[int, ...], ...]
    weights: Numbers
    hard: tuple[int, ...] = ()
    pseudo: PseudoQueries | None = None

    def __post_init__(self) -> None:
        if not len(self.stored):
            raise TrainingError("there are no stored vectors: index passages before fitting an adapter")
        made = PseudoQueries(self.queries[:0], np.empty(0, np.int64)) if self.pseudo is None else self.pseudo
        for name, vectors in (("stored", self.stored), ("queries", self.queries), ("pseudo", made.vectors)):
            _check_vectors(name, vectors, self.stored.shape[1])
        if not len(self.queries) == len(self.answers) == len(self.weights):
            counts = f"{len(self.queries)} queries, {len(self.answers)} answers, {len(self.weights)} weights"
            raise TrainingError(f"there are {counts}: expected as many of each")
        for row in chain(chain.from_iterable(self.answers), self.hard, made.passage.tolist()):
            if not 0 <= row < len(self.stored):
                raise TrainingError(f"row {row} is named, expected one of the {len(self.stored)} stored vectors")
        if len(self.weights) and not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            bad = self.weights[~(np.isfinite(self.weights) & (self.weights > 0))][0]
            raise TrainingError(f"a query has weight {bad}, expected a number above 0: leave such queries out")

    @property
    def everything(self) -> Rows:
        """The numbers of all queries."""
        return np.arange(len(self.answers))


def _check_vectors(name: str, vectors: Vectors, dimension: int) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise TrainingError(f"{name} have shape {vectors.shape}, expected (n, {dimension}) as the stored vectors have")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise TrainingError(f"{len(bad)} of {name} hold NaN or infinity, the first is row {bad[0]}: embed them again")


@dataclass(frozen=True, eq=False)
class Lists:
    """Lists of numbers behind each other: list i is `values[ends[i - 1] : ends[i]]`, and `row` says whose each is."""

    values: Rows
    row: Rows
    starts: Rows

    @classmethod
    def of(cls, lists: Sequence[Iterable[int]]) -> Lists:
        kept = [list(each) for each in lists]
        sizes = np.array([len(each) for each in kept], np.int64)
        values = np.fromiter(chain.from_iterable(kept), np.int64, int(sizes.sum()))
        return cls(values, np.repeat(np.arange(len(kept)), sizes), np.concatenate([[0], np.cumsum(sizes)])[:-1])

    def part(self, first: int, last: int) -> Lists:
        """The lists from `first` up to, not including, `last`."""
        start, end = np.searchsorted(self.row, [first, last])
        return Lists(self.values[start:end], self.row[start:end] - first, self.starts[first:last] - start)
