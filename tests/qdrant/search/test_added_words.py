"""A collection that was made without words gets them later, and is then as if it had been made with them."""

from __future__ import annotations

import pytest
from qdrant_client import models

from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import CollectionError, InputError, NotSupportedError
from qdrant_tools.records import Passage
from qdrant_tools.search import added_words
from qdrant_tools.search.bm25 import VECTOR, Bm25
from qdrant_tools.search.fusion import Fusion

TEXTS = [
    "Pump PX-4711 moves clean water.",
    "Pump PX-4712 moves waste water.",
    "A valve closes.",
    "Ventil schließt; 阀门。",
]
PASSAGES = [Passage(f"p{number}", text, {"number": number}) for number, text in enumerate(TEXTS * 20)]
PASSAGES = [Passage(f"{each.id}-{number}", f"{each.text} Word{number}.") for number, each in enumerate(PASSAGES)]
BM25 = Bm25(average_length=6.0)
QUERIES = ["PX-4712", "valve word7", "阀门", "nothing of that"]


def found(collection):
    """What words find, without the order of equal scores."""
    hits = collection.search_lexical(QUERIES, k=len(PASSAGES))
    return [{hit.id: pytest.approx(hit.score, rel=1e-4) for hit in of_query} for of_query in hits]


def scores(hits):
    return [round(hit.score, 5) for hit in hits[0]]


def without(manager, encoder, name="docs"):
    collection = manager.ensure(name, encoder)
    collection.index(PASSAGES)
    return collection


def test_words_that_are_added_find_what_words_from_the_beginning_find(manager, encoder, monkeypatch):
    monkeypatch.setattr(added_words, "BATCH", 7)
    told = []
    docs = without(manager, encoder).add_lexical(BM25, progress=told.append)
    assert sum(told) == len(PASSAGES) and docs.lexical == BM25
    made = manager.ensure("made", encoder, settings=CollectionSettings(lexical=BM25))
    made.index(PASSAGES)
    for opened in (docs, manager.open("docs", encoder)):
        assert found(opened) == found(made)
        # by ranks: to this encoder "word7" is "word73." by chance, and fused scores show by how much
        assert opened.search_hybrid(["word7"], k=2, fusion=Fusion())[0][0].id.endswith("-7")
    # what is indexed from now on has words, and what was there is not embedded again
    later = Passage("new", "A flange of steel.")
    report = manager.open("docs", encoder).index([*PASSAGES, later])
    assert (report.added, report.unchanged) == (1, len(PASSAGES))
    assert docs.search_lexical(["flange"], k=1)[0][0].id == "new"


def test_without_parameters_the_length_is_measured_and_languages_may_be_named(manager, encoder):
    pytest.importorskip("snowballstemmer")
    docs = without(manager, encoder).add_lexical(stemming="english", stop_words="english")
    assert 4 < docs.lexical.average_length < 8
    assert len(docs.search_lexical(["the valves closing"], k=30)[0]) == 20


def test_what_was_interrupted_begins_anew_with_words_of_one_kind(manager, encoder, monkeypatch):
    monkeypatch.setattr(added_words, "BATCH", 16)
    docs = without(manager, encoder)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        docs.add_lexical(Bm25(average_length=1000.0), progress=stop)
    unfinished = manager.open("docs", encoder)
    with pytest.raises(NotSupportedError, match="no lexical vectors.*add_lexical") as error:
        unfinished.search_lexical(["valve"])
    assert "embed-plus collection add-lexical docs" in error.value.on_command_line
    assert unfinished.search("valve", k=1), "it is searched as before"
    unfinished.add_lexical(BM25)
    made = manager.ensure("made", encoder, settings=CollectionSettings(lexical=BM25))
    made.index(PASSAGES)
    assert found(manager.open("docs", encoder)) == found(made)


def test_words_twice_and_in_collections_of_others_are_refused_with_a_way_out(manager, encoder):
    docs = without(manager, encoder).add_lexical(BM25)
    with pytest.raises(CollectionError, match="has words already") as error:
        docs.add_lexical()
    assert "embed-plus search docs 'your question' --mode hybrid" in error.value.on_command_line
    manager.client.create_collection("theirs", models.VectorParams(size=encoder.dimension, distance="Cosine"))
    row = encoder.encode_passages(["some text"])[0].tolist()
    manager.client.upsert("theirs", [models.PointStruct(id=1, vector=row, payload={"text": "some text"})], wait=True)
    adopted = manager.adopt("theirs", encoder)
    for asked, kind in (
        (adopted.add_lexical, CollectionError),
        (lambda: adopted.search_lexical("x"), NotSupportedError),
    ):
        with pytest.raises(kind, match=r"another program lays out its points.*Bm25\(\)") as refusal:
            asked()
        assert "embed-plus passages list theirs -k 1 --json > theirs.jsonl" in refusal.value.on_command_line
        assert "embed-plus index NEW theirs.jsonl --whole --lexical" in refusal.value.on_command_line


def test_settings_with_words_name_what_adds_them(manager, encoder):
    without(manager, encoder)
    settings = CollectionSettings(lexical=BM25)
    with pytest.raises(CollectionError, match=r"made without words.*add_lexical") as error:
        manager.ensure("docs", encoder, settings=settings)
    assert "embed-plus collection add-lexical docs" in error.value.on_command_line
    manager.open("docs", encoder).add_lexical(BM25)
    assert manager.ensure("docs", encoder, settings=settings).lexical == BM25


def test_an_empty_collection_gets_words_too(manager, encoder):
    docs = manager.ensure("docs", encoder).add_lexical()
    docs.index([Passage("a", "A valve closes.")])
    assert docs.search_lexical(["valve"], k=1)[0][0].id == "a"
    assert VECTOR in docs.gateway.info().config.params.sparse_vectors


def test_words_counted_anew_are_those_of_a_collection_made_so(manager, encoder):
    docs = without(manager, encoder).add_lexical(BM25)
    other = Bm25(k1=0.5, b=0.2, average_length=BM25.average_length)
    assert docs.add_lexical(other, again=True).lexical == other
    made = manager.ensure("made", encoder, settings=CollectionSettings(lexical=other))
    made.index(PASSAGES)
    assert found(manager.open("docs", encoder)) == found(made)


def test_an_interrupted_second_count_leaves_no_words_and_goes_on_with_what_was_said(manager, encoder, monkeypatch):
    monkeypatch.setattr(added_words, "BATCH", 16)
    docs = without(manager, encoder).add_lexical(stop_words="english")

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        docs.add_lexical(k1=0.5, again=True, progress=stop)
    unfinished = manager.open("docs", encoder)
    assert unfinished.lexical is None and unfinished.search("valve", k=1)
    finished = unfinished.add_lexical().metadata
    assert (finished.lexical.k1, finished.lexical.stop_words, finished.words_due) == (0.5, "english", None)
    with pytest.raises(InputError, match="say them once"):
        unfinished.add_lexical(BM25, k1=0.5)


def test_a_fusion_that_is_kept_is_that_of_searches_that_say_nothing_and_of_copies(manager, encoder):
    docs = without(manager, encoder).add_lexical(BM25)
    # scores: equal ones may stand in any order
    by_ranks = scores(docs.search_hybrid(["valve word7"], fusion=Fusion("rrf")))
    by_words = scores(docs.search_hybrid(["valve word7"], fusion=Fusion("rrf", lexical_weight=3.0)))
    kept = docs.keep_fusion(Fusion("rrf", lexical_weight=3.0))
    assert scores(kept.search_hybrid(["valve word7"])) == by_words != by_ranks
    assert manager.open("docs", encoder).fusion == manager.describe("docs").fusion == kept.fusion
    copy_collection(manager.client, "docs", manager.client, "copy")
    assert manager.open("copy").fusion == kept.fusion
    assert docs.keep_fusion(None).fusion is None is manager.open("docs").fusion
    manager.ensure("plain", encoder)
    with pytest.raises(NotSupportedError, match="no lexical vectors"):
        manager.open("plain").keep_fusion(Fusion("dbsf"))
