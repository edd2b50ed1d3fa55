"""Search finds what is there, in an order one can rely on."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import models
from tiny import ENGINES, WordEncoder, client_of, numbered

from qdrant_tools.collection import Collection, CollectionManager, build_index, point_id
from qdrant_tools.errors import InputError, SpaceMismatchError, VectorError
from qdrant_tools.index import index_passages
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search import search, search_batch, search_vectors


@pytest.fixture(params=ENGINES)
def client(request, tmp_path):
    yield from client_of(request.param, tmp_path)


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


@pytest.mark.parametrize("value", [None, 1.5, [], [1, "a"], [True], {"gt": 3}, [1.5]])
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
