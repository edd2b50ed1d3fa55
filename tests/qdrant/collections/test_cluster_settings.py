"""What a cluster adds to a collection: replicas, how many must confirm, shards by key."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from qdrant_client import models
from servers import NONE, binary, running
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.client.replicas import replicas_of
from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import EngineError, NotSupportedError
from qdrant_tools.indexing import index_passages
from qdrant_tools.promotion.promotion import Promotion

pytestmark = pytest.mark.skipif(binary() is None, reason=NONE)
ENCODER = WordEncoder()


@pytest.fixture(scope="module")
def client():
    with running(3) as (first, *_), closing(connect(first.url)) as client:
        yield client


@pytest.fixture
def manager(client):
    yield CollectionManager(client)
    for alias in client.get_aliases().aliases:
        CollectionManager(client).drop_alias(alias.alias_name)
    for collection in client.get_collections().collections:
        client.delete_collection(collection.name)


def test_replicas_that_are_asked_for_later_are_made_and_serve(client, manager):
    settings = CollectionSettings(shards=2)
    index_passages(manager.ensure("docs", ENCODER, settings=settings), numbered(40), ENCODER)
    manager.ensure("docs", ENCODER, settings=CollectionSettings(shards=2, replicas=2))
    assert client.get_collection("docs").config.params.replication_factor == 2
    replicas = replicas_of(client, "docs")
    assert len(replicas) == 4 and {replica.state for replica in replicas} == {"Active"}
    assert len({(replica.shard, replica.peer) for replica in replicas}) == 4
    assert client.count("docs").count == 40
    with pytest.raises(NotSupportedError, match="4 replicas need as many nodes, and .* has 3 nodes"):
        manager.ensure("docs", ENCODER, settings=CollectionSettings(shards=2, replicas=4))
    with pytest.raises(NotSupportedError, match="none is dropped here"):
        manager.ensure("docs", ENCODER, settings=CollectionSettings(shards=2, replicas=1))
    assert client.get_collection("docs").config.params.replication_factor == 2


def test_how_many_replicas_must_confirm_survives_a_copy_and_a_promotion(client, manager):
    collection = manager.ensure("docs", ENCODER, settings=CollectionSettings(replicas=2))
    client.update_collection("docs", collection_params=models.CollectionParamsDiff(write_consistency_factor=2))
    index_passages(collection, numbered(20), ENCODER)
    assert copy_collection(client, "docs", client, "copy") == 20
    manager.switch_alias("serving", "docs")
    target = Promotion(manager, "serving", WordEncoder("new")).build().target
    for name in ("copy", target):
        params = client.get_collection(name).config.params
        assert (params.replication_factor, params.write_consistency_factor) == (2, 2), name


def test_shards_by_key_are_refused_before_anything_is_encoded(client, manager):
    collection = manager.ensure("docs", ENCODER)
    client.delete_collection("docs")
    client.create_collection(
        "docs",
        models.VectorParams(size=64, distance=models.Distance.COSINE),
        sharding_method=models.ShardingMethod.CUSTOM,
        metadata=collection.metadata.for_qdrant(),
    )
    encoder = WordEncoder()
    with pytest.raises(NotSupportedError, match="custom sharding"):
        index_passages(manager.open("docs", encoder), numbered(3), encoder)
    with pytest.raises(NotSupportedError, match="custom sharding"):
        copy_collection(client, "docs", client, "copy")
    assert encoder.encoded == [] and manager.names() == ["docs"]


def test_an_index_is_built_when_every_replica_has_built_it(client, manager):
    collection = manager.ensure("docs", WordEncoder(dimension=256), settings=CollectionSettings(replicas=3))
    rows = np.random.default_rng(0).normal(size=(3000, 256)).astype(np.float32)
    client.upload_collection("docs", rows, ids=range(3000), wait=True)
    build_index(collection)
    replicas = replicas_of(client, "docs")
    assert {replica.status for replica in replicas} == {"green"}
    assert {replica.shard for replica in replicas} and len(replicas) % 3 == 0


def test_optimizers_that_are_switched_off_are_said_at_once(client, manager):
    collection = manager.ensure("docs", WordEncoder(dimension=256))
    client.update_collection("docs", optimizers_config=models.OptimizersConfigDiff(max_optimization_threads=0))
    rows = np.random.default_rng(0).normal(size=(1000, 256)).astype(np.float32)
    client.upload_collection("docs", rows, ids=range(1000), wait=True)
    with pytest.raises(EngineError, match="switched off .*max_optimization_threads=0"):
        build_index(collection)
