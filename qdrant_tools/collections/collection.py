"""One open collection: what it holds, and reading passages and vectors back from it.

Guarantees: reads page through the collection; nothing here holds more than one batch.
Does not know: how collections are made, opened or filled.

The moment in which another collection takes the place of this one: writers are told, so that no write is lost.

Whoever switches an alias marks the collection as retired first, then carries over what was written, then switches.
Whoever writes looks for the mark after writing and before reporting the write as stored. If there was none, the write
came before the mark, and the carrying-over finds it; if there was one, the writer gets an error and writes again where
the alias points then. The mark expires, so that a switch that was killed does not stop writers for long; the switcher
gives up its pass when its mark has expired.

Guarantees: a write that was reported is in the collection that serves after the switch, if clocks of the machines agree
to within a minute. Does not know: promotions.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import engine_errors
from qdrant_tools.collections.metadata import OURS, UNKNOWN_SPACE, Layout, Stamp, stamp_of
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.errors import CollectionError, SpaceMismatchError, VectorError
from qdrant_tools.records import Encoder, Passage, Vectors
from qdrant_tools.search.bm25 import Bm25

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


KEY = "embed_plus_retired"
LEASE = 300.0
"""Seconds for which a mark holds."""
MARGIN = 60.0
"""Seconds before its end at which the switcher no longer trusts its mark."""


def retire(client: QdrantClient, name: str, *, successor: str) -> float:
    """Mark a collection; the time (`time.time()`) until which the switcher may rely on it."""
    until = time.time() + LEASE
    _write(client, name, {"successor": successor, "until": until})
    return until - MARGIN


class Lease:
    """A mark that is renewed for as long as the work takes that relies on it."""

    def __init__(self, client: QdrantClient, name: str, *, successor: str) -> None:
        self._client, self._name, self._successor = client, name, successor
        self._until = 0.0
        self._lapsed = True

    def take(self) -> None:
        """Mark the collection: what relies on the mark begins now."""
        self._until = retire(self._client, self._name, successor=self._successor)
        self._lapsed = False

    def renew(self) -> None:
        """To be called often; marks the collection again once half of the time is over."""
        left = self._until - time.time()
        self._lapsed = self._lapsed or left < 0
        if left < (LEASE - MARGIN) / 2:
            self._until = retire(self._client, self._name, successor=self._successor)

    @property
    def held(self) -> bool:
        """Whether the mark has held without a gap since it was taken."""
        return not self._lapsed and time.time() < self._until


def unretire(client: QdrantClient, name: str) -> None:
    """Take the mark away: the collection takes writes again."""
    _write(client, name, {})


def retire_for_good(client: QdrantClient, name: str, *, successor: str) -> None:
    """The alias has been switched: nothing that is written here is served any more."""
    _write(client, name, {"successor": successor, "until": None})


def refuse_retired(collection: Collection) -> None:
    """Raise if another collection, or another vector of this one, takes this one's place, now or already.

    Raises:
        CollectionError: with the name of the other collection and the way out.
    """
    with engine_errors(f"write to collection {collection.name!r}"):
        info = collection.client.get_collection(collection.name)
    stamp = stamp_of(info)
    if stamp is None or (stamp.space, stamp.layout.vector) != (collection.space, collection.layout.vector):
        serving = "nobody" if stamp is None else stamp.space
        raise CollectionError(
            f"collection {collection.name!r} was taken over by the encoder {serving!r}: the last batch was not "
            "reported as stored; open the collection again, with that encoder, and index again"
        )
    mark = (info.config.metadata or {}).get(KEY)
    if mark and (mark["until"] is None or mark["until"] > time.time()):
        raise CollectionError(
            f"collection {collection.name!r} is being replaced by {mark['successor']!r}: the last batch was not "
            "reported as stored; open the alias again, with the encoder that serves then, and index again"
        )


def _write(client: QdrantClient, name: str, mark: dict[str, object]) -> None:
    with engine_errors(f"mark collection {name!r}"):
        client.update_collection(name, metadata={KEY: mark})
