"""A payload index changes the speed of a filter, never what it finds: for plain filters over payloads of every kind, on
every engine. Where an engine's own filters keep to that less well, the exact case is pinned here and listed in
docs/collections.md."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from qdrant_client import QdrantClient, models
from tiny import ENGINES, WordEncoder, client_of

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError
from qdrant_tools.search.options import as_filter

KEY = str(uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"))
VALUES = {
    "int": 2020, "float": 2020.0, "half": 2020.5, "digits": "2020", "true": True, "false": False, "one": 1, "1.0": 1.0,
    "zero": 0, "0.0": 0.0, "-0.0": -0.0, "null": None, "empty": "", "[]": [], "[null]": [None],
    "mixed": [2020, "2020", True, None, 2020.0], "ints": [2019, 2020], "floats": [2019.0, 2020.5], "texts": ["a", "b"],
    "bools": [True, False], "a": "a", "A": "A", "words": "red apple pie", "Words": "Red, apples!", "kanji": "東京都",
    "day": "2024-01-01", "zulu": "2024-01-01T00:00:00Z", "utc": "2024-01-01T00:00:00+00:00",
    "space": "2024-01-01 00:00:00", "berlin": "2024-01-01T01:00:00+01:00", "minutes": "2024-01-01T00:00",
    "slashes": "01/01/2024", "days": ["2024-01-01", "2023-01-01"], "uuid": KEY, "UUID": KEY.upper(),
    "hex": KEY.replace("-", ""), "2^53": 2**53, "2^53+1": 2**53 + 1, "2^60": 2**60, "largest": 2**63 - 1,
    "least": -(2**63), "place": {"lat": 52.5, "lon": 13.4}, "object": {"k": 1}, "objects": [{"k": 1}, {"k": 2}],
    "lists": [[2020], [1]],
}  # fmt: skip
NAMES = [*VALUES, "missing"]
CONDITIONS = {
    "2020": 2020, "2020.0": 2020.0, "2020.5": 2020.5, "1": 1, "0": 0, "'2020'": "2020", "''": "", "'a'": "a",
    "True": True, "False": False, "uuid": KEY, "UUID": KEY.upper(), "[2019, 2020]": [2019, 2020], "[1.0]": [1.0],
    "['a', '2020']": ["a", "2020"], "[True, False]": [True, False], "2^53": 2**53, "2^53+1": 2**53 + 1, "2^60": 2**60,
    "largest": 2**63 - 1, "least": -(2**63), ">= 2020": {"gte": 2020, "lt": 3000}, "> 2020": {"gt": 2020, "lt": 2021},
    "< 1": {"gt": -5, "lt": 1}, "day": date(2024, 1, 1), "moment": datetime(2024, 1, 1, tzinfo=UTC),
    "before": {"lt": date(2024, 1, 1)}, "that day": {"gte": "2024-01-01", "lt": "2024-01-02"},
    "'2024-01-01'": "2024-01-01",
}  # fmt: skip
TIMES, FRACTIONS = {"day", "moment", "before", "that day"}, {"2020.5", ">= 2020", "> 2020"}
EXCEPTIONS = {
    "integer": TIMES | FRACTIONS,
    "float": TIMES,
    "datetime": {"2020", "2020.0", "2020.5", "1", "0", "[2019, 2020]", "[1.0]", ">= 2020", "> 2020", "< 1"},
    "uuid": {"uuid", "UUID"},
}
"""Index -> what finds something else with it: values of another kind than those of the index. `index` refuses them."""


@pytest.fixture(params=[engine for engine in ENGINES if engine != "memory"])
def client(request, tmp_path) -> Iterator[QdrantClient]:
    yield from client_of(request.param, tmp_path)


def filled(client):
    collection = CollectionManager(client).ensure("docs", WordEncoder(dimension=2))
    payloads = [{"v": VALUES[name]} if name in VALUES else {} for name in NAMES]
    client.upsert(
        "docs",
        [models.PointStruct(id=i, vector=[1.0, 0.0], payload={"metadata": p}) for i, p in enumerate(payloads)],
        wait=True,
    )
    return collection


def ids(client, condition):
    filter_ = condition if isinstance(condition, models.Filter) else models.Filter(must=[condition])
    return {NAMES[record.id] for record in client.scroll("docs", filter_, limit=100)[0]}


def answers(collection):
    return {
        label: ids(collection.client, as_filter({"v": value}, collection=collection))
        for label, value in CONDITIONS.items()
    }


@pytest.fixture(scope="module")
def expected():
    """What `:memory:` finds, which has no indexes."""
    client = QdrantClient(":memory:")
    return answers(filled(client))


def test_what_is_expected_is_right(expected):
    assert expected["2020"] == expected["2020.0"] == {"int", "float", "mixed", "ints"}
    assert expected["1"] == {"one", "1.0"} and expected["True"] == {"true", "bools", "mixed"}
    assert expected["0"] == {"zero", "0.0", "-0.0"} and expected["False"] == {"false", "bools"}
    assert expected["2020.5"] == {"half", "floats"} and expected["[1.0]"] == {"one", "1.0"}
    assert expected["2^53"] == {"2^53"} and expected["2^53+1"] == {"2^53+1"} and expected["2^60"] == {"2^60"}
    assert expected["uuid"] == {"uuid"} and expected["UUID"] == {"UUID"} and expected["''"] == {"empty"}
    midnight = {"day", "zulu", "utc", "space", "berlin", "minutes", "days"}
    assert expected["day"] == expected["moment"] == expected["that day"] == midnight
    assert expected["before"] == {"days"} and expected["'2024-01-01'"] == {"day", "days"}
    assert expected["> 2020"] == {"half", "floats"} and expected["< 1"] == {"zero", "0.0", "-0.0"}


@pytest.mark.parametrize("kind", [None, "keyword", "integer", "float", "bool", "datetime", "uuid", "geo", "text"])
def test_plain_filters_find_the_same_with_every_index(client, expected, kind):
    collection = filled(client)
    if kind is not None:
        client.create_payload_index("docs", "metadata.v", kind, wait=True)
    found = answers(collection)
    assert {label for label in CONDITIONS if found[label] != expected[label]} == EXCEPTIONS.get(kind, set())


def must_be(**condition):
    return models.FieldCondition(key="metadata.v", **condition)


def test_what_an_index_of_the_engine_changes_for_its_own_filters(client):
    """The cases of the table in docs/collections.md: engine's filter, index, and what is found before and after."""
    collection = filled(client)
    server = type(client._client).__name__ == "QdrantRemote"
    number = must_be(match=models.MatchValue(value=2020))
    other = must_be(match=models.MatchExcept(**{"except": ["a"]}))
    uuid_as_number = must_be(match=models.MatchValue(value=KEY))
    word = must_be(match=models.MatchText(text="red"))
    phrase = must_be(match=models.MatchPhrase(phrase="red apple"))
    null = models.IsNullCondition(is_null=models.PayloadField(key="metadata.v"))
    conditions = {
        "number": number,
        "other": other,
        "uuid": uuid_as_number,
        "word": word,
        "phrase": phrase,
        "null": null,
    }
    before = {label: ids(client, condition) for label, condition in conditions.items()}
    assert before["number"] == {"int", "mixed", "ints"} and before["uuid"] == {"uuid"}
    assert {"int", "true", "object"} <= before["other"] and "a" not in before["other"]
    assert before["word"] == ({"words"} if server else {"words", "Words"})
    assert before["phrase"] == {"words"}
    assert before["null"] == ({"null"} if server else {"null", "[null]", "mixed"})

    def after(kind, condition):
        client.create_payload_index("docs", "metadata.v", kind, wait=True)
        found = ids(client, condition)
        client.delete_payload_index("docs", "metadata.v", wait=True)
        return found

    assert after("integer", number) == before["number"] | {"float"}
    for kind in ("integer", "float", "datetime"):
        assert after(kind, uuid_as_number) == set(), "a text that is a UUID is taken for a number"
    assert after("uuid", uuid_as_number) == {"uuid", "UUID", "hex"}
    assert not {"int", "true", "object"} & after("keyword", other)
    assert after("text", word) == {"words", "Words"}
    assert after("text", phrase) == set(), "an index without phrase_matching finds no phrase"
    assert after(models.TextIndexParams(type="text", phrase_matching=True), phrase) == {"words"}
    assert after("keyword", null) == {"null", "[null]", "mixed"}
    assert collection.describe().points == len(NAMES)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("integer", 9.99, "an index of integers hides a fraction: make it 'float'"),
        ("integer", [1, 2.5], "metadata field 'v' is 2.5"),
        ("integer", 2**63, "store it as a string"),
        ("integer", date(2024, 1, 1), "make it 'datetime'"),
        ("float", "2024-01-01T00:00:00Z", "make it 'datetime'"),
        ("datetime", 2024, "make it 'integer' or 'float'"),
        ("uuid", KEY.upper(), f"takes it for '{KEY}': store that, or make it 'keyword'"),
    ],
)
def test_a_value_that_an_index_would_hide_is_refused_when_it_is_indexed(client, kind, value, message):
    collection = filled(client)
    client.create_payload_index("docs", "metadata.v", kind, wait=True)
    with pytest.raises(InputError, match=message):
        collection.index([{"id": "x", "text": "a text", "metadata": {"v": value}}])
    assert collection.fetch(["x"]) == {}
    fine = {"integer": [1, 2.0, True, "x", None], "float": [1, 2.5, "x"], "datetime": ["x", date(2024, 1, 1), None]}
    assert (
        collection.index([{"id": "y", "text": "a text", "metadata": {"v": fine.get(kind, [KEY, "x", 1])}}]).added == 1
    )
