"""Two collections and an encoder -> the second holds what the first holds, embedded by that encoder.

A pass walks the first collection, compares every payload with the second's, embeds the texts of those that differ and
writes them. Then it walks the second and removes what the first no longer has. Payloads, ids and all other vectors are
copied as they are, also those of other programs.

Guarantees: a pass that was interrupted loses nothing, and the next one embeds only what is still different. A pass that
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
class SyncReport:
    """What a pass did: points of the target that were written, deleted, and found as they should be."""

    written: int = 0
    deleted: int = 0
    unchanged: int = 0

    @property
    def differences(self) -> int:
        return self.written + self.deleted

    def __add__(self, other: SyncReport) -> SyncReport:
        return SyncReport(self.written + other.written, self.deleted + other.deleted, self.unchanged + other.unchanged)


def sync(
    source: Collection,
    target: Collection,
    encoder: Encoder,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> SyncReport:
    """Make one pass. `progress` receives the points of each page once they are stored; `heartbeat` is called for every
    page that is looked at.

    Raises:
        SpaceMismatchError: the target is of another space than the encoder.
        CollectionError: a point of the source has no text to embed; the message names it.
    """
    target.check(encoder)
    # asked once: where there are no other vectors, no page has to be read a second time for them
    report, other_vectors = SyncReport(), _has_other_vectors(source)
    for records in source.gateway.pages(batch_size=batch_size):
        heartbeat()
        changed = _different(records, target)
        if changed:
            target.gateway.upsert(_points(source, changed, encoder, other_vectors=other_vectors))
        report += SyncReport(written=len(changed), unchanged=len(records) - len(changed))
        if progress is not None:
            progress(len(records))
    # Deletions come last: a point that is deleted from the source while the first walk goes on is found here.
    for ids in _removed(source, target, batch_size):
        heartbeat()
        if ids:
            target.gateway.delete(ids)
            report += SyncReport(deleted=len(ids))
    return report


def differences(
    source: Collection, target: Collection, *, batch_size: int = 256, heartbeat: Callable[[], None] = lambda: None
) -> SyncReport:
    """What a pass would do, without doing it. `heartbeat` is called for every page."""
    report = SyncReport()
    for records in source.gateway.pages(batch_size=batch_size):
        heartbeat()
        changed = len(_different(records, target))
        report += SyncReport(written=changed, unchanged=len(records) - changed)
    for ids in _removed(source, target, batch_size):
        heartbeat()
        report += SyncReport(deleted=len(ids))
    return report


def embed_records(source: Collection, records: Sequence[models.Record], encoder: Encoder) -> Vectors:
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


def _different(records: Sequence[models.Record], target: Collection) -> list[models.Record]:
    """The points that the target lacks or has with another payload."""
    # Payloads decide, not vectors: our own have a hash of the text in them, and others hold the text itself.
    stored = target.gateway.retrieve([plain_id(record.id) for record in records])
    payloads = {plain_id(record.id): record.payload or {} for record in stored}
    # None is a point that the target lacks, and equals no payload
    return [record for record in records if payloads.get(plain_id(record.id)) != (record.payload or {})]


def _removed(source: Collection, target: Collection, batch_size: int) -> Iterator[list[str | int]]:
    """For each page of the target, the points that the source does not have."""
    for records in target.gateway.pages(batch_size=batch_size, with_payload=False):
        ids = [plain_id(record.id) for record in records]
        stored = {plain_id(record.id) for record in source.gateway.retrieve(ids, with_payload=False)}
        # also when it is empty: `sync` renews the lock of a switch after every page
        yield [point_id for point_id in ids if point_id not in stored]


def _points(
    source: Collection, records: Sequence[models.Record], encoder: Encoder, *, other_vectors: bool
) -> list[models.PointStruct]:
    vectors = embed_records(source, records, encoder)
    others = _other_vectors(source, [plain_id(record.id) for record in records]) if other_vectors else {}
    name = source.layout.vector
    points = []
    for record, row in zip(records, vectors.tolist(), strict=True):
        named = others.get(plain_id(record.id), {})
        # the one unnamed vector of a collection is a plain list, several are named, "" among them
        vector = {**named, name: row} if named or name else row
        points.append(models.PointStruct(id=record.id, vector=vector, payload=record.payload))
    return points


def _has_other_vectors(collection: Collection) -> bool:
    params = collection.gateway.info().config.params
    dense = len(params.vectors) if isinstance(params.vectors, Mapping) else 1
    return dense + len(params.sparse_vectors or {}) > 1


def _other_vectors(source: Collection, ids: Sequence[str | int]) -> dict[str | int, dict[str, Any]]:
    """Point -> its vectors by name, but for the one that is made anew."""
    return {
        plain_id(record.id): {name: vector for name, vector in record.vector.items() if name != source.layout.vector}
        for record in source.gateway.retrieve(ids, with_payload=False, with_vectors=True)
        if isinstance(record.vector, dict)
    }
