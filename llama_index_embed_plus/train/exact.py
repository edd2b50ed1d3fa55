"""Vectors of queries and passages -> the best passages of every query, by comparing all of them.

Guarantees: exact, ties at the border included; memory is one block of scores. Does not know: encoders, engines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qdrant_tools.records import Vectors

_SCORES_AT_ONCE = 4_000_000


def exact_run(
    query_ids: Sequence[str], queries: Vectors, passage_ids: Sequence[str], passages: Vectors, *, k: int
) -> dict[str, dict[str, float]]:
    """Return for every query the k passages of the largest dot product, and those that score as the k-th does.

    `queries` is (n, dimension) and `passages` (m, dimension), a row per id. All that tie with the k-th are returned, so
    that a metric may break ties by its own rule.
    """
    run: dict[str, dict[str, float]] = {}
    rows = max(1, _SCORES_AT_ONCE // max(1, len(passages)))
    for start in range(0, len(queries), rows):
        scores = queries[start : start + rows] @ passages.T
        for name, row in zip(query_ids[start : start + rows], scores):
            least = np.partition(row, -k)[-k] if k < len(row) else -np.inf
            run[name] = {passage_ids[int(i)]: float(row[i]) for i in np.nonzero(row >= least)[0]}
    return run
