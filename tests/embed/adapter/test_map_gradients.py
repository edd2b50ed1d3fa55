"""The losses of a query adapter and their gradients: those of the formulas, as torch derives them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llama_index_embed_plus.training.adapter.descent import Objective, descend
from llama_index_embed_plus.training.settings import ADAPTER_LOSSES


def unit_rows(count, dimension, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def torch_loss(loss, weight, queries, stored, answers, hidden, weights, temperature):
    """As the docstring of `descent` defines it, query by query."""
    queries, stored = torch.from_numpy(queries), torch.from_numpy(stored)
    mapped = torch.nn.functional.normalize(queries + queries @ weight, dim=1)
    values = []
    for query, positives in enumerate(answers):
        scores = stored @ mapped[query] / temperature
        negatives = scores[[row for row in range(len(stored)) if row not in hidden[query]]].exp().sum()
        own = scores[list(positives)].exp()
        values.append(torch.log(1 + negatives / own.sum()) if loss == "list" else torch.log(1 + negatives / own).mean())
    shares = torch.from_numpy(weights / weights.sum())
    return (torch.stack(values) * shares).sum()


@pytest.mark.parametrize("loss", ADAPTER_LOSSES)
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_a_loss_and_its_gradient_are_those_that_torch_derives(loss, temperature):
    queries, stored = unit_rows(7, 12, seed=1), unit_rows(40, 12, seed=2)
    stored[9] = stored[3]  # nearly the same as an answer: no negative
    answers = [(3,), (4, 5, 6), (3, 7), (8,), (20, 21), (22,), (23, 3)]
    hidden = [{*positives, *({3, 9} if 3 in positives else ())} for positives in answers]
    weights = np.array([1.0, 2.0, 0.5, 1.0, 0.0, 3.0, 1.0])
    objective = Objective.of(queries, stored, answers, weights, np.arange(40), same=0.999)
    start = 0.1 * np.random.default_rng(3).normal(size=(12, 12))
    weight = torch.tensor(start, requires_grad=True)
    expected = torch_loss(loss, weight, queries, stored, answers, hidden, weights, temperature)
    expected.backward()
    value, gradient = objective.gradient(start, loss, temperature)
    assert value == pytest.approx(expected.item(), rel=1e-10)
    np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("loss", ADAPTER_LOSSES)
def test_more_queries_than_are_computed_at_once_have_the_gradient_of_all(loss, monkeypatch):
    queries, stored = unit_rows(30, 8, seed=1), unit_rows(50, 8, seed=2)
    answers = [(row, row + 7) for row in range(30)]
    objective = Objective.of(queries, stored, answers, np.ones(30), np.arange(50), same=1.1)
    start = 0.1 * np.random.default_rng(3).normal(size=(8, 8))
    whole, gradient = objective.gradient(start, loss, 0.1)
    monkeypatch.setattr("llama_index_embed_plus.training.adapter.descent._QUERIES_AT_ONCE", 4)
    parts, summed = objective.gradient(start, loss, 0.1)
    assert parts == pytest.approx(whole)
    np.testing.assert_allclose(summed, gradient, atol=1e-12)


@pytest.mark.parametrize("loss", ADAPTER_LOSSES)
def test_candidates_are_rows_of_what_is_stored_and_the_others_count_for_nothing(loss):
    queries, stored = unit_rows(5, 8, seed=1), unit_rows(30, 8, seed=2)
    answers, chosen = [(2,), (3, 11), (2, 4), (11,), (5,)], np.array([2, 3, 4, 5, 9, 11, 20])
    some = Objective.of(queries, stored, answers, np.ones(5), chosen, same=1.1)
    places = {row: place for place, row in enumerate(chosen.tolist())}
    renamed = [tuple(places[row] for row in rows) for rows in answers]
    same = Objective.of(queries, stored[chosen], renamed, np.ones(5), np.arange(7), same=1.1)
    start = np.zeros((8, 8))
    np.testing.assert_array_equal(some.gradient(start, loss, 0.1)[1], same.gradient(start, loss, 0.1)[1])


@pytest.mark.parametrize("loss", ADAPTER_LOSSES)
def test_a_query_without_negatives_moves_nothing(loss):
    queries, stored = unit_rows(2, 6, seed=1), unit_rows(2, 6, seed=2)
    objective = Objective.of(queries, stored, [(0, 1), (0, 1)], np.ones(2), np.arange(2), same=1.1)
    value, gradient = objective.gradient(np.zeros((6, 6)), loss, 0.05)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("loss", ADAPTER_LOSSES)
def test_steps_go_down_the_loss_and_what_is_kept_is_the_map_after_each(loss):
    queries, stored = unit_rows(20, 8, seed=1), unit_rows(50, 8, seed=2)
    objective = Objective.of(queries, stored, [(row,) for row in range(20)], np.ones(20), np.arange(50), same=1.1)
    maps, losses = descend(objective, loss, steps=(1, 3, 6), rate=0.05, temperature=0.2)
    assert losses == sorted(losses, reverse=True) and len(losses) == 6
    assert objective.gradient(maps[1], loss, 0.2)[0] == losses[3]
    _, gradient = objective.gradient(np.zeros((8, 8)), loss, 0.2)
    np.testing.assert_array_equal(maps[0], -0.05 * gradient)
