"""Traces of odd shapes and files with nothing in them: read in a time in proportion, or refused for what they are."""

from __future__ import annotations

import time

import pytest
from command_line import error_line
from written import imported, question, span, write

from qdrant_tools.log import RetrievalLog
from qdrant_tools.traces import read_traces

HITS = [("a", 0.9), ("b", 0.8)]
MANY = 3000


def chain():
    steps = [span(f"s{n}", "OTHER", parent=f"s{n - 1}" if n else None, at=n) for n in range(3 * MANY)]
    return [*steps, span("r", "RETRIEVER", parent=f"s{3 * MANY - 1}", query="q", documents=HITS)]


def streamed():
    root = span("ask", query="q")
    said = [span(f"l{n}", "LLM", parent="ask", at=n, answer="x") for n in range(MANY)]
    return [
        root,
        *said,
        *(span(f"r{n}", "RETRIEVER", parent="ask", query=f"q{n}", documents=HITS) for n in range(MANY)),
    ]


def reranked():
    found = [span(f"r{n}", "RETRIEVER", parent="ask", query=f"q{n}", documents=HITS) for n in range(MANY)]
    return [
        span("ask", query="q"),
        *found,
        *(span(f"k{n}", "RERANKER", parent="ask", reranked=HITS) for n in range(MANY)),
    ]


def orphans():
    return [span(f"r{n}", "RETRIEVER", parent=f"x{n}", at=2 * n, query=f"q{n}", documents=HITS) for n in range(MANY)]


@pytest.mark.parametrize(("rows", "searches"), [(chain, 1), (streamed, MANY), (reranked, MANY), (orphans, MANY)])
def test_a_trace_of_thousands_of_spans_takes_no_time_that_grows_with_their_pairs(rows, searches, tmp_path):
    with read_traces(write(tmp_path / "spans.jsonl", rows())) as traces:
        begun = time.process_time()
        assert sum(1 for _ in traces) == searches
        # pairs alone would take minutes
        assert time.process_time() - begun < 20


def test_of_retrievals_whose_chain_is_broken_the_times_say_which_lies_in_which(tmp_path):
    rows = [
        span("outer", "RETRIEVER", parent="gone", at=0, lasts=10, query="q", documents=HITS),
        span("within", "RETRIEVER", parent="lost", at=2, lasts=3, query="part", documents=HITS),
        span("same begin", "RETRIEVER", parent="lost", at=0, lasts=3, query="part", documents=HITS),
        span("twin", "RETRIEVER", parent="lost", at=0, lasts=10, query="other", documents=HITS),
        span("over the end", "RETRIEVER", parent="lost", at=8, lasts=10, query="late", documents=HITS),
    ]
    searches, report = imported(tmp_path, rows)
    assert sorted(search.query for search in searches) == ["late", "other", "q"] and report.dropped["inner"] == 2


def test_a_text_that_was_cut_within_a_sign_is_read_and_can_be_written(tmp_path):
    rows = question("t", "Which lamp \ud83d", [("a\ud83d", 0.5)], answer="this \udca1 one")
    path = write(tmp_path / "spans.jsonl", rows)
    with read_traces(path) as traces, RetrievalLog(tmp_path / "log.sqlite") as log:
        assert log.extend(traces.searches()) == 1
        (search,) = log.searches()
    assert (search.query, search.hits[0].id, search.answer.text) == ("Which lamp \ufffd", "a\ufffd", "this \ufffd one")


def test_a_file_without_rows_beside_others_is_no_file_of_another_kind(run, tmp_path):
    write(tmp_path / "spans.jsonl", question("t", "q", HITS))
    (tmp_path / "thumbs.csv").write_text("span_id,name,annotator_kind,label,score\n")
    code, out, _ = run("log", "import", "log.sqlite", "spans.jsonl", "thumbs.csv")
    assert code == 0 and out.startswith("log.sqlite: 1 search added")
    row = {"query_id": "1", "user_query": "tea", "timestamp": "2026-10-05T09:00:00Z", "query_response_hit_ids": ["a"]}
    write(tmp_path / "ubi_queries.jsonl", [row])
    code, _, err = run("log", "import", "other.sqlite", "ubi_queries.jsonl", "thumbs.csv")
    assert code == 2 and "thumbs.csv has no rows: leave it out" in error_line(err)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("page.json", b'{"data": [], "next_cursor": null}', "page.json has no rows, expected searches"),
        ("spans.parquet", b"", "spans.parquet"),
        ("spans.jsonl.gz", b"hello", "spans.jsonl.gz is no JSON"),
    ],
)
def test_a_file_with_nothing_in_it_is_refused_for_what_it_is(name, content, why, run, tmp_path):
    (tmp_path / name).write_bytes(content)
    code, _, err = run("log", "import", "log.sqlite", name)
    assert code == 1 and why in error_line(err) and "ends in" not in err and not (tmp_path / "log.sqlite").exists()


def test_a_folder_is_said_to_be_one(run, tmp_path):
    (tmp_path / "spans").mkdir()
    assert "spans: it is no file, but a folder" in error_line(run("log", "import", "log.sqlite", "spans")[2])


def test_of_a_parquet_file_of_an_applications_own_its_columns_are_to_be_named(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"term": ["tea"], "shown": ["a|b"]})
    parquet.write_table(table, tmp_path / "own.parquet")
    code, _, err = run("log", "import", "log.sqlite", "own.parquet")
    assert code == 2 and "own.parquet --columns 'query=term hits=shown' --dry-run" in error_line(err)


def test_of_retrievals_that_name_each_other_as_their_parents_the_earliest_is_the_search(tmp_path):
    rows = [
        span("second", "RETRIEVER", parent="first", at=1, query="part", documents=HITS),
        span("first", "RETRIEVER", parent="second", at=0, query="q", documents=HITS),
        span("own", "RETRIEVER", trace="u", parent="own", query="alone", documents=HITS),
    ]
    searches, report = imported(tmp_path, *rows)
    assert {search.query for search in searches} == {"q", "alone"}
    assert report.dropped == {"inner": 1}
    assert any("name each other as their parents" in line for line in report.lines())


def test_a_long_circle_of_steps_loses_no_search_that_hangs_on_it(tmp_path):
    rows = [span(f"s{n}", "OTHER", parent=f"s{(n + 1) % 50}", at=n) for n in range(50)]
    rows += [span(f"r{n}", "RETRIEVER", parent=f"s{n}", at=n, query=f"q{n}", documents=HITS) for n in range(50)]
    searches, _ = imported(tmp_path, *rows)
    assert len(searches) == 50


def test_of_two_spans_with_one_id_and_other_contents_the_first_is_kept_and_it_is_said(tmp_path):
    first = span("r", "RETRIEVER", query="q", documents=HITS)
    again = span("r", "RETRIEVER", query="q", documents=HITS)
    longer = span("r", "RETRIEVER", query="something else", documents=[("c", 0.7), ("d", 0.6), ("e", 0.5)])
    other_hits = span("r", "RETRIEVER", query="q", documents=[("a", 0.9), ("z", 0.8)])
    (search,), report = imported(tmp_path, first, again, longer, other_hits)
    assert (search.query, [hit.id for hit in search.hits]) == ("q", ["a", "b"])
    assert report.dropped == {"duplicate": 1, "differs": 2}
    assert any("other contents, of which the first is kept" in line for line in report.lines())


def test_copies_that_say_more_or_less_of_one_span_do_not_differ(tmp_path):
    whole = span("r", "RETRIEVER", query="q", documents=HITS)
    hidden = span("r", "RETRIEVER", query=None, documents=HITS)
    cut = span("r", "RETRIEVER", query="q", documents=HITS[:1])
    for name in list(cut["attributes"]):
        if name.endswith("content"):
            cut["attributes"][name] = cut["attributes"][name][:12]
    (search,), report = imported(tmp_path, hidden, cut, whole)
    assert (search.query, len(search.hits)) == ("q", 2)
    assert set(report.dropped) == {"duplicate"}
