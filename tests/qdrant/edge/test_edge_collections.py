"""Collections, aliases and settings of the embedded engine."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import connect
from qdrant_tools.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    InputError,
    LocationError,
    NotSupportedError,
)

VECTOR = models.VectorParams(size=4, distance=models.Distance.COSINE)
EAGER = models.OptimizersConfigDiff(indexing_threshold=10)
SMALL_GRAPH = models.HnswConfigDiff(m=8, ef_construct=32, full_scan_threshold=10)


def reopened(client):
    client.close()
    return connect(client.folder, create=False)


def matrix(rows, size=4):
    return np.random.default_rng(0).normal(size=(rows, size)).astype(np.float32)


def alias(name, target):
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=target, alias_name=name))


def test_settings_and_metadata_survive_reopening(client):
    client.create_collection(
        "docs",
        {"text": VECTOR, "title": models.VectorParams(size=2, distance=models.Distance.DOT)},
        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        hnsw_config=SMALL_GRAPH,
        optimizers_config=EAGER,
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
        metadata={"space": "mini@0123456789ab"},
    )
    before = client.get_collection("docs")
    after = reopened(client).get_collection("docs")
    assert after.config == before.config
    assert after.config.metadata == {"space": "mini@0123456789ab"}
    assert after.config.params.vectors["title"].size == 2
    assert after.config.params.sparse_vectors["words"].modifier == models.Modifier.IDF
    assert (after.config.hnsw_config.m, after.config.optimizer_config.indexing_threshold) == (8, 10)


def test_a_missing_collection_is_named_with_those_that_are_there(client):
    client.create_collection("docs", VECTOR)
    for call in (client.get_collection, client.count, client.query_points):
        with pytest.raises(CollectionNotFoundError, match="Collection other not found; collections here: docs"):
            call("other")
    assert not client.collection_exists("other")


def test_creating_a_collection_twice_is_refused(client):
    client.create_collection("docs", VECTOR)
    with pytest.raises(CollectionExistsError, match="already exists"):
        client.create_collection("docs", VECTOR)


def test_a_dropped_collection_is_gone_with_its_folder_and_aliases(client):
    client.create_collection("docs", VECTOR)
    client.update_collection_aliases([alias("live", "docs")])
    assert client.delete_collection("docs")
    assert not client.delete_collection("docs")
    assert client.get_aliases().aliases == []
    assert list((client.folder / "collections").iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 256, 'quo"te'])
def test_names_that_a_server_refuses_are_refused(client, name):
    with pytest.raises(ValueError):
        client.create_collection(name, VECTOR)
    assert client.get_collections().collections == []


def test_a_vector_has_a_possible_size(client):
    with pytest.raises(InputError, match="65536"):
        client.create_collection("huge", models.VectorParams(size=65_537, distance=models.Distance.DOT))


@pytest.mark.parametrize(
    "setting",
    [
        {"shard_number": 2},
        {"replication_factor": 2},
        {"sharding_method": models.ShardingMethod.CUSTOM},
        {"strict_mode_config": models.StrictModeConfig(enabled=True)},
        {"wal_config": models.WalConfigDiff(wal_capacity_mb=1)},
        {"optimizers_config": models.OptimizersConfigDiff(memmap_threshold=1)},
    ],
)
def test_settings_the_engine_cannot_honour_are_refused(client, setting):
    with pytest.raises(NotSupportedError):
        client.create_collection("docs", VECTOR, **setting)
    assert not client.collection_exists("docs")


@pytest.mark.parametrize("method", ["create_snapshot", "create_shard_key", "cluster_status", "collection_cluster_info"])
def test_methods_the_engine_cannot_carry_say_so(client, method):
    arguments = {"create_shard_key": ("docs", "key"), "cluster_status": ()}.get(method, ("docs",))
    with pytest.raises(NotSupportedError, match=method):
        getattr(client, method)(*arguments)


def test_hnsw_is_built_at_the_end_of_a_bulk_load(client):
    client.create_collection("docs", VECTOR, hnsw_config=SMALL_GRAPH, optimizers_config=EAGER)
    client.upload_collection("docs", matrix(2000), ids=range(2000))
    info = client.get_collection("docs")
    assert (info.points_count, info.indexed_vectors_count, info.status) == (2000, 2000, "green")


def test_below_its_threshold_a_collection_is_not_indexed(client):
    client.create_collection("docs", VECTOR)
    client.upload_collection("docs", matrix(2000), ids=range(2000))
    assert client.build_index("docs") is False
    assert client.get_collection("docs").indexed_vectors_count == 0


def test_single_upserts_leave_the_index_to_build_index(client):
    client.create_collection("docs", VECTOR, hnsw_config=SMALL_GRAPH, optimizers_config=EAGER)
    points = [models.PointStruct(id=i, vector=v) for i, v in enumerate(matrix(1000).tolist())]
    client.upsert("docs", points)
    assert client.get_collection("docs").status == "grey"
    assert client.build_index("docs") is True
    info = client.get_collection("docs")
    assert (info.indexed_vectors_count, info.status) == (1000, "green")
    assert client.build_index("docs") is False


def test_hnsw_settings_change_in_place_and_rebuild(client):
    client.create_collection("docs", VECTOR, hnsw_config=SMALL_GRAPH, optimizers_config=EAGER)
    client.upload_collection("docs", matrix(2000), ids=range(2000))
    client.update_collection("docs", hnsw_config=models.HnswConfigDiff(m=32))
    assert client.get_collection("docs").config.hnsw_config.m == 32
    assert client.build_index("docs") is True
    again = reopened(client).get_collection("docs")
    assert (again.config.hnsw_config.m, again.config.hnsw_config.ef_construct, again.points_count) == (32, 32, 2000)


def test_metadata_is_merged_as_on_a_server(client):
    client.create_collection("docs", VECTOR, metadata={"a": 1, "b": 1})
    client.update_collection("docs", metadata={"b": 2, "c": 3})
    assert reopened(client).get_collection("docs").config.metadata == {"a": 1, "b": 2, "c": 3}


def test_settings_of_an_unknown_vector_are_refused(client):
    client.create_collection("docs", {"text": VECTOR})
    with pytest.raises(InputError, match="'title'"):
        client.update_collection("docs", vectors_config={"title": models.VectorParamsDiff(on_disk=True)})


def test_an_alias_is_a_second_name_and_switches_atomically(client):
    for name, number in (("old", 1), ("new", 2)):
        client.create_collection(name, VECTOR)
        client.upsert(name, [models.PointStruct(id=number, vector=[1, 0, 0, 0])])
    client.update_collection_aliases([alias("live", "old")])
    assert client.retrieve("live", [1])[0].id == 1
    client.update_collection_aliases(
        [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="live")),
            alias("live", "new"),
        ]
    )
    again = reopened(client)
    assert again.retrieve("live", [2])[0].id == 2
    assert [row.alias_name for row in again.get_collection_aliases("new").aliases] == ["live"]


def test_a_failing_alias_operation_changes_nothing(client):
    client.create_collection("docs", VECTOR)
    with pytest.raises(CollectionNotFoundError):
        client.update_collection_aliases([alias("live", "docs"), alias("next", "absent")])
    with pytest.raises(CollectionExistsError):
        client.update_collection_aliases([alias("docs", "docs")])
    assert client.get_aliases().aliases == []


def test_a_vector_can_be_added_to_and_removed_from_a_live_collection(client):
    client.create_collection("docs", {"text": VECTOR})
    client.upsert("docs", [models.PointStruct(id=1, vector={"text": [1, 0, 0, 0]})])
    dense = models.DenseVectorNameConfig(dense=models.DenseVectorConfig(size=2, distance=models.Distance.COSINE))
    client.create_vector_name("docs", "small", dense)
    client.update_vectors("docs", [models.PointVectors(id=1, vector={"small": [0, 1]})])
    again = reopened(client)
    assert again.query_points("docs", [0.0, 1.0], using="small").points[0].id == 1
    again.delete_vector_name("docs", "small")
    assert set(again.get_collection("docs").config.params.vectors) == {"text"}
    assert list(again.retrieve("docs", [1], with_vectors=True)[0].vector) == ["text"]


def test_payload_indexes_are_reported_with_their_type(client):
    client.create_collection("docs", VECTOR)
    client.create_payload_index("docs", "year", models.PayloadSchemaType.INTEGER)
    text = models.TextIndexParams(
        type="text",
        tokenizer=models.TokenizerType.WORD,
        lowercase=True,
        stopwords=models.StopwordsSet(languages=[models.Language.ENGLISH], custom=["qdrant"]),
        stemmer=models.SnowballParams(type="snowball", language=models.SnowballLanguage.ENGLISH),
    )
    client.create_payload_index("docs", "body", text)
    schema = client.get_collection("docs").payload_schema
    assert (schema["year"].params, schema["body"].params) == (None, text)
    with pytest.raises(InputError, match="'number' is no payload index; expected one of bool, datetime"):
        client.create_payload_index("docs", "year", "number")
    assert {name: index.data_type.value for name, index in schema.items()} == {"year": "integer", "body": "text"}
    client.delete_payload_index("docs", "year")
    assert set(client.get_collection("docs").payload_schema) == {"body"}


def test_collections_migrate_between_local_mode_and_the_embedded_engine(client):
    local = QdrantClient(":memory:")
    local.create_collection("docs", {"text": VECTOR}, metadata={"a": 1})
    points = [models.PointStruct(id=i, vector={"text": [1, i, 0, 0]}, payload={"n": i}) for i in range(120)]
    local.upsert("docs", points)
    local.migrate(client)
    client.create_payload_index("docs", "n", "integer")
    back = QdrantClient(":memory:")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # local mode has no payload indexes, and says so
        client.migrate(back)
    assert back.get_collection("docs").config.metadata == {"a": 1}
    before, after = (c.scroll("docs", limit=200, with_vectors=True)[0] for c in (local, back))
    assert [(r.id, r.payload) for r in after] == [(r.id, r.payload) for r in before]
    for ours, theirs in zip(after, before, strict=True):
        assert ours.vector["text"] == pytest.approx(theirs.vector["text"])


def test_a_damaged_manifest_is_named(client):
    client.create_collection("docs", VECTOR)
    client.close()
    manifest = client.folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    with pytest.raises(LocationError, match="manifest.json' is damaged"):
        connect(client.folder)


def test_a_manifest_of_a_newer_release_is_refused(client):
    client.close()
    manifest = client.folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 99}))
    with pytest.raises(LocationError, match="newer release"):
        connect(client.folder)


@pytest.mark.parametrize("vectors", [None, {}])
def test_a_collection_may_hold_payloads_alone(tmp_path, vectors):
    client, local = connect(tmp_path), QdrantClient(":memory:")
    for engine in (client, local):
        engine.create_collection("c", vectors)
        engine.upsert("c", [models.PointStruct(id=i, vector={}, payload={"n": i, "k": "xyz"[i % 3]}) for i in range(9)])
        engine.upload_points("c", [models.PointStruct(id=9, vector={}, payload={"n": 9})], wait=True)
        engine.delete("c", [0])
        engine.set_payload(
            "c", {"z": 1}, models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gt=5))])
        )

    client.create_payload_index("c", "k", "keyword")
    client.create_payload_index("c", "n", "integer")

    def state(engine):
        params = engine.get_collection("c").config.params
        groups = engine.query_points_groups("c", "k", limit=3, group_size=2).groups
        return (
            engine.scroll("c", limit=4),
            engine.scroll("c", order_by=models.OrderBy(key="n", direction=models.Direction.DESC)),
            engine.count("c", models.Filter(must_not=[models.IsEmptyCondition(is_empty={"key": "z"})])),
            engine.facet("c", "k"),
            [(group.id, [hit.id for hit in group.hits]) for group in groups],
            params.vectors,
            params.sparse_vectors,
        )

    assert state(client) == state(local)
    with pytest.raises(InputError, match="has no unnamed vector .*: it has none"):
        client.upsert("c", [models.PointStruct(id=1, vector=[1.0])])
    client.update_collection("c", hnsw_config=models.HnswConfigDiff(m=8))
    client.build_index("c")
    client.close()
    client = connect(tmp_path)
    assert state(client) == state(local)
    client.close()
