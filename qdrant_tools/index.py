"""A stream of passages -> points of a collection.

Guarantees: the same passages indexed again change nothing and are not encoded again; a changed text or metadata
replaces the point; what was reported through `progress` is stored, so that an interrupted run loses nothing it
reported and the next run goes on from there. Holds one batch, however long the stream.

Equal ids within one batch are merged if they are equal passages, and refused if not. Across batches the later
passage wins and counts as updated: remembering every id would not be bounded memory.

Does not know: files, models; what is no longer in the stream stays in the collection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qdrant_client import models

from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.handle import Collection, plain_id, point_id
from qdrant_tools.layout import OURS
from qdrant_tools.lexical import VECTOR
from qdrant_tools.records import Encoder, Passage, Progress
from qdrant_tools.translate import engine_errors
from qdrant_tools.vectors import checked_unit_vectors

BATCH_CHARACTERS = 8_000_000
"""A batch ends here even when it has fewer passages: servers refuse requests above 32 MB."""


@dataclass(frozen=True)
class IndexReport:
    """What became of the passages. `merged` are repetitions of an equal passage within a batch."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    merged: int = 0

    def __add__(self, other: IndexReport) -> IndexReport:
        return IndexReport(
            self.added + other.added,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.merged + other.merged,
        )


def index_passages(
    collection: Collection,
    passages: Iterable[Passage],
    encoder: Encoder,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> IndexReport:
    """Store passages, encoding only those that are new or changed.

    `progress` receives the number of passages of each batch once the engine has acknowledged them.

    Raises:
        SpaceMismatchError: the collection was filled by another encoder.
        CollectionError: the collection was adopted; it has the layout of another program.
        InputError: an empty id or text, metadata that JSON cannot hold, or one id with two contents in a batch.
        VectorError: the encoder returned something else than one unit vector per text.
    """
    collection.check(encoder)
    if collection.layout != OURS:
        raise CollectionError(
            f"collection {collection.name!r} has the layout of {collection.layout.name!r}: fill it with the program "
            "that made it, or index into a new collection"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected at least 1")
    report = IndexReport()
    for batch in _batches(passages, batch_size):
        report += _index_batch(collection, batch, encoder)
        if progress is not None:
            progress(len(batch))
    return report


def content_hash(passage: Passage) -> str:
    """SHA-256 over text and metadata: equal hash, equal content, whatever the order of the metadata keys.

    Raises:
        InputError: the metadata holds something that JSON cannot.
    """
    try:
        content = json.dumps(
            [passage.text, dict(passage.metadata)], sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        return hashlib.sha256(content.encode("utf-8")).hexdigest()
    except (TypeError, ValueError) as error:
        raise InputError(f"passage {passage.id!r} cannot be stored as JSON: {error}") from error


def _batches(passages: Iterable[Passage], size: int) -> Iterator[list[Passage]]:
    batch: list[Passage] = []
    characters = 0
    for passage in passages:
        batch.append(_checked(passage))
        characters += len(passage.text)
        if len(batch) == size or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _checked(passage: Passage) -> Passage:
    if not isinstance(passage.id, str) or not passage.id:
        raise InputError(f"passage id is {passage.id!r}, expected a non-empty string")
    if not isinstance(passage.text, str) or not passage.text.strip():
        raise InputError(f"passage {passage.id!r} has the text {passage.text!r}, expected a non-empty string")
    return passage


def _index_batch(collection: Collection, batch: Sequence[Passage], encoder: Encoder) -> IndexReport:
    hashes: dict[str, str] = {}
    passages: dict[str, Passage] = {}
    for passage in batch:
        digest = content_hash(passage)
        if hashes.setdefault(passage.id, digest) != digest:
            raise InputError(f"passage id {passage.id!r} occurs with two different contents: give each its own id")
        passages[passage.id] = passage
    stored = _stored_hashes(collection, list(passages))
    changed = [passage for passage in passages.values() if stored.get(passage.id) != hashes[passage.id]]
    if changed:
        _upsert(collection, changed, hashes, encoder)
    updated = sum(passage.id in stored for passage in changed)
    return IndexReport(
        added=len(changed) - updated,
        updated=updated,
        unchanged=len(passages) - len(changed),
        merged=len(batch) - len(passages),
    )


def _stored_hashes(collection: Collection, passage_ids: Sequence[str]) -> dict[str, str | None]:
    ids = {point_id(passage_id): passage_id for passage_id in passage_ids}
    with engine_errors(f"read from collection {collection.name!r}"):
        records = collection.client.retrieve(collection.name, list(ids), with_payload=["content_hash"])
    return {ids[str(plain_id(record.id))]: (record.payload or {}).get("content_hash") for record in records}


def _upsert(collection: Collection, passages: Sequence[Passage], hashes: dict[str, str], encoder: Encoder) -> None:
    vectors = checked_unit_vectors(
        encoder.encode_passages([passage.text for passage in passages]),
        dimension=collection.dimension,
        count=len(passages),
        what=f"passages encoded by {encoder.space!r}",
    )
    lexical = collection.lexical
    points = [
        models.PointStruct(
            id=point_id(passage.id),
            vector=row if lexical is None else {"": row, VECTOR: lexical.passage(passage.text)},
            payload={
                "passage_id": passage.id,
                "text": passage.text,
                "metadata": dict(passage.metadata),
                "content_hash": hashes[passage.id],
            },
        )
        for passage, row in zip(passages, vectors.tolist(), strict=True)
    ]
    with engine_errors(f"write to collection {collection.name!r}"):
        collection.client.upsert(collection.name, points, wait=True)
