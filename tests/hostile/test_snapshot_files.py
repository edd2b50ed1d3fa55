"""Snapshot files of strangers: nothing outside is written, nothing is left, and what they may take has a bound."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile

import archives
import numpy as np
import pytest
from bounds import Outside, state_of
from qdrant_client import models

from qdrant_tools.client.connect import connect
from qdrant_tools.collections import snapshot_file
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.errors import DamagedCollectionError, LocationError, NotSupportedError, PlusError

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A snapshot of a small collection, and the name of the folder in it."""
    folder = tmp_path_factory.mktemp("good")
    client = connect(folder / "index")
    client.create_collection("docs", vectors_config=models.VectorParams(size=4, distance="Dot"))
    client.upsert("docs", [models.PointStruct(id=i, vector=[1.0, 2.0, 3.0, i]) for i in range(20)])
    create_snapshot(client, "docs", folder / "good.snapshot")
    client.close()
    return folder / "good.snapshot"


def collection_in(good):
    return next(e.name.split("/")[1] for e, _ in archives.entries_of(good) if e.name.count("/") == 1)


CASES = archives.traversals(Outside(folder=snapshot_file.Path("/outside"), before=()).folder, "0" * 32)


@pytest.mark.parametrize("case", CASES)
def test_an_entry_that_no_snapshot_has_is_refused_and_writes_nothing(good, tmp_path, outside, case):
    extra = archives.traversals(outside.folder, collection_in(good))[case]
    file = archives.written(
        tmp_path / "hostile", archives.with_extra(archives.entries_of(good), [*extra, archives.file_entry("end")])
    )
    with pytest.raises(DamagedCollectionError, match="hostile") as refusal:
        snapshot_file.unpack(file, tmp_path / "unpacked")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
    assert {path.name for path in tmp_path.iterdir()} == {"hostile", "outside", "unpacked"}


@pytest.mark.parametrize("case", ["a link to a folder, then a file in it", "a chain of links longer than a path", "up"])
def test_the_command_refuses_and_leaves_neither_files_nor_a_collection(good, tmp_path, outside, refused, case):
    extra = archives.traversals(outside.folder, collection_in(good))[case]
    archives.written(tmp_path / "hostile", archives.with_extra(archives.entries_of(good), extra))
    line = refused("collection", "restore", "docs", "hostile", "--location", "index")
    assert "hostile" in line
    assert list((tmp_path / "index" / "collections").iterdir()) == []


BOMBS = {
    "a large header": lambda: archives.large_entry("snapshot.json", 200 * MEGABYTE, lambda n: archives.filled(n, b" ")),
    "a large extended header": lambda: large_kind(tarfile.XHDTYPE, 200 * MEGABYTE),
    "a large name of GNU": lambda: large_kind(tarfile.GNUTYPE_LONGNAME, 200 * MEGABYTE),
    "a deep header": lambda: archives.raw([archives.file_entry("snapshot.json", b"[" * 60_000)]),
    "zeros": lambda: in_shard(archives.zeros, 200 * MEGABYTE),
    "letters": lambda: in_shard(archives.filled, 150 * MEGABYTE),
    "zeros in many files": lambda: many(archives.zeros, 60 * MEGABYTE, 16),
}


WITH_THE_COMMAND = ("a large header", "a large extended header", "letters", "zeros in many files")


def large_kind(kind, size):
    entry = tarfile.TarInfo("large")
    entry.type, entry.size = kind, size
    yield entry.tobuf()
    yield from archives.filled(size)


def in_shard(blocks, size):
    yield from before_the_shard()
    yield from archives.large_entry(f"collections/{'0' * 32}/shard/x", size, blocks)


def many(blocks, size, count):
    yield from before_the_shard()
    for number in range(count):
        yield from archives.large_entry(f"collections/{'0' * 32}/shard/{number}", size, blocks)


def before_the_shard():
    collection = f"collections/{'0' * 32}"
    parents = [
        archives.kind_entry(name, tarfile.DIRTYPE) for name in ("collections", collection, f"{collection}/shard")
    ]
    return archives.raw([archives.header(), *parents], end=False)


@pytest.mark.parametrize("case", BOMBS)
def test_what_unpacks_to_very_much_is_refused_early(tmp_path, refused, case):
    file = archives.written(tmp_path / "bomb", BOMBS[case](), 9 if "zeros" in case else 1)
    assert file.stat().st_size < 2 * MEGABYTE
    if case in WITH_THE_COMMAND:
        assert "bomb" in refused("collection", "restore", "docs", "bomb", "--location", "index")
        assert list((tmp_path / "index" / "collections").iterdir()) == []
    with pytest.raises((DamagedCollectionError, NotSupportedError)):
        snapshot_file.unpack(file, tmp_path / "unpacked")
    assert case != "zeros in many files" or len(list(tmp_path.glob("unpacked/collections/*/shard/*"))) < 16
    taken = sum(path.stat().st_blocks * 512 for path in tmp_path.glob("unpacked/**/*") if path.is_file())
    assert taken < 64 * MEGABYTE


def test_very_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot_file, "MOST_ENTRIES", 500)
    names = (f"collections/{'0' * 32}/shard/{number}" for number in range(1000))
    entries = archives.raw(archives.kind_entry(name, tarfile.DIRTYPE) for name in names)
    file = archives.written(tmp_path / "many", (block for part in (before_the_shard(), entries) for block in part))
    with pytest.raises(DamagedCollectionError, match="many"):
        snapshot_file.unpack(file, tmp_path / "unpacked")
    assert len(list(tmp_path.glob("unpacked/collections/*/shard/*"))) < 600


def test_a_large_snapshot_may_have_more_entries():
    content = snapshot_file.Content(entries=25_000)
    assert not snapshot_file.Allowance(MEGABYTE).allows(content)
    assert snapshot_file.Allowance(10 * MEGABYTE).allows(content)


def test_a_long_name_in_the_gzip_header_and_very_many_streams_are_refused(good, tmp_path, refused):
    archives.members(tmp_path / "many", 200_000)
    assert "damaged or no snapshot" in refused("collection", "restore", "docs", "many", "--location", "index")
    archives.gzip_name(tmp_path / "named", good, 50 * MEGABYTE)
    client = connect(":memory:")
    assert restore_snapshot(client, tmp_path / "named", "docs") == 20


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content + content,
        lambda content: content + b"\0" * 100,
        lambda content: content + b"garbage",
        lambda content: content[:-1],
        lambda content: content[:-8] + b"\0\0\0\0" + content[-4:],
        lambda content: gzip.compress(gzip.decompress(content) + b"more"),
        lambda content: gzip.compress(gzip.decompress(content) + bytes(2 * MEGABYTE)),
        lambda content: gzip.compress(gzip.decompress(content)[:-11_000]),
        lambda content: b"",
        lambda content: content[:5],
    ],
    ids=[
        "twice",
        "zeros",
        "garbage",
        "cut",
        "checksum",
        "after the end",
        "endless zeros",
        "no end",
        "empty",
        "a beginning",
    ],
)
def test_what_follows_the_end_and_what_lacks_one_is_refused(good, tmp_path, edit):
    (tmp_path / "odd").write_bytes(edit(good.read_bytes()))
    with pytest.raises(DamagedCollectionError, match="odd"):
        restore_snapshot(connect(":memory:"), tmp_path / "odd", "docs")


@pytest.mark.parametrize(
    "header",
    [
        archives.file_entry("snapshot.json", b"[]"),
        archives.file_entry("snapshot.json", b"{}"),
        archives.header(format="embed-plus snapshot 2"),
        archives.header(collection=["docs"]),
        archives.header(points=True),
        archives.header(points=10**30),
        archives.header(collection="other"),
        archives.link_entry("snapshot.json", "/etc/passwd"),
    ],
    ids=["a list", "nothing", "another format", "no name", "no number", "another number", "another name", "a link"],
)
def test_a_header_that_says_something_else_is_refused(good, tmp_path, header):
    _, *rest = archives.entries_of(good)
    archives.written(tmp_path / "odd", archives.raw([header, *rest]))
    with pytest.raises((DamagedCollectionError, NotSupportedError), match="odd"):
        restore_snapshot(connect(":memory:"), tmp_path / "odd", "docs")


def test_a_pipe_and_a_device_are_no_snapshots(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(PlusError, match="regular file"):
            restore_snapshot(connect(":memory:"), path, "docs")


def test_a_snapshot_of_an_earlier_release_is_read(good, tmp_path):
    """`tar.add` wrote names that begin with a point, the time as a fraction, the owner, and the lock."""
    entries = []
    for entry, content in archives.entries_of(good):
        if entry.name != "snapshot.json":
            entry.name = f"./{entry.name}"
        entry.mtime, entry.uname, entry.pax_headers = 1.5, "somebody", {}
        entries.append((entry, content))
    entries.insert(1, archives.kind_entry(".", tarfile.DIRTYPE))
    entries.insert(2, archives.file_entry("./.lock", b"4711"))
    archives.written(tmp_path / "earlier", archives.raw(entries))
    assert restore_snapshot(connect(tmp_path / "index"), tmp_path / "earlier", "docs") == 20


def test_a_snapshot_that_was_unpacked_with_gunzip_is_read(good, tmp_path):
    (tmp_path / "plain").write_bytes(gzip.decompress(good.read_bytes()))
    assert restore_snapshot(connect(":memory:"), tmp_path / "plain", "docs") == 20


def test_equal_vectors_can_be_restored_although_they_are_very_small_when_packed(tmp_path, monkeypatch):
    # a smaller ratio instead of a larger collection
    monkeypatch.setattr(snapshot_file, "RATIO", 2)
    client = connect(tmp_path / "index")
    client.create_collection("docs", vectors_config=models.VectorParams(size=4096, distance="Dot"))
    points = [models.PointStruct(id=i, vector=np.full(4096, 0.5).tolist()) for i in range(1500)]
    for start in range(0, 1500, 500):
        client.upsert("docs", points[start : start + 500])
    made = create_snapshot(client, "docs", tmp_path / "one")
    assert made.bytes > 20 * MEGABYTE
    assert restore_snapshot(client, tmp_path / "one", "again") == 1500
    client.close()


def test_a_snapshot_tells_nothing_of_its_maker_and_is_private(good):
    assert stat.S_IMODE(good.stat().st_mode) == 0o600
    for entry, _ in archives.entries_of(good):
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")


def test_unpacked_files_are_private_and_zeros_are_holes(good, tmp_path):
    snapshot_file.unpack(good, tmp_path / "unpacked")
    for path in tmp_path.glob("unpacked/**/*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    pages = list(tmp_path.glob("unpacked/**/chunk_0.mmap"))
    assert pages and all(path.stat().st_blocks * 512 < path.stat().st_size // 8 for path in pages)


def test_a_snapshot_is_never_written_through_a_link_or_over_a_file(good, tmp_path, outside):
    client = connect(tmp_path / "index")
    restore_snapshot(client, good, "docs")
    (tmp_path / "new").symlink_to(outside.folder / "new")
    (tmp_path / "old").symlink_to(outside.secret)
    for name in ("new", "old"):
        with pytest.raises(LocationError, match="there already"):
            create_snapshot(client, "docs", tmp_path / name)
    client.close()
    assert state_of(outside.folder) == outside.before
