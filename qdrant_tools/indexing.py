"""A stream of passages -> points of a collection.

Guarantees: the same passages indexed again change nothing and are not encoded again. A changed text replaces the point.
Where only the metadata changed, the point keeps its vectors: only its payload is written. What was reported through
`progress` is stored: an interrupted run loses nothing it reported, and the next run goes on from there. Memory holds
one batch, however long the stream. A network that fails for a while is waited for; an encoder that fails is not asked
twice.

Equal ids within one batch are merged if they are equal passages, and bad if not. Across batches the later passage wins
and counts as updated, because remembering every passage would not be bounded memory.

Limit: a write that the network holds up and that is sent again may arrive a second time long after. If the same passage
was written by another process meanwhile, the older text replaces the newer one; indexing that again puts it right.

What is no longer in the stream stays in the collection, unless `delete_missing` is set. Then the ids are kept in a
temporary file while the stream is read, and nothing is removed before its end. Does not know: files, models.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from numpy.typing import ArrayLike
from qdrant_client import models

from qdrant_tools.client.connect import refuse_read_only
from qdrant_tools.client.gateway import PointId, metadata_in, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.copying import refuse_custom_shards
from qdrant_tools.collections.identity import identity_in
from qdrant_tools.collections.metadata import OURS
from qdrant_tools.collections.points import point_id
from qdrant_tools.collections.retirement import refuse_retired
from qdrant_tools.collections.settings import PayloadKind, payload_indexes, seen_otherwise
from qdrant_tools.errors import CollectionError, InputError, first_line
from qdrant_tools.fields import Field, json_metadata, values_at
from qdrant_tools.promotion.made_of import made_of_its_text, note, two_vectors
from qdrant_tools.records import Encoder, LimitedEncoder, Passage, Progress, Vectors
from qdrant_tools.search.bm25 import VECTOR
from qdrant_tools.search.hybrid import lexical_of
from qdrant_tools.sources.given import Cutter, Given, is_document, passage_of, passages_given
from qdrant_tools.sources.origin import ORIGIN, Origin, SourcedPassage
from qdrant_tools.sources.seen import SeenPoints, seen_points
from qdrant_tools.sources.windows import LATE_WINDOW, Window, encode_in_windows, in_windows, window_encoder
from qdrant_tools.validation import (
    DEEPEST_PAYLOAD,
    brief,
    checked_count,
    checked_number,
    checked_unit_vectors,
    checked_vectors,
    is_unicode,
    parts,
    refuse_nesting,
    unit_rows,
)
from qdrant_tools.vectors.near import Duplicate, near_known
from qdrant_tools.vectors.written import FOUND, found_in, with_found

__all__ = ["Duplicate", "Failure", "IndexReport", "OnBad", "content_hash", "index_passages"]

BATCH_BYTES = 8_000_000
"""A batch ends here even when it has fewer passages: servers refuse requests above 32 MB."""
LONGEST_ID = 10_000
"""Characters. An id is in every hit, log and label of its passage."""
BATCH = 64
"""Points at once, where their passages come with their vectors."""
KEPT_FAILURES = 100
PAGE = 1000
"""Points per page, where `delete_missing` looks for points that are no longer in the stream."""

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
    """Their text changed: they were encoded again."""
    refreshed: int = 0
    """Only their metadata changed: they kept their vectors."""
    unchanged: int = 0
    merged: int = 0
    deleted: int = 0
    failed: int = 0
    truncated: int = 0
    """Of those that were encoded now: longer than the encoder reads, if it can say that. Their end is not found."""
    duplicates: int = 0
    """Were not stored: a passage that is there says nearly the same. Asked for by `skip_duplicates`."""
    failures: tuple[Failure, ...] = field(default=(), repr=False)
    skipped: tuple[Duplicate, ...] = field(default=(), repr=False)
    """The first hundred of the duplicates."""

    def __add__(self, other: IndexReport) -> IndexReport:
        counts = [count.name for count in fields(self) if count.name not in ("failures", "skipped")]
        return IndexReport(
            **{name: getattr(self, name) + getattr(other, name) for name in counts},
            failures=(self.failures + other.failures)[:KEPT_FAILURES],
            skipped=(self.skipped + other.skipped)[:KEPT_FAILURES],
        )


@dataclass(frozen=True)
class _Prepared:
    """A passage that can be stored, with the hash of its content and the content's bytes."""

    passage: Passage
    digest: str
    size: int
    window: Window | None = None
    """What it is read with, if the encoder reads more than its text."""


def index_passages(
    collection: Collection,
    passages: Iterable[Given],
    encoder: Encoder,
    *,
    cutter: Cutter | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
    on_bad: OnBad = "raise",
    delete_missing: bool = False,
    skip_duplicates: float | None = None,
) -> IndexReport:
    """Store passages, encoding only those that are new or changed.

    A passage is a `Passage`, a dict `{"id", "text", "metadata"}` (the metadata may be left out) or a string. A string
    has a stable id made of its text: indexed again it is the same passage, and another text is another passage. The
    documents and nodes of LlamaIndex and LangChain are taken too (`sources.given`): one that is longer than the encoder
    reads is cut, if the encoder can, into parts whose metadata names their `document`. `cutter` cuts everything that
    comes: a passage into itself or its parts, as `passage_cutter` of the other package does.
    Metadata is stored as JSON has it, dates and times as RFC 3339 (`fields.json_metadata`).

    `progress` receives the number of passages of each batch once the engine has acknowledged them. A passage that
    cannot be stored ends the run, or with `on_bad="count"` is reported with its reason. With `delete_missing` the
    passages that are in the collection and not in the stream are deleted at the stream's end; nobody else should
    write meanwhile.

    With `skip_duplicates` a new passage is not stored if the cosine of its vector with that of a stored one, or of one
    before it, is at least so large; the report names both. What is stored already is not looked at: the same passages
    indexed again are skipped again.

    Raises:
        SpaceMismatchError: the collection was filled by another encoder.
        CollectionError: the collection was adopted; it has the layout of another program. Or another collection
            takes its place just now: open the alias again and index again.
        InputError: an empty id or text, metadata that JSON cannot hold, that no engine can be asked for or that a
            payload index would hide, one id with two contents in a batch, a dict with a field missing or unknown; or
            nothing to index and `delete_missing`.
        VectorError: the encoder returned something else than one unit vector per text.
        NotSupportedError: the collection has custom sharding.
        LocationError: the folder is only read.
        UnreachableError: the server stayed silent for as long as `gateway.DEFAULT_RETRY` says.
    """
    check_target(collection, encoder)
    checked_count("batch_size", batch_size)
    if (
        isinstance(passages, str | bytes | Mapping | Passage)
        or is_document(passages)
        or not isinstance(passages, Iterable)
    ):
        raise InputError(f"passages is {brief(passages)}, expected several: a list of Passage, dicts or strings")
    if not isinstance(on_bad, str) or on_bad not in ("raise", "count"):
        raise InputError(f"on_bad is {brief(on_bad)}, expected 'raise' or 'count'")
    with seen_points() if delete_missing else nullcontext() as seen:
        report = store_passages(
            collection,
            passages_given(passages, encoder, cutter),
            encoder,
            batch_size=batch_size,
            progress=progress,
            on_bad=on_bad,
            seen=seen,
            skip_duplicates=skip_duplicates,
        )
        if seen is not None:
            report += IndexReport(deleted=remove_missing(collection, seen))
            # deletions too can come after the last copy of a collection that is being replaced
            refuse_retired(collection)
    return report


def store_passages(
    collection: Collection,
    passages: Iterable[Given],
    encoder: Encoder,
    *,
    batch_size: int,
    progress: Progress | None,
    on_bad: OnBad,
    seen: SeenPoints | None,
    dry_run: bool = False,
    skip_duplicates: float | None = None,
) -> IndexReport:
    """Store a stream of passages and note in `seen` what came. A dry run writes and encodes nothing, and knows no
    near-duplicates."""
    if skip_duplicates is not None:
        checked_number("skip_duplicates", skip_duplicates, above=0, most=1)
    if collection.lexical is not None:
        lexical_of(collection)  # says if its words are not those of this version
    report, info = IndexReport(), collection.gateway.info()
    refuse_custom_shards(info)
    indexes = payload_indexes(info, collection.layout)
    writer = _Writer(collection, encoder, on_bad, seen, dry_run, skip_duplicates, *two_vectors(info), _id_of(info))
    writer = replace(writer, reads=_reads_at_once(info))
    for batch in _batches(_all_prepared(passages, indexes, encoder), batch_size):
        report += _index_batch(writer, batch)
        if progress is not None:
            progress(len(batch))
    return report


def _reads_at_once(info: models.CollectionInfo) -> int:
    """As many points as a read may ask for by their ids, which a server's strict mode may limit."""
    strict = info.config.strict_mode_config
    limits = (strict.max_query_limit, strict.condition_max_size) if strict is not None and strict.enabled else ()
    return min([PAGE, *(limit for limit in limits if limit)])


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


def check_target(collection: Collection, encoder: Encoder) -> None:
    """Raise if the collection is not to be filled here by this encoder; see `index_passages`."""
    refuse_read_only(collection.client)
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


def _all_prepared(passages: Iterable[Given], indexes: Indexes, encoder: Encoder) -> Iterator[_Prepared | Failure]:
    prepared = (_prepared(passage, indexes) for passage in passages)
    reader = window_encoder(encoder)
    if reader is None:
        yield from prepared
        return
    for item, window in in_windows(prepared, lambda item: getattr(item, "passage", None), reader):
        yield item if window is None or isinstance(item, Failure) else _with_window(item, window)


def _with_window(prepared: _Prepared, window: Window) -> _Prepared:
    metadata = {**prepared.passage.metadata, LATE_WINDOW: window.key}
    passage = replace(prepared.passage, metadata=metadata)
    content = _content(passage)
    return _Prepared(passage, hashlib.sha256(content).hexdigest(), len(content), window)


def _batches(prepared_passages: Iterable[_Prepared | Failure], size: int) -> Iterator[list[_Prepared | Failure]]:
    batch: list[_Prepared | Failure] = []
    batch_bytes = 0
    for prepared in prepared_passages:
        batch.append(prepared)
        batch_bytes += prepared.size if isinstance(prepared, _Prepared) else len(prepared.passage_id)
        # a window is not parted, or it would be read twice
        ends = isinstance(prepared, Failure) or prepared.window is None or prepared.window.last
        if (len(batch) >= size or batch_bytes >= BATCH_BYTES) and ends:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _prepared(item: Given, indexes: Indexes) -> _Prepared | Failure:
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


def _index_batch(writer: _Writer, batch: Sequence[_Prepared | Failure]) -> IndexReport:
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
    report = IndexReport(merged=merged) + writer.failed([each for of_one_id in failures.values() for each in of_one_id])
    report += writer.store(list(passages.values()))
    if writer.seen is not None:
        # a bad passage is still in the stream: what is stored under its id stays
        writer.seen.add(point_id(passage_id) for passage_id in (*passages, *failures) if is_unicode(passage_id))
    return report


def _shortened(failure: Failure) -> Failure:
    return failure if len(failure.passage_id) <= LONGEST_ID else replace(failure, passage_id=brief(failure.passage_id))


def _ambiguous(passage_id: str) -> Failure:
    return Failure(
        passage_id, f"passage id {brief(passage_id)} occurs with two different contents: give each its own id"
    )


def _taken(passage_id: str, origin: Origin) -> Failure:
    where = f"{origin.source!r} ({origin.file})" if origin.file else repr(origin.source)
    return Failure(
        passage_id,
        f"passage id {brief(passage_id)} belongs to source {where} of this collection: give it another id, or "
        f"index this source into a collection of its own; if it is that very source, name it so (--source "
        f"{shlex.quote(origin.source)} --moved)",
    )


@dataclass(frozen=True)
class _Stored:
    """What a point says of the passage it holds."""

    digest: str | None
    origin: Origin | None
    found: frozenset[str] = frozenset()
    """Fields of its metadata that were found of its vector, and are no part of its content."""


@dataclass(frozen=True)
class _Writer:
    """Brings prepared passages into a collection."""

    collection: Collection
    encoder: Encoder
    on_bad: OnBad
    seen: SeenPoints | None
    dry_run: bool
    skip_duplicates: float | None = None
    notes: bool = False
    """Whether payloads say which vector was made of their text: texts have two vectors, see `promotion.made_of`."""
    asks_notes: bool = False
    """Whether a vector counts only if the payload says so: it is the second one."""
    identity: str | None = None
    """That of the collection when the run began; None if it was made by an earlier version."""
    reads: int = PAGE
    """Points that one read asks for at most."""

    def failed(self, failures: Sequence[Failure]) -> IndexReport:
        """Count failures, or raise the first one."""
        if failures and self.on_bad == "raise":
            raise InputError(failures[0].reason)
        return IndexReport(failed=len(failures), failures=tuple(map(_shortened, failures[:KEPT_FAILURES])))

    def store(self, batch: Sequence[_Prepared]) -> IndexReport:
        if not batch:
            return IndexReport()
        stored = self.stored([prepared.passage.id for prepared in batch])
        batch, report = self._own(batch, stored)
        there = {name: each.digest for name, each in stored.items()}
        changed = [each for each in batch if each.passage.id not in there or there[each.passage.id] != each.digest]
        kept = self._with_kept_vectors([each for each in changed if each.passage.id in there])
        encoded = [each for each in changed if each.passage.id not in kept]
        refreshed = [each for each in changed if each.passage.id in kept]
        skipped: list[Duplicate] = []
        if not self.dry_run:
            # a content that is the same may have got an origin, or another one
            same = (each for each in batch if there.get(each.passage.id) == each.digest and _origin(each) is not None)
            moved = [each for each in same if _origin(each) != stored[each.passage.id].origin]
            points, skipped = self._new_points(encoded, there, {point_id(each.passage.id) for each in batch})
            self._write(points, [*refreshed, *moved], stored)
        updated = sum(each.passage.id in there for each in encoded)
        return report + IndexReport(
            added=len(encoded) - updated - len(skipped),
            updated=updated,
            refreshed=len(refreshed),
            unchanged=len(batch) - len(changed),
            truncated=self._overlong([each.passage.text for each in encoded]),
            duplicates=len(skipped),
            skipped=tuple(skipped[:KEPT_FAILURES]),
        )

    def _overlong(self, texts: Sequence[str]) -> int:
        return self.encoder.count_overlong(texts) if texts and isinstance(self.encoder, LimitedEncoder) else 0

    def _new_points(
        self, encoded: Sequence[_Prepared], there: Mapping[str, str | None], coming: Set[str]
    ) -> tuple[list[models.PointStruct], list[Duplicate]]:
        """The points of passages that are to be written, and those that are left out as near-duplicates."""
        if not encoded:
            return [], []
        rows = self._rows(encoded)
        skipped: dict[str, Duplicate] = {}
        new = [number for number, each in enumerate(encoded) if each.passage.id not in there]
        if self.skip_duplicates is not None and new:
            ids = [encoded[number].passage.id for number in new]
            origin = _origin(encoded[0])
            replaced = {point_id(each.passage.id) for each in encoded if each.passage.id in there}
            found = near_known(
                self.collection,
                ids,
                rows[new],
                self.skip_duplicates,
                lambda points: self._staying(points, origin, coming) - replaced,
            )
            skipped = {each.passage_id: each for each in found if each is not None}
        pairs = zip(encoded, rows, strict=True)
        return [self.point(each, row) for each, row in pairs if each.passage.id not in skipped], [*skipped.values()]

    def _staying(self, points: Sequence[PointId], origin: Origin | None, coming: Set[str]) -> Set[PointId]:
        """Those of the points that no end of this run removes: what came in it, and what is of another source."""
        if self.seen is None:
            return set(points)
        staying: set[PointId] = {point for point in points if point in coming or point in self.seen}
        if origin is not None:
            records = self.collection.gateway.retrieve(
                [point for point in points if point not in staying], with_payload=[ORIGIN]
            )
            owners = {plain_id(record.id): Origin.of_payload(record.payload) for record in records}
            # what has no origin may be of an earlier version, whose passages go too
            staying |= {point for point, own in owners.items() if own is not None and own.source != origin.source}
        return staying

    def _write(
        self, points: list[models.PointStruct], kept: Sequence[_Prepared], stored: Mapping[str, _Stored]
    ) -> None:
        if points:
            self.collection.gateway.upsert(points)
        if kept:
            # only what is still there as it was read: whoever changes a text meanwhile stores its vector too
            found = self._found_fields([each.passage.id for each in kept if stored[each.passage.id].found], stored)
            self.collection.gateway.overwrite_payloads(
                [
                    (
                        _holding(each, stored[each.passage.id].digest),
                        with_found(self.payload(each), found[each.passage.id]),
                    )
                    for each in kept
                ]
            )
        # After writing and before anything is reported: a collection that is being replaced was marked before its last
        # writes are copied over, so that a write without a mark is among them. See `retirement`.
        refuse_retired(self.collection, identity=self.identity)

    def _own(self, batch: Sequence[_Prepared], stored: Mapping[str, _Stored]) -> tuple[list[_Prepared], IndexReport]:
        """Those of a source that may be stored: not those whose id is another's, in this source or in another one."""
        own, failures, merged = [], [], 0
        owners = {passage_id: each.origin for passage_id, each in stored.items()}
        owners |= self.owners([each.passage.id for each in batch if _origin(each) and each.passage.id not in stored])
        for each in batch:
            origin, there = _origin(each), stored.get(each.passage.id)
            owner = owners.get(each.passage.id)
            if origin is not None and owner is not None and owner.source != origin.source:
                failures.append(_taken(each.passage.id, owner))
            elif origin is None or there is None or self.seen is None or point_id(each.passage.id) not in self.seen:
                own.append(each)
            elif there.digest == each.digest:
                merged += 1
            else:
                failures.append(_ambiguous(each.passage.id))
        return own, IndexReport(merged=merged) + self.failed(failures)

    def _with_kept_vectors(self, changed: Sequence[_Prepared]) -> set[str]:
        """The ids of those whose stored vectors are those of the new passage too."""
        if not changed:
            return set()
        layout = self.collection.layout
        fields = [layout.id, layout.text, layout.metadata]
        records = self.collection.gateway.retrieve(
            [point_id(prepared.passage.id) for prepared in changed], with_payload=fields
        )
        passages = (layout.passage(record.payload, point_id=plain_id(record.id)) for record in records)
        keys = {passage.id: vector_key(self.encoder, passage) for passage in passages}
        return {
            each.passage.id for each in changed if keys.get(each.passage.id) == vector_key(self.encoder, each.passage)
        }

    def _found_fields(self, passage_ids: Sequence[str], stored: Mapping[str, _Stored]) -> Mapping[str, dict[str, Any]]:
        """What was found of the vectors of passages, and stays where these stay; nothing for others."""
        ids, metadata = {point_id(name): name for name in passage_ids}, self.collection.layout.metadata
        records = self.collection.gateway.retrieve(list(ids), with_payload=[metadata])
        fields = defaultdict[str, dict[str, Any]](dict)
        for record in records:
            name, values = ids[str(plain_id(record.id))], (record.payload or {}).get(metadata) or {}
            fields[name] = {field: values[field] for field in stored[name].found if field in values}
        return fields

    def owners(self, passage_ids: Sequence[str]) -> dict[str, Origin | None]:
        """The origins of the points that are there, with the vector that serves or without it."""
        ids = {point_id(passage_id): passage_id for passage_id in passage_ids}
        records = self.collection.gateway.retrieve(list(ids), with_payload=[ORIGIN])
        return {ids[str(plain_id(record.id))]: Origin.of_payload(record.payload) for record in records}

    def stored(self, passage_ids: Sequence[str]) -> dict[str, _Stored]:
        """What is stored of passages; nothing of those whose vector is missing, which are embedded again."""
        ids = {point_id(passage_id): passage_id for passage_id in passage_ids}
        gateway, fields = self.collection.gateway, ["content_hash", ORIGIN, FOUND]
        points = list(ids)
        records = []
        for start in range(0, len(points), self.reads):
            block = points[start : start + self.reads]
            for page in gateway.pages(batch_size=len(block), with_payload=fields, scroll_filter=self._served(block)):
                records.extend(page)
        return {
            ids[str(plain_id(record.id))]: _Stored(
                (record.payload or {}).get("content_hash"), Origin.of_payload(record.payload), found_in(record.payload)
            )
            for record in records
        }

    def _served(self, points: Sequence[str]) -> models.Filter:
        """Those of the points that have the vector that serves: after a promotion in place some may lack it, or have
        that of a former text, and other programs may delete it."""
        vector = self.collection.layout.vector
        served = made_of_its_text(vector) if self.asks_notes else models.HasVectorCondition(has_vector=vector)
        return models.Filter(must=[models.HasIdCondition(has_id=list(points)), served])

    def _rows(self, batch: Sequence[_Prepared]) -> Vectors:
        reader = window_encoder(self.encoder)
        return checked_unit_vectors(
            self.encoder.encode_passages([prepared.passage.text for prepared in batch])
            if reader is None
            else encode_in_windows(reader, [prepared.window for prepared in batch if prepared.window is not None]),
            dimension=self.collection.dimension,
            count=len(batch),
            what=f"passages encoded by {self.encoder.space!r}",
        )

    def point(self, prepared: _Prepared, row: Vectors) -> models.PointStruct:
        passage, lexical, name = prepared.passage, self.collection.lexical, self.collection.layout.vector
        # by its name, also by that of the unnamed one: beside a named vector ":memory:" takes it no other way
        vector: dict[str, Any] = {name: row.tolist()}
        if lexical is not None:
            vector[VECTOR] = lexical.passage(passage.text)
        return models.PointStruct(id=point_id(passage.id), vector=vector, payload=self.payload(prepared))

    def payload(self, prepared: _Prepared) -> dict[str, Any]:
        made_of = note(prepared.passage.text, [self.collection.layout.vector]) if self.notes else {}
        return _payload(prepared) | made_of


def vector_key(encoder: Encoder, passage: Passage) -> str:
    """What decides the vector of a passage: its text, and what it is read with if the encoder reads more than that."""
    return passage.text if window_encoder(encoder) is None else f"{passage.metadata.get(LATE_WINDOW)} {passage.text}"


def _payload(prepared: _Prepared) -> dict[str, Any]:
    passage = prepared.passage
    return {
        "passage_id": passage.id,
        "text": passage.text,
        "metadata": dict(passage.metadata),
        "content_hash": prepared.digest,
    } | ({} if (origin := _origin(prepared)) is None else {ORIGIN: origin.as_payload()})


def _id_of(info: models.CollectionInfo) -> str | None:
    return identity_in(metadata_in(info))


def _origin(prepared: _Prepared) -> Origin | None:
    passage = prepared.passage
    return passage.origin if isinstance(passage, SourcedPassage) else None


def _holding(prepared: _Prepared, digest: str | None) -> models.Filter:
    """The point of a passage, as long as it has this content."""
    there = models.HasIdCondition(has_id=[point_id(prepared.passage.id)])
    if digest is None:
        return models.Filter(must=[there])
    same = models.FieldCondition(key="content_hash", match=models.MatchValue(value=digest))
    return models.Filter(must=[there, same])


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


def store_embedded(
    collection: Collection,
    passages: Sequence[Passage],
    vectors: ArrayLike,
    encoder: Encoder,
    *,
    beside: Sequence[Mapping[str, Any]],
) -> None:
    """Store passages whose vectors (n, dimension) another program made with this encoder: nothing is encoded.

    `beside` holds further fields of each payload. What is there under the same ids is replaced.

    Raises:
        SpaceMismatchError, CollectionError, InputError, VectorError: as `index_passages` does; or an id belongs to a
            passage of a source.
    """
    check_target(collection, encoder)
    info = collection.gateway.info()
    refuse_custom_shards(info)
    indexes = payload_indexes(info, collection.layout)
    prepared = [_prepared(passage, indexes) for passage in passages]
    writer = _Writer(collection, encoder, "raise", None, False, None, *two_vectors(info), _id_of(info))
    writer.failed([item for item in prepared if isinstance(item, Failure)])
    rows = unit_rows(checked_vectors(vectors, dimension=collection.dimension, count=len(prepared), what="vectors"))
    done = 0
    for batch in _batches(prepared, BATCH):
        items = [item for item in batch if isinstance(item, _Prepared)]
        owners = writer.owners([each.passage.id for each in items])
        writer.failed([_taken(name, origin) for name, origin in owners.items() if origin is not None])
        points = [writer.point(each, row) for each, row in zip(items, rows[done:], strict=False)]
        for point, fields_beside in zip(points, beside[done:], strict=False):
            point.payload = {**(point.payload or {}), **fields_beside}
        collection.gateway.upsert(points)
        done += len(points)
    refuse_retired(collection, identity=writer.identity)
