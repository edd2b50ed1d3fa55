"""Mining takes negatives from the collection, and never an answer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from qdrant_client import models
from tiny import WordEncoder, client_of, numbered

from qdrant_tools.client.gateway import Gateway
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import point_id
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import InputError, SpaceMismatchError
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import dropped
from qdrant_tools.mining import Judge, MiningSettings, MiningStats, mine, positives_by_query
from qdrant_tools.mining.rules import Candidates, Positives, eligible, is_copy, ordered, sampling_order, score_limit
from qdrant_tools.records import Label, Passage

OPEN = MiningSettings(max_share=None, duplicate_similarity=None, depth=50, sampling="top")
"""No rule but that a known positive is no negative, and the nearest first."""


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
    result = mine(collection, labels, encoder, settings=MiningSettings(negatives=2, sampling="top"))
    (example,) = result.examples
    assert [positive.id for positive in example.positives] == ["answer", "other answer"]
    assert [negative.id for negative in example.negatives] == ["hard", "less hard"]
    assert example.negatives[0].text == "black tea and coffee raise blood sugar"
    assert example.weight == 0.75
    assert result.discarded == {"known_positive": 2, "close_to_positive": 2}
    expected = (
        encoder.encode_queries(["green tea blood pressure"])
        @ encoder.encode_passages(["black tea and coffee raise blood sugar"])[0]
    )
    assert example.negatives[0].score == pytest.approx(float(expected[0]), abs=1e-5)


@pytest.mark.parametrize(("given", "looked"), [({}, 512), ({"hnsw_ef": 40}, 40), ({"hnsw_ef": None}, 77)])
def test_mining_looks_further_than_a_search_unless_told_otherwise(tmp_path, encoder, monkeypatch, given, looked):
    asked: list[int | None] = []

    rankings = Gateway.rankings

    def watched(gateway, vectors, limits, **how):
        asked.extend(how["params"].hnsw_ef for _ in limits)
        return rankings(gateway, vectors, limits, **how)

    monkeypatch.setattr(Gateway, "rankings", watched)
    for client in client_of("edge", tmp_path):
        collection = filled(client, encoder, numbered(5))
        collection = replace(collection, metadata=replace(collection.metadata, hnsw_ef=77))
        mine(collection, [Label("number one", numbered(5)[0].id)], encoder, settings=replace(OPEN, **given))
    assert asked == [looked]


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
    settings = replace(OPEN, skip=2)
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
    ("scores", "settings", "limit"),
    [
        ([0.8], {}, 0.76),
        ([0.8, 0.4], {}, 0.38),
        ([0.8, 0.4], {"several": "mean"}, 0.57),
        ([-0.4], {}, -0.42),
        ([0.5, -0.4], {}, -0.42),
        ([0.0], {}, 0.0),
        ([0.8], {"max_share": None}, np.inf),
        ([0.8], {"max_share": None, "margin": 0.1}, 0.7),
        ([-0.8], {"max_share": None, "margin": 0.1}, -0.9),
        ([0.8], {"margin": 0.1}, 0.7),
        ([0.8], {"margin": 0.01}, 0.76),
    ],
)
def test_the_limit_lies_below_the_positive_also_for_negative_scores(scores, settings, limit):
    assert score_limit(np.array(scores, np.float32), MiningSettings(**settings)) == pytest.approx(limit)


@pytest.mark.parametrize("noise", [-3e-7, 0.0, 3e-7])
def test_a_candidate_that_scores_as_the_limit_stays_whatever_the_rounding(noise):
    scores = np.array([0.9, 0.76 + noise, 0.5], np.float32)
    positive = Positives(["p"], np.array([0.8], np.float32))
    left, removed = eligible(Candidates(IDS[:3], scores), positive, positive, MiningSettings())
    assert left.tolist() == [1, 2] and removed["close_to_positive"] == 1


def test_a_copy_is_a_copy_at_a_similarity_of_one():
    rows = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    assert all(is_copy(row, rows[n : n + 1], 1.0) for n, row in enumerate(rows))
    assert not is_copy(rows[0], rows[1:2], 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_candidates_that_differ_by_rounding_go_by_their_ids(seed):
    noise = np.random.default_rng(seed).uniform(-3e-7, 3e-7, 6).astype(np.float32)
    scores = np.sort(np.array([0.9, 0.7, 0.7, 0.7, 0.5, 0.5], np.float32) + noise)[::-1]
    names = ["x", "c", "a", "b", "e", "d"]
    assert [names[at] for at in ordered(names, scores)] == ["x", "a", "b", "c", "d", "e"]


IDS = [f"p{i}" for i in range(9)]


def drawn(scores, settings: MiningSettings, query: str) -> list[int]:
    candidates = Candidates(IDS[: len(scores)], scores)
    return sampling_order(candidates, np.arange(len(scores)), settings, query)


def test_softmax_draws_near_the_top_when_cold_and_evenly_when_hot():
    scores = np.linspace(0.9, 0.1, 9, dtype=np.float32)

    def counts(temperature):
        settings = MiningSettings(sampling="softmax", temperature=temperature)
        return np.bincount([drawn(scores, settings, f"query {i}")[0] for i in range(2000)], minlength=9) / 2000

    np.testing.assert_array_equal(counts(0.001), [1, 0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(counts(1000.0), np.full(9, 1 / 9), atol=0.03)
    expected = np.exp(scores / 0.3) / np.exp(scores / 0.3).sum()
    np.testing.assert_allclose(counts(0.3), expected, atol=0.03)


def test_random_draws_evenly():
    scores = np.linspace(0.9, 0.1, 9, dtype=np.float32)
    first = [drawn(scores, MiningSettings(sampling="random"), f"query {i}")[0] for i in range(2000)]
    np.testing.assert_allclose(np.bincount(first, minlength=9) / 2000, np.full(9, 1 / 9), atol=0.03)


@pytest.mark.parametrize("sampling", ["top", "random", "softmax"])
def test_drawing_repeats_nothing(sampling):
    scores = np.array([0.9, 0.7, 0.5, 0.1], np.float32)
    assert sorted(drawn(scores, MiningSettings(sampling=sampling), "q")) == [0, 1, 2, 3]
    assert drawn(scores[:0], MiningSettings(sampling=sampling), "q") == []


def test_a_margin_keeps_negatives_a_distance_away(client, encoder):
    collection = filled(
        client,
        encoder,
        [Passage("p", "a b c d"), *(Passage(f"n{n}", "a b c d"[: 2 * n + 1] + " x y z") for n in range(4))],
    )
    settings = replace(OPEN, margin=0.4)
    (example,) = mine(collection, [Label("a b c d", "p")], encoder, settings=settings).examples
    scores = [negative.score for negative in example.negatives]
    assert scores and max(scores) <= example.positives[0].score - 0.4 + 1e-6


def test_several_positives_may_each_have_an_example_of_their_own(client, encoder):
    texts = {"near": "a b c d", "far": "a b w w w w w", "between": "a b c x x x", "easy": "z"}
    collection = filled(client, encoder, [Passage(name, text) for name, text in texts.items()])
    labels = [Label("a b c d", "near", 1.0), Label("a b c d", "far", 0.5)]
    settings = replace(OPEN, max_share=0.95, several="each")
    near, far = mine(collection, labels, encoder, settings=settings).examples
    assert [p.id for p in near.positives] == ["near"] and [n.id for n in near.negatives] == ["between", "easy"]
    assert [p.id for p in far.positives] == ["far"] and [n.id for n in far.negatives] == ["easy"], "between beats far"
    assert (near.weight, far.weight) == (1.0, 0.5)


def test_other_parts_of_a_positives_document_are_spared(client, encoder):
    passages = [
        Passage(f"{doc}{part}", f"tea part{part} of {doc}", {"file": {"name": doc}})
        for doc in "ab"
        for part in range(3)
    ]
    collection = filled(client, encoder, [*passages, Passage("c", "tea without a document")])
    settings = replace(OPEN, document_key=("file", "name"), negatives=9)
    result = mine(collection, [Label("tea", "a1")], encoder, settings=settings)
    assert {n.id for n in result.examples[0].negatives} == {"b0", "b1", "b2", "c"}
    assert result.discarded["same_document"] == 2
    assert len(mine(collection, [Label("tea", "c")], encoder, settings=settings).examples[0].negatives) == 6


@pytest.mark.parametrize("key", ["doc.id", ("doc", "id"), "x[0]"])
def test_a_document_is_named_by_a_field_or_by_what_lies_inside_one(client, encoder, key):
    def metadata(doc):
        return {"doc": {"id": doc}} if isinstance(key, tuple) else {key: doc}

    documents = [7, 7.0, 7, 8]  # as a table has them that was read with a gap
    passages = [Passage(f"p{i}", f"tea part{i}", metadata(doc)) for i, doc in enumerate(documents)]
    collection = filled(client, encoder, passages)
    result = mine(collection, [Label("tea", "p0")], encoder, settings=replace(OPEN, document_key=key, negatives=9))
    assert {n.id for n in result.examples[0].negatives} == {"p3"} and result.discarded["same_document"] == 2


def test_a_document_key_that_was_meant_as_a_path_is_said_to_be_a_name(client, encoder):
    collection = filled(client, encoder, [Passage("a", "tea", {"file": {"name": "x"}}), Passage("b", "tea too")])
    with pytest.raises(InputError, match=r"no passage .* field 'file.name', .*\('file', 'name'\)"):
        mine(collection, [Label("tea", "a")], encoder, settings=replace(OPEN, document_key="file.name"))
    with pytest.raises(InputError, match="document_key is .*, expected names only"):
        replace(OPEN, document_key=("parts", None, "name"))


def test_a_filter_says_where_negatives_may_come_from(client, encoder):
    collection = filled(client, encoder, numbered(30))
    settings = replace(OPEN, filter={"topic": [2, 3]}, negatives=30)
    (example,) = mine(collection, [Label("passage about thing1", "p1")], encoder, settings=settings).examples
    assert {int(n.id[1:]) % 7 for n in example.negatives} == {2, 3} and len(example.negatives) == 8


def test_copies_are_found_however_many_there_are(client, encoder):
    copies = [Passage(f"copy{i:03}", "green tea is good") for i in range(120)]
    collection = filled(client, encoder, [*copies, Passage("other", "green tea is bad for me")])
    result = mine(
        collection, [Label("green tea is good", "copy007")], encoder, settings=replace(OPEN, duplicate_similarity=0.95)
    )
    assert all(n.id == "other" for n in result.examples[0].negatives), "whatever part of the copies the graph reached"
    assert result.discarded["near_duplicate"] > 20


def test_a_judge_drops_answers_and_the_next_candidate_takes_the_place(client, encoder):
    collection = filled(client, encoder, [Passage(f"p{i}", "word " * (9 - i) + "other " * i) for i in range(9)])
    asked: list[tuple[str, str]] = []

    def score(pairs):
        asked.extend(pairs)
        return [float(text.count("word") in (8, 6)) for _, text in pairs]

    settings = replace(OPEN, negatives=3)
    plain = mine(collection, [Label("word", "p0")], encoder, settings=settings).examples[0]
    result = mine(collection, [Label("word", "p0")], encoder, settings=settings, judge=Judge(score, 0.5))
    assert [n.id for n in plain.negatives] == ["p1", "p2", "p3"]
    assert [n.id for n in result.examples[0].negatives] == ["p2", "p4", "p5"]
    assert result.discarded["judged_relevant"] == 2 and len(asked) == 5, "only what is drawn is judged"
    promoted = mine(
        collection, [Label("word", "p0")], encoder, settings=settings, judge=Judge(score, 0.5, promote=True)
    )
    assert [p.id for p in promoted.examples[0].positives] == ["p0", "p1", "p3"]
    assert promoted.examples[0].negatives == result.examples[0].negatives


def test_a_judge_that_finds_everything_relevant_leaves_no_negatives(client, encoder):
    collection = filled(client, encoder, numbered(12))
    result = mine(
        collection, [Label("passage", "p0")], encoder, settings=OPEN, judge=Judge(lambda pairs: [1.0] * len(pairs), 0.5)
    )
    assert result.examples[0].negatives == () and result.discarded["judged_relevant"] == 11


@pytest.mark.parametrize("answer", [[0.5], [float("nan")] * 4, [[0.1, 0.9]] * 4])
def test_a_judge_must_give_one_finite_score_per_pair(client, encoder, answer):
    collection = filled(client, encoder, numbered(12))
    with pytest.raises(InputError, match="the judge returned"):
        mine(collection, [Label("passage", "p0")], encoder, settings=OPEN, judge=Judge(lambda pairs: answer, 0.5))


def test_examples_below_the_minimum_are_left_out_and_counted(client, encoder):
    collection = filled(client, encoder, [Passage("a", "red fish"), Passage("b", "red bird")])
    result = mine(collection, [Label("red fish", "a")], encoder, settings=MiningSettings(minimum=2))
    assert result.examples == [] and result.discarded["below_minimum"] == 1


def test_redacted_and_empty_queries_give_no_examples(client, encoder):
    collection = filled(client, encoder, numbered(5))
    labels = [Label(dropped("a"), "p1"), Label("  ", "p1"), Label("thing2", "p2"), Label("redacted: thing3", "p3")]
    result = mine(collection, labels, encoder)
    assert [example.query for example in result.examples] == ["thing2", "redacted: thing3"]
    assert result.discarded["redacted"] == 2


def test_points_deleted_after_the_click_are_counted(client, encoder):
    collection = filled(client, encoder, numbered(8))
    collection.client.delete("docs", [point_id("p3")])
    result = mine(collection, [Label("thing3", "p3"), Label("thing4", "p4")], encoder)
    assert [example.query for example in result.examples] == ["thing4"]
    assert result.discarded["unknown_positive"] == 1 and result.discarded["no_positive"] == 1


def test_a_positive_whose_point_has_no_vector_is_counted_and_no_example(client, encoder):
    collection = filled(client, encoder, numbered(8))
    client.delete_vectors("docs", [""], models.PointIdsList(points=[point_id("p3")]))
    result = mine(
        collection, [Label("thing3 thing5", "p3"), Label("thing3 thing5", "p5"), Label("thing4", "p4")], encoder
    )
    assert [[p.id for p in example.positives] for example in result.examples] == [["p5"], ["p4"]]
    assert result.discarded["unknown_positive"] == 1


def test_the_account_has_every_candidate_in_one_place(client, encoder):
    collection = filled(client, encoder, numbered(60))
    labels = [Label(f"passage about topic{i % 7} thing{i}", f"p{i}") for i in range(30)]
    result = mine(collection, labels, encoder, settings=MiningSettings(skip=2, negatives=50, depth=50))
    counts = result.stats.counts
    removed = counts["skipped"] + counts["near_duplicate"] + counts["same_document"] + counts["close_to_positive"]
    assert counts["candidates"] - removed == counts["negatives"] == sum(len(e.negatives) for e in result.examples)
    histograms = result.stats.histograms
    assert histograms["negatives"].total() == counts["negatives"]
    assert histograms["positives"].total() == 30
    assert MiningStats.from_row(json.loads(json.dumps(result.stats.as_row()))) == result.stats


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"negatives": 0}, "negatives is 0"),
        ({"skip": 50, "depth": 50}, "skip is 50 of depth 50"),
        ({"max_share": 1.2}, "max_share is 1.2"),
        ({"duplicate_similarity": 95}, "duplicate_similarity is 95"),
        ({"sampling": "best"}, "sampling is 'best'"),
        ({"temperature": 0}, "temperature is 0"),
        ({"margin": -1}, "margin is -1"),
        ({"minimum": 5}, "minimum is 5 of 4"),
        ({"several": "max"}, "several is 'max'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_made(wrong, message):
    with pytest.raises(InputError, match=message):
        MiningSettings(**wrong)


def test_rankings_are_what_the_client_finds(client, encoder):
    collection = filled(client, encoder, numbered(30))
    vectors = encoder.encode_queries(["passage about topic1", "thing4"])
    limits = [7, 3]
    requests = [models.QueryRequest(query=row, limit=k) for row, k in zip(vectors.tolist(), limits, strict=True)]
    found = [response.points for response in client.query_batch_points(collection.name, requests)]
    expected = [([point.id for point in points], [point.score for point in points]) for points in found]
    rankings = collection.gateway.rankings(vectors, limits)
    assert [list(ids) for ids, _ in rankings] == [ids for ids, _ in expected]
    for (_, scores), (_, wanted) in zip(rankings, expected, strict=True):
        assert scores == pytest.approx(wanted)


def test_a_known_positive_is_no_negative_even_if_the_engine_scores_it_otherwise(client, encoder, monkeypatch):
    collection = filled(client, encoder, numbered(30))
    labels = [Label("passage about topic1", "p1"), Label("passage about topic1", "p8"), Label("thing4", "p4")]
    expected = mine(collection, labels, encoder, settings=OPEN)
    monkeypatch.setattr("qdrant_tools.mining.rules.SAME_SCORE", -1.0)  # so that none is recognised by its score
    found = mine(collection, labels, encoder, settings=OPEN)
    assert found.examples == expected.examples
    assert 0 < found.discarded["known_positive"] <= expected.discarded["known_positive"]


SPELLINGS = ["How do I reset my password?", "how do i reset my password", "  HOW do I reset my pass\u00adword…"]


def test_an_answer_to_one_spelling_of_a_query_is_no_negative_of_another(client, encoder):
    passages = [Passage("a", "reset my password here"), Passage("b", "how do i reset it"), Passage("c", "my other cat")]
    collection = filled(client, encoder, passages)
    labels = [Label(SPELLINGS[0], "a"), Label(SPELLINGS[1], "b", 0.5), Label(SPELLINGS[2], "c", 0.0)]
    result = mine(collection, labels, encoder, settings=OPEN)
    (example,) = result.examples
    assert example.query == SPELLINGS[0] and [p.id for p in example.positives] == ["a", "b"]
    assert [n.id for n in example.negatives] == ["c"] and result.stats.counts["queries"] == 1
    assert positives_by_query(labels) == {SPELLINGS[0]: {"a": 1.0, "b": 0.5}}
    assert positives_by_query([Label("C++", "a"), Label("C#", "b"), Label("c", "c")]).keys() == {"C++", "C#", "c"}


@pytest.mark.parametrize("similarity", [None, 0.99])
def test_what_says_the_same_as_a_positive_or_the_query_is_no_negative(client, encoder, similarity):
    texts = {"answer": "Green tea is good!", "same": "green  tea is GOOD", "query": "GREEN TEA?", "other": "green cat"}
    collection = filled(client, encoder, [Passage(name, text) for name, text in texts.items()])
    result = mine(
        collection, [Label("green tea", "answer")], encoder, settings=replace(OPEN, duplicate_similarity=similarity)
    )
    assert [n.id for n in result.examples[0].negatives] == ["other"]
    assert result.discarded["same_text"] == 2


def test_redacted_queries_stay_apart_from_what_was_typed():
    assert len(positives_by_query([Label(dropped("a"), "p1"), Label("Redacted:", "p2"), Label("redacted", "p2")])) == 2
