"""The paired tests say what their definitions say, and compare() says who won where."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_embed_plus.evaluate.retrieval.comparison import compare, paired_randomisation, paired_test
from llama_index_embed_plus.evaluate.retrieval.report import score_run
from qdrant_tools.errors import InputError
from qdrant_tools.records import Query

VALUES = st.lists(st.sampled_from([-0.5, -0.25, 0.0, 0.1, 0.3, 1.0]), min_size=1, max_size=9)


def sides(differences):
    return {str(i): 0.0 for i in range(len(differences))}, {str(i): float(d) for i, d in enumerate(differences)}


@settings(max_examples=100, deadline=None)
@given(differences=VALUES)
def test_with_few_queries_the_p_value_is_the_share_of_all_exchanges(differences):
    real = abs(sum(differences))
    exchanges = [
        abs(sum(sign * d for sign, d in zip(signs, differences))) >= real - 1e-9
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert paired_randomisation(*sides(differences)) == pytest.approx(np.mean(exchanges), abs=1e-12)


def test_drawn_exchanges_come_near_to_all_of_them():
    differences = np.random.default_rng(1).normal(0.05, 0.4, size=16)
    every = paired_randomisation(*sides(differences), resamples=2**16)
    drawn = paired_randomisation(*sides(differences), resamples=20_000)
    assert 0.02 < every < 0.9
    assert drawn == pytest.approx(every, abs=4 * (every * (1 - every) / 20_000) ** 0.5)
    assert drawn == paired_randomisation(*sides(differences), resamples=20_000)
    assert drawn != paired_randomisation(*sides(differences), resamples=20_000, seed=1)


def test_equal_systems_are_called_different_about_5_times_in_100():
    generator = np.random.default_rng(5)
    called = sum(
        paired_randomisation(*sides(generator.normal(size=60)), resamples=400, seed=trial) <= 0.05
        for trial in range(300)
    )
    assert 5 <= called <= 27


def test_the_p_value_is_never_0_and_of_equal_values_1():
    assert paired_randomisation(*sides([1.0] * 500), resamples=99) == 1 / 100
    assert paired_randomisation({"a": 0.3}, {"a": 0.3}) == 1.0


def test_both_tests_and_the_counts_come_together():
    found = paired_test("ndcg@10", *sides([0.5, 0.5, -0.25, 0.0]))
    assert (found.metric, found.before, found.after, found.difference) == ("ndcg@10", 0.0, 0.1875, 0.1875)
    assert (found.better, found.worse, found.same) == (2, 1, 1)
    assert found.low <= found.difference <= found.high
    assert found.p_value == 0.5  # of the 8 exchanges, 4 have a sum of at least 0.75 either way


def test_other_queries_are_not_compared():
    with pytest.raises(InputError, match="1 queries are in only one of the two, such as 'b'"):
        paired_randomisation({"a": 1.0}, {"a": 1.0, "b": 1.0})
    with pytest.raises(InputError, match="there are no queries"):
        paired_randomisation({}, {})
    with pytest.raises(InputError, match="resamples is 0"):
        paired_randomisation({"a": 1.0}, {"a": 0.0}, resamples=0)


QRELS = {f"q{i}": {"right": 1} for i in range(5)}
QUERIES = [Query(f"q{i}", f"question {i}") for i in range(5)]


def run_of(ranks):
    """A run in which query i has the right passage at rank ranks[i]; 0 is not at all."""
    return {
        f"q{i}": {("right" if rank == place else f"wrong{place}"): 10.0 - place for place in range(1, 4)}
        for i, rank in enumerate(ranks)
    }


def test_the_queries_that_got_better_and_worse_are_listed_with_their_texts():
    before = score_run(run_of([3, 1, 1, 2, 0]), QRELS, queries=QUERIES, k=3, name="old")
    after = score_run(run_of([1, 2, 1, 1, 0]), QRELS, queries=QUERIES, k=3, name="new")
    found = compare(before, after)
    assert [(c.id, c.text) for c in found.improved()] == [("q0", "question 0"), ("q3", "question 3")]
    assert [(c.id, c.before) for c in found.worsened()] == [("q1", 1.0)]
    assert (found.better, found.worse, found.same) == (2, 1, 2)
    assert len(found.improved(1)) == 1 and len(found.changes) == 5
    row = found.as_row(queries=1)
    assert (row["before"], row["after"], row["metric"]) == ("old", "new", "ndcg@3")
    assert row["verdict"] == "not decided" and set(row["tests"]) == set(before.values)
    assert [each["text"] for each in row["improved"]] == ["question 0"]


def test_the_first_metric_decides_and_unknown_ones_are_refused():
    before, after = (score_run(run_of(ranks), QRELS, k=[1, 3]) for ranks in ([2] * 5, [1] * 5))
    assert compare(before, after).metric == "ndcg@1"
    found = compare(before, after, metrics=["recall@3", "mrr@3"])
    assert (found.metric, list(found.tests), found.verdict()) == ("recall@3", ["recall@3", "mrr@3"], "not decided")
    assert compare(before, after, metrics=["mrr@3"]).proves_better
    assert compare(after, before, metrics=["mrr@3"]).proves_worse
    with pytest.raises(InputError, match=r"metrics \['err@3'\] are not in the reports"):
        compare(before, after, metrics=["err@3"])
