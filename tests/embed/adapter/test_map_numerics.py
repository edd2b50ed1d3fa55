"""The quick roads of a fit against the plain ones, and odd vectors: each gives a map that harms nobody, or an error."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embed_plus.training.adapter import descent, ranking
from llama_index_embed_plus.training.adapter.descent import Objective, even_size
from llama_index_embed_plus.training.adapter.ranking import nearest
from llama_index_embed_plus.training.adapter.unlabelled import covariance, whitening
from qdrant_tools.validation import unit_rows


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
