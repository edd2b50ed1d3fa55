"""Exact search results -> how many of the true neighbours another search found.

Passages that are equally near are equally right: a search is not blamed for having returned another one of them.

Guarantees: the recall of the exact search itself is 1. Does not know: how either search was made.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

TIE = 1e-5
"""Scores that differ by less are equal: single and batched arithmetic differ by about 1e-7."""


def exact_depth(k: int) -> int:
    """How many exact neighbours to ask for, so that those equally near as the k-th are among them."""
    return k + max(50, k)


def right_answers(exact: Sequence[tuple[str, float]], k: int) -> frozenset[str]:
    """The ids that may be among the k nearest: (id, score) pairs of an exact search, best first."""
    if not exact:
        return frozenset()
    least = exact[min(k, len(exact)) - 1][1] - TIE
    return frozenset(name for name, score in exact if score >= least)


def recall_at(k: int, found: Sequence[Sequence[str]], right: Sequence[Collection[str]]) -> float:
    """Mean share of k (or of all there are) that a search found; 1 where there is nothing to find."""
    shares = [
        len(set(list(ids)[:k]) & set(names)) / min(k, len(names)) if names else 1.0
        for ids, names in zip(found, right, strict=True)
    ]
    return sum(shares) / len(shares)
