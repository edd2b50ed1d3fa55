"""A short run of every part of the harness: nothing is lost, silent or hung. `make soak` runs it for long."""

from __future__ import annotations

import random

import pytest

from damage import calls, disk, files, foreign, kills, threads
from damage.counts import FAILURES, Counts


def assert_nothing_failed(counts: Counts) -> None:
    assert {kind: getattr(counts, kind) for kind in FAILURES} == dict.fromkeys(FAILURES, 0), counts.failures


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
def test_every_acknowledged_write_is_there_after_kills(tmp_path):
    counts = kills.run(tmp_path, random.Random(1), rounds=4)

    assert counts.acknowledged > 30
    assert_nothing_failed(counts)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize("closed", [True, False])
def test_a_damaged_file_is_refused_or_does_no_harm(tmp_path, closed):
    counts = files.run(tmp_path, random.Random(2), closed=closed, most=12)

    assert counts.cases > 5 and counts.refused > 0
    assert_nothing_failed(counts)


def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    if not disk.can_mount(tmp_path):
        pytest.skip("no small file system can be mounted here: it takes root on Linux")

    counts = disk.run(tmp_path, random.Random(3), rounds=1)

    assert counts.refused > 10
    assert_nothing_failed(counts)


def test_threads_see_their_own_writes_and_lose_none(tmp_path):
    assert_nothing_failed(threads.run(tmp_path, random.Random(4), threads=8, steps=25))


def test_hostile_calls_leak_nothing_and_change_nothing_unseen(tmp_path):
    assert_nothing_failed(calls.run(tmp_path, random.Random(5), calls=500))


def test_changed_files_of_rows_are_read_or_refused_shortly(tmp_path):
    counts = foreign.run(tmp_path, random.Random(6), files=300)

    assert counts.refused > 100
    assert_nothing_failed(counts)
