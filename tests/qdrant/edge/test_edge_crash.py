"""What survives a kill, and what damage looks like: never a silently empty collection."""

from __future__ import annotations

import json
import os
import shutil
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from moments import dying
from programs import output, report, run, spawn
from qdrant_client import models

from qdrant_tools import connect
from qdrant_tools.edge.integrity.check import PointCount
from qdrant_tools.edge.storage import disk_space
from qdrant_tools.edge.storage.files import copy_folder
from qdrant_tools.errors import DamagedCollectionError, LocationBusyError, LocationError, NotSupportedError

VECTOR = models.VectorParams(size=4, distance=models.Distance.DOT)


def write_batches(folder):
    """Write batch after batch until this process is killed. Print the number of points after each acknowledged one."""
    client = connect(folder)
    if not client.collection_exists("docs"):
        client.create_collection("docs", VECTOR)
    stored = client.count("docs").count
    for start in range(stored, stored + 100_000, 10):
        ids = range(start, start + 10)
        client.upsert("docs", [models.PointStruct(id=i, vector=[i, 1, 0, 0], payload={"i": i}) for i in ids])
        report(ids[-1] + 1)


def delete_and_die(folder):
    """Delete 180 points, most of them one by one, and die."""
    client = connect(folder)
    for i in range(150):
        client.delete("docs", [i])
    client.delete("docs", models.Filter(must=[models.FieldCondition(key="i", range=models.Range(lt=180))]))
    os.kill(os.getpid(), signal.SIGKILL)


def killed_writer(folder, batches):
    """Run the writer, kill it after that many acknowledged batches, return how many points it acknowledged."""
    process = spawn(write_batches, folder)
    acknowledged = 0
    for _ in range(batches):
        acknowledged = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].split()
    return int(rest[-1]) if rest and rest[-1].isdigit() else acknowledged


@pytest.fixture
def filled(tmp_path):
    """A closed folder with one collection of 200 points."""
    client = connect(tmp_path)
    client.create_collection("docs", VECTOR)
    points = [models.PointStruct(id=i, vector=[i, 1, 0, 0], payload={"i": i}) for i in range(200)]
    client.upload_points("docs", points)
    client.close()
    return tmp_path


def remove_notes(folder):
    """Make a folder look as if its process had been killed and all notes were lost."""
    for name in ("seal.json", "progress.bin"):
        for path in folder.rglob(name):
            path.unlink()


def shard_files(folder, pattern):
    (collection,) = (folder / "collections").iterdir()
    return sorted(collection.glob(f"shard/segments/*/{pattern}"))


def test_acknowledged_points_survive_a_kill_again_and_again(tmp_path):
    acknowledged = 0
    for batches in (1, 20, 45):
        acknowledged = killed_writer(tmp_path, batches)
        client = connect(tmp_path)
        count = client.count("docs").count
        records, _ = client.scroll("docs", limit=count, with_vectors=True)
        client.close()
        assert count >= acknowledged
        assert [(r.id, r.payload["i"], r.vector[0]) for r in records] == [(i, i, i) for i in range(count)]
    assert acknowledged > 400


def test_a_kill_after_deletions_raises_no_false_alarm(filled):
    run(delete_and_die, filled)
    client = connect(filled)
    assert client.count("docs").count == 20
    client.close()


def test_a_changed_digit_in_the_point_count_is_an_error_that_names_its_file(filled):
    (file,) = filled.rglob("guard.json")
    written = file.read_text()
    file.write_text(written.replace('"at_least": 200', '"at_least": 900'))
    client = connect(filled)
    with pytest.raises(DamagedCollectionError, match="guard.json' is damaged.*delete it to open"):
        client.count("docs")
    client.close()
    file.write_text('{"at_least": 200, "optimized": null}')  # of an earlier release: without a checksum
    client = connect(filled)
    assert client.count("docs").count == 200
    client.upsert("docs", [models.PointStruct(id=200, vector=[1, 1, 0, 0])])
    client.close()
    assert json.loads(file.read_text()).keys() == {"at_least", "optimized", "checksum"}


def test_folders_that_a_crash_left_are_removed_on_open(filled):
    orphan = filled / "collections" / uuid.uuid4().hex
    (orphan / "shard").mkdir(parents=True)
    client = connect(filled)
    assert not orphan.exists()
    assert [c.name for c in client.get_collections().collections] == ["docs"]
    client.close()


def test_a_half_written_manifest_beside_the_old_one_does_no_harm(filled):
    (filled / "manifest.json.new").write_text('{"format"')
    client = connect(filled)
    assert client.count("docs").count == 200
    client.close()


@pytest.mark.parametrize("pattern", ["*id_tracker.mappings", "version.info"])
@pytest.mark.parametrize("with_notes", [True, False])
def test_removed_files_that_the_engine_does_not_miss_are_noticed(filled, pattern, with_notes):
    if not with_notes:
        remove_notes(filled)
    for path in shard_files(filled, pattern):
        path.unlink()
    client = connect(filled)
    with pytest.raises(DamagedCollectionError, match="collection 'docs'"):
        client.count("docs")
    client.close()


@pytest.mark.parametrize("pattern", ["segment.json", "version.info"])
@pytest.mark.parametrize("with_notes", [True, False])
def test_a_truncated_file_is_an_error_that_names_the_collection(filled, pattern, with_notes):
    if not with_notes:
        remove_notes(filled)
    for path in shard_files(filled, pattern):
        path.write_bytes(path.read_bytes()[:3])
    client = connect(filled)
    with pytest.raises(DamagedCollectionError, match="collection 'docs'"):
        client.count("docs")
    client.close()


def test_a_removed_collection_folder_is_an_error_and_the_others_serve(filled):
    client = connect(filled)
    client.create_collection("other", VECTOR)
    client.close()
    manifest = json.loads((filled / "manifest.json").read_text())
    shutil.rmtree(filled / "collections" / manifest["collections"]["docs"]["folder"])
    client = connect(filled)
    with pytest.raises(DamagedCollectionError, match="collection 'docs' has lost its files"):
        client.count("docs")
    assert client.count("other").count == 0
    assert client.delete_collection("docs")
    client.close()


def test_a_damaged_collection_can_be_dropped_and_made_again(filled):
    for path in shard_files(filled, "segment.json"):
        path.write_bytes(b"{")
    client = connect(filled)
    client.delete_collection("docs")
    client.create_collection("docs", VECTOR)
    assert client.count("docs").count == 0
    client.close()


def test_a_folder_is_free_after_its_holder_was_killed(tmp_path):
    process = spawn(write_batches, tmp_path)
    process.stdout.readline()
    with pytest.raises(LocationBusyError, match=f"pid {process.pid}"):
        connect(tmp_path)
    process.kill()
    process.communicate()
    connect(tmp_path).close()


def test_the_point_count_is_a_lower_bound_that_few_deletions_rewrite(tmp_path):
    count = PointCount(tmp_path)
    count.flushed(1000)
    writes = set()
    for _ in range(100):
        count.before_deleting(1)
        writes.add((tmp_path / "guard.json").read_text())
    assert json.loads((tmp_path / "guard.json").read_text())["at_least"] <= 900
    assert len(writes) <= 2
    PointCount(tmp_path).verify("docs", 900)
    with pytest.raises(DamagedCollectionError, match="holds 3 points"):
        PointCount(tmp_path).verify("docs", 3)


def flip(path):
    """Change one byte that holds something, or the first one."""
    content = bytearray(path.read_bytes())
    position = next((i for i, byte in enumerate(content) if byte), 0)
    content[position] ^= 0xFF
    path.write_bytes(bytes(content))


def test_a_flipped_byte_in_any_file_is_an_error_that_names_collection_and_file(filled, tmp_path_factory):
    files = [path.relative_to(filled) for path in filled.rglob("collections/*/shard/**/*") if path.is_file()]
    assert len(files) > 15
    for number, file in enumerate(files):
        copy = tmp_path_factory.mktemp("copy") / str(number)
        copy_folder(filled, copy)
        if (copy / file).stat().st_size == 0:
            continue
        flip(copy / file)
        client = connect(copy)
        with pytest.raises(DamagedCollectionError, match=f"collection 'docs' is damaged.*{file.name}"):
            client.count("docs")
        client.close()
        shutil.rmtree(copy)


@pytest.mark.parametrize("pattern", ["*id_tracker.mappings"])
def test_damage_that_would_end_the_process_is_met_in_a_child_after_a_crash(filled, pattern):
    remove_notes(filled)
    for path in shard_files(filled, pattern):
        flip(path)
    client = connect(filled)
    with pytest.raises(DamagedCollectionError, match="collection 'docs'"):
        client.count("docs")
    client.close()


def test_opening_and_reading_changes_no_checksum(filled):
    for _ in range(3):
        client = connect(filled)
        assert client.query_points("docs", [1.0, 0.0, 0.0, 0.0], limit=1).points[0].id == 199
        client.close()
    assert len(list(filled.rglob("seal.json"))) == 1


def test_checksums_are_not_those_of_a_closed_collection_while_it_is_open(filled):
    (checksums,) = filled.rglob("seal.json")
    client = connect(filled)
    client.count("docs")
    assert json.loads(checksums.read_text())["closed"] is False
    client.close()
    assert json.loads(checksums.read_text())["closed"] is True


def test_a_disk_without_room_is_an_error_before_anything_is_written(filled, monkeypatch):
    client = connect(filled)
    assert client.count("docs").count == 200
    monkeypatch.setattr(disk_space, "MARGIN", 1 << 60)
    for write in (
        lambda: client.upsert("docs", [models.PointStruct(id=1000, vector=[1, 0, 0, 0])]),
        lambda: client.build_index("docs"),
    ):
        with pytest.raises(LocationError, match="no space left.*nothing was written"):
            write()
    monkeypatch.undo()
    assert client.count("docs").count == 200
    client.close()


def use_after_fork(folder):
    """A forked child is refused, and its parent goes on."""
    client = connect(folder)
    before = client.count("docs").count
    child = os.fork()
    if child == 0:
        try:
            client.count("docs")
        except NotSupportedError as error:
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.count("docs").count == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_is_told_to_connect_for_itself(filled):
    output(use_after_fork, filled)


def test_threads_write_and_read_one_collection(filled):
    client = connect(filled)

    def work(worker):
        for i in range(20):
            client.upsert("docs", [models.PointStruct(id=1000 + worker * 100 + i, vector=[1, 0, 0, 0])])
            assert client.query_points("docs", [1.0, 0.0, 0.0, 0.0], limit=1).points
        return worker

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(work, range(4))) == [0, 1, 2, 3]
    assert client.count("docs").count == 200 + 80
    client.close()


def replace_collections(folder, first, owner, name, moment, nth):
    """Replace the collection behind an alias again and again: create, fill, switch, delete. Die at the nth call."""
    client = connect(folder)
    dying({"client": client, "os": os}[owner], [name], int(nth), moment)
    names = [c.name for c in client.get_collections().collections]
    for i in range(len(names) + int(first), 10_000):
        client.create_collection(f"docs-{i}", VECTOR, metadata={"i": i})
        client.upsert(f"docs-{i}", [models.PointStruct(id=1, vector=[i, 0, 0, 0], payload={"i": i})])
        create = models.CreateAlias(collection_name=f"docs-{i}", alias_name="live")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
        report("live", i)
        for name in [c.name for c in client.get_collections().collections if c.name != f"docs-{i}"]:
            client.delete_collection(name)


REPLACEMENTS = [
    ("client", "upsert", "before", 3),
    ("client", "update_collection_aliases", "before", 2),
    ("client", "update_collection_aliases", "after", 2),
    ("client", "delete_collection", "before", 2),
    ("client", "create_collection", "after", 3),
    *(("os", "replace", moment, nth) for moment, nth in (("before", 7), ("after", 8), ("before", 9))),
]
"""A kill between the steps of a replacement, and, at a replaced file, in the middle of one."""


def test_a_kill_while_collections_are_replaced_leaves_the_alias_serving(tmp_path):
    live = -1
    for batch, (owner, name, moment, nth) in enumerate(REPLACEMENTS):
        done = run(replace_collections, tmp_path, 1000 * batch, owner, name, moment, nth)
        assert done.returncode == -signal.SIGKILL, f"{name} was not reached {nth} times"
        switched = [line for line in done.stdout.splitlines() if line.startswith("live ")]
        live = int(switched[-1].split()[1]) if switched else live
        client = connect(tmp_path)
        (record,) = client.retrieve("live", [1])
        assert record.payload["i"] >= live
        assert client.get_collection("live").config.metadata == record.payload
        names = [c.name for c in client.get_collections().collections]
        assert len(names) <= 3 + batch, "at most one that was to be deleted is left by each kill"
        assert len(list((tmp_path / "collections").iterdir())) == len(names)
        assert all(client.count(name).count in (0, 1) for name in names)
        client.close()
