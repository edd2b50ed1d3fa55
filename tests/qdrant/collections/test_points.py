"""Passages and vectors read back from a collection, and samples of them."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import numbered

from qdrant_tools import Collection
from qdrant_tools.collections import stored_vectors
from qdrant_tools.collections.points import draw_ids, random_passages, sample_vectors


@pytest.fixture
def docs(manager, encoder) -> Collection:
    docs = manager.ensure("docs", encoder)
    docs.index(numbered(120))
    return docs


def test_random_passages_come_with_their_texts_and_vectors(docs):
    passages = random_passages(docs, 30)
    stored = docs.fetch([passage.id for passage in passages], with_vectors=True)
    assert len(stored) == 30 and list(stored.values()) == passages
    for passage in passages:
        np.testing.assert_array_equal(passage.vector, stored[passage.id].vector)
    assert len(random_passages(docs, 500)) == 120


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another(docs):
    sample = sample_vectors(docs, 20, seed=3)
    again, other = sample_vectors(docs, 20, seed=3), sample_vectors(docs, 20, seed=4)
    assert sample.ids == again.ids != other.ids
    np.testing.assert_array_equal(sample.vectors, again.vectors)
    assert (len(set(sample.ids)), sample.vectors.shape, sample.total) == (20, (20, 64), 120)
    stored = docs.fetch(sample.ids, with_vectors=True)
    np.testing.assert_array_equal(sample.vectors, [stored[name].vector for name in sample.ids])


def test_a_sample_comes_in_the_order_of_the_collection_and_whole_if_it_fits(docs):
    order = [name for ids, _ in stored_vectors(docs) for name in ids]
    assert sample_vectors(docs, 500).ids == order
    drawn = set(sample_vectors(docs, 20).ids)
    assert sample_vectors(docs, 20).ids == [name for name in order if name in drawn]


def test_what_must_be_in_a_sample_is_in_it(docs):
    always = {"p1", "p2", "p3", "nowhere"}
    sample = sample_vectors(docs, 10, always=always)
    assert {"p1", "p2", "p3"} < set(sample.ids) and len(sample.ids) == 10
    assert set(sample_vectors(docs, 2, always=always).ids) == {"p1", "p2", "p3"}
    assert set(sample.ids) - always <= set(sample_vectors(docs, 10).ids), "the others are drawn as without them"


def test_a_sample_that_is_thinned_out_on_the_way_is_the_one_of_all_ids_at_once(manager, encoder):
    many = manager.ensure("many", encoder)
    many.index(numbered(1500))
    order = [name for ids, _ in stored_vectors(many) for name in ids]
    for size, always in ((20, set()), (20, {order[3], order[700], order[-1]}), (2, set(order[100:900:50]))):
        sample = sample_vectors(many, size, seed=1, always=always)
        assert sample.ids == draw_ids(order, size, seed=1, always=always) and sample.total == 1500
        stored = many.fetch(sample.ids, with_vectors=True)
        np.testing.assert_array_equal(sample.vectors, [stored[name].vector for name in sample.ids])


def test_an_empty_collection_has_an_empty_sample(manager, encoder):
    empty = manager.ensure("empty", encoder)
    sample = sample_vectors(empty, 10)
    assert (sample.ids, sample.vectors.shape, sample.total) == ([], (0, 64), 0) and random_passages(empty, 5) == []


def test_every_id_is_drawn_as_often_as_any_other():
    ids = [f"p{number}" for number in range(50)]
    times = {name: sum(name in draw_ids(ids, 10, seed=seed) for seed in range(400)) for name in ids}
    assert min(times.values()) > 40 and max(times.values()) < 125  # 80 expected, give or take 5 standard deviations
