"""The doors that every foreign file goes through: whole folders, small files, and what is written beside them."""

from __future__ import annotations

import os
import stat

import pytest

from qdrant_tools.errors import InputError, LocationError, UsageError
from qdrant_tools.files import trees
from qdrant_tools.files.json_files import parse_json, read_json, read_text
from qdrant_tools.files.trees import DEEPEST_FOLDER, copy_tree, files_of
from qdrant_tools.files.written import create_private, open_private, private_folder, write_text, written_whole


@pytest.fixture
def received(tmp_path):
    """A folder from somebody else, with two files."""
    folder = tmp_path / "received"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "below" / "b.txt").write_text("b")
    return folder


def names(folder):
    return [path.relative_to(folder).as_posix() for path in files_of(folder)]


def test_a_link_to_a_file_of_the_same_folder_is_a_file(received):
    (received / "c.txt").symlink_to("below/b.txt")
    assert names(received) == ["a.txt", "below/b.txt", "c.txt"]


def test_a_folder_may_be_given_by_a_link_to_it(received, tmp_path):
    (tmp_path / "current").symlink_to(received)
    assert names(tmp_path / "current") == ["a.txt", "below/b.txt"]


def out_by_a_chain(folder, outside):
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to(outside.secret)


def out_by_a_folder(folder, outside):
    (folder / "more").symlink_to(outside.folder)


def round_in_a_circle(folder, outside):
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")


LINKS = {
    "absolute": lambda folder, outside: (folder / "x").symlink_to(outside.secret),
    "relative": lambda folder, outside: (folder / "x").symlink_to(os.path.relpath(outside.secret, folder)),
    "chain": out_by_a_chain,
    "folder": out_by_a_folder,
    "folder inside": lambda folder, outside: (folder / "again").symlink_to("below"),
    "circle": round_in_a_circle,
    "nowhere": lambda folder, outside: (folder / "x").symlink_to(folder / "gone"),
    "device": lambda folder, outside: (folder / "x").symlink_to("/dev/zero"),
    "pipe": lambda folder, outside: os.mkfifo(folder / "x"),
}


@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_what_leads_out_of_a_folder_is_refused_and_nothing_is_copied(received, outside, tmp_path, make):
    make(received, outside)
    with pytest.raises(LocationError, match=str(received)):
        copy_tree(received, tmp_path / "copy", error=LocationError)
    assert not (tmp_path / "copy").exists()


def test_a_snapshot_of_the_hub_cache_may_point_into_its_own_blobs_only(tmp_path, outside):
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    for folder in (snapshot, repository / "blobs", tmp_path / "models--other--name" / "blobs"):
        folder.mkdir(parents=True)
    (repository / "blobs" / "hash").write_text("{}")
    (tmp_path / "models--other--name" / "blobs" / "hash").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/hash")
    assert names(snapshot) == ["config.json"]
    copy_tree(snapshot, tmp_path / "copy")
    assert (tmp_path / "copy" / "config.json").read_text() == "{}"
    assert not (tmp_path / "copy" / "config.json").is_symlink()
    (snapshot / "other.json").symlink_to("../../../models--other--name/blobs/hash")
    with pytest.raises(InputError, match="outside its folder"):
        files_of(snapshot)


def test_blobs_that_are_a_link_themselves_are_not_the_caches_own(tmp_path, outside):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "blobs").symlink_to(outside.folder)
    (snapshot / "config.json").symlink_to("../../blobs/secret.txt")
    with pytest.raises(InputError, match="outside its folder"):
        files_of(snapshot)


def test_empty_folders_count_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "MOST_FILES", 5)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
    assert files_of(tmp_path) == []
    (tmp_path / "one more").mkdir()
    with pytest.raises(InputError, match="more than 5 files and folders"):
        files_of(tmp_path)


def test_a_folder_without_end_is_refused(tmp_path):
    (tmp_path / "/".join("d" * (DEEPEST_FOLDER + 2))).mkdir(parents=True)
    with pytest.raises(InputError, match="folders deep"):
        files_of(tmp_path)


def test_a_written_file_replaces_a_link_and_leaves_its_target_alone(tmp_path, outside):
    (tmp_path / "report.json").symlink_to(outside.secret)
    write_text(tmp_path / "report.json", "new")
    assert not (tmp_path / "report.json").is_symlink()
    assert (tmp_path / "report.json").read_text() == "new"


def test_a_draft_that_is_a_link_is_refused(tmp_path, outside):
    (tmp_path / "fixed.part").symlink_to(outside.secret)
    with pytest.raises(InputError, match="is a link"), written_whole(tmp_path / "a", draft=tmp_path / "fixed.part"):
        pytest.fail("the draft was given")


def test_a_new_file_is_private_and_an_old_one_keeps_its_permissions(tmp_path):
    write_text(tmp_path / "new", "")
    (tmp_path / "old").write_text("")
    (tmp_path / "old").chmod(0o640)
    write_text(tmp_path / "old", "x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "old")]
    assert modes == [0o600, 0o640]


@pytest.mark.parametrize("existing", ["file", "link to nowhere"])
def test_without_overwrite_what_exists_stays(tmp_path, existing):
    path = tmp_path / "a.txt"
    path.write_text("old") if existing == "file" else path.symlink_to("gone")
    with pytest.raises(UsageError, match="exists already"):
        write_text(path, "new", overwrite=False)
    assert not (tmp_path / "gone").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "a disk without"])
def test_a_file_is_created_whole_for_its_owner_only_and_never_in_the_place_of_another(
    tmp_path, outside, monkeypatch, links
):
    def refuse(*names):
        raise FileExistsError if os.path.lexists(names[1]) else PermissionError

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    create_private(tmp_path / "new", b"content")
    assert (tmp_path / "new").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(outside.secret)
    for name in ("new", "link"):
        create_private(tmp_path / name, b"other")
    assert (tmp_path / "new").read_bytes() == b"content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new", "outside"]


def test_a_lock_file_is_never_opened_through_a_link(tmp_path, outside):
    (tmp_path / ".lock").symlink_to(outside.secret)
    with pytest.raises(OSError):
        open_private(tmp_path / ".lock")
    os.mkfifo(tmp_path / ".pipe")
    with pytest.raises(OSError):
        open_private(tmp_path / ".pipe")


def test_a_private_folder_is_opened_by_its_owner_only_and_is_no_link(tmp_path, outside):
    private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(outside.folder)
    with pytest.raises(InputError, match="is a link"):
        private_folder(tmp_path / "link")


TEXTS = {
    "no JSON": "{",
    "a number of 5,000 digits": "9" * 5000,
    "deep lists": "[" * 100_000,
    "closed deep lists": "[" * 100 + "]" * 100,
    "deep objects": '{"a":' * 900 + "1" + "}" * 900,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_json_that_no_configuration_holds_is_one_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="a.json") as refusal:
        read_json(tmp_path / "a.json")
    assert len(str(refusal.value)) < 400


def test_json_that_a_configuration_may_hold_is_read():
    assert parse_json('{"a": [1, {"b": null}]}', "x") == {"a": [1, {"b": None}]}
    assert parse_json("7", "x") == 7


def test_a_small_file_is_no_pipe_no_device_and_not_large(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("x" * 11)
    (tmp_path / "latin").write_bytes(b"\xe4")
    for name in ("pipe", "large", "latin"):
        with pytest.raises(InputError, match=name):
            read_text(tmp_path / name, most=10)
    with pytest.raises(InputError, match="zero"):
        read_text(tmp_path / "/dev/zero")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "gone")
