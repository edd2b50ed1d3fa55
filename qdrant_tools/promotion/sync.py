"""Two collections, one encoder -> the second holds what the first holds, embedded by that encoder.

A pass walks the first collection, compares every payload with the second's, embeds the texts of those that differ and
writes them; then it walks the second and removes what the first no longer has. Payloads, ids and all other vectors are
copied as they are, whoever wrote them.

Guarantees: a pass that was interrupted loses nothing, and the next one embeds only what is still different; a pass that
finds no difference has seen every write that was stored before it began. Holds one page. Does not know: aliases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import CollectionError
from qdrant_tools.records import Encoder, Progress, Vectors
from qdrant_tools.validation import checked_unit_vectors


@dataclass(frozen=True)
class Carried:
    """What a pass did."""

    written: int = 0
    deleted: int = 0
    unchanged: int = 0

    @property
    def differences(self) -> int:
        return self.written + self.deleted

    def __add__(self, other: Carried) -> Carried:
        return Carried(self.written + other.written, self.deleted + other.deleted, self.unchanged + other.unchanged)


def carry(
    source: Collection,
    target: Collection,
    encoder: Encoder,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Carried:
    """Make one pass. `progress` receives the points of each page once they are stored; `alive` is called for every
    page that is looked at.

    Raises:
        SpaceMismatchError: the target is of another space than the encoder.
        CollectionError: a point of the source has no text to embed; the message names it.
    """
    target.check(encoder)
    done, several = Carried(), _has_other_vectors(source)
    for records in source.gateway.pages(batch_size=batch_size):
        alive()
        changed = _different(records, target)
        if changed:
            target.gateway.upsert(_points(source, changed, encoder, several=several))
        done += Carried(written=len(changed), unchanged=len(records) - len(changed))
        if progress is not None:
            progress(len(records))
    for ids in _gone(source, target, batch_size):
        alive()
        if not ids:
            continue
        target.gateway.delete(ids)
        done += Carried(deleted=len(ids))
    return done


def differences(source: Collection, target: Collection, *, batch_size: int = 256) -> Carried:
    """What a pass would do, without doing it."""
    found = Carried()
    for records in source.gateway.pages(batch_size=batch_size):
        changed = len(_different(records, target))
        found += Carried(written=changed, unchanged=len(records) - changed)
    return found + Carried(deleted=sum(len(ids) for ids in _gone(source, target, batch_size)))


def _different(records: Sequence[models.Record], target: Collection) -> list[models.Record]:
    there = target.gateway.retrieve([record.id for record in records])
    payloads = {plain_id(record.id): record.payload or {} for record in there}
    return [record for record in records if payloads.get(plain_id(record.id)) != (record.payload or {})]


def _gone(source: Collection, target: Collection, batch_size: int) -> Iterator[list[Any]]:
    """For each page of the target, the points that the source does not have."""
    for records in target.gateway.pages(batch_size=batch_size, with_payload=False):
        ids = [record.id for record in records]
        here = {plain_id(record.id) for record in source.gateway.retrieve(ids, with_payload=False)}
        yield [record.id for record in records if plain_id(record.id) not in here]


def embedded(source: Collection, records: Sequence[models.Record], encoder: Encoder) -> Vectors:
    """The vectors (n, dimension) of the texts of stored points.

    Raises:
        CollectionError: a point has no text to embed; the message names it.
    """
    texts = []
    for record in records:
        passage = source.layout.passage(record.payload, point_id=plain_id(record.id))
        if not passage.text.strip():
            raise CollectionError(
                f"point {plain_id(record.id)!r} of collection {source.name!r} has no text in {source.layout.text!r}: "
                "it cannot be embedded again; delete it, or give it a text"
            )
        texts.append(passage.text)
    return checked_unit_vectors(
        encoder.encode_passages(texts),
        dimension=encoder.dimension,
        count=len(texts),
        what=f"passages encoded by {encoder.space!r}",
    )


def _points(
    source: Collection, records: Sequence[models.Record], encoder: Encoder, *, several: bool
) -> list[models.PointStruct]:
    vectors = embedded(source, records, encoder)
    others = _other_vectors(source, [record.id for record in records]) if several else {}
    return [
        models.PointStruct(
            id=record.id, vector=_vector(source, row, others.get(plain_id(record.id))), payload=record.payload
        )
        for record, row in zip(records, vectors, strict=True)
    ]


def _vector(source: Collection, row: Vectors, others: dict[str, Any] | None) -> Any:
    name = source.layout.vector
    return {**(others or {}), name: row.tolist()} if others or name else row.tolist()


def _has_other_vectors(collection: Collection) -> bool:
    params = collection.gateway.info().config.params
    dense = len(params.vectors) if isinstance(params.vectors, Mapping) else 1
    return dense + len(params.sparse_vectors or {}) > 1


def _other_vectors(source: Collection, points: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Point -> its vectors by name but for the one that is made anew."""
    found = {}
    for record in source.gateway.retrieve(points, with_payload=False, with_vectors=True):
        if isinstance(record.vector, dict):
            found[plain_id(record.id)] = {k: v for k, v in record.vector.items() if k != source.layout.vector}
    return found
