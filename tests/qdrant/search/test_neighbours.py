"""Who wins a tie does not matter: recall, order and scores are the same whichever of equal points an engine took."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.search.neighbours import (
    ROUNDING,
    QueryVectors,
    Truth,
    exact_depth,
    levelled,
    nearest_of,
    recall_at,
)

SIZE = 16


def nobody(asked):
    raise AssertionError(f"{asked} need no second look")


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def filled(client, vectors, *, name="docs", settings=None):
    collection = CollectionManager(client).ensure(name, SIZE, settings=settings)
    client.upload_collection(name, vectors, ids=range(len(vectors)), wait=True)
    build_index(collection)
    return collection


def test_equally_near_passages_are_equally_right():
    exact = [("a", 0.9), ("b", 0.8), ("c", 0.8), ("d", 0.1)]
    right = nearest_of(exact, 2, depth=exact_depth(2))
    assert right.near == {"a", "b", "c"} and right.k == 2
    assert recall_at(2, [["a", "c"], ["a", "d"]], [right, right], nobody) == 0.75


def test_scores_that_differ_by_rounding_are_equal_and_others_are_not():
    right = nearest_of([("a", 0.9), ("b", 0.8), ("c", 0.8 - 1e-6), ("d", 0.7999)], 2, depth=60)
    assert right.near == {"a", "b", "c"}
    large = nearest_of([("a", 900.0), ("b", 800.0), ("c", 799.999), ("d", 799.9)], 2, depth=60)
    assert large.near == {"a", "b", "c"}, "rounding is a share of the scores"


def test_what_ties_beyond_the_exact_answer_is_looked_at_again():
    exact = [(n, 1.0) for n in range(60)]
    right = nearest_of(exact, 10, depth=60)
    asked = []

    def scores(doubtful):
        asked.append(doubtful)
        return {0: {100: 1.0, 101: 1.0 - 1e-7, 102: 0.5}}

    assert recall_at(10, [[*range(7), 100, 101, 102]], [right], scores) == 0.9
    assert asked == [{0: [100, 101, 102]}]


def test_a_hit_counts_once_and_only_among_the_first_k():
    right = nearest_of([("a", 0.9), ("b", 0.8), ("c", 0.1)], 2, depth=60)
    assert recall_at(2, [["a", "a", "c"], ["c", "a", "b"]], [right, right], nobody) == 0.5


def test_where_there_is_less_than_k_to_find_all_of_it_is_everything():
    few = nearest_of([("a", 0.9), ("b", 0.1)], 10, depth=60)
    assert recall_at(10, [["b", "a"]], [few], nobody) == 1.0
    assert recall_at(10, [[]], [nearest_of([], 10, depth=60)], nobody) == 1.0


def test_a_thousand_equal_vectors_are_all_found_by_any_ten_of_them(client):
    collection = filled(client, np.tile(unit(np.ones(SIZE)), (1000, 1)))
    truth = Truth.of(collection, QueryVectors(unit(np.ones((1, SIZE)))), 10)
    assert truth.recall([list(range(990, 1000))]) == truth.recall([list(range(500, 510))]) == 1.0
    assert truth.recall([list(range(995, 1000))]) == 0.5, "five are five of ten"


def test_a_farther_one_is_a_loss_however_many_tie(client):
    rows = unit(np.concatenate([np.ones((200, SIZE)), np.eye(SIZE)[:4]]))
    truth = Truth.of(filled(client, rows), QueryVectors(unit(np.ones((1, SIZE)))), 10)
    assert truth.recall([[*range(150, 158), 200, 203]]) == 0.8
    assert truth.recall([[*range(150, 159), 10**6]]) == 0.9, "a point that is gone is not found"


def test_a_stored_vector_does_not_count_as_its_own_neighbour(client):
    rows = unit(np.random.default_rng(0).normal(size=(30, SIZE)))
    collection = filled(client, rows)
    truth = Truth.of(collection, QueryVectors(rows[:3], own=(0, 1, 2)), 5)
    order = np.argsort(-(rows[:3] @ rows.T), axis=1)
    found = [[int(each) for each in line if each != own][:5] for own, line in enumerate(order)]
    assert truth.recall(found) == 1.0
    assert all(own not in right.near for own, right in enumerate(truth.nearest))


def test_scores_of_compressed_vectors_are_not_taken_for_exact_ones(tmp_path):
    """A binary code has a handful of values, so that whatever is found scores alike; what it is worth is measured."""
    client = connect(tmp_path / "qdrant")
    rows = unit(np.random.default_rng(1).normal(size=(600, SIZE)))
    settings = CollectionSettings(quantization=Quantization("binary", rescore=False), full_scan_threshold=10)
    collection = filled(client, rows, settings=settings)
    questions = QueryVectors(rows[:20])
    found = [[p.id for p in each] for each in collection.gateway.query_batch(questions.requests(collection, None, 10))]
    by_hand = np.argsort(-(rows[:20] @ rows.T), axis=1)[:, :10]
    plain = float(np.mean([len(set(ids) & set(line.tolist())) / 10 for ids, line in zip(found, by_hand)]))
    assert Truth.of(collection, questions, 10).recall(found) == pytest.approx(plain, abs=1e-9)
    client.close()


def test_exact_search_has_a_recall_of_one_whatever_the_datatype(tmp_path):
    client = connect(tmp_path / "qdrant")
    rows = unit(np.random.default_rng(2).integers(0, 2, size=(500, SIZE)) + 0.01)
    for datatype in ("float32", "float16"):
        collection = filled(client, rows, name=datatype, settings=CollectionSettings(datatype=datatype))
        questions = QueryVectors(rows[:50])
        exact = models.SearchParams(exact=True)
        found = [
            [p.id for p in client.query_points(datatype, row, limit=10, search_params=exact).points]
            for row in questions.vectors
        ]
        assert Truth.of(collection, questions, 10).recall(found) == 1.0
    client.close()


# -- scores


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-100, 100), max_size=30))
def test_levelling_keeps_the_order_and_moves_no_score_by_more_than_rounding(scores):
    found = levelled(scores)
    room = ROUNDING * max(map(abs, scores), default=0.0)
    assert found.shape == (len(scores),) and all(0 <= new - old <= room for new, old in zip(found, scores))
    order = np.argsort(scores)
    assert (np.diff(found[order]) >= 0).all()
    different = sorted(set(found.tolist()))
    assert all(b - a > 0 for a, b in zip(different, different[1:]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_noise_of_the_arithmetic_does_not_change_which_scores_are_equal(values, luck):
    """Scores of 0.5, 0.55, ... as two machines compute them."""
    machines = [[np.float32(0.5 + v / 20 + luck.uniform(-3e-7, 3e-7)) for v in values] for _ in range(2)]
    ranks = [[sorted(set(found), reverse=True).index(each) for each in found] for found in map(_levelled, machines)]
    assert ranks[0] == ranks[1] == [sorted(set(values), reverse=True).index(each) for each in values]


def _levelled(scores):
    return levelled(scores).tolist()


def test_scores_that_are_all_apart_stay_as_they_are():
    scores = [0.1, 0.9, 0.5, -0.5]
    assert levelled(scores).tolist() == scores and levelled([]).tolist() == []
