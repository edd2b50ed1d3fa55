"""Reading points of a collection: passages by id, all vectors page by page, and samples of them.

Guarantees: memory holds one page, or the sample. Does not know: how points came into the collection.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_tools.client.gateway import PointId, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import OURS
from qdrant_tools.errors import brief
from qdrant_tools.fields import payload_path
from qdrant_tools.records import Passage, Vectors
from qdrant_tools.same import ambiguous, id_spellings, unlike_spelling
from qdrant_tools.validation import checked_texts

IDS_AT_ONCE = 256
"""Passage ids per filter, where the id is a field of the payload."""
IDS_LOOKED_AT = 10_000
"""Ids of a collection among which a message looks for the one that was meant."""

# never change it: the ids of all stored points rest on it
_POINT_IDS = uuid.UUID("5b0f3a52-5c5c-5d0e-9d0b-7a4f6f1c1f5e")


@dataclass(frozen=True)
class StoredPassage(Passage):
    """A passage as the collection holds it; `vector` is (dimension,), or None if it was not read."""

    point_id: str | int = ""
    vector: NDArray[np.float32] | None = field(default=None, compare=False)


def point_id(passage_id: str) -> str:
    """The point that holds a passage: a UUID (version 5) of its id, which may be any string."""
    return str(uuid.uuid5(_POINT_IDS, passage_id))


def fetch(
    collection: Collection, passage_ids: Sequence[str], *, with_vectors: bool = False, with_text: bool = True
) -> dict[str, StoredPassage]:
    """Read passages, each under the id that was asked for. Ids that are not there are not in the result. Without their
    text they have no metadata too.

    An id is found as it is written, else composed or decomposed (`same.id_spellings`); a UUID in any way of writing it.

    Raises:
        InputError: the ids are not several strings, or two passages differ from one by their composition alone.
    """
    passage_ids = checked_texts("passage ids", passage_ids)
    layout = collection.layout
    spellings = {passage_id: id_spellings(passage_id) for passage_id in passage_ids}
    names = list(dict.fromkeys(name for each in spellings.values() for name in each))
    if not layout.id:
        points = {name: point for name in names if (point := as_point_id(name)) is not None}
        stored = fetch_points(
            collection, list(dict.fromkeys(points.values())), with_vectors=with_vectors, with_text=with_text
        )
        return {name: stored[point] for name, point in points.items() if point in stored}
    # in a foreign collection a field of the payload has the passage id, and the point an id of its own
    if layout != replace(OURS, vector=layout.vector):
        found = _fetch_by_field(collection, names, with_vectors=with_vectors, with_text=with_text)
    else:
        of_points = fetch_points(
            collection, [point_id(name) for name in names], with_vectors=with_vectors, with_text=with_text
        )
        found = {passage.id: passage for passage in of_points.values()}
    chosen = {passage_id: _one_of(each, found) for passage_id, each in spellings.items()}
    return {passage_id: passage for passage_id, passage in chosen.items() if passage is not None}


def texts_of(collection: Collection) -> Callable[[Sequence[str]], dict[str, str]]:
    """A function from ids to the texts of those that the collection holds, as the rules for answers ask for them."""

    def read(passage_ids: Sequence[str]) -> dict[str, str]:
        blocks = (passage_ids[start : start + IDS_AT_ONCE] for start in range(0, len(passage_ids), IDS_AT_ONCE))
        return {name: passage.text for block in blocks for name, passage in fetch(collection, block).items()}

    return read


def stored_ids(collection: Collection, passage_ids: Sequence[str]) -> dict[str, str]:
    """Each of the ids that is in the collection -> how the collection spells it."""
    blocks = (passage_ids[start : start + IDS_AT_ONCE] for start in range(0, len(passage_ids), IDS_AT_ONCE))
    return {name: passage.id for block in blocks for name, passage in fetch(collection, block, with_text=False).items()}


def _one_of(spellings: Sequence[str], found: Mapping[str, StoredPassage]) -> StoredPassage | None:
    """The passage of an id: by its own spelling, else by the only other one that is there."""
    there = [name for name in spellings if name in found]
    if len(there) > 1 and there[0] != spellings[0]:
        raise ambiguous(spellings[0], there)
    return found[there[0]] if there else None


def mismatch(collection: Collection, missing: Sequence[str]) -> str:
    """What a message says of ids that the collection has not: one of them, and what the collection has in its place."""
    if not missing:
        return ""
    stored: list[str] = []
    for page in collection.gateway.pages(batch_size=IDS_LOOKED_AT // 10, with_payload=_id_alone(collection)):
        stored += [collection.layout.passage(record.payload, point_id=plain_id(record.id)).id for record in page]
        if len(stored) >= IDS_LOOKED_AT:
            break
    if (alike := unlike_spelling(missing, stored)) is not None:
        return f"{brief(alike[0])} is not in {collection.name!r}, which has {brief(alike[1])}"
    others = f"has ids such as {brief(stored[0])}" if stored else "is empty"
    return f"{brief(missing[0])} is not in {collection.name!r}, which {others}"


def fetch_points(
    collection: Collection, points: Sequence[str | int], *, with_vectors: bool = False, with_text: bool = True
) -> dict[str | int, StoredPassage]:
    """Read passages by the id of their point."""
    records = collection.gateway.retrieve(
        points,
        with_payload=with_text or _id_alone(collection),
        with_vectors=with_vectors and collection.vector_selector,
    )
    return {plain_id(record.id): _stored(collection, record) for record in records}


def stored_vectors(collection: Collection, *, batch_size: int = 512) -> Iterator[tuple[list[str], Vectors]]:
    """Yield (passage ids, vectors (n, dimension)) of the whole collection, `batch_size` points at a time.

    Points without the collection's vector are left out.
    """
    for page in vector_pages(collection, batch_size=batch_size):
        yield page.ids, page.vectors


@dataclass(frozen=True, eq=False)
class VectorPage:
    """Points, the ids of their passages, and their vectors (n, dimension) as they are stored."""

    points: list[PointId]
    ids: list[str]
    vectors: Vectors


def vector_pages(
    collection: Collection, *, batch_size: int = 512, filter: models.Filter | None = None
) -> Iterator[VectorPage]:
    """As `stored_vectors`, with the points; of all passages, or of those that match."""
    layout = collection.layout
    for page in collection.gateway.pages(
        batch_size=batch_size,
        with_payload=_id_alone(collection),
        with_vectors=collection.vector_selector,
        scroll_filter=filter,
    ):
        records = [record for record in page if layout.has_dense(record.vector)]
        if records:
            points = [plain_id(record.id) for record in records]
            ids = [layout.passage(record.payload, point_id=plain_id(record.id)).id for record in records]
            vectors = np.asarray([layout.dense(record.vector) for record in records], dtype=np.float32)
            yield VectorPage(points, ids, vectors)


def stored_passages(collection: Collection, *, batch_size: int = 256) -> Iterator[StoredPassage]:
    """Yield the passages of the whole collection without their vectors, in the order of their points."""
    for page in collection.gateway.pages(batch_size=batch_size):
        yield from (_stored(collection, record) for record in page)


def random_passages(collection: Collection, count: int) -> list[StoredPassage]:
    """At most `count` random passages with their vectors, drawn by the engine: cheap, and others at every call."""
    records = collection.gateway.sample(count, with_vectors=collection.vector_selector)
    return [_stored(collection, record) for record in records if collection.layout.has_dense(record.vector)]


@dataclass(frozen=True, eq=False)
class VectorSample:
    """Passage ids and their stored vectors (len(ids), dimension), in the order of the collection; `total` is how many
    vectors the collection has."""

    ids: list[str]
    vectors: Vectors
    total: int


def sample_vectors(collection: Collection, size: int, *, seed: int = 0, always: Set[str] = frozenset()) -> VectorSample:
    """Draw `size` stored vectors in one pass over the collection: the same ones for the same seed and contents.

    The passages of `always` are drawn first, all of them, even where they are more than `size`. Each vector is held
    once; of a collection that has more, room for a quarter more.
    """
    kept, total = _Drawn(collection, size, seed=seed, always=always), 0
    for ids, vectors in stored_vectors(collection):
        total += len(ids)
        kept.add(ids, vectors)
    kept.thin()
    return VectorSample(list(kept.place), kept.rows[: len(kept.place)], total)


class _Drawn:
    """The vectors that are drawn of those that came so far: `place` of an id is its row."""

    def __init__(self, collection: Collection, size: int, *, seed: int, always: Set[str]) -> None:
        self.size, self.seed, self.always = size, seed, always
        most = max(size, len(always))
        # not every page has to be thinned out
        self.room = most + most // 4 + IDS_AT_ONCE
        self.place: dict[str, int] = {}
        self.rows = np.empty((min(self.room, collection.gateway.count()), collection.dimension), np.float32)
        self.last: bytes | None = None
        """The highest rank that was drawn, once some were not: what stands higher is not drawn either."""

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        for passage_id, vector in zip(ids, vectors, strict=True):
            row = self.place.get(passage_id)
            if row is None:
                if self.is_late(passage_id):
                    continue
                if len(self.place) == self.room:
                    self.thin()
                row = self.place[passage_id] = len(self.place)
                if row == len(self.rows):  # others write meanwhile
                    self.rows = np.concatenate([self.rows, np.empty((IDS_AT_ONCE, self.rows.shape[1]), np.float32)])
            self.rows[row] = vector

    def is_late(self, passage_id: str) -> bool:
        """Whether so many stand before a passage that it cannot be drawn."""
        if self.last is None or passage_id in self.always:
            return False
        return draw_rank(passage_id, self.seed) > self.last

    def thin(self) -> None:
        drawn = draw_ids(list(self.place), self.size, seed=self.seed, always=self.always)
        if len(drawn) == len(self.place):
            return
        self.last = max((draw_rank(name, self.seed) for name in drawn if name not in self.always), default=b"")
        rows = [self.place[name] for name in drawn]
        for start in range(0, len(rows), IDS_AT_ONCE):  # they ascend, so that none is overwritten before it moves
            part = rows[start : start + IDS_AT_ONCE]
            self.rows[start : start + len(part)] = self.rows[part]
        self.place = {name: row for row, name in enumerate(drawn)}


def draw_ids(ids: Sequence[str], size: int, *, seed: int = 0, always: Container[str] = ()) -> list[str]:
    """Those of `always`, and as many others as make `size`, in their order: the others with the lowest `draw_rank`."""
    if len(ids) <= size:
        return list(ids)
    others = sorted(
        (passage_id for passage_id in ids if passage_id not in always), key=lambda other: draw_rank(other, seed)
    )
    room = max(0, size - (len(ids) - len(others)))
    drawn = set(others[:room])
    return [passage_id for passage_id in ids if passage_id in always or passage_id in drawn]


def draw_rank(passage_id: str, seed: int) -> bytes:
    """Where a passage stands in a seeded draw. Its id alone decides, whatever else there is to draw from."""
    return hashlib.sha256(f"{seed}\0{passage_id}".encode(errors="surrogatepass")).digest()


def _fetch_by_field(
    collection: Collection, passage_ids: Sequence[str], *, with_vectors: bool, with_text: bool
) -> dict[str, StoredPassage]:
    """Where the passage id is a field of the payload; of several points with one id, the first is taken."""
    stored: dict[str, StoredPassage] = {}
    for start in range(0, len(passage_ids), IDS_AT_ONCE):
        block = list(passage_ids[start : start + IDS_AT_ONCE])
        # others keep numbers where ours are strings, and an engine takes 7 and "7" for two values
        numbers = [number for number in map(as_point_id, block) if isinstance(number, int) and number < 1 << 63]
        conditions: list[models.Condition] = [
            models.FieldCondition(key=payload_path([collection.layout.id]), match=models.MatchAny(any=values))
            for values in (block, numbers)
            if values
        ]
        for records in collection.gateway.pages(
            batch_size=IDS_AT_ONCE,
            with_payload=with_text or _id_alone(collection),
            with_vectors=with_vectors and collection.vector_selector,
            scroll_filter=models.Filter(should=conditions),
        ):
            for record in records:
                passage = _stored(collection, record)
                stored.setdefault(passage.id, passage)
    return stored


def as_point_id(passage_id: str) -> str | int | None:
    """The point of a passage that goes by its point id; None for what no point can be called."""
    # twenty digits hold every 64-bit number, and `int` refuses thousands of them
    if passage_id.isascii() and passage_id.isdecimal() and len(passage_id) <= 20:
        number = int(passage_id)
        # with zeros in front it is the name of something else
        return number if number < 1 << 64 and str(number) == passage_id else None
    try:
        return str(uuid.UUID(passage_id))
    except ValueError:
        return None


def _id_alone(collection: Collection) -> bool | list[str]:
    """What to ask of a payload for the passage id and nothing else."""
    return [payload_path([collection.layout.id])] if collection.layout.id else False


def _stored(collection: Collection, record: models.Record) -> StoredPassage:
    passage = collection.layout.passage(record.payload, point_id=plain_id(record.id))
    vector = None
    if collection.layout.has_dense(record.vector):
        vector = np.asarray(collection.layout.dense(record.vector), dtype=np.float32)
    return StoredPassage(passage.id, passage.text, passage.metadata, plain_id(record.id), vector)
