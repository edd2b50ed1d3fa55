"""Tuning measures recall and cost on the collection's own vectors, and says which setting is enough."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest
from tiny import SERVER, WordEncoder, numbered

from llama_index_embed_plus.evaluate.plots.pages import recall_latency
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import CollectionError, InputError, NotSupportedError, VectorError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
from qdrant_tools.tuning import PREFIX, TuningGrid, TuningReport, apply, tune

POINTS, DIMENSION = 1200, 48


class Numbers:
    """An encoder of numbers into random directions: hard for a graph, so that its recall is visible."""

    space, dimension = "numbers@0123456789ab", DIMENSION

    def __init__(self):
        vectors = np.random.default_rng(0).normal(size=(POINTS, DIMENSION)).astype(np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts):
        return self.vectors[[int(text) for text in texts]]

    encode_queries = encode_passages


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    client = connect(tmp_path_factory.mktemp("tune"))
    manager = CollectionManager(client)
    encoder = Numbers()
    settings = CollectionSettings(m=6, ef_construct=20, full_scan_threshold=10)
    collection = manager.ensure("numbers", encoder, settings=settings)
    index_passages(collection, [Passage(str(i), str(i)) for i in range(POINTS)], encoder)
    build_index(collection)
    yield manager
    client.close()


@pytest.fixture(scope="module")
def report(manager) -> TuningReport:
    grid = TuningGrid(hnsw_ef=(10, 40, 400), m=(None, 24), quantization=(None, Quantization("int8")))
    return tune(manager.open("numbers"), k=5, target_recall=0.97, grid=grid, held_out=40)


def test_every_setting_is_measured_and_exact_search_is_right(report):
    exact, *others = report.trials
    assert exact.exact and exact.recall == 1.0
    assert len(others) == 2 * (3 + 3 * 3), "two graphs, each without and with int8 in three oversamplings"
    assert {trial.m for trial in others} == {6, 24} and {trial.quantization for trial in others} == {"none", "int8"}
    for trial in report.trials:
        assert 0 < trial.p50_ms <= trial.p95_ms <= trial.p99_ms and trial.queries_per_second > 0


def test_a_wider_beam_finds_more(report):
    for m in (6, 24):
        recalls = [t.recall for t in report.trials if t.m == m and t.quantization == "none" and not t.exact]
        assert recalls[0] < recalls[-1]


def test_the_chosen_one_is_the_fastest_that_finds_enough(report):
    enough = [trial for trial in report.trials if trial.recall >= 0.97]
    assert report.chosen in enough and report.chosen.p50_ms == min(trial.p50_ms for trial in enough)
    assert json.loads(json.dumps(report.as_row()))["chosen"]["p50_ms"] == report.chosen.p50_ms
    assert report.reason in report.as_row().values()


def test_nothing_is_left_behind(manager, report):
    assert manager.names() == ["numbers"] and report.points == POINTS


class StopError(Exception):
    pass


@pytest.mark.skipif(not SERVER, reason="a server runs where QDRANT_URL says")
def test_a_tuning_that_ends_badly_on_a_server_leaves_no_copy_and_its_cause_as_the_error():
    def stop_at_the_copy(_):
        if any(name.startswith(PREFIX) for name in on_server.names()):
            raise StopError("by somebody")

    with closing(connect(SERVER)) as client:
        on_server = CollectionManager(client)
        collection = on_server.ensure("numbers", DIMENSION)
        try:
            rows = np.random.default_rng(0).normal(size=(300, DIMENSION))
            client.upload_collection("numbers", rows.astype(np.float32), ids=range(300), wait=True)
            collection.build_index()
            with pytest.raises(StopError, match="by somebody"):
                tune(collection, grid=TuningGrid(hnsw_ef=(16,), m=(6,)), held_out=5, progress=stop_at_the_copy)
            assert on_server.names() == ["numbers"]
        finally:
            client.delete_collection("numbers")


def test_the_chosen_beam_is_stored_with_the_collection(manager):
    collection = manager.open("numbers")
    found = tune(collection, k=5, target_recall=0.3, grid=TuningGrid(hnsw_ef=(33,)), held_out=20)
    applied = apply(collection, found)
    assert applied.metadata == manager.open("numbers").metadata and applied.metadata.search.told
    assert applied.searches_exactly if found.chosen.exact else applied.hnsw_ef == 33


def test_a_target_that_no_graph_reaches_is_exact_searchs(manager):
    collection = manager.open("numbers")
    found = tune(collection, target_recall=1.0, grid=TuningGrid(hnsw_ef=(10,)), held_out=30)
    assert found.chosen.exact and "no setting reaches recall@10 1.0" in found.reason
    assert apply(collection, found).searches_exactly and manager.open("numbers").searches_exactly


def test_queries_of_ones_own_are_used_as_they_are(manager):
    queries = np.random.default_rng(1).normal(size=(7, DIMENSION))
    found = tune(manager.open("numbers"), queries, grid=TuningGrid(hnsw_ef=(400,)))
    assert found.queries == 7 and found.trials[1].recall > 0.5, "a third of all points is looked at"
    with pytest.raises(VectorError, match="expected"):
        tune(manager.open("numbers"), np.ones((2, 3)))


def test_the_chart_is_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    recall_latency(tmp_path / "tune.png", report)
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")


def test_a_thousand_equal_vectors_do_not_stop_tuning(tmp_path):
    client = connect(tmp_path / "qdrant")
    encoder = WordEncoder()
    settings = CollectionSettings(full_scan_threshold=10)
    collection = CollectionManager(client).ensure("copies", encoder, settings=settings)
    copies = [Passage(f"copy{i}", "the very same text") for i in range(1000)]
    index_passages(collection, [*copies, *numbered(200)], encoder)
    build_index(collection)
    found = tune(collection, grid=TuningGrid(hnsw_ef=(64,)), held_out=50)
    assert found.trials[0].exact and found.trials[0].recall == 1.0
    client.close()


def test_what_cannot_be_tuned_says_why(manager):
    memory = connect(":memory:")
    encoder = WordEncoder()
    with pytest.raises(NotSupportedError, match="no index to tune"):
        tune(CollectionManager(memory).ensure("docs", encoder))
    small = manager.ensure("small", encoder)
    index_passages(small, numbered(3), encoder)
    with pytest.raises(CollectionError, match="build_index"):
        tune(small)
    manager.drop("small")
    with pytest.raises(InputError, match="target_recall"):
        tune(manager.open("numbers"), target_recall=1.5)
    with pytest.raises(InputError, match="at least one value"):
        TuningGrid(hnsw_ef=())
