"""Judgements and a run -> retrieval metrics per query, and whether a difference between two runs is real.

Guarantees: every query of the qrels gets a value, 0 when the run has nothing for it; equal to trec_eval, which also
means scores are compared in single precision and ties are broken by passage id, the larger id first.
Does not know: where rankings come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qdrant_tools.errors import InputError
from qdrant_tools.records import Qrels, Run

Grades = Mapping[str, int]


def ndcg(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """Normalised discounted cumulative gain at k, with the grade itself as gain and a log2 discount.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002; `ndcg_cut` of trec_eval.
    """
    return {query: _ndcg(grades, ranking, k) for query, grades, ranking in _rankings(qrels, run, k)}


def reciprocal_rank(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """1 / rank of the first relevant passage among the first k; the mean over queries is MRR@k."""
    return {query: _reciprocal_rank(grades, ranking) for query, grades, ranking in _rankings(qrels, run, k)}


def recall(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """Share of the relevant passages that are among the first k."""
    return {query: _recall(grades, ranking) for query, grades, ranking in _rankings(qrels, run, k)}


def mean(values: Mapping[str, float]) -> float:
    """Mean over queries, as every report gives it."""
    if not values:
        raise InputError("no queries to average over: the qrels are empty")
    return float(np.mean(list(values.values())))


@dataclass(frozen=True)
class Interval:
    """A mean difference (after - before) and its 95 % confidence interval."""

    difference: float
    low: float
    high: float


def paired_bootstrap(
    before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Percentile bootstrap of the mean difference over the same queries.

    Queries are drawn with replacement, both systems keep their values for a drawn query (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapter 13). An interval above 0 says that `after` is better beyond the
    luck of the queries.

    Raises:
        InputError: the two hold different queries, or none.
    """
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise InputError(f"{len(odd)} queries are in only one of the two runs, such as {odd[0]!r}: compare the same")
    if not before or resamples < 1:
        raise InputError(f"{len(before)} queries and {resamples} resamples, expected at least one of each")
    differences = np.array([after[query] - before[query] for query in sorted(before)])
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // len(differences))  # bounds the index matrix to 16 MB
    means = [
        differences[generator.integers(len(differences), size=(min(rows, resamples - start), len(differences)))].mean(1)
        for start in range(0, resamples, rows)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high))


def _rankings(qrels: Qrels, run: Run, k: int) -> Iterator[tuple[str, Grades, list[str]]]:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise InputError(f"k is {k!r}, expected a whole number of at least 1")
    for query, grades in qrels.items():
        yield query, grades, _ranking(run.get(query, {}))[:k]


def _ranking(scores: Mapping[str, float]) -> list[str]:
    """Passage ids, best first, ordered as trec_eval orders them."""
    by_id = sorted(scores, reverse=True)
    return sorted(by_id, key=lambda passage: -np.float32(scores[passage]))


def _ndcg(grades: Grades, ranking: list[str], k: int) -> float:
    ideal = _dcg(sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:k])
    return _dcg([max(grades.get(passage, 0), 0) for passage in ranking]) / ideal if ideal > 0 else 0.0


def _dcg(gains: list[int]) -> float:
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1)))


def _reciprocal_rank(grades: Grades, ranking: list[str]) -> float:
    return next((1 / rank for rank, passage in enumerate(ranking, 1) if grades.get(passage, 0) > 0), 0.0)


def _recall(grades: Grades, ranking: list[str]) -> float:
    relevant = {passage for passage, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking)) / len(relevant) if relevant else 0.0
