"""Lexical search is BM25, hybrid search is the fusion it says it is, and mining can use both."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import WordEncoder, numbered

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import fetch, stored_vectors
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import CollectionError, InputError, NotSupportedError
from qdrant_tools.indexing import IndexReport, index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.records import Label, Passage
from qdrant_tools.search.bm25 import Bm25, average_length
from qdrant_tools.search.dense import search_batch
from qdrant_tools.search.fusion import Fusion
from qdrant_tools.search.hybrid import search_hybrid, search_lexical
from qdrant_tools.search.words import split

TEXTS = [
    "green tea lowers blood pressure",
    "black tea black coffee black chocolate",
    "the pressure of a car tyre",
    "tea",
    "blood tests need no coffee before",
    "a long text about nothing in particular that says tea only once and goes on and on and on",
]
BM25 = Bm25(average_length=7.5)


@pytest.fixture
def encoder():
    return WordEncoder(dimension=128)


def filled(client, encoder, passages):
    collection = CollectionManager(client).ensure("docs", encoder, settings=CollectionSettings(lexical=BM25))
    index_passages(collection, passages, encoder)
    build_index(collection)
    return collection


@pytest.fixture
def collection(client, encoder):
    return filled(client, encoder, [Passage(f"t{i}", text) for i, text in enumerate(TEXTS)])


def bm25_by_hand(query: str) -> dict[str, float]:
    """The formula of the paper, written out."""
    documents = [text.lower().split() for text in TEXTS]
    scores: dict[str, float] = {}
    for number, document in enumerate(documents):
        for term, times in Counter(query.lower().split()).items():
            n, tf = sum(term in other for other in documents), document.count(term)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            norm = 1.2 * (1 - 0.75 + 0.75 * len(document) / 7.5)
            if tf:
                scores[f"t{number}"] = scores.get(f"t{number}", 0.0) + times * idf * tf * 2.2 / (tf + norm)
    return scores


@pytest.mark.parametrize("query", ["tea", "blood pressure", "Black TEA tea", "and on", "coffee before tea"])
def test_scores_are_bm25(collection, query):
    (hits,) = search_lexical(collection, [query], k=10)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(bm25_by_hand(query), rel=1e-4)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_passages_without_a_word_of_the_query_are_no_hits(collection):
    assert search_lexical(collection, ["zeppelin", "...", "tyre"]) == [
        [],
        [],
        [search_lexical(collection, ["tyre"])[0][0]],
    ]


def test_lexical_search_filters_and_checks_like_the_others(client, encoder):
    collection = filled(client, encoder, numbered(20))
    (hits,) = search_lexical(collection, ["passage"], k=20, filter={"topic": 3})
    assert {int(hit.id[1:]) % 7 for hit in hits} == {3} and len(hits) == 3
    for wrong in ("a string", [""], [None]):
        with pytest.raises(InputError):
            search_lexical(collection, wrong)
    with pytest.raises(InputError, match="k is 0"):
        search_lexical(collection, ["x"], k=0)


def test_a_collection_without_lexical_vectors_says_so(client, encoder):
    plain = CollectionManager(client).ensure("plain", encoder)
    index_passages(plain, numbered(3), encoder)
    for attempt in (
        lambda: search_lexical(plain, ["x"]),
        lambda: search_hybrid(plain, ["x"], encoder),
        lambda: mine(plain, [Label("x", "p1")], encoder, settings=MiningSettings(source="lexical")),
    ):
        with pytest.raises(NotSupportedError, match=r"no lexical vectors: add them with Collection.add_lexical"):
            attempt()


def test_hybrid_search_is_reciprocal_rank_fusion(collection, encoder):
    query = "green tea pressure car"
    dense = {hit.id: hit.rank for hit in search_batch(collection, [query], encoder, k=6)[0]}
    lexical = {hit.id: hit.rank for hit in search_lexical(collection, [query], k=6)[0]}
    for fusion in (Fusion(), Fusion(rank_constant=5, lexical_weight=3.0), Fusion(dense_weight=0.2)):
        (hits,) = search_hybrid(collection, [query], encoder, k=6, fusion=fusion)
        expected = {each: hit_score(each, dense, lexical, fusion) for each in dense}
        assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-4)
        assert hits[0].text and hits[0].rank == 1


def hit_score(passage, dense, lexical, fusion):
    ranks = [(dense.get(passage), fusion.dense_weight), (lexical.get(passage), fusion.lexical_weight)]
    return sum(1 / (fusion.rank_constant + rank / weight) for rank, weight in ranks if rank is not None)


def test_hybrid_search_by_scores_finds_what_both_find(collection, encoder):
    (hits,) = search_hybrid(collection, ["green tea blood pressure"], encoder, fusion=Fusion("dbsf"))
    assert hits[0].id == "t0"
    assert search_hybrid(collection, [], encoder) == []


def test_a_fusion_that_makes_no_sense_is_refused():
    for wrong in (
        {"method": "sum"},
        {"rank_constant": 0},
        {"lexical_weight": 0},
        {"method": "dbsf", "dense_weight": 2.0},
        {"lexical_weight": float("nan")},
        {"depth": 10**9},
        {"rank_constant": True},
    ):
        with pytest.raises(InputError):
            Fusion(**wrong)
    for wrong in ({"k1": -1}, {"b": 2}, {"average_length": 0}):
        with pytest.raises(InputError):
            Bm25(**wrong)


def test_lexical_vectors_do_not_disturb_the_dense_ones(collection, encoder):
    ((ids, vectors),) = stored_vectors(collection)
    expected = encoder.encode_queries([TEXTS[int(each[1:])] for each in ids])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(
        fetch(collection, ["t0"], with_vectors=True)["t0"].vector, encoder.encode_queries(TEXTS[:1])[0], atol=1e-6
    )
    again = index_passages(collection, [Passage(f"t{i}", text) for i, text in enumerate(TEXTS)], encoder)
    assert again == IndexReport(unchanged=6)


def test_the_collection_remembers_how_its_words_were_weighed(client, collection, encoder):
    manager = CollectionManager(client)
    assert manager.open("docs").lexical == BM25
    assert manager.describe("docs").settings.lexical == BM25
    manager.ensure("docs", encoder, settings=CollectionSettings(lexical=BM25, hnsw_ef=50))
    assert manager.open("docs").lexical == BM25 and manager.open("docs").hnsw_ef == 50
    with pytest.raises(CollectionError, match="lexical .* cannot be changed to None"):
        manager.ensure("docs", encoder, settings=CollectionSettings())


def test_mining_takes_candidates_by_words_and_by_vectors(client, encoder):
    passages = [Passage(f"p{i}", f"common thing{i} rare{i % 3}") for i in range(30)]
    collection = filled(client, encoder, passages)
    settings = MiningSettings(max_share=None, duplicate_similarity=None, negatives=6, depth=6)
    found = {
        source: mine(
            collection, [Label("thing4 rare1", "p4")], encoder, settings=replace(settings, source=source)
        ).examples[0]
        for source in ("dense", "lexical", "both")
    }
    assert {int(n.id[1:]) % 3 for n in found["lexical"].negatives} == {1}, "only those share a word with the query"
    for example in found.values():
        query = encoder.encode_queries(["thing4 rare1"])[0]
        for negative in example.negatives:
            assert negative.score == pytest.approx(float(encoder.encode_queries([negative.text])[0] @ query), abs=1e-5)
    assert len(found["both"].negatives) == 6
    firsts = {found[source].negatives[0].id for source in ("dense", "lexical")}
    assert firsts <= {negative.id for negative in found["both"].negatives}


def test_words_are_runs_of_letters_and_digits_in_any_script():
    assert split("Don't PANIC: GPT-4, naïve_x Straße 3.5").asked == [
        *("don", "t", "panic", "gpt", "4", "naïve", "x", "strasse", "3.5"),
    ]
    assert split("зелёный чай").asked == ["зеленый", "чай"] and split(" ...! ").asked == []


@given(st.text(max_size=60))
def test_any_text_has_a_vector(text):
    vector = BM25.passage(text)
    assert vector.indices == sorted(set(vector.indices)) and all(value > 0 for value in vector.values)
    assert set(BM25.query(text).indices) <= set(vector.indices)


def test_the_average_length_is_measured_in_words():
    assert average_length(["one two", "three, four! five six"]) == 3.0
    with pytest.raises(InputError, match="2 texts without a word"):
        average_length(["", "!"])
