"""Queries with candidates of known relevance -> how well cosines put the relevant ones first.

Guarantees: mteb's definition: mean average precision over each query's own candidates (its main score), MRR@10 and
nDCG@10, as trec_eval computes them; of equal cosines the irrelevant one comes first. Does not know: files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.inputs import embed, unit_rows
from qdrant_tools.metrics import average_precision, mean, ndcg, reciprocal_rank
from qdrant_tools.records import Encoder

DEPTH = 1000
"""Candidates of a query that average precision looks at, as mteb's `map_at_1000`."""


@dataclass(frozen=True)
class Candidates:
    """One query with the texts to be ordered for it."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class RerankingReport:
    """Means over the queries that could be judged."""

    map: float
    mrr: float
    ndcg: float
    queries: int
    candidates: int
    skipped: int
    """Queries without a positive or without a negative: any order of their candidates is right."""


def reranking(encoder: Encoder, rows: Sequence[Candidates]) -> RerankingReport:
    """Order each query's candidates by the cosine with the query.

    Raises:
        InputError: no row has a positive and a negative.
        TextError, VectorError: see `inputs.embed`.
    """
    judged = [row for row in rows if row.positives and row.negatives]
    if not judged:
        raise InputError(f"none of {len(rows)} queries has a positive and a negative: there is nothing to order")
    counts = [len(row.positives) + len(row.negatives) for row in judged]
    queries = embed(encoder, [row.query for row in judged], role="query", what="queries")
    passages = embed(encoder, [text for row in judged for text in (*row.positives, *row.negatives)], what="candidates")
    qrels, run = {}, {}
    for number, (row, own) in enumerate(zip(judged, np.split(passages, np.cumsum(counts)[:-1]))):
        names = list(_names(row))
        scores = unit_rows(own) @ unit_rows(queries[number : number + 1])[0]
        qrels[str(number)] = {name: int(name.startswith("a")) for name in names}
        run[str(number)] = dict(zip(names, scores.tolist(), strict=True))
    return RerankingReport(
        mean(average_precision(qrels, run, k=DEPTH)),
        mean(reciprocal_rank(qrels, run, k=10)),
        mean(ndcg(qrels, run, k=10)),
        len(judged),
        sum(counts),
        len(rows) - len(judged),
    )


def _names(row: Candidates) -> Iterator[str]:
    """Ids of the candidates. trec_eval puts the larger id of a tie first: positives must not win by their names."""
    yield from (f"a{index:05}" for index in range(len(row.positives)))
    yield from (f"n{index:05}" for index in range(len(row.negatives)))
