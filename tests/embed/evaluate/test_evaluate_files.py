"""Files of the field are read as trec_eval reads them, written so that it can, and a bad line is named."""

from __future__ import annotations

import json

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_embed_plus.evaluate.retrieval.files import (
    read_qrels,
    read_queries,
    read_run,
    write_qrels,
    write_queries,
    write_run,
)
from llama_index_embed_plus.evaluate.retrieval.report import score_run
from qdrant_tools.errors import InputError
from qdrant_tools.records import Query

IDS = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=6)
RUNS = st.dictionaries(
    IDS, st.dictionaries(IDS, st.floats(allow_nan=False, allow_infinity=False), min_size=1), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(run=RUNS)
def test_a_run_that_is_written_is_read_back(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run.trec"
    write_run(path, run)
    assert read_run(path) == run
    assert [each.name for each in path.parent.iterdir()] == ["run.trec"]


@settings(max_examples=60, deadline=None)
@given(qrels=st.dictionaries(IDS, st.dictionaries(IDS, st.integers(-2, 4), min_size=1), min_size=1))
def test_judgements_that_are_written_are_read_back(qrels, tmp_path_factory):
    path = tmp_path_factory.mktemp("qrels") / "qrels.tsv"
    write_qrels(path, qrels)
    assert read_qrels(path) == qrels


def test_an_outside_implementation_reads_the_same_files_and_finds_the_same(tmp_path):
    qrels = {"q1": {"a": 2, "b": 0, "c": 1}, "q2": {"d": 1}, "q3": {"a": 1}}
    run = {"q1": {"b": 0.5, "a": 0.5, "x": 0.25}, "q2": {"x": 3.0, "d": 1e-7}}
    (tmp_path / "qrels.trec").write_text(
        "".join(f"{q} 0 {p} {g}\n" for q, each in qrels.items() for p, g in each.items())
    )
    write_run(tmp_path / "run.trec", run, name="mine")
    assert read_qrels(tmp_path / "qrels.trec") == qrels
    report = score_run(read_run(tmp_path / "run.trec"), read_qrels(tmp_path / "qrels.trec"), k=2)
    measures = [ir_measures.parse_measure(name) for name in ("nDCG@2", "AP@2", "P@2", "R@2", "Success@2")]
    theirs = ir_measures.calc_aggregate(
        measures,
        list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec"))),
        list(ir_measures.read_trec_run(str(tmp_path / "run.trec"))),
    )
    for name, measure in zip(("ndcg@2", "map@2", "precision@2", "recall@2", "hit_rate@2"), measures):
        assert report.means()[name] == pytest.approx(theirs[measure], abs=1e-9)
    assert (tmp_path / "run.trec").read_text().splitlines()[0] == "q1 Q0 b 1 0.5 mine"


def test_queries_have_either_spelling_of_their_id(tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text('{"id": "1", "text": "one"}\n\n{"_id": "2", "text": "two", "metadata": {}}\n')
    assert read_queries(path) == [Query("1", "one"), Query("2", "two")]
    write_queries(path, [Query("é", "a\nb")])
    assert read_queries(path) == [Query("é", "a\nb")]


HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "q\td\thigh\n", r"qrels:2: the grade is 'high', expected a whole number"),
        (HEADER + "q\td\t0.5\n", r"qrels:2: the grade is '0.5'"),
        (HEADER + "q\td\tnan\n", r"qrels:2: the grade is 'nan'"),
        (HEADER + "q\td\t1\n\nq\td\n", r"qrels:4: 2 columns, expected query-id, corpus-id, score"),
        (HEADER + "q\td\t1\nq\td\t0\n", r"qrels:3: query 'q' and passage 'd' have grade 0, earlier 1"),
        (HEADER + "\td\t1\n", r"qrels:2: an empty id"),
        (HEADER, r"qrels holds no judgements"),
        ("", r"qrels holds no judgements"),
        ("q 0 d 1\nq 0 d one\n", r"qrels:2: the grade is 'one'"),
        ("q\td\t1\n", r"qrels:1: 3 columns, expected query, iteration, passage, grade \(or BEIR's header\)"),
    ],
)
def test_a_bad_line_of_judgements_is_named(tmp_path, content, message):
    (tmp_path / "qrels").write_text(content)
    with pytest.raises(InputError, match=message):
        read_qrels(tmp_path / "qrels")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q Q0 d 1 high x\n", r"run:1: the score is 'high', expected a finite number"),
        ("q Q0 d 1 0.5 x\nq Q0 e 2 nan x\n", r"run:2: the score is 'nan'"),
        ("q Q0 d 1 0.5 x\nq Q0 d 2 0.5 x\n", r"run:2: passage 'd' occurs twice for query 'q'"),
        ("q d 0.5\n", r"run:1: 3 columns, expected query, Q0, passage, rank, score, name"),
        ("\n", r"run holds no results"),
    ],
)
def test_a_bad_line_of_a_run_is_named(tmp_path, content, message):
    (tmp_path / "run").write_text(content)
    with pytest.raises(InputError, match=message):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "1", "text": "one"}\n{"id": "2", "text": "  "}\n', r"q.jsonl:2: text is ' ', expected a non-empty"),
        ('{"id": 1, "text": "one"}\n', r"q.jsonl:1: id is 1"),
        ('{"text": "one"}\n', r"q.jsonl:1: _id is None"),
        ('{"id": "1", "text": "one"}\n{"id": "1", "text": "two"}\n', r"q.jsonl:2: the id '1' occurs twice"),
        ("one\n", r"q.jsonl:1: not JSON"),
        ("", r"q.jsonl holds no queries"),
    ],
)
def test_a_bad_row_of_queries_is_named(tmp_path, content, message):
    (tmp_path / "q.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        read_queries(tmp_path / "q.jsonl")


def test_files_that_are_not_there_or_are_no_text_are_named(tmp_path):
    for read in (read_queries, read_qrels, read_run):
        with pytest.raises(InputError, match="missing is not a file"):
            read(tmp_path / "missing")
    (tmp_path / "bytes").write_bytes(b"q 0 d\xff 1\n")
    with pytest.raises(InputError, match="bytes:1: this line is not UTF-8 text"):
        read_qrels(tmp_path / "bytes")


def test_what_the_formats_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(InputError, match="'a b' cannot be written"):
        write_run(tmp_path / "run.trec", {"q": {"a b": 1.0}})
    with pytest.raises(InputError, match="cannot be written"):
        write_qrels(tmp_path / "qrels.tsv", {"q\t": {"a": 1}})
    assert list(tmp_path.iterdir()) == []
    write_qrels(tmp_path / "qrels.tsv", {"a b": {"c d": 1}})
    assert read_qrels(tmp_path / "qrels.tsv") == {"a b": {"c d": 1}}
    assert json.loads(json.dumps({"lines": (tmp_path / "qrels.tsv").read_text().count("\n")})) == {"lines": 2}
