"""The retrieval log keeps what was acknowledged, whoever writes and whatever dies."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from qdrant_tools.debias import clicked_as_positive
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log import MIGRATIONS, Feedback, LoggedHit, LoggedSearch, RetrievalLog
from qdrant_tools.records import Hit, Label

HITS = [Hit("a", 0.9, 1), Hit("b", 0.8, 2), Hit("c", 0.5, 3)]
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        yield log


def record(log: RetrievalLog, query: str = "a question", **more) -> str:
    return log.record(query, HITS, collection="docs", space="words@1", **more)


def test_a_search_and_its_feedback_come_back(log):
    search_id = record(log, at=NOON)
    log.feedback(search_id, "b", "click", at=NOON + timedelta(seconds=3))
    log.feedback(search_id, "b", "dwell", 41.5, at=NOON + timedelta(seconds=50))
    assert list(log.searches()) == [
        LoggedSearch(
            search_id,
            NOON,
            "a question",
            "docs",
            "words@1",
            (LoggedHit("a", 1, 0.9), LoggedHit("b", 2, 0.8), LoggedHit("c", 3, 0.5)),
            (
                Feedback("b", "click", 1.0, NOON + timedelta(seconds=3)),
                Feedback("b", "dwell", 41.5, NOON + timedelta(seconds=50)),
            ),
        )
    ]


def test_searches_come_in_the_order_written_even_when_the_clock_jumps_back(log):
    ids = [record(log, f"query {i}", at=NOON - timedelta(days=i)) for i in range(600)]
    assert [search.id for search in log.searches()] == ids
    assert len(log) == 600


def test_a_time_in_another_zone_is_the_same_moment(log):
    record(log, at=datetime.fromisoformat("2025-01-31T14:00:00+02:00"))
    assert next(log.searches()).at == NOON


def test_feedback_must_name_a_search_a_kind_and_a_shown_hit(log):
    search_id = record(log)
    with pytest.raises(LogError, match="no search 'nope'"):
        log.feedback("nope", "a", "click")
    with pytest.raises(InputError, match="kind is 'like', expected one of click, dwell, up, down, cited, rating"):
        log.feedback(search_id, "a", "like")
    with pytest.raises(InputError, match="dwell is -1"):
        log.feedback(search_id, "a", "dwell", -1)
    with pytest.raises(InputError, match="value is nan"):
        log.feedback(search_id, "a", "rating", float("nan"))
    with pytest.raises(LogError, match="did not show 'z'"):
        log.feedback(search_id, "z", "click")
    log.feedback(search_id, "z", "rating", 2)  # the right answer may not have been shown at all
    assert [event.id for event in next(log.searches()).feedback] == ["z"]


def test_a_time_without_zone_and_a_query_that_is_no_text_are_refused(log):
    with pytest.raises(InputError, match="no time zone"):
        record(log, at=datetime(2025, 1, 31))
    with pytest.raises(InputError, match="query is 5"):
        record(log, 5)
    assert len(log) == 0


def test_feedback_can_be_written_while_the_log_is_being_read(log):
    for i in range(300):
        record(log, f"query {i}")
    for search in log.searches():
        log.feedback(search.id, "a", "click")
    assert sum(len(search.feedback) for search in log.searches()) == 300


def test_a_log_written_by_several_threads_holds_everything(log):
    threads = [threading.Thread(target=lambda: [record(log) for _ in range(25)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log) == 100


WRITER = """
import sys
from qdrant_tools.log import RetrievalLog
from qdrant_tools.records import Hit
log = RetrievalLog(sys.argv[1])
for number in range(int(sys.argv[2])):
    search_id = log.record(f"query {number}", [Hit("a", 1.0, 1)], collection="docs", space="s")
    log.feedback(search_id, "a", "click")
    sys.stdout.write(search_id + "\\n")
    sys.stdout.flush()
"""


def test_a_log_written_by_several_processes_holds_everything(tmp_path):
    path = tmp_path / "log.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), "40"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    acknowledged = {line for writer in writers for line in writer.communicate()[0].split()}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    with RetrievalLog(path) as log:
        found = list(log.searches())
    assert {search.id for search in found} == acknowledged and len(found) == 120
    assert all(search.hits and search.feedback for search in found)


def test_killing_a_writer_loses_nothing_it_was_told_is_written(tmp_path):
    path = tmp_path / "log.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "100000"], stdout=subprocess.PIPE, text=True)
    acknowledged = [writer.stdout.readline().strip() for _ in range(50)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += writer.communicate()[0].split("\n")[:-1]
    with RetrievalLog(path) as log:
        found = [search.id for search in log.searches() if search.feedback]
    assert set(acknowledged) <= set(found)
    assert len(found) <= len(acknowledged) + 1


def test_jsonl_goes_out_and_in_again_and_twice_is_once(log, tmp_path):
    for i in range(3):
        search_id = record(log, f"query\n{i} ä", at=NOON)
        log.feedback(search_id, "b", "click", at=NOON)
    assert log.export_jsonl(tmp_path / "out.jsonl") == 3
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert list(row) == ["id", "at", "query", "collection", "space", "hits", "feedback"]
    assert row["hits"][0] == {"id": "a", "rank": 1, "score": 0.9}
    assert row["feedback"] == [{"id": "b", "kind": "click", "value": 1.0, "at": "2025-01-31T12:00:00+00:00"}]
    with RetrievalLog(tmp_path / "other.sqlite") as other:
        assert other.import_jsonl(tmp_path / "out.jsonl") == 3
        assert other.import_jsonl(tmp_path / "out.jsonl") == 0
        assert list(other.searches()) == list(log.searches())


def test_a_bad_row_names_its_line_and_nothing_of_the_file_is_kept(log, tmp_path):
    good = LoggedSearch("x", NOON, "q").as_row()
    for bad, message in [
        ("{", "line 2: not a logged search"),
        (json.dumps(good | {"at": "yesterday"}), "line 2.*'at' is 'yesterday'"),
        (json.dumps(good | {"query": None}), "line 2.*'query' is None"),
        (json.dumps(good | {"hits": [{"id": "a", "rank": 0}]}), "line 2.*rank is 0"),
        (json.dumps(good | {"hits": 5}), "line 2.*'hits' is not a list"),
        (json.dumps(good | {"feedback": [{"id": "a", "kind": "like"}]}), "line 2.*kind is 'like'"),
        ("[1]", "line 2.*a row is list"),
    ]:
        (tmp_path / "in.jsonl").write_text(json.dumps(good) + "\n" + bad + "\n")
        with pytest.raises(LogError, match=message):
            log.import_jsonl(tmp_path / "in.jsonl")
        assert len(log) == 0


def test_export_to_a_place_that_cannot_be_written_leaves_nothing(log, tmp_path):
    record(log)
    with pytest.raises(LogError, match="cannot export"):
        log.export_jsonl(tmp_path / "no such folder" / "out.jsonl")


def test_what_is_not_a_log_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("these are my notes, not a database " * 100)
    with pytest.raises(LogError, match="cannot open the retrieval log .*notes.txt"):
        RetrievalLog(tmp_path / "notes.txt")
    with pytest.raises(LogError, match="cannot open"):
        RetrievalLog(tmp_path / "no" / "such" / "folder")


def test_a_log_of_a_newer_version_is_refused(tmp_path):
    RetrievalLog(tmp_path / "log.sqlite").close()
    with sqlite3.connect(tmp_path / "log.sqlite") as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(LogError, match="newer version"):
        RetrievalLog(tmp_path / "log.sqlite")


def test_a_database_of_somebody_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE searches (id TEXT)")
    db.close()
    with pytest.raises(LogError, match="cannot open the retrieval log"):
        RetrievalLog(tmp_path / "other.sqlite")


def test_the_naive_rule_takes_clicks_as_positives_once_per_pair(log):
    first, second, third = record(log, "q1"), record(log, "q1"), record(log, "q2")
    for search_id, hit_id in [(first, "b"), (first, "a"), (second, "b"), (third, "c")]:
        log.feedback(search_id, hit_id, "click")
    log.feedback(third, "a", "up")
    labels = clicked_as_positive(log.searches())
    assert {(label.query, label.passage_id) for label in labels} == {("q1", "a"), ("q1", "b"), ("q2", "c")}
    assert len(labels) == 3 and labels[-1] == Label("q2", "c", 1.0, "click")
