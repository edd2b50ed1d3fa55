"""What a promotion would do and what it would take, said before anything is done.

Guarantees: reads only; sizes are computed from counts, dimensions and files, and None where nobody tells.
Does not know: how the steps are done.

How far a promotion is, in the metadata of the collection that is to take over.

Guarantees: any machine that reaches the collections can go on with a promotion or undo it. Does not know: encoders.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from qdrant_tools.client.connect import embedded_client
from qdrant_tools.client.gateway import Gateway, metadata_in
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import CollectionError, CollectionNotFoundError
from qdrant_tools.records import Encoder


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that each way to re-embed adds, without the copy that an index build makes of what it builds.

    `beside` is a second collection: the files of the first, with vectors of the new size. `in_place` is the new vectors
    alone. `free` is what the disk has, of the embedded engine's folder; a server tells neither files nor disk, so
    that `beside` counts vectors alone there.
    """

    beside: int
    in_place: int
    free: int | None

    @property
    def scarce(self) -> bool:
        """Whether a second collection would not fit, so that re-embedding in place is the way."""
        return self.free is not None and self.beside > self.free


@dataclass(frozen=True)
class PromotionPlan:
    """What a promotion will do. `phase` is how far an earlier run came, None if there was none.

    `kind` is "re-embed" (into the new collection `target`), "in-place" (into the new vector `vector` of the collection
    that serves), "adapter" (nothing is embedded) or "nothing". `refusal` is why the encoder should not serve, if
    whoever trained it says so.
    """

    alias: str
    source: str
    target: str
    kind: Kind
    from_space: str
    to_space: str
    adapter: str | None
    points: int
    phase: Phase | None
    vector: str = ""
    refusal: str | None = None
    disk: DiskNeed | None = None


def disk_need(manager: CollectionManager, name: str, dimension: int) -> DiskNeed:
    """What re-embedding a collection into so many dimensions takes."""
    described = manager.describe(name)
    vectors = 0
    if described.dimension:
        vectors = (described.vector_bytes or 0) // described.dimension * dimension
    rest = max(0, (described.disk_bytes or 0) - (described.vector_bytes or 0))
    client = embedded_client(manager.client)
    return DiskNeed(rest + vectors, vectors, None if client is None else shutil.disk_usage(client.folder).free)


def adapter_of(encoder: Encoder) -> str | None:
    """The build of the query adapter that an encoder carries as its `adapter`, if it has one."""
    build = getattr(getattr(encoder, "adapter", None), "build", None)
    return build if isinstance(build, str) else None


def refusal_of(encoder: Encoder) -> str | None:
    """Why an encoder should not serve, if it carries such a sentence as its `refusal`."""
    refusal = getattr(encoder, "refusal", None)
    return refusal if isinstance(refusal, str) and refusal else None


KEY = "embed_plus_promotion"

Phase = Literal["building", "built", "verified", "switched"]
Kind = Literal["re-embed", "in-place", "adapter", "nothing"]


@dataclass(frozen=True)
class PromotionState:
    """`source` serves (or served) `alias`, and `target` is to. For an adapter, and in place, the two are one."""

    alias: str
    source: str
    target: str
    kind: Kind
    phase: Phase
    adapter: str | None = None
    """The adapter's build that is to serve, of the kind "adapter"; `before` is the one that did."""
    before: str | None = None
    verification: Mapping[str, Any] = field(default_factory=dict)
    vector: str = ""
    """In place: the name of the vector that is to serve; `former` is the metadata (a row) when another one did."""
    former: Mapping[str, Any] = field(default_factory=dict)

    def save(self, manager: CollectionManager) -> None:
        write_state(manager, self.target, asdict(self))


def write_state(manager: CollectionManager, name: str, row: dict[str, Any]) -> None:
    Gateway(manager.client, name).update(metadata={KEY: row})


def read_state(manager: CollectionManager, name: str) -> PromotionState | None:
    """The promotion in which a collection is the target, if there is one."""
    row = metadata_in(Gateway(manager.client, name).info()).get(KEY)
    return PromotionState(**row) if row else None


def states_of(manager: CollectionManager, alias: str) -> list[PromotionState]:
    """Every promotion of an alias that was begun and not cleaned up."""
    found = (read_state(manager, name) for name in manager.names())
    return [state for state in found if state is not None and state.alias == alias]


def source_of(manager: CollectionManager, alias: str, *, in_place: bool = False) -> str:
    """The collection that serves an alias. In place a collection is promoted under its own name as well.

    Raises:
        CollectionError: the name is a collection's own; the message says what to do once.
        CollectionNotFoundError: there is no such alias.
    """
    aliases = manager.aliases()
    if alias in aliases:
        return aliases[alias]
    names = manager.names()
    if alias in names:
        state = read_state(manager, alias)
        if in_place or (state is not None and state.kind == "in-place" and state.alias == alias):
            return alias
        raise CollectionError(
            f"{alias!r} is a collection, and only an alias can be switched: once, call switch_alias('{alias}-live', "
            f"'{alias}'), let every application open '{alias}-live', and promote '{alias}-live'; or promote in place"
        )
    raise CollectionNotFoundError(f"no alias {alias!r}; aliases here: {', '.join(sorted(aliases)) or 'none'}")
