"""The async client of the embedded engine: one engine with the sync one, and an event loop that goes on."""

from __future__ import annotations

import asyncio
import inspect

import numpy as np
import pytest
from moments import until
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.async_client_base import AsyncQdrantBase

from qdrant_tools.client.connect import aconnect, connect, engine_of
from qdrant_tools.errors import CollectionNotFoundError, LocationError, NotSupportedError, UnreachableError, VectorError

VECTOR = models.VectorParams(size=64, distance=models.Distance.COSINE)
EAGER = models.OptimizersConfigDiff(indexing_threshold=10)


@pytest.fixture
def aclient(tmp_path):
    return aconnect(tmp_path)


async def test_it_is_an_async_qdrant_client_over_the_same_engine(aclient, tmp_path):
    client = connect(tmp_path)
    assert isinstance(aclient, AsyncQdrantClient)
    assert engine_of(aclient) == "qdrant-edge"
    await aclient.create_collection("docs", VECTOR)
    client.upsert("docs", [models.PointStruct(id=1, vector=[1.0] * 64, payload={"a": 1})])
    assert (await aclient.retrieve("docs", [1]))[0].payload == {"a": 1}
    assert (await aclient.query_points("docs", [1.0] * 64)).points[0].id == 1
    await aclient.close()
    assert client.count("docs").count == 1
    client.close()


async def test_its_errors_are_the_same(aclient):
    with pytest.raises(CollectionNotFoundError, match="Collection docs not found"):
        await aclient.get_collection("docs")
    await aclient.create_collection("docs", VECTOR)
    with pytest.raises(VectorError):
        await aclient.query_points("docs", [1.0])
    with pytest.raises(NotSupportedError):
        await aclient.create_snapshot("docs")
    await aclient.close()
    with pytest.raises(LocationError, match="was closed"):
        await aclient.count("docs")


async def test_searches_and_the_event_loop_go_on_while_an_index_is_built(aclient, gate):
    await aclient.create_collection("docs", VECTOR, optimizers_config=EAGER)
    matrix = np.random.default_rng(0).normal(size=(6000, 64)).astype(np.float32)
    await aclient.upsert("docs", models.Batch(ids=list(range(6000)), vectors=matrix.tolist()))
    build = asyncio.create_task(aclient.build_index("docs"))
    await asyncio.to_thread(until, lambda: gate.reached)
    for _ in range(10):
        assert (await aclient.query_points("docs", matrix[0], limit=1)).points
    assert not build.done()
    gate.open()
    assert await build is True
    assert (await aclient.get_collection("docs")).indexed_vectors_count == 6000
    await aclient.close()


async def test_many_calls_at_once_all_answer(aclient):
    await aclient.create_collection("docs", VECTOR)
    points = [models.PointStruct(id=i, vector=np.eye(64)[i].tolist()) for i in range(64)]
    await asyncio.gather(*(aclient.upsert("docs", [point]) for point in points))
    responses = await asyncio.gather(*(aclient.query_points("docs", point.vector, limit=1) for point in points))
    assert [response.points[0].id for response in responses] == list(range(64))
    await aclient.close()


def test_every_awaited_method_of_the_base_is_there(aclient):
    backend = type(aclient._client)
    for name, member in inspect.getmembers(AsyncQdrantBase, inspect.iscoroutinefunction):
        assert getattr(backend, name) is not member, name


async def test_memory_and_unreachable_servers_too():
    assert engine_of(aconnect(":memory:")) == "memory"
    with pytest.raises(UnreachableError):
        aconnect("http://127.0.0.1:1")
