"""A folder with files of every kind: what is read of each, and why the others are not."""

from __future__ import annotations

import pytest
from folder import build_folder

from llama_index_embed_plus.documents.reading import Source


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    root = tmp_path_factory.mktemp("all") / "everything"
    expected = build_folder(root)
    source = Source(root)
    documents = {}
    for document in source:
        documents.setdefault(document.file, []).append((document, list(document.blocks)))
    return root, expected, source, documents


def test_the_folder_is_as_people_have_it(everything):
    root, expected, _, _ = everything
    assert len([path for path in root.rglob("*") if path.is_file()]) >= 200
    assert len({name.rpartition(".")[2] for name in expected.read}) >= 40


def test_every_file_is_read_or_named(everything):
    root, expected, source, documents = everything
    assert sorted(documents) == sorted([*expected.read, *expected.rows])
    assert {each.path.removeprefix(f"{root}/"): each.reason for each in source.skipped} == expected.skipped
    assert source.left_out == expected.left_out
    assert source.files == expected.files
    assert all(each.detail for each in source.skipped)


def test_what_stands_in_the_files_is_read_with_its_place(everything):
    _, expected, _, documents = everything
    missing = []
    for name, readables in expected.read.items():
        ((document, blocks),) = documents[name]
        assert document.id == f"everything/{name}"
        for readable in readables:
            found = [block for block in blocks if readable.text in block.text]
            if readable.headings:
                found = [block for block in found if block.headings == readable.headings]
            if readable.page is not None:
                found = [block for block in found if block.page == readable.page]
            if readable.kind is not None:
                found = [block for block in found if block.kind == readable.kind]
            if not found or any(readable.absent in block.text for block in blocks if readable.absent):
                missing.append((name, readable, blocks[:5]))
    assert missing == []


def test_rows_keep_their_ids(everything):
    _, expected, _, documents = everything
    assert {name: len(documents[name]) for name in expected.rows} == expected.rows
    assert all(document.id.startswith("row-") for document, _ in documents["rows/corpus.jsonl"])


def test_encodings_other_than_utf8_are_said(everything):
    _, expected, source, documents = everything
    said = {
        name: each[0][0].metadata["encoding"]
        for name, each in documents.items()
        if name.startswith("encodings/") and "encoding" in each[0][0].metadata
    }
    assert set(said) == set(expected.encodings)
    assert sum(source.encodings.values()) == len(expected.encodings) + 1  # and html/latin.htm


def test_facts_of_files_are_metadata(everything):
    _, expected, _, documents = everything
    for name in expected.read:
        ((document, _),) = documents[name]
        metadata = document.metadata
        assert (metadata["source"], metadata["file_path"]) == ("everything", name)
        assert metadata["file_name"] == name.rpartition("/")[2] and metadata["file_size"] > 0
        assert len(metadata["last_modified_date"]) == 10
    ((document, _),) = documents["books/fr.epub"]
    assert (document.metadata["title"], document.metadata["author"]) == ("Abeilles", "A. Beekeeper")
    assert documents["pdf/under another name.txt"][0][0].metadata["file_type"] == "application/pdf"


def test_reading_twice_gives_the_same(everything):
    root, _, _, documents = everything
    again = {}
    for document in Source(root):
        again.setdefault(document.file, []).append((document.id, document.metadata, list(document.blocks)))
    assert list(again) == list(documents)
    assert again == {name: [(d.id, d.metadata, blocks) for d, blocks in each] for name, each in documents.items()}
