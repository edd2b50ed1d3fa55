"""A source and a collection: what changed is stored, what is no longer there goes, and nothing else does."""

from __future__ import annotations

import pytest
from qdrant_client import models
from tiny import WordEncoder

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import Gateway
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import fetch, point_id
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.indexing import IndexReport, index_passages
from qdrant_tools.records import Passage
from qdrant_tools.sources.in_step import SourceReport, remembered, sync
from qdrant_tools.sources.origin import Origin, SourceDocument
from qdrant_tools.sources.stored import count_passages, delete_ids, delete_passages, stored_passages


@pytest.fixture
def collection(manager, encoder):
    return manager.ensure("docs", encoder)


def document(path, *texts, source="docs", **metadata):
    name = f"{source}/{path}"
    passages = [
        Passage(f"{name}#{text.replace(' ', '-')}", text, {**metadata, "document": name, "part": part})
        for part, text in enumerate(texts)
    ]
    return SourceDocument(name, passages, path)


def ids_in(collection):
    return sorted(
        p["passage_id"] for page in collection.gateway.pages(batch_size=100) for p in [r.payload for r in page]
    )


def test_a_shortened_document_loses_its_tail_and_a_gone_one_stays_until_that_is_asked_for(collection, encoder):
    documents = [document("a.md", "one", "two", "three"), document("b.md", "four")]
    report = sync(collection, documents, encoder, source="docs")
    assert report == SourceReport(IndexReport(added=4), documents=2)
    report = sync(collection, [document("a.md", "one", "two")], encoder, source="docs")
    assert report == SourceReport(IndexReport(unchanged=2), documents=1, replaced=1, left=1)
    assert ids_in(collection) == ["docs/a.md#one", "docs/a.md#two", "docs/b.md#four"]
    report = sync(collection, [document("a.md", "one", "two")], encoder, source="docs", delete_missing=True)
    assert (report.gone, report.left) == (1, 0)
    assert ids_in(collection) == ["docs/a.md#one", "docs/a.md#two"]


def test_an_insertion_encodes_what_is_new_and_moves_the_others(collection, encoder):
    words = [f"word{i}" for i in range(100)]
    sync(collection, [document("a.md", *words)], encoder, source="docs")
    encoder.encoded.clear()
    report = sync(collection, [document("a.md", *words[:50], "inserted", *words[51:])], encoder, source="docs")
    assert encoder.encoded == ["inserted"] and report.replaced == 1
    assert report.passages == IndexReport(added=1, unchanged=99)
    report = sync(collection, [document("a.md", "first", *words[:50], "inserted", *words[51:])], encoder, source="docs")
    assert report.passages == IndexReport(added=1, refreshed=100) and report.replaced == 0


def test_a_document_that_became_empty_loses_all_its_passages(collection, encoder):
    sync(collection, [document("a.md", "one"), document("b.md", "two")], encoder, source="docs")
    report = sync(collection, [document("a.md"), document("b.md", "two")], encoder, source="docs")
    assert report.replaced == 1 and ids_in(collection) == ["docs/b.md#two"]


def test_what_another_source_or_a_program_stored_is_never_removed(collection, encoder):
    sync(collection, [document("a.md", "one", source="other")], encoder, source="other")
    index_passages(
        collection, [Passage("own", "of a program", {"source": "docs", "document": "docs/gone.md"})], encoder
    )
    # a row's own fields are no origin
    rows = SourceDocument("row", [Passage("row", "a row", {"source": "other", "document": "x", "part": 1})], "r.jsonl")
    sync(collection, [rows, document("a.md", "two")], encoder, source="docs", delete_missing=True)
    report = sync(collection, [document("a.md", "two")], encoder, source="docs", delete_missing=True)
    assert report.gone == 1 and ids_in(collection) == ["docs/a.md#two", "other/a.md#one", "own"]


def test_files_that_could_not_be_read_are_not_gone(collection, encoder):
    sync(
        collection, [document("a.md", "one"), document("b.md", "two"), document("c/d.md", "x")], encoder, source="docs"
    )
    report = sync(
        collection, [document("a.md", "one")], encoder, source="docs", delete_missing=True, unread={"b.md"}.__contains__
    )
    assert (report.gone, report.kept) == (1, 1) and ids_in(collection) == ["docs/a.md#one", "docs/b.md#two"]


def test_a_source_without_documents_is_taken_for_a_mistake(collection, encoder):
    sync(collection, [document("a.md", "one")], encoder, source="docs")
    with pytest.raises(InputError, match="source 'docs' has no documents, and all its passages would be removed"):
        sync(collection, [], encoder, source="docs", delete_missing=True)
    assert ids_in(collection) == ["docs/a.md#one"]


@pytest.mark.parametrize("within", [["a.md", "b.md"], lambda file: file in ("a.md", "b.md")])
def test_a_run_about_some_files_leaves_the_others_alone(collection, encoder, within):
    sync(collection, [document(f"{name}.md", "one", "two") for name in "abc"], encoder, source="docs")
    report = sync(collection, [document("a.md", "two")], encoder, source="docs", delete_missing=True, within=within)
    assert (report.replaced, report.gone) == (1, 2)
    assert ids_in(collection) == ["docs/a.md#two", "docs/c.md#one", "docs/c.md#two"]


def test_a_row_that_grows_into_parts_and_back_leaves_nothing_behind(collection, encoder):
    def row(*texts):
        if len(texts) == 1:
            return SourceDocument("r1", [Passage("r1", texts[0])], "rows.jsonl")
        return SourceDocument(
            "r1", [Passage(f"r1#{text}", text, {"part": n}) for n, text in enumerate(texts)], "rows.jsonl"
        )

    # as a version without sources stored it
    index_passages(collection, [Passage("r1", "long")], encoder)
    assert sync(collection, [row("one", "two")], encoder, source="docs").replaced == 1
    assert ids_in(collection) == ["r1#one", "r1#two"]
    assert sync(collection, [row("short")], encoder, source="docs").replaced == 2
    assert sync(collection, [row("one", "two")], encoder, source="docs").replaced == 1
    assert ids_in(collection) == ["r1#one", "r1#two"]


def test_passages_of_earlier_versions_get_their_origin_without_being_encoded(collection, encoder):
    index_passages(
        collection,
        [Passage("r1", "a row", {"x": 1}), Passage("old.md#0", "part", {"source": "old.md", "part": 0})],
        encoder,
    )
    encoder.encoded.clear()
    documents = [SourceDocument("r1", [Passage("r1", "a row", {"x": 1})], "rows.jsonl"), document("old.md", "whole")]
    report = sync(collection, documents, encoder, source="docs")
    assert report == SourceReport(IndexReport(added=1, unchanged=1), documents=2, replaced=1)
    assert encoder.encoded == ["whole"] and ids_in(collection) == ["docs/old.md#whole", "r1"]
    (page,) = collection.gateway.pages(batch_size=10)
    origins = {record.payload["passage_id"]: Origin.of_payload(record.payload) for record in page}
    assert origins == {
        "r1": Origin("docs", "r1", "rows.jsonl"),
        "docs/old.md#whole": Origin("docs", "docs/old.md", "old.md"),
    }


def test_parts_of_earlier_versions_whose_file_did_not_come_stay(collection, encoder):
    index_passages(collection, [Passage("x.md#0", "part", {"source": "x.md", "part": 0})], encoder)
    sync(collection, [document("old.md", "whole")], encoder, source="docs", delete_missing=True)
    assert "x.md#0" in ids_in(collection)


def test_an_id_of_another_source_is_refused_and_one_that_comes_twice_is_stored_once(collection, encoder):
    row = SourceDocument("7", [Passage("7", "seven")], "a.jsonl")
    sync(collection, [row], encoder, source="first")
    with pytest.raises(InputError, match=r"passage id '7' belongs to source 'first' \(a.jsonl\)"):
        sync(collection, [SourceDocument("7", [Passage("7", "sept")], "b.jsonl")], encoder, source="second")
    twice = [row, SourceDocument("8", [Passage("8", "eight")]), SourceDocument("7", [Passage("7", "sette")], "b.jsonl")]
    report = sync(collection, twice, encoder, source="first", batch_size=1, on_bad="count")
    assert (report.passages.failed, report.passages.updated) == (1, 0)
    assert fetch(collection, ["7"])["7"].text == "seven"


def test_an_id_stays_anothers_when_its_vector_was_deleted_and_comes_back_with_its_source(collection, encoder):
    row = SourceDocument("7", [Passage("7", "seven")], "a.jsonl")
    sync(collection, [row], encoder, source="first")
    collection.client.delete_vectors(collection.name, [""], [point_id("7")])
    with pytest.raises(InputError, match="passage id '7' belongs to source 'first'"):
        sync(collection, [SourceDocument("7", [Passage("7", "sept")], "b.jsonl")], encoder, source="second")
    encoder.encoded.clear()
    sync(collection, [row], encoder, source="first")
    assert encoder.encoded == ["seven"] and fetch(collection, ["7"])["7"].text == "seven"


def test_one_name_stands_for_one_place(collection, encoder):
    sync(collection, [document("a.md", "one")], encoder, source="docs", place="/a/docs", settings={"max_tokens": 100})
    with pytest.raises(
        CollectionError, match="source 'docs' of collection 'docs' lies in /a/docs, and this is /b/docs"
    ):
        sync(collection, [document("a.md", "two")], encoder, source="docs", place="/b/docs")
    assert ids_in(collection) == ["docs/a.md#one"]
    sync(collection, [document("a.md", "two")], encoder, source="docs", place="/b/docs", moved=True)
    known = remembered(collection)
    assert known["docs"].place == "/b/docs" and known["docs"].settings == {"max_tokens": 100}
    sync(collection, [document("a.md", "two", source="b")], encoder, source="b", place="/a/docs")
    assert remembered(collection).keys() == {"docs", "b"}


def test_a_name_under_which_nothing_was_stored_is_free(collection, encoder):
    with pytest.raises(InputError, match="has the text ' '"):
        sync(collection, [document("a.md", " ")], encoder, source="docs", place="/a/docs")
    sync(collection, [document("a.md", "one")], encoder, source="docs", place="/b/docs")
    assert remembered(collection)["docs"].place == "/b/docs"


@pytest.mark.parametrize("name", ["", " ", "a/b", "a#b", "a\\b", "a\nb", "x" * 201, "\ud800", None])
def test_a_name_that_cannot_begin_an_id_is_refused(collection, encoder, name):
    with pytest.raises(InputError, match="source is .*, expected a name"):
        sync(collection, [document("a.md", "one")], encoder, source=name)


def test_a_dry_run_counts_what_a_run_then_does_and_writes_nothing(collection, encoder):
    sync(collection, [document("a.md", "one", "two"), document("b.md", "three")], encoder, source="docs")
    before = list(collection.gateway.pages(batch_size=100, with_vectors=True))
    encoder.encoded.clear()
    documents = [document("a.md", "zero", "one", page=1), document("c.md", "four")]
    dry = sync(collection, documents, encoder, source="docs", delete_missing=True, dry_run=True, place="/x")
    assert encoder.encoded == [] and list(collection.gateway.pages(batch_size=100, with_vectors=True)) == before
    assert remembered(collection)["docs"].place == ""
    assert sync(collection, documents, encoder, source="docs", delete_missing=True) == dry
    assert dry == SourceReport(IndexReport(added=2, refreshed=1), documents=2, replaced=1, gone=1)


def test_a_run_that_ends_early_removes_nothing_and_the_next_one_finishes(collection, encoder):
    sync(collection, [document("a.md", "one", "two"), document("b.md", "three")], encoder, source="docs")

    def documents():
        yield document("a.md", "zero")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(collection, documents(), encoder, source="docs", batch_size=1, delete_missing=True)
    assert ids_in(collection) == ["docs/a.md#one", "docs/a.md#two", "docs/a.md#zero", "docs/b.md#three"]
    sync(collection, [document("a.md", "zero")], encoder, source="docs", delete_missing=True)
    assert ids_in(collection) == ["docs/a.md#zero"]


def test_settings_that_are_applied_later_leave_the_indexes_of_sources(manager, collection, encoder):
    if engine_of(collection.client) == "memory":
        pytest.skip("no payload indexes there")
    sync(collection, [document("a.md", "one")], encoder, source="docs")
    assert set(collection.gateway.info().payload_schema) == {"origin.source", "origin.file"}
    manager.ensure("docs", encoder, settings=CollectionSettings(payload_indexes={"topic": "keyword"}))
    assert {"origin.source", "origin.file"} < set(Gateway(collection.client, "docs").info().payload_schema)
    assert collection.describe().settings.payload_indexes == {"topic": "keyword"}


def test_the_short_way_is_a_method_of_the_collection(manager, encoder):
    collection = CollectionManager(manager.client).ensure("docs", WordEncoder())
    assert collection.sync([document("a.md", "one")], source="docs").passages.added == 1
    report = collection.sync([document("b.md", "one")], source="docs", delete_missing=True, dry_run=True)
    assert report.gone == 1


def test_passages_of_a_source_a_document_and_a_file_are_found_and_deleted(collection, encoder):
    sync(collection, [document("a.md", "one", "two"), document("b.md", "three")], encoder, source="docs")
    # a row whose own field says `docs` belongs to its source all the same
    rows = SourceDocument("row", [Passage("row", "a row", {"source": "docs"})], "r.jsonl")
    sync(collection, [rows], encoder, source="rows")
    index_passages(collection, [Passage("own", "of a program", {"source": "docs", "file_path": "a.md"})], encoder)

    def found(**of):
        assert count_passages(collection, **of) == len(
            names := [each.id for each, _ in stored_passages(collection, **of)]
        )
        return sorted(names)

    assert found(source="docs") == ["docs/a.md#one", "docs/a.md#two", "docs/b.md#three", "own"]
    assert found(document="docs/b.md") == ["docs/b.md#three"] and found(source="rows") == ["row"]
    assert found(file="a.md", source="docs") == ["docs/a.md#one", "docs/a.md#two", "own"]
    with pytest.raises(InputError, match="say which passages to delete"):
        delete_passages(collection)
    with pytest.raises(InputError, match="'nobody' is not in 'docs': nothing was deleted"):
        delete_ids(collection, ["own", "nobody"])
    assert delete_passages(collection, document="docs/a.md") == 2 and delete_ids(collection, ["own"]) == 1
    assert ids_in(collection) == ["docs/b.md#three", "row"]


def test_passages_of_another_program_are_looked_at_and_not_deleted(manager, encoder):
    client = manager.client
    client.create_collection("notes", vectors_config=models.VectorParams(size=64, distance=models.Distance.COSINE))
    texts = ["herons wade in the water", "ducks swim on the lake"]
    points = [
        models.PointStruct(id=n, vector=row.tolist(), payload={"page_content": text, "metadata": {"source": f"{n}.md"}})
        for n, (text, row) in enumerate(zip(texts, encoder.encode_passages(texts), strict=True))
    ]
    client.upsert("notes", points)
    notes = manager.adopt("notes", encoder)
    assert [(each.text, origin) for each, origin in stored_passages(notes, source="1.md")] == [(texts[1], None)]
    assert count_passages(notes) == 2
    with pytest.raises(CollectionError, match="has the layout of 'langchain': delete its passages with the program"):
        delete_passages(notes, source="1.md")
    with pytest.raises(CollectionError, match="with the program that made it"):
        delete_ids(notes, ["0"])
