"""Metadata with the names and values that strangers give it: found by its name and value, on every engine alike, with a
payload index and without; or refused with the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import models
from tiny import ENGINES, WordEncoder, client_of

from llama_index_embed_plus.documents.reading import read_passages
from qdrant_tools.client.connect import engine_of
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import Layout
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import InputError, PlusError

FOLDER = Path(__file__).parent / "names"
MIDNIGHT = {"gte": "2024-01-01", "lte": "2024-01-01"}
LETTER = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

FOUND = {
    "dublin-core.jsonl": [
        ("dc:creator", "Ann Lee", {"d1", "d3"}, ["keyword"]),
        ("doc.type", "map", {"d1"}, ["keyword", "text"]),
        ("doc.type", ["map", "photo"], {"d1", "d3"}, ["keyword"]),
        ("file name", "letters.pdf", {"d2"}, ["keyword"]),
        ("rights[0]", "CC0", {"d1"}, ["keyword"]),
        ("subject[]", "sea", {"d1"}, ["keyword"]),
        ("dcterms:date", {"gte": "2020-01-01", "lt": "2021-01-01"}, {"d2", "d3"}, ["datetime", "keyword"]),
    ],
    "scripts.jsonl": [
        ("naïve", "yes", {"s1"}, ["keyword"]),
        ("nai\u0308ve", "yes", {"s3"}, ["keyword"]),
        ("日本", ["東京", "大阪"], {"s1", "s2"}, ["keyword"]),
        ("नाम", "मोहन", {"s1"}, ["keyword"]),
        ("größe", 42, {"s1"}, ["integer", "float", "keyword"]),
        ("größe", 43, {"s2"}, ["integer", "float"]),
        ("имя", "Анна", {"s1"}, ["keyword"]),
        ("اسم", "عمر", {"s2"}, ["keyword"]),
        ("ชื่อ", "ปิติ", {"s2"}, ["keyword"]),
        ("😀", {"gt": 1}, {"s2"}, ["integer"]),
    ],
    "odd-names.jsonl": [
        ("", "nothing", {"o1"}, ["keyword"]),
        *(
            (name, value, {"o1"}, ["keyword"])
            for name, value in [
                (" ", "blank"), (".", "dot"), ("a.", "after"), (".a", "before"), ("a..b", "two"), ("[]", "list"),
                ("x[0]", "place"), ("x[]", "places"), ("a/b", "slash"), ("a\tb", "tab"), ("line\nbreak", "line"),
                ("'single'", "quoted"), ("$id", "dollar"), ("metadata", "itself"), ("text", "another text"),
                ("-", "dash"), ("0", "zero"), ("a,b", "comma"), ("null", "word"),
            ]
        ),
        (("x", 0), "place", {"o2"}, ["keyword"]),
        (("x", None), "places", {"o2"}, ["keyword"]),
        (("a", "b"), "slash", {"o2"}, ["keyword"]),
        (("a", ""), "after", {"o2"}, ["keyword"]),
        (("metadata", ""), "itself", {"o2"}, ["keyword"]),
    ],
    "nested.jsonl": [
        (("author", "name"), "Ann", {"n1"}, ["keyword"]),
        (("author", "born"), {"gte": 1980, "lte": 1990}, {"n1", "n2"}, ["integer", "float"]),
        (("author", "born"), 1990, {"n2"}, ["integer", "float"]),
        (("author", "first.name"), "Cy", {"n3"}, ["keyword"]),
        (("parts", None, "page"), 2, {"n1", "n2"}, ["integer"]),
        (("parts", 0, "page"), 2, {"n2"}, ["integer"]),
        (("parts", "page"), 2, {"n3"}, ["integer"]),
        ("a.b", "flat", {"n1"}, ["keyword"]),
        (("a", "b"), "deep", {"n2"}, ["keyword"]),
    ],
    "years.jsonl": [
        ("year", 2020, {"int", "float", "exponent", "list", "mixed"}, ["integer", "float", "keyword", "text", "bool"]),
        ("year", 2020.0, {"int", "float", "exponent", "list", "mixed"}, ["integer", "float", "keyword"]),
        ("year", "2020", {"text", "mixed"}, ["integer", "float", "keyword", "datetime", "uuid"]),
        ("year", [2019, 2020], {"int", "float", "exponent", "list", "floats", "mixed"}, ["integer", "float"]),
        ("year", [2021.0], {"floats"}, ["integer", "float", "keyword"]),
        ("year", 2020.5, {"half"}, ["float", "keyword"]),
        ("year", {"gte": 2020, "lt": 2021}, {"int", "float", "exponent", "list", "mixed", "half"}, ["float"]),
        ("year", {"gt": 2020}, {"half", "floats"}, ["float"]),
        ("year", True, {"mixed"}, ["bool", "integer", "keyword"]),
        ("year", 1, set(), ["bool", "integer"]),
    ],
    "flags.jsonl": [
        ("open", True, {"true", "both"}, ["bool", "integer", "float", "keyword"]),
        ("open", False, {"false"}, ["bool", "integer", "float", "keyword"]),
        ("open", 1, {"one", "one.0"}, ["bool", "integer", "float", "keyword"]),
        ("open", 0, {"zero", "both"}, ["bool", "integer", "float", "keyword"]),
        ("open", [0, 1.0], {"zero", "one", "one.0", "both"}, ["bool", "integer", "float"]),
        ("open", [True, False], {"true", "false", "both"}, ["bool", "integer"]),
        ("open", "true", {"word"}, ["bool", "keyword"]),
    ],
    "large-numbers.jsonl": [
        ("n", 2**53, {"2^53"}, ["integer", "float", "keyword"]),
        ("n", 2**53 + 1, {"2^53+1"}, ["integer", "float", "keyword"]),
        ("n", 2**53 - 1, {"2^53-1"}, ["integer", "float", "keyword"]),
        ("n", [2**53, 2**53 - 1], {"2^53", "2^53-1"}, ["integer", "float"]),
        ("n", 2**63 - 1, {"largest"}, ["float", "keyword"]),
        ("n", -(2**63), {"least"}, ["integer", "float"]),
        ("n", 0.1, {"0.1"}, ["float", "keyword"]),
        ("n", 0, {"-0"}, ["integer", "float", "keyword"]),
        ("n", {"gt": -1, "lt": 1}, {"-0", "0.1"}, ["float"]),
    ],
    "dates.jsonl": [
        ("date", "2024-01-01", {"day"}, ["keyword", "datetime"]),
        ("date", MIDNIGHT, {"day", "zulu", "berlin", "space", "millis"}, ["datetime", "keyword"]),
        ("date", {"gt": "2024-01-01", "lt": "2024-01-02"}, {"noon"}, ["datetime", "keyword"]),
        ("date", {"lt": "2024-01-01T00:00:00Z"}, {"before"}, ["datetime", "keyword"]),
        ("date", {"gte": "2024-01-01T13:00:00+01:00"}, {"noon"}, ["datetime"]),
        ("date", {"gte": 2024}, {"year"}, ["integer", "keyword"]),
    ],
    "uuids.jsonl": [
        ("key", LETTER, {"lower"}, ["keyword", "integer", "float", "datetime", "text"]),
        ("key", LETTER.upper(), {"upper"}, ["keyword", "integer", "float", "datetime"]),
        ("key", "", {"empty"}, ["keyword", "uuid", "text"]),
        ("key", 0, {"zero"}, ["keyword", "integer"]),
        ("n", LETTER, set(), ["integer", "float"]),
    ],
}  # fmt: skip
"""File -> field, condition, the passages that it finds, and indexes with which it must find the same."""

REFUSED = {
    "quoted-header.jsonl": r"metadata field '\"title\"' has a quotation mark or a backslash.*rename it",
    "windows-path.jsonl": r"metadata field 'C:.*tea.txt' has a quotation mark or a backslash.*rename it",
    "not-a-number.jsonl": "metadata field 'score' is nan: JSON has no NaN: use None, or leave",
    "beyond-64-bits.jsonl": r"metadata field 'hash' is 3402.*beyond 64 bits: write it as a string",
}


@pytest.fixture(params=ENGINES)
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CollectionManager]:
    for client in client_of(request.param, tmp_path):
        yield CollectionManager(client)


def filled(manager, file, **settings):
    encoder = WordEncoder()
    collection = manager.ensure("docs", encoder, settings=CollectionSettings(**settings))
    collection.index(read_passages(FOLDER / file))
    return collection


def found(collection, field, value):
    return {hit.id for hit in collection.search("one", k=100, exact=True, filter={field: value})}


def test_every_file_is_in_the_table():
    assert {path.name for path in FOLDER.iterdir()} == {*FOUND, *REFUSED} and not FOUND.keys() & REFUSED.keys()


@pytest.mark.parametrize("file", FOUND)
def test_a_field_is_found_by_its_name_and_value_with_every_index(manager, file):
    collection = filled(manager, file)
    assert [found(collection, field, value) for field, value, *_ in FOUND[file]] == [
        ids for _, _, ids, _ in FOUND[file]
    ]
    if engine_of(collection.client) == "memory":
        return  # it has no payload indexes
    kinds = sorted({kind for *_, kinds in FOUND[file] for kind in kinds})
    for kind in kinds:
        indexed = {field: kind for field, _, _, with_kinds in FOUND[file] if kind in with_kinds}
        collection = manager.ensure("docs", WordEncoder(), settings=CollectionSettings(payload_indexes=indexed))
        assert manager.difference("docs", CollectionSettings(payload_indexes=indexed)) == {}
        for field, value, ids, with_kinds in FOUND[file]:
            if kind in with_kinds:
                assert found(collection, field, value) == ids, (field, value, kind)


@pytest.mark.parametrize("file", FOUND)
def test_what_was_stored_is_what_the_file_says_and_indexing_again_changes_nothing(manager, file):
    collection = filled(manager, file)
    rows = [json.loads(line) for line in (FOLDER / file).read_text("utf-8").splitlines()]
    stored = {id: passage.metadata for id, passage in collection.fetch([row["id"] for row in rows]).items()}
    assert stored == {row["id"]: row["metadata"] for row in rows}
    report = collection.index(read_passages(FOLDER / file))
    assert (report.unchanged, report.updated, report.added) == (len(rows), 0, 0)


@pytest.mark.parametrize("file", ["dublin-core.jsonl", "scripts.jsonl", "odd-names.jsonl"])
def test_fields_and_groups_go_by_the_name(manager, file):
    collection = filled(manager, file)
    rows = {row["id"]: row["metadata"] for row in map(json.loads, (FOLDER / file).read_text("utf-8").splitlines())}
    for name in {name for row in rows.values() for name in row}:
        hits = collection.search("one", fields=[name])
        assert {hit.id: hit.metadata for hit in hits} == {
            id: {name: row[name]} if name in row else {} for id, row in rows.items()
        }
        values = {id: row[name] for id, row in rows.items() if isinstance(row.get(name), (str, int))}
        groups = collection.search_groups("one", by=name)
        single = {group.value: {hit.id for hit in group.hits} for group in groups}
        for id, value in values.items():
            assert id in single[value], name


@pytest.mark.parametrize("file", REFUSED)
def test_what_no_engine_can_hold_or_be_asked_for_is_refused_before_anything_is_stored(manager, file):
    collection = manager.ensure("docs", WordEncoder())
    with pytest.raises(PlusError, match=REFUSED[file]):
        collection.index(read_passages(FOLDER / file))
    assert collection.describe().points == 0


@pytest.mark.parametrize("name", ['a"b', "a\\b", "\ud800", (), ("a", -1), ("a", True), (0, "a"), ("a", 1.5), None, 7])
def test_what_is_no_name_of_a_field_is_refused_wherever_one_is_given(manager, name):
    collection = filled(manager, "flags.jsonl")
    for call in (
        lambda: collection.search("one", filter={name: 1}),
        lambda: collection.search("one", fields=[name]),
        lambda: collection.search_groups("one", by=name),
        lambda: CollectionSettings(payload_indexes={name: "keyword"}),
    ):
        with pytest.raises(InputError, match=r"field|payload index|by"):
            call()


def test_a_name_that_was_meant_as_a_path_is_said_to_be_a_name(manager):
    collection = filled(manager, "nested.jsonl")
    settings = CollectionSettings(payload_indexes={"author.name": "keyword"})
    calls = [
        lambda: collection.search("one", filter={"author.name": "Ann"}),
        lambda: collection.search("one", fields=["author.name"]),
        lambda: collection.search_groups("one", by="author.name"),
    ]
    if engine_of(manager.client) != "memory":  # which has no payload indexes
        calls.append(lambda: manager.ensure("docs", WordEncoder(), settings=settings))
    for call in calls:
        with pytest.raises(InputError, match=r"no passage .* field 'author.name', .* write \('author', 'name'\)"):
            call()
    assert found(collection, "author.nobody", "Ann") == set(), "nothing there either way"
    (hit,) = collection.search("one", k=1, fields=[("author", "name")])
    assert hit.metadata == {"author": {"name": "Ann"}}
    assert [group.value for group in collection.search_groups("one", by=("author", "name"))] == ["Ann", "Bo"]


def test_a_name_that_was_meant_as_a_path_through_a_list_is_said_to_be_a_name(manager):
    collection = manager.ensure("docs", WordEncoder())
    authors = [{"name": "Ann", "at": {"city": "Oslo"}}]
    collection.index([{"id": "a", "text": "one", "metadata": {"authors": authors, "by": {"all": authors}}}])
    for name, steps in {
        "authors.name": ("authors", None, "name"),
        "authors.at.city": ("authors", None, "at", "city"),
        "by.all.name": ("by", "all", None, "name"),
    }.items():
        with pytest.raises(InputError, match=re.escape(f"for that write {steps}")):
            collection.search("one", filter={name: "Ann"})
        assert collection.search("one", filter={steps: "Ann"}) or collection.search("one", filter={steps: "Oslo"})


def test_a_name_that_begins_with_the_field_of_all_metadata_is_said_to_be_none(manager):
    collection = manager.ensure("docs", WordEncoder())
    collection.index([{"id": "a", "text": "one", "metadata": {"year": 2020, "doc.type": "map"}}])
    for name, value in {"year": 2020, "doc.type": "map"}.items():
        with pytest.raises(InputError, match=f"no passage .* field 'metadata.{name}', .* so write '{name}'"):
            collection.search("one", filter={f"metadata.{name}": value})
    assert found(collection, "metadata.nothing", 1) == found(collection, "metadata.", 1) == set()
    collection.index([{"id": "b", "text": "two", "metadata": {"metadata.year": 2021}}])
    assert found(collection, "metadata.year", 2021) == {"b"}


HIDDEN = [
    ("integer", 2020.5, "a fraction: make it 'float'"),
    ("integer", 2**63, "beyond 64 bits"),
    ("integer", "2020-01-01", "hides dates"),
    ("float", ["2020-01-01T00:00:00Z"], "hides dates"),
    ("datetime", 2020, "hides numbers"),
    ("uuid", LETTER.upper(), "takes it for"),
]


@pytest.mark.parametrize(("kind", "value", "why"), HIDDEN)
@pytest.mark.parametrize("before", ["nothing", "keyword", "text"])
def test_an_index_that_hides_what_is_there_is_said_to(manager, caplog, kind, value, why, before):
    if engine_of(manager.client) == "memory":
        pytest.skip("no payload indexes")
    odd = {"x[0]": value, "a": [{"b": value}]}
    indexes = {} if before == "nothing" else {"x[0]": before, ("a", None, "b"): before}
    collection = manager.ensure("docs", WordEncoder(), settings=CollectionSettings(payload_indexes=indexes))
    collection.index([{"id": "a", "text": "one"}, {"id": "b", "text": "two", "metadata": odd}])
    for field in ("x[0]", ("a", None, "b"), ("a", 0, "b")):
        caplog.clear()
        indexes = {**indexes, field: kind}
        manager.ensure("docs", WordEncoder(), settings=CollectionSettings(payload_indexes=indexes))
        (said,) = [record.getMessage() for record in caplog.records]
        assert re.search(f"a passage of 'docs' has .* and an index of .*{why}", said)
    caplog.clear()
    manager.ensure("docs", WordEncoder(), settings=CollectionSettings(payload_indexes=indexes))
    assert not caplog.records, "it is there already"


@pytest.mark.parametrize("kind", ["integer", "float", "datetime", "uuid", "keyword"])
def test_an_index_that_hides_nothing_is_made_later_without_a_word(manager, caplog, kind):
    if engine_of(manager.client) == "memory":
        pytest.skip("no payload indexes")
    values = {
        "integer": [1, 2.0, "x", None, True], "float": [1, 2.5, "2020"], "datetime": ["2020-01-01", "x"],
        "uuid": [LETTER, "x"], "keyword": [1, 2.5, "2020-01-01"],
    }[kind]  # fmt: skip
    collection = manager.ensure("docs", WordEncoder())
    collection.index([{"id": str(n), "text": "one", "metadata": {"v": v}} for n, v in enumerate(values)])
    settings = CollectionSettings(payload_indexes={"v": kind})
    assert manager.ensure("docs", WordEncoder(), settings=settings)
    for value in values:
        if value is not None:
            assert len(collection.search("one", filter={"v": value})) == 1, value
    assert not caplog.records


def test_groups_that_cannot_be_made_are_said_to_be_so(manager, caplog):
    collection = manager.ensure("docs", WordEncoder())
    collection.index([{"id": "a", "text": "one", "metadata": {"year": 2020.0}}, {"id": "b", "text": "two"}])
    assert collection.search_groups("one", by="year") == []
    assert "passages with the field 'year', but in none of them it is a string or an integer" in caplog.text
    caplog.clear()
    assert (
        collection.search_groups("one", by="nothing")
        == collection.search_groups("one", by="year", filter={"x": 1})
        == []
    )
    assert not caplog.records


def test_a_collection_of_others_may_have_such_names_for_ids_and_texts_too(manager):
    client, encoder = manager.client, WordEncoder()
    texts = [f"some words number{i} in a text" for i in range(10)]
    payloads = [
        {"page text": text, "doc.id": f"D{i}", "doc.type": "map" if i % 2 else "letter", "n": float(i)}
        for i, text in enumerate(texts)
    ]
    client.create_collection("theirs", models.VectorParams(size=encoder.dimension, distance=models.Distance.COSINE))
    rows = encoder.encode_passages(texts).tolist()
    client.upsert(
        "theirs",
        [models.PointStruct(id=i, vector=row, payload=payloads[i]) for i, row in enumerate(rows)],
        wait=True,
    )
    layout = Layout("plain", id="doc.id", text="page text", metadata="")
    collection = manager.adopt("theirs", encoder, layout=layout)
    (hit,) = collection.search("number5", k=1, filter={"doc.type": "map", "n": [5, 6]}, fields=["n"])
    assert (hit.id, hit.text, hit.metadata) == ("D5", texts[5], {"n": 5.0})
    assert list(collection.fetch(["D3", "nobody"])) == ["D3"]
    assert {group.value for group in collection.search_groups("number5", by="doc.type")} == {"map", "letter"}
