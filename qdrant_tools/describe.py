"""A collection, of whatever origin -> everything that its engine and its metadata tell about it.

Guarantees: reads only; what nobody tells is None, not a guess. Does not know: encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qdrant_client import QdrantClient, models

from qdrant_tools.adopt import detect_layout, vector_names
from qdrant_tools.connect import engine_of
from qdrant_tools.embedded import disk_bytes
from qdrant_tools.errors import CollectionError
from qdrant_tools.layout import Layout
from qdrant_tools.settings import CollectionSettings, dense_params, settings_of
from qdrant_tools.stamp import Stamp, stamp_of
from qdrant_tools.translate import engine_errors

_WIDTH = {models.Datatype.FLOAT16: 2, models.Datatype.UINT8: 1}


@dataclass(frozen=True)
class CollectionDescription:
    """What is known about one collection; `space`, `dimension`, `settings` and `layout` only where something tells."""

    name: str
    engine: str
    points: int
    indexed_vectors: int
    segments: int
    space: str | None
    dimension: int | None
    settings: CollectionSettings | None
    aliases: tuple[str, ...]
    layout: Layout | None = None
    vectors: tuple[str, ...] = ()
    """Names of the dense vectors; "" is the unnamed one."""
    status: str = "green"
    adapter: str | None = None
    """The build of the query adapter that serves here."""
    vector_bytes: int | None = None
    """Points times the bytes of a dense vector: in memory, unless the settings say `on_disk`. Computed."""
    disk_bytes: int | None = None
    """What the files take. Measured; only the embedded engine's can be."""


def describe(client: QdrantClient, name: str, *, aliases: Mapping[str, str]) -> CollectionDescription:
    """Describe the collection of that name (not an alias); `aliases` are all there are, with their collections."""
    with engine_errors(f"describe collection {name!r}"):
        info = client.get_collection(name)
    stamp = stamp_of(info)
    params = dense_params(info, None if stamp is None else stamp.layout.vector)
    points = info.points_count or 0
    return CollectionDescription(
        name=name,
        engine=engine_of(client),
        points=points,
        indexed_vectors=info.indexed_vectors_count or 0,
        segments=info.segments_count,
        space=(stamp.space or None) if stamp else None,
        dimension=params.size if params else None,
        settings=settings_of(info),
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == name)),
        layout=_layout(client, name, info, stamp),
        vectors=tuple(vector_names(info)),
        status=info.status.value,
        adapter=stamp.adapter if stamp else None,
        vector_bytes=points * params.size * _WIDTH.get(params.datatype, 4) if params else None,  # type: ignore[arg-type]
        disk_bytes=disk_bytes(client, name),
    )


def _layout(client: QdrantClient, name: str, info: models.CollectionInfo, stamp: Stamp | None) -> Layout | None:
    if stamp is not None:
        return stamp.layout
    try:
        return detect_layout(client, name, next(iter(vector_names(info)), ""))
    except CollectionError:
        return None
