"""Mining takes negatives from the collection, and never an answer."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import ENGINES, WordEncoder, client_of, numbered

from qdrant_tools.collection import Collection, CollectionManager, build_index
from qdrant_tools.errors import InputError, SpaceMismatchError
from qdrant_tools.index import index_passages
from qdrant_tools.mine import MiningSettings, draw, mine, positives_by_query, score_limit
from qdrant_tools.records import Label, Passage

OPEN = MiningSettings(max_share=None, duplicate_similarity=None)
"""No rule but that a known positive is no negative."""


@pytest.fixture(params=ENGINES)
def client(request, tmp_path):
    yield from client_of(request.param, tmp_path)


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder(dimension=512)


def filled(client, encoder, passages) -> Collection:
    collection = CollectionManager(client).ensure("docs", encoder)
    index_passages(collection, passages, encoder)
    build_index(collection)
    return collection


def test_negatives_are_the_nearest_passages_that_no_rule_removes(client, encoder):
    """Every rule removes exactly the passage made for it, and the report says so."""
    collection = filled(
        client,
        encoder,
        [
            Passage("answer", "green tea lowers blood pressure in adults every day"),
            Passage("other answer", "drinking green tea is good for blood pressure"),
            Passage("copy", "Green tea lowers blood pressure in adults every day"),
            Passage("too good", "green tea blood pressure"),
            Passage("hard", "black tea and coffee raise blood sugar"),
            Passage("less hard", "tea is grown in many countries of the east"),
            Passage("easy", "the train leaves at seven"),
        ],
    )
    labels = [Label("green tea blood pressure", "answer"), Label("green tea blood pressure", "other answer", 0.5)]
    result = mine(collection, labels, encoder, settings=MiningSettings(negatives=2))
    (example,) = result.examples
    assert [positive.id for positive in example.positives] == ["answer", "other answer"]
    assert [negative.id for negative in example.negatives] == ["hard", "less hard"]
    assert example.negatives[0].text == "black tea and coffee raise blood sugar"
    assert example.weight == 0.75
    assert result.discarded == {"known_positive": 2, "near_duplicate": 1, "close_to_positive": 1}
    expected = (
        encoder.encode_queries(["green tea blood pressure"])
        @ encoder.encode_passages(["black tea and coffee raise blood sugar"])[0]
    )
    assert example.negatives[0].score == pytest.approx(float(expected[0]), abs=1e-5)


def test_without_rules_only_known_positives_are_spared(client, encoder):
    collection = filled(client, encoder, [Passage(i, f"the same text {i}") for i in "abcd"])
    result = mine(collection, [Label("the same text", "a"), Label("the same text", "c")], encoder, settings=OPEN)
    assert {negative.id for negative in result.examples[0].negatives} == {"b", "d"}


def test_too_few_candidates_give_fewer_negatives_never_random_ones(client, encoder):
    collection = filled(
        client, encoder, [Passage("a", "red fish"), Passage("b", "red bird"), Passage("c", "red fish too")]
    )
    result = mine(
        collection,
        [Label("red fish", "a"), Label("red", "nothing like this")],
        encoder,
        settings=MiningSettings(negatives=4),
    )
    (example,) = result.examples
    assert [negative.id for negative in example.negatives] == ["c", "b"]
    assert result.discarded["too_few"] == 1
    assert result.discarded["unknown_positive"] == 1 and result.discarded["no_positive"] == 1


def test_a_known_positive_does_not_take_a_candidates_place(client, encoder):
    collection = filled(client, encoder, [Passage(f"p{i}", f"word thing{i}") for i in range(10)])
    labels = [Label("word", f"p{i}") for i in range(6)]
    settings = MiningSettings(max_share=None, duplicate_similarity=None, depth=4, negatives=4)
    (example,) = mine(collection, labels, encoder, settings=settings).examples
    assert {negative.id for negative in example.negatives} == {"p6", "p7", "p8", "p9"}


def test_skip_passes_over_the_top_of_the_ranking(client, encoder):
    collection = filled(
        client,
        encoder,
        [Passage("p", "a b c d e"), *(Passage(f"n{n}", "a b c d e x"[: 2 * n + 1] + " y") for n in range(5))],
    )
    top = mine(collection, [Label("a b c d e", "p")], encoder, settings=OPEN).examples[0].negatives
    settings = MiningSettings(max_share=None, duplicate_similarity=None, skip=2)
    result = mine(collection, [Label("a b c d e", "p")], encoder, settings=settings)
    assert list(result.examples[0].negatives) == [*top[2:], *result.examples[0].negatives[2:]]
    assert result.discarded["skipped"] == 2


@pytest.mark.parametrize("sampling", ["top", "random", "softmax"])
def test_examples_depend_on_the_seed_and_not_on_the_order_of_the_queries(client, encoder, sampling):
    collection = filled(client, encoder, numbered(60))
    labels = [Label(f"passage about topic{i % 7} thing{i}", f"p{i}") for i in range(30)]

    def by_query(labels, **more):
        settings = MiningSettings(sampling=sampling, batch_size=7, temperature=0.5, depth=60, **more)
        return {
            example.query: [n.id for n in example.negatives]
            for example in mine(collection, labels, encoder, settings=settings).examples
        }

    once = by_query(labels)
    assert by_query(labels[::-1]) == once
    assert (by_query(labels, seed=1) == once) == (sampling == "top")


def test_progress_counts_queries(client, encoder):
    collection = filled(client, encoder, numbered(10))
    labels = [Label(f"thing{i}", f"p{i}") for i in range(10)]
    steps: list[int] = []
    mine(collection, labels, encoder, settings=MiningSettings(batch_size=4), progress=steps.append)
    assert steps == [4, 4, 2]


def test_another_space_is_refused_because_its_scores_mean_nothing(client, encoder):
    collection = filled(client, encoder, numbered(3))
    with pytest.raises(SpaceMismatchError):
        mine(collection, [Label("q", "p1")], WordEncoder("trained", dimension=512))


def test_no_labels_give_no_examples(client, encoder):
    collection = filled(client, encoder, numbered(3))
    assert mine(collection, [], encoder).examples == []
    assert mine(collection, [Label("q", "p1", 0.0)], encoder).examples == []


def test_one_positive_vote_makes_a_positive():
    labels = [Label("q", "a", 0.0), Label("q", "a", 0.5), Label("q", "a", 0.2), Label("q", "b", -1.0)]
    assert positives_by_query(labels) == {"q": {"a": 0.5}}


@pytest.mark.parametrize(
    ("scores", "limit"), [([0.8], 0.76), ([0.8, 0.4], 0.38), ([-0.4], -0.42), ([0.5, -0.4], -0.42), ([0.0], 0.0)]
)
def test_the_limit_lies_below_the_lowest_positive_also_for_negative_scores(scores, limit):
    assert score_limit(np.array(scores, np.float32), 0.95) == pytest.approx(limit)


IDS = [f"p{i}" for i in range(9)]


def test_softmax_draws_near_the_top_when_cold_and_evenly_when_hot():
    scores = np.linspace(0.9, 0.1, 9, dtype=np.float32)

    def counts(temperature):
        settings = MiningSettings(negatives=1, sampling="softmax", temperature=temperature)
        drawn = [int(draw(IDS, scores, settings, query=f"query {i}")[0]) for i in range(2000)]
        return np.bincount(drawn, minlength=9) / 2000

    np.testing.assert_array_equal(counts(0.001), [1, 0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(counts(1000.0), np.full(9, 1 / 9), atol=0.03)
    expected = np.exp(scores / 0.3) / np.exp(scores / 0.3).sum()
    np.testing.assert_allclose(counts(0.3), expected, atol=0.03)


@pytest.mark.parametrize("sampling", ["top", "random", "softmax"])
def test_drawing_repeats_nothing_and_lists_the_best_first(sampling):
    scores = np.array([0.9, 0.7, 0.5, 0.1], np.float32)
    drawn = draw(IDS[:4], scores, MiningSettings(negatives=3, sampling=sampling), query="q")
    assert len(set(drawn.tolist())) == 3 and list(scores[drawn]) == sorted(scores[drawn], reverse=True)
    assert len(draw([], scores[:0], MiningSettings(sampling=sampling), query="q")) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"negatives": 0}, "negatives is 0"),
        ({"skip": 50}, "skip is 50 of depth 50"),
        ({"max_share": 1.2}, "max_share is 1.2"),
        ({"duplicate_similarity": 95}, "duplicate_similarity is 95"),
        ({"sampling": "best"}, "sampling is 'best'"),
        ({"temperature": 0}, "temperature is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_made(wrong, message):
    with pytest.raises(InputError, match=message):
        MiningSettings(**wrong)
