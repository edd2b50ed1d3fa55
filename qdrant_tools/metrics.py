"""Judgements and a run -> retrieval metrics per query, and the interval of a difference.

Guarantees: every query of the qrels gets a value, 0 when the run has nothing for it. The metrics equal trec_eval's:
scores are compared in single precision, and ties are broken by passage id, the larger id first. A passage is relevant
from grade 1 on. A score or grade that is no number is refused with its query and passage. Does not know: where
rankings come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.errors import InputError
from qdrant_tools.records import Qrels, Run
from qdrant_tools.statistics import FEW, mean_half_width
from qdrant_tools.validation import LARGEST_GRADE, brief, checked_count

__all__ = [
    "METRICS",
    "Interval",
    "average_precision",
    "hit_rate",
    "judged",
    "mean",
    "measure",
    "ndcg",
    "paired_bootstrap",
    "paired_interval",
    "precision",
    "recall",
    "reciprocal_rank",
    "weighted_gain",
]

Grades = Mapping[str, int]
Ranking = Sequence[str]
"""Passage ids, best first."""


def ndcg(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """Normalised discounted cumulative gain at k, with the grade itself as gain and a log2 discount.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002; `ndcg_cut` of trec_eval.
    """
    return _per_query(_ndcg, qrels, run, k)


def reciprocal_rank(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """1 / rank of the first relevant passage among the first k; the mean over queries is MRR@k."""
    return _per_query(_reciprocal_rank, qrels, run, k)


def average_precision(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """Sum of the precisions at the ranks of relevant passages among the first k, over all relevant passages.

    The mean over queries is MAP@k, `map_cut` of trec_eval: what is not found counts as precision 0.
    """
    return _per_query(_average_precision, qrels, run, k)


def weighted_gain(weights: Mapping[str, Mapping[str, float]], run: Run, *, k: int = 10) -> dict[str, float]:
    """Per query the sum of weight / log2(1 + rank) over the passages that have a weight and stand among the first k.

    With weights of 1 for what is relevant that is DCG. With the inverse of how likely a click or a judgement was, it
    estimates DCG without bias (Horvitz and Thompson 1952; Joachims et al., WSDM 2017). Queries without a run count 0.
    """
    gains = {}
    for query, of_query in weights.items():
        ranking = ranked(run.get(query, {}))[:k]
        gains[query] = sum(of_query.get(name, 0.0) / math.log2(1 + rank) for rank, name in enumerate(ranking, start=1))
    return gains


def recall(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """Share of the relevant passages that are among the first k; `recall` of trec_eval."""
    return _per_query(_recall, qrels, run, k)


def precision(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """Relevant passages among the first k, over k, also when fewer were found; `P` of trec_eval."""
    return _per_query(_precision, qrels, run, k)


def hit_rate(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """1 if a relevant passage is among the first k, else 0; `success` of trec_eval."""
    return _per_query(_hit_rate, qrels, run, k)


def judged(qrels: Qrels, run: Run, *, k: int = 10) -> dict[str, float]:
    """Share of the first k found passages (of all, if fewer were found) that have a judgement, whatever its grade.

    Not a quality: it says how much the other metrics know. They count a passage without judgement as not relevant.
    """
    return _per_query(_judged, qrels, run, k)


def measure(qrels: Qrels, run: Run, *, cutoffs: Sequence[int] = (10,)) -> dict[str, dict[str, float]]:
    """Return every metric of `METRICS` at every cutoff: `"ndcg@10"` -> query -> value. Ranks each query once."""
    if isinstance(cutoffs, (str, int)) or not len(cutoffs):
        raise InputError(f"cutoffs is {brief(cutoffs)}, expected at least one k")
    values: dict[str, dict[str, float]] = {f"{name}@{k}": {} for k in cutoffs for name in METRICS}
    deepest = max(checked_count("k", k) for k in cutoffs)
    for query, grades, ranking in _rankings(qrels, run, deepest):
        for k in cutoffs:
            for name, metric in METRICS.items():
                values[f"{name}@{k}"][query] = metric(grades, ranking[:k], k)
    return values


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


def paired_interval(
    before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """The 95 % interval of the mean difference over the same queries, as verdicts use it.

    From 100 queries on it is `paired_bootstrap`'s. That is too narrow for fewer, so that each end is then the farther
    of its own and of Student's t (docs/proof.md has how often either calls equal systems different).

    Raises:
        InputError: the two hold different queries, or none.
    """
    interval = paired_bootstrap(before, after, seed=seed, resamples=resamples)
    if len(before) >= FEW:
        return interval
    half = mean_half_width(_differences(before, after))
    difference = interval.difference
    return Interval(difference, min(interval.low, difference - half), max(interval.high, difference + half))


def paired_bootstrap(
    before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Percentile bootstrap of the mean difference over the same queries.

    Queries are drawn with replacement, both systems keep their values for a drawn query (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapter 13). Of few queries it is too narrow: see `paired_interval`.

    Raises:
        InputError: the two hold different queries, or none.
    """
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())
        raise InputError(
            f"{len(odd)} queries are in only one of the two runs, such as {brief(odd[0])}: compare the same"
        )
    if not before or resamples < 1:
        raise InputError(f"{len(before)} queries and {resamples} resamples, expected at least one of each")
    differences = _differences(before, after)
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // len(differences))  # bounds the index matrix to 16 MB
    means = [
        differences[generator.integers(len(differences), size=(min(rows, resamples - start), len(differences)))].mean(1)
        for start in range(0, resamples, rows)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high))


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> NDArray[np.float64]:
    # sorted, so that the same values give the same interval in whatever order they come
    return np.array([after[query] - before[query] for query in sorted(before)], np.float64)


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Passage ids, best first, ordered as trec_eval orders them: by score in single precision, then the larger id."""
    ids = sorted(scores, reverse=True)
    with np.errstate(over="ignore"):  # trec_eval's cast makes an infinity of it too
        values = np.array([scores[passage] for passage in ids], np.float64).astype(np.float32)
    # stable: equal scores stay in the order of the ids
    return [ids[index] for index in np.argsort(-values, kind="stable")]


def _per_query(metric: _Metric, qrels: Qrels, run: Run, k: int) -> dict[str, float]:
    checked_count("k", k)
    return {query: metric(grades, ranking, k) for query, grades, ranking in _rankings(qrels, run, k)}


def _rankings(qrels: Qrels, run: Run, k: int) -> Iterator[tuple[str, Grades, list[str]]]:
    for query, grades in qrels.items():
        scores = run.get(query, {})
        for passage, grade in grades.items():
            if not _is_grade(grade):
                expected = f"a whole number of at most {LARGEST_GRADE:,}"
                raise InputError(
                    f"query {brief(query)}: grade of {brief(passage)} is {brief(grade)}, expected {expected}"
                )
        for passage, score in scores.items():
            if not _is_number(score):
                raise InputError(
                    f"query {brief(query)}: score of {brief(passage)} is {brief(score)}, expected a number"
                )
        yield query, grades, ranked(scores)[:k]


def _is_grade(value: object) -> bool:
    return isinstance(value, Integral) and abs(int(value)) <= LARGEST_GRADE


def _is_number(value: object) -> bool:
    """Whether a float can hold it; infinities are scores too."""
    try:
        return isinstance(value, Real) and not math.isnan(value)
    except OverflowError:  # an integer or a fraction beyond what a float holds
        return False


def _ndcg(grades: Grades, ranking: Ranking, k: int) -> float:
    ideal = _dcg(sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:k])
    return _dcg([max(grades.get(passage, 0), 0) for passage in ranking]) / ideal if ideal > 0 else 0.0


def _dcg(gains: list[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _relevant_ranks(grades: Grades, ranking: Ranking) -> list[int]:
    return [rank for rank, passage in enumerate(ranking, start=1) if grades.get(passage, 0) > 0]


def _relevant(grades: Grades) -> int:
    return sum(grade > 0 for grade in grades.values())


def _reciprocal_rank(grades: Grades, ranking: Ranking, k: int) -> float:
    return next((1 / rank for rank in _relevant_ranks(grades, ranking)), 0.0)


def _average_precision(grades: Grades, ranking: Ranking, k: int) -> float:
    precisions = [hits / rank for hits, rank in enumerate(_relevant_ranks(grades, ranking), start=1)]
    return math.fsum(precisions) / _relevant(grades) if precisions else 0.0


def _recall(grades: Grades, ranking: Ranking, k: int) -> float:
    hits = len(_relevant_ranks(grades, ranking))
    return hits / _relevant(grades) if hits else 0.0


def _precision(grades: Grades, ranking: Ranking, k: int) -> float:
    return len(_relevant_ranks(grades, ranking)) / k


def _hit_rate(grades: Grades, ranking: Ranking, k: int) -> float:
    return float(bool(_relevant_ranks(grades, ranking)))


def _judged(grades: Grades, ranking: Ranking, k: int) -> float:
    return sum(passage in grades for passage in ranking) / len(ranking) if ranking else 0.0


_Metric = Callable[[Grades, Ranking, int], float]
"""(grades of a query, its ranking cut at k, k) -> value."""

METRICS: Mapping[str, _Metric] = {
    "ndcg": _ndcg,
    "mrr": _reciprocal_rank,
    "map": _average_precision,
    "recall": _recall,
    "precision": _precision,
    "hit_rate": _hit_rate,
    "judged": _judged,
}
"""What `measure` computes, by the names that reports use."""
