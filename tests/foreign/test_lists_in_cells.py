"""Logs whose cells hold lists: as databases, spreadsheets, pandas and people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_tools.errors import InputError, LogError, UsageError
from qdrant_tools.log import LogColumns, read_log
from qdrant_tools.log.lists import list_in
from qdrant_tools.log.naming import written_columns

LISTS = [
    ("a|b|c", ["a", "b", "c"]),
    ("a;b;", ["a", "b"]),
    ("a,b", ["a", "b"]),
    ("a, b", ["a", "b"]),
    ("a\nb", ["a", "b"]),
    ("a", ["a"]),
    ("[]", []),
    ("{}", []),
    ('["a", "b"]', ["a", "b"]),
    ("[1, 2]", [1, 2]),
    ("['a', 'b']", ["a", "b"]),
    ("('a',)", ["a"]),
    ("['a' 'b'\n 'c']", ["a", "b", "c"]),
    ("array(['a', 'b'], dtype=object)", ["a", "b"]),
    (
        "[{'id': 'it\\'s', 'score': 0.5, 'page': None, 'seen': True}]",
        [{"id": "it's", "score": 0.5, "page": None, "seen": True}],
    ),
    ("[a, b]", ["a", "b"]),
    ("{a,b}", ["a", "b"]),
    ('{"a, b",c}', ["a, b", "c"]),
]


@pytest.mark.parametrize(("cell", "expected"), LISTS)
def test_a_list_is_read_as_it_was_written(cell, expected):
    assert list_in("it", cell).entries == expected


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a b", "for example separator=' ' for several words, separator='|' for one value"),
        ("Ann Smith, Joe Doe", "may be one value or several"),
        ("a|b,c", "'|' or ',' may part the values"),
        ("a||b", "nothing stands between two '|'"),
        ("[a b]", "may hold one value or several: quote them"),
        ("['a' ... 'z']", "no list of Python either"),
        ("[b'a']", "no list of Python either"),
        ("[__import__('os')]", "no list of Python either"),
        ('{"id": "a"}', "expected a list"),
        ("['a'" * 5000, "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_what_may_be_two_things_is_refused(cell, message):
    with pytest.raises(InputError) as refused:
        list_in("it", cell)
    assert message in str(refused.value)


def test_the_sign_that_was_given_parts_whatever_else_is_there():
    assert list_in("it", "a b|c, d", separator="|").entries == ["a b", "c, d"]
    assert list_in("it", "a  b", separator=" ").entries == ["a", "b"]


@given(
    st.lists(st.text(min_size=1), min_size=1)
    | st.lists(
        st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | st.integers(-(10**9), 10**9)), min_size=1
    )
)
def test_whatever_python_prints_of_a_list_comes_back(values):
    assert list_in("it", repr(values)).entries == values


@given(st.text(max_size=40))
def test_any_cell_is_a_list_or_refused(cell):
    try:
        assert isinstance(list_in("it", cell).entries, list)
    except InputError as error:
        assert "\n" not in str(error)


def rows_of(tmp_path, text, ending="csv", **columns):
    """ "query | hits | feedback" of each search, and what was noted."""
    path = tmp_path / f"theirs.{ending}"
    path.write_text(text)
    reader = read_log(path, LogColumns(**{"query": "q", "hits": "shown", "feedback": {"click": "click"}} | columns))
    rows = [
        f"{search.query} | {' '.join(hit.id for hit in search.hits)} | "
        + " ".join(
            f"{event.kind}:{event.id}" + (f"={event.value:g}" if event.value != 1 else "") for event in search.feedback
        )
        for search in reader
    ]
    return rows, reader.notes


def test_a_row_lists_what_was_shown_and_what_was_clicked(tmp_path):
    text = "q,shown,click\ntea,a|b|c,b\ngreen tea,a|b,\ncoffee,c,c\nmilk,a|c,a|c\n"
    rows, notes = rows_of(tmp_path, text)
    assert rows == [
        "tea | a b c | click:b",
        "green tea | a b | ",
        "coffee | c | click:c",
        "milk | a c | click:a click:c",
    ]
    assert "the lists in 'shown' are parted by '|'" in notes


def test_a_click_that_is_one_of_the_hits_shown_is_that_hit_whatever_stands_in_its_id(tmp_path):
    (tmp_path / "log.csv").write_text(
        "q,shown,clicked\ntea,no. 1|no. 2,no. 2\nmilk,no. 3|no. 4,no. 3|no. 4\nrum,a|b,c d\n"
    )
    columns = LogColumns(query="q", hits="shown", feedback={"click": "clicked"})
    clicks = [[event.id for event in search.feedback] for search in read_log(tmp_path / "log.csv", columns)]
    assert clicks == [["no. 2"], ["no. 3", "no. 4"], ["c d"]]


@pytest.mark.parametrize("written", ["separator='|'", 'separator="|"', "separator=|"])
def test_a_sign_is_written_with_or_without_quotes(written):
    columns = written_columns(f"query=q {written} hits=shown")
    assert (columns.query, columns.separator, columns.hits) == ("q", "|", "shown")
    assert written_columns("query=q,separator=' ',hits=shown").separator == " "
    assert written_columns("query=q separator=, hits=shown").separator == ","


def test_lists_of_jsonl_may_be_lists_texts_or_numbers(tmp_path):
    text = '{"q": "tea", "shown": ["a", "b"], "click": ["b"]}\n{"q": "x", "shown": "[1, 2]", "click": 2}\n'
    assert rows_of(tmp_path, text, "jsonl")[0] == ["tea | a b | click:b", "x | 1 2 | click:2"]


def test_clicks_may_be_named_by_their_ranks(tmp_path):
    text = "q,shown,click\ntea,a|b|c,2\nmilk,a|b,\ncoffee,a|b,1|2\n"
    rows, _ = rows_of(tmp_path, text, feedback_by="rank")
    assert rows == ["tea | a b c | click:b", "milk | a b | ", "coffee | a b | click:a click:b"]
    with pytest.raises(
        LogError, match="is '2', expected ids of hits that were shown; if it is the rank of the hit, say"
    ):
        rows_of(tmp_path, text)


def test_dwell_and_stars_stand_beside_their_clicks(tmp_path):
    columns = {"feedback": {"click": "click", "dwell": "seconds", "rating": "stars"}}
    text = "q,shown,click,seconds,stars\ntea,a|b|c,b|c,12|30,4|5\nmilk,a|b,,,\n"
    rows, _ = rows_of(tmp_path, text, **columns)
    assert rows[0] == "tea | a b c | click:b dwell:b=12 rating:b=4 click:c dwell:c=30 rating:c=5"
    with pytest.raises(LogError, match="'seconds' has 1 values for 2 clicks"):
        rows_of(tmp_path, text.replace("12|30", "12"), **columns)
    with pytest.raises(LogError, match="no click says of which hit"):
        rows_of(tmp_path, text.replace("b|c", "").replace("4|5", ""), **columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q,shown,click\ntea,a|b,yes\n", "'click' is 'yes', expected ids of hits that were shown"),
        (
            "q,shown,click\ntea,a,\nmilk,b,\n",
            "'shown' is never a list: if each row is one hit of a search, name it `hit`",
        ),
        (
            'q,shown,click\ntea,a|b,\nmilk,"a,b",\n',
            "theirs.csv:3: column 'shown' is 'a,b', and other rows part their values by '|'",
        ),
    ],
)
def test_a_column_that_is_no_list_of_ids_is_refused(tmp_path, text, message):
    with pytest.raises(LogError) as refused:
        rows_of(tmp_path, text)
    assert message in str(refused.value)


def test_columns_are_written_in_short_or_as_json(tmp_path):
    named = LogColumns(query="q", at="when", hits="shown", rank_from=0, feedback={"click": "action=click"})
    short = "query=q at=when, hits=shown rank_from=0 click=action=click"
    assert written_columns(short) == named
    assert (
        written_columns('{"query": "q", "at": "when", "hits": "shown", "rank_from": 0, "click": "action=click"}')
        == named
    )
    assert written_columns(short, zone="+02:00").zone == "+02:00"
    with pytest.raises(UsageError, match="have .'tim'., expected some of query, search"):
        written_columns("query=q tim=when")
    with pytest.raises(UsageError, match="expected 'query=term"):
        written_columns("typo.json")
