"""Passages in many scripts, and the queries that find them: however they are spelled, and no others."""

from __future__ import annotations

import json
import logging
import unicodedata
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import ENGINES, WordEncoder, client_of

from qdrant_tools.client.gateway import Gateway
from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.promotion import Promotion
from qdrant_tools.records import Label, Passage
from qdrant_tools.same import folded
from qdrant_tools.search.bm25 import EARLIER, TOKENIZER, Bm25, average_length
from qdrant_tools.search.hybrid import search_hybrid, search_lexical
from qdrant_tools.search.words import letters, split

FILES = Path(__file__).with_name("words")
SCRIPTS = {
    *("latin", "signs", "greek", "cyrillic", "arabic", "persian", "urdu", "hebrew", "yiddish", "syriac", "devanagari"),
    *("bengali", "tamil", "telugu", "kannada", "malayalam", "sinhala", "gujarati", "gurmukhi", "georgian", "armenian"),
    *("ethiopic", "mongolian", "cherokee", "thaana", "korean", "chinese", "japanese", "bopomofo", "thai", "lao"),
    *("khmer", "myanmar", "tibetan", "javanese"),
}
BM25 = Bm25(average_length=10)
# what a version before there was a choice wrote of its words
BEFORE = {"k1": 1.2, "b": 0.75, "average_length": 10.0}


def rows(script):
    return [json.loads(line) for line in (FILES / f"{script}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_file_is_a_script_of_the_table():
    assert {path.stem for path in FILES.iterdir()} == SCRIPTS


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_every_word_of_a_query_is_found_however_it_is_spelled(script):
    for row in rows(script):
        passage = set(BM25.passage(row["passage"]).indices)
        for query in row["find"]:
            for spelling in (query, *(unicodedata.normalize(form, query) for form in ("NFC", "NFD", "NFKC", "NFKD"))):
                asked = set(BM25.query(spelling).indices)
                assert asked and asked <= passage, (query, spelling, split(spelling).asked)
        for query in row["never"]:
            asked = set(BM25.query(query).indices)
            assert asked and not asked & passage, (query, split(query).asked)


@pytest.fixture(params=ENGINES)
def client(request, tmp_path):
    yield from client_of(request.param, tmp_path)


def test_all_are_found_in_one_collection(client):
    encoder = WordEncoder()
    collection = CollectionManager(client).ensure("docs", encoder, settings=CollectionSettings(lexical=BM25))
    every = {f"{script}-{number}": row for script in SCRIPTS for number, row in enumerate(rows(script))}
    collection.index([Passage(name, row["passage"]) for name, row in every.items()])
    asked = [(name, query) for name, row in every.items() for query in row["find"]]
    for (name, query), hits in zip(asked, search_lexical(collection, [q for _, q in asked], k=100), strict=True):
        assert name in [hit.id for hit in hits], (name, query)
    refused = [(name, query) for name, row in every.items() for query in row["never"]]
    for (name, query), hits in zip(refused, search_lexical(collection, [q for _, q in refused], k=100), strict=True):
        assert name not in [hit.id for hit in hits], (name, query)


def test_again_does_not_find_water(client):
    encoder = WordEncoder()
    collection = CollectionManager(client).ensure("docs", encoder, settings=CollectionSettings(lexical=BM25))
    collection.index([Passage("water", "पानी पीना"), Passage("again", "पुनः प्रयास"), Passage("cafe", "Cafe\u0301 Noir")])
    assert [[hit.id for hit in hits] for hits in search_lexical(collection, ["पुनः", "पानी", "Café"])] == [
        ["again"],
        ["water"],
        ["cafe"],
    ]
    labels = [Label("पुनः", "again")]
    settings = MiningSettings(source="lexical", max_share=None, duplicate_similarity=None, negatives=2)
    assert mine(collection, labels, encoder, settings=settings).examples[0].negatives == ()


def test_lines_that_end_inside_a_word_do_not_end_it():
    assert split("coopera\xad\n  tion of é").asked == ["cooperation", "of", "é"]
    assert split("北\n京 and\r\n東 京").asked == ["北京", "and", "東", "京"]


# text -> its words, as UAX #29 has them for these
PLAIN_WORDS = [
    "The quick brown fox can jump",
    "पुनः पानी हिन्दी क्षत्रिय",
    "e\u0301te\u0301 nin\u0303o a\u0308o\u0308",
    "ελληνικα γλωσσα",
    "українська їжак",
    "தமிழ் மொழி",
    "বাংলা ভাষা",
    "മലയാളം",
    "ሰላም ለዓለም",
    "ქართული ენა",
]


@pytest.mark.parametrize("text", PLAIN_WORDS)
def test_words_are_those_of_unicode_text_segmentation(text):
    pieces = regex.split(r"(?w)\b", folded(text), flags=regex.V1)
    assert split(text).asked == [piece for piece in pieces if regex.search(r"[\p{L}\p{N}]", piece)]


WRITTEN = st.text(
    st.one_of(
        st.sampled_from("aéİıßﬁ'’\"-_.,19 \n水東カ\u3099ｶﾞ한ก\u0e48\u0e33שׁ״كَـёп\u0301ाक़फ\u200d\xad"), st.characters()
    )
)


@given(WRITTEN)
@example("A\u0300\u0316\u0300")
def test_every_spelling_of_a_text_has_the_same_words(text):
    words = split(text)
    for form in ("NFC", "NFD"):
        other = split(unicodedata.normalize(form, text))
        assert (other.asked, sorted(other.parts), other.length) == (words.asked, sorted(words.parts), words.length)


@given(WRITTEN, WRITTEN)
def test_a_passage_is_found_by_each_of_its_words_and_by_itself(before, after):
    whole = split(f"{before} {after}")
    assert set(split(before).asked) <= {*whole.asked, *whole.parts}
    passage = BM25.passage(f"{before} {after}")
    assert set(BM25.query(f"{before} {after}").indices) <= set(passage.indices)
    assert all(value > 0 for value in passage.values)


@given(st.text(st.sampled_from("東京都水한국กขค"), min_size=1, max_size=20), st.data())
def test_what_is_written_without_spaces_is_found_by_any_part(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert set(BM25.query(text[start:end]).indices) <= set(BM25.passage(f"x{text}y").indices)


@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0300\u0316" * 200_000,
        "a" + "\u0300\u200d\u0316" * 100_000,
        "水" * 200_000,
        "水" + " " * 400_000 + "x",
        "水\n\n" * 100_000,
        'ש"' * 100_000,
        "п'" * 100_000,
        "1." * 200_000,
        "1" * 400_000 + "é",
        "v1.1" * 100_000 + "é",
        "བ\u0f0b" * 100_000,
        "+" * 400_000 + "é",
    ],
    ids=lambda text: ascii(text[:6]),
)
def test_a_long_text_of_any_kind_has_its_words_at_once(text):
    """A quadratic step would take hours here; the runner's patience is the limit."""
    words = split(text)
    assert words.length <= len(text) and len(words.parts) <= len(text)
    assert set(BM25.query(text).indices) <= set(BM25.passage(text).indices)


# collections and their words


def filled(client, encoder, texts, **lexical):
    settings = CollectionSettings(lexical=Bm25(**{"average_length": 10.0, **lexical}))
    collection = CollectionManager(client).ensure("docs", encoder, settings=settings)
    collection.index([Passage(f"p{number}", text) for number, text in enumerate(texts)])
    return collection


def of_before(client, encoder, texts):
    """A collection as the version before wrote it: its words, and no name of them in the metadata."""
    collection = filled(client, encoder, texts, tokenizer=EARLIER)
    row = collection.metadata.as_row()
    assert row["lexical"] == BEFORE, "an earlier version can still read what it wrote"
    return collection


def test_a_collection_of_an_earlier_version_is_searched_with_its_words_and_says_so(client, caplog):
    encoder = WordEncoder()
    of_before(client, encoder, ["東京 पुनः", "naïve words"])
    manager = CollectionManager(client)
    collection = manager.open("docs", encoder)
    assert collection.lexical.tokenizer == EARLIER and manager.describe("docs").settings.lexical.tokenizer == EARLIER
    with caplog.at_level(logging.WARNING):
        # single characters are the words that it has
        assert [hit.id for hit in search_lexical(collection, ["京"])[0]] == ["p0"]
        assert [hit.id for hit in search_hybrid(collection, ["NAÏVE"], encoder, k=1)[0]] == ["p1"]
    said = [record.getMessage() for record in caplog.records]
    assert all("'docs' has the words of an earlier version (letters-1)" in line for line in said) and len(said) <= 1
    collection.index([Passage("p2", "मुनि")])
    assert len(search_lexical(collection, ["पुनः"])[0]) == 2, "wrong as before, and with the words it was filled with"


def test_the_words_of_a_collection_cannot_be_changed_in_place(client):
    encoder = WordEncoder()
    of_before(client, encoder, ["東京"])
    manager = CollectionManager(client)
    for other in (
        {"tokenizer": TOKENIZER},
        {"stemming": "english"},
        {"stop_words": "english"},
        {"b": 0.5},
        {"tokenizer": EARLIER, "average_length": 11.0},
    ):
        with pytest.raises(
            CollectionError, match=r"letters-1.*cannot be changed to .*: give the former, or index into"
        ):
            manager.ensure(
                "docs", encoder, settings=CollectionSettings(lexical=Bm25(**({"average_length": 10.0} | other)))
            )
    with pytest.raises(CollectionError, match="cannot be changed to None"):
        manager.ensure("docs", encoder, settings=CollectionSettings())
    earlier = Bm25(average_length=10.0, tokenizer=EARLIER)
    manager.ensure("docs", encoder, settings=CollectionSettings(lexical=earlier, hnsw_ef=50))
    assert (manager.open("docs").lexical, manager.open("docs").hnsw_ef) == (earlier, 50)


def test_a_program_that_names_no_words_goes_on_with_those_of_its_collection_and_is_told_once(client, caplog):
    encoder, name = WordEncoder(), f"docs-{uuid4()}"
    manager = CollectionManager(client)
    earlier = Bm25(average_length=10.0, tokenizer=EARLIER)
    manager.ensure(name, encoder, settings=CollectionSettings(lexical=earlier)).index([Passage("p0", "東京")])
    # it measured the length by the words of its version, which may be counted otherwise now
    settings = CollectionSettings(lexical=Bm25(average_length=9.5), hnsw_ef=50)
    assert manager.difference(name, settings).keys() == {"hnsw_ef"}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            collection = manager.ensure(name, encoder, settings=settings)
    assert (collection.lexical, collection.hnsw_ef) == (earlier, 50)
    assert manager.change(name, CollectionSettings(lexical=replace(Bm25(), average_length=9.0))).lexical == earlier
    assert [hit.id for hit in search_lexical(collection, ["京"])[0]] == ["p0"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "words of an earlier version (letters-1)" in said and "index its passages into a new collection" in said


def test_a_collection_of_this_version_has_one_average_length(client):
    manager, encoder = CollectionManager(client), WordEncoder()
    filled(client, encoder, ["tea"])
    with pytest.raises(CollectionError, match="cannot be changed"):
        manager.ensure("docs", encoder, settings=CollectionSettings(lexical=Bm25(average_length=9.5)))


def test_a_collection_that_is_adopted_or_promoted_in_place_keeps_its_words(client):
    encoder = WordEncoder()
    manager = CollectionManager(client)
    settings = CollectionSettings(lexical=replace(BM25, stemming="english"))
    made = manager.ensure("docs", encoder.dimension, settings=settings)
    assert manager.adopt("docs", encoder).lexical == made.lexical
    manager.open("docs", encoder).index([Passage("p0", "東京 he runs")])
    other = WordEncoder(dimension=24, name="other")
    promotion = Promotion(manager, "docs", other, in_place=True)
    promotion.build()
    promotion.switch(force=True)
    collection = manager.open("docs", other)
    collection.index([Passage("p1", "大阪 she ran")])
    assert collection.lexical == made.lexical
    assert [[hit.id for hit in hits] for hits in search_lexical(collection, ["running 東京", "大阪"])] == [
        ["p0"],
        ["p1"],
    ]


@pytest.mark.parametrize("tokenizer", [EARLIER, TOKENIZER])
def test_copies_and_promotions_keep_the_words(client, tokenizer):
    encoder = WordEncoder()
    filled(client, encoder, ["東京", "पानी", "tea"], tokenizer=tokenizer)
    manager = CollectionManager(client)
    copy_collection(client, "docs", client, "copy")
    manager.switch_alias("live", "docs")
    promotion = Promotion(manager, "live", WordEncoder(dimension=24, name="other"))
    promotion.build()
    promotion.switch(force=True)
    asked = "京" if tokenizer == EARLIER else "東京"
    for name in ("copy", "live"):
        collection = manager.open(name)
        assert collection.lexical.tokenizer == tokenizer
        assert [hit.id for hit in search_lexical(collection, [asked])[0]] == ["p0"]


def test_words_of_a_newer_version_are_refused_with_the_way_out(client):
    encoder = WordEncoder()
    collection = filled(client, encoder, ["tea"])
    row = collection.metadata.as_row()
    row["lexical"] = {**row["lexical"], "tokenizer": "unicode-9"}
    Gateway(client, "docs").update(metadata={"embed_plus": row})
    with pytest.raises(
        CollectionError, match="words are those of 'unicode-9', this version has 'unicode-1'.*: upgrade"
    ):
        CollectionManager(client).open("docs")


# stems and stop words


def found(bm25, query, passage):
    return bool(set(bm25.query(query).indices) & set(bm25.passage(passage).indices))


@pytest.mark.parametrize(
    ("language", "query", "passage"),
    [
        ("english", "running", "he runs"),
        ("german", "Häuser", "ein Hauses"),
        ("russian", "книгами", "книга"),
        ("french", "chevaux", "cheval"),
        ("spanish", "corriendo", "correr"),
        ("greek", "ΔΡΌΜΟΙ", "δρόμος"),
        ("arabic", "الكتاب", "كِتَاب"),
    ],
)
def test_stems_are_found_if_they_are_asked_for(language, query, passage):
    assert not found(Bm25(), query, passage)
    assert found(Bm25(stemming=language), query, passage)


@pytest.mark.parametrize(
    ("language", "query", "passage"),
    [
        ("english", "What is the tea?", "the what is of it"),
        ("english", "don't go", "don't"),
        ("german", "der Tee über die Brücke", "der über die das"),
        ("greek", "τσάι και ΣΤΗΝ", "και στην"),
        ("arabic", "شاي إلى", "إلى الى"),
    ],
)
def test_stop_words_are_not_asked_for(language, query, passage):
    assert found(Bm25(), query, passage)
    assert not found(Bm25(stop_words=language), query, passage)


def test_a_query_of_stop_words_asks_for_them():
    assert found(Bm25(stop_words="english"), "who is it?", "The Who: it is")


def test_languages_and_tokenizers_that_are_unknown_are_refused_with_those_that_are():
    for wrong, message in (
        ({"stemming": "klingon"}, "stemming is 'klingon', expected one of arabic, .*, english, "),
        ({"stemming": "EN"}, "stemming is 'EN', expected one of"),
        ({"stop_words": "xx"}, "stop_words is 'xx', expected one of arabic, .*, english, "),
        ({"stop_words": 3}, "stop_words is 3, expected a string"),
        ({"tokenizer": "words"}, "tokenizer is 'words', expected 'unicode-1' or 'letters-1'"),
        ({"tokenizer": ["unicode-1"]}, "tokenizer is "),
        ({"tokenizer": EARLIER, "stemming": "english"}, "need the tokenizer 'unicode-1'"),
    ):
        with pytest.raises(InputError, match=message):
            Bm25(**wrong)


def test_a_collection_keeps_its_language_and_says_if_its_stems_are_of_another_snowball(client, caplog):
    encoder = WordEncoder()
    collection = filled(client, encoder, ["he runs"], stemming="english", stop_words="english")
    manager = CollectionManager(client)
    opened = manager.open("docs").lexical
    assert (opened.stemming, opened.stop_words) == ("english", "english") and opened.caution is None
    assert [hit.id for hit in search_lexical(manager.open("docs"), ["is he running?"])[0]] == ["p0"]
    row = collection.metadata.as_row()
    row["lexical"] = {**row["lexical"], "stemmed_by": "2.2"}
    Gateway(client, "docs").update(metadata={"embed_plus": row})
    again = manager.ensure("docs", encoder, settings=CollectionSettings(lexical=opened, hnsw_ef=77))
    with caplog.at_level(logging.WARNING):
        search_lexical(again, ["running"])
    assert "stems of Snowball '2.2'" in again.lexical.caution
    with pytest.raises(CollectionError, match="lexical"):
        manager.ensure("docs", encoder, settings=CollectionSettings(lexical=Bm25(average_length=10.0)))


def test_the_average_length_counts_characters_where_there_are_no_spaces():
    assert average_length(["one two", "東京都 3.14"]) == 3.5
    assert letters("東京都 3.14") == ["東", "京", "都", "3", "14"]
