"""A folder of documents from somebody else: what its links, pipes and names can and cannot bring into a collection."""

from __future__ import annotations

import os

import pytest
from bounds import ran

from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import ReadSettings


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("first text")
    (folder / "below" / "b.md").write_text("second text")
    return folder


def read(folder, **options):
    """The paths of the documents below the folder, and what was not read, with its reason."""
    source = Source(folder, ReadSettings(**options))
    documents = [document.id.removeprefix(f"{source.name}/") for document in source]
    return documents, {os.path.relpath(each.path, folder): each.reason for each in source.skipped}, source


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
def test_a_link_that_leaves_the_folder_is_not_read_and_that_is_said(documents, outside, make):
    make(documents, outside)
    names, skipped, source = read(documents)
    assert names == ["a.txt", "below/b.md"]
    assert set(skipped.values()) == {"link"} and len(skipped) == (3 if make is chain else 1)
    assert all("--follow-links" in each.detail or "nowhere" in each.detail for each in source.skipped)


def test_links_are_followed_on_request(documents, outside):
    (documents / "x.txt").symlink_to(outside.secret)
    (documents / "more").symlink_to(outside.folder)
    names, skipped, source = read(documents, follow_links=True)
    # the secret has two names, and is read under one
    assert names == ["a.txt", "below/b.md", "more/below/config.json", "note", "x.txt"] and skipped == {}
    assert source.left_out == {"links to files that are read anyway": 1}


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_that_lead_round_end(documents, follow_links):
    (documents / "below" / "again").symlink_to("..")
    (documents / "self").symlink_to(".")
    (documents / "one.txt").symlink_to("two.txt")
    (documents / "two.txt").symlink_to("one.txt")
    names, skipped, source = read(documents, follow_links=follow_links)
    assert names == ["a.txt", "below/b.md"]
    assert skipped == {"one.txt": "link", "two.txt": "link"}
    assert source.left_out == {"links to files that are read anyway": 2}


def test_a_file_that_links_lead_to_is_read_once_under_its_own_name(documents):
    (documents / "a-link.txt").symlink_to("below/b.md")
    (documents / "hard.txt").hardlink_to(documents / "a.txt")
    names, skipped, source = read(documents)
    assert names == ["a.txt", "below/b.md"] and skipped == {}
    assert source.left_out == {"links to files that are read anyway": 2}


def test_a_data_set_of_the_hub_cache_is_read(tmp_path):
    repository = tmp_path / "datasets--owner--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "hash").write_text("a text")
    (snapshot / "a.txt").symlink_to("../../blobs/hash")
    assert read(snapshot)[:2] == (["a.txt"], {})


@pytest.mark.parametrize("follow_links", [False, True])
def test_pipes_devices_and_folders_of_a_texts_name_are_left_out(documents, follow_links):
    os.mkfifo(documents / "pipe.txt")
    (documents / "zero.txt").symlink_to("/dev/zero")
    (documents / "folder.txt").mkdir()
    (documents / "gone.txt").symlink_to("nowhere")
    names, skipped, _ = read(documents, follow_links=follow_links)
    assert names == ["a.txt", "below/b.md"]
    assert skipped == {"pipe.txt": "unreadable", "zero.txt": "link", "gone.txt": "link"}


def test_hidden_folders_are_not_entered(documents, outside):
    (documents / ".git").symlink_to(outside.folder)
    names, skipped, source = read(documents, follow_links=True)
    assert names == ["a.txt", "below/b.md"] and skipped == {}
    assert source.left_out == {"hidden": 1}


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
    "no encoding": lambda folder: (folder / "x.txt").write_bytes(bytes(range(128, 256)) * 8),
    "binary": lambda folder: (folder / "x.txt").write_bytes(os.urandom(4096)),
    "name without UTF-8": without_utf8,
    "name with escapes": lambda folder: (folder / "\x1b]0;x\x07.jsonl").write_text("{}"),
    "name with markup": with_markup,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, tmp_path_factory, outside, refused, make):
    empty = tmp_path_factory.getbasetemp() / "empty.txt"
    empty.touch()
    folder = tmp_path / "received"
    folder.mkdir()
    make(folder)
    (path,) = (path for path in folder.rglob("*") if not path.is_dir())
    refused("index", "docs", path, like=("index", "docs", empty))
    assert sorted(each.name for each in tmp_path.iterdir()) == [".peak", "outside", "received"]


def test_the_command_says_what_was_left_out(documents, outside, tmp_path):
    (documents / "x.txt").symlink_to(outside.secret)
    done = ran(tmp_path, "index", "docs", documents)
    assert done.code == 0 and done.out.startswith("docs: 2 added")
    assert "1 of 3 files skipped: 1 link (.txt)" in done.out
    done = ran(tmp_path, "index", "docs", documents, "--follow-links")
    assert done.code == 0 and done.out.startswith("docs: 1 added")
    assert "skipped" not in done.out
