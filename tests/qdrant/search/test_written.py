"""Conditions as people write them find what they would mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_tools.errors import InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
from qdrant_tools.search.written import read_condition, written_filter

ROWS = {
    "int": {"year": 2020, "author": "Ann", "tags": ["a", "b"], "page_label": "4"},
    "float": {"year": 2020.0, "author": "Bo", "draft": True, "score": -0.5},
    "text": {"year": "2020", "author": {"name": "Ann"}, "date": "2024-01-01", "draft": "true"},
    "later": {"year": 2021, "doc.type": "a=b", "date": "2024-06-01", "score": 1e3},
}


@pytest.fixture
def docs(manager, encoder):
    collection = manager.ensure("docs", encoder)
    index_passages(collection, [Passage(name, f"passage {name}", row) for name, row in ROWS.items()], encoder)
    return collection


FOUND = [
    (["year=2020"], {"int", "float", "text"}),
    (['year="2020"'], {"text"}),
    (["year = 2020", "author=Ann"], {"int"}),
    (["author=Ann", "author=Bo"], {"int", "float"}),
    (["year!=2020"], {"later"}),
    (["year>2020"], {"later"}),
    (["year>=2020", "year<2021"], {"int", "float"}),
    (["date<2024-03-01"], {"text"}),
    (["date>=2024-01-01", "date<=2024-12-31"], {"text", "later"}),
    (["tags=b"], {"int"}),
    (["draft=true"], {"float", "text"}),
    (["score=-0.5"], {"float"}),
    (["score=1e3"], {"later"}),
    (["page_label=4"], {"int"}),
    (["doc.type=a=b"], {"later"}),
    (["('author', 'name')=Ann"], {"text"}),
    (["nothing=1"], set()),
    (["year!=2020", "year!=2021"], set()),
]


@pytest.mark.parametrize(("conditions", "expected"), FOUND, ids=lambda value: str(sorted(value)))
def test_conditions_find_what_they_would_mean(docs, conditions, expected):
    hits = docs.search("passage", filter=written_filter(conditions, docs))
    assert {hit.id for hit in hits} == expected


def test_no_conditions_are_no_filter(docs):
    assert written_filter([], docs) is None


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("year", "expected a condition such as author=Ann"),
        ("=2020", "expected a condition"),
        ("year=", "expected a condition"),
        ("", "expected a condition"),
        ("('author'=Ann", "('author'"),
        ("(1, 2)=Ann", "expected a name or names as in"),
        ("year>soon", "expected a number, a date or an RFC 3339 time"),
        ("author.name=Ann", "write \"('author', 'name')=...\""),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_way_out(docs, condition, message):
    with pytest.raises(InputError) as error:
        written_filter([condition], docs)
    assert message in str(error.value) and "\n" not in str(error.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        condition = read_condition(text)
    except InputError:
        return
    assert condition.values and condition.sign in text
