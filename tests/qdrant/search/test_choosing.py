"""A collection is searched so that it finds what exact search finds, until somebody says otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import CollectionMetadata, SearchChoice
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
from qdrant_tools.search import choosing
from qdrant_tools.tuning import TuningGrid

DIMENSION = 48


class Numbers:
    """An encoder of numbers into random directions: hard for a graph, so that its recall is visible."""

    space, dimension = "numbers@0123456789ab", DIMENSION

    def encode_passages(self, texts):
        rows = [np.random.default_rng(int(text)).normal(size=DIMENSION) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)

    encode_queries = encode_passages


POOR = CollectionSettings(m=4, ef_construct=8, full_scan_threshold=10)


def filled(manager: CollectionManager, name: str = "numbers", points: int = 1200, settings=POOR) -> Collection:
    collection = manager.ensure(name, Numbers(), settings=settings)
    collection.index([Passage(str(i), str(i)) for i in range(points)])
    return collection


def recall(collection: Collection) -> float:
    """Of searches that say nothing, on queries of no choice's."""
    queries = Numbers().encode_queries([str(10**6 + i) for i in range(40)])
    found, exact = collection.search_vectors(queries), collection.search_vectors(queries, exact=True)
    pairs = zip(found, exact, strict=True)
    return float(np.mean([len({h.id for h in one} & {h.id for h in other}) / 10 for one, other in pairs]))


@pytest.fixture
def folder(tmp_path):
    """A manager of the embedded engine, and of nothing else: `:memory:` has no graph."""
    client = connect(tmp_path / "qdrant")
    yield CollectionManager(client)
    client.close()


def test_few_vectors_are_searched_exactly_by_whoever_opens_them(folder):
    collection = filled(folder)
    collection.build_index(choose=False)
    assert recall(collection) < 0.9, "the graph alone finds too little"
    report = collection.choose_search()
    assert report.exact and report.measured and not report.told and report.recall == 1.0
    assert report.graph_recall < 0.9
    assert report.sentence == (
        "search is exact, among all 1,200 vectors: recall@10 1.000 against exact search, "
        f"{report.graph_recall:.3f} with HNSW"
    )
    for opened in (collection, folder.open("numbers")):
        assert recall(opened) == 1.0
        assert opened.search_params().exact and not opened.search_params(hnsw_ef=16).exact
        assert not opened.search_params(exact=False).exact
    assert folder.describe("numbers").search == SearchChoice(True, False, 1200, 1.0)


def test_building_the_index_chooses_too(manager, encoder):
    collection = manager.ensure("words", encoder)
    collection.index(numbered(50))
    collection.build_index()
    searched = manager.open("words", encoder)
    is_memory = searched.search_params() is None
    assert is_memory or (collection.searches_exactly and searched.searches_exactly)
    assert searched.search("word 7", k=3) == searched.search("word 7", k=3, exact=True)


def test_many_vectors_get_the_width_or_the_edges_that_find_enough(folder, monkeypatch):
    monkeypatch.setattr(choosing, "EXACT_BYTES", 0)
    collection = filled(folder, points=3000)
    collection.build_index(choose=False)
    assert recall(collection) < 0.9
    report = collection.choose_search()
    assert report.measured and report.recall >= 0.97 and recall(folder.open("numbers")) >= 0.97
    # which of them is faster here is for the machine to say
    settings = folder.describe("numbers").settings
    assert report.exact or report.rebuilt == (settings.m == 32 and settings.ef_construct == 256)
    assert report.rebuilt == ("built again" in report.sentence)


def test_what_was_chosen_is_not_measured_again_until_much_is_new(folder):
    collection = filled(folder, points=300)
    assert collection.choose_search().measured
    assert not collection.choose_search().measured
    collection.index([Passage(str(i), str(i)) for i in range(340)])
    again = collection.choose_search()
    assert not again.measured and again.recall == 1.0
    collection.index([Passage(str(i), str(i)) for i in range(400)])
    assert collection.choose_search().measured


def test_a_handle_that_is_older_than_the_choice_searches_so_too_once_it_asks(folder):
    older = filled(folder, points=300)
    folder.open("numbers").choose_search()
    assert not older.searches_exactly
    assert not older.choose_search().measured and older.searches_exactly


def test_a_choice_leaves_what_was_promoted_while_it_was_measured(folder, monkeypatch):
    collection = filled(folder, points=300)
    measured = choosing._measured

    def and_promoted(*arguments, **options):
        promoted = replace(folder.open("numbers").metadata, adapter="adapter@0")
        collection.gateway.update(metadata=promoted.for_qdrant())
        return measured(*arguments, **options)

    monkeypatch.setattr(choosing, "_measured", and_promoted)
    assert collection.choose_search().measured
    assert folder.open("numbers").metadata.adapter == "adapter@0" and folder.open("numbers").searches_exactly


def test_few_vectors_are_kept_searched_exactly_and_many_are_left_to_who_has_the_time(folder, monkeypatch):
    collection = filled(folder, points=30)
    assert choosing.keep_search(collection) and folder.open("numbers").metadata.search.points == 30
    collection.index([Passage(str(i), str(i)) for i in range(32)])
    assert choosing.keep_search(collection) and folder.open("numbers").metadata.search.points == 30
    collection.index([Passage(str(i), str(i)) for i in range(60)])
    assert choosing.keep_search(collection) and folder.open("numbers").metadata.search.points == 60
    monkeypatch.setattr(choosing, "EXACT_BYTES", 0)
    collection.index([Passage(str(i), str(i)) for i in range(120)])
    assert not choosing.keep_search(collection) and folder.open("numbers").metadata.search.points == 60


def test_what_somebody_said_stays(folder):
    collection = filled(folder, points=300)
    told = collection.choose_search(hnsw_ef=77)
    assert told.told and told.hnsw_ef == 77 and not told.exact and told.recall is not None
    assert "(as it was told)" in told.sentence
    collection.index([Passage(str(i), str(i)) for i in range(600)])
    collection.build_index()
    assert folder.open("numbers").search_params() == models.SearchParams(hnsw_ef=77, exact=False)
    assert collection.choose_search(exact=True).told and folder.open("numbers").searches_exactly
    assert not collection.choose_search(exact=False).exact
    with pytest.raises(InputError, match="say one of the two"):
        collection.choose_search(exact=True, hnsw_ef=5)
    with pytest.raises(InputError, match="hnsw_ef"):
        collection.choose_search(hnsw_ef=0)


def test_a_width_that_the_collection_was_made_with_was_said(folder):
    collection = filled(folder, points=300, settings=CollectionSettings(hnsw_ef=64))
    collection.build_index()
    assert collection.metadata.search.told and collection.hnsw_ef == 64 and not collection.searches_exactly


def test_settings_that_say_nothing_leave_what_was_chosen(folder):
    filled(folder, points=300).build_index()
    metadata = folder.open("numbers").metadata
    chosen = CollectionMetadata(metadata.space, DIMENSION, 512, search=SearchChoice(points=300, recall=0.99))
    folder.open("numbers").gateway.update(metadata=chosen.for_qdrant())
    assert folder.difference("numbers", CollectionSettings(full_scan_threshold=10)) == {}
    assert folder.ensure("numbers", Numbers(), settings=CollectionSettings(full_scan_threshold=20)).hnsw_ef == 512
    # who names another one has said so
    said = folder.ensure("numbers", Numbers(), settings=CollectionSettings(hnsw_ef=99, full_scan_threshold=20))
    assert said.hnsw_ef == 99 and said.metadata.search.told


def test_the_choice_of_tuning_is_kept_for_every_search(folder):
    collection = filled(folder)
    collection.build_index()
    report = collection.tune(grid=TuningGrid(hnsw_ef=(5,)), target_recall=1.0, held_out=20)
    assert report.chosen.exact
    assert collection.apply_tuning(report).searches_exactly and folder.open("numbers").metadata.search.told


def test_compressed_vectors_are_not_read_whole(folder):
    from qdrant_tools.collections.quantization import Quantization

    collection = filled(folder, points=300, settings=CollectionSettings(quantization=Quantization("int8")))
    collection.build_index()
    assert collection.metadata.search.recall is not None and not collection.searches_exactly


def test_where_there_is_nothing_to_choose_nothing_is_kept(folder):
    assert folder.ensure("empty", Numbers()).choose_search() is None
    plain = folder.ensure("plain", DIMENSION)
    plain.gateway.upsert([models.PointStruct(id=1, vector=[1.0] * DIMENSION)])
    plain.build_index()
    assert folder.open("plain").metadata.search is None
    memory = CollectionManager(connect(":memory:")).ensure("words", WordEncoder())
    index_passages(memory, numbered(5), WordEncoder())
    assert memory.choose_search() is None


@pytest.mark.parametrize("search", [1, {"exact": 1}, {"points": -1}, {"recall": 2.0}, {"more": 1}])
def test_metadata_that_are_none_of_ours_are_refused(search):
    row = CollectionMetadata("a@1", 3).as_row() | {"search": search}
    with pytest.raises(CollectionError, match="not written by this program"):
        CollectionMetadata.from_row(row)


def test_one_vector_is_found(folder):
    collection = filled(folder, points=1)
    assert collection.choose_search().recall == 1.0


def test_equal_and_opposite_vectors_are_measured(folder):
    class Two(Numbers):
        def encode_passages(self, texts):
            row = np.eye(1, DIMENSION, dtype=np.float32)
            return np.concatenate([row if int(text) % 2 else -row for text in texts])

    collection = folder.ensure("two", Two())
    collection.index([Passage(str(i), str(i)) for i in range(200)])
    collection.build_index()
    assert collection.metadata.search.recall == 1.0
