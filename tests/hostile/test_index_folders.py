"""Index folders of strangers: nothing they lead to is opened, written or removed, and what they say has bounds."""

from __future__ import annotations

import json
import os
import shutil
import stat

import index_folders as folders
import pytest
from qdrant_client import models

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.snapshots import create_snapshot
from qdrant_tools.edge.storage.files import checksummed_json
from qdrant_tools.edge.storage.recover import recover
from qdrant_tools.edge.storage.tree import require_plain_root, require_plain_tree
from qdrant_tools.errors import DamagedCollectionError, InputError, LocationError, PlusError

CONFIG = {"vectors_config": models.VectorParams(size=4, distance="Dot")}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A location with a collection of 20 points."""
    root = tmp_path_factory.mktemp("template") / "index"
    client = connect(root)
    client.create_collection("docs", **CONFIG)
    client.upsert("docs", [models.PointStruct(id=i, vector=[1.0, 2.0, 3.0, i], payload={"k": i}) for i in range(20)])
    client.close()
    return root


@pytest.fixture
def index(template, tmp_path):
    return folders.copied(template, tmp_path / "index")


def opened(root):
    client = connect(root, create=False)
    try:
        assert client.count("docs").count == 20
    finally:
        client.close()


def dropped(root):
    client = connect(root, create=False)
    try:
        client.delete_collection("docs")
    finally:
        client.close()


def packed(root):
    client = connect(root, create=False)
    try:
        create_snapshot(client, "docs", root.parent / "docs.snapshot")
    finally:
        client.close()


def indexed(root):
    client = connect(root)
    try:
        client.upsert("docs", [models.PointStruct(id=1, vector=[1.0, 1.0, 1.0, 1.0])])
    finally:
        client.close()


@pytest.mark.parametrize("use", [opened, dropped, recover, packed, indexed])
def test_no_link_anywhere_is_followed(template, tmp_path, outside, use):
    for name in folders.places(template):
        for target in (outside.secret, outside.folder, outside.folder / "new"):
            index = folders.copied(template, tmp_path / "index")
            folders.replaced_by_link(index / name, target)
            try:
                use(index)
            except (LocationError, DamagedCollectionError) as error:
                assert "\n" not in str(error)
            else:
                # what lies deeper is not touched when a manifest is made
                assert use is recover and ("/shard/" in name or "/REMOVE_ME" in name), name
            outside.require_unchanged()
            shutil.rmtree(index)
        (tmp_path / "docs.snapshot").unlink(missing_ok=True)


@pytest.mark.parametrize("place", [".lock", "progress.bin", "shard/edge_config.json"])
def test_another_name_of_a_users_file_is_refused(index, outside, tmp_path, place):
    mine = tmp_path / "mine"
    mine.write_text("the user's")
    path = index / place if place == ".lock" else folders.collection_of(index) / place
    path.unlink()
    os.link(mine, path)
    with pytest.raises(LocationError, match="hard link"):
        opened(index)
    assert mine.read_text() == "the user's"


@pytest.mark.parametrize("place", [".lock", "shard/wal/open-9", "collection.json.new"])
def test_a_pipe_is_refused_and_does_not_hang(index, place):
    path = index / place if place == ".lock" else folders.collection_of(index) / place
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(LocationError, match="a pipe"):
        opened(index)


FOLDERS = [
    "../..",
    "..",
    ".",
    "",
    "/tmp",
    "a" * 32 + "/..",
    "A" * 32,
    "a" * 31,
    "a" * 32 + "\n",
    "０" * 32,
    None,
    7,
    ["a"],
]


@pytest.mark.parametrize("file", ["manifest.json", "manifest.previous.json"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_folder_of_another_form_is_refused(index, outside, file, version):
    for folder in [*FOLDERS, str(outside.folder), "../../outside"]:
        manifest = json.loads((index / "manifest.json").read_text())
        manifest.pop("checksum", None)
        manifest["collections"]["docs"]["folder"] = folder
        manifest["version"] = version
        (index / file).write_text(json.dumps(manifest) if version == 1 else checksummed_json(manifest))
        if file == "manifest.json":
            for use in (opened, dropped):
                with pytest.raises(LocationError, match="is damaged"):
                    use(index)
        elif file == "manifest.previous.json":
            opened(index)
        assert all(folders.collection_of(index) == each.folder for each in recover(index, dry_run=True).collections)
        outside.require_unchanged()


def test_a_draft_that_a_description_names_is_not_removed(index, outside, caplog):
    left = folders.LEFT
    mine = outside.folder / f".{left}.part"
    for draft in (outside.secret, mine):
        collection = index / "collections" / left
        collection.mkdir()
        description = json.loads((folders.collection_of(index) / "collection.json").read_text())
        description.pop("checksum")
        (collection / "collection.creating.json").write_text(checksummed_json({**description, "draft": str(draft)}))
        opened(index)
        assert not collection.exists()
        assert str(draft) in caplog.text
        outside.require_unchanged()


def test_a_name_that_steers_a_terminal_is_shown_in_warnings_and_not_sent(index, caplog):
    stray = folders.copied(folders.collection_of(index), index / "collections" / ("0" * 32))
    description = {**json.loads((stray / "collection.json").read_text()), "name": "\x1b]0;title\x07\nerror: lost"}
    description.pop("checksum")
    (stray / "collection.json").write_text(checksummed_json(description))
    opened(index)
    (message,) = caplog.messages
    assert "is kept" in message and message.isprintable()


def test_a_leftover_that_leads_out_or_is_deep_is_kept(index, outside, caplog):
    left = index / "collections" / folders.LEFT
    left.mkdir()
    description = json.loads((folders.collection_of(index) / "collection.json").read_text())
    description.pop("checksum")
    (left / "collection.creating.json").write_text(checksummed_json(description))
    (left / "shard").mkdir()
    (left / "shard" / "x").symlink_to(outside.folder)
    opened(index)
    assert left.exists() and "cannot be removed" in caplog.text
    (left / "shard" / "x").unlink()
    folders.deep(left / "shard", 1500)
    opened(index)
    assert left.exists()
    (left / "collection.creating.json").unlink()
    opened(index)
    folders.remove(left)


@pytest.mark.parametrize("place", ["shard", ".readers"])
def test_folders_without_end_are_one_error(index, place):
    path = index / place if place == ".readers" else folders.collection_of(index) / place
    folders.deep(path, 1500)
    if place == ".readers":
        (path / "REMOVE_ME").touch()
    with pytest.raises(LocationError, match="deeper folders"):
        opened(index)
    folders.remove(path)


SETTINGS = {
    "a large vector": lambda settings: settings["vectors"].update(size=10**12),
    "many vectors": lambda settings: settings.update(vectors={str(n): settings["vectors"] for n in range(5000)}),
    "a vector's name that leads out": lambda settings: settings.update(
        sparse_vectors={"/../../../../../../evil": {}},
    ),
    "many links in the graph": lambda settings: settings.update(hnsw_config={"m": 10**12}),
    "no number of links": lambda settings: settings.update(hnsw_config={"payload_m": -1}),
    "no quantile": lambda settings: settings.update(
        quantization_config={"scalar": {"type": "int8", "quantile": 1e308}}
    ),
    "no part of the points": lambda settings: settings.update(optimizers_config={"deleted_threshold": -1}),
    "a large log": lambda settings: settings.update(wal_config={"wal_capacity_mb": 10**9}),
    "no vectors": lambda settings: settings.update(vectors=[[]]),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_no_collection_has_are_one_error(index, outside, case):
    folders.edit_settings(index, SETTINGS[case])
    with pytest.raises((LocationError, InputError, NotImplementedError, DamagedCollectionError)) as refusal:
        opened(index)
    assert isinstance(refusal.value, PlusError) and "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


@pytest.mark.parametrize("settings", [{"m": 10**7}, {"payload_m": 10**7}, {"m": -1}])
def test_settings_that_end_the_process_when_an_index_is_built_are_refused_from_callers_too(tmp_path, settings):
    client = connect(tmp_path / "index")
    with pytest.raises(InputError, match="expected 0 to"):
        client.create_collection("docs", **CONFIG, hnsw_config=settings)
    client.close()


NOTES = {
    "no checksum notes": lambda collection: (collection / "seal.json").write_text("[]"),
    "deep checksum notes": lambda collection: (collection / "seal.json").write_text("[" * 100_000),
    "many checksum notes": lambda collection: (collection / "seal.json").write_text(
        '{"closed": true, "checksum": 0, "files": [' + "[]," * 2_000_000 + "0]}"
    ),
    "checksum notes of a file outside": lambda collection: seal(collection, "../../../outside/secret.txt"),
    "checksum notes of an absolute path": lambda collection: seal(collection, "/dev/zero"),
    "checksum notes of a long chunk": lambda collection: seal(
        collection, f"segments/{segment(collection)}/vector_storage/vectors/chunk_0.mmap", size=1 << 40, length=1 << 40
    ),
    "checksum notes with numbers that are none": lambda collection: seal(collection, "edge_config.json", size="x"),
    "no count": lambda collection: (collection / "guard.json").write_text('{"at_least": 1e999, "optimized": null}'),
    "a large count": lambda collection: (collection / "guard.json").write_text(" " * 10_000_000),
    "a deep count": lambda collection: (collection / "guard.json").write_text("[" * 2000),
    "a list for a count": lambda collection: (collection / "guard.json").write_text("[]"),
}


def segment(collection):
    return next((collection / "shard" / "segments").iterdir()).name


def seal(collection, name, *, size=3, **values):
    file = collection / "shard" / name
    if size == 1 << 40:
        folders.sparse(file, size)
    rows = {name: {"size": size, "checksum": 0, "change": "flush", **({"kept": values["length"]} if values else {})}}
    (collection / "seal.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("case", NOTES)
def test_notes_that_nobody_wrote_are_one_error(index, outside, case):
    NOTES[case](folders.collection_of(index))
    with pytest.raises(DamagedCollectionError) as refusal:
        opened(index)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 700


LOGS = {
    "a state that is none": lambda collection: (collection / "progress.bin").write_bytes(
        folders.acknowledged(dirty=200)
    ),
    "four billion segments": lambda collection: (collection / "progress.bin").write_bytes(
        folders.acknowledged(closed=2**32 - 1)
    ),
    "a segment with a long number": lambda collection: (collection / "shard" / "wal" / f"closed-{'9' * 200}").touch(),
    "a segment with another digit": lambda collection: (collection / "shard" / "wal" / "open-²").touch(),
    "no first operation": lambda collection: (collection / "shard" / "wal" / "first-index").write_text(
        '{"ack_index": 1e999}'
    ),
    "a first operation after the last": lambda collection: (collection / "shard" / "wal" / "first-index").write_text(
        f'{{"ack_index": {2**64 - 1}}}'
    ),
    "a segment of holes": lambda collection: folders.sparse(collection / "shard" / "wal" / "open-1", 1 << 40),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_log_that_nobody_wrote_is_one_error_or_harmless(index, case):
    collection = folders.collection_of(index)
    (collection / "seal.json").unlink()
    LOGS[case](collection)
    try:
        opened(index)
    except PlusError as error:
        assert "\n" not in str(error)


def test_what_came_from_elsewhere_is_opened_in_a_child_first_and_what_was_closed_here_is_not(index, monkeypatch):
    from qdrant_tools.edge.storage import shard

    tasks = []
    run = shard.run_worker
    monkeypatch.setattr(shard, "run_worker", lambda task, *rest: tasks.append(task) or run(task, *rest))
    opened(index)
    assert tasks == ["open"], "a copy"
    opened(index)
    assert tasks == ["open"]
    folders.forget_checksums(index)
    opened(index)
    assert tasks == ["open", "open"], "of an earlier release, or forged"


def test_new_folders_and_files_are_private_and_old_ones_keep_their_permissions(index, tmp_path):
    (tmp_path / "old").mkdir(mode=0o755)
    (tmp_path / "old").chmod(0o755)
    for root, mode in ((tmp_path / "old", 0o755), (tmp_path / "new", 0o700)):
        client = connect(root)
        client.create_collection("docs", **CONFIG)
        client.upsert("docs", [models.PointStruct(id=1, vector=[1.0, 1.0, 1.0, 1.0])])
        client.close()
        assert stat.S_IMODE(root.stat().st_mode) == mode
        collection = folders.collection_of(root)
        for folder in (collection.parent, collection):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        # the engine's own files are as the process's umask says, inside of these folders
        own = [path for path in (*root.iterdir(), *collection.iterdir()) if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in own} == {0o600} and len(own) > 6


def test_a_folder_that_its_group_may_write_to_hands_that_on(tmp_path):
    root, before = tmp_path / "shared", os.umask(0o002)
    try:
        root.mkdir()
        root.chmod(0o2770)
        client = connect(root)
        client.create_collection("docs", **CONFIG)
        client.upsert("docs", [models.PointStruct(id=1, vector=[1.0, 1.0, 1.0, 1.0])])
        client.close()
    finally:
        os.umask(before)
    collection = folders.collection_of(root)
    assert {stat.S_IMODE(folder.stat().st_mode) & 0o777 for folder in (collection.parent, collection)} == {0o770}
    own = [path for path in (*root.iterdir(), *collection.iterdir()) if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in own} == {0o660} and len(own) > 6


def test_a_location_may_be_given_by_a_link_to_it(index, tmp_path):
    (tmp_path / "current").symlink_to(index)
    opened(tmp_path / "current")


def test_looking_changes_nothing_and_a_good_folder_passes(index):
    before = sorted((str(path), path.stat().st_mtime_ns) for path in index.rglob("*"))
    require_plain_root(index)
    require_plain_tree(folders.collection_of(index))
    assert sorted((str(path), path.stat().st_mtime_ns) for path in index.rglob("*")) == before


# -- the commands


def test_commands_refuse_a_folder_that_leads_out(template, tmp_path, outside, refused):
    cases = {
        ".lock": ("collection", "list"),
        "collections": ("collection", "drop", "docs", "--yes"),
        "manifest.json.new": ("collection", "recover"),
        f"{folders.collection_of(template).relative_to(template)}/shard/wal/open-1": (
            "collection",
            "snapshot",
            "docs",
            "--out",
            "x",
        ),
    }
    for name, command in cases.items():
        index = folders.copied(template, tmp_path / "index")
        folders.replaced_by_link(index / name, outside.folder if name == "collections" else outside.secret)
        line = refused(*command, "--location", "index")
        assert "is a link" in line
        outside.require_unchanged()
        shutil.rmtree(index)
    assert not (tmp_path / "x").exists()


def test_a_manifest_that_leads_out_drops_nothing(index, tmp_path, refused, outside):
    folders.edit_json(
        index / "manifest.json", lambda manifest: manifest["collections"]["docs"].update(folder="../../outside")
    )
    assert "is damaged" in refused("collection", "drop", "docs", "--yes", "--location", "index")
    folders.edit_json(
        index / "manifest.json",
        lambda manifest: {**manifest, "collections": {str(n): [] for n in range(150_000)}, "x": [[]] * 100_000},
    )
    assert "is damaged" in refused("collection", "list", "--location", "index")
