"""A forked child writes to the same log by a connection of its own, whatever its parent is doing with it."""

from __future__ import annotations

import os
import sqlite3
import threading

import pytest
from programs import PATIENCE, awaited, forked

from qdrant_tools.errors import LogError
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.records import Hit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def record(log, query):
    log.record(query, [Hit("a", 0.5, 1)], collection="docs", space="s@1")


def queries(log):
    return [search.query for search in log.searches()]


def test_parent_and_child_write_to_one_log_from_whatever_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = RetrievalLog("log.sqlite")
    record(log, "before")

    def child():
        os.chdir("/")  # as daemons do
        record(log, "child")
        assert queries(log) == ["before", "child"]

    forked(child)
    record(log, "after")
    assert queries(log) == ["before", "child", "after"]
    log.close()
    with sqlite3.connect("log.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_what_a_child_writes_outlives_its_parents_connection(tmp_path):
    """Whoever is the last to close a log deletes the write-ahead log, so a child must be known to others."""
    path = tmp_path / "log.sqlite"
    log = RetrievalLog(path)
    record(log, "before")
    (first, tell), (go_on, let) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            record(log, "child 1")
            os.write(tell, b"x")
            os.read(go_on, 1)
            record(log, "child 2")
            code = 0
        finally:
            os._exit(code)
    assert os.read(first, 1)
    log.close()
    with RetrievalLog(path) as other:
        assert queries(other) == ["before", "child 1"]
    os.write(let, b"x")
    awaited(child, "a child that goes on writing")
    with RetrievalLog(path) as other:
        assert queries(other) == ["before", "child 1", "child 2"]
    for end in (first, tell, go_on, let):
        os.close(end)


def refused(log):
    with pytest.raises(LogError, match=r"forked while its parent used the retrieval log .*: fork outside of batch\(\)"):
        record(log, "of the child")


def test_a_child_that_is_forked_in_a_transaction_is_told_and_ends_nothing(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")
    twin = RetrievalLog(tmp_path / "log.sqlite")
    with log.batch():
        record(log, "of the parent")
        forked(lambda: (refused(log), refused(twin), forked(lambda: refused(log), "a grandchild")))
        record(log, "more of the parent")
    forked(lambda: record(log, "of another child"))
    assert queries(log) == ["of the parent", "more of the parent", "of another child"]


def test_a_fork_does_not_wait_for_a_caller_that_may_wait_for_it(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")
    inside, is_forked = threading.Event(), threading.Event()
    waited = []

    def write():
        with log.batch():
            record(log, "first")
            inside.set()
            waited.append(is_forked.wait(25))
            record(log, "second")

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(PATIENCE)
    forked(lambda: refused(log))
    is_forked.set()
    thread.join()
    assert waited == [True]
    assert queries(log) == ["first", "second"]


def test_a_fork_by_another_thread_waits_for_the_end_of_a_transaction_that_is_known_to_be_short(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")
    inside, go_on = threading.Event(), threading.Event()

    def write():
        with log.batch(forks_wait=True):
            record(log, "first")
            inside.set()
            go_on.wait(PATIENCE)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(PATIENCE)
    threading.Timer(0.2, go_on.set).start()
    forked(lambda: record(log, "of the child"))
    thread.join()
    assert queries(log) == ["first", "of the child"]


def test_children_of_a_process_whose_threads_use_the_log_all_the_time_use_it_too(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            record(log, "of the parent")
            queries(log)
            log.stats()

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            forked(lambda number=number: record(log, f"of child {number}"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    found = queries(log)
    assert [query for query in found if "child" in query] == [f"of child {number}" for number in range(10)]


def test_a_log_that_was_closed_stays_closed_in_a_child(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")
    log.close()

    def use():
        with pytest.raises(LogError, match="closed database"):
            record(log, "late")

    forked(use)
