"""Spans wait on disk: in little memory, however many there are, and nothing that is needed is let go of."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from written import hex_of, ids, question, span, write

from qdrant_tools.traces.importer import read_traces
from qdrant_tools.traces.records import Annotation, Span, SpanDocument
from qdrant_tools.traces.spool import Spool

HITS = [("a", 0.9), ("b", 0.8)]


def test_what_was_let_go_of_is_read_again_when_a_retrieval_comes_late(tmp_path, monkeypatch):
    monkeypatch.setattr(Spool.__init__, "__kwdefaults__", {"most_waiting": 50})
    (retrieve, ask) = question("late", "tea", HITS, user__id="ann")
    rows = [ask, *(span("GET /", "", trace=f"t{number}") for number in range(200)), retrieve]
    with read_traces(write(tmp_path / "spans.jsonl", rows)) as traces:
        (search,) = traces.searches()
    assert search.answer.text == "the answer to tea" and search.user
    # the trace of the retrieval was counted too when it was let go of
    assert traces.report.without_retrieval in (200, 201)


def test_spans_without_retrievals_are_let_go_of():
    with Spool(most_waiting=1000) as spool:
        for number in range(10_500):
            spool.add(Span(f"t{number % 3000}", str(number), None, "other"))
        spool.add(Span("r", "1", None, "retrieval", documents=(SpanDocument(0, "a"),)))
        waiting = spool._read("SELECT count(*) FROM spans")[0][0]
        assert waiting <= 1000 and spool.lacks
        spool.settle()
        (trace,) = spool.traces()
    assert [each.id for each in trace.spans] == ["1"] and not trace.cut


def test_a_trace_of_too_many_spans_is_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("qdrant_tools.traces.spool.MOST_IN_TRACE", 100)
    rows = [*question("big", "tea", HITS), *(span(f"s{number}", "LLM", trace="big") for number in range(200))]
    with read_traces(write(tmp_path / "spans.jsonl", [*rows, *question("small", "milk", HITS)])) as traces:
        (search,) = traces.searches()
    assert search.query == "milk" and traces.report.dropped == {"too large": 1}


def test_an_annotation_finds_the_trace_of_its_span_whichever_comes_first():
    with Spool() as spool:
        spool.annotate(Annotation("thumb", span="2", label="up"))
        spool.add(Span("t", "1", "2", "retrieval", documents=()))
        spool.add(Span("t", "2", None, "chain", query="q"))
        spool.annotate(Annotation("thumb", trace="t", label="down"))
        spool.annotate(Annotation("thumb", span="nowhere", label="down"))
        assert spool.settle() == (1, 0)
        (trace,) = spool.traces()
        assert [said.label for said in trace.annotations] == ["up", "down"]
        assert [said.span for said in spool.unmatched()] == ["nowhere"]


MEASURED = """
import resource, sys
from qdrant_tools.traces import read_traces
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with read_traces(sys.argv[1]) as traces:
    count = sum(1 for _ in traces.searches())
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no resource module")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Sixteen megabytes of spans, with prompts that nothing needs, against two; both files fit no cache of SQLite."""

    def measured(traces):
        path = tmp_path / f"{traces}.jsonl"
        with path.open("w") as out:
            for number in range(traces):
                rows = question(f"t{number}", f"query {number}", [(f"p{place}", 0.5) for place in range(4)], at=number)
                rows += [span("complete", "LLM", trace=f"t{number}", parent="ask", llm__prompts__0="word " * 3000)]
                out.writelines(json.dumps(row) + "\n" for row in rows)
        done = subprocess.run([sys.executable, "-c", MEASURED, path], capture_output=True, text=True, check=True)
        count, megabytes = map(int, done.stdout.split())
        assert count == traces
        return path.stat().st_size, megabytes

    small, few = measured(100)
    large, many = measured(900)
    assert large > 15_000_000 and many < few + 12, (small, few, large, many)


def test_nothing_is_left_in_the_folder_for_temporary_files_while_spans_wait(tmp_path, monkeypatch):
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    with Spool() as spool:
        for number in range(3000):
            spool.add(Span("t", str(number), None, "chain", query="word " * 2000))
        spool._flush()
        assert os.listdir(tmp_path) == []


def test_ids_of_another_kind_than_hex_are_ids(tmp_path):
    rows = question("t", "tea", HITS)
    for row in rows:
        row["context"]["trace_id"] = "run/ü'1"
        row["context"]["span_id"] = "s'" + row["name"]
        row["parent_id"] = None if row["parent_id"] is None else "s'ask"
    with read_traces(write(tmp_path / "spans.jsonl", rows)) as traces:
        (search,) = traces.searches()
    assert search.answer.text and ids(search) == ["a", "b"] and search.id != hex_of("t", 32)
