"""Which map is taken: the one that needs no labels, unless labels say surely enough that another is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llama_index_embed_plus.evaluate.retrieval.comparison import Change
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.choice import choose, losses_of
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.ranking import CUTS, TEMPERATURES, Judged, judge
from llama_index_embed_plus.training.adapter.run import AdapterReport
from llama_index_embed_plus.training.run import _notes
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.validation import unit_rows

NOTHING = np.empty(0, np.int64)
EVEN = np.ones(4)


def rows(count, dimension=12, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


@pytest.mark.parametrize(
    ("losses", "taken"),
    [
        ([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]], 0),
        ([[2, 2, 2, 2], [2, 2, 2, 2], [1, 1, 1, 1]], 2),
        ([[2, 2, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]], 1),
        ([[1, 5, 1, 4], [3, 3, 3, 3], [4, 4, 4, 4]], 1),
        ([[1, 1, 1, 2], [3, 3, 3, 3], [2, 2, 2, 2]], 0),
    ],
    ids=["identity surely", "fitted surely", "all equal", "identity perhaps", "the least of two"],
)
def test_another_map_than_the_one_without_labels_is_taken_where_it_is_better_by_a_standard_error(losses, taken):
    assert choose(np.array(losses, float), EVEN, 1) == taken


def test_one_query_alone_decides_nothing():
    assert choose(np.array([[1.0], [9.0], [2.0]]), np.ones(1), 1) == 1


def test_a_query_that_weighs_nothing_decides_nothing():
    losses = np.array([[0, 9, 9, 9], [3, 3, 3, 3], [9, 2, 2, 2.1]], float)
    assert choose(losses, np.array([1, 1e-9, 1e-9, 1e-9]), 1) == 1, "one query is left"
    assert choose(losses, np.array([1e-9, 1, 1, 1]), 1) == 2


def of_cuts(shown) -> Judged:
    """Two queries, one map; its loss is the number of the cut, and larger at other temperatures than the third."""
    losses = np.broadcast_to(np.arange(len(CUTS) + 1.0)[:, None, None, None], (len(CUTS) + 1, len(TEMPERATURES), 1, 2))
    apart = np.where(np.arange(len(TEMPERATURES)) == 2, 0, 10.0)[:, None, None]
    return Judged(np.zeros((1, 2)), losses + apart, np.array(shown, float))


@pytest.mark.parametrize(
    ("shown", "cut"),
    [
        ([[1, 1], [1, 1], [1, 1], [1, 1]], 0),
        ([[1, 0.5], [1, 0.95], [1, 1], [1, 1]], 1),
        ([[0, 0], [0.5, 0.5], [0.8, 0.9], [1, 1]], 3),
    ],
    ids=["ten", "twenty", "everything"],
)
def test_labels_that_were_picked_from_what_was_shown_compare_only_that(shown, cut):
    assert losses_of(of_cuts(shown), np.ones(2)).tolist() == [[cut, cut]]


def test_the_loss_among_the_first_hits_is_that_of_these_hits():
    queries, stored = rows(15, seed=1), rows(80, seed=2)
    near = np.argsort(-(queries @ stored.T), axis=1)
    answers = [(int(first[3]), int(first[40])) for first in near]
    other = np.eye(12, dtype=np.float32) + 0.3 * rows(12, seed=3)
    found = judge(queries, stored, answers, [np.eye(12, dtype=np.float32), other], (0, 1), hidden=NOTHING)
    assert found.shown.tolist() == [[0.5] * 15, [0.5] * 15, [1.0] * 15, [1.0] * 15]
    mapped = unit_rows(queries @ other)
    for query, own in enumerate(answers):
        scores = np.exp((stored @ mapped[query]).astype(np.float64) / TEMPERATURES[4])
        others = scores[[row for row in near[query, : CUTS[0]].tolist() if row not in own]].sum()
        expected = np.mean([np.log1p(others / scores[row]) for row in own])
        assert found.losses[0, 4, 1, query] == pytest.approx(expected, rel=1e-4)


def test_wrong_clicks_do_not_veto_a_map_that_needs_no_labels():
    """Queries are turned away from passages. Pseudo-queries show it; most clicks are on any of the ten shown."""
    random = np.random.default_rng(5)
    stored = rows(300, 16, seed=5)
    turn, _ = np.linalg.qr(np.eye(16) + 0.35 * random.normal(size=(16, 16)))
    turn = (turn * np.sign(np.diag(turn))).astype(np.float32)

    def asked(which, seed):
        return unit_rows((stored[which] + 0.5 * rows(len(which), 16, seed=seed)) @ turn)

    queries, answers = asked(np.arange(200), 6), []
    shown = np.argsort(-(queries @ stored.T), axis=1)[:, :10]
    for query in range(200):
        right = query in shown[query] and random.random() > 0.6
        answers.append((query if right else int(random.choice(shown[query])),))
    pseudo = PseudoQueries(asked(np.arange(200, 300), 7), np.arange(200, 300))
    data = AdapterData(stored, queries, tuple(answers), np.ones(200), pseudo=pseudo)
    fitted = fit_map(data, AdapterSettings(steps=(2, 6), negatives=200))
    asked_later = asked(np.arange(150), 8)
    truth = [(row,) for row in range(150)]
    maps = [np.eye(16, dtype=np.float32), fitted.matrix]
    before, after = judge(asked_later, stored, truth, maps, (0, 1), hidden=NOTHING).ndcg.mean(axis=1)
    assert fitted.chosen.name != "identity" and after > before + 0.05
    clean = replace(data, answers=tuple((row,) for row in range(200)))
    assert fit_map(clean, AdapterSettings(steps=(2, 6), negatives=200)).chosen.by


@pytest.mark.parametrize(
    ("chosen", "said"),
    [("identity", "the adapter changes nothing"), ("pseudo", "no other is surely better"), ("list 8", None)],
)
def test_training_says_where_examples_decided_nothing(chosen, said):
    change = Change("ndcg@10", 0.5, 0.52, 0.02, -0.01, 0.05)
    report = AdapterReport(chosen, {"identity": 1.2, "pseudo": 1.1, "list 8": 1.1}, change, (), 9, 9, 0, 1.0)
    first, *others = _notes(report)
    assert first.startswith(f"chosen of 3 maps: {chosen}; ") and len(others) == (said is not None)
    assert said is None or said in others[0]
