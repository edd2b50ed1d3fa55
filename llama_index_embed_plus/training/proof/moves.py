"""Two rankings of the same queries -> the passages that stand elsewhere, and by how much that can move DCG.

Guarantees: a passage that is in neither of the first k, or at the same rank in both, is not named. Does not know:
judgements beyond their grades.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from qdrant_tools.metrics import ranked
from qdrant_tools.records import Qrels, Run


def moves(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[tuple[str, float, int]]:
    """Of one query's runs, each cut at k: (passage, its discount after - before, its better rank)."""
    first, second = ({name: rank for rank, name in enumerate(ranked(run), start=1)} for run in (before, after))
    for name in {**first, **second}:
        ranks = [ranking[name] for ranking in (first, second) if name in ranking]
        change = _discount(second.get(name)) - _discount(first.get(name))
        if change:
            yield name, change, min(ranks)


def judged_moves(qrels: Qrels, before: Run, after: Run) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of the judged passages that stand higher after, how many answer, of how many; and of those that stand lower."""
    higher, lower = [0, 0], [0, 0]
    for query, grades in qrels.items():
        moved = {name: change for name, change, _ in moves(before.get(query, {}), after.get(query, {}))}
        for name, grade in grades.items():
            if change := moved.get(name):
                counts = higher if change > 0 else lower
                counts[0] += grade > 0
                counts[1] += 1
    return (higher[0], higher[1]), (lower[0], lower[1])


def _discount(rank: int | None) -> float:
    return 0.0 if rank is None else 1 / math.log2(1 + rank)
