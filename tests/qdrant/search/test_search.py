"""Search finds what is there, in an order one can rely on."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import point_id
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import InputError, SpaceMismatchError, VectorError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search.dense import search, search_batch, search_groups, search_vectors


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder(dimension=256)


@pytest.fixture
def collection(client, encoder) -> Collection:
    collection = CollectionManager(client).ensure("docs", encoder)
    index_passages(collection, numbered(40), encoder)
    build_index(collection)
    return collection


def test_hits_carry_text_metadata_rank_and_point(collection, encoder):
    hits = search(collection, "thing17", encoder, k=3)
    assert hits[0] == Hit(
        "p17",
        hits[0].score,
        1,
        "passage number 17 about topic3 and thing17",
        {"topic": 3, "even": False},
        point_id("p17"),
    )
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert hits[0].score > hits[1].score >= hits[2].score


def test_a_batch_gives_what_single_searches_give(collection, encoder):
    queries = [f"number {i} thing{i}" for i in range(40)] * 2  # more than one round trip
    together = search_batch(collection, queries, encoder, k=5)
    alone = [search(collection, query, encoder, k=5) for query in queries]
    assert [hits[0].id for hits in together] == [hits[0].id for hits in alone]
    for some, others in zip(together, alone, strict=True):
        np.testing.assert_allclose([hit.score for hit in some], [hit.score for hit in others], atol=1e-6)
    assert search_batch(collection, [], encoder) == []


def test_exact_search_is_the_brute_force_ranking(collection, encoder):
    texts = [passage.text for passage in numbered(40)]
    query = "passage about topic4 and thing11"
    scores = encoder.encode_passages(texts) @ encoder.encode_queries([query])[0]
    hits = search(collection, query, encoder, k=40, exact=True)
    assert len(hits) == 40
    np.testing.assert_allclose([hit.score for hit in hits], sorted(scores, reverse=True), atol=1e-5)
    np.testing.assert_allclose([hit.score for hit in hits], [scores[int(h.id[1:])] for h in hits], atol=1e-5)


def test_equal_scores_come_in_the_order_of_their_ids(client, encoder):
    collection = CollectionManager(client).ensure("ties", encoder)
    index_passages(collection, [Passage(i, "the very same text") for i in "cabed"], encoder)
    assert [hit.id for hit in search(collection, "same text", encoder)] == list("abcde")


def test_scores_that_differ_by_rounding_are_equal_and_come_in_the_order_of_their_ids(client):
    """On another machine the last digit of each of these falls otherwise."""
    encoder = WordEncoder(dimension=4)
    collection = CollectionManager(client).ensure("ties", encoder)
    names = "dbeac"
    rows = {name: [1.0, 1.0, 1e-7 * place, 0.0] for place, name in enumerate(names)}
    rows["far"] = [1.0, 0.0, 0.0, 0.0]
    texts = [Passage(name, name, {"file": "xyxyz"[place]}) for place, name in enumerate(names)]
    encoder.encode_passages = lambda texts: _unit([rows[text] for text in texts])
    index_passages(collection, [*texts, Passage("far", "far")], encoder)
    (hits,) = search_vectors(collection, _unit([[1.0, 1.0, 1.0, 0.0]]), k=6)
    assert [hit.id for hit in hits] == [*"abcde", "far"] and len({hit.score for hit in hits}) == 2
    encoder.encode_queries = lambda texts: _unit([[1.0, 1.0, 1.0, 0.0]])
    groups = search_groups(collection, "any", encoder, by="file")
    assert [(group.value, [hit.id for hit in group.hits]) for group in groups] == [
        ("x", ["d", "e"]), ("y", ["a", "b"]), ("z", ["c"]),
    ]  # fmt: skip


def _unit(rows):
    return (np.asarray(rows) / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_plain_filters_hold_on_the_metadata(collection, encoder):
    def ids(**filter):
        return {int(hit.id[1:]) for hit in search(collection, "passage", encoder, k=40, exact=True, filter=filter)}

    assert ids(topic=3) == set(range(3, 40, 7))
    assert ids(topic=[3, 4]) == set(range(3, 40, 7)) | set(range(4, 40, 7))
    assert ids(topic=3, even=True) == {10, 24, 38}
    assert ids(topic=99) == set()
    assert ids() == set(range(40))


def test_a_qdrant_filter_passes_as_it_is(collection, encoder):
    condition = models.FieldCondition(key="passage_id", match=models.MatchAny(any=["p1", "p2"]))
    hits = search(collection, "passage", encoder, filter=models.Filter(must=[condition]))
    assert {hit.id for hit in hits} == {"p1", "p2"}


@pytest.mark.parametrize(
    "value", [None, [], [1, "a"], [True, 1], {}, {"more": 3}, {"gt": "b"}, {"gt": True}, {"gt": 3, "lt": 3}, [[1]]]
)
def test_a_filter_value_that_cannot_be_expressed_is_refused(collection, encoder, value):
    with pytest.raises(InputError, match="filter on 'topic'"):
        search(collection, "passage", encoder, filter={"topic": value})


@pytest.mark.parametrize("query", ["", "  \n", None, 5])
def test_a_query_must_say_something(collection, encoder, query):
    with pytest.raises(InputError, match="query is"):
        search(collection, query, encoder)


def test_a_string_instead_of_a_list_of_queries_is_refused(collection, encoder):
    with pytest.raises(InputError, match="expected a list"):
        search_batch(collection, "a question", encoder)


@pytest.mark.parametrize("k", [0, -1, 1.0, "3", True])
def test_k_must_be_a_number_of_hits(collection, encoder, k):
    with pytest.raises(InputError, match="k is"):
        search(collection, "passage", encoder, k=k)


def test_more_hits_than_passages_gives_them_all(collection, encoder):
    assert len(search(collection, "passage", encoder, k=1000)) == 40


def test_an_encoder_of_another_space_is_refused(collection):
    with pytest.raises(SpaceMismatchError):
        search(collection, "passage", WordEncoder("other", dimension=256))


def test_query_vectors_are_checked(collection):
    with pytest.raises(VectorError, match=r"\(1, 3\), expected \(n, 256\)"):
        search_vectors(collection, np.ones((1, 3), np.float32))
    with pytest.raises(VectorError, match="row 1 holds NaN"):
        search_vectors(collection, np.stack([np.ones(256), np.full(256, np.nan)]))


def test_an_empty_collection_has_no_hits(client, encoder):
    assert search(CollectionManager(client).ensure("empty", encoder), "anything", encoder) == []


def test_hits_below_the_threshold_are_left_out(collection, encoder):
    every = search(collection, "thing17 topic3", encoder, k=40, exact=True)
    threshold = every[4].score - 1e-5
    some = search(collection, "thing17 topic3", encoder, k=40, exact=True, score_threshold=threshold)
    assert some and all(hit.score >= threshold for hit in some)
    assert {hit.id for hit in every[:4]} <= {hit.id for hit in some}
    assert len(some) < len(every)


def test_diverse_hits_are_not_ten_times_the_same(client, encoder):
    collection = CollectionManager(client).ensure("news", encoder)
    copies = [Passage(f"copy{i}", "storm hits the coast") for i in range(10)]
    other = [Passage("other1", "coast hotels reopen"), Passage("other2", "storm insurance prices")]
    index_passages(collection, [*copies, *other], encoder)
    nearest = search(collection, "storm coast", encoder, k=3)
    diverse = search(collection, "storm coast", encoder, k=3, diversity=0.7)
    assert all(hit.id.startswith("copy") for hit in nearest)
    assert diverse[0].text == copies[0].text and {hit.id for hit in diverse[1:]} == {"other1", "other2"}
    assert [hit.rank for hit in diverse] == [1, 2, 3]
    alone = search(collection, "storm coast", encoder, k=12, diversity=0.0)
    assert [hit.score for hit in alone] == sorted((hit.score for hit in alone), reverse=True)


def test_hits_bring_only_the_fields_that_were_asked_for(collection, encoder):
    def first(**how):
        return search(collection, "thing17", encoder, k=1, **how)[0]

    assert first(fields=["topic"]).metadata == {"topic": 3} and first(fields=["topic"]).text
    bare = first(fields=[], text=False)
    assert (bare.id, bare.text, bare.metadata) == ("p17", "", {})
    assert first(text=False).metadata == {"topic": 3, "even": False}


def test_groups_have_the_best_hits_of_each_document(collection, encoder):
    groups = search_groups(collection, "thing17 thing20", encoder, by="topic", group_size=2, k=3, exact=True)
    assert [group.value for group in groups[:2]] in ([3, 6], [6, 3])
    assert len(groups) == 3 and all(len(group.hits) == 2 for group in groups)
    for group in groups:
        assert all(hit.metadata["topic"] == group.value for hit in group.hits)
        assert group.hits[0].score >= group.hits[1].score
    best = [group.hits[0].score for group in groups]
    assert best == sorted(best, reverse=True)


def test_groups_take_filters_and_other_options(collection, encoder):
    groups = search_groups(
        collection, "thing17", encoder, by="topic", k=10, filter={"even": True, "topic": [1, 2]}, fields=["topic"]
    )
    assert sorted(group.value for group in groups) == [1, 2]
    assert all(set(hit.metadata) == {"topic"} for group in groups for hit in group.hits)
    with pytest.raises(InputError, match="diverse by that field"):
        search_groups(collection, "thing17", encoder, by="topic", diversity=0.5)


@pytest.mark.parametrize("wrong", [{"diversity": 1.5}, {"fields": "topic"}, {"hnsw_ef": 0}])
def test_options_that_make_no_sense_are_refused(collection, encoder, wrong):
    with pytest.raises(InputError, match="expected"):
        search(collection, "passage", encoder, **wrong)


def test_an_unknown_option_is_a_type_error(collection, encoder):
    with pytest.raises(TypeError, match="limit"):
        search(collection, "passage", encoder, limit=3)
