"""A collection of a cluster -> what each of its replicas is about, and more replicas.

The node that answers reports one replica of each shard, its own where it has one. The others are in the cluster's
telemetry, which asks all nodes.

Guarantees: what a node does not tell, or refuses to this key, counts as not known; replicas that were asked for serve
on return. Does not know: what a collection holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import engine_errors
from qdrant_tools.errors import CollectionError, EngineError, NotSupportedError, UnreachableError

logger = logging.getLogger(__name__)

SHARDS = 3
"""The level of detail from which on telemetry tells shards."""
ACTIVE = "Active"
"""The state of a replica that serves."""


@dataclass(frozen=True)
class Replica:
    """One copy of a shard. `state` is `ACTIVE` if it serves; `status` that of its optimizer."""

    shard: int
    peer: int
    state: str
    status: str


def replicas_of(client: QdrantClient, name: str) -> tuple[Replica, ...]:
    """The replicas of a collection that has some on other nodes; none where there is one node, or no telling."""
    if engine_of(client) != "server":
        return ()
    api: Any = client.http.distributed_api
    try:
        with engine_errors(f"ask for the shards of collection {name!r}"):
            if not api.collection_cluster_info(name).result.remote_shards:
                return ()
            told = api.cluster_telemetry(details_level=SHARDS).result.collections or {}
    except (CollectionError, EngineError, UnreachableError) as error:
        logger.debug("the replicas of %r are not known: %s", name, error)
        return ()
    return tuple(
        Replica(shard.id, replica.peer_id, replica.state.value, replica.status.value if replica.status else "")
        for shard in (told[name].shards if name in told else None) or ()
        for replica in shard.replicas
    )


def raise_replicas(client: QdrantClient, name: str, count: int, *, timeout: float = 3600.0) -> None:
    """Copy every shard of a collection to other nodes until `count` replicas of it serve.

    The setting of a collection alone makes none: it says what later shards get.

    Raises:
        NotSupportedError: there are fewer nodes.
        EngineError: a shard has no replica to copy from, or the copies do not serve within `timeout` seconds.
    """
    api: Any = client.http.distributed_api
    doing = f"copy the shards of collection {name!r} to other nodes"
    with engine_errors(doing):
        peers = [int(peer) for peer in getattr(api.cluster_status().result, "peers", None) or {0: None}]
        if count > len(peers):
            nodes = "one node" if len(peers) == 1 else f"{len(peers)} nodes"
            raise NotSupportedError(
                f"{count} replicas need as many nodes, and the server of collection {name!r} has {nodes}: add nodes "
                "first"
            )
        for shard, states in _states(api, name).items():
            serving = [peer for peer, state in states.items() if state == ACTIVE]
            if not serving:
                raise EngineError(f"cannot {doing}: no replica of shard {shard} serves ({states})")
            for peer in [peer for peer in peers if peer not in states][: max(0, count - len(states))]:
                copy = models.ReplicateShard(shard_id=shard, from_peer_id=serving[0], to_peer_id=peer)
                api.update_collection_cluster(
                    name, cluster_operations=models.ReplicateShardOperation(replicate_shard=copy)
                )
        deadline = time.monotonic() + timeout
        while few := {shard: states for shard, states in _states(api, name).items() if _serving(states) < count}:
            if time.monotonic() > deadline:
                raise EngineError(f"cannot {doing}: after {timeout:.0f} s too few serve: {few}")
            time.sleep(0.5)


def _serving(states: Mapping[int, str]) -> int:
    return sum(state == ACTIVE for state in states.values())


def _states(api: Any, name: str) -> dict[int, dict[int, str]]:
    """Shard -> node -> the state of its replica there."""
    info = api.collection_cluster_info(name).result
    states: dict[int, dict[int, str]] = {}
    for shard in info.local_shards:
        states.setdefault(shard.shard_id, {})[info.peer_id] = shard.state.value
    for shard in info.remote_shards:
        states.setdefault(shard.shard_id, {})[shard.peer_id] = shard.state.value
    return states
