"""A stream of passages -> points of a collection.

Guarantees: the same passages indexed again change nothing and are not encoded again. A changed text or metadata
replaces the point. What was reported through `progress` is stored: an interrupted run loses nothing it reported, and
the next run goes on from there. Memory holds one batch, however long the stream. A network that fails for a while is
waited for; an encoder that fails is not asked twice.

Equal ids within one batch are merged if they are equal passages, and bad if not. Across batches the later passage wins
and counts as updated, because remembering every passage would not be bounded memory.

What is no longer in the stream stays in the collection, unless `delete_missing` is set. Then the ids are kept in a
temporary file while the stream is read, and nothing is removed before its end. Does not know: files, models.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from tempfile import TemporaryDirectory
from typing import Any, Literal

from qdrant_client import models

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import OURS
from qdrant_tools.collections.points import point_id
from qdrant_tools.collections.retirement import refuse_retired
from qdrant_tools.collections.settings import PayloadKind, payload_indexes, seen_otherwise
from qdrant_tools.errors import CollectionError, InputError, first_line
from qdrant_tools.fields import Field, json_metadata, values_at
from qdrant_tools.records import Encoder, Passage, Progress, Vectors
from qdrant_tools.search.bm25 import VECTOR
from qdrant_tools.search.hybrid import lexical_of
from qdrant_tools.validation import (
    DEEPEST_PAYLOAD,
    brief,
    checked_count,
    checked_unit_vectors,
    is_unicode,
    parts,
    refuse_nesting,
)

__all__ = ["Failure", "IndexReport", "OnBad", "content_hash", "index_passages"]

BATCH_BYTES = 8_000_000
"""A batch ends here even when it has fewer passages: servers refuse requests above 32 MB."""
LONGEST_ID = 10_000
"""Characters. An id is in every hit, log and label of its passage."""
KEPT_FAILURES = 100
PAGE = 1000
"""Points per page, where `delete_missing` looks for points that are no longer in the stream."""
_FIELDS = "'id', 'text' and, for everything else, 'metadata'"

Indexes = Mapping[Field, PayloadKind]
OnBad = Literal["raise", "count"]


@dataclass(frozen=True)
class Failure:
    """A passage that was not stored, and why."""

    passage_id: str
    reason: str


@dataclass(frozen=True)
class IndexReport:
    """What became of the passages. `merged` are repetitions of an equal passage within a batch. `failed` counts the bad
    ones, of which the first hundred are in `failures`."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    merged: int = 0
    deleted: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = field(default=(), repr=False)

    def __add__(self, other: IndexReport) -> IndexReport:
        counts = [count.name for count in fields(self) if count.name != "failures"]
        return IndexReport(
            **{name: getattr(self, name) + getattr(other, name) for name in counts},
            failures=(self.failures + other.failures)[:KEPT_FAILURES],
        )


@dataclass(frozen=True)
class _Prepared:
    """A passage that can be stored, with the hash of its content and the content's bytes."""

    passage: Passage
    digest: str
    size: int


def index_passages(
    collection: Collection,
    passages: Iterable[Passage | Mapping[str, Any] | str],
    encoder: Encoder,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
    on_bad: OnBad = "raise",
    delete_missing: bool = False,
) -> IndexReport:
    """Store passages, encoding only those that are new or changed.

    A passage is a `Passage`, a dict `{"id", "text", "metadata"}` (the metadata may be left out) or a string. A string
    has a stable id made of its text: indexed again it is the same passage, and another text is another passage.
    Metadata is stored as JSON has it, dates and times as RFC 3339 (`fields.json_metadata`).

    `progress` receives the number of passages of each batch once the engine has acknowledged them. A passage that
    cannot be stored ends the run, or with `on_bad="count"` is reported with its reason. With `delete_missing` the
    passages that are in the collection and not in the stream are deleted at the stream's end; nobody else should
    write meanwhile.

    Raises:
        SpaceMismatchError: the collection was filled by another encoder.
        CollectionError: the collection was adopted; it has the layout of another program. Or another collection
            takes its place just now: open the alias again and index again.
        InputError: an empty id or text, metadata that JSON cannot hold, that no engine can be asked for or that a
            payload index would hide, one id with two contents in a batch, a dict with a field missing or unknown; or
            nothing to index and `delete_missing`.
        VectorError: the encoder returned something else than one unit vector per text.
        UnreachableError: the server stayed silent for as long as `gateway.DEFAULT_RETRY` says.
    """
    _checked_target(collection, encoder)
    checked_count("batch_size", batch_size)
    if isinstance(passages, str | bytes | Mapping | Passage) or not isinstance(passages, Iterable):
        raise InputError(f"passages is {brief(passages)}, expected several: a list of Passage, dicts or strings")
    if not isinstance(on_bad, str) or on_bad not in ("raise", "count"):
        raise InputError(f"on_bad is {brief(on_bad)}, expected 'raise' or 'count'")
    if collection.lexical is not None:
        lexical_of(collection)  # says if its words are not those of this version
    writer = _Writer(collection, encoder)
    report = IndexReport()
    with seen_points() if delete_missing else nullcontext() as seen:
        indexes = payload_indexes(collection.gateway.info(), collection.layout)
        for batch in _batches(passages, batch_size, indexes):
            report += _index_batch(writer, batch, on_bad, seen)
            if progress is not None:
                progress(len(batch))
        if seen is not None:
            report += IndexReport(deleted=remove_missing(collection, seen))
            # deletions too can come after the last copy of a collection that is being replaced
            refuse_retired(collection)
    return report


def passage_of(item: Passage | Mapping[str, Any] | str) -> Passage:
    """A passage for one that may be a dict `{"id", "text", "metadata"}` or a string.

    Raises:
        InputError: neither; or a dict without "id" or "text", or with a field that a passage does not have.
    """
    if isinstance(item, Passage):
        return item
    if isinstance(item, str):
        return Passage(hashlib.sha256(item.encode("utf-8", "surrogatepass")).hexdigest()[:32], item)
    if not isinstance(item, Mapping):
        raise InputError(f"passage is {brief(item)}, expected a Passage, a dict with 'id' and 'text', or a string")
    for name in ("id", "text"):
        if name not in item:
            raise InputError(f"passage {brief(dict(item))} has no field {name!r}, expected {_FIELDS}")
    for name in item:
        if name not in ("id", "text", "metadata"):
            raise InputError(f"passage {brief(item['id'])} has the field {brief(name)}, expected {_FIELDS}")
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping | None):
        raise InputError(f"passage {brief(item['id'])}: field 'metadata' is {brief(metadata)}, expected a dict")
    return Passage(item["id"], item["text"], metadata or {})


def content_hash(passage: Passage) -> str:
    """SHA-256 over text and metadata: equal hash, equal content, whatever the order of the metadata keys.

    Raises:
        InputError: the metadata holds something that JSON cannot.
    """
    return hashlib.sha256(_content(_with_json_metadata(passage))).hexdigest()


def _content(passage: Passage) -> bytes:
    try:
        content = json.dumps([passage.text, passage.metadata], sort_keys=True, ensure_ascii=False, allow_nan=False)
        return content.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InputError(f"passage {brief(passage.id)} cannot be stored as JSON: {first_line(error)}") from error


def _with_json_metadata(passage: Passage) -> Passage:
    """The passage as it is stored: its metadata with the values of JSON. Raises `InputError`."""
    what = f"passage {brief(passage.id)}: metadata"
    if not isinstance(passage.metadata, Mapping):
        raise InputError(f"{what} is {brief(passage.metadata)}, expected a dict")
    # metadata is one level below the payload that holds it
    refuse_nesting(passage.metadata, parts, DEEPEST_PAYLOAD - 1, what)
    return replace(passage, metadata=json_metadata(passage.metadata, what))


def _checked_target(collection: Collection, encoder: Encoder) -> None:
    collection.check(encoder)
    # the name of the vector may differ: a promotion in place changes it
    if collection.layout != replace(OURS, vector=collection.layout.vector):
        raise CollectionError(
            f"collection {collection.name!r} has the layout of {collection.layout.name!r}: fill it with the program "
            "that made it, or index into a new collection"
        )


def _refuse_hidden(passage: Passage, indexes: Indexes) -> None:
    """Raise `InputError` for a value that an index of the collection would keep filters from finding."""
    for name, kind in indexes.items():
        for value in values_at(passage.metadata, name):
            why = seen_otherwise(kind, value)
            if why is not None:
                field = brief(name)
                raise InputError(f"passage {brief(passage.id)}: metadata field {field} is {brief(value)}, and {why}")


def _batches(
    passages: Iterable[Passage | Mapping[str, Any] | str], size: int, indexes: Indexes
) -> Iterator[list[_Prepared | Failure]]:
    batch: list[_Prepared | Failure] = []
    batch_bytes = 0
    for passage in passages:
        prepared = _prepared(passage, indexes)
        batch.append(prepared)
        batch_bytes += prepared.size if isinstance(prepared, _Prepared) else len(prepared.passage_id)
        if len(batch) == size or batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _prepared(item: Passage | Mapping[str, Any] | str, indexes: Indexes) -> _Prepared | Failure:
    try:
        passage = passage_of(item)
    except InputError as error:
        return Failure(brief(item.get("id", "")) if isinstance(item, Mapping) else "", str(error))
    if not isinstance(passage.id, str) or not passage.id:
        return Failure(brief(passage.id), f"passage id is {brief(passage.id)}, expected a non-empty string")
    if len(passage.id) > LONGEST_ID:
        size = f"has {len(passage.id):,} characters, expected at most {LONGEST_ID:,}"
        return Failure(passage.id, f"passage id {brief(passage.id)} {size}: give a shorter one")
    if not is_unicode(passage.id):
        return Failure(passage.id, f"passage id {brief(passage.id)} holds a lone surrogate, expected Unicode text")
    if not isinstance(passage.text, str) or not passage.text.strip():
        text = brief(passage.text)
        return Failure(passage.id, f"passage {brief(passage.id)} has the text {text}, expected a non-empty string")
    try:
        passage = _with_json_metadata(passage)
        _refuse_hidden(passage, indexes)
        content = _content(passage)
        return _Prepared(passage, hashlib.sha256(content).hexdigest(), len(content))
    except InputError as error:
        return Failure(passage.id, str(error))


def _index_batch(
    writer: _Writer, batch: Sequence[_Prepared | Failure], on_bad: OnBad, seen: SeenPoints | None
) -> IndexReport:
    passages: dict[str, _Prepared] = {}
    failures: dict[str, list[Failure]] = {}
    merged = 0
    for item in batch:
        if isinstance(item, Failure):
            failures.setdefault(item.passage_id, []).append(item)
            continue
        first = passages.setdefault(item.passage.id, item)
        merged += first is not item and first.digest == item.digest
        if first.digest != item.digest:
            failures.setdefault(item.passage.id, []).append(_ambiguous(item.passage.id))
    for passage_id in [passage_id for passage_id in failures if passage_id in passages]:
        failures[passage_id].append(_ambiguous(passage_id))  # nobody can tell which of the contents is meant
        del passages[passage_id]
    all_failures = [failure for of_one_id in failures.values() for failure in of_one_id]
    if all_failures and on_bad == "raise":
        raise InputError(all_failures[0].reason)
    if seen is not None:
        # a bad passage is still in the stream: what is stored under its id stays
        seen.add(point_id(passage_id) for passage_id in (*passages, *failures) if is_unicode(passage_id))
    report = writer.store(list(passages.values()))
    kept = tuple(map(_shortened, all_failures[:KEPT_FAILURES]))
    return report + IndexReport(merged=merged, failed=len(all_failures), failures=kept)


def _shortened(failure: Failure) -> Failure:
    return failure if len(failure.passage_id) <= LONGEST_ID else replace(failure, passage_id=brief(failure.passage_id))


def _ambiguous(passage_id: str) -> Failure:
    return Failure(
        passage_id, f"passage id {brief(passage_id)} occurs with two different contents: give each its own id"
    )


@dataclass(frozen=True)
class _Writer:
    """Brings prepared passages into a collection."""

    collection: Collection
    encoder: Encoder

    def store(self, batch: Sequence[_Prepared]) -> IndexReport:
        if not batch:
            return IndexReport()
        stored = self._stored_hashes([prepared.passage.id for prepared in batch])
        changed = [prepared for prepared in batch if stored.get(prepared.passage.id) != prepared.digest]
        if changed:
            self.collection.gateway.upsert(self._points(changed))
        # After writing and before anything is reported: a collection that is being replaced was marked before its last
        # writes are copied over, so that a write without a mark is among them. See `retirement`.
        refuse_retired(self.collection)
        updated = sum(prepared.passage.id in stored for prepared in changed)
        return IndexReport(len(changed) - updated, updated, len(batch) - len(changed))

    def _stored_hashes(self, passage_ids: Sequence[str]) -> dict[str, str | None]:
        ids = {point_id(passage_id): passage_id for passage_id in passage_ids}
        gateway, fields = self.collection.gateway, ["content_hash"]
        # after a promotion in place a point may lack the vector that serves, and is embedded again
        if self.collection.layout.vector:
            pages = gateway.pages(batch_size=len(ids), with_payload=fields, scroll_filter=self._served(list(ids)))
            records = [record for page in pages for record in page]
        else:
            records = gateway.retrieve(list(ids), with_payload=fields)
        return {ids[str(plain_id(record.id))]: (record.payload or {}).get("content_hash") for record in records}

    def _served(self, points: Sequence[str]) -> models.Filter:
        """Those of the points that have the vector that serves: after a promotion in place some may lack it."""
        named = models.HasVectorCondition(has_vector=self.collection.layout.vector)
        return models.Filter(must=[models.HasIdCondition(has_id=list(points)), named])

    def _points(self, batch: Sequence[_Prepared]) -> list[models.PointStruct]:
        vectors = checked_unit_vectors(
            self.encoder.encode_passages([prepared.passage.text for prepared in batch]),
            dimension=self.collection.dimension,
            count=len(batch),
            what=f"passages encoded by {self.encoder.space!r}",
        )
        return [self._point(prepared, row) for prepared, row in zip(batch, vectors, strict=True)]

    def _point(self, prepared: _Prepared, row: Vectors) -> models.PointStruct:
        passage, lexical, name = prepared.passage, self.collection.lexical, self.collection.layout.vector
        vector: Any = row.tolist()
        if name or lexical is not None:
            vector = {name: vector} | ({} if lexical is None else {VECTOR: lexical.passage(passage.text)})
        return models.PointStruct(
            id=point_id(passage.id),
            vector=vector,
            payload={
                "passage_id": passage.id,
                "text": passage.text,
                "metadata": dict(passage.metadata),
                "content_hash": prepared.digest,
            },
        )


class SeenPoints:
    """A set of point ids in a temporary SQLite file, 16 bytes each: memory stays constant, however many there are."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, points: Iterable[str]) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO seen VALUES (?)", [(uuid.UUID(point).bytes,) for point in points]
        )

    def absent(self, points: Iterable[str | int]) -> list[str | int]:
        """The points that were never added, numbers among them: an id of ours is a UUID."""
        return [point for point in points if isinstance(point, int) or not self._has(point)]

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM seen").fetchone()
        return int(count)

    def _has(self, point: str) -> bool:
        row = self._database.execute("SELECT 1 FROM seen WHERE id = ?", (uuid.UUID(point).bytes,)).fetchone()
        return row is not None


@contextmanager
def seen_points() -> Iterator[SeenPoints]:
    """An empty set that is gone with the context."""
    with TemporaryDirectory(prefix="qdrant-tools-") as folder:
        database = sqlite3.connect(f"{folder}/seen.sqlite", isolation_level=None)
        try:
            # nobody reads this file after a crash
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA journal_mode = OFF")
            yield SeenPoints(database)
        finally:
            database.close()


def remove_missing(collection: Collection, seen: SeenPoints) -> int:
    """Delete every point of the collection that is not in `seen`; how many.

    Raises:
        InputError: nothing was seen; an empty stream is taken for a mistake, not for a wish to lose everything.
    """
    if not len(seen):
        raise InputError(
            f"no passages to index and delete_missing: this would empty collection {collection.name!r}; drop it instead"
        )
    removed = 0
    for records in collection.gateway.pages(batch_size=PAGE, with_payload=False):
        # deleting while reading pages skips nothing: the next page begins at an id
        missing = seen.absent(plain_id(record.id) for record in records)
        if missing:
            collection.gateway.delete(missing)
            removed += len(missing)
    return removed
