"""Collections that know which encoder filled them.

A collection keeps its space (the identity of its vectors) in Qdrant's collection metadata, and everything that
brings an encoder to it is checked against that: same dimension and another model is an error here, not a silent
loss of quality.

Guarantees: `ensure` is idempotent, also when two processes call it at once; an alias resolves to its collection
when it is opened, and a handle stays with that collection. Does not know: how texts become vectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from qdrant_client import QdrantClient, models

from qdrant_tools.connect import engine_of
from qdrant_tools.errors import (
    CollectionError,
    CollectionExistsError,
    CollectionNotFoundError,
    EngineError,
    InputError,
)
from qdrant_tools.handle import Collection, StoredPassage, fetch, point_id, stored_vectors
from qdrant_tools.records import Encoder
from qdrant_tools.settings import (
    DISTANCES,
    CollectionDescription,
    CollectionSettings,
    dense_params,
    settings_of,
    stamp_for,
    stamp_of,
)
from qdrant_tools.translate import engine_errors

__all__ = [
    "Collection",
    "CollectionDescription",
    "CollectionManager",
    "CollectionSettings",
    "StoredPassage",
    "build_index",
    "fetch",
    "point_id",
    "stored_vectors",
]


class CollectionManager:
    """Creates, opens, describes and drops the collections behind one client."""

    def __init__(self, client: QdrantClient) -> None:
        self.client = client

    def ensure(self, name: str, encoder: Encoder, *, settings: CollectionSettings | None = None) -> Collection:
        """Open the collection, or create it for this encoder.

        Settings that are given and differ from those of an existing collection are changed in place.

        Raises:
            SpaceMismatchError: it is there, and another encoder filled it.
            CollectionError: a setting differs that cannot be changed in place (the distance).
        """
        if not self._exists(name):
            try:
                self._create(name, encoder, settings or CollectionSettings())
            except (EngineError, CollectionExistsError):
                if not self._exists(name):  # else another process was faster
                    raise
        collection = self.open(name, encoder)
        return collection if settings is None else self._apply(collection, settings)

    def open(self, name: str, encoder: Encoder | None = None) -> Collection:
        """Open by name or alias; with an encoder, check that it belongs here.

        Raises:
            CollectionNotFoundError: no such collection; the message lists those there are.
            CollectionError: the collection was not made by this package.
            SpaceMismatchError: another encoder filled it.
        """
        real_name = self.resolve(name)
        with engine_errors(f"open collection {name!r}"):
            info = self.client.get_collection(real_name)
        stamp = stamp_of(info)
        if stamp is None:
            raise CollectionError(
                f"collection {name!r} does not say which encoder filled it (written by another program?): "
                "index its texts into a new collection"
            )
        collection = Collection(self.client, real_name, stamp["space"], stamp["dimension"], stamp.get("hnsw_ef"))
        if encoder is not None:
            collection.check(encoder)
        return collection

    def describe(self, name: str) -> CollectionDescription:
        """What the engine and the metadata tell about a collection, of whatever origin."""
        real_name = self.resolve(name)
        with engine_errors(f"describe collection {name!r}"):
            info = self.client.get_collection(real_name)
        stamp = stamp_of(info) or {}
        params = dense_params(info)
        return CollectionDescription(
            name=real_name,
            engine=engine_of(self.client),
            points=info.points_count or 0,
            indexed_vectors=info.indexed_vectors_count or 0,
            segments=info.segments_count,
            space=stamp.get("space"),
            dimension=params.size if params else None,
            settings=settings_of(info),
            aliases=tuple(sorted(alias for alias, target in self.aliases().items() if target == real_name)),
        )

    def drop(self, name: str) -> None:
        """Delete a collection and its points. One that an alias points to is refused: switch or drop the alias."""
        if name in self.aliases():
            raise CollectionError(f"{name!r} is an alias of {self.resolve(name)!r}: drop the alias or that collection")
        real_name = self.resolve(name)
        serving = [alias for alias, target in self.aliases().items() if target == real_name]
        if serving:
            raise CollectionError(f"collection {name!r} serves alias {serving[0]!r}: switch or drop the alias first")
        with engine_errors(f"drop collection {name!r}"):
            self.client.delete_collection(real_name)

    def names(self) -> list[str]:
        with engine_errors("list collections"):
            return sorted(collection.name for collection in self.client.get_collections().collections)

    def aliases(self) -> dict[str, str]:
        """Alias -> collection."""
        with engine_errors("list aliases"):
            return {entry.alias_name: entry.collection_name for entry in self.client.get_aliases().aliases}

    def switch_alias(self, alias: str, target: str) -> None:
        """Point an alias at a collection in one atomic step; the alias is made if it is new."""
        if alias in self.names():
            raise CollectionExistsError(f"{alias!r} is the name of a collection, so it cannot be an alias")
        real_target = self.resolve(target)
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=real_target, alias_name=alias)
        )
        with engine_errors(f"switch alias {alias!r} to {real_target!r}"):
            self.client.update_collection_aliases([*self._alias_removal(alias), create])

    def drop_alias(self, alias: str) -> None:
        removal = self._alias_removal(alias)
        if not removal:
            raise CollectionNotFoundError(f"no alias {alias!r}; aliases here: {_listed(self.aliases())}")
        with engine_errors(f"drop alias {alias!r}"):
            self.client.update_collection_aliases(removal)

    def resolve(self, name: str) -> str:
        """The collection's own name, for a name or an alias."""
        names = self.names()
        if name in names:
            return name
        aliases = self.aliases()
        if name in aliases:
            return aliases[name]
        raise CollectionNotFoundError(f"no collection {name!r}; collections here: {_listed([*names, *aliases])}")

    def _exists(self, name: str) -> bool:
        return name in self.names() or name in self.aliases()

    def _alias_removal(self, alias: str) -> list[models.DeleteAliasOperation]:
        if alias not in self.aliases():
            return []
        return [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))]

    def _create(self, name: str, encoder: Encoder, settings: CollectionSettings) -> None:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"collection name is {name!r}, expected a non-empty string")
        with engine_errors(f"create collection {name!r}"):
            self.client.create_collection(
                name,
                vectors_config=models.VectorParams(size=encoder.dimension, distance=DISTANCES[settings.distance]),
                hnsw_config=settings.hnsw,
                optimizers_config=settings.optimizers,
                metadata=stamp_for(encoder.space, encoder.dimension, settings.hnsw_ef),
            )

    def _apply(self, collection: Collection, wanted: CollectionSettings) -> Collection:
        current = self.describe(collection.name).settings
        changes = {} if current is None else current.difference(wanted)
        if "distance" in changes:
            raise CollectionError(
                f"collection {collection.name!r} was made with distance {changes['distance'][0]!r}, which cannot be "
                f"changed to {wanted.distance!r}: index into a new collection"
            )
        if changes:
            with engine_errors(f"change the settings of collection {collection.name!r}"):
                self.client.update_collection(
                    collection.name,
                    hnsw_config=wanted.hnsw,
                    optimizers_config=wanted.optimizers,
                    metadata=stamp_for(collection.space, collection.dimension, wanted.hnsw_ef),
                )
        return self.open(collection.name)


def build_index(collection: Collection, *, timeout: float = 3600.0) -> bool:
    """Have the HNSW graph built now: built on the spot by the embedded engine, waited for on a server.

    Returns whether there was something to build; False on `:memory:`, which has no graph.

    Raises:
        EngineError: a server's optimizer failed, or did not finish within `timeout` seconds.
    """
    engine = engine_of(collection.client)
    if engine == "memory":
        return False
    if engine == "qdrant-edge":
        with engine_errors(f"build the index of collection {collection.name!r}"):
            return bool(collection.client.build_index(collection.name))  # type: ignore[attr-defined]
    return _wait_for_server(collection, timeout)


def _wait_for_server(collection: Collection, timeout: float) -> bool:
    deadline, waited = time.monotonic() + timeout, False
    while True:
        with engine_errors(f"ask for the state of collection {collection.name!r}"):
            info = collection.client.get_collection(collection.name)
        if info.status == models.CollectionStatus.GREEN:
            return waited
        if info.status == models.CollectionStatus.RED:
            raise EngineError(f"the optimizer of collection {collection.name!r} failed: {info.optimizer_status}")
        if time.monotonic() > deadline:
            raise EngineError(f"collection {collection.name!r} is still {info.status.value} after {timeout:.0f} s")
        waited = True
        time.sleep(0.2)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
