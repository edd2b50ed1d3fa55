"""Collections that others filled: what their payloads and metadata can make of a search, an adoption, a promotion."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from payloads import IDS, METADATA, NODES, STATE, STATES, TEXT, node
from qdrant_client import QdrantClient, models
from tiny import WordEncoder

from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.identity import PROMOTION_KEY, RETIRED_KEY
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import LLAMA_INDEX, METADATA_KEY, OURS, Layout, detect
from qdrant_tools.collections.points import fetch
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import CollectionError, PlusError
from qdrant_tools.indexing import LONGEST_ID, index_passages
from qdrant_tools.monitor.canary import freeze_canaries, run_canaries
from qdrant_tools.promotion.plan import read_state
from qdrant_tools.promotion.switch import cleanup
from qdrant_tools.records import Passage, Query
from qdrant_tools.search.bm25 import Bm25

ROOM = 30_000_000
"""Bytes that reading one payload of a megabyte or two may take."""


@pytest.fixture
def docs():
    """A collection in memory with two passages."""
    collection = CollectionManager(QdrantClient(":memory:")).ensure("docs", WordEncoder())
    collection.index([Passage("a", "kettle and tea"), Passage("b", "rain and wind")])
    return collection


def peak_of(call):
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NODES)
def test_a_node_of_a_stranger_is_its_text_or_nothing_and_never_a_format(name):
    passage, peak = peak_of(lambda: LLAMA_INDEX.passage({"_node_content": NODES[name]}, point_id=1))
    assert isinstance(passage.text, str) and passage.id == "1" and peak < ROOM
    assert "class" not in passage.text and len(passage.text) <= 2_100_000


def test_templates_that_llama_index_writes_are_filled_in_literally():
    fields = {"metadata": {"{value}": "{key}", "b": "{{"}, "excluded_embed_metadata_keys": ["c"]}
    content = NODES["a width of 800 million"].replace('"{key:>800000000}"', '"{key}={value}"')
    assert LLAMA_INDEX.passage({"_node_content": content}, point_id=1).text == f"title=Letters\nyear=1890\n\n{TEXT}"
    assert LLAMA_INDEX.passage({"_node_content": node(**fields)}, point_id=1).text == (
        f"{{value}}: {{key}}\nb: {{{{\n\n{TEXT}"
    )
    braces = node(metadata_template="{{{key}}}", text_template="{content} | {metadata_str}")
    assert LLAMA_INDEX.passage({"_node_content": braces}, point_id=1).text == f"{TEXT} | {{title}}\n{{year}}"


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_is_no_text_and_no_whole_number_is_the_points_own(name):
    passage = OURS.passage({"passage_id": IDS[name], "text": "a", "metadata": [1]}, point_id="p")
    assert (passage.id, passage.metadata) == ("p", {})
    assert OURS.passage({"passage_id": 7, "text": ["a"]}, point_id="p") == Passage("7", "")


def test_payloads_without_a_text_are_named_shortly():
    payloads = [{f"field {i} {'x' * 1000}": i for i in range(1000)}]
    with pytest.raises(CollectionError, match="looks like a text") as refusal:
        detect(payloads)
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_a_stranger_is_refused_shortly(docs, name):
    docs.gateway.update(metadata={METADATA_KEY: METADATA[name]})
    with pytest.raises(CollectionError, match="metadata") as refusal:
        CollectionManager(docs.client).open("docs")
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("name", STATES)
def test_the_state_of_a_promotion_by_a_stranger_is_refused_shortly(docs, name):
    docs.gateway.update(metadata={PROMOTION_KEY: STATES[name]})
    with pytest.raises(CollectionError, match=PROMOTION_KEY) as refusal:
        read_state(CollectionManager(docs.client), "docs")
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("mark", ["gone", [1], {"until": "tomorrow"}, {"successor": "x" * 1_000_000, "until": None}])
def test_a_mark_of_a_stranger_stops_writing_with_a_short_error(docs, mark):
    docs.gateway.update(metadata={RETIRED_KEY: mark})
    with pytest.raises(CollectionError, match="is being replaced") as refusal:
        docs.index([Passage("c", "another text")])
    assert len(str(refusal.value)) < 500


def test_points_of_a_stranger_are_found_and_read_without_a_traceback(docs):
    payloads = [{"passage_id": value, "text": value, "metadata": value} for value in IDS.values()]
    points = [models.PointStruct(id=n, vector=[1.0] + [0.0] * 7, payload=row) for n, row in enumerate(payloads)]
    docs.client.upsert("docs", [point.model_copy(update={"vector": vector_of(docs)}) for point in points])
    hits = docs.search("kettle", k=10)
    assert {hit.id for hit in hits} == {"a", "b", *map(str, range(len(payloads)))}
    assert fetch(docs, ["9" * 5000, "\u0663", "a"]).keys() == {"a"}


def vector_of(collection):
    return WordEncoder().encode_passages(["kettle"])[0].tolist()


@pytest.mark.parametrize("layout", [Layout("plain", id="", text="text", metadata=""), OURS])
def test_ids_that_no_point_can_have_are_not_there(docs, layout):
    foreign = replace(docs, metadata=replace(docs.metadata, layout=layout))
    assert fetch(foreign, ["9" * 5000, "\u0663\u0664", str(1 << 64), "x" * 1_000_000]) == {}


def test_an_id_of_a_megabyte_is_refused_and_reported_shortly(docs):
    rows = [{"id": f"{n}" + "x" * 1_000_000, "text": "a text"} for n in range(3)]
    with pytest.raises(PlusError, match=f"at most {LONGEST_ID:,}") as refusal:
        docs.index(rows)
    assert len(str(refusal.value)) < 400
    report = index_passages(docs, rows, WordEncoder(), on_bad="count")
    assert report.failed == 3 and all(len(failure.passage_id) < 100 for failure in report.failures)


@pytest.mark.parametrize(
    "passage",
    [
        {"id": "a", "text": "b", "metadata": {"x" * 1_000_000: float("nan")}},
        {"id": "a", "text": "b", "metadata": {"x": 10**400}},
        {"id": ["a"] * 100_000, "text": "b"},
        {"id": "a", "text": ["b"] * 100_000},
        {"id": "a", "text": "b", "x" * 1_000_000: 1},
        {"x" * 1_000_000: "a", "text": "b"},
        ["a"] * 100_000,
    ],
)
def test_passages_that_cannot_be_stored_are_refused_shortly(docs, passage):
    with pytest.raises(PlusError) as refusal:
        docs.index([passage])
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_many_queries_over_one_long_passage_keep_ids_and_no_texts(tmp_path, mode):
    client = connect(tmp_path / "index")
    settings = CollectionSettings(lexical=Bm25())
    collection = CollectionManager(client).ensure("docs", WordEncoder(), settings=settings)
    collection.index([Passage("long", "kettle " * 200_000, {"source": "x" * 100_000})])
    queries = [Query(f"q{n}", "kettle") for n in range(200)]
    report, peak = peak_of(
        lambda: evaluate_retrieval(collection, queries, {q.id: {"long": 1} for q in queries}, WordEncoder(), mode=mode)
    )
    assert report.headline()["ndcg@10"] == 1.0
    # one text of 1.4 MB for each of 200 queries would be 280 MB
    assert peak < ROOM
    client.close()


def test_canaries_over_one_long_passage_keep_ids_and_no_texts(tmp_path):
    client = connect(tmp_path / "index")
    collection = CollectionManager(client).ensure("docs", WordEncoder())
    collection.index([Passage("long", "kettle " * 200_000)])
    queries = [f"kettle {n}" for n in range(200)]

    def both():
        return run_canaries(collection, freeze_canaries(collection, queries, WordEncoder()), WordEncoder())

    report, peak = peak_of(both)
    assert report.passed and peak < ROOM
    client.close()


def test_cleaning_up_drops_nothing_that_a_stranger_names(docs):
    manager = CollectionManager(docs.client)
    manager.switch_alias("live", "docs")
    manager.ensure("precious", WordEncoder()).index([Passage("a", "kettle")])
    state = STATE | {"alias": "live", "kind": "re-embed", "phase": "switched"}
    for holder, target in (("received", "received"), ("received", "docs"), ("docs", "docs")):
        manager.ensure("received", WordEncoder())
        docs.client.update_collection(
            holder, metadata={PROMOTION_KEY: state | {"source": "precious", "target": target}}
        )
        assert "precious" not in cleanup(manager, "live")
    assert {"docs", "precious"} <= set(manager.names())
