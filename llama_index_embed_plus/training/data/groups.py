"""Texts and their vectors -> the groups of those that are one question.

Guarantees: groups are connected components, whatever the order of the items; memory is one block of similarities, never
all pairs at once. Does not know: what a group decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from qdrant_tools.records import Vectors
from qdrant_tools.same import query_key

_BLOCK = 1024


class Groups:
    """Union-find over `0 .. count - 1`."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, item: int) -> int:
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]  # halves the path for the next call
            item = self._parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        a, b = self.root(first), self.root(second)
        self._parent[max(a, b)] = min(a, b)  # the root does not depend on the order of the joins

    def join_equal(self, keys: Iterable[tuple[int, object]]) -> None:
        """Join all items that come with an equal key: (item, key) pairs."""
        seen: dict[object, int] = {}
        for item, key in keys:
            self.join(item, seen.setdefault(key, item))

    def members(self) -> list[list[int]]:
        """The groups, each a list of items in rising order."""
        groups: dict[int, list[int]] = {}
        for item in range(len(self._parent)):
            groups.setdefault(self.root(item), []).append(item)
        return list(groups.values())


def near_pairs(left: Vectors, right: Vectors, *, similarity: float) -> Iterator[tuple[int, int, float]]:
    """Yield (row of `left`, row of `right`, cosine) of all pairs of unit vectors whose cosine is at least `similarity`.

    Exact: every pair is compared, `_BLOCK` rows of `left` at a time.
    """
    for start in range(0, len(left), _BLOCK):
        scores = left[start : start + _BLOCK] @ right.T
        for row, column in zip(*np.nonzero(scores >= similarity)):
            yield start + int(row), int(column), float(scores[row, column])


def group_texts(texts: Sequence[str], vectors: Vectors | None = None, *, similarity: float = 0.95) -> Groups:
    """Return the groups of texts that are the same question; `vectors` (n, dimension) are unit rows, one per text."""
    groups = Groups(len(texts))
    groups.join_equal(enumerate(map(query_key, texts)))
    if vectors is not None:
        for first, second, _ in near_pairs(vectors, vectors, similarity=similarity):
            groups.join(first, second)
    return groups
