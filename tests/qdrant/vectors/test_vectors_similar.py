"""Recommendation from stored examples, against numpy on every engine."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import DirectionEncoder, numbered

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, UsageError

COUNT = 60


@pytest.fixture
def docs(manager: CollectionManager):
    docs = manager.ensure("similar", DirectionEncoder())
    docs.index(numbered(COUNT))
    return docs


@pytest.fixture
def rows(docs):
    stored = docs.fetch([f"p{i}" for i in range(COUNT)], with_vectors=True)
    return np.array([stored[f"p{i}"].vector for i in range(COUNT)], np.float64)


def numbers(hits):
    return [int(hit.id[1:]) for hit in hits]


def best(scores, without, k):
    order = [number for number in np.argsort(-scores, kind="stable").tolist() if number not in without]
    return order[:k]


def test_the_mean_of_likes_plus_its_difference_from_the_mean_of_dislikes_is_searched(docs, rows):
    hits = docs.similar(["p3", "p10"], ["p4"], k=8, exact=True)
    mean = rows[[3, 10]].mean(axis=0)
    query = 2 * mean - rows[4]
    scores = rows @ query / np.linalg.norm(query)
    expected = best(scores, {3, 4, 10}, 8)
    assert numbers(hits) == expected
    assert np.allclose([hit.score for hit in hits], scores[expected], atol=1e-4)


def test_best_score_ranks_by_the_nearest_example_and_what_is_nearer_to_a_dislike_last(docs, rows):
    hits = docs.similar(["p3", "p10"], ["p4"], k=COUNT, strategy="best_score", exact=True)
    liked, disliked = (rows @ rows[[3, 10]].T).max(axis=1), rows @ rows[4]
    assert len(hits) == COUNT - 3 and not {3, 4, 10} & set(numbers(hits))
    kept = [number for number in numbers(hits) if liked[number] > disliked[number]]
    assert kept == best(np.where(liked > disliked, liked, -np.inf), {3, 4, 10}, len(kept))
    assert numbers(hits)[: len(kept)] == kept, "what is nearer to the dislike comes last"
    assert all(hit.score < 0 for hit in hits[len(kept) :])


def test_dislikes_alone_are_enough_for_best_score_only(docs):
    assert docs.similar([], ["p4"], k=3, strategy="best_score")
    with pytest.raises(UsageError, match="best_score"):
        docs.similar([], ["p4"])


def test_a_filter_holds_for_recommendations(docs):
    assert {hit.metadata["topic"] for hit in docs.similar(["p3"], k=5, filter={"topic": 2})} == {2}


def test_what_cannot_be_compared_with_is_refused(docs):
    with pytest.raises(InputError, match="'absent' is not in 'similar', which has ids such as 'p"):
        docs.similar(["p1", "absent"])
    with pytest.raises(InputError, match="'p1' is liked and disliked"):
        docs.similar(["p1"], ["p2", "p1"])
    with pytest.raises(InputError, match="at least one"):
        docs.similar([])
    with pytest.raises(UsageError, match="strategy is 'mean'"):
        docs.similar(["p1"], strategy="mean")
    with pytest.raises(InputError, match="several strings"):
        docs.similar("p1")
