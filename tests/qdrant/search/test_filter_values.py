"""Values that Python has and JSON has not: stored as JSON has them, found by the same value, or refused."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models
from tiny import ENGINES, WordEncoder, client_of

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import LLAMA_INDEX, OURS, Layout
from qdrant_tools.errors import InputError
from qdrant_tools.fields import json_metadata, moment_in, payload_path, steps_in
from qdrant_tools.indexing import content_hash
from qdrant_tools.mining.rules import MiningSettings
from qdrant_tools.records import Passage
from qdrant_tools.search.options import as_filter

BERLIN = timezone(timedelta(hours=1))


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Kind(enum.StrEnum):
    BOOK = "book"


@dataclass(frozen=True)
class Author:
    name: str
    born: date


STORED = {
    "aware": (datetime(2024, 1, 1, 12, tzinfo=BERLIN), "2024-01-01T12:00:00+01:00"),
    "naive": (datetime(2024, 1, 1, 12), "2024-01-01T12:00:00+00:00"),
    "local mean time": (datetime(1890, 1, 1, tzinfo=timezone(timedelta(seconds=3208))), "1889-12-31T23:06:32+00:00"),
    "microseconds": (datetime(2024, 1, 1, 0, 0, 0, 5, tzinfo=UTC), "2024-01-01T00:00:00.000005+00:00"),
    "date": (date(2024, 1, 1), "2024-01-01"),
    "time": (time(9, 30), "09:30:00"),
    "timestamp": (pd.Timestamp("2024-01-01T12:00", tz="Europe/Berlin"), "2024-01-01T12:00:00+01:00"),
    "datetime64": (np.datetime64("2024-01-01T12:00:00"), "2024-01-01T12:00:00+00:00"),
    "nanoseconds": (np.datetime64("2024-01-01T12:00:00", "ns"), "2024-01-01T12:00:00+00:00"),
    "datetime64 day": (np.datetime64("2024-01-01"), "2024-01-01"),
    "decimal": (Decimal("19.90"), 19.9),
    "whole decimal": (Decimal("1E+3"), 1000),
    "uuid": (UUID("6BA7B810-9DAD-11D1-80B4-00C04FD430C8"), "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    "path": (PurePosixPath("a/b.txt"), "a/b.txt"),
    "int64": (np.int64(7), 7),
    "uint64": (np.uint64(2**64 - 1), 2**64 - 1),
    "float32": (np.float32(0.5), 0.5),
    "bool_": (np.bool_(True), True),
    "str_": (np.str_("a"), "a"),
    "0-d array": (np.array(3), 3),
    "array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "array of times": (np.array(["2024-01-01", "2024-01-02"], "datetime64[D]"), ["2024-01-01", "2024-01-02"]),
    "enum": (Color.RED, "red"),
    "int enum": (Level.HIGH, 3),
    "str enum": (Kind.BOOK, "book"),
    "tuple": ((1, ("a", None)), [1, ["a", None]]),
    "set": ({"b", "a"}, ["a", "b"]),
    "mixed set": (frozenset({"a", 2, 1}), [1, 2, "a"]),
    "dataclass": (Author("Ann", date(1980, 1, 1)), {"name": "Ann", "born": "1980-01-01"}),
    "nested": ({"when": [date(2024, 1, 1)]}, {"when": ["2024-01-01"]}),
    "large float": (2.0**60, 2**60),
}  # fmt: skip

REFUSED = {
    "nan": (math.nan, "'f' is nan: JSON has no NaN: use None, or leave the field out"),
    "inf": (-math.inf, "'f' is -inf: JSON has no infinity"),
    "NaN": (np.float32("nan"), "JSON has no NaN"),
    "decimal NaN": (Decimal("NaN"), "neither NaN nor infinity"),
    "long decimal": (Decimal("0.1234567890123456789"), "rounds it: write it as a string"),
    "NaT": (pd.NaT, "it is no value: use None"),
    "numpy NaT": (np.datetime64("NaT"), "it is no value: use None"),
    "NA": (pd.NA, "it is no value: use None"),
    "masked": (np.ma.masked, "it is no value: use None"),
    "masked array": (np.ma.array([1, 2], mask=[False, True]), r"\('f', 1\) is .*it is no value"),
    "before year 1": (datetime.min.replace(tzinfo=timezone(timedelta(seconds=3208))), "outside the years 1 to 9999"),
    "bytes": (b"abc", r"'f' is b'abc': JSON has no bytes: decode them"),
    "timedelta": (timedelta(days=1), "JSON has no timedelta"),
    "complex": (1j, "JSON has no complex"),
    "fraction": (Fraction(1, 3), "JSON has no Fraction"),
    "object": (object(), "JSON has no object"),
    "a class": (Author, "JSON has no type"),
    "generator": ((i for i in range(3)), "JSON has no generator"),
    "nested": ({"a": [{"b": {1j}}]}, r"\('f', 'a', 0, 'b'\) is 1j: JSON has no complex"),
    "a key": ({1: 2}, "has the key 1, expected strings as keys"),
    "beyond 64 bits": (2**64, "beyond 64 bits: write it as a string"),
    "nanoseconds": (pd.Timestamp(1), "by the microsecond"),
    "a month": (np.datetime64("2024-01"), "no day"),
    "surrogate": ("\ud800", "lone surrogate"),
    "surrogate as key": ({"\ud800": 1}, "lone surrogate"),
}


@pytest.fixture(params=ENGINES)
def collection(request, tmp_path) -> Iterator:
    for client in client_of(request.param, tmp_path):
        yield CollectionManager(client).ensure("docs", WordEncoder())


def test_values_are_stored_as_json_has_them_and_indexing_again_changes_nothing(collection):
    passages = [Passage(name, "a text", {"f": value}) for name, (value, _) in STORED.items()]
    assert collection.index(passages).added == len(STORED)
    stored = {id: passage.metadata["f"] for id, passage in collection.fetch(list(STORED)).items()}
    assert stored == {name: value for name, (_, value) in STORED.items()}
    assert {name: type(value) for name, value in stored.items()} == {n: type(v) for n, (_, v) in STORED.items()}
    again = collection.index(passages)
    assert (again.unchanged, again.updated) == (len(STORED), 0)
    # and so does what was read
    assert collection.index([Passage(name, "a text", {"f": value}) for name, value in stored.items()]).updated == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_json_has_no_form_for_is_refused_with_field_and_value(name):
    value, message = REFUSED[name]
    with pytest.raises(InputError, match=f"passage 'p': metadata .*{message}"):
        content_hash(Passage("p", "text", {"f": value}))


def test_a_hash_of_plain_json_is_what_it_was():
    metadata = {"b": [1, 2.5, None, True, {"z": "ü"}], "a": "x"}
    old = "9afac951"  # of the release before names were names
    assert content_hash(Passage("p", "text", metadata)).startswith(old)


FOUND = [
    (date(2024, 1, 1), {"date", "datetime64 day", "array of times"}),
    (datetime(2024, 1, 1, 12), {"naive", "datetime64", "nanoseconds"}),
    (datetime(2024, 1, 1, 11, tzinfo=UTC), {"aware", "timestamp"}),
    (np.datetime64("2024-01-01T12:00:00"), {"naive", "datetime64", "nanoseconds"}),
    (pd.Timestamp("2024-01-01T11:00", tz="UTC"), {"aware", "timestamp"}),
    ([date(2024, 1, 2), datetime(1889, 12, 31, 23, 6, 32)], {"array of times", "local mean time"}),
    ({"gte": date(2024, 1, 1), "lt": date(2024, 1, 2)}, {
        "aware", "naive", "microseconds", "date", "timestamp", "datetime64", "nanoseconds", "datetime64 day",
        "array of times",
    }),
    (time(9, 30), {"time"}),
    (Decimal("19.9"), {"decimal"}), (19.9, {"decimal"}), ({"gt": Decimal("19"), "lt": 20}, {"decimal"}),
    (UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), {"uuid"}),
    (PurePosixPath("a/b.txt"), {"path"}),
    (np.int64(7), {"int64"}), (np.float64(7), {"int64"}), (Level.HIGH, {"int enum", "0-d array"}),
    (3.0, {"int enum", "0-d array"}),
    (np.bool_(True), {"bool_"}), (1, {"mixed set", "tuple"}), (Color.RED, {"enum"}),
    ([Color.RED, Kind.BOOK], {"enum", "str enum"}),
    ({Kind.BOOK}, {"str enum"}), (np.array([7, 1000]), {"int64", "whole decimal"}),
    (("a", "b"), {"set", "mixed set", "str_"}),
    (2**60, {"large float"}), (2.0**60, {"large float"}),
]  # fmt: skip


def test_filters_take_the_values_that_metadata_takes(collection):
    collection.index([Passage(name, "a text", {"f": value}) for name, (value, _) in STORED.items()])
    for value, ids in FOUND:
        hits = collection.search("a text", k=100, exact=True, filter={"f": value})
        assert {hit.id for hit in hits} == ids, value


def test_one_of_many_numbers_is_found_as_it_is_among_few(collection, caplog):
    numbers = [*range(-40, 41, 2), 0.5, 1e300, -1e300, 5e-324, 2**60, 2**62 + 1, -(2**63), 1.5, 97.25]
    stored = [*numbers, *(float(number) for number in range(-40, 41, 4)), 1, 3.0, 2**60 + 1, 0.25, True, "2", [7, 8]]
    collection.index([Passage(str(i), "a text", {"f": value}) for i, value in enumerate(stored)])
    for asked in (numbers, [*numbers, 8.0], np.array(range(-40, 41, 2))):
        wanted = {str(i) for i, value in enumerate(stored) if type(value) in (int, float) and value in list(asked)}
        wanted |= {str(i) for i, value in enumerate(stored) if type(value) is list}
        hits = collection.search("a text", k=200, exact=True, filter={"f": asked})
        assert {hit.id for hit in hits} == wanted
    assert not caplog.records
    hits = collection.search("a text", k=200, exact=True, filter={"f": list(range(-40, 2001))})
    assert {stored[int(hit.id)] for hit in hits if not isinstance(stored[int(hit.id)], list)} == set(
        range(-40, 41, 2)
    ) | {1}
    assert "where they are stored with a fraction, as in 2020.0, only an index of integers finds them" in caplog.text
    with pytest.raises(InputError, match="a list of 1,001 numbers, and one of them is no integer: give bounds"):
        collection.search("a text", filter={"f": [0.5, *range(1000)]})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "filter on 'f' is None, expected a string, number"),
        (math.nan, "filter on 'f' is nan: JSON has no NaN"),
        (math.inf, "JSON has no infinity"),
        (pd.NaT, "it is no value"),
        (2**63, "match no integer beyond 64 bits"),
        (-(2**63) - 1, "match no integer beyond 64 bits|beyond 64 bits"),
        ([], "values of one kind"),
        ([1, "1"], "values of one kind"),
        ([True, 1], "values of one kind"),
        ([date(2024, 1, 1), "2024-01-01"], "values of one kind"),
        ([[1]], r"holds \[1\], expected a string, number, boolean, date or time there"),
        ([{"year": 1}], "conditions of other kinds can be given as a qdrant_client Filter"),
        ({}, "has no bounds, expected gt, gte, lt, lte"),
        ({"$gte": 1}, r"has '\$gte', expected gt, gte, lt, lte"),
        ({"name": "Ann"}, r"has 'name', expected .* tuple of names as field: \('author', 'name'\)"),
        ({"gte": 5, "lt": 5}, "nothing lies there"),
        ({"gt": 5, "lte": 5}, "nothing lies there"),
        ({"gte": 5, "lte": 4.5}, "wrong way round"),
        ({"gte": date(2024, 1, 2), "lt": "2024-01-01"}, "wrong way round"),
        ({"gte": 5, "lt": date(2024, 1, 1)}, "numbers and times are not compared"),
        ({"gte": "b"}, "gte is 'b', expected a number, a date or an RFC 3339 time, such as 30, 2024-01-31"),
        ({"gte": "2024-02-30"}, "expected a number, a date"),
        ({"gte": "5"}, "gte is '5', expected a number"),
        ({"gte": True}, "gte is True, expected a number"),
        ({"gte": None}, "gte is None"),
        ({"gte": math.inf}, "JSON has no infinity"),
        ({"gte": [1]}, r"gte is or holds \[1\], expected"),
        ({"gte": 2**53 + 1}, "engines compare doubles: the nearest one is 9007199254740992"),
        (b"a", "JSON has no bytes"),
        ("\ud800", "lone surrogate"),
        (object(), "JSON has no object"),
    ],
)
def test_a_condition_that_cannot_be_expressed_says_why(value, message):
    collection = CollectionManager(connect(":memory:")).ensure("docs", WordEncoder())
    with pytest.raises(InputError, match=message):
        as_filter({"f": value}, collection=collection)


names = st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs"]))


@given(st.tuples(names), st.lists(names | st.none() | st.integers(0, 2**32)))
def test_a_way_to_a_value_goes_to_a_path_and_back(first, rest):
    way = (*first, *rest)
    assert steps_in(payload_path(way)) == way
    field = way[0] if len(way) == 1 else way
    for layout in (OURS, LLAMA_INDEX, Layout(metadata="my data")):
        assert layout.field_at(layout.metadata_field(field)) == field


@given(st.text())
def test_any_text_is_a_path_or_none(text):
    steps = steps_in(text)
    assert steps is None or isinstance(steps[0], str)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | names,
    lambda parts: st.lists(parts) | st.dictionaries(names, parts),
    max_leaves=10,
)


@given(st.dictionaries(names, JSON))
def test_json_stays_the_same(metadata):
    assert json_metadata(metadata, "metadata") == metadata


@given(
    st.datetimes(
        timezones=st.just(UTC) | st.timezones() | st.none(), min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)
    )
)
def test_a_moment_is_read_from_its_text_as_it_was(moment):
    text = json_metadata({"f": moment}, "metadata")["f"]
    read = moment_in(text)
    assert read is not None
    assert read.astimezone(UTC) == (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def test_settings_of_mining_can_be_compared_by_the_next_run():
    settings = MiningSettings(filter={("author", "name"): "Ann", "when": {"gte": date(2024, 1, 1)}})
    assert settings.as_row()["filter"] == {'["author", "name"]': "Ann", "when": {"gte": "2024-01-01"}}
    own = MiningSettings(filter=models.Filter(must=[]))
    assert own.as_row()["filter"] == {"must": []}
