"""Every setting of a collection reaches the engine and comes back from it, or is refused."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import models
from tiny import SERVER, WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import CollectionError, EngineError, InputError, NotSupportedError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.dense import search

ENCODER = WordEncoder(dimension=64)
KINDS = [
    Quantization("int8"),
    Quantization("int8", quantile=0.99, always_ram=False),
    *(Quantization("binary", bits) for bits in (1, 1.5, 2)),
    *(Quantization("product", bits) for bits in (8, 4, 2, 1, 0.5)),
    *(Quantization("turbo", bits, oversampling=3.0) for bits in (1, 1.5, 2, 4)),
]


@pytest.fixture
def manager(tmp_path):
    client = connect(tmp_path / "qdrant")
    yield CollectionManager(client)
    client.close()


@pytest.mark.parametrize(
    "settings",
    [
        CollectionSettings(m=8, ef_construct=50, payload_m=4, hnsw_ef=40),
        CollectionSettings(on_disk=True),
        CollectionSettings(datatype="float16"),
        CollectionSettings(payload_indexes={"topic": "integer", "even": "bool"}),
        CollectionSettings(lexical=Bm25(), quantization=Quantization("int8"), payload_indexes={"topic": "keyword"}),
        CollectionSettings(payload_m=16),
    ],
)
def test_what_a_collection_is_made_with_is_what_it_reports(manager, settings):
    manager.ensure("docs", ENCODER, settings=settings)
    assert manager.describe("docs").settings == settings
    assert manager.difference("docs", settings) == {}


def test_every_quantization_is_made_reported_and_used_by_the_search(manager):
    for number, quantization in enumerate(KINDS):
        collection = manager.ensure(f"q{number}", ENCODER, settings=CollectionSettings(quantization=quantization))
        assert collection.quantization == manager.describe(f"q{number}").settings.quantization == quantization
        asked = collection.search_params().quantization
        assert (asked.rescore, asked.oversampling) == (True, quantization.oversampling)
        assert collection.search_params(exact=True).quantization is None


def test_a_quantized_collection_finds_with_oversampling_what_it_misses_without(manager):
    rng = np.random.default_rng(0)
    encoder = WordEncoder(dimension=128)
    vectors = rng.normal(size=(1000, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    encoder.encode_passages = encoder.encode_queries = lambda texts: np.stack([vectors[int(t)] for t in texts])
    found = {}
    for oversampling in (1.0, 20.0):
        settings = CollectionSettings(
            quantization=Quantization("binary", oversampling=oversampling), full_scan_threshold=10, hnsw_ef=400
        )
        collection = manager.ensure("docs", encoder, settings=settings)
        passages = [Passage(str(i), str(i)) for i in range(1000)]
        index_passages(collection, passages, encoder)
        build_index(collection)
        right = 0
        for query in range(0, 100, 10):
            exact = {hit.id for hit in search(collection, str(query), encoder, exact=True)}
            right += len(exact & {hit.id for hit in search(collection, str(query), encoder)})
        found[oversampling] = right / 100
    assert found[20.0] > found[1.0] + 0.2


def test_settings_change_in_place_where_they_can(manager):
    manager.ensure("docs", ENCODER, settings=CollectionSettings(payload_indexes={"topic": "integer"}, payload_m=4))
    wanted = CollectionSettings(
        m=24, on_disk=True, quantization=Quantization("turbo", 4), payload_indexes={"even": "bool"}, hnsw_ef=77
    )
    assert set(manager.difference("docs", wanted)) == {
        "m", "on_disk", "quantization", "payload_indexes", "hnsw_ef", "payload_m",
    }  # fmt: skip
    manager.ensure("docs", ENCODER, settings=wanted)
    left = manager.difference("docs", wanted)
    assert left == {}
    back = CollectionSettings()
    assert manager.ensure("docs", ENCODER, settings=back).quantization is None
    assert manager.describe("docs").settings == back


def test_how_a_quantized_collection_is_searched_changes_without_building_it_again(manager):
    collection = manager.ensure("docs", ENCODER, settings=CollectionSettings(quantization=Quantization("int8")))
    index_passages(collection, numbered(300), ENCODER)
    build_index(collection)
    wanted = CollectionSettings(quantization=Quantization("int8", oversampling=4.0, rescore=False))
    changed = manager.ensure("docs", ENCODER, settings=wanted)
    assert changed.quantization == wanted.quantization
    assert not build_index(changed), "nothing to build"


def test_what_cannot_be_changed_says_so(manager):
    manager.ensure("docs", ENCODER)
    with pytest.raises(CollectionError, match="cannot be changed.*new collection"):
        manager.ensure("docs", ENCODER, settings=CollectionSettings(datatype="float16"))


@pytest.mark.parametrize(
    "settings",
    [
        CollectionSettings(shards=2),
        CollectionSettings(replicas=2),
        CollectionSettings(strict_mode=models.StrictModeConfig(enabled=True, max_query_limit=10)),
    ],
)
def test_the_embedded_engine_refuses_what_only_a_server_can_do(manager, settings):
    with pytest.raises(NotSupportedError, match="use a server"):
        manager.ensure("docs", ENCODER, settings=settings)
    assert manager.names() == []


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (CollectionSettings(quantization=Quantization("int8")), "quantization"),
        (CollectionSettings(payload_indexes={"a": "keyword"}), "payload_indexes"),
        (CollectionSettings(on_disk=True, shards=2), "on_disk, shards"),
    ],
)
def test_memory_refuses_what_it_has_not(settings, name):
    manager = CollectionManager(connect(":memory:"))
    with pytest.raises(NotSupportedError, match=f"':memory:' has no {name}"):
        manager.ensure("docs", ENCODER, settings=settings)
    manager.ensure("docs", ENCODER)
    with pytest.raises(NotSupportedError, match=name):
        manager.ensure("docs", ENCODER, settings=settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quantization("int4"),
        lambda: Quantization("turbo", 3),
        lambda: Quantization("binary", quantile=0.9),
        lambda: Quantization("int8", oversampling=0.5),
        lambda: CollectionSettings(payload_indexes={"a": "number"}),
        lambda: CollectionSettings(datatype="float64"),
        lambda: CollectionSettings(payload_m=-1),
        lambda: CollectionSettings(shards=0),
    ],
)
def test_values_that_make_no_sense_are_refused_when_made(make):
    with pytest.raises(InputError, match="expected"):
        make()


def test_describe_tells_what_the_vectors_and_the_files_take(manager):
    collection = manager.ensure("docs", ENCODER, settings=CollectionSettings(datatype="float16"))
    index_passages(collection, numbered(50), ENCODER)
    described = manager.describe("docs")
    assert described.vector_bytes == 50 * 64 * 2
    assert described.disk_bytes > described.vector_bytes
    memory = CollectionManager(connect(":memory:"))
    memory.ensure("docs", ENCODER)
    assert memory.describe("docs").disk_bytes is None


def test_a_datatype_that_turns_unit_vectors_into_zeros_is_refused(manager):
    with pytest.raises(InputError, match="every unit vector becomes zero: .* quantization"):
        manager.ensure("docs", ENCODER, settings=CollectionSettings(datatype="uint8"))
    assert manager.names() == []


@pytest.mark.skipif(not SERVER, reason="needs a server")
def test_a_server_has_shards_and_a_strict_mode_and_restores_its_own_snapshot_by_url():
    client = connect(str(SERVER))
    strict = models.StrictModeConfig(enabled=True, max_query_limit=10)
    settings = CollectionSettings(shards=2, strict_mode=strict)
    try:
        docs = CollectionManager(client).ensure("of-a-server", ENCODER, settings=settings)
        index_passages(docs, numbered(20), ENCODER)
        assert docs.describe().settings.shards == 2
        with pytest.raises(EngineError, match="Limit exceeded 11 > 10"):
            search(docs, "passage", ENCODER, k=11)
        made = create_snapshot(client, "of-a-server")
        url = f"{str(SERVER).rstrip('/')}/collections/of-a-server/snapshots/{made.where}"
        assert restore_snapshot(client, url, "of-a-server-back") == 20
        assert CollectionManager(client).open("of-a-server-back").space == ENCODER.space
    finally:
        for name in ("of-a-server", "of-a-server-back"):
            client.delete_collection(name)
        client.close()
