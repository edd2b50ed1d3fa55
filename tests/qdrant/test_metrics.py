"""The metrics are those of trec_eval, and the bootstrap behaves like a confidence interval."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, Judged, P, R, Success, nDCG
from scipy import stats

from qdrant_tools.errors import InputError
from qdrant_tools.metrics import (
    METRICS,
    Interval,
    average_precision,
    hit_rate,
    judged,
    mean,
    measure,
    ndcg,
    paired_bootstrap,
    paired_interval,
    precision,
    ranked,
    recall,
    reciprocal_rank,
)

PASSAGES = st.sampled_from([f"d{i}" for i in range(12)] + ["D1", "é", "10", "9"])
QUERIES = st.sampled_from(["q1", "q2", "q3", "q4"])
# Few distinct scores make ties; two of them differ only beyond single precision.
SCORES = st.sampled_from([0.0, 0.25, 0.25 + 1e-12, 0.5, 1.0, -1.0]) | st.floats(-5, 5)
QRELS = st.dictionaries(QUERIES, st.dictionaries(PASSAGES, st.integers(0, 3), min_size=1), min_size=1)
RUNS = st.dictionaries(QUERIES, st.dictionaries(PASSAGES, SCORES))


def outside(measure, qrels, run):
    """Values of the outside implementation; a query that it leaves out has the value 0."""
    provider = ir_measures.pytrec_eval
    values = dict.fromkeys(qrels, 0.0)
    given_run = {query: scores for query, scores in run.items() if scores}
    for metric in provider.iter_calc([measure], qrels, given_run) if given_run else ():
        values[metric.query_id] = metric.value
    return values


TREC_EVAL = {"ndcg": nDCG, "map": AP, "recall": R, "precision": P, "hit_rate": Success}
FUNCTIONS = {
    "ndcg": ndcg, "mrr": reciprocal_rank, "map": average_precision, "recall": recall, "precision": precision,
    "hit_rate": hit_rate, "judged": judged,
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(qrels=QRELS, run=RUNS, k=st.sampled_from([1, 3, 10, 100]))
def test_metrics_equal_trec_eval_with_ties_gaps_and_grades(qrels, run, k):
    for name, measure_of in TREC_EVAL.items():
        assert FUNCTIONS[name](qrels, run, k=k) == pytest.approx(outside(measure_of @ k, qrels, run), abs=1e-9), name
    full = outside(RR, qrels, run)  # the outside has no cut-off: beyond rank k is 0
    cut = {query: value if value > 1 / (k + 0.5) else 0.0 for query, value in full.items()}
    assert reciprocal_rank(qrels, run, k=k) == pytest.approx(cut, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(qrels=QRELS, run=RUNS, k=st.sampled_from([1, 3, 10, 100]))
def test_judged_equals_the_outside_once_the_ties_are_broken(qrels, run, k):
    """The outside breaks the ties of this one metric in another way than those of trec_eval."""
    untied = {
        query: {passage: -float(rank) for rank, passage in enumerate(ranked(scores))} for query, scores in run.items()
    }
    found = dict.fromkeys(qrels, 0.0)
    for metric in ir_measures.iter_calc([Judged @ k], qrels, {query: each for query, each in untied.items() if each}):
        found[metric.query_id] = metric.value
    assert judged(qrels, run, k=k) == pytest.approx(found, abs=1e-9)


def test_metrics_equal_trec_eval_on_long_runs():
    generator = np.random.default_rng(0)
    qrels = {
        f"q{q}": {f"d{d}": int(generator.integers(0, 4)) for d in generator.integers(0, 500, 60)} for q in range(40)
    }
    run = {f"q{q}": {f"d{d}": float(s) for d, s in enumerate(generator.normal(size=500).round(1))} for q in range(35)}
    values = measure(qrels, run, cutoffs=(5, 10, 100, 1000))
    for k in (5, 10, 100, 1000):
        for name, measure_of in TREC_EVAL.items():
            assert values[f"{name}@{k}"] == pytest.approx(outside(measure_of @ k, qrels, run), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(qrels=QRELS, run=RUNS)
def test_all_metrics_at_several_cutoffs_are_each_metric_at_each_cutoff(qrels, run):
    values = measure(qrels, run, cutoffs=(3, 1))
    assert list(values) == [f"{name}@{k}" for k in (3, 1) for name in METRICS]
    for name, metric in FUNCTIONS.items():
        for k in (1, 3):
            assert values[f"{name}@{k}"] == metric(qrels, run, k=k)


def test_scores_and_grades_that_are_no_numbers_are_named():
    with pytest.raises(InputError, match="query 'q': score of 'a' is '0.5', expected a number"):
        ndcg({"q": {"a": 1}}, {"q": {"a": "0.5"}})
    with pytest.raises(InputError, match="query 'q': score of 'a' is nan"):
        measure({"q": {"a": 1}}, {"q": {"a": float("nan")}})
    with pytest.raises(InputError, match="query 'q': grade of 'a' is '1', expected a whole number"):
        recall({"q": {"a": "1"}}, {})
    with pytest.raises(InputError, match="cutoffs is 10"):
        measure({}, {}, cutoffs=10)
    assert ndcg({"q": {"a": 1}}, {"q": {"a": 1e300, "b": float("-inf")}}) == {"q": 1.0}


def test_every_query_of_the_qrels_gets_a_value():
    qrels = {"found": {"a": 1}, "missing": {"a": 1}, "nothing relevant": {"a": 0}}
    run = {"found": {"a": 1.0}, "nothing relevant": {"a": 1.0}, "not judged": {"a": 1.0}}
    for metric in (ndcg, recall, reciprocal_rank, average_precision, hit_rate):
        assert metric(qrels, run) == {"found": 1.0, "missing": 0.0, "nothing relevant": 0.0}


def test_k_and_an_empty_mean_are_checked():
    with pytest.raises(InputError, match="k is 0"):
        ndcg({"q": {"a": 1}}, {}, k=0)
    with pytest.raises(InputError, match="no queries"):
        mean({})
    assert mean({"a": 0.0, "b": 1.0}) == 0.5


def test_the_bootstrap_is_deterministic_for_a_seed_and_holds_the_difference():
    generator = np.random.default_rng(1)
    before = {f"q{i}": float(v) for i, v in enumerate(generator.random(200))}
    after = {query: value + float(generator.normal(0.05, 0.2)) for query, value in before.items()}
    interval = paired_bootstrap(before, after)
    assert interval == paired_bootstrap(before, dict(reversed(after.items())))
    assert interval != paired_bootstrap(before, after, seed=1)
    assert interval.low < interval.difference < interval.high
    assert interval.difference == pytest.approx(np.mean([after[q] - before[q] for q in before]))


def test_the_bootstrap_interval_is_the_normal_one_for_many_queries():
    differences = np.random.default_rng(2).normal(0.1, 1.0, size=2000)
    interval = paired_bootstrap(
        {str(i): 0.0 for i in range(2000)}, {str(i): float(d) for i, d in enumerate(differences)}
    )
    half = 1.96 * differences.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(differences.mean() - half, abs=0.004)
    assert interval.high == pytest.approx(differences.mean() + half, abs=0.004)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    generator = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        values = {str(i): float(v) for i, v in enumerate(generator.normal(0.3, 1.0, size=100))}
        interval = paired_bootstrap(dict.fromkeys(values, 0.0), values, seed=trial, resamples=500)
        covered += interval.low <= 0.3 <= interval.high
    assert 178 <= covered <= 199


def test_no_difference_is_the_interval_zero():
    values = {"a": 0.5, "b": 0.1}
    assert paired_bootstrap(values, values) == Interval(0.0, 0.0, 0.0)


def test_of_few_queries_each_end_is_the_farther_of_bootstrap_and_students_t():
    generator = np.random.default_rng(6)
    for count in (2, 5, 20, 99):
        values = {str(i): float(v) for i, v in enumerate(generator.exponential(size=count) - 0.6)}
        before, differences = dict.fromkeys(values, 0.0), np.array([values[i] for i in sorted(values)])
        bootstrap, found = paired_bootstrap(before, values), paired_interval(before, values)
        low, high = stats.t.interval(0.95, count - 1, loc=differences.mean(), scale=stats.sem(differences))
        assert found.low == pytest.approx(min(bootstrap.low, low), abs=1e-6)
        assert found.high == pytest.approx(max(bootstrap.high, high), abs=1e-6)
        assert found.difference == bootstrap.difference


def test_from_100_queries_on_the_interval_is_the_bootstraps():
    values = {str(i): float(v) for i, v in enumerate(np.random.default_rng(7).normal(size=100))}
    before = dict.fromkeys(values, 0.0)
    assert paired_interval(before, values) == paired_bootstrap(before, values)


def test_twenty_equal_queries_are_called_better_as_seldom_as_promised():
    generator = np.random.default_rng(8)
    better = {paired_bootstrap: 0, paired_interval: 0}
    for _ in range(1500):
        values = {str(i): float(v) for i, v in enumerate(generator.normal(size=20))}
        for interval in better:
            better[interval] += interval(dict.fromkeys(values, 0.0), values, resamples=500).low > 0
    # 2.5 % are promised; the tests below leave three standard deviations
    assert better[paired_interval] < better[paired_bootstrap] and better[paired_interval] / 1500 < 0.037


def test_one_query_proves_nothing_and_none_differing_is_the_interval_zero():
    one = paired_interval({"a": 0.1}, {"a": 0.9})
    assert one.low < 0 < one.difference < one.high
    assert paired_interval({"a": 0.5, "b": 0.1}, {"a": 0.5, "b": 0.1}) == Interval(0.0, 0.0, 0.0)


def test_runs_over_different_queries_are_not_compared():
    with pytest.raises(InputError, match="1 queries are in only one of the two runs, such as 'b'"):
        paired_bootstrap({"a": 1.0}, {"a": 1.0, "b": 1.0})
    with pytest.raises(InputError, match="0 queries"):
        paired_bootstrap({}, {})
