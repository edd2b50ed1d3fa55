"""What is said of a trace after its spans were imported finds them in the log; half a trace is counted."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner
from written import hex_of, imported, question, write

from llama_index_embed_plus.cli.app import app
from qdrant_tools.log import RetrievalLog

HITS = [("a", 0.9), ("b", 0.8)]


def said(name, about, **row):
    return {
        "annotation_name": name, "annotator_kind": row.pop("by", "HUMAN"), "trace_id": hex_of("t", 32),
        "span_id": hex_of("t" + about, 16), "created_at": "2026-10-06T09:00:00Z", "identifier": "ann",
        "result.label": None, "result.score": None, "result.explanation": None, **row,
    }  # fmt: skip


def run(log, *files):
    return CliRunner().invoke(app, ["log", "import", str(log), *map(str, files), "--yes"])


def test_annotations_that_name_trace_and_span_find_their_searches_of_an_earlier_import(tmp_path):
    log = tmp_path / "log.sqlite"
    spans = write(tmp_path / "spans.jsonl", question("t", "Who makes honey?", HITS))
    assert run(log, spans).exit_code == 0
    rows = [
        said("user_feedback", "ask", **{"result.label": "thumbs-up", "result.explanation": "clear"}),
        said("relevance", "retrieve", by="LLM", document_position=1, **{"result.score": 0.0}),
        said("relevance", "elsewhere", by="LLM", document_position=0, **{"result.score": 1.0}),
    ]
    result = run(log, write(tmp_path / "annotations.jsonl", rows))
    assert result.exit_code == 0
    assert "2 annotations without their spans here found the searches of an earlier import" in result.output
    with RetrievalLog(log) as opened:
        (search,) = opened.searches()
    assert {(each.kind, each.value, each.by) for each in search.answer.verdicts} == {
        ("thumb", 1.0, "person"),
        ("comment", 1.0, "person"),
    }
    assert [(each.id, each.kind, each.value) for each in search.feedback] == [("b", "judged", 0.0)]


def test_the_same_in_one_import_or_in_two_is_the_same_log(tmp_path):
    spans = write(tmp_path / "spans.jsonl", question("t", "Who makes honey?", HITS))
    thumb = write(tmp_path / "thumb.jsonl", [said("user_feedback", "ask", **{"result.label": "thumbs-down"})])
    logs = []
    for name, imports in (("one", [[spans, thumb]]), ("two", [[spans], [thumb], [thumb]])):
        for files in imports:
            assert run(tmp_path / f"{name}.sqlite", *files).exit_code == 0
        with RetrievalLog(tmp_path / f"{name}.sqlite") as log:
            logs.append(list(log.searches()))
    assert logs[0] == logs[1]


@pytest.mark.parametrize("is_there", [False, True])
def test_annotations_that_find_nothing_are_refused_with_the_way_out(is_there, tmp_path):
    log = tmp_path / "log.sqlite"
    if is_there:
        run(log, write(tmp_path / "spans.jsonl", question("t", "Who makes honey?", HITS)))
    row = {**said("user_feedback", "ask", **{"result.label": "thumbs-up"}), "trace_id": None}
    result = run(log, write(tmp_path / "annotations.jsonl", [row]))
    assert result.exit_code != 0
    assert "name the files of those spans beside them" in str(result.exception)
    assert log.exists() == is_there


def test_half_a_trace_is_counted_with_the_way_out(tmp_path):
    retrieval, root = question("t", "Who makes honey?", HITS)
    searches, report = imported(tmp_path, retrieval)
    assert (len(searches), report.halved) == (1, 1)
    assert any("all files that have spans of a trace in one command" in line for line in report.lines())
    _, whole = imported(tmp_path, retrieval, root)
    # a step of another service that is not traced here is above the answer, and hides nothing
    _, answered = imported(tmp_path, retrieval, {**root, "parent_id": "0x" + hex_of("elsewhere", 16)})
    assert (whole.halved, answered.halved) == (0, 0)
