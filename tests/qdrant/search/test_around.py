"""What stands before and after hits in their documents, on every engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import point_id
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search.around import GAP, around, texts_of

LETTERS = "abcdefghij"


def part(document, number, text=None, **metadata):
    text = text or f"{document} says word{number} here."
    place = {"document": f"src/{document}", "part": number}
    return Passage(f"src/{document}#{document}{number}", text, {"source": "src", **place, **metadata})


def hit_of(passage, rank=1):
    return Hit(passage.id, 1.0 / rank, rank, passage.text, passage.metadata, point_id(passage.id))


@pytest.fixture
def docs(manager, encoder):
    collection = manager.ensure("docs", encoder)
    passages = [part(document, number) for document in ("one", "two") for number in range(10)]
    index_passages(collection, [*passages, Passage("row-7", "a row alone, word3", {"author": "Ann"})], encoder)
    return collection


def parts(stretch):
    return [passage.metadata["part"] for passage in stretch.passages]


def test_a_search_and_then_the_passages_around_its_hit(docs):
    (hit,) = docs.search("two says word4 here.", k=1)
    (stretch,) = docs.around(hit, 2)
    assert parts(stretch) == [2, 3, 4, 5, 6]
    assert [passage.metadata["document"] for passage in stretch.passages] == ["src/two"] * 5
    assert [stretch.is_hit(passage) for passage in stretch.passages] == [False, False, True, False, False]
    assert stretch.text.startswith("two says word2 here.\n\ntwo says word3 here.")


@pytest.mark.parametrize(("number", "n", "expected"), [(0, 1, [0, 1]), (9, 3, [6, 7, 8, 9]), (5, 99, list(range(10)))])
def test_a_document_ends_where_it_ends(docs, number, n, expected):
    (stretch,) = docs.around(hit_of(part("one", number)), n)
    assert parts(stretch) == expected


def test_hits_whose_surroundings_meet_are_one_stretch_and_the_best_comes_first(docs):
    hits = [hit_of(part("one", 8), 1), hit_of(part("two", 2), 2), hit_of(part("one", 5), 3), hit_of(part("one", 1), 4)]
    stretches = docs.around(hits, 1)
    assert [parts(stretch) for stretch in stretches] == [[4, 5, 6, 7, 8, 9], [1, 2, 3], [0, 1, 2]]
    assert [[hit.rank for hit in stretch.hits] for stretch in stretches] == [[1, 3], [2], [4]]


def test_a_passage_that_is_no_part_of_a_document_stands_alone(docs):
    hits = [hit_of(Passage("row-7", "a row alone, word3", {"author": "Ann"})), hit_of(part("one", 0), 2)]
    row, document = docs.around(hits, 1)
    assert [passage.id for passage in row.passages] == ["row-7"] and row.text == "a row alone, word3"
    assert parts(document) == [0, 1]
    for odd in ({"document": 7, "part": 1}, {"document": "src/one", "part": True}, {"document": "src/one"}):
        gone = Hit("not stored", 1.0, 1, "text", odd)
        assert [passage.id for passage in docs.around(gone)[0].passages] == ["not stored"]


def test_hits_of_a_search_without_fields_are_placed_too(docs):
    hits = docs.search("one says word4 here.", k=1, fields=[], text=False)
    assert hits[0].metadata == {}
    (stretch,) = docs.around(hits)
    assert parts(stretch) == [3, 4, 5] and "word4" in stretch.text


def test_parts_that_are_missing_or_not_certain_are_left_out(docs, encoder):
    docs.gateway.delete([point_id(part("one", 3).id)])
    index_passages(docs, [part("one", 6, "another passage that claims to be the sixth")], encoder)
    twin = replace(part("one", 6), id="src/one#twin", text="a twin of the sixth")
    index_passages(docs, [twin], encoder)
    (stretch,) = docs.around(hit_of(part("one", 4)), 2)
    assert parts(stretch) == [2, 4, 5]
    assert stretch.text == f"one says word2 here.\n\n{GAP}\n\none says word4 here.\n\none says word5 here."
    (own,) = docs.around(hit_of(twin), 1)
    assert [passage.text for passage in own.passages][1] == "a twin of the sixth", "a hit is its own part"


def test_a_hit_that_is_gone_meanwhile_is_still_shown(docs):
    docs.gateway.delete([point_id(part("one", 4).id)])
    (stretch,) = docs.around(hit_of(part("one", 4)))
    assert parts(stretch) == [3, 4, 5]


def test_many_hits_need_few_requests_and_all_are_answered(docs):
    hits = [hit_of(part(document, number), 1) for document in ("one", "two") for number in range(10)]
    assert [parts(stretch) for stretch in docs.around(hits)] == [list(range(10))] * 2


def test_what_is_no_hit_is_refused(docs):
    for wrong in ("src/one#1", [part("one", 1)], None):
        with pytest.raises(InputError, match="expected a hit of a search"):
            docs.around(wrong)
    with pytest.raises(InputError, match="n is 0"):
        docs.around([], 0)
    assert docs.around([]) == []


def test_collections_of_others_with_these_fields_have_neighbours(client, encoder):
    client.create_collection("chain", vectors_config=models.VectorParams(size=64, distance=models.Distance.COSINE))
    payloads = [
        {"page_content": f"text number {i} of it", "metadata": {"document": "d", "part": i}, "id": i} for i in range(5)
    ]
    vectors = encoder.encode_passages([payload["page_content"] for payload in payloads])
    client.upsert(
        "chain",
        [
            models.PointStruct(id=i, vector=v.tolist(), payload=p)
            for i, (v, p) in enumerate(zip(vectors, payloads, strict=True))
        ],
    )
    adopted = CollectionManager(client).adopt("chain", encoder)
    hits = adopted.search("text number 3 of it", k=1)
    (stretch,) = adopted.around(hits)
    assert parts(stretch) == [2, 3, 4]


def test_groups_by_document_have_the_metadata_of_the_place(docs):
    groups = docs.search_groups("one says word4 here.", by="document", group_size=2, k=5)
    assert [group.value for group in groups] == ["src/one", "src/two"]
    assert groups[0].hits[0].metadata["part"] == 4 and len(groups[0].hits) == 2


def test_what_two_passages_share_at_their_border_is_shown_once():
    first = part("a", 0, "A first sentence. A second one! A third one?", header_path="A > B")
    second = part("a", 1, "A > B\n\nA second one! A third one? A fourth.", header_path="A > B")
    third = part("a", 2, "A > C\n\nA fifth.", header_path="A > C")
    again = part("a", 3, "A fifth.", header_path="A > C")
    shown = [text for _, text in texts_of([first, second, third, again])]
    assert shown == ["A first sentence. A second one! A third one?", "A fourth.", "A > C\n\nA fifth."]


def test_sentences_without_spaces_are_shown_once_too():
    texts = [text for _, text in texts_of([part("a", 0, "これは一。これは二。"), part("a", 1, "これは二。これは三。")])]
    assert texts == ["これは一。これは二。", "これは三。"]


def test_words_that_are_alike_by_chance_stay():
    texts = [text for _, text in texts_of([part("a", 0, "It rains in May"), part("a", 1, "May is warm.")])]
    assert texts == ["It rains in May", "May is warm."]


SENTENCES = st.lists(
    st.sampled_from(["Bees fly.", "Cats sleep!", "蜂は飛ぶ。", "Why?", "x = 1"]), min_size=3, max_size=9
)


@given(SENTENCES, st.integers(1, 2), st.integers(0, 2))
def test_joined_again_a_text_is_the_one_that_was_cut(sentences, cut, overlap):
    # numbered, so that no two are alike by chance
    numbered = [f"{i} {sentence}" for i, sentence in enumerate(sentences)]
    starts = range(0, len(numbered), cut)
    pieces = [numbered[max(0, start - overlap) : start + cut] for start in starts]
    passages = [part("a", i, "\n".join(piece)) for i, piece in enumerate(pieces)]
    assert [line for _, text in texts_of(passages) for line in text.splitlines()] == numbered


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sets(st.tuples(st.sampled_from(["one", "two"]), st.integers(0, 9)), min_size=1, max_size=6), st.integers(1, 4)
)
def test_every_hit_is_in_one_stretch_and_parts_ascend(docs, places, n):
    hits = [hit_of(part(document, number), rank) for rank, (document, number) in enumerate(sorted(places), 1)]
    stretches = around(docs, hits, n)
    assert sorted(hit.id for stretch in stretches for hit in stretch.hits) == sorted(hit.id for hit in hits)
    near = {(d, p) for d, number in places for p in range(max(0, number - n), min(9, number + n) + 1)}
    shown = [(p.metadata["document"].removeprefix("src/"), p.metadata["part"]) for s in stretches for p in s.passages]
    assert sorted(shown) == sorted(near), "each neighbour once, and nothing else"
    for stretch in stretches:
        assert parts(stretch) == list(range(parts(stretch)[0], parts(stretch)[-1] + 1))
