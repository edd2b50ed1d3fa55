"""A folder of documents from somebody else: what its links, pipes and names can and cannot bring into a collection."""

from __future__ import annotations

import os

import pytest
from bounds import ran

from llama_index_embed_plus.documents import MOST_BYTES, read_passages
from qdrant_tools.errors import InputError


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("first text")
    (folder / "below" / "b.md").write_text("second text")
    return folder


def ids(folder, **options):
    return [passage.id for passage in read_passages(folder, **options)]


def chain(folder, outside):
    (folder / "one.txt").symlink_to("two.txt")
    (folder / "two.txt").symlink_to("below/three.txt")
    (folder / "below" / "three.txt").symlink_to(outside.secret)


def linked_folder(folder, outside):
    (folder / "more").symlink_to(outside.folder)


LEAVING = {
    "absolute": lambda folder, outside: (folder / "x.txt").symlink_to(outside.secret),
    "relative": lambda folder, outside: (folder / "x.txt").symlink_to(os.path.relpath(outside.secret, folder)),
    "of another ending": lambda folder, outside: (folder / "x.jsonl").symlink_to(outside.folder / "notes.jsonl"),
    "chain": chain,
    "folder": linked_folder,
    "endless name": lambda folder, outside: (folder / "x.txt").symlink_to("d" * 300),
    "up": lambda folder, outside: (folder / "up").symlink_to(".."),
    "root": lambda folder, outside: (folder / "up").symlink_to("/"),
    "through a folder": lambda folder, outside: (folder / "below" / "x.txt").symlink_to(
        "../../documents/../outside/secret.txt"
    ),
}


@pytest.mark.parametrize("make", LEAVING.values(), ids=LEAVING)
def test_a_link_that_leaves_the_folder_is_not_read_and_that_is_said(documents, outside, caplog, make):
    make(documents, outside)
    assert ids(documents) == ["a.txt#0", "below/b.md#0"]
    assert len(caplog.messages) == 1 and "left out" in caplog.text and "--follow-links" in caplog.text


def test_links_are_followed_on_request(documents, outside, caplog):
    (documents / "x.txt").symlink_to(outside.secret)
    (documents / "more").symlink_to(outside.folder)
    assert ids(documents, follow_links=True) == ["a.txt#0", "below/b.md#0", "note", "more/secret.txt#0", "x.txt#0"]
    assert caplog.text == ""


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_that_lead_round_end(documents, follow_links):
    (documents / "below" / "again").symlink_to("..")
    (documents / "self").symlink_to(".")
    (documents / "one.txt").symlink_to("two.txt")
    (documents / "two.txt").symlink_to("one.txt")
    assert ids(documents, follow_links=follow_links) == ["a.txt#0", "below/b.md#0"]


def test_a_link_to_a_file_of_the_same_folder_is_read(documents, caplog):
    (documents / "c.txt").symlink_to("below/b.md")
    assert ids(documents) == ["a.txt#0", "below/b.md#0", "c.txt#0"]
    assert caplog.text == ""


def test_a_data_set_of_the_hub_cache_is_read(tmp_path, caplog):
    repository = tmp_path / "datasets--owner--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "hash").write_text("a text")
    (snapshot / "a.txt").symlink_to("../../blobs/hash")
    assert ids(snapshot) == ["a.txt#0"] and caplog.text == ""


@pytest.mark.parametrize("follow_links", [False, True])
def test_pipes_devices_and_folders_of_a_texts_name_are_left_out(documents, caplog, follow_links):
    os.mkfifo(documents / "pipe.txt")
    (documents / "zero.txt").symlink_to("/dev/zero")
    (documents / "folder.txt").mkdir()
    (documents / "gone.txt").symlink_to("nowhere")
    assert ids(documents, follow_links=follow_links) == ["a.txt#0", "below/b.md#0"]
    assert "3 left out" in caplog.text


def test_hidden_folders_are_not_entered(documents, outside):
    (documents / ".git").symlink_to(outside.folder)
    assert ids(documents, follow_links=True) == ["a.txt#0", "below/b.md#0"]


def sized(path, size):
    with path.open("wb") as file:
        file.truncate(size)


def with_markup(folder):
    (folder / "a[").mkdir()
    (folder / "a[" / "nope].jsonl").write_text("{}")


def without_utf8(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "w") as file:
        file.write("text")


HOSTILE = {
    "pipe": lambda folder: os.mkfifo(folder / "x.txt"),
    "device": lambda folder: (folder / "x.txt").symlink_to("/dev/zero"),
    "sparse": lambda folder: sized(folder / "x.txt", 4 << 30),
    "huge row": lambda folder: sized(folder / "x.jsonl", 4 << 30),
    "no UTF-8": lambda folder: (folder / "x.txt").write_bytes(b"caf\xe9"),
    "UTF-16": lambda folder: (folder / "x.txt").write_bytes("text".encode("utf-16")),
    "name without UTF-8": without_utf8,
    "name with escapes": lambda folder: (folder / "\x1b]0;x\x07.jsonl").write_text("{}"),
    "name with markup": with_markup,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, outside, refused, make):
    folder = tmp_path / "received"
    folder.mkdir()
    make(folder)
    (path,) = (path for path in folder.rglob("*") if not path.is_dir())
    # what a folder holds besides texts is left out of it; a file is named by the user
    source = path if make in (HOSTILE["pipe"], HOSTILE["device"]) else folder
    refused("index", source, "--collection", "docs", like=("index", "nowhere", "--collection", "docs"))
    assert sorted(each.name for each in tmp_path.iterdir()) == [".peak", "outside", "received"]


def test_a_large_text_is_refused_by_its_size(tmp_path):
    with (tmp_path / "x.txt").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match="split it"):
        list(read_passages(tmp_path))


def test_the_command_says_what_was_left_out(documents, outside, tmp_path):
    (documents / "x.txt").symlink_to(outside.secret)
    done = ran(tmp_path, "index", documents, "--collection", "docs")
    assert done.code == 0 and done.out.startswith("docs: 2 added")
    assert len([line for line in done.err.splitlines() if "left out" in line]) == 1
    done = ran(tmp_path, "index", documents, "--collection", "docs", "--follow-links")
    assert done.code == 0 and done.out.startswith("docs: 1 added")
    assert "left out" not in done.err
