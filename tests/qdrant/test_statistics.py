"""Intervals and exact tests of shares, each against scipy or a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qdrant_tools.errors import InputError
from qdrant_tools.statistics import (
    growth_p_value,
    holm,
    mean_half_width,
    order_statistic_p_value,
    student_t_95,
    wilson,
)


@pytest.mark.parametrize(("count", "of"), [(0, 5), (5, 5), (3, 40), (400, 900)])
def test_the_interval_is_wilsons(count, of):
    expected = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
    assert wilson(count, of) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_nothing_looked_at_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("before", "after"), [((3, 40), (9, 50)), ((0, 10), (10, 10)), ((10, 10), (0, 10)), ((5, 1000), (30, 800))]
)
def test_growth_is_fishers_exact_test(before, after):
    table = [[after[0], after[1] - after[0]], [before[0], before[1] - before[0]]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert growth_p_value(before, after) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("rank", "before", "below", "after"), [(5, 100, 12, 90), (1, 20, 0, 30), (20, 20, 30, 30)])
def test_the_order_statistic_test_is_the_beta_binomial_tail(rank, before, below, after):
    expected = stats.betabinom.sf(below - 1, after, rank, before - rank + 1)
    assert order_statistic_p_value(rank, before, below, after) == pytest.approx(expected, rel=1e-9)


def test_the_order_statistic_test_keeps_its_level_whatever_the_distribution():
    luck = np.random.default_rng(0)
    fired = 0
    for _ in range(2000):
        before, after = np.sort(luck.exponential(size=80)), luck.exponential(size=60)
        fired += order_statistic_p_value(4, 80, int((after < before[3]).sum()), 60) <= 0.05
    assert fired <= stats.binom.ppf(0.999, 2000, 0.05)


def test_holm_stops_at_the_first_test_that_does_not_fire():
    assert holm({"a": 0.001, "b": 0.02, "c": 0.04}, 0.05) == {"a", "b", "c"}
    assert holm({"a": 0.001, "b": 0.03, "c": 0.04}, 0.05) == {"a"}
    assert holm({}, 0.05) == set()


def test_the_quantile_is_that_of_students_t():
    freedoms = [*range(1, 120), 1001]
    assert [student_t_95(n) for n in freedoms] == pytest.approx(list(stats.t.ppf(0.975, freedoms)), rel=1e-6)


def test_the_interval_of_few_values_is_students():
    values = np.random.default_rng(4).exponential(size=12)
    expected = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    half = mean_half_width(values)
    assert (values.mean() - half, values.mean() + half) == pytest.approx(expected, rel=1e-6)


def test_one_value_tells_its_mean_within_ten_times_its_size_95_times_in_100():
    draws = np.random.default_rng(5).normal(size=100_000)
    for mean in (0.0, 0.5, 1.0, 1.5, 2.0, 5.0, 50.0):
        halves = mean_half_width(np.ones(1)) * np.abs(mean + draws)
        assert np.mean(np.abs(draws) <= halves) > 0.945
    assert mean_half_width(np.array([0.5])) > 0.5


def test_impossible_counts_are_refused():
    for wrong in (
        lambda: student_t_95(0),
        lambda: wilson(3, 2),
        lambda: growth_p_value((0, 1), (-1, 1)),
        lambda: order_statistic_p_value(0, 5, 1, 1),
    ):
        with pytest.raises(InputError):
            wrong()
