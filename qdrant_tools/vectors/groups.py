"""Which vectors are near which -> groups around a representative.

Every member of a group is near its representative, and no two representatives are near each other: whoever keeps the
representatives alone has something near for all that is gone, and finds no two of them again. Connected components
would not promise that: in a chain of passages, each near the next, the ends may have nothing in common. Complete links
promise more than is needed, and leave groups behind whose members are near each other.

Guarantees: the vector with the most neighbours represents first, and equal ones in their order; the same for the same
input. Memory holds the vectors and a block of their products. Does not know: collections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.records import Vectors

ROUNDING = 1e-6
"""How far a cosine may lie below the threshold: that of two equal vectors is not always 1."""
BLOCK = 256

Group = tuple[int, tuple[tuple[int, float], ...]]
"""A representative, and the others of its group with their cosine to it, nearest first; all by their numbers."""


def exact_groups(rows: Vectors, above: float) -> list[Group]:
    """The groups of unit vectors (n, dimension), each compared with every other."""
    least = above - ROUNDING
    degrees = _degrees(rows, least)
    order = _in_order(degrees)
    # only what is near something can be in a group
    pool, taken, groups = np.sort(order), np.zeros(len(rows), dtype=bool), list[Group]()
    near = rows[pool]
    for start in range(0, len(order), BLOCK):
        block = [int(number) for number in order[start : start + BLOCK] if not taken[number]]
        if not block:
            continue
        products = rows[block] @ near.T
        for number, cosines in zip(block, products, strict=True):
            if taken[number]:
                continue
            taken[number] = True
            inside = (cosines >= least) & ~taken[pool]
            members = pool[inside]
            if len(members):
                taken[members] = True
                groups.append((number, _nearest_first(zip(members.tolist(), cosines[inside].tolist(), strict=True))))
    return groups


def graph_groups(neighbours: Sequence[Mapping[int, float]]) -> list[Group]:
    """The same, of what is near each number already: its neighbours with their cosines."""
    taken, groups = [False] * len(neighbours), list[Group]()
    for number in _in_order(np.array([len(near) for near in neighbours], dtype=np.int64)).tolist():
        if taken[number]:
            continue
        taken[number] = True
        members = [(other, cosine) for other, cosine in neighbours[number].items() if not taken[other]]
        if members:
            for other, _ in members:
                taken[other] = True
            groups.append((number, _nearest_first(members)))
    return groups


def _degrees(rows: Vectors, least: float) -> NDArray[np.int64]:
    """How many others are near each vector."""
    degrees = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        block, rest = rows[start : start + BLOCK], rows[start + BLOCK :]
        own = block @ block.T >= least
        np.fill_diagonal(own, False)
        # each pair once: what is behind the block counts for both sides
        later = block @ rest.T >= least
        degrees[start : start + BLOCK] += own.sum(axis=1) + later.sum(axis=1)
        degrees[start + BLOCK :] += later.sum(axis=0)
    return degrees


def _in_order(degrees: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of those that have neighbours, the most first."""
    near = np.flatnonzero(degrees)
    return near[np.argsort(-degrees[near], kind="stable")]


def _nearest_first(members: Iterable[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    return tuple(sorted(((other, min(1.0, cosine)) for other, cosine in members), key=lambda each: (-each[1], each[0])))
