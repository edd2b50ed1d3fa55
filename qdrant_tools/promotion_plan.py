"""What a promotion would do and what it would take, said before anything is done.

Guarantees: reads only; sizes are computed from counts, dimensions and files, and None where nobody tells.
Does not know: how the steps are done.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from qdrant_tools.collection import CollectionManager
from qdrant_tools.embedded import folder_of
from qdrant_tools.promotion_state import Kind, Phase
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
    folder = folder_of(manager.client, name)
    return DiskNeed(rest + vectors, vectors, None if folder is None else shutil.disk_usage(folder).free)


def adapter_of(encoder: Encoder) -> str | None:
    """The build of the query adapter that an encoder carries as its `adapter`, if it has one."""
    build = getattr(getattr(encoder, "adapter", None), "build", None)
    return build if isinstance(build, str) else None


def refusal_of(encoder: Encoder) -> str | None:
    """Why an encoder should not serve, if it carries such a sentence as its `refusal`."""
    refusal = getattr(encoder, "refusal", None)
    return refusal if isinstance(refusal, str) and refusal else None
