"""A folder that cannot be written, or shall not be, is searched all the same, and stays as it is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import aconnect, connect
from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.edge.storage.files import copy_folder
from qdrant_tools.edge.storage.tree import NEVER_WRITTEN
from qdrant_tools.errors import LocationBusyError, LocationError, UsageError

VECTORS = np.random.default_rng(7).normal(size=(3_000, 32)).astype(np.float32)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """Where private copies are made in these tests."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the collection `words` and the alias `live`."""
    with closing(connect(tmp_path / "data")) as client:
        words = CollectionManager(client).ensure("words", WordEncoder())
        words.index(numbered(60))
        words.build_index()
        CollectionManager(client).switch_alias("live", "words")
    return tmp_path / "data"


@pytest.fixture
def unwritable(request):
    """Takes the right to write a folder away, from root too, for whom only a mount is read-only."""

    def make(folder: Path) -> Path:
        if os.geteuid() != 0:
            for path in [folder, *folder.rglob("*")]:
                path.chmod(path.stat().st_mode & ~0o222)
            request.addfinalizer(lambda: [path.chmod(0o700) for path in [folder, *folder.rglob("*")]])
            return folder
        mounted = folder.with_name(f"{folder.name}-mounted")
        mounted.mkdir()
        done = subprocess.run(["mount", "--bind", folder, mounted], capture_output=True)
        if done.returncode:
            pytest.skip("root may write everywhere, and may not mount here")
        request.addfinalizer(lambda: subprocess.run(["umount", mounted], check=True))
        subprocess.run(["mount", "-o", "remount,bind,ro", mounted], check=True)
        return mounted

    return make


def content(folder: Path) -> dict[str, str]:
    """What a folder holds, by name."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def in_another_process(program: str) -> subprocess.CompletedProcess[str]:
    program = f"from qdrant_tools import *\n{program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_folder_that_cannot_be_written_is_searched_and_says_so_once(folder, unwritable, temporary, caplog):
    before = content(folder)
    with closing(connect(folder)) as client:
        expected = CollectionManager(client).open("live", WordEncoder()).search("word 7", k=5)
    closed = content(folder)
    mounted = unwritable(folder)
    with closing(connect(mounted)) as client:
        found = CollectionManager(client).open("live", WordEncoder())
        assert found.search("word 7", k=5) == expected
        assert found.describe().points == 60
        assert CollectionManager(client).aliases() == {"live": "words"}
        assert list(temporary.iterdir())
    assert [record.getMessage().count("cannot be written") for record in caplog.records] == [1]
    assert not list(temporary.iterdir()), "the copy goes with the client"
    assert content(folder) == closed and closed.keys() == before.keys()


CHANGES = {
    "index": lambda client: CollectionManager(client).open("words", WordEncoder()).index(numbered(61)),
    "delete": lambda client: client.delete("words", [1]),
    "set_payload": lambda client: client.set_payload("words", {"a": 1}, [1]),
    "upsert": lambda client: client.upsert("words", client.retrieve("words", [1]) or [POINT]),
    "create_collection": lambda client: client.create_collection("new", models.VectorParams(size=2, distance="Dot")),
    "delete_collection": lambda client: client.delete_collection("words"),
    "update_collection": lambda client: client.update_collection("words", metadata={"a": 1}),
    "create_payload_index": lambda client: client.create_payload_index("words", "metadata.a", "keyword"),
    "switch_alias": lambda client: CollectionManager(client).switch_alias("other", "words"),
    "build_index": lambda client: client.build_index("words"),
}
POINT = models.PointStruct(id=1, vector=[1.0] * WordEncoder().dimension)


def test_every_change_of_a_folder_that_is_only_read_is_refused_with_a_way_out(folder):
    before = content(folder)
    with closing(connect(folder, read_only=True)) as client:
        for name, change in CHANGES.items():
            with pytest.raises(LocationError, match="only be read") as info:
                change(client)
            assert str(folder) in str(info.value) and "copy_collection" in str(info.value), name
            assert "embed-plus collection copy NAME --to" in info.value.on_command_line, name
        assert client.count("words").count == 60
    assert content(folder) == before


def test_processes_that_only_read_share_a_folder_and_who_would_write_is_refused(folder, caplog):
    reading = f"connect({str(folder)!r}, read_only=True).get_collections()"
    with closing(connect(folder, read_only=True)) as client:
        assert client.count("words").count == 60
        assert in_another_process(reading).returncode == 0
        # one that did not say so finds the others, and reads too
        other = in_another_process(
            f"c = connect({str(folder)!r}); print(c.count('words').count); c.delete('words', [1])"
        )
        assert other.stdout == "60\n" and "other processes are reading it" in other.stderr
        assert "LocationError" in other.stderr and "only be read" in other.stderr
    with closing(connect(folder)):
        refused = in_another_process(reading)
        assert "LocationBusyError" in refused.stderr and f"pid {os.getpid()}" in refused.stderr
    assert not caplog.records, "who asks for it is told nothing"


def test_in_one_process_clients_of_a_folder_all_write_or_none(folder):
    with closing(connect(folder)), pytest.raises(LocationBusyError, match="open in this process to be written"):
        connect(folder, read_only=True)
    with closing(connect(folder, read_only=True)):
        with pytest.raises(LocationBusyError, match="with read_only=True"):
            connect(folder)
        with closing(connect(folder, read_only=True)) as second:
            assert second.count("words").count == 60


def test_vectors_and_graphs_are_read_where_they_are_and_the_rest_is_copied(tmp_path):
    with closing(connect(tmp_path / "large")) as client:
        client.create_collection("large", models.VectorParams(size=32, distance="Cosine"))
        client.upload_collection("large", VECTORS, payload=({"n": n} for n in range(len(VECTORS))), ids=range(3_000))
        client.update_collection("large", optimizers_config=models.OptimizersConfigDiff(indexing_threshold=10))
        client.build_index("large")
        expected = client.query_points("large", VECTORS[5].tolist(), limit=5).points
    with closing(connect(tmp_path / "large", read_only=True)) as client:
        assert client.get_collection("large").indexed_vectors_count == 3_000
        assert client.query_points("large", VECTORS[5].tolist(), limit=5).points == expected
        shard = client.engine.collection("large").folder / "shard"
        links = {path.name for path in shard.rglob("*") if path.is_symlink()}
        assert {"matrix.dat", "links_compressed.bin"} <= links <= NEVER_WRITTEN


def test_a_folder_whose_process_was_killed_is_read_with_every_write_it_acknowledged(tmp_path, folder):
    client = connect(folder)
    client.delete("words", models.FilterSelector(filter=models.Filter(must=[])))
    client.upsert("words", [POINT])
    copy_folder(folder, tmp_path / "copy")  # as a kill leaves it: nothing was closed
    client.close()
    with closing(connect(tmp_path / "copy", read_only=True)) as reading:
        assert [point.id for point in reading.scroll("words")[0]] == [1]


def test_a_collection_of_a_folder_that_is_only_read_can_be_taken_elsewhere(folder, tmp_path):
    with closing(connect(folder, read_only=True)) as client, closing(connect(tmp_path / "other")) as other:
        assert copy_collection(client, "words", other, "copied") == 60
        assert create_snapshot(client, "words", tmp_path / "words.snapshot").points == 60
        assert restore_snapshot(other, tmp_path / "words.snapshot", "restored") == 60


def test_what_is_damaged_is_named_where_it_lies_and_nothing_is_left(folder, temporary):
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(LocationError) as error:
        connect(folder, read_only=True)
    assert str(folder / "manifest.json") in str(error.value) and str(temporary) not in str(error.value)
    assert not list(temporary.iterdir())
    connect(folder.with_name("new")).close()  # and no lock is left either


def test_without_room_for_temporary_files_the_way_out_is_named(folder, unwritable, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(LocationError, match="let TMPDIR name one that can be written"):
        connect(folder, read_only=True)
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small]).returncode:
        pytest.skip("only who may mount can make a disk that is too small")
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        with (
            closing(connect(folder, read_only=True)) as client,
            pytest.raises(LocationError, match=r"takes \d+ MB of temporary files.*TMPDIR"),
        ):
            client.count("words")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_folder_without_collections_that_cannot_be_written_is_refused_as_ever(tmp_path, unwritable):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LocationError, match="cannot be written"):
        connect(unwritable(tmp_path / "empty"))
    with pytest.raises(LocationError, match="no collections at"):
        connect(tmp_path / "empty", read_only=True)


def test_what_is_no_folder_has_nothing_to_be_read_only():
    for location in (":memory:", "http://localhost:1"):
        with pytest.raises(UsageError, match="read_only is for a folder"):
            connect(location, read_only=True)
        with pytest.raises(UsageError, match="read_only is for a folder"):
            aconnect(location, read_only=True)


async def test_an_asynchronous_client_only_reads_too(folder):
    client = aconnect(folder, read_only=True)
    assert (await client.count("words")).count == 60
    with pytest.raises(LocationError, match="only be read"):
        await client.delete("words", [1])
    await client.close()
