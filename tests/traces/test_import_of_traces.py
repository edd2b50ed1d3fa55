"""`embed-plus log import` of traces: told, shown, asked, written once; and killed while it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import error_line
from written import annotation, question, span, write

from qdrant_tools.log import RetrievalLog
from qdrant_tools.traces import read_traces

HITS = [("a", 0.9), ("b", 0.8)]


@pytest.fixture
def spans(tmp_path):
    return write(
        tmp_path / "spans.jsonl", [row for n in range(5) for row in question(f"t{n}", f"query {n}", HITS, at=n)]
    )


def test_what_the_files_are_and_the_first_searches_are_told_before_anything_is_written(run, tmp_path, spans):
    thumbs = [annotation("user_feedback", "ask", trace="t1", label="thumbs-up", who="ann")]
    write(tmp_path / "thumbs.jsonl", thumbs)
    code, out, err = run("log", "import", "log.sqlite", "spans.jsonl", "thumbs.jsonl", "--dry-run")
    assert code == 0 and not list(tmp_path.glob("log.sqlite*"))
    lines = err.splitlines()
    told = lines.index("spans.jsonl: openinference")
    assert lines[told + 1] == "thumbs.jsonl: phoenix" and lines[told + 2] == "spans.jsonl and 1 more, as understood:"
    assert "    answer: the answer to query 1" in lines and "    thumb up" in lines and "query 3" not in err
    assert "5 searches in all: 1 thumb on answers" in err
    assert "1 annotations: none on documents; 1 thumb" in out
    assert lines[-1] == "next: embed-plus log import log.sqlite spans.jsonl thumbs.jsonl"
    code, out, err = run("log", "import", "log.sqlite", "spans.jsonl", "thumbs.jsonl")
    assert code == 0 and out.startswith("log.sqlite: 5 searches added, 5 in all\n")
    assert err.endswith("next: embed-plus mine COLLECTION log.sqlite --rule answers --out examples.jsonl\n")
    assert run("log", "import", "log.sqlite", "spans.jsonl", "thumbs.jsonl")[1].startswith(
        "log.sqlite: 0 searches added"
    )
    assert "thumb up by a person  (user_feedback)" in run("log", "show", "log.sqlite")[1]


def test_what_is_new_of_searches_that_were_there_is_counted(run, tmp_path, spans):
    assert run("log", "import", "log.sqlite", "spans.jsonl")[1].startswith("log.sqlite: 5 searches added, 5 in all\n")
    said = [annotation("user_feedback", "ask", trace=f"t{n}", label="thumbs-up", who="ann") for n in (1, 2, 3)]
    judged = [
        annotation(
            "relevance", "retrieve", trace="t1", label="relevant", by="LLM", document_position=place, id=f"{place}"
        )
        for place in (0, 1)
    ]
    write(tmp_path / "said.jsonl", said + judged)
    out = run("log", "import", "log.sqlite", "spans.jsonl", "said.jsonl")[1].splitlines()
    assert out[:2] == [
        "log.sqlite: 0 searches added, 5 in all",
        "log.sqlite: new of searches that were there: 3 verdicts on answers, 2 events on hits",
    ]
    # the same again says nothing new, and one who thinks better of it says one thing
    assert "new of searches" not in run("log", "import", "log.sqlite", "spans.jsonl", "said.jsonl")[1]
    later = annotation(
        "user_feedback", "ask", trace="t1", label="thumbs-down", who="ann", at="2026-10-07T09:00:00+00:00"
    )
    write(tmp_path / "later.jsonl", [later])
    out = run("log", "import", "log.sqlite", "spans.jsonl", "later.jsonl")[1]
    assert "new of searches that were there: 1 verdicts on answers\n" in out
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        assert [len(search.feedback) for search in log.searches()] == [0, 2, 0, 0, 0]


def test_a_format_that_is_named_must_be_that_of_a_row(run, tmp_path, spans):
    assert run("log", "import", "log.sqlite", "spans.jsonl", "--format", "openinference", "--dry-run")[0] == 0
    code, _, err = run("log", "import", "log.sqlite", "spans.jsonl", "--format", "langsmith")
    assert code == 2 and "no row is of the format langsmith: spans.jsonl: openinference" in error_line(err)
    code, _, err = run("log", "import", "log.sqlite", "spans.jsonl", "--format", "word")
    assert code == 2 and "--format is 'word', expected one of auto, openinference" in error_line(err)


def test_files_of_several_kinds_are_not_mixed(run, tmp_path, spans):
    (tmp_path / "ours.jsonl").write_text('{"id": "1", "at": "2026-01-01T00:00:00+00:00", "query": "q", "hits": []}\n')
    code, _, err = run("log", "import", "log.sqlite", "spans.jsonl", "ours.jsonl")
    assert code == 2 and "spans.jsonl (traces), ours.jsonl (ours): import each kind by itself" in error_line(err)
    code, _, err = run("log", "import", "log.sqlite", "ours.jsonl", "--thumb", "x")
    assert code == 2 and "--thumb: such options are for traces" in error_line(err)
    code, _, err = run("log", "import", "log.sqlite", "spans.jsonl", "spans.jsonl")
    assert code == 2 and "a file is named twice" in error_line(err)


def test_spans_that_can_give_nothing_say_why_and_make_no_log(run, tmp_path):
    rows = [span("GET /", "", trace=f"t{number}") for number in range(3)]
    write(tmp_path / "web.jsonl", rows)
    code, _, err = run("log", "import", "log.sqlite", "web.jsonl", "--yes")
    assert code == 1 and "none of 3 spans is a retrieval" in err.splitlines()[-1]
    write(tmp_path / "bare.jsonl", [span("retrieve", "RETRIEVER", query="tea")])
    code, _, err = run("log", "import", "log.sqlite", "bare.jsonl", "--yes")
    assert code == 1 and "1 retrievals whose list the tool did not write" in err.splitlines()[-1]
    assert not list(tmp_path.glob("log.sqlite*"))


def test_annotations_without_their_spans_say_what_is_lacking(run, tmp_path):
    write(tmp_path / "thumbs.jsonl", [annotation("user_feedback", "ask", label="thumbs-up")])
    code, _, err = run("log", "import", "log.sqlite", "thumbs.jsonl")
    assert code == 1 and "name the files of those spans beside them" in err.splitlines()[-1]


def test_texts_can_be_taken_out_before_they_are_written(run, tmp_path, spans):
    said = annotation("thumb", "ask", trace="t1", label="up", explanation="query 1 was mine")
    write(tmp_path / "thumbs.jsonl", [said])
    assert run("log", "import", "log.sqlite", "spans.jsonl", "thumbs.jsonl", "--redact")[0] == 0
    written = b"".join(file.read_bytes() for file in tmp_path.glob("log.sqlite*"))
    assert b"query 1" not in written and b"redacted:" in written
    secret = ["--redact", "--secret", "sixteen characters"]
    assert run("log", "import", "hashed.sqlite", "spans.jsonl", *secret)[0] == 0
    with RetrievalLog(tmp_path / "hashed.sqlite") as log:
        assert len({search.query for search in log.searches()}) == 5


def test_a_collection_tells_which_ids_are_there(run, tmp_path, spans):
    from tiny import WordEncoder

    from qdrant_tools import CollectionManager, connect
    from qdrant_tools.records import Passage

    client = connect(tmp_path / "qdrant")
    CollectionManager(client).ensure("docs", WordEncoder()).index([Passage("a", "text"), Passage("c", "other")])
    client.close()
    arguments = ["--collection", "docs", "--location", "qdrant"]
    code, out, _ = run("log", "import", "log.sqlite", "spans.jsonl", *arguments)
    assert code == 0 and "1 of 2 ids (50%) are in the collection; not there: 'b'" in out
    code, _, err = run("log", "import", "log.sqlite", "spans.jsonl", "--collection", "typo", "--location", "qdrant")
    assert code == 1 and "typo" in error_line(err)


def test_a_file_of_strangers_does_not_steer_the_terminal(run, tmp_path):
    rows = question("t", "tea \x1b[2J\x1b]0;owned\x07", [("\x1b[31m", 0.5)], answer="\x1b[1A")
    write(tmp_path / "spans.jsonl", [*rows, annotation("\x1b[5m", "ask", label="\x1b[6m")])
    code, out, err = run("log", "import", "log.sqlite", "spans.jsonl")
    assert code == 0 and "\x1b" not in out + err


IMPORT = """
from qdrant_tools.log import RetrievalLog
from qdrant_tools.traces import read_traces
from qdrant_tools.traces import read_traces
print("began", flush=True)
with read_traces("spans.jsonl") as traces, RetrievalLog("log.sqlite") as log:
    log.extend(traces.searches())
"""


def test_an_import_that_is_killed_loses_and_doubles_nothing(tmp_path):
    """By SIGKILL, at whatever moment: reading, making searches, or in the middle of the transaction."""
    rows = [row for n in range(300) for row in question(f"t{n}", f"query {n}", HITS, at=n)]
    rows += [annotation("thumb", "ask", trace=f"t{n}", label="up") for n in range(0, 300, 2)]
    write(tmp_path / "spans.jsonl", rows)
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "SQLITE_TMPDIR": str(tmp_path / "temporary")}

    def started():
        child = subprocess.Popen([sys.executable, "-c", IMPORT], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
        child.stdout.readline()
        return child

    with started() as begun:
        clock = time.monotonic()
        assert begun.wait() == 0
    whole = time.monotonic() - clock
    expected, killed = stored(tmp_path / "log.sqlite"), 0
    assert len(expected) == 300
    for share in (0.4, 0.75, 0.95):
        for file in tmp_path.glob("log.sqlite*"):
            file.unlink()
        with started() as child:
            time.sleep(whole * share)
            child.send_signal(signal.SIGKILL)
            killed += child.wait() != 0
        if (tmp_path / "log.sqlite").is_file():
            assert stored(tmp_path / "log.sqlite") in ([], expected)
        assert os.listdir(tmp_path / "temporary") == []
        with read_traces(tmp_path / "spans.jsonl") as traces, RetrievalLog(tmp_path / "log.sqlite") as log:
            log.extend(traces.searches())
        assert stored(tmp_path / "log.sqlite") == expected
    assert killed


def stored(path):
    with RetrievalLog(path) as log:
        return [json.dumps(search.as_row(), sort_keys=True) for search in log.searches()]
