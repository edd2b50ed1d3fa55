"""What a query adapter is fitted on, as arrays.

Guarantees: every row number lies inside of `stored`. Does not know: texts, collections, how a map is fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

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

    @property
    def everything(self) -> Rows:
        """The numbers of all queries."""
        return np.arange(len(self.answers))


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
