"""Traces and click logs as a stranger could make them: packed without end, deep, wide, in circles, full of escapes."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qdrant_tools.clicks import read_clicks
from qdrant_tools.errors import InputError, PlusError
from qdrant_tools.log import RetrievalLog
from qdrant_tools.traces import read_traces

TRACE = "0x" + "ab" * 16
LIKE = ("log", "import", "new.sqlite", "no.jsonl")


def span(number, parent=None, hit="a", *, kind="RETRIEVER", query="who?", trace=TRACE):
    said = {"openinference.span.kind": kind, "input.value": query}
    said |= {"retrieval.documents.0.document.id": hit} if kind == "RETRIEVER" else {}
    place = {"context": {"trace_id": trace, "span_id": f"0x{number:016x}"}}
    place |= {"parent_id": None if parent is None else f"0x{parent:016x}", "start_time": "2026-11-01T10:00:00Z"}
    return {"name": "r", "status": {"status_code": "OK"}, "attributes": said, "resource": {"attributes": {}}} | place


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def searches(path, rows):
    with read_traces(written(path / "spans.jsonl", rows)) as traces:
        return list(traces.searches())


# -- files


@pytest.mark.parametrize("what", [b" " * 1_000_000, b"\n" * 1_000_000, b'{"a": "' + b"x" * 999_000])
def test_a_packed_file_without_end_is_refused_at_the_bound_of_a_row(tmp_path, refused, what):
    with gzip.open(tmp_path / "in.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(what)
    assert "in.jsonl.gz" in refused("log", "import", "new.sqlite", "in.jsonl.gz", like=LIKE)


def test_a_column_that_is_gigabytes_once_it_is_unpacked_is_refused_before(tmp_path, refused):
    columns = {"context.span_id": [f"{n:016x}" for n in range(500)], "attributes.input.value": ["x" * 11_000_000] * 500}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet", compression="zstd")
    assert "expected at most" in refused("log", "import", "new.sqlite", "in.parquet", like=LIKE)


@pytest.mark.parametrize(
    "cell",
    [
        "(" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "-" * 100_000 + "1",
        "[9**9**9**9]",
        "[__import__('os').system('touch hacked')]",
        "[{'document.id': open('hacked', 'w')}]",
        "[{'document.id': 'a', 'document.score': " + "9" * 100_000 + "}]",
    ],
)
def test_a_cell_with_python_in_it_is_read_as_data_or_refused(tmp_path, monkeypatch, cell):
    monkeypatch.chdir(tmp_path)
    names = "context.trace_id,context.span_id,span_kind,start_time,attributes.input.value"
    row = f'{"ab" * 16},{1:016x},RETRIEVER,2026-11-01T10:00:00Z,q,"{cell}"'
    (tmp_path / "in.csv").write_text(f"{names},attributes.retrieval.documents\n{row}\n")
    try:
        with read_traces(tmp_path / "in.csv") as traces:
            assert len(list(traces.searches())) <= 1
    except PlusError as error:
        assert "in.csv:2" in str(error) and len(str(error)) < 500
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("query", ["[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000])
def test_a_query_that_is_nested_without_end_is_a_text_or_none(tmp_path, query):
    assert len(searches(tmp_path, [span(1, query=query), span(2, trace="0x" + "cd" * 16)])) in (1, 2)


# -- spans


def test_spans_above_one_another_and_beside_one_another_by_the_thousands_end(tmp_path):
    count = 10_000
    below = [span(number, number - 1 if number > 1 else None) for number in range(1, count + 1)]
    assert len(searches(tmp_path, below)) == 1
    deep = [span(number, number - 1 if number > 1 else None, kind="CHAIN") for number in range(1, count)]
    assert len(searches(tmp_path, [*deep, span(count, count - 1)])) == 1
    wide = [span(1, kind="CHAIN"), *(span(number, 1, query=f"q{number}") for number in range(2, count + 1))]
    assert len(searches(tmp_path, wide)) == count - 1


def test_spans_in_a_circle_are_one_search_and_no_end(tmp_path):
    assert len(searches(tmp_path, [span(1, 2), span(2, 1)])) == 1
    assert len(searches(tmp_path, [span(1, 1)])) <= 1


@pytest.mark.parametrize("hit", ["'; DROP TABLE searches; --", '"', "\x1b[2J", "a\nb", "\ud800", "x" * 4096])
def test_an_id_is_kept_as_it_is_or_is_none(tmp_path, hit):
    found = searches(tmp_path, [span(1, hit=hit), span(2, trace="0x" + "cd" * 16)])
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        try:
            log.extend(found)
        except PlusError as error:
            assert "log.sqlite" in str(error)
        else:
            assert {h.id for search in log.searches() for h in search.hits} <= {hit, "a", "\ufffd"}


def test_ids_and_places_beyond_all_bounds_are_refused_or_left_out(tmp_path):
    with pytest.raises(InputError, match="context.trace_id"):
        searches(tmp_path, [span(1, trace="t" * 100_000)])
    far = span(1)
    far["attributes"]["retrieval.documents.99999999999999999999.document.id"] = "far"
    far["attributes"]["retrieval.documents.0.document.score"] = float("inf")
    assert [hit.id for search in searches(tmp_path, [far]) for hit in search.hits] == ["a"]
    assert searches(tmp_path, [span(1, hit="x" * 5000)]) == []


# -- clicks


def test_many_lists_under_one_id_and_many_clicks_in_one_session_end(tmp_path):
    queries = [
        {"query_id": "q", "user_query": f"q{n}", "timestamp": 1793527200000 + n, "query_response_hit_ids": [f"d{n}"]}
        for n in range(5_000)
    ]
    events = [
        {"action_name": "click", "query_id": "q", "timestamp": 1793527300000 + n}
        | {"event_attributes": {"object": {"object_id": f"d{n}"}}}
        for n in range(5_000)
    ]
    reader = read_clicks(written(tmp_path / "ubi.jsonl", [*queries, *events]))
    assert len(list(reader)) == 100
    assert reader.dropped["more lists or queries of one id than anybody sees"] == 4_900


@pytest.mark.parametrize(
    "row",
    [
        {"query_id": "q", "user_query": "q", "query_response_hit_ids": ["d"] * 200_000},
        {"query_id": "q" * 10_000, "user_query": "q", "query_response_hit_ids": []},
        {"query_id": "q", "user_query": "q", "query_response_hit_ids": "[" * 50_000},
        {"query_id": "q", "user_query": "q", "query_response_hit_ids": [], "timestamp": "9" * 5_000},
        {"action_name": "click", "query_id": "q", "event_attributes": "{" * 50_000},
        {"action_name": "click", "query_id": "q", "event_attributes": {"object": {"object_id": 10**4000}}},
    ],
)
def test_a_row_of_a_click_log_beyond_all_bounds_is_one_short_error(tmp_path, row):
    with pytest.raises(PlusError, match=r"log.jsonl:1") as told:
        list(read_clicks(written(tmp_path / "log.jsonl", [row])))
    assert len(str(told.value)) < 500


def test_no_name_in_a_file_steers_the_terminal(tmp_path, refused):
    escape = "\x1b]0;owned\x07\x1b[2J"
    events = [{"action_name": escape, "query_id": escape, "event_attributes": {"object": {"object_id": escape}}}]
    written(tmp_path / "in.jsonl", events)
    message = refused("log", "import", "new.sqlite", "in.jsonl", like=LIKE)
    assert "\x1b" not in message
