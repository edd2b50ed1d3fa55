"""The files of a folder of collections: whatever happens to them, nothing that could be a collection is removed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import uuid
from pathlib import Path

import pytest
from programs import output, report, spawn
from qdrant_client import models

from qdrant_tools import connect
from qdrant_tools.collections.copying import INCOMPLETE
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.edge.storage import build
from qdrant_tools.edge.storage.collection_folder import Mark
from qdrant_tools.edge.storage.files import FolderLock, checksummed_json, copy_folder
from qdrant_tools.edge.storage.manifest import Manifest
from qdrant_tools.edge.storage.recover import recover
from qdrant_tools.errors import CollectionNotFoundError, InputError, LocationBusyError, LocationError

VECTOR = models.VectorParams(size=16, distance=models.Distance.DOT)
EAGER = models.OptimizersConfigDiff(indexing_threshold=1)
MANIFEST, PREVIOUS = "manifest.json", "manifest.previous.json"


def alias(name, target):
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=target, alias_name=name))


def unalias(name):
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))


def create(client, name, points=3, **settings):
    client.create_collection(name, VECTOR, metadata={"space": f"{name}@0123456789ab"}, **settings)
    vector = [1.0] * (VECTOR.size - 1)
    client.upsert(name, [models.PointStruct(id=i, vector=[i, *vector], payload={"of": name}) for i in range(points)])


def state(client):
    """Everything that a client can tell: settings, metadata, points, aliases."""
    names = sorted(row.name for row in client.get_collections().collections)
    rows = {
        name: (
            client.get_collection(name).config.model_dump(mode="json"),
            [(r.id, r.payload, r.vector) for r in client.scroll(name, limit=1000, with_vectors=True)[0]],
        )
        for name in names
    }
    return rows, {row.alias_name: row.collection_name for row in client.get_aliases().aliases}


def opened_state(folder):
    client = connect(folder, create=False)
    try:
        return state(client)
    finally:
        client.close()


def folders(folder):
    return sorted(path.name for path in (folder / "collections").iterdir())


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A closed folder with two collections, an alias to each, and what they hold."""
    folder = tmp_path_factory.mktemp("template") / "f"
    client = connect(folder)
    create(client, "docs", 60, optimizers_config=EAGER)
    create(client, "ünï code", 5)
    client.update_collection_aliases([alias("live", "docs"), alias("next", "ünï code")])
    held = state(client)
    client.close()
    return folder, held


@pytest.fixture
def folder(template, tmp_path):
    return copied(template[0], tmp_path / "f")


def copied(source, target):
    """Copy a folder; holes stay holes, of which the log of a collection mostly consists."""
    copy_folder(source, target)
    return target


@pytest.fixture
def held(template):
    return template[1]


# -- the manifest is lost, damaged, old


@pytest.mark.parametrize("gone", [[MANIFEST], [MANIFEST, PREVIOUS]])
def test_a_lost_manifest_is_an_error_and_everything_comes_back(folder, held, gone):
    before = folders(folder)
    for name in gone:
        (folder / name).unlink()
    for create_it in (True, False):
        with pytest.raises(
            LocationError, match="is missing.*2 collection folders.*embed-plus collection recover --loc"
        ):
            connect(folder, create=create_it)
    assert folders(folder) == before
    recovery = recover(folder)
    assert [row.name for row in recovery.collections] == ["docs", "ünï code"] and recovery.left == {}
    assert opened_state(folder) == held


def test_a_lost_manifest_counts_a_single_folder_rightly(tmp_path):
    client = connect(tmp_path)
    create(client, "docs")
    client.close()
    for name in (MANIFEST, PREVIOUS):
        (tmp_path / name).unlink()
    with pytest.raises(LocationError, match="holds 1 collection folder; nothing was changed"):
        connect(tmp_path)


def flipped_manifests(manifest: bytes):
    rng = random.Random(0)
    positions = range(len(manifest) * 8)
    for bit in sorted(rng.sample(positions, 260)):
        changed = bytearray(manifest)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def outcome(folder, held):
    """Connect; either an error of ours that changes nothing, or all that was there."""
    before = folders(folder)
    try:
        client = connect(folder, create=False)
    except LocationError as error:
        assert "\n" not in str(error)
        assert folders(folder) == before
        return "refused"
    try:
        rows, aliases = held
        assert {row.name for row in client.get_collections().collections} == set(rows)
        assert {row.alias_name: row.collection_name for row in client.get_aliases().aliases} == aliases
        for name, (config, _) in rows.items():
            settings = Manifest.load(folder).collections[name].settings
            assert settings["metadata"] == config["metadata"] and settings["vectors"]["size"] == 16
    finally:
        client.close()
    assert folders(folder) == before
    return "unchanged"


def test_a_flipped_bit_anywhere_in_the_manifest_is_an_error_or_changes_nothing(folder, held):
    whole = (folder / MANIFEST).read_bytes()
    seen = []
    for damaged in flipped_manifests(whole):
        (folder / MANIFEST).write_bytes(damaged)
        seen.append(outcome(folder, held))
        (folder / MANIFEST).write_bytes(whole)
    assert seen.count("refused") > 200, "white space aside, every flip is seen"
    assert opened_state(folder) == held


@pytest.mark.parametrize("name", [PREVIOUS, "collections/*/collection.json"])
def test_a_flipped_bit_in_what_the_manifest_can_do_without_changes_nothing(folder, held, name):
    path = next(iter(sorted(folder.glob(name))))
    whole = path.read_bytes()
    manifest = (folder / MANIFEST).read_bytes()
    for damaged in list(flipped_manifests(whole))[::5]:
        path.write_bytes(damaged)
        assert outcome(folder, held) == "unchanged"
        assert (folder / MANIFEST).read_bytes() == manifest
    assert opened_state(folder) == held


def checksummed(document):
    """A document with the checksum that it would have, had it been written so."""
    return checksummed_json({name: value for name, value in document.items() if name != "checksum"})


def edited(change):
    def edit(text):
        document = json.loads(text)
        change(document)
        return checksummed(document)

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: "null",
        lambda text: "[" * 100_000,
        edited(lambda d: d.update(aliases={"live": "gone"})),
        edited(lambda d: d.update(aliases={"docs": "docs"})),
        edited(lambda d: d.update(aliases=["live"])),
        edited(lambda d: d.update(generation="4")),
        edited(lambda d: d.update(generation=-1)),
        edited(lambda d: d["collections"]["docs"].update(folder="../x")),
        edited(lambda d: d["collections"]["docs"].update(folder=None)),
        edited(lambda d: d["collections"]["docs"].update(settings={"vectors": {"size": "many"}})),
        edited(lambda d: d["collections"]["docs"].update(settings=None)),
        edited(lambda d: d["collections"].update(docs=3)),
        edited(lambda d: d["collections"].update(other=d["collections"]["docs"])),
        edited(lambda d: d.pop("collections")),
        edited(lambda d: d.update(format="another program's")),
        lambda text: text.replace('"version": 2', '"version": 1'),
        lambda text: text.replace('"version": 2', '"version": true'),
    ],
)
def test_a_manifest_that_makes_no_sense_is_one_error_and_recovered(folder, held, edit):
    path = folder / MANIFEST
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(LocationError, match="is damaged.*embed-plus collection recover") as error:
        connect(folder)
    assert "\n" not in str(error.value)
    recover(folder)
    assert opened_state(folder) == held


def test_bytes_that_are_no_text_are_an_error(folder):
    (folder / MANIFEST).write_bytes(b"\xff\xfe{}")
    with pytest.raises(LocationError, match="is damaged"):
        connect(folder)


def test_a_manifest_of_a_newer_release_says_so(folder):
    path = folder / MANIFEST
    path.write_text(edited(lambda d: d.update(version=3))(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(LocationError, match="version 3.*install a newer release"):
        connect(folder)


@pytest.mark.parametrize(
    "since",
    [
        lambda client: create(client, "later"),
        lambda client: client.update_collection_aliases([unalias("live")]),
        lambda client: client.update_collection("docs", metadata={"space": "other"}),
        lambda client: client.delete_collection("docs"),
        lambda client: (client.delete_collection("docs"), create(client, "docs", 7)),
    ],
)
def test_an_older_manifest_put_back_is_an_error_and_recovery_knows_what_came_since(folder, since):
    old = (folder / MANIFEST).read_bytes()
    client = connect(folder)
    since(client)
    held = state(client)
    client.close()
    before = folders(folder)
    (folder / MANIFEST).write_bytes(old)
    with pytest.raises(LocationError, match="older than.*embed-plus collection recover"):
        connect(folder)
    assert folders(folder) == before
    recover(folder)
    assert opened_state(folder) == held


@pytest.mark.parametrize("previous", [True, False])
def test_a_much_older_manifest_put_back_deletes_nothing(folder, previous):
    old = (folder / MANIFEST).read_bytes()
    client = connect(folder)
    for i in range(3):
        create(client, f"later-{i}")
    client.update_collection_aliases([alias("newest", "later-2")])
    held = state(client)
    client.close()
    (folder / MANIFEST).write_bytes(old)
    if not previous:
        (folder / PREVIOUS).unlink()
    with pytest.raises(LocationError, match="older than"):
        connect(folder)
    recover(folder)
    assert opened_state(folder) == held


def version_1(folder):
    """Make a folder what the first release left: no checksum, no generations, no descriptions."""
    document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    rows = {n: {"folder": r["folder"], "settings": r["settings"]} for n, r in document["collections"].items()}
    first = {"format": document["format"], "version": 1, "collections": rows, "aliases": document["aliases"]}
    (folder / MANIFEST).write_text(json.dumps(first, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / PREVIOUS).unlink()
    for path in folder.glob("collections/*/collection.json"):
        path.unlink()


def test_a_folder_of_the_first_release_opens_and_can_be_recovered_from_then_on(folder, held):
    version_1(folder)
    assert opened_state(folder) == held
    assert Manifest.load(folder).generation == 1
    (folder / MANIFEST).unlink()
    recover(folder)
    assert opened_state(folder) == held


def test_the_manifest_of_a_first_release_put_back_is_refused(folder):
    path = folder / MANIFEST
    new = path.read_bytes()
    version_1(folder)
    old = path.read_bytes()
    client = connect(folder)
    create(client, "later")
    client.close()
    path.write_bytes(old)
    with pytest.raises(LocationError, match="older than"):
        connect(folder)
    assert new != old and len(folders(folder)) == 3


def test_a_change_that_cannot_be_saved_changes_nothing(folder, held, monkeypatch):
    monkeypatch.setattr(build, "IN_PROCESS_BYTES", -1)  # beside the collection, however small it is
    client = connect(folder)
    assert state(client) == held
    (folder / "manifest.json.new").mkdir()  # no file can be written in its place
    changes = [
        lambda: client.create_collection("new", VECTOR),
        lambda: client.delete_collection("docs"),
        lambda: client.update_collection("docs", metadata={"changed": True}),
        lambda: client.update_collection_aliases([alias("live", "ünï code"), unalias("next")]),
        lambda: client.build_index("docs"),
    ]
    for change in changes:
        with pytest.raises(LocationError, match="cannot be written"):
            change()
        assert state(client) == held and len(folders(folder)) == 2
    client.close()
    assert opened_state(folder) == held
    (folder / "manifest.json.new").rmdir()
    client = connect(folder)
    client.delete_collection("docs")
    create(client, "docs", 7)
    held = state(client)
    client.close()
    assert opened_state(folder) == held


# -- folders that the manifest does not name


def test_a_folder_without_a_mark_is_kept_said_and_brought_back(folder, held, caplog):
    (docs,) = [p.parent for p in folder.glob("collections/*/collection.json") if '"docs"' in p.read_text()]
    copy = copied(docs, docs.with_name(uuid.uuid4().hex))
    assert opened_state(folder) == held
    assert copy.exists() and "holds collection 'docs'" in caplog.text and "is kept" in caplog.text
    planned = recover(folder, dry_run=True)
    assert planned.changed and not (copy / "x").exists() and opened_state(folder) == held
    (back,) = [row for row in recover(folder).collections if row.formerly]
    assert (back.name, back.formerly, back.folder) == ("docs-recovered", "docs", copy)
    rows, aliases = opened_state(folder)
    assert rows["docs-recovered"] == rows["docs"] == held[0]["docs"] and aliases == held[1]
    assert not recover(folder).changed


def test_a_folder_whose_description_is_gone_or_damaged_is_left_alone_and_named(folder, held):
    stray = folder / "collections" / uuid.uuid4().hex
    stray.mkdir()
    (stray / "points").write_text("points")
    marked = folder / "collections" / uuid.uuid4().hex
    marked.mkdir()
    (marked / Mark.DELETING.value).write_text('{"damaged')
    assert opened_state(folder) == held
    recovery = recover(folder)
    assert set(recovery.left) == {stray, marked} and not recovery.changed
    (folder / MANIFEST).unlink()
    assert set(recover(folder).left) == {stray, marked}
    assert (stray / "points").read_text() == "points" and marked.exists()


def test_two_folders_of_one_name_the_newer_gets_it(folder, tmp_path):
    older = copied(folder, tmp_path / "older")
    client = connect(folder)
    client.update_collection("docs", metadata={"newer": True})
    newest = state(client)
    client.close()
    (docs,) = [p.parent for p in older.glob("collections/*/collection.json") if '"docs"' in p.read_text()]
    copied(docs, folder / "collections" / uuid.uuid4().hex)
    for name in (MANIFEST, PREVIOUS):
        (folder / name).unlink()
    assert not recover(folder, dry_run=True).left and not (folder / MANIFEST).exists()
    recover(folder)
    rows, aliases = opened_state(folder)
    assert {name: rows[name] for name in newest[0]} == newest[0] and aliases == newest[1]
    assert "newer" not in rows["docs-recovered"][0]["metadata"]


def test_recovery_of_a_folder_that_needs_none_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    recovery = recover(folder)
    assert (recovery.changed, recovery.reason) == (False, None)
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


def recover_or_busy(folder):
    try:
        recover(Path(folder))
    except LocationBusyError:
        report("busy")


def test_recovery_takes_the_lock_and_wants_collections(folder, tmp_path):
    lock = FolderLock(folder)
    try:
        assert output(recover_or_busy, folder) == "busy\n"
    finally:
        lock.release()
    with pytest.raises(LocationError, match="no collections at"):
        recover(tmp_path / "typo")


# -- a kill at every file operation


def made(folder):
    folder.mkdir(exist_ok=True)
    return folder


EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR
TASKS = {
    "create": lambda client, folder: client.create_collection("new", VECTOR, metadata={"of": "new"}),
    "drop": lambda client, folder: client.delete_collection("docs"),
    "settings": lambda client, folder: client.update_collection("docs", metadata={"changed": True}),
    "aliases": lambda client, folder: client.update_collection_aliases([alias("live", "ünï code")]),
    "exchange": lambda client, folder: client.build_index("docs") or os._exit(3),
    "snapshot": lambda client, folder: create_snapshot(client, "docs", made(folder.parent / "out") / "docs.snapshot"),
    "restore": lambda client, folder: restore_snapshot(client, folder.parent.parent / "docs.snapshot", "restored"),
}


def kill_at_file_operations(task):
    """Read folders and numbers; do the task in each folder in a child that kills itself before the file operation of
    that number; print how the child ended. The parent never opens the engine, so that it can be forked.
    """
    build.IN_PROCESS_BYTES = -1
    for line in sys.stdin:
        folder, number = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            try:
                client = connect(folder)
                die_at(Path(folder), int(number))
                TASKS[task](client, Path(folder))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        report(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def die_at(folder, number):
    left = [number]

    def hook(event, arguments):
        writes = event in EVENTS or (event == "open" and arguments[2] & WRITING)
        path = str(arguments[0]) if writes else ""
        # one copied file of a shard is like another
        if path.startswith(str(folder.parent)) and "/shard/" not in path:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)


def after(held, task):
    """What is there when the task is done, as far as it can be known beforehand."""
    rows, aliases = dict(held[0]), dict(held[1])
    if task == "drop":
        del rows["docs"], aliases["live"]
    elif task == "settings":
        config, points = rows["docs"]
        rows["docs"] = ({**config, "metadata": {**config["metadata"], "changed": True}}, points)
    elif task == "aliases":
        aliases["live"] = "ünï code"
    return rows, aliases


def check_after_kill(folder, held, task):
    rows, aliases = opened_state(folder)
    new = rows.pop("new", None)
    assert new is None or (new[0]["metadata"], new[1]) == ({"of": "new"}, [])
    assert (rows, aliases) in (held, after(held, task))
    assert len(folders(folder)) == len(rows) + (new is not None), "no leftovers"
    assert {path.name for path in folder.glob("collections/*/collection*.json")} <= {"collection.json"}
    assert not recover(folder).changed
    return rows, aliases


def each_kill(template, tmp_path, task, *, first=0, step=1, most=120):
    """The folder after a kill before each of the file operations of a task, and at last after the task."""
    with spawn(kill_at_file_operations, task, stdin=subprocess.PIPE, encoding="utf-8") as killer:
        assert killer.stdin is not None and killer.stdout is not None
        for number in range(first, most, step):
            copy = copied(template, tmp_path / f"{task}-{number}" / "f")
            killer.stdin.write(f"{copy}\t{number}\n")
            killer.stdin.flush()
            code = int(killer.stdout.readline())
            assert code in (0, -9)
            yield copy
            shutil.rmtree(copy.parent)
            if code == 0:
                killer.stdin.close()
                return
        killer.kill()
    raise AssertionError("the task has more file operations than were tried")


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
@pytest.mark.parametrize("task", ["create", "drop", "settings", "aliases", "exchange"])
def test_a_kill_before_any_file_operation_leaves_the_old_state_or_the_new_one(template, tmp_path, task):
    step = 2 if task == "exchange" else 1  # the longest: its copies are many files
    seen = [check_after_kill(copy, template[1], task) for copy in each_kill(template[0], tmp_path, task, step=step)]
    assert len(seen) > 3
    if task in ("drop", "settings", "aliases"):
        assert seen[0] == template[1] and seen[-1] == after(template[1], task)


@needs_fork
@pytest.mark.parametrize("task", ["create", "drop", "exchange"])
@pytest.mark.parametrize("lost", [[MANIFEST], [MANIFEST, PREVIOUS]])
def test_a_kill_and_then_a_lost_manifest_lose_no_points(template, tmp_path, task, lost):
    rows, _ = template[1]
    step = 5 if task == "exchange" else 2
    for copy in each_kill(template[0], tmp_path, task, first=len(lost), step=step):
        for name in lost:
            (copy / name).unlink(missing_ok=True)
        recover(copy)
        recovered, aliases = opened_state(copy)
        assert recovered["ünï code"] == rows["ünï code"] and aliases["next"] == "ünï code"
        if task != "drop":
            assert recovered["docs"] == rows["docs"] and aliases["live"] == "docs"
        assert not recover(copy).changed


@needs_fork
def test_after_a_killed_snapshot_the_next_open_names_the_draft_that_is_left(template, tmp_path, caplog):
    for copy in each_kill(template[0], tmp_path, "snapshot", step=5):
        mine = copy.parent / "out" / ".0123456789abcdef0123456789abcdef.part"
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("of somebody else")
        caplog.clear()
        assert opened_state(copy) == template[1]
        assert len(folders(copy)) == 2
        # nothing outside the folder is removed: a received folder may name any file as its draft
        left = {path.name for path in mine.parent.iterdir()} - {mine.name, "docs.snapshot"}
        assert all(name in caplog.text for name in left)
        if (mine.parent / "docs.snapshot").exists():
            client = connect(copy)
            assert restore_snapshot(client, mine.parent / "docs.snapshot", "back") == 60
            client.close()


@needs_fork
def test_a_killed_restore_leaves_no_files_and_is_begun_again(template, tmp_path):
    client = connect(copied(template[0], tmp_path / "source"))
    create_snapshot(client, "docs", tmp_path / "docs.snapshot")
    client.close()
    for copy in each_kill(template[0], tmp_path, "restore", step=6):
        client = connect(copy)
        names = {row.name for row in client.get_collections().collections}
        assert names <= {"docs", "ünï code", "restored"} and len(folders(copy)) == len(names)
        if "restored" in names and not client.get_collection("restored").config.metadata[INCOMPLETE]:
            client.delete_collection("restored")
        assert restore_snapshot(client, tmp_path / "docs.snapshot", "restored") == 60
        client.close()


# -- who else may open it


def create_or_busy(folder, name):
    try:
        client = connect(folder)
        client.create_collection(name, VECTOR)
        client.close()
        report("made")
    except LocationBusyError:
        report("busy")


def test_processes_that_race_for_a_new_folder_make_it_or_are_told_that_it_is_busy(tmp_path):
    racing = [spawn(create_or_busy, tmp_path / "f", f"docs-{i}") for i in range(4)]
    outcomes = [process.communicate()[0].strip() for process in racing]
    assert set(outcomes) <= {"made", "busy"} and "made" in outcomes
    rows, _ = opened_state(tmp_path / "f")
    assert sorted(rows) == [f"docs-{i}" for i, outcome in enumerate(outcomes) if outcome == "made"]


@pytest.mark.parametrize("begun", [[".lock"], [".lock", "manifest.json.new"], [".lock", "collections"], []])
def test_a_folder_that_another_process_has_just_begun_is_no_foreign_one(tmp_path, begun):
    for name in begun:
        (tmp_path / name).mkdir() if name == "collections" else (tmp_path / name).write_text("")
    client = connect(tmp_path)
    create(client, "docs")
    client.close()
    assert list(opened_state(tmp_path)[0]) == ["docs"]


def test_a_folder_named_collections_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "collections").mkdir()
    (tmp_path / "collections" / "stamps.txt").write_text("blue mauritius")
    with pytest.raises(LocationError, match="neither empty nor a folder of collections"):
        connect(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["collections"]


def connect_as_nobody(folder):
    if os.getuid() == 0:
        os.setuid(65534)  # nobody: permissions do not stop root
    try:
        connect(folder)
    except LocationError as error:
        report("cannot be" in str(error), "Permission denied" in str(error), "\n" not in str(error))


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions of this kind are not on this system")
def test_a_new_location_where_nothing_may_be_written_is_one_error():
    with tempfile.TemporaryDirectory() as parent:  # those of pytest are its user's own
        os.chmod(parent, 0o555)
        assert output(connect_as_nobody, Path(parent) / "new") == "True True True\n"


@pytest.mark.parametrize("wrong", ["a\0b", "\ud800", "~nobody-of-this-name-x/y"])
def test_a_location_that_is_no_path_is_one_error(wrong):
    with pytest.raises(LocationError, match="no path that can be used|cannot be used"):
        connect(wrong)


# -- names


@pytest.mark.parametrize("wrong", [None, 3, "", "\ud800", "a\udfffb", ["docs"], b"docs"])
def test_what_is_no_name_is_an_input_error(folder, held, wrong):
    client = connect(folder)
    with pytest.raises(InputError, match="name"):
        client.create_collection(wrong, VECTOR)
    with pytest.raises((InputError, CollectionNotFoundError)):
        client.count(wrong)
    with pytest.raises(InputError, match="name"):
        make = models.CreateAlias.model_construct(collection_name="docs", alias_name=wrong)
        client.update_collection_aliases([models.CreateAliasOperation.model_construct(create_alias=make)])
    with pytest.raises(InputError, match="name"):
        client.create_collection("new", {wrong: VECTOR} if wrong != ["docs"] and wrong != "" else {"\ud800": VECTOR})
    assert state(client) == held
    client.close()


def test_metadata_that_no_file_can_hold_is_refused(folder, held):
    client = connect(folder)
    with pytest.raises(InputError, match="Unicode|payload"):
        client.create_collection("new", VECTOR, metadata={"a": "\ud800"})
    with pytest.raises(InputError, match="Unicode|payload"):
        client.update_collection("docs", metadata={"\ud800": 1})
    assert state(client) == held
    client.close()
    assert opened_state(folder) == held
