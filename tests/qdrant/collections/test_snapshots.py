"""A collection goes into one file and comes back from it, whole, also into another engine."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tiny import SERVER, WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.client.gateway import Gateway
from qdrant_tools.collections.copying import INCOMPLETE, copy_collection
from qdrant_tools.collections.identity import given_identity
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import fetch, point_id, stored_vectors
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.collections.status import build_index, wait_until_indexed
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    DamagedCollectionError,
    EngineError,
    InputError,
    LocationError,
    NotSupportedError,
    UsageError,
)
from qdrant_tools.indexing import index_passages
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.dense import search

ENCODER = WordEncoder(dimension=64)
SETTINGS = CollectionSettings(m=8, lexical=Bm25(), hnsw_ef=55)


@pytest.fixture
def client(tmp_path):
    client = connect(tmp_path / "qdrant")
    collection = CollectionManager(client).ensure("docs", ENCODER, settings=SETTINGS)
    index_passages(collection, numbered(300), ENCODER)
    build_index(collection)
    yield client
    client.close()


def rows(collection):
    found = {}
    for ids, vectors in stored_vectors(collection):
        found.update(zip(ids, vectors, strict=True))
    return found


def same(one, other):
    ones, others = rows(one), rows(other)
    assert ones.keys() == others.keys()
    np.testing.assert_allclose(
        np.stack([ones[each] for each in ones]), np.stack([others[each] for each in ones]), atol=1e-6
    )
    assert fetch(one, ["p17"]) == fetch(other, ["p17"])
    scores = [[hit.score for hit in search(each, "thing17", ENCODER, exact=True)] for each in (one, other)]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_a_snapshot_restores_the_collection_as_it_was_when_it_was_made(client, tmp_path):
    manager = CollectionManager(client)
    made = create_snapshot(client, "docs", tmp_path / "docs.snapshot")
    assert made.points == 300 and 0 < made.bytes < 20_000_000
    index_passages(manager.open("docs"), numbered(10, start=300), ENCODER)
    restored: list[int] = []
    assert restore_snapshot(client, tmp_path / "docs.snapshot", "back", progress=restored.append) == 300
    assert sum(restored) == 300
    back = manager.open("back", ENCODER)
    assert manager.describe("back").settings == SETTINGS == manager.describe("docs").settings
    client.delete("docs", [point_id(passage.id) for passage in numbered(10, start=300)])
    same(manager.open("docs"), back)


def test_an_embedded_snapshot_can_be_restored_into_memory(client, tmp_path):
    create_snapshot(client, "docs", tmp_path / "docs.snapshot")
    memory = connect(":memory:")
    restore_snapshot(memory, tmp_path / "docs.snapshot", "docs")
    same(CollectionManager(client).open("docs"), CollectionManager(memory).open("docs", ENCODER))


def test_the_collection_stays_in_use_while_a_snapshot_is_made(client, tmp_path):
    create_snapshot(client, "docs", tmp_path / "one")
    collection = CollectionManager(client).open("docs")
    assert index_passages(collection, numbered(301), ENCODER).added == 1
    create_snapshot(client, "docs", tmp_path / "two")
    assert restore_snapshot(client, tmp_path / "two", "again") == 301


def test_a_snapshot_makes_no_folders(client, tmp_path):
    with pytest.raises(LocationError, match="there is no folder"):
        create_snapshot(client, "docs", tmp_path / "mistyped" / "docs.snapshot")
    assert not (tmp_path / "mistyped").exists()


def test_nothing_is_overwritten(client, tmp_path):
    create_snapshot(client, "docs", tmp_path / "one")
    with pytest.raises(LocationError, match="there already"):
        create_snapshot(client, "docs", tmp_path / "one")
    with pytest.raises(CollectionExistsError, match="'docs' is there already"):
        restore_snapshot(client, tmp_path / "one", "docs")


def test_a_damaged_or_foreign_file_is_refused(client, tmp_path):
    made = create_snapshot(client, "docs", tmp_path / "one")
    whole = (tmp_path / "one").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: made.bytes // 2])
    (tmp_path / "text").write_text("no snapshot")
    for name in ("cut", "text"):
        with pytest.raises(DamagedCollectionError, match="is damaged or no snapshot"):
            restore_snapshot(client, tmp_path / name, "back")
    with pytest.raises(LocationError, match="no snapshot file"):
        restore_snapshot(client, tmp_path / "gone", "back")
    assert CollectionManager(client).names() == ["docs"]


def test_a_flip_or_a_cut_anywhere_is_one_error_and_leaves_nothing_behind(client, tmp_path, monkeypatch):
    small = CollectionManager(client).ensure("small", ENCODER)
    index_passages(small, numbered(20), ENCODER)
    create_snapshot(client, "small", tmp_path / "one")
    whole = (tmp_path / "one").read_bytes()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    memory = connect(":memory:")
    folders = sorted((tmp_path / "qdrant" / "collections").iterdir())
    rng = random.Random(0)
    positions = [
        *range(4),
        5,
        *(rng.randrange(10, len(whole)) for _ in range(10)),
        *range(len(whole) - 8, len(whole), 2),
    ]
    refused = 0
    for i, position in enumerate(positions):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        (tmp_path / "damaged").write_bytes(damaged if i % 4 else whole[:position])
        target = memory if i % 2 else client
        try:
            # some flips mean the same: the time in the header, another way to say that zeros follow
            assert restore_snapshot(target, tmp_path / "damaged", "back") == 20
            target.delete_collection("back")
        except (DamagedCollectionError, NotSupportedError) as error:
            assert "\n" not in str(error)
            refused += 1
        assert not target.collection_exists("back")
    assert refused > 8
    assert list(scratch.iterdir()) == []
    assert sorted((tmp_path / "qdrant" / "collections").iterdir()) == folders


def test_a_snapshot_whose_points_cannot_be_read_leaves_no_half_collection(client, tmp_path, monkeypatch):
    create_snapshot(client, "docs", tmp_path / "one")

    def fail(*arguments, **options):
        raise EngineError("no more pages")

    monkeypatch.setattr(Gateway, "pages", fail)
    with pytest.raises(EngineError, match="no more pages"):
        restore_snapshot(client, tmp_path / "one", "back")
    assert CollectionManager(client).names() == ["docs"]


def test_a_snapshot_of_an_alias_is_one_of_its_collection(client, tmp_path):
    CollectionManager(client).switch_alias("live", "docs")
    made = create_snapshot(client, "live", tmp_path / "one")
    assert (made.collection, made.points) == ("docs", 300)
    assert restore_snapshot(client, tmp_path / "one", "back") == 300


def test_a_file_may_be_given_as_text(client, tmp_path):
    (tmp_path / "new").mkdir()
    made = create_snapshot(client, "docs", str(tmp_path / "new" / "one"))
    assert (made.where, made.points) == (str(tmp_path / "new" / "one"), 300)
    assert restore_snapshot(client, str(tmp_path / "new" / "one"), "back") == 300
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one"]


@pytest.mark.parametrize("wrong", ["", " ", 3, b"x", "a\0b", "\ud800"])
def test_what_is_no_path_is_an_input_error(client, wrong):
    with pytest.raises(InputError, match="expected a path"):
        create_snapshot(client, "docs", wrong)
    with pytest.raises(InputError, match="expected a path"):
        restore_snapshot(client, wrong, "back")


# Holds a temporary folder for a restore, until it is killed.
RESTORER = """
import signal
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.snapshots import restoring_folder
with restoring_folder(connect(":memory:")) as folder:
    (folder / "unpacked").write_text("points")
    print(folder, flush=True)
    signal.pause()
"""


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="no signal.pause on this system")
def test_what_a_killed_restore_left_is_removed_by_the_next_one_and_nothing_else(client, tmp_path, monkeypatch):
    create_snapshot(client, "docs", tmp_path / "one")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    foreign = scratch / "qdrant-tools-restoring-of-mine"
    foreign.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", RESTORER]
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as restorer:
        left = Path(restorer.stdout.readline().strip())
        restore_snapshot(connect(":memory:"), tmp_path / "one", "docs")
        assert (left / "unpacked").exists(), "in use"
        restorer.kill()
    restore_snapshot(connect(":memory:"), tmp_path / "one", "docs")
    assert list(scratch.iterdir()) == [foreign]


def test_what_an_engine_cannot_do_says_what_can(client, tmp_path):
    with pytest.raises(NotSupportedError, match="copy_collection"):
        create_snapshot(connect(":memory:"), "docs", tmp_path / "one")
    with pytest.raises(NotSupportedError, match="only a server restores"):
        restore_snapshot(client, "https://host/collections/docs/snapshots/one", "back")
    with pytest.raises(UsageError, match="give one"):
        create_snapshot(client, "docs")


@pytest.mark.skipif(SERVER is None, reason="a server runs where QDRANT_URL says")
def test_a_server_restores_a_snapshot_under_a_new_name_only():
    with closing(connect(SERVER or "")) as server:
        manager = CollectionManager(server)
        try:
            docs = manager.ensure("snapped", ENCODER)
            index_passages(docs, numbered(30), ENCODER)
            made = create_snapshot(server, "snapped")
            index_passages(docs, numbered(10, start=30), ENCODER)
            manager.ensure("other", ENCODER)
            manager.switch_alias("serving", "other")
            url = f"{SERVER}/collections/snapped/snapshots/{made.where}"
            for taken in ("snapped", "other", "serving"):
                with pytest.raises(CollectionExistsError, match=f"'{taken}' is there already"):
                    restore_snapshot(server, url, taken)
            assert restore_snapshot(server, url, "back") == 30 and made.points == 30
            assert docs.gateway.count() == 40 and manager.open("other").gateway.count() == 0
            assert given_identity(server, "back") != given_identity(server, "snapped")
        finally:
            for name in ("serving",):
                if name in manager.aliases():
                    manager.drop_alias(name)
            for name in manager.names():
                manager.drop(name)


def test_a_copy_that_was_interrupted_is_begun_again_and_never_served(client):
    manager = CollectionManager(client)

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_collection(client, "docs", client, "copy", batch_size=50, progress=stop)
    with pytest.raises(CollectionError, match="does not say which encoder"):
        manager.open("copy")
    assert copy_collection(client, "docs", client, "copy", batch_size=50) == 300
    assert not client.get_collection("copy").config.metadata[INCOMPLETE]
    same(manager.open("docs"), manager.open("copy", ENCODER))


def test_memory_refuses_a_copy_that_would_lose_something(client):
    manager = CollectionManager(client)
    settings = CollectionSettings(quantization=Quantization("int8"), lexical=Bm25())
    manager.ensure("small", ENCODER, settings=settings)
    with pytest.raises(NotSupportedError, match="no quantization"):
        copy_collection(client, "small", connect(":memory:"), "small")


def test_waiting_builds_what_is_due_and_tells_how_far_it_is(client):
    collection = CollectionManager(client).ensure("more", ENCODER)
    index_passages(collection, numbered(300), ENCODER)
    assert client.get_collection("more").status.value == "grey"
    told: list[int] = []
    assert wait_until_indexed(collection, progress=told.append)
    assert sum(told) == 300
    assert not wait_until_indexed(collection)
