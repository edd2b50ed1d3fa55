"""Texts, and an encoder if there is one -> which of them are the same question, and the groups that follow.

Two questions are the same if their words are (case, punctuation, spelling in Unicode and spaces aside), or if an
encoder puts their vectors at least as close as a threshold. Sameness is passed on: a group is a connected component
(union-find, Tarjan 1975), so that no member of one group is the same as a member of another.

Guarantees: the order of the texts does not matter; memory is one block of similarities, never all pairs at once.
Does not know: what the groups are for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from qdrant_tools.records import Vectors

_BLOCK = 1024
_NOT_A_WORD = re.compile(r"[\W_]+")


def normalized(text: str) -> str:
    """Return the words of a text in order, casefolded, in one spelling of Unicode (NFKC), with single spaces.

    A text without any word keeps its signs, so that "??" and "!!" stay apart.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _NOT_A_WORD.sub(" ", folded).strip() or " ".join(folded.split())


class Groups:
    """Union-find over `0 .. count - 1`."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, item: int) -> int:
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        a, b = self.root(first), self.root(second)
        self._parent[max(a, b)] = min(a, b)

    def join_equal(self, keys: Iterable[tuple[int, object]]) -> None:
        """Join all items that come with an equal key: (item, key) pairs."""
        seen: dict[object, int] = {}
        for item, key in keys:
            self.join(item, seen.setdefault(key, item))

    def members(self) -> list[list[int]]:
        """The groups, each a list of items in rising order."""
        found: dict[int, list[int]] = {}
        for item in range(len(self._parent)):
            found.setdefault(self.root(item), []).append(item)
        return list(found.values())


def near_pairs(left: Vectors, right: Vectors, *, similarity: float) -> Iterator[tuple[int, int, float]]:
    """Yield (row of `left`, row of `right`, cosine) of all pairs of unit vectors at least `similarity` apart.

    Exact: every pair is compared, `_BLOCK` rows of `left` at a time.
    """
    for start in range(0, len(left), _BLOCK):
        scores = left[start : start + _BLOCK] @ right.T
        for row, column in zip(*np.nonzero(scores >= similarity)):
            yield start + int(row), int(column), float(scores[row, column])


def group_texts(texts: Sequence[str], vectors: Vectors | None = None, *, similarity: float = 0.95) -> Groups:
    """Return the groups of texts that are the same question; `vectors` (n, dimension) are unit rows, one per text."""
    groups = Groups(len(texts))
    groups.join_equal(enumerate(map(normalized, texts)))
    if vectors is not None:
        for first, second, _ in near_pairs(vectors, vectors, similarity=similarity):
            groups.join(first, second)
    return groups
