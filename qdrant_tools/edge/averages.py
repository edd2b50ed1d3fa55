"""The query vector of a recommendation by average: what the examples have in common.

Does not know: the engine's queries, points.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe


def average(positives: Sequence[Any], negatives: Sequence[Any]) -> Any:
    """The query vector of `average_vector`: mean of positives, plus its difference from the mean of negatives.

    Multi-vectors have no mean: the query is all positive vectors and the negated negative ones.
    """
    first = positives[0]
    if isinstance(first, qe.SparseVector):
        return _sparse_average(positives, negatives)
    if isinstance(first[0], list):
        return [*itertools.chain(*positives), *([-number for number in row] for row in itertools.chain(*negatives))]
    mean = np.mean(np.asarray(positives, dtype=np.float32), axis=0)
    if negatives:
        mean = mean + mean - np.mean(np.asarray(negatives, dtype=np.float32), axis=0)
    return mean.tolist()


def _sparse_average(positives: Sequence[Any], negatives: Sequence[Any]) -> qe.SparseVector:
    total: dict[int, float] = {}
    positive_share = (2.0 if negatives else 1.0) / len(positives)
    shares = [(vector, positive_share) for vector in positives]
    shares += [(vector, -1.0 / len(negatives)) for vector in negatives]
    for vector, share in shares:
        for index, value in zip(vector.indices, vector.values, strict=True):
            total[index] = total.get(index, 0.0) + share * value
    indices = sorted(total)
    return qe.SparseVector(indices, [total[index] for index in indices])
