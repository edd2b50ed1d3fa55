"""Queries, judgements, a collection, an encoder -> nDCG, MRR and recall per query; two of those -> their difference.

Guarantees: every judged query counts; one without results scores 0 and is never dropped. Two systems are compared on
the same queries, with a paired bootstrap interval. Does not know: how the collection was filled or the encoder trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.errors import InputError
from qdrant_tools.collection import Collection
from qdrant_tools.metrics import Interval, ndcg, paired_bootstrap, recall, reciprocal_rank
from qdrant_tools.records import Encoder, Hit, Qrels, Query, Run
from qdrant_tools.search import search_batch

PerQuery = Mapping[str, float]


@dataclass(frozen=True)
class RetrievalReport:
    """Quality of one system at cutoff `k`. The per-query values are keyed by query id."""

    k: int
    ndcg: PerQuery
    reciprocal_rank: PerQuery
    recall: PerQuery
    run: Run

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over all judged queries."""
        return {
            f"ndcg@{self.k}": _mean(self.ndcg),
            "mrr": _mean(self.reciprocal_rank),
            f"recall@{self.k}": _mean(self.recall),
        }


@dataclass(frozen=True)
class Comparison:
    """The second system minus the first, on nDCG: mean with its 95 % interval, and who won."""

    difference: Interval
    better: int
    worse: int
    same: int

    @property
    def proves_better(self) -> bool:
        """Whether the interval lies above zero: better, and not by luck of the queries."""
        return self.difference.low > 0


def evaluate_retrieval(
    collection: Collection,
    queries: Sequence[Query],
    qrels: Qrels,
    encoder: Encoder,
    *,
    k: int = 10,
    hnsw_ef: int | None = None,
    exact: bool = False,
) -> RetrievalReport:
    """Search the collection for every query and score the results against `qrels` at cutoff `k`.

    MRR is cut at `k` too. `exact` searches without HNSW. Raises `InputError` if no query has a judgement.
    """
    judged = [query for query in queries if query.id in qrels]
    if not judged:
        raise InputError(f"none of the {len(queries)} queries has a judgement in the {len(qrels)} qrels: check the ids")
    found = search_batch(collection, [q.text for q in judged], encoder, k=k, hnsw_ef=hnsw_ef, exact=exact)
    run = {query.id: _as_run(hits) for query, hits in zip(judged, found)}
    used = {query.id: qrels[query.id] for query in judged}
    return RetrievalReport(k, ndcg(used, run, k=k), reciprocal_rank(used, run, k=k), recall(used, run, k=k), run)


def compare(before: RetrievalReport, after: RetrievalReport, *, seed: int = 0) -> Comparison:
    """Compare two reports over the same queries: paired bootstrap on nDCG."""
    if before.ndcg.keys() != after.ndcg.keys() or before.k != after.k:
        raise InputError(
            f"the two reports cover {len(before.ndcg)} and {len(after.ndcg)} queries at k {before.k} and {after.k}: "
            "compare systems on the same queries and the same k"
        )
    differences = np.array([after.ndcg[query] - before.ndcg[query] for query in before.ndcg])
    return Comparison(
        paired_bootstrap(before.ndcg, after.ndcg, seed=seed),
        better=int((differences > 1e-12).sum()),
        worse=int((differences < -1e-12).sum()),
        same=int((np.abs(differences) <= 1e-12).sum()),
    )


def overlap(approximate: RetrievalReport, exact: RetrievalReport) -> float:
    """Return recall@k of one run against an exact one: the mean share of the exact top k that was found."""
    shares = [
        len(exact.run[q].keys() & approximate.run[q].keys()) / len(exact.run[q]) for q in exact.run if exact.run[q]
    ]
    return float(np.mean(shares)) if shares else 0.0


def _as_run(hits: Sequence[Hit]) -> dict[str, float]:
    return {hit.id: hit.score for hit in hits}


def _mean(values: PerQuery) -> float:
    return float(np.mean(list(values.values())))
