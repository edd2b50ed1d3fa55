"""A client -> everything that it holds, as plain JSON values that can be compared."""

from __future__ import annotations

from typing import Any

from qdrant_client import QdrantClient

State = dict[str, Any]


def state_of(client: QdrantClient) -> State:
    """Every collection with its points and metadata, and every alias. Raises what the client raises."""
    names = sorted(collection.name for collection in client.get_collections().collections)
    return {"collections": {name: collection_state(client, name) for name in names}, "aliases": aliases_of(client)}


def aliases_of(client: QdrantClient) -> dict[str, str]:
    return {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}


def collection_state(client: QdrantClient, name: str) -> State:
    """One collection: metadata, point count, and id -> [vector, payload]."""
    count = client.count(name).count
    records, following = client.scroll(name, limit=count + 10, with_vectors=True)
    points = {str(record.id): [record.vector, record.payload or {}] for record in records}
    if following is not None or len(points) != len(records):
        raise AssertionError(f"{name}: scroll gave {len(records)} records of {len(points)} points, next {following}")
    return {"metadata": client.get_collection(name).config.metadata or {}, "count": count, "points": points}


def first_difference(left: Any, right: Any, path: str = "") -> str | None:
    """Where two states differ first, None if they are equal."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            if key not in left or key not in right:
                return f"{path}/{key}: only {'on the right' if key not in left else 'on the left'}"
            if difference := first_difference(left[key], right[key], f"{path}/{key}"):
                return difference
        return None
    return None if left == right else f"{path}: {str(left)[:80]} != {str(right)[:80]}"
