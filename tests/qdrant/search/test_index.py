"""Indexing is idempotent, counted and resumable, and holds one batch at a time."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
from paths import TESTS
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import fetch, point_id
from qdrant_tools.collections.retirement import WriteLock, accept_writes
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import CollectionError, InputError, SpaceMismatchError, VectorError
from qdrant_tools.indexing import Failure, IndexReport, content_hash, index_passages
from qdrant_tools.records import Passage
from qdrant_tools.search.bm25 import Bm25


@pytest.fixture
def collection(client, encoder) -> Collection:
    return CollectionManager(client).ensure("docs", encoder)


def points_in(collection: Collection) -> int:
    return collection.client.count(collection.name).count


def test_indexing_twice_adds_nothing_and_encodes_nothing(collection, encoder):
    assert index_passages(collection, numbered(20), encoder, batch_size=8) == IndexReport(added=20)
    encoder.encoded.clear()
    assert index_passages(collection, numbered(20), encoder, batch_size=7) == IndexReport(unchanged=20)
    assert encoder.encoded == [] and points_in(collection) == 20


@pytest.mark.parametrize("settings", [CollectionSettings(), CollectionSettings(lexical=Bm25())], ids=["plain", "words"])
def test_a_passage_whose_vector_another_program_deleted_is_embedded_again(client, encoder, settings):
    collection = CollectionManager(client).ensure("docs", encoder, settings=settings)
    index_passages(collection, numbered(20), encoder)
    lost = [point_id(f"p{number}") for number in range(5)]
    client.delete_vectors("docs", [""], lost)
    encoder.encoded.clear()
    assert index_passages(collection, numbered(20), encoder) == IndexReport(added=5, unchanged=15)
    assert encoder.encoded == [passage.text for passage in numbered(5)] and points_in(collection) == 20
    assert client.count("docs", models.Filter(must=[models.HasVectorCondition(has_vector="")])).count == 20
    assert index_passages(collection, numbered(20), encoder) == IndexReport(unchanged=20)


def test_a_changed_text_replaces_the_passage_and_changed_metadata_keeps_its_vector(collection, encoder):
    index_passages(
        collection, [Passage("a", "old text"), Passage("b", "same", {"v": 1}), Passage("c", "same")], encoder
    )
    before = fetch(collection, ["b"], with_vectors=True)["b"].vector
    encoder.encoded.clear()
    changed = [Passage("a", "new text"), Passage("b", "same", {"v": 2}), Passage("c", "same")]
    assert index_passages(collection, changed, encoder) == IndexReport(updated=1, refreshed=1, unchanged=1)
    assert encoder.encoded == ["new text"]
    stored = fetch(collection, ["a", "b"], with_vectors=True)
    assert stored["a"].text == "new text" and stored["b"].metadata == {"v": 2}
    np.testing.assert_allclose(stored["a"].vector, encoder.encode_queries(["new text"])[0], atol=1e-6)
    assert stored["b"].vector.tobytes() == before.tobytes()
    assert index_passages(collection, changed, encoder) == IndexReport(unchanged=3)


def test_changed_metadata_keeps_the_words_of_a_passage_too(manager, encoder):
    settings = CollectionSettings(lexical=Bm25(average_length=4))
    collection = manager.ensure("words", encoder, settings=settings)
    index_passages(collection, [Passage("a", "rare heron", {"v": 1}), Passage("b", "common duck")], encoder)
    encoder.encoded.clear()
    assert index_passages(collection, [Passage("a", "rare heron", {"v": 2})], encoder).refreshed == 1
    (hits,) = collection.search_lexical(["heron"])
    assert [(hit.id, hit.metadata) for hit in hits] == [("a", {"v": 2})] and encoder.encoded == []


def test_any_string_is_an_id(collection, encoder):
    ids = ["1", "a/b c.txt#3", "日本語", " ", "x" * 2000]
    index_passages(collection, [Passage(i, f"text of {i[:5]} here") for i in ids], encoder)
    assert sorted(fetch(collection, ids)) == sorted(ids)


def test_equal_passages_in_a_batch_are_merged(collection, encoder):
    twice = [Passage("a", "text", {"x": 1, "y": 2}), Passage("a", "text", {"y": 2, "x": 1}), Passage("b", "text")]
    assert index_passages(collection, twice, encoder) == IndexReport(added=2, merged=1)
    assert points_in(collection) == 2


def test_one_id_with_two_contents_in_a_batch_is_refused_and_nothing_of_it_stored(collection, encoder):
    with pytest.raises(InputError, match="'a' occurs with two different contents"):
        index_passages(collection, [Passage("b", "x"), Passage("a", "one"), Passage("a", "two")], encoder)
    assert points_in(collection) == 0


def test_across_batches_the_later_passage_wins(collection, encoder):
    stream = [Passage("a", "one"), Passage("b", "x"), Passage("a", "two")]
    assert index_passages(collection, stream, encoder, batch_size=1) == IndexReport(added=2, updated=1)
    assert fetch(collection, ["a"])["a"].text == "two"


def test_an_endless_stream_is_read_one_batch_ahead_at_most(collection, encoder):
    read = 0

    def endless():
        nonlocal read
        for i in itertools.count():
            read += 1
            yield Passage(f"p{i}", f"text {i}")

    class EnoughError(Exception):
        pass

    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        assert read <= done + 1
        if done >= 40:
            raise EnoughError

    with pytest.raises(EnoughError):
        index_passages(collection, endless(), encoder, batch_size=8, progress=progress)
    assert points_in(collection) == done == 40


def test_what_was_reported_survives_an_interruption_and_the_next_run_goes_on(collection, encoder):
    def interrupted():
        yield from numbered(25)
        raise KeyboardInterrupt

    reported: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        index_passages(collection, interrupted(), encoder, batch_size=10, progress=reported.append)
    assert points_in(collection) == sum(reported) == 20
    assert index_passages(collection, numbered(25), encoder) == IndexReport(added=5, unchanged=20)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_index import *
from qdrant_tools.client.connect import connect
encoder = WordEncoder()
collection = CollectionManager(connect(sys.argv[2])).ensure("docs", encoder)
def progress(n):
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
index_passages(collection, numbered(1_000_000), encoder, batch_size=20, progress=progress)
"""


def test_killing_the_process_loses_nothing_that_was_reported(tmp_path, encoder):
    command = [sys.executable, "-c", KILLED, str(TESTS), str(tmp_path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    reported = sum(int(writer.stdout.readline()) for _ in range(5))
    os.kill(writer.pid, signal.SIGKILL)
    reported += sum(map(int, writer.communicate()[0].split()))
    client = connect(tmp_path)
    collection = CollectionManager(client).open("docs", encoder)
    again = index_passages(collection, numbered(reported), encoder)
    client.close()
    assert again == IndexReport(unchanged=reported)


def test_an_encoder_of_another_space_is_refused(collection):
    with pytest.raises(SpaceMismatchError, match="'other@"):
        index_passages(collection, numbered(1), WordEncoder("other"))
    assert points_in(collection) == 0


@pytest.mark.parametrize(
    ("passage", "message"),
    [
        (Passage("", "text"), "passage id is ''"),
        (Passage(7, "text"), "passage id is 7"),
        (Passage("a", "  "), "'a' has the text ' '"),
        (Passage("a", None), "'a' has the text None"),
        (Passage("a", "text", {"at": timedelta(1)}), "'a': metadata field 'at' is .*: JSON has no timedelta"),
        (Passage("a", "text", {"x": float("nan")}), "'a': metadata field 'x' is nan: JSON has no NaN: use None"),
        (Passage("a", "lone surrogate \ud800"), "'a' cannot be stored as JSON"),
    ],
)
def test_unusable_passages_are_named_before_anything_of_their_batch_is_stored(collection, encoder, passage, message):
    with pytest.raises(InputError, match=message):
        index_passages(collection, [Passage("good", "text"), passage], encoder)
    assert points_in(collection) == 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.ones((2, 64), np.float32), r"shape \(2, 64\), expected \(1, 64\)"),
        (np.ones((1, 32), np.float32), r"shape \(1, 32\), expected \(1, 64\)"),
        (np.full((1, 64), np.nan, np.float32), "row 0 holds NaN"),
        (np.zeros((1, 64), np.float32), "row 0 is all zeros"),
        (np.ones((1, 64), np.float32), "row 0 has length 8.0000, expected unit length"),
        ([["x"] * 64], "not an array of numbers"),
    ],
)
def test_what_the_encoder_returns_is_checked_before_it_is_stored(collection, encoder, returned, message):
    encoder.encode_passages = lambda texts: returned
    with pytest.raises(VectorError, match=message):
        index_passages(collection, [Passage("a", "text")], encoder)
    assert points_in(collection) == 0


def test_nothing_to_index_is_no_error(collection, encoder):
    assert index_passages(collection, [], encoder) == IndexReport()
    with pytest.raises(InputError, match="batch_size is 0"):
        index_passages(collection, [], encoder, batch_size=0)


def test_long_texts_end_a_batch_early(collection, encoder):
    sizes: list[int] = []
    long = [Passage(f"p{i}", "word " * 900_000) for i in range(3)]
    index_passages(collection, long, encoder, progress=sizes.append)
    assert sizes == [2, 1]


def test_the_content_hash_does_not_depend_on_the_order_of_metadata():
    assert content_hash(Passage("a", "t", {"x": 1, "y": [1, 2]})) == content_hash(
        Passage("b", "t", {"y": [1, 2], "x": 1})
    )
    assert content_hash(Passage("a", "t", {"x": 1})) != content_hash(Passage("a", "t", {"x": "1"}))


def test_bad_passages_are_counted_with_their_reasons_where_that_is_asked_for(collection, encoder):
    stream = [
        Passage("good", "text"),
        Passage("empty", ""),
        Passage("twice", "one"),
        Passage("twice", "two"),
        Passage("json", "text", {"x": float("nan")}),
    ]
    report = index_passages(collection, stream, encoder, on_bad="count")
    assert (report.added, report.failed) == (1, 4)
    assert [failure.passage_id for failure in report.failures] == ["empty", "twice", "twice", "json"]
    assert report.failures[0] == Failure("empty", "passage 'empty' has the text '', expected a non-empty string")
    assert sorted(fetch(collection, ["good", "twice", "empty"])) == ["good"]
    with pytest.raises(InputError, match="on_bad is 'skip'"):
        index_passages(collection, stream, encoder, on_bad="skip")


def test_what_no_engine_can_store_is_a_bad_passage_and_does_not_end_the_run(collection, encoder):
    deep, cyclic = {"x": 1}, {"x": []}
    for _ in range(100):
        deep = {"x": deep}
    cyclic["x"].append(cyclic)
    bad = {"deep": deep, "cyclic": cyclic, "huge": {"x": [10**400]}, "surrogate": {"x": "\ud800"}}
    stream = [Passage(name, "text", metadata) for name, metadata in bad.items()]
    stream += [Passage("\ud800", "text"), Passage("in text", "\ud800"), Passage("good", "text")]
    report = index_passages(collection, stream, encoder, on_bad="count", delete_missing=True)
    assert (report.added, report.failed) == (1, 6)
    reasons = {failure.passage_id: failure.reason for failure in report.failures}
    assert reasons["deep"].startswith("passage 'deep': metadata is nested more than 63 levels deep at x.x.")
    assert "('x', 0) is 1000" in reasons["huge"] and reasons["huge"].endswith("write it as a string")
    for passage in stream[:-1]:
        with pytest.raises(InputError, match="passage"):
            index_passages(collection, [passage], encoder)


def test_only_the_first_hundred_reasons_are_kept(collection, encoder):
    report = index_passages(collection, [Passage(f"p{i}", "") for i in range(150)], encoder, on_bad="count")
    assert report.failed == 150 and len(report.failures) == 100


def test_passages_that_left_the_stream_are_deleted_on_request(collection, encoder):
    index_passages(collection, numbered(30), encoder)
    kept = [*numbered(20), Passage("p25", "")]
    report = index_passages(collection, kept, encoder, on_bad="count", delete_missing=True, batch_size=7)
    assert (report.unchanged, report.deleted, report.failed) == (20, 9, 1)
    assert "p25" in fetch(collection, ["p25"]), "a bad passage is no missing one"
    assert index_passages(collection, kept[:20], encoder).deleted == 0


def test_an_interrupted_run_deletes_nothing(collection, encoder):
    index_passages(collection, numbered(30), encoder)

    def interrupted():
        yield from numbered(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_passages(collection, interrupted(), encoder, batch_size=2, delete_missing=True)
    assert points_in(collection) == 30


def test_an_empty_stream_does_not_empty_the_collection(collection, encoder):
    index_passages(collection, numbered(3), encoder)
    with pytest.raises(InputError, match="would empty collection 'docs'"):
        index_passages(collection, [], encoder, delete_missing=True)
    assert points_in(collection) == 3


def test_a_batch_written_while_another_collection_takes_over_is_not_reported(collection, encoder):
    reported: list[int] = []
    WriteLock(collection.client, "docs", successor="docs-2").acquire()
    with pytest.raises(CollectionError, match="'docs' is being replaced by 'docs-2'.*open the alias again"):
        index_passages(collection, numbered(3), encoder, progress=reported.append)
    assert reported == []
    accept_writes(collection.client, "docs")
    assert index_passages(collection, numbered(3), encoder) == IndexReport(unchanged=3)
