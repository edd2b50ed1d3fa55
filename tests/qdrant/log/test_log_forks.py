"""A forked child writes to the same log by a connection of its own, whatever its parent is doing with it."""

from __future__ import annotations

import os
import sqlite3
import threading

import pytest
from programs import forked

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


def test_a_child_that_is_forked_in_its_own_transaction_is_told_and_ends_nothing(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")

    def child():
        with pytest.raises(LogError, match=r"forked in the middle of a transaction .*: fork outside of batch"):
            record(log, "of the child")

    with log.batch():
        record(log, "of the parent")
        forked(child)
        record(log, "more of the parent")
    forked(lambda: record(log, "of another child"))
    assert queries(log) == ["of the parent", "more of the parent", "of another child"]


def test_a_fork_by_another_thread_waits_for_the_end_of_a_transaction(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")
    inside, go_on = threading.Event(), threading.Event()

    def write():
        with log.batch():
            record(log, "first")
            inside.set()
            go_on.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(60)
    threading.Timer(0.2, go_on.set).start()
    forked(lambda: record(log, "of the child"))
    thread.join()
    assert queries(log) == ["first", "of the child"]


def test_a_log_that_was_closed_stays_closed_in_a_child(tmp_path):
    log = RetrievalLog(tmp_path / "log.sqlite")
    log.close()

    def use():
        with pytest.raises(LogError, match="closed database"):
            record(log, "late")

    forked(use)
