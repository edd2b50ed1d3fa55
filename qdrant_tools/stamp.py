"""What a collection's metadata says about its vectors: the stamp, as JSON in Qdrant's collection metadata.

Guarantees: a stamp goes to metadata and back; one of a newer format is refused, not misread.
Does not know: clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from qdrant_tools.errors import CollectionError
from qdrant_tools.layout import OURS, Layout
from qdrant_tools.lexical import Bm25
from qdrant_tools.quantization import Quantization

METADATA_KEY = "embed_plus"
METADATA_FORMAT = 1
UNKNOWN_SPACE = ""
"""The space of a collection that was made for a dimension, until its first encoder comes."""


@dataclass(frozen=True)
class Stamp:
    """Which encoder filled a collection, and how it is read and searched. `space` is "" until that is known."""

    space: str
    dimension: int
    hnsw_ef: int | None = None
    layout: Layout = OURS
    lexical: Bm25 | None = None
    quantization: Quantization | None = None
    """How a search uses the compressed vectors, if there are any."""
    adapter: str | None = None
    """The build of the query adapter that serves here, if one does."""

    def as_metadata(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "format": METADATA_FORMAT,
            "space": self.space,
            "dimension": self.dimension,
            "hnsw_ef": self.hnsw_ef,
        }
        if self.layout != OURS:
            row["layout"] = self.layout.as_row()
        if self.lexical is not None:
            row["lexical"] = self.lexical.as_row()
        if self.quantization is not None:
            row["quantization"] = self.quantization.as_row()
        if self.adapter is not None:
            row["adapter"] = self.adapter
        return {METADATA_KEY: row}


def stamp_of(info: models.CollectionInfo) -> Stamp | None:
    """The stamp of a collection; None if nobody stamped it.

    Raises:
        CollectionError: the stamp has a format that this version does not read.
    """
    row: Mapping[str, Any] | None = (info.config.metadata or {}).get(METADATA_KEY)
    return None if row is None else stamp_from(row)


def stamp_from(row: Mapping[str, Any]) -> Stamp:
    """The stamp that `as_metadata` wrote under its key. Raises `CollectionError` as `stamp_of` does."""
    if row.get("format") != METADATA_FORMAT:
        raise CollectionError(
            f"collection metadata has format {row.get('format')!r}, this version reads {METADATA_FORMAT}: upgrade"
        )
    return Stamp(
        row["space"],
        row["dimension"],
        row.get("hnsw_ef"),
        Layout.from_row(row["layout"]) if "layout" in row else OURS,
        Bm25(**row["lexical"]) if "lexical" in row else None,
        Quantization.from_row(row["quantization"]) if "quantization" in row else None,
        row.get("adapter"),
    )
