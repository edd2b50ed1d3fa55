"""One open collection: what it holds, and reading passages and vectors back from it.

Guarantees: reads page through the collection; nothing here holds more than one batch.
Does not know: how collections are made, opened or filled.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from qdrant_tools.connect import engine_of
from qdrant_tools.errors import CollectionError, SpaceMismatchError, VectorError
from qdrant_tools.layout import OURS, Layout
from qdrant_tools.lexical import Bm25
from qdrant_tools.quantization import Quantization
from qdrant_tools.records import Encoder, Passage, Vectors
from qdrant_tools.stamp import UNKNOWN_SPACE, Stamp
from qdrant_tools.translate import engine_errors

_POINT_IDS = uuid.UUID("5b0f3a52-5c5c-5d0e-9d0b-7a4f6f1c1f5e")


@dataclass(frozen=True)
class Collection:
    """A handle on one collection, under its own name (never an alias)."""

    client: QdrantClient = field(repr=False, compare=False)
    name: str
    space: str
    dimension: int
    hnsw_ef: int | None = None
    layout: Layout = OURS
    lexical: Bm25 | None = None
    """How the sparse vectors for lexical search are made, if the collection has any."""
    quantization: Quantization | None = None
    """How a search uses the compressed vectors, if the collection has any."""
    adapter: str | None = None
    """The build of the query adapter that serves here, if one was promoted."""

    @property
    def vector_selector(self) -> bool | list[str]:
        """How to ask for the dense vector of a point, and for no other."""
        return [self.layout.vector] if self.layout.vector or self.lexical else True

    @property
    def stamp(self) -> Stamp:
        """What the collection's metadata says."""
        return Stamp(
            self.space, self.dimension, self.hnsw_ef, self.layout, self.lexical, self.quantization, self.adapter
        )

    @classmethod
    def of_stamp(cls, client: QdrantClient, name: str, stamp: Stamp) -> Collection:
        return cls(
            client,
            name,
            stamp.space,
            stamp.dimension,
            stamp.hnsw_ef,
            stamp.layout,
            stamp.lexical,
            stamp.quantization,
            stamp.adapter,
        )

    def search_params(self, *, hnsw_ef: int | None = None, exact: bool = False) -> models.SearchParams | None:
        """What to ask the engine for; nothing on `:memory:`, which compares with every vector anyway."""
        if engine_of(self.client) == "memory":
            return None
        quantization = None if self.quantization is None or exact else self.quantization.search
        return models.SearchParams(hnsw_ef=hnsw_ef or self.hnsw_ef, exact=exact, quantization=quantization)

    def check(self, encoder: Encoder) -> None:
        """Refuse an encoder whose vectors cannot be compared with the stored ones.

        Raises:
            CollectionError: the collection was made for a dimension, and no encoder has come yet.
            SpaceMismatchError: the encoder has another space.
            VectorError: same space by name, but another dimension.
        """
        if self.space == UNKNOWN_SPACE and encoder.dimension == self.dimension:
            raise CollectionError(
                f"collection {self.name!r} was made for {self.dimension} dimensions and has no encoder yet: give it "
                "one with ensure(), or with adopt() if it holds points already"
            )
        if encoder.space != self.space != UNKNOWN_SPACE:
            raise SpaceMismatchError(
                f"collection {self.name!r} holds vectors of {self.space!r}, this encoder makes {encoder.space!r}: "
                "use the encoder that filled it, or index into a new collection and switch an alias to it"
            )
        if encoder.dimension != self.dimension:
            raise VectorError(
                f"collection {self.name!r} holds {self.dimension}-dimensional vectors, "
                f"this encoder makes {encoder.dimension}-dimensional ones"
            )


@dataclass(frozen=True)
class StoredPassage(Passage):
    """A passage as the collection holds it; `vector` (dimension,) only where it was asked for."""

    point_id: str | int = ""
    vector: NDArray[np.float32] | None = field(default=None, compare=False)


def point_id(passage_id: str) -> str:
    """The point that holds a passage: a UUID (version 5) of its id, which may be any string."""
    return str(uuid.uuid5(_POINT_IDS, passage_id))


def fetch(
    collection: Collection, passage_ids: Sequence[str], *, with_vectors: bool = False
) -> dict[str, StoredPassage]:
    """Read passages by id. Ids that are not there are not in the result."""
    layout = collection.layout
    if layout.id and layout != replace(OURS, vector=layout.vector):
        return _fetch_by_field(collection, passage_ids, with_vectors=with_vectors)
    points = [point_id(each) if layout.id else _as_point_id(each) for each in passage_ids]
    usable = [point for point in points if point is not None]
    stored = fetch_points(collection, usable, with_vectors=with_vectors)
    return {passage.id: passage for passage in stored.values()}


def fetch_points(
    collection: Collection, points: Sequence[str | int], *, with_vectors: bool = False
) -> dict[str | int, StoredPassage]:
    """Read passages by the id of their point."""
    if not points:
        return {}
    with engine_errors(f"read from collection {collection.name!r}"):
        records = collection.client.retrieve(
            collection.name, list(points), with_payload=True, with_vectors=with_vectors and collection.vector_selector
        )
    return {plain_id(record.id): _stored(collection, record) for record in records}


def stored_vectors(collection: Collection, *, batch_size: int = 512) -> Iterator[tuple[list[str], Vectors]]:
    """Yield (passage ids, vectors (n, dimension)) of the whole collection, `batch_size` points at a time.

    Points without the collection's vector are left out.
    """
    offset: Any = None
    while True:
        with engine_errors(f"read the vectors of collection {collection.name!r}"):
            records, offset = collection.client.scroll(
                collection.name,
                limit=batch_size,
                offset=offset,
                with_payload=[collection.layout.id] if collection.layout.id else False,
                with_vectors=collection.vector_selector,
            )
        records = [record for record in records if collection.layout.has_dense(record.vector)]
        if records:
            ids = [collection.layout.passage(r.payload, point_id=plain_id(r.id)).id for r in records]
            vectors = np.asarray([collection.layout.dense(r.vector) for r in records], dtype=np.float32)
            yield ids, vectors
        if offset is None:
            return


def _fetch_by_field(
    collection: Collection, passage_ids: Sequence[str], *, with_vectors: bool
) -> dict[str, StoredPassage]:
    """Where the passage id is a field of the payload; of several points with one id, the first is taken."""
    found: dict[str, StoredPassage] = {}
    for start in range(0, len(passage_ids), 256):
        wanted = list(passage_ids[start : start + 256])
        condition = models.FieldCondition(key=collection.layout.id, match=models.MatchAny(any=wanted))
        offset: Any = None
        while True:
            with engine_errors(f"read from collection {collection.name!r}"):
                records, offset = collection.client.scroll(
                    collection.name,
                    scroll_filter=models.Filter(must=[condition]),
                    limit=256,
                    offset=offset,
                    with_payload=True,
                    with_vectors=with_vectors and collection.vector_selector,
                )
            for record in records:
                passage = _stored(collection, record)
                found.setdefault(passage.id, passage)
            if offset is None:
                break
    return found


def _as_point_id(passage_id: str) -> str | int | None:
    """The point of a passage that goes by its point id; None for what no point can be called."""
    if passage_id.isdecimal():
        return int(passage_id)
    try:
        return str(uuid.UUID(passage_id))
    except ValueError:
        return None


def _stored(collection: Collection, record: models.Record) -> StoredPassage:
    passage = collection.layout.passage(record.payload, point_id=plain_id(record.id))
    vector = None
    if collection.layout.has_dense(record.vector):
        vector = np.asarray(collection.layout.dense(record.vector), dtype=np.float32)
    return StoredPassage(passage.id, passage.text, passage.metadata, plain_id(record.id), vector)


def plain_id(value: Any) -> str | int:
    return value if isinstance(value, int) else str(value)
