"""A seed and a number -> one write, the same every time, for any client.

Guarantees: each operation is one call; applied twice in a row it leaves what it leaves when applied once, so that a
writer that was killed in the middle of one can begin with it again. Points below `PERMANENT` are never deleted.
"""

from __future__ import annotations

import random
from typing import Any

from qdrant_client import QdrantClient, models

SIZE = 16
PERMANENT = 200
LARGEST_ID = 1500
COLLECTION = "docs"
ALIAS = "live"
WORDS = ("bee", "whale", "honey", "sea", "ä", "蜂", "")


def begin(client: QdrantClient) -> None:
    """Create the collection that the operations change, with its permanent points, part of them in an index."""
    client.create_collection(
        COLLECTION,
        models.VectorParams(size=SIZE, distance=models.Distance.DOT),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=10),
        metadata={"operation": -1},
    )
    client.create_payload_index(COLLECTION, "i", models.PayloadSchemaType.INTEGER)
    client.create_payload_index(COLLECTION, "word", models.PayloadSchemaType.KEYWORD)
    rng = random.Random(0)
    client.upload_points(COLLECTION, [point(rng, i, -1) for i in range(PERMANENT * 3)])


def apply(client: QdrantClient, seed: int, number: int) -> None:
    """Apply the operation of this number."""
    rng = random.Random(f"{seed}/{number}")
    catalogue = {7: _create, 8: _serve, 31: _drop, 40: _describe}
    if number % 50 in catalogue:
        catalogue[number % 50](client, number)
        return
    rng.choices(list(WRITES), weights=list(WRITES.values()))[0](client, rng, number)


def point(rng: random.Random, point_id: int, number: int) -> models.PointStruct:
    return models.PointStruct(id=point_id, vector=vector(rng), payload=payload(rng, point_id, number))


def vector(rng: random.Random) -> list[float]:
    """Numbers that 32-bit floats hold exactly."""
    return [rng.randrange(-1024, 1024) / 64 for _ in range(SIZE)]


def payload(rng: random.Random, point_id: int, number: int) -> dict[str, Any]:
    text = "x" * rng.choice((0, 10, 200, 3000))
    return {"i": point_id, "n": number, "word": rng.choice(WORDS), "text": text, "deep": {"list": [number, {"a": 1}]}}


def _upsert(client: QdrantClient, rng: random.Random, number: int) -> None:
    ids = rng.sample(range(LARGEST_ID), rng.randrange(1, 60))
    client.upsert(COLLECTION, [point(rng, i, number) for i in ids])


def _delete(client: QdrantClient, rng: random.Random, number: int) -> None:
    client.delete(COLLECTION, rng.sample(range(PERMANENT, LARGEST_ID), rng.randrange(1, 20)))


def _delete_range(client: QdrantClient, rng: random.Random, number: int) -> None:
    start = rng.randrange(PERMANENT, LARGEST_ID)
    client.delete(COLLECTION, models.FilterSelector(filter=between(start, start + rng.randrange(30))))


def _set_payload(client: QdrantClient, rng: random.Random, number: int) -> None:
    client.set_payload(COLLECTION, {"n": number, "set": rng.choice(WORDS)}, some(rng))


def _set_payload_inside(client: QdrantClient, rng: random.Random, number: int) -> None:
    client.set_payload(COLLECTION, {"n": number}, some(rng), key="deep.inner")


def _set_payload_range(client: QdrantClient, rng: random.Random, number: int) -> None:
    start = rng.randrange(LARGEST_ID)
    client.set_payload(COLLECTION, {"range": number}, between(start, start + 40))


def _overwrite_payload(client: QdrantClient, rng: random.Random, number: int) -> None:
    client.overwrite_payload(COLLECTION, payload(rng, number % PERMANENT, number), some(rng))


def _clear_payload(client: QdrantClient, rng: random.Random, number: int) -> None:
    client.clear_payload(COLLECTION, some(rng, most=3))


def _delete_payload(client: QdrantClient, rng: random.Random, number: int) -> None:
    client.delete_payload(COLLECTION, ["set", "text"], some(rng))


def _update_vectors(client: QdrantClient, rng: random.Random, number: int) -> None:
    client.update_vectors(COLLECTION, [models.PointVectors(id=i, vector=vector(rng)) for i in some(rng)])


def _flush(client: QdrantClient, rng: random.Random, number: int) -> None:
    if hasattr(client, "flush"):
        client.flush(COLLECTION)


def _build_index(client: QdrantClient, rng: random.Random, number: int) -> None:
    if hasattr(client, "build_index"):
        client.build_index(COLLECTION)


WRITES = {
    _upsert: 10,
    _delete: 3,
    _delete_range: 2,
    _set_payload: 4,
    _set_payload_inside: 2,
    _set_payload_range: 2,
    _overwrite_payload: 2,
    _clear_payload: 1,
    _delete_payload: 2,
    _update_vectors: 3,
    _flush: 1,
    _build_index: 1,
}
"""Each kind of write and how often it is drawn."""


def _create(client: QdrantClient, number: int) -> None:
    if not client.collection_exists(other(number)):
        client.create_collection(
            other(number), models.VectorParams(size=2, distance=models.Distance.DOT), metadata={"created": number}
        )


def _serve(client: QdrantClient, number: int) -> None:
    create = models.CreateAlias(collection_name=other(number - 1), alias_name=ALIAS)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])


def _drop(client: QdrantClient, number: int) -> None:
    client.delete_collection(other(number - 24 - 50))  # the one before the one that serves


def _describe(client: QdrantClient, number: int) -> None:
    client.update_collection(COLLECTION, metadata={"operation": number})


def other(number: int) -> str:
    return f"other-{number}"


def some(rng: random.Random, most: int = 15) -> list[int]:
    """Ids of points that are never deleted."""
    return rng.sample(range(PERMANENT), rng.randrange(1, most))


def between(start: int, end: int) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="i", range=models.Range(gte=start, lt=end))])
