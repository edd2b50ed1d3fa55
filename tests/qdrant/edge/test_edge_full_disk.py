"""What a full disk does to the embedded engine: an error before anything is written, never the end of the process.

The disk is a small file system. Every case runs in a process of its own, because what it guards against ends the
process: each test runs the program above it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import output, report
from qdrant_client import models

from qdrant_tools import connect
from qdrant_tools.collections.snapshots import create_snapshot
from qdrant_tools.edge.convert.checks import VectorSchema, VectorShape
from qdrant_tools.edge.storage.disk_space import Sizes, payload_bytes, point_sizes
from qdrant_tools.edge.storage.files import replace_file
from qdrant_tools.errors import LocationError

MEGABYTE = 1 << 20
VECTOR = models.VectorParams(size=4, distance=models.Distance.DOT)


# -- what the programs share


def incompressible(megabytes):
    """Text that does not compress below half."""
    return random.Random(0).randbytes(megabytes * MEGABYTE // 2).hex()


def point(i, payload):
    return models.PointStruct(id=i, vector=[float(i), 1.0, 0.0, 0.0], payload=payload)


def opened(folder, count=200):
    client = connect(folder)
    client.create_collection("docs", VECTOR)
    client.upload_points("docs", [point(i, {"i": i}) for i in range(count)])
    client.close()
    client = connect(folder)  # a file system in memory fills the holes of files of vectors when they are opened
    client.count("docs")
    return client


def add_large_payloads(client):
    """Ten points of two megabytes each, flushed."""
    text = incompressible(12)
    for i in range(10):
        client.upsert("docs", [point(1000 + i, {"t": text[i * MEGABYTE : (i + 2) * MEGABYTE]})])
    client.flush("docs")


def leave(disk, free):
    """Fill the disk up to this many bytes."""
    with open(disk / "filler", "ab") as file:
        while (used := int(shutil.disk_usage(disk).free - free) // 4096) > 0:
            while used:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), used * 4096)
                    break
                except OSError:  # the file system needs some blocks for itself
                    used //= 2
            if not used:
                break


def refused(write):
    """Whether a write is refused for want of room."""
    try:
        write()
    except LocationError as error:
        assert "no space left" in str(error), error
        return True
    return False


def state(client):
    records, _ = client.scroll("docs", limit=10_000, with_vectors=True)
    return [(record.id, record.vector, record.payload) for record in records]


def below(limit):
    return models.Filter(must=[models.FieldCondition(key="i", range=models.Range(lt=limit))])


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request, tmp_path):
    """A file system of its own: 160 MB in memory, or 160 MB in a file."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs Linux and root")
    folder = tmp_path / "disk"
    folder.mkdir()
    commands = [["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)]]
    if request.param == "ext4":
        image = str(tmp_path / "image")
        make = ["mkfs.ext4", "-q", "-m", "0", image]
        commands = [["truncate", "-s", "160M", image], make, ["mount", "-o", "loop", image, str(folder)]]
    for command in commands:
        if shutil.which(command[0]) is None:
            pytest.skip(f"a small file system cannot be mounted here: no {command[0]}")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


# -- the cases


def upsert_too_large_a_payload(disk):
    disk = Path(disk)
    client = opened(disk / "data")
    leave(disk, 30 * MEGABYTE)
    before = state(client)
    assert refused(lambda: client.upsert("docs", [point(1000, {"t": incompressible(25)})]))
    assert state(client) == before
    client.upsert("docs", [point(1001, {"t": "small"})])
    client.close()
    client = connect(disk / "data")
    assert client.count("docs").count == 201
    client.close()


def test_a_payload_that_does_not_fit_is_refused_and_nothing_is_written(disk):
    output(upsert_too_large_a_payload, disk)


def set_payloads_of_many_points(disk):
    disk = Path(disk)
    client = opened(disk / "data")
    leave(disk, 20 * MEGABYTE)
    before = state(client)
    payload = {"t": incompressible(3)}
    for points in (list(range(10)), below(10)):
        for change in (client.set_payload, client.overwrite_payload):
            assert refused(lambda change=change, points=points: change("docs", payload, points))
    assert state(client) == before
    client.close()
    client = connect(disk / "data")
    assert state(client) == before
    client.close()


def test_set_payload_counts_every_point_that_it_changes(disk):
    output(set_payloads_of_many_points, disk)


def change_large_points_a_little(disk):
    disk = Path(disk)
    client = opened(disk / "data")
    add_large_payloads(client)
    before = state(client)
    leave(disk, 14 * MEGABYTE)
    assert refused(lambda: client.set_payload("docs", {"small": 1}, list(range(1000, 1010))))
    assert refused(lambda: client.delete_payload("docs", ["i"], models.Filter()))
    assert state(client) == before
    client.set_payload("docs", {"small": 1}, [5])
    client.close()


def test_a_small_change_of_points_with_large_payloads_counts_the_large_ones(disk):
    output(change_large_points_a_little, disk)


def write_until_the_disk_is_full(disk):
    disk = Path(disk)
    client = opened(disk / "data")
    client.create_payload_index("docs", "t", "text")
    client.close()
    client = connect(disk / "data")
    client.count("docs")
    leave(disk, 45 * MEGABYTE)
    r = random.Random(int(os.environ.get("SEED", "1")))
    text = incompressible(60)
    written = dict.fromkeys(range(200))
    refusals = step = 0
    while refusals <= 30 and step < 3000:
        write, after = random_write(client, r, text, written, step)
        step += 1
        if refused(write):
            refusals += 1
        else:
            written.update(after)
    assert {row[0]: row[2].get("t") for row in state(client)} == written
    client.delete("docs", sorted(written)[:50])
    client.close()
    client = connect(disk / "data")
    left = dict(sorted(written.items())[50:])
    assert {row[0]: row[2].get("t") for row in state(client)} == left
    client.close()
    report(len(written), refusals)


def random_write(client, r, text, written, step):
    """A write of any kind, and the texts of the points after it."""
    size = r.choice([10, 1000, 100_000, 1_000_000])
    begin = r.randrange(len(text) - size)
    new = text[begin : begin + size]
    ids = r.sample(sorted(written), r.randrange(1, 4))
    kind = r.choice(["upsert", "set_payload", "overwrite_payload", "update_vectors"])
    if kind == "upsert":
        ids = range(1000 + step * 10, 1000 + step * 10 + r.randrange(1, 8))
        return lambda: client.upsert("docs", [point(i, {"t": new}) for i in ids]), dict.fromkeys(ids, new)
    if kind == "update_vectors":
        vectors = [models.PointVectors(id=ids[0], vector=[1.0, 2.0, 3.0, 4.0])]
        return lambda: client.update_vectors("docs", vectors), {}
    return lambda: getattr(client, kind)("docs", {"t": new}, ids), dict.fromkeys(ids, new)


def test_writes_of_every_kind_until_the_disk_is_full_end_in_an_error_and_lose_nothing(disk):
    stored, refusals = map(int, output(write_until_the_disk_is_full, disk).split())
    assert stored > 200 and refusals > 30


def delete_and_drop_on_a_full_disk(disk):
    disk = Path(disk)
    client = opened(disk / "data", 2000)
    client.create_collection("other", VECTOR)
    leave(disk, 0)
    assert shutil.disk_usage(disk).free < 100_000
    client.delete("docs", list(range(500)))
    client.delete("docs", below(1000))
    assert client.count("docs").count == 1000
    client.close()
    leave(disk, 0)
    client = connect(disk / "data")
    assert [row[0] for row in state(client)] == list(range(1000, 2000))
    client.query_points("docs", [1.0, 0.0, 0.0, 0.0])
    assert refused(lambda: client.create_collection("third", VECTOR))
    assert client.delete_collection("other")
    client.close()


def test_on_a_full_disk_points_are_deleted_and_collections_dropped_and_opened(disk):
    output(delete_and_drop_on_a_full_disk, disk)


def open_after_a_kill_on_a_full_disk(disk):
    disk = Path(disk)
    pid = os.fork()
    if pid == 0:
        client = opened(disk / "data")
        text = incompressible(1)
        client.upsert("docs", [point(1000 + i, {"t": text[:1000]}) for i in range(500)])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    leave(disk, 0)
    try:
        client = connect(disk / "data")
        count = client.count("docs").count
        client.close()
    except LocationError as error:
        assert ("disk" in str(error) and "full" in str(error)) or "no space left" in str(error), error
    else:
        assert count == 700
    (disk / "filler").unlink()
    client = connect(disk / "data")
    assert client.count("docs").count == 700
    client.close()


def test_a_killed_collection_opens_on_a_full_disk_or_says_that_the_disk_is_full(disk):
    output(open_after_a_kill_on_a_full_disk, disk)


def snapshot_and_build_without_room(disk):
    disk = Path(disk)
    client = opened(disk / "data")
    add_large_payloads(client)
    leave(disk, 9 * MEGABYTE)
    before = sorted(path.name for path in disk.iterdir())
    folders = sorted(path.name for path in (disk / "data" / "collections").iterdir())
    with pytest.raises(LocationError):
        create_snapshot(client, "docs", disk / "docs.tar.gz")
    assert refused(lambda: client.build_index("docs"))
    assert refused(lambda: client.create_payload_index("docs", "t", "text"))
    assert sorted(path.name for path in disk.iterdir()) == before
    assert sorted(path.name for path in (disk / "data" / "collections").iterdir()) == folders
    assert client.count("docs").count == 210
    client.close()


def test_a_snapshot_and_an_index_that_do_not_fit_are_errors_and_leave_nothing(disk):
    output(snapshot_and_build_without_room, disk)


def replace_a_file_without_room(disk):
    disk = Path(disk)
    (disk / "one").write_text("old")
    leave(disk, 0)
    with pytest.raises(LocationError):
        replace_file(disk / "one", "x" * MEGABYTE)
    assert (disk / "one").read_text() == "old"
    assert sorted(path.name for path in disk.iterdir() if path.is_file()) == ["filler", "one"]


def test_a_replaced_file_that_finds_no_room_leaves_no_draft(disk):
    output(replace_a_file_without_room, disk)


# -- the estimate is an upper bound of what is measured


def used(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(
    "payload",
    [
        lambda i: {"i": i},
        lambda i: {"t": os.urandom(1000).hex()},
        lambda i: {"t": " ".join(os.urandom(3).hex() for _ in range(200))},
        lambda i: {"t": [j * 2**40 + i for j in range(100)]},
        lambda i: {"t": {"a": [{"b": float(i * j)} for j in range(30)]}},
    ],
)
def test_an_upsert_takes_no_more_room_than_was_asked_for(tmp_path, payload, indexed):
    client = connect(tmp_path)
    client.create_collection("docs", {"v": models.VectorParams(size=32, distance="Cosine")})
    if indexed:
        client.create_payload_index("docs", "t", "keyword")
        client.create_payload_index("docs", "t[]", "integer")
    schema = VectorSchema("docs", {"v": VectorShape(32)}, frozenset())
    points = [models.PointStruct(id=i, vector={"v": [float(i)] * 32}, payload=payload(i)) for i in range(400)]
    before = used(tmp_path)
    client.upsert("docs", points)
    client.flush("docs")
    asked = point_sizes(points, schema).needed(2 if indexed else 0)
    assert used(tmp_path) - before <= asked + 2 * MEGABYTE
    client.close()
    shutil.rmtree(tmp_path)


def test_sizes_count_all_kinds_of_vectors():
    shapes = {"v": VectorShape(4), "m": VectorShape(2, multi=True)}
    schema = VectorSchema("docs", shapes, frozenset({"s"}))
    vector = {"v": [1.0] * 4, "m": [[1.0, 2.0]] * 3, "s": models.SparseVector(indices=[1, 2], values=[1.0, 2.0])}
    points = [models.PointStruct(id=1, vector=vector, payload={"t": "abc"})] * 2
    sizes = point_sizes(points, schema)
    assert sizes == Sizes(2, 2 * (4 + 18), 2 * (2 + 4), payload_bytes([{"t": "abc"}] * 2))
    batch = models.Batch(ids=[1, 2], vectors={name: [each] * 2 for name, each in vector.items()}, payloads=None)
    assert point_sizes(batch, schema) == Sizes(2, sizes.numbers, sizes.sparse_numbers, payload_bytes([]))
