"""The retrieval log keeps what was acknowledged, whoever writes and whatever dies."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log import Feedback, LoggedHit, LoggedSearch, RetrievalLog
from qdrant_tools.log.records import dropped, hashed, is_redacted
from qdrant_tools.log.schema import MIGRATIONS
from qdrant_tools.records import Hit

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
    with log.batch():
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
    with pytest.raises(LogError, match="did not show 'z', .*: its hits have ids such as"):
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
    with log.batch():
        for i in range(300):
            record(log, f"query {i}")
    for number, search in enumerate(log.searches()):
        if number % 10 == 0:
            log.feedback(search.id, "a", "click")
    assert sum(len(search.feedback) for search in log.searches()) == 30


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
    assert list(row) == ["id", "at", "session", "query", "redacted", "collection", "space", "hits", "feedback"]
    assert row["hits"][0] == {"id": "a", "rank": 1, "score": 0.9}
    assert row["feedback"] == [{"id": "b", "kind": "click", "value": 1.0, "at": "2025-01-31T12:00:00+00:00"}]
    with RetrievalLog(tmp_path / "other.sqlite") as other:
        assert other.import_jsonl(tmp_path / "out.jsonl") == 3
        assert other.import_jsonl(tmp_path / "out.jsonl") == 0
        assert list(other.searches()) == list(log.searches())


def test_a_bad_row_names_its_line_and_nothing_of_the_file_is_kept(log, tmp_path):
    good = LoggedSearch("x", NOON, "q").as_row()
    for bad, message in [
        ("{", ":2: not JSON"),
        (json.dumps(good | {"at": "yesterday"}), ":2:.*'at' is 'yesterday'"),
        (json.dumps(good | {"query": None}), ":2:.*'query' is None"),
        (json.dumps(good | {"hits": [{"id": "a", "rank": 0}]}), ":2:.*rank is 0"),
        (json.dumps(good | {"hits": 5}), ":2:.*'hits' is not a list"),
        (json.dumps(good | {"feedback": [{"id": "a", "kind": "like"}]}), ":2:.*kind is 'like'"),
        ("[1]", ":2: a list, expected an object"),
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


def test_a_batch_is_written_whole_or_not_at_all(log):
    with log.batch():
        search_id = record(log)
        log.feedback(search_id, "a", "click")
    with pytest.raises(KeyboardInterrupt), log.batch():
        record(log)
        raise KeyboardInterrupt
    assert [len(search.feedback) for search in log.searches()] == [1]


def test_an_error_inside_a_batch_that_is_caught_there_does_not_lose_the_rest(log):
    with log.batch():
        record(log)
        with pytest.raises(LogError):
            log.feedback("nope", "a", "click")
        record(log)
    assert len(log) == 2


def test_searches_from_elsewhere_are_added_once_and_their_new_feedback_merged(log):
    click, later = Feedback("a", "click", 1.0, NOON), Feedback("a", "dwell", 9.0, NOON)
    search = LoggedSearch("s1", NOON, "q", hits=(LoggedHit("a", 1),), feedback=(click,))
    assert log.extend([search]) == 1
    assert log.extend([replace(search, feedback=(click, later)), replace(search, id="s2")]) == 1
    assert [(found.id, found.feedback) for found in log.searches()] == [("s1", (click, later)), ("s2", (click,))]


def test_two_hits_of_one_rank_are_refused(log):
    hits = (LoggedHit("a", 1), LoggedHit("b", 1))
    with pytest.raises(InputError, match="two hits of one rank"):
        log.extend([LoggedSearch("s1", NOON, "q", hits=hits)])
    assert len(log) == 0


@pytest.mark.parametrize("rank", [float("nan"), float("inf"), 0, 1.5, True, "1", None])
def test_a_rank_that_is_no_place_in_a_ranking_is_one_error(rank):
    row = {"id": "s1", "at": NOON.isoformat(), "query": "q", "hits": [{"id": "a", "rank": rank}]}
    with pytest.raises(InputError, match="rank"):
        LoggedSearch.from_row(row)


def test_a_query_of_ten_megabytes_is_a_query(log):
    query = "ä" * 5_000_000
    record(log, query)
    assert next(log.searches()).query == query


def test_a_query_that_is_no_unicode_is_an_error_and_not_a_crash(log):
    with pytest.raises(LogError, match="cannot write"):
        record(log, "half a surrogate \ud800")
    assert len(log) == 0


def test_stats_count_what_is_there(log):
    with log.batch():
        for query, clicked in [("a", ["a", "b"]), ("b", ["a"]), ("b", []), ("c", []), ("c", []), ("d", [])]:
            search_id = record(log, query, at=NOON)
            for hit in clicked:
                log.feedback(search_id, hit, "click", at=NOON)
        log.feedback(search_id, "a", "down", at=NOON)
    stats = log.stats(top=1)
    assert (stats.searches, stats.distinct_queries, stats.without_feedback, stats.without_click) == (6, 4, 3, 4)
    assert stats.feedback == {"click": 3, "down": 1}
    assert stats.shown_by_rank == {1: 6, 2: 6, 3: 6} and stats.clicks_by_rank == {1: 2, 2: 1}
    assert stats.unclicked_queries == {"c": 2}, "b had a click, in another search"
    assert stats.collections == {"docs": 6} and stats.spaces == {"words@1": 6}
    assert stats.first == stats.last == "2025-01-31T12:00:00.000000+00:00"
    assert json.loads(json.dumps(stats.as_row()))["searches"] == 6


def test_stats_of_an_empty_log_are_zeros(log):
    assert (log.stats().searches, log.stats().first, log.stats().clicks_by_rank) == (0, None, {})


def test_old_searches_are_forgotten_with_all_that_hangs_on_them(log):
    old, new = record(log, "old", at=NOON - timedelta(days=90)), record(log, "new", at=NOON)
    log.feedback(old, "a", "click")
    log.feedback(new, "a", "click")
    assert log.forget(before=NOON - timedelta(days=30)) == 1
    assert [search.query for search in log.searches()] == ["new"]
    assert log.stats().feedback == {"click": 1}


def files_contain(log: RetrievalLog, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in log.path.parent.glob(log.path.name + "*"))


def test_redacted_text_is_gone_from_the_file(log):
    for days in range(300):
        record(log, f"my address is {days} Main Street", at=NOON - timedelta(days=days))
    assert files_contain(log, "Main Street")
    assert log.redact(hashed("a secret that is long"), before=NOON - timedelta(days=10)) == 289
    assert files_contain(log, "10 Main Street") and not files_contain(log, "11 Main Street")
    assert log.redact(dropped) == 300
    assert log.redact(dropped) == 0
    assert not files_contain(log, "Main Street")


def test_the_name_of_a_session_goes_with_the_text_and_still_tells_sessions_apart(log):
    for name in ("ann@example.org", "ann@example.org", "bob@example.org", ""):
        log.record("q", [], collection="", space="", session=name)
    assert log.stats().sessions == 2
    assert log.redact(hashed("a secret that is long")) == 4
    first, second, third, fourth = (search.session for search in log.searches())
    assert first == second != third and fourth == "" and is_redacted(first)
    assert log.stats().sessions == 2 and not files_contain(log, "example.org")
    assert log.redact(hashed("a secret that is long")) == 0
    log.redact(dropped)
    assert {search.session for search in log.searches()} == {""}


def test_a_log_that_redacts_never_writes_who_searched(tmp_path):
    with RetrievalLog(tmp_path / "private.sqlite", redact=dropped) as log:
        log.extend([LoggedSearch("s", NOON, "q", session="ann@example.org")])
        assert next(log.searches()).session == "" and not files_contain(log, "example.org")


def test_a_log_of_the_third_version_knows_no_sessions_and_gets_them(tmp_path):
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript("".join(MIGRATIONS[:3]) + "PRAGMA user_version = 3;")
        db.execute(
            "INSERT INTO searches VALUES (1, 's1', '2025-01-31T12:00:00.000000+00:00', 'q', 'docs', 'words@1', 0)"
        )
    db.close()
    before = LoggedSearch("s1", NOON, "q", "docs", "words@1")
    with RetrievalLog(path, read_only=True) as log:
        assert list(log.searches()) == [before] and log.stats().sessions == 0
    with RetrievalLog(path) as log:
        log.record("r", [], collection="docs", space="", session="visit 7")
        assert [search.session for search in log.searches()] == ["", "visit 7"]


def test_one_id_is_one_search_in_a_log(log):
    log.extend([LoggedSearch("1", NOON, "Green tea?")])
    assert log.extend([LoggedSearch("1", NOON, "green  TEA")]) == 0, "another spelling is no other query"
    with pytest.raises(InputError, match="search '1' is in .* already, with another query"):
        log.extend([LoggedSearch("2", NOON, "x"), LoggedSearch("1", NOON, "coffee")])
    assert len(log) == 1
    log.redact(hashed("a secret that is long"))
    assert log.extend([LoggedSearch("1", NOON, "coffee")]) == 0, "what cannot be compared is as it was"


def test_a_log_that_redacts_never_writes_the_text(tmp_path):
    with RetrievalLog(tmp_path / "private.sqlite", redact=hashed("a secret that is long")) as log:
        for query in ("my secret question", "my secret question", "another"):
            record(log, query)
        log.extend([LoggedSearch("s", NOON, "my secret question")])
        first, second, third, fourth = (search.query for search in log.searches())
        assert first == second == fourth != third and is_redacted(first)
        assert not files_contain(log, "secret question")


def test_the_secret_of_a_hash_must_not_be_guessable():
    with pytest.raises(InputError, match="at least 16"):
        hashed("1234")
    assert hashed("0123456789abcdef")("q") != hashed("fedcba9876543210")("q")


def test_feedback_of_one_time_keeps_its_order(log):
    clicks = tuple(Feedback(hit, "click", 1.0, NOON) for hit in "cab")
    log.extend(
        [LoggedSearch("s1", NOON, "q", hits=tuple(LoggedHit(h, r) for r, h in enumerate("abc", 1)), feedback=clicks)]
    )
    assert next(log.searches()).feedback == clicks


def test_a_log_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
        db.execute("INSERT INTO searches VALUES (1, 's1', '2025-01-31T12:00:00.000000+00:00', 'q', 'docs', 'words@1')")
        db.execute("INSERT INTO hits VALUES (1, 1, 'a', 0.5)")
        db.execute("INSERT INTO feedback VALUES (1, 'a', 'click', 1.0, '2025-01-31T12:00:03.000000+00:00')")
    db.close()
    with RetrievalLog(path) as log:
        click = Feedback("a", "click", 1.0, NOON + timedelta(seconds=3))
        assert list(log.searches()) == [
            LoggedSearch("s1", NOON, "q", "docs", "words@1", (LoggedHit("a", 1, 0.5),), (click,))
        ]
        log.feedback("s1", "a", "click", at=click.at)
        log.feedback("s1", "a", "dwell", 3.0, at=click.at)
        assert log.stats().feedback == {"click": 1, "dwell": 1}
        assert log.forget(before=NOON + timedelta(days=1)) == 1 and log.stats().feedback == {}


def test_a_log_that_another_process_is_writing_is_one_line_after_the_wait(tmp_path):
    path = tmp_path / "log.sqlite"
    with RetrievalLog(path, wait=0.05) as log:
        record(log, "before")
        with RetrievalLog(path).batch():
            with pytest.raises(LogError, match="database is locked: another process has been writing"):
                record(log, "during")
            assert len(log) == 1, "reading never waits"
        record(log, "after")
        assert [search.query for search in log.searches()] == ["before", "after"]


def test_a_full_disk_loses_nothing_that_was_written_and_leaves_nothing_half_written(log):
    record(log, "before")
    pages = "PRAGMA max_page_count = "
    log._store._db.execute(pages + "1")  # SQLite answers as on a full disk
    with pytest.raises(LogError, match="full: make room and try again"):
        log.extend(LoggedSearch(f"s{i}", NOON, "x" * 500) for i in range(100))
    assert [search.query for search in log.searches()] == ["before"]
    log._store._db.execute(pages + "1000000")
    record(log, "after")
    assert [search.query for search in log.searches()] == ["before", "after"]


def test_times_at_the_ends_of_the_calendar_are_times_or_refused(log):
    record(log, "first", at=datetime.min.replace(tzinfo=UTC))
    record(log, "last", at=datetime.max.replace(tzinfo=UTC))
    with pytest.raises(InputError, match="outside of the years 1 to 9999"):
        record(log, at=datetime.min.replace(tzinfo=timezone(timedelta(hours=2))))
    assert log.redact(dropped) == 2
    assert log.forget(before=NOON) == 1 and next(log.searches()).at.year == 9999


def test_searches_of_one_collection_and_the_last_ones(log):
    with log.batch():
        for i in range(600):
            log.record(f"query {i}", HITS, collection="even" if i % 2 == 0 else "odd", space="words@1")
    assert [search.query for search in log.searches(last=2)] == ["query 598", "query 599"]
    assert [search.query for search in log.searches(collection="odd", last=2)] == ["query 597", "query 599"]
    assert sum(1 for _ in log.searches(collection="even")) == 300
    assert sum(1 for _ in log.searches(last=10_000)) == 600
    assert list(log.searches(collection="other")) == list(log.searches(last=0)) == []


def test_feedback_on_what_was_not_shown_is_counted(log):
    search_id = record(log)
    log.feedback(search_id, "a", "click")
    log.feedback(search_id, "z", "rating", 2)
    foreign = LoggedSearch("s", NOON, "q", feedback=(Feedback("y", "click", 1.0, NOON),))
    log.extend([foreign])
    assert log.stats().not_shown == 2 and log.stats().feedback == {"click": 2, "rating": 1}


def test_clicks_at_the_same_moment_twice_are_one_and_retried_imports_are_too(log, tmp_path):
    search_id = record(log)
    for _ in range(3):
        log.feedback(search_id, "a", "click", at=NOON)
    log.export_jsonl(tmp_path / "out.jsonl")
    log.import_jsonl(tmp_path / "out.jsonl")
    assert log.stats().feedback == {"click": 1}


def test_spellings_of_one_query_are_counted_as_one(tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        for query in ["How do I reset it?", "how do i reset it", "How do I reset it?", "C++", "c#", "Redacted:"]:
            log.record(query, [Hit("a", 0.5, 1)], collection="docs", space="s")
        clicked = log.record("“Where is it”", [Hit("a", 0.5, 1)], collection="docs", space="s")
        log.feedback(clicked, "a", "click")
        log.record("where is it?", [Hit("a", 0.5, 1)], collection="docs", space="s")
        log.redact(lambda query: "redacted:" if query == "c#" else query)
        stats = log.stats()
    assert stats.distinct_queries == 5
    assert stats.unclicked_queries == {"How do I reset it?": 3, "C++": 1, "Redacted:": 1, "redacted:": 1}
