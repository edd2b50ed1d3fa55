"""Logs of other systems are read by naming their columns."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime

import pytest

from qdrant_tools.debias import clicked_as_positive
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log import RetrievalLog
from qdrant_tools.log.columns import LogColumns
from qdrant_tools.log.readers import read_log

NESTED = LogColumns(
    query="request.text",
    at="time",
    at_format="seconds",
    hits="results",
    hit="doc",
    rank="rank",
    events="clicks",
    feedback={"click": "doc", "dwell": "dwell"},
)
FLAT = LogColumns(
    query="q",
    search="session",
    at="when",
    hit="doc",
    rank="pos",
    score="bm25",
    feedback={"click": "clicked", "rating": "grade"},
)


def nested_row(**more):
    row = {
        "request": {"text": "green tea", "user": 7},
        "time": 1_700_000_000,
        "results": [{"doc": "b", "rank": 2}, {"doc": "a", "rank": 1}],
        "clicks": [{"doc": "b", "dwell": 12.5}],
    }
    return row | more


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_per_search_with_its_hits_and_clicks_inside(tmp_path):
    (search,) = read_log(write_jsonl(tmp_path / "log.jsonl", [nested_row()]), NESTED)
    assert search.query == "green tea" and search.at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert [(hit.id, hit.rank, hit.score) for hit in search.hits] == [("a", 1, None), ("b", 2, None)]
    assert [(event.id, event.kind, event.value) for event in search.feedback] == [
        ("b", "click", 1),
        ("b", "dwell", 12.5),
    ]


FLAT_CSV = """session,when,q,doc,pos,bm25,clicked,grade
s1,2024-05-01T10:00:00Z,"green, ""hot"" tea",a,1,7.5,0,
s1,2024-05-01T10:00:00Z,"green, ""hot"" tea",b,2,6.5,1,3
s2,2024-05-02T10:00:00Z,coffee,c,1,2,true,
"""


def test_a_row_per_hit_as_csv(tmp_path):
    (tmp_path / "log.csv").write_text(FLAT_CSV)
    first, second = read_log(tmp_path / "log.csv", FLAT)
    assert (first.id, first.query) == ("s1", 'green, "hot" tea')
    assert [(hit.id, hit.rank, hit.score) for hit in first.hits] == [("a", 1, 7.5), ("b", 2, 6.5)]
    assert [(event.id, event.kind, event.value) for event in first.feedback] == [("b", "click", 1), ("b", "rating", 3)]
    assert [event.kind for event in second.feedback] == ["click"]


def test_a_row_per_event_repeats_its_hit_and_still_is_one_hit(tmp_path):
    rows = [{"session": "s", "q": "x", "doc": "a", "pos": 1, "bm25": 1, "clicked": 1}] * 2
    columns = LogColumns(query="q", search="session", hit="doc", rank="pos", feedback={"click": "clicked"})
    (search,) = read_log(write_jsonl(tmp_path / "log.jsonl", rows), columns)
    assert len(search.hits) == 1 and len(clicked_as_positive([search])) == 1


def test_what_was_read_can_be_kept_and_reading_it_again_adds_nothing(tmp_path):
    path = write_jsonl(tmp_path / "log.jsonl", [nested_row(), nested_row(), nested_row(time=1_600_000_000)])
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        assert log.extend(read_log(path, NESTED)) == 3, "equal rows are different searches"
        assert log.extend(read_log(path, NESTED)) == 0
        assert len(clicked_as_positive(log.searches())) == 3


def test_a_field_of_ten_megabytes_is_read(tmp_path):
    with (tmp_path / "log.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["session", "q", "doc"], ["s", "x" * 10_000_000, "a"]])
    limit = csv.field_size_limit()
    (search,) = read_log(tmp_path / "log.tsv", LogColumns(query="q", search="session", hit="doc"))
    assert len(search.query) == 10_000_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (nested_row(request={}), ":2: column 'request.text' is None"),
        (nested_row(time="noon"), ":2: column 'time' is 'noon', expected seconds since 1970"),
        (nested_row(time=1e30), ":2: column 'time' is 1e.30, expected seconds since 1970"),
        (nested_row(results={"a": 1}), ":2: column 'results' is dict, expected a list"),
        (nested_row(clicks=[{"doc": "a", "dwell": -2}]), ":2: column 'dwell' is -2, expected seconds of at least 0"),
        ([1], ":2: a list, expected an object"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, message):
    path = write_jsonl(tmp_path / "log.jsonl", [nested_row(), row])
    with pytest.raises(LogError, match=message):
        list(read_log(path, NESTED))


def test_rows_of_one_search_need_not_follow_each_other(tmp_path):
    (tmp_path / "log.csv").write_text(FLAT_CSV + 's1,2024-05-01T10:00:00Z,"green, ""hot"" tea",d,3,1,t,\n')
    first, second = read_log(tmp_path / "log.csv", FLAT)
    assert [hit.id for hit in first.hits] == ["a", "b", "d"] and [hit.id for hit in second.hits] == ["c"]
    assert [event.id for event in first.feedback] == ["b", "b", "d"]


def test_rows_of_one_search_that_lie_too_far_apart_are_refused(tmp_path):
    rows = "".join(f"s{number},q,d\n" for number in range(30_000))
    (tmp_path / "log.csv").write_text(f"session,q,d\n{rows}s0,q,e\n")
    with pytest.raises(LogError, match=":30002: the other rows of this search are tens of thousands.*sort"):
        list(read_log(tmp_path / "log.csv", LogColumns(query="q", search="session", hit="d")))


def test_files_that_are_no_logs_are_refused(tmp_path):
    (tmp_path / "log.parquet").write_bytes(b"PAR1")
    (tmp_path / "log.xlsx").write_bytes(b"PK")
    (tmp_path / "log.jsonl").write_text("{")
    for name, message in [
        ("log.parquet", "is no Parquet file"),
        ("log.xlsx", "ending '.xlsx'"),
        ("none.csv", "cannot read"),
        ("log.jsonl", ":1: not JSON"),
    ]:
        with pytest.raises(LogError, match=message):
            list(read_log(tmp_path / name, FLAT))


def test_columns_that_cannot_work_are_refused_when_named():
    with pytest.raises(InputError, match="needs `search`"):
        LogColumns(query="q")
    with pytest.raises(InputError, match="kind is 'like'"):
        LogColumns(search="id", feedback={"like": "x"})
    with pytest.raises(InputError, match="give `hits`"):
        LogColumns(search="id", events="clicks")
