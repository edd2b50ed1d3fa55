"""A collection that was opened with an encoder keeps it, and its methods do what the functions do."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from tiny import DirectionEncoder, numbered

from qdrant_tools import (
    Bm25,
    Collection,
    CollectionManager,
    CollectionSettings,
    HeldOut,
    Label,
    Passage,
    PlusError,
    Promotion,
    TuningGrid,
)
from qdrant_tools.collections import build_index, fetch
from qdrant_tools.errors import InputError, NotSupportedError, SpaceMismatchError, UsageError, VectorError
from qdrant_tools.indexing import IndexReport, index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.search import search, search_batch, search_groups, search_hybrid, search_lexical, search_vectors
from qdrant_tools.search.fusion import Fusion

QUERIES = ["passage number 4 about topic4", "thing33"]


class MappedEncoder(DirectionEncoder):
    """The same space, other queries: what a query adapter makes of an encoder."""

    def encode_queries(self, texts):
        return super().encode_queries([text.removeprefix("find: ") for text in texts])


@pytest.fixture
def encoder() -> DirectionEncoder:
    return DirectionEncoder()  # no two passages are equally near: two calls could break a tie in two ways


@pytest.fixture
def empty(manager, encoder) -> Collection:
    return manager.ensure("docs", encoder, settings=CollectionSettings(lexical=Bm25()))


@pytest.fixture
def docs(empty) -> Collection:
    empty.index(numbered(60))
    return empty


def test_what_opens_a_collection_with_an_encoder_hands_it_in(manager, encoder, docs):
    docs.client.create_collection("made by hand", **CollectionSettings().create_options(64))
    adopted = manager.adopt("made by hand", encoder)
    changed = manager.ensure("docs", encoder, settings=CollectionSettings(lexical=Bm25(), hnsw_ef=99))
    for collection in (docs, adopted, changed, manager.open("docs", encoder)):
        assert collection.encoder is encoder
    assert manager.open("docs").encoder is None and manager.ensure("plain", 64).encoder is None


def test_the_encoder_is_no_part_of_what_a_collection_is(manager, encoder, docs):
    assert docs == manager.open("docs") and hash(docs) == hash(manager.open("docs"))
    assert "DirectionEncoder" not in repr(docs)


def test_index_stores_what_index_passages_stores(manager, encoder, empty):
    reported: list[int] = []
    assert empty.index(numbered(20), batch_size=8, progress=reported.append) == IndexReport(added=20)
    assert reported == [8, 8, 4]
    assert index_passages(empty, numbered(20), encoder) == IndexReport(unchanged=20)
    report = empty.index([*numbered(5), Passage("bad", "")], on_bad="count", delete_missing=True)
    assert (report.unchanged, report.failed, report.deleted) == (5, 1, 15)


def test_dicts_are_passages(empty):
    rows = [{"id": "a", "text": "one text", "metadata": {"n": 1}}, {"id": "b", "text": "another"}]
    assert empty.index(rows) == IndexReport(added=2)
    assert empty.index([Passage("a", "one text", {"n": 1}), Passage("b", "another")]) == IndexReport(unchanged=2)


def test_a_string_is_the_same_passage_whenever_it_comes(empty):
    assert empty.index(["cats purr", "dogs bark", "cats purr"]) == IndexReport(added=2, merged=1)
    assert empty.index(["dogs bark", "cows moo"]) == IndexReport(added=1, unchanged=1)
    hit = empty.search("cats purr", k=1)[0]
    assert hit.text == "cats purr" and re.fullmatch("[0-9a-f]{32}", hit.id)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "no id"}, "passage {'text': 'no id'} has no field 'id'"),
        ({"id": "a"}, "passage {'id': 'a'} has no field 'text'"),
        ({"id": "a", "text": "x", "title": "t"}, "passage 'a' has the field 'title', expected 'id', 'text' and"),
        ({"id": "a", "text": "x", "metadata": ["m"]}, "passage 'a': field 'metadata' is ['m'], expected a dict"),
        ({"id": 7.5, "text": "x"}, "passage id is 7.5, expected a non-empty string"),
        ({"id": "a", "text": None}, "passage 'a' has the text None"),
        (3, "passage is 3, expected a Passage, a dict with 'id' and 'text', or a string"),
        (" ", "has the text ' ', expected a non-empty string"),
    ],
)
def test_what_is_no_passage_is_one_error_that_names_the_field(empty, row, message):
    with pytest.raises(InputError, match=re.escape(message)):
        empty.index([{"id": "good", "text": "text"}, row])
    report = empty.index([{"id": "good", "text": "text"}, row], on_bad="count")
    assert (report.added, report.failed) == (1, 1) and message in report.failures[0].reason


@pytest.mark.parametrize("alone", ["one text", {"id": "a", "text": "x"}, Passage("a", "x"), None])
def test_one_passage_instead_of_several_is_refused(empty, alone):
    with pytest.raises(InputError, match="expected several: a list of Passage, dicts or strings"):
        empty.index(alone)


def shown(hits):
    """Hits without their scores, which two equal searches may round in two ways."""
    return [replace(hit, score=0.0) for hit in hits]


def test_every_search_finds_what_its_function_finds(docs, encoder):
    query, only = QUERIES[0], {"even": True}
    vectors = encoder.encode_queries(QUERIES)
    words, fusion = ["thing4", "thing32"], Fusion("dbsf")  # each is in one passage
    assert shown(docs.search(query)) == shown(search(docs, query, encoder)) != []
    options = {"k": 3, "filter": only, "fields": ["topic"], "exact": True}
    assert shown(docs.search(query, **options)) == shown(search(docs, query, encoder, **options))
    for by_method, by_function in (
        (docs.search_batch(QUERIES, k=4), search_batch(docs, QUERIES, encoder, k=4)),
        (docs.search_vectors(vectors, k=4), search_vectors(docs, vectors, k=4)),
        (docs.search_lexical(words, k=1, filter=only), search_lexical(docs, words, k=1, filter=only)),
        (
            docs.search_hybrid(words, k=1, fusion=fusion, filter=only),
            search_hybrid(docs, words, encoder, k=1, fusion=fusion, filter=only),
        ),
    ):
        assert [shown(hits) for hits in by_method] == [shown(hits) for hits in by_function]
    groups = {"by": "topic", "group_size": 2, "k": 3}
    assert [(group.value, shown(group.hits)) for group in docs.search_groups(query, **groups)] == [
        (group.value, shown(group.hits)) for group in search_groups(docs, query, encoder, **groups)
    ]


def test_fetch_describe_and_build_index_are_those_of_the_functions(docs, manager):
    assert docs.fetch(["p3", "nowhere"]) == fetch(docs, ["p3", "nowhere"])
    vector = docs.fetch(["p3"], with_vectors=True)["p3"].vector
    np.testing.assert_array_equal(vector, fetch(docs, ["p3"], with_vectors=True)["p3"].vector)
    done: list[int] = []
    built = docs.build_index(progress=done.append)
    assert not build_index(docs) and (built or sum(done) == 0), "what is built is not built again"
    assert docs.describe() == manager.describe("docs") and docs.describe().points == 60


def ids(example):
    return example.query, [p.id for p in example.positives], [n.id for n in example.negatives]


def test_mining_by_method_gives_the_examples_of_the_function(docs, encoder):
    labels = [Label("passage about thing5", "p5"), Label("passage about topic2", "p2", 0.5)]
    settings = MiningSettings(negatives=3, exact=True)
    done: list[int] = []
    result = docs.mine(labels, settings=settings, progress=done.append)
    expected = mine(docs, labels, encoder, settings=settings)
    assert [ids(example) for example in result.examples] == [ids(example) for example in expected.examples]
    assert len(result.examples) == sum(done) == 2 and result.discarded == expected.discarded


def test_tuning_by_method_measures_the_grid(docs, encoder, request):
    grid = TuningGrid(hnsw_ef=(8, 64))
    if "memory" in request.node.name:
        with pytest.raises(NotSupportedError, match="no index to tune"):
            docs.tune(grid=grid)
        return
    docs.build_index()
    report = docs.tune(encoder.encode_queries(QUERIES), k=3, target_recall=0.5, grid=grid)
    assert [trial.hnsw_ef for trial in report.trials if not trial.exact] == [8, 64]
    assert (report.queries, report.k, report.target_recall) == (2, 3, 0.5)
    assert docs.tune(QUERIES, grid=grid).queries == 2 and docs.tune(grid=grid, held_out=7).queries == 7
    if not report.chosen.exact:
        applied = docs.apply_tuning(report)
        assert applied.hnsw_ef == report.chosen.hnsw_ef and applied.encoder is encoder
    other = CollectionManager(docs.client).ensure("other", encoder)
    with pytest.raises(InputError, match="the report is about collection 'docs', this is 'other'"):
        other.apply_tuning(report)


def test_another_encoder_of_the_space_can_take_over(docs, encoder):
    mapped = MappedEncoder()
    other = docs.with_encoder(mapped)
    assert other.encoder is mapped and other == docs and docs.encoder is encoder
    assert other.search("find: thing33", k=1) == docs.search("thing33", k=1)


def test_an_encoder_of_another_space_or_dimension_cannot(docs):
    with pytest.raises(SpaceMismatchError, match="holds vectors of 'words@.*makes 'other@"):
        docs.with_encoder(DirectionEncoder("other"))
    with pytest.raises(VectorError, match="64-dimensional"):
        docs.with_encoder(DirectionEncoder(dimension=32))


@pytest.mark.parametrize(
    "call",
    [
        lambda docs: docs.index(["text"]),
        lambda docs: docs.search("text"),
        lambda docs: docs.search_batch(["text"]),
        lambda docs: docs.search_groups("text", by="topic"),
        lambda docs: docs.search_hybrid(["text"]),
        lambda docs: docs.mine([Label("text", "p1")]),
    ],
)
def test_without_an_encoder_texts_are_one_error_that_names_the_way_out(manager, docs, call):
    bare = manager.open("docs")
    with pytest.raises(UsageError, match=r"'docs' was opened without an encoder: open it with one, .*with_encoder"):
        call(bare)
    call(bare.with_encoder(DirectionEncoder()))


def test_without_an_encoder_the_rest_works(manager, docs, encoder):
    bare = manager.open("docs")
    assert bare.fetch(["p1"]) and bare.describe().points == 60 and bare.search_lexical(["thing33"])[0][0].id == "p33"
    assert bare.search_vectors(encoder.encode_queries(["thing33"]))[0]
    bare.build_index()


def test_a_collection_has_what_its_metadata_says(docs):
    metadata = docs.metadata
    changed = replace(docs, metadata=replace(metadata, hnsw_ef=7, adapter="build"))
    assert (changed.hnsw_ef, changed.adapter, changed.space) == (7, "build", metadata.space)
    assert (docs.dimension, docs.layout, docs.lexical) == (metadata.dimension, metadata.layout, metadata.lexical)
    assert isinstance(UsageError(""), PlusError)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda docs: docs.with_encoder(None), "encoder is None"),
        (lambda docs: docs.with_encoder("a model"), "encoder is 'a model'"),
        (lambda docs: docs.fetch("p3"), "passage ids are 'p3', expected several strings"),
        (lambda docs: docs.fetch(None), "passage ids are None"),
        (lambda docs: docs.fetch([3]), "passage ids is 3, expected a string"),
        (lambda docs: docs.mine(None), "labels are None"),
        (lambda docs: docs.mine(["p3"]), "a label is 'p3', expected a Label"),
        (lambda docs: docs.mine([Label("q", "p3", float("nan"))]), "the weight of the label for 'q' is nan"),
        (lambda docs: docs.search_groups("q", by=float("nan")), "by is nan, expected the name of a metadata field"),
        (lambda docs: docs.index([{"id": "a", "text": "x", "metadata": {"b": [{1: 2}]}}]), "has the key 1"),
        (lambda docs: Promotion(CollectionManager(docs.client), "docs", None), "encoder is None"),
        (lambda docs: HeldOut(("q",), {"q": {"p": 1}}), "held-out queries hold 'q', expected a Query"),
    ],
)
def test_what_is_not_understood_is_one_error(docs, call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(docs)
