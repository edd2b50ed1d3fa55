"""Near-duplicates are left out when passages come, named, and left out again; nothing is lost by it."""

from __future__ import annotations

import json

import pytest
from tiny import DirectionEncoder

from qdrant_tools.errors import InputError
from qdrant_tools.records import Passage
from qdrant_tools.sources.origin import SourceDocument

WORDS = " ".join(f"w{i}" for i in range(30))
TWIN = f"{WORDS} more"


@pytest.fixture
def docs(manager):
    return manager.ensure("arrivals", DirectionEncoder(dimension=256))


def ids(docs):
    records = [record for page in docs.gateway.pages(batch_size=100) for record in page]
    return {docs.layout.passage(record.payload, point_id="").id for record in records}


def document(name, text):
    return SourceDocument(name, [Passage(f"{name}#{abs(hash(text))}", text)], name.partition("/")[2])


def test_what_says_nearly_the_same_as_a_stored_passage_is_not_added_however_often_it_comes(docs):
    docs.index([Passage("first", WORDS)])
    for _ in range(2):
        report = docs.index([Passage("twin", TWIN), Passage("other", "something else")], skip_duplicates=0.9)
        assert report.duplicates == 1 and report.skipped[0].passage_id == "twin" and report.skipped[0].of == "first"
        assert 0.9 <= report.skipped[0].cosine < 1
    assert report.unchanged == 1 and ids(docs) == {"first", "other"}
    assert docs.index([Passage("twin", TWIN)], skip_duplicates=0.999).added == 1


def test_of_several_that_come_together_the_first_stays(docs):
    report = docs.index([Passage(f"p{i}", f"{WORDS} {i}") for i in range(5)], skip_duplicates=0.9)
    assert (report.added, report.duplicates) == (1, 4) and {each.of for each in report.skipped} == {"p0"}
    assert (
        docs.index([Passage(f"q{i}", f"{WORDS} {i}") for i in range(5)], skip_duplicates=0.9, batch_size=2).added == 0
    )


def test_a_passage_that_is_stored_is_updated_whatever_is_near_it(docs):
    docs.index([Passage("first", WORDS), Passage("second", "something else")])
    report = docs.index([Passage("second", TWIN)], skip_duplicates=0.9)
    assert (report.updated, report.duplicates) == (1, 0)


def test_a_text_that_moves_to_another_id_in_the_same_run_is_kept(docs):
    docs.index([Passage("first", WORDS)])
    report = docs.index([Passage("first", "something else"), Passage("second", WORDS)], skip_duplicates=0.9)
    assert (report.updated, report.added, report.duplicates) == (1, 1, 0)


def test_an_edit_is_no_duplicate_of_the_text_that_it_replaces(docs):
    docs.sync([document("files/a.txt", WORDS)], source="files", skip_duplicates=0.9)
    report = docs.sync([document("files/a.txt", TWIN)], source="files", skip_duplicates=0.9)
    assert (report.passages.added, report.replaced, report.passages.duplicates) == (1, 1, 0)
    (passage,) = docs.fetch(list(ids(docs))).values()
    assert passage.text == TWIN


def test_a_file_that_was_renamed_is_no_duplicate_of_itself(docs):
    docs.sync([document("files/a.txt", WORDS)], source="files", skip_duplicates=0.9)
    report = docs.sync([document("files/b.txt", WORDS)], source="files", skip_duplicates=0.9, delete_missing=True)
    assert (report.passages.added, report.gone) == (1, 1) and docs.gateway.count() == 1


def test_of_two_files_of_one_source_and_of_two_sources_one_stays_in_every_run(docs):
    both = [("files/a.txt", WORDS), ("files/b.txt", TWIN)]
    for added in (1, 0):
        report = docs.sync([document(*each) for each in both], source="files", skip_duplicates=0.9)
        assert (report.passages.added, report.passages.duplicates) == (added, 1)
    for _ in range(2):
        report = docs.sync([document("other/c.txt", WORDS)], source="other", skip_duplicates=0.9)
        assert (report.passages.added, report.passages.duplicates) == (0, 1)
    assert docs.gateway.count() == 1


@pytest.mark.parametrize("above", [0, 1.1, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(docs, above):
    with pytest.raises(InputError, match="skip_duplicates is"):
        docs.index(["text"], skip_duplicates=above)


def test_the_command_names_what_it_did_not_add(run, tmp_path, minilm):
    folder = tmp_path / "files"
    folder.mkdir()
    text = "Bees turn the nectar of flowers into honey, which they keep in the combs of their hive over the winter."
    (folder / "a.txt").write_text(text)
    (folder / "b.txt").write_text(text.replace("over the winter", "during winter"))
    command = ("index", "docs", "files", "--skip-duplicates")
    for added in (1, 0):
        code, out, _ = run(*command)
        assert code == 0 and out.startswith(f"docs: {added} added")
        assert "1 near-duplicates not added; the first: files/b.txt" in out and "says nearly what files/a.txt" in out
    row = json.loads(run(*command, "--json")[1])
    assert row["duplicates"] == 1 and row["duplicate_of"][0]["of"].startswith("files/a.txt")
    assert run(*command, "--dry-run")[0] == 2 and run(*command, "--above", "2")[0] == 1
