"""Collections know which encoder filled them, whatever the engine."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.collections.points import fetch, point_id, stored_vectors
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    CollectionNotFoundError,
    InputError,
    PlusError,
    SpaceMismatchError,
    VectorError,
)
from qdrant_tools.indexing import index_passages
from qdrant_tools.search.dense import search_vectors


def test_ensure_creates_once_and_opens_afterwards(manager):
    encoder = WordEncoder()
    made = manager.ensure("docs", encoder)
    assert (made.name, made.space, made.dimension, made.hnsw_ef) == ("docs", encoder.space, 64, 128)
    assert manager.ensure("docs", encoder) == made == manager.open("docs")
    assert manager.names() == ["docs"]


def test_an_encoder_of_another_space_is_refused_with_both_names(manager):
    manager.ensure("docs", WordEncoder("old"))
    for refuse in (manager.ensure, manager.open):
        with pytest.raises(SpaceMismatchError) as error:
            refuse("docs", WordEncoder("new"))
        message = str(error.value)
        assert "'docs'" in message and "'old@" in message and "'new@" in message and "new collection" in message
        assert "\n" not in message


def test_the_same_space_with_another_dimension_is_refused(manager):
    manager.ensure("docs", WordEncoder(dimension=64))
    with pytest.raises(VectorError, match="64-dimensional.*32-dimensional"):
        manager.open("docs", WordEncoder(dimension=32))


def test_a_missing_collection_names_those_there_are(manager):
    manager.ensure("docs", WordEncoder())
    manager.switch_alias("live", "docs")
    for ask in (manager.open, manager.describe, manager.drop):
        with pytest.raises(CollectionNotFoundError, match="no collection 'dcos'; collections here: docs, live"):
            ask("dcos")


def test_an_empty_location_says_that_nothing_is_there(manager):
    with pytest.raises(CollectionNotFoundError, match="collections here: none"):
        manager.open("docs")


def test_a_collection_that_another_program_wrote_is_refused_clearly(client, manager):
    client.create_collection("foreign", vectors_config=models.VectorParams(size=64, distance=models.Distance.COSINE))
    with pytest.raises(CollectionError, match="does not say which encoder filled it"):
        manager.ensure("foreign", WordEncoder())
    described = manager.describe("foreign")
    assert described.space is None and described.dimension == 64


def test_an_unusable_name_is_an_input_error(manager):
    for name in ("", "  ", 3):
        with pytest.raises(InputError, match="collection name"):
            manager.ensure(name, WordEncoder())


@pytest.mark.parametrize("wrong", ["64", None, 64.0, True, 0, -1, 10**6])
def test_what_is_neither_an_encoder_nor_a_dimension_is_an_input_error(manager, wrong):
    with pytest.raises(InputError, match="encoder is|dimension is"):
        manager.ensure("docs", wrong)
    assert manager.names() == []


def test_a_dimension_may_be_a_number_of_numpy(manager):
    assert manager.ensure("docs", np.int64(64)).dimension == 64


def test_settings_given_to_an_existing_collection_change_it(manager):
    encoder = WordEncoder()
    manager.ensure("docs", encoder)
    changed = manager.ensure("docs", encoder, settings=CollectionSettings(hnsw_ef=40))
    assert changed.hnsw_ef == 40
    assert manager.open("docs").hnsw_ef == 40, "the setting is kept with the collection"
    assert manager.ensure("docs", encoder).hnsw_ef == 40, "no settings given, nothing changed"


def test_the_distance_of_an_existing_collection_cannot_be_changed(manager):
    manager.ensure("docs", WordEncoder())
    with pytest.raises(CollectionError, match="'cosine'.*cannot be changed to 'dot'"):
        manager.ensure("docs", WordEncoder(), settings=CollectionSettings(distance="dot"))


@pytest.mark.parametrize("wrong", [{"distance": "euclid"}, {"m": -1}, {"hnsw_ef": 0}, {"ef_construct": 1.5}])
def test_settings_that_make_no_sense_are_refused_when_made(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        CollectionSettings(**wrong)


def test_an_alias_opens_its_collection_and_switches_in_one_step(manager):
    encoder = WordEncoder()
    manager.ensure("docs-1", encoder)
    manager.ensure("docs-2", encoder)
    manager.switch_alias("docs", "docs-1")
    assert manager.open("docs", encoder).name == "docs-1"
    manager.switch_alias("docs", "docs-2")
    assert manager.open("docs", encoder).name == "docs-2"
    assert manager.describe("docs").aliases == ("docs",)
    manager.drop_alias("docs")
    assert manager.aliases() == {}


def test_an_alias_stays_where_it_is_if_its_next_collection_has_gone(manager, encoder, monkeypatch):
    manager.ensure("docs-1", encoder)
    manager.switch_alias("docs", "docs-1")
    # dropped by somebody else after it was looked up
    monkeypatch.setattr(manager, "resolve", lambda name: name)
    with pytest.raises(PlusError):
        manager.switch_alias("docs", "docs-2")
    assert manager.aliases() == {"docs": "docs-1"}


def test_aliases_and_collections_do_not_take_each_others_names(manager):
    manager.ensure("docs-1", WordEncoder())
    with pytest.raises(CollectionExistsError, match="'docs-1'"):
        manager.switch_alias("docs-1", "docs-1")
    with pytest.raises(CollectionNotFoundError):
        manager.switch_alias("docs", "nowhere")


def test_a_collection_that_serves_an_alias_is_not_dropped(manager):
    manager.ensure("docs-1", WordEncoder())
    manager.switch_alias("docs", "docs-1")
    with pytest.raises(CollectionError, match="serves alias 'docs'"):
        manager.drop("docs-1")
    with pytest.raises(CollectionError, match="is an alias"):
        manager.drop("docs")
    manager.drop_alias("docs")
    manager.drop("docs-1")
    assert manager.names() == []


def test_point_ids_are_stable_uuids_of_any_string():
    assert point_id("any string: ä") == "2adce8bc-572a-558e-92f5-0bcaac31f10a"
    assert point_id("a") != point_id("b")


def test_passages_and_vectors_come_back_as_they_were_stored(manager):
    encoder = WordEncoder()
    collection = manager.ensure("docs", encoder)
    passages = numbered(30)
    index_passages(collection, passages, encoder)
    stored = fetch(collection, ["p3", "p29", "gone"], with_vectors=True)
    assert sorted(stored) == ["p29", "p3"]
    assert stored["p3"].text == passages[3].text and stored["p3"].metadata == passages[3].metadata
    expected = encoder.encode_passages([passages[3].text])[0]
    np.testing.assert_allclose(stored["p3"].vector, expected, atol=1e-6)
    assert fetch(collection, ["p3"])["p3"].vector is None


def test_stored_vectors_pages_through_everything_once(manager):
    encoder = WordEncoder()
    collection = manager.ensure("docs", encoder)
    passages = numbered(25)
    index_passages(collection, passages, encoder)
    pages = list(stored_vectors(collection, batch_size=10))
    assert [len(ids) for ids, _ in pages] == [10, 10, 5]
    rows = {passage_id: row for ids, vectors in pages for passage_id, row in zip(ids, vectors, strict=True)}
    assert sorted(rows) == sorted(passage.id for passage in passages)
    expected = encoder.encode_passages([passage.text for passage in passages])
    np.testing.assert_allclose(np.stack([rows[p.id] for p in passages]), expected, atol=1e-6)


def test_an_empty_collection_has_no_vectors(manager):
    assert list(stored_vectors(manager.ensure("docs", WordEncoder()))) == []


def test_describe_tells_what_is_there(manager):
    encoder = WordEncoder()
    index_passages(manager.ensure("docs", encoder), numbered(12), encoder)
    described = manager.describe("docs")
    assert (described.name, described.points, described.space) == ("docs", 12, encoder.space)
    assert described.dimension == 64 and described.settings is not None and described.settings.hnsw_ef == 128


def test_the_graph_is_really_built_where_there_is_an_engine_for_it(manager):
    encoder = WordEncoder()
    collection = manager.ensure("docs", encoder)
    index_passages(collection, numbered(300), encoder)
    built = build_index(collection)
    described = manager.describe("docs")
    if described.engine == "memory":
        assert not built and described.indexed_vectors == 0
    else:
        assert built and described.indexed_vectors == 300
        assert described.settings == CollectionSettings(), "the engine reports the settings it was given"


def test_a_collection_for_a_dimension_belongs_to_the_first_encoder_that_comes(manager):
    made = manager.ensure("docs", 256, settings=CollectionSettings(hnsw_ef=99))
    assert (made.space, made.dimension, made.hnsw_ef) == ("", 256, 99) and manager.describe("docs").space is None
    assert manager.ensure("docs", 256) == made
    encoder = WordEncoder(dimension=256)
    for call in (lambda: manager.open("docs", encoder), lambda: index_passages(made, numbered(3), encoder)):
        with pytest.raises(CollectionError, match=r"made for 256 dimensions and has no encoder yet.*ensure\(\)"):
            call()
    owned = manager.ensure("docs", encoder)
    assert (owned.space, owned.hnsw_ef) == (encoder.space, 99)
    index_passages(owned, numbered(3), encoder)
    with pytest.raises(SpaceMismatchError):
        manager.ensure("docs", WordEncoder("other", dimension=256))
    assert manager.ensure("docs", 256).space == encoder.space, "vectors may come without their encoder"


def test_a_collection_for_a_dimension_with_points_is_adopted_after_a_look_at_them(manager):
    encoder = WordEncoder(dimension=256)
    manager.ensure("docs", 256, settings=CollectionSettings(hnsw_ef=99))
    texts = [passage.text for passage in numbered(20)]
    points = [
        models.PointStruct(id=i, vector=row, payload={"text": text})
        for i, (text, row) in enumerate(zip(texts, encoder.encode_queries(texts).tolist(), strict=True))
    ]
    manager.client.upsert("docs", points, wait=True)
    assert search_vectors(manager.open("docs"), encoder.encode_queries(texts[7:8]), k=1)[0][0].text == texts[7]
    with pytest.raises(CollectionError, match=r"adopt\(\)"):
        manager.ensure("docs", encoder)
    with pytest.raises(SpaceMismatchError, match="was not filled by"):
        manager.adopt("docs", Shifted(dimension=256))
    adopted = manager.adopt("docs", encoder)
    assert (adopted.space, adopted.hnsw_ef, adopted.layout.name) == (encoder.space, 99, "plain")


class Shifted(WordEncoder):
    """Other vectors of the same dimension."""

    def encode_queries(self, texts):
        return np.roll(super().encode_queries(texts), 1, axis=1)


@pytest.mark.parametrize("dimension", [0, -1, True, 65_537])
def test_a_dimension_is_a_whole_number_that_a_server_accepts(manager, dimension):
    with pytest.raises(InputError, match="expected a whole number from 1 to 65536"):
        manager.ensure("docs", dimension)


def test_a_dimension_that_differs_is_named(manager):
    manager.ensure("docs", 256)
    for other in (64, WordEncoder(dimension=64)):
        with pytest.raises(VectorError, match="256-dimensional"):
            manager.ensure("docs", other)


def test_a_collection_that_is_dropped_and_made_anew_while_it_is_filled_is_noticed(manager, encoder):
    def passages():
        yield from numbered(64)
        manager.drop("docs")
        manager.ensure("docs", encoder)
        yield from numbered(64, start=64)

    reported: list[int] = []
    collection = manager.ensure("docs", encoder)
    with pytest.raises(CollectionError, match="'docs' was dropped and made anew meanwhile"):
        index_passages(collection, passages(), encoder, batch_size=64, progress=reported.append)
    assert reported == [64]
    report = index_passages(manager.open("docs"), numbered(128), encoder)
    assert report.added + report.unchanged == 128 and collection.gateway.count() == 128
