"""Vectors of queries and passages -> the nearest passages of every query, by comparing all with all.

Guarantees: exact; memory for one block of queries. Does not know: collections, texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llama_index_embed_plus.evaluate.inputs import unit_rows
from qdrant_tools.records import Run, Vectors

QUERIES_AT_ONCE = 64


def exact_run(
    query_ids: Sequence[str], queries: Vectors, passage_ids: Sequence[str], passages: Vectors, *, k: int = 100
) -> Run:
    """The k passages with the largest cosine for every query; vectors are (n, dimension), ids as many."""
    normed = unit_rows(passages).astype(np.float32)
    k = min(k, len(passage_ids))
    run: dict[str, dict[str, float]] = {}
    for start in range(0, len(query_ids), QUERIES_AT_ONCE):
        scores = unit_rows(queries[start : start + QUERIES_AT_ONCE]).astype(np.float32) @ normed.T
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        for query, row, found in zip(query_ids[start : start + QUERIES_AT_ONCE], scores, best):
            run[query] = {passage_ids[place]: float(row[place]) for place in found}
    return run
