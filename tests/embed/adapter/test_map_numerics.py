"""The quick roads of a fit against the plain ones, and odd vectors: each gives a map that harms nobody, or an error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.adapter import descent, ranking
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.descent import Objective, descend, even_size, is_spread
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.ranking import nearest
from llama_index_embed_plus.training.adapter.unlabelled import covariance, whitening
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.validation import unit_rows

QUICK = AdapterSettings(steps=(1, 4), pseudo_steps=2, negatives=30)


def rows(count, dimension=12, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


@pytest.mark.parametrize("scores_at_once", [300, 5_000, 1 << 22])
@pytest.mark.parametrize("hidden", [(), (1, 17, 299), tuple(range(40, 300))], ids=["none", "three", "most"])
def test_the_nearest_of_blocks_are_those_of_all_scores_at_once(monkeypatch, scores_at_once, hidden):
    monkeypatch.setattr(ranking, "_SCORES_AT_ONCE", scores_at_once)
    queries, stored, gone = rows(23, seed=1), rows(300, seed=2), np.array(hidden, np.int64)
    scores = (queries @ stored.T).astype(np.float64)
    scores[:, gone] = -np.inf
    expected = np.sort(scores, axis=1)[:, ::-1][:, :30]
    found = nearest(queries, stored, 30, hidden=gone)
    np.testing.assert_allclose(np.take_along_axis(scores, found, axis=1), expected, atol=1e-6)
    assert all(len(set(each)) == 30 for each in found.tolist()) and not set(found.ravel().tolist()) & set(hidden)


def test_where_too_few_are_left_hidden_ones_come_last():
    found = nearest(rows(3), rows(9, seed=1), 6, hidden=np.arange(2, 9))
    assert all(set(each[:2]) == {0, 1} and len(set(each)) == 6 for each in found.tolist())


def test_blocks_are_as_large_as_each_other():
    assert [even_size(total, 1024) for total in (0, 1, 1024, 1025, 1200, 4097)] == [1, 1, 1024, 513, 600, 820]


def test_the_gradient_is_the_same_whatever_the_blocks(monkeypatch):
    answers = [(row, row + 40) if row % 3 else (row,) for row in range(40)]
    objective = Objective.of(rows(40, seed=1), rows(90), answers, np.arange(1.0, 41), np.arange(85), same=0.95)
    weight = 0.3 * rows(12, seed=5)
    for loss in ("list", "each"):
        whole = objective.gradient(weight, loss, 0.05)
        monkeypatch.setattr(descent, "_QUERIES_AT_ONCE", 7)
        parts = objective.gradient(weight, loss, 0.05)
        monkeypatch.undo()
        assert parts[0] == pytest.approx(whole[0], rel=1e-5)
        np.testing.assert_allclose(parts[1], whole[1], atol=1e-5 * np.abs(whole[1]).max())


def test_an_answer_that_is_named_twice_counts_once():
    stored, queries = rows(30), rows(2, seed=1)
    twice, once = (
        Objective.of(queries, stored, answers, np.ones(2), np.arange(30), same=0.95).gradient(
            np.zeros((12, 12), np.float32), "each", 0.05
        )
        for answers in ([(3, 3, 4), (5,)], [(3, 4), (5,)])
    )
    assert twice[0] == once[0]
    np.testing.assert_array_equal(twice[1], once[1])


def test_the_covariance_of_blocks_is_that_of_all_rows():
    stored = rows(9_000, 20) + 0.5
    np.testing.assert_allclose(covariance(stored), np.cov(stored, rowvar=False, dtype=np.float64), atol=1e-7)


def test_vectors_that_differ_by_rounding_alone_are_not_whitened():
    stored = np.repeat(rows(1, 16), 500, axis=0) * (1 + 1e-7 * np.random.default_rng(0).normal(size=(500, 1)))
    found = whitening(stored.astype(np.float32), strength=0.19, floor=0.3)
    np.testing.assert_allclose(found, np.eye(16), atol=1e-5)


@pytest.mark.parametrize("loss", ["list", "each"])
@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0], ids=["no common direction", "some of one", "most of it one"])
def test_no_step_raises_the_loss_whatever_its_rate(shift, loss):
    """As plain steps of the usual rate did, where all vectors share a direction."""
    stored = unit_rows(rows(90) + shift * np.eye(1, 12, dtype=np.float32))
    queries = unit_rows(stored[:40] + 0.2 * rows(40, seed=3))
    answers = [(row, row + 40) if row % 3 else (row,) for row in range(40)]
    objective = Objective.of(queries, stored, answers, np.ones(40), np.arange(90), same=0.999)
    for rate in (0.3, 30.0):
        (*_, last), losses = descend(objective, loss, steps=(1, 20), rate=rate, temperature=0.05)
        assert all(after <= before * 1.001 for before, after in zip(losses, losses[1:])) and losses[-1] < losses[0]
        assert np.isfinite(last).all()


def test_what_all_vectors_share_is_not_mapped_where_it_is_most_of_them():
    stored = unit_rows(rows(90) + 3 * np.eye(1, 12, dtype=np.float32))
    assert is_spread(rows(90)) and not is_spread(stored)
    queries = unit_rows(stored[:40] + 0.2 * rows(40, seed=3))
    objective = Objective.of(queries, stored, [(row,) for row in range(40)], np.ones(40), np.arange(90), same=0.999)
    (weight,), _ = descend(objective, "list", steps=(8,), rate=0.3, temperature=0.05)
    moved = np.linalg.norm(unit_rows(queries.mean(axis=0, keepdims=True)) @ weight)
    assert moved < 1e-4 * np.linalg.norm(weight, 2)


def test_a_temperature_that_is_too_small_for_pseudo_queries_is_named():
    stored = rows(20)
    data = AdapterData(stored, stored[:0], (), np.empty(0), pseudo=PseudoQueries(rows(20, seed=1), np.arange(20)))
    with pytest.raises(TrainingError, match="temperature 1e-39"):
        fit_map(data, replace(QUICK, temperature=1e-39))


@st.composite
def odd_data(draw) -> AdapterData:
    """Few passages in few or many dimensions, some alike, some of length 0; queries that nothing or all answers."""
    count, dimension = draw(st.integers(1, 12)), draw(st.sampled_from([1, 2, 5, 40]))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    distinct = unit_rows(random.normal(size=(draw(st.integers(1, count)), dimension)).astype(np.float32))
    stored = np.resize(distinct, (count, dimension)) * draw(st.sampled_from([0, 1, 1, 1])) ** np.arange(count)[:, None]
    asked = draw(st.lists(st.lists(st.integers(0, count - 1), max_size=count), max_size=6))
    queries = unit_rows(random.normal(size=(len(asked), dimension)).astype(np.float32))
    if len(asked) > 1 and draw(st.booleans()):
        queries[1:] = queries[0]
    if len(asked) and draw(st.booleans()):
        queries[-1] = 0
    made = random.integers(count, size=draw(st.integers(1, 4)))
    pseudo = PseudoQueries(unit_rows(random.normal(size=(len(made), dimension)).astype(np.float32)), made)
    weights = random.choice([1e-9, 1.0, 50.0], size=len(asked))
    hard = tuple(draw(st.lists(st.integers(0, count - 1), max_size=2)))
    asked_for = tuple(map(tuple, asked))
    return AdapterData(
        stored.astype(np.float32), queries, asked_for, weights, hard, draw(st.sampled_from([None, pseudo]))
    )


@pytest.mark.filterwarnings("error")
@settings(max_examples=60, deadline=None)
@given(data=odd_data(), apart=st.booleans(), folds=st.integers(2, 5))
def test_whatever_the_vectors_a_map_of_finite_numbers_and_norm_1_comes_out(data, apart, folds):
    fitted = fit_map(data, replace(QUICK, answers_apart=apart, folds=folds))
    assert np.isfinite(fitted.matrix).all() and np.linalg.norm(fitted.matrix, 2) == pytest.approx(1, abs=1e-4)
    assert fitted.candidates[0].name == "identity" and all(np.isfinite(each.loss) for each in fitted.candidates)
    if len(np.unique(data.stored, axis=0)) == 1 and fitted.chosen.name in ("identity", "whitened"):
        np.testing.assert_allclose(fitted.matrix, np.eye(data.stored.shape[1]), atol=1e-4)


def plain(**changes) -> AdapterData:
    data = AdapterData(rows(9), rows(5, seed=1), tuple((row,) for row in range(5)), np.ones(5))
    return replace(data, **changes)


def spoiled(vectors, value):
    vectors[3, 7] = value
    return vectors


WRONG = {
    "NaN stored": (
        lambda: {"stored": spoiled(rows(9), np.nan)},
        "1 of stored hold NaN .* the first is row 3",
    ),
    "infinite query": (lambda: {"queries": spoiled(rows(5), np.inf)}, "1 of queries hold NaN or infinity"),
    "NaN pseudo": (lambda: {"pseudo": PseudoQueries(spoiled(rows(4), np.nan), np.arange(4))}, "1 of pseudo hold NaN"),
    "another dimension": (lambda: {"queries": rows(5, 11)}, r"queries have shape \(5, 11\), expected \(n, 12\)"),
    "nothing stored": (lambda: {"stored": rows(0)}, "there are no stored vectors"),
    "a row too far": (lambda: {"answers": ((0,), (1,), (2,), (3,), (9,))}, "row 9 is named, expected one of the 9"),
    "a hard row below": (lambda: {"hard": (-1,)}, "row -1 is named"),
    "a query too many": (lambda: {"queries": rows(6)}, "6 queries, 5 answers, 5 weights"),
    "NaN weight": (lambda: {"weights": np.array([1, 1, np.nan, 1, 1])}, "weight nan, expected a number above 0"),
    "no weight": (lambda: {"weights": np.zeros(5)}, "weight 0.0, expected a number above 0"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_arrays_that_cannot_be_fitted_on_are_refused_by_what_is_wrong(name):
    changes, message = WRONG[name]
    with pytest.raises(TrainingError, match=message):
        plain(**changes())
