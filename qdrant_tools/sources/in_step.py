"""The documents of a source -> the collection holds their passages, and no others of these documents.

A source is what is indexed together under one name: a folder, say. Its documents come as a stream. Once all of them are
stored, what the collection still has of them and they have no more is removed: the tail of a document that became
shorter, the passages that an edit replaced, and what versions without sources had stored of the same files. What the
collection has of documents that did not come is removed on request, and counted otherwise.

Guarantees: nothing is removed before everything that came is stored: a run that is killed loses nothing, and the next
one goes on and removes the rest. Only passages that came by this source are removed, and never those of a file that
could not be read this time. One name stands for one place: another folder under a name that is taken is refused. Memory
holds one batch. Does not know: files, encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qdrant_client import models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import metadata_in, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import point_id
from qdrant_tools.collections.retirement import refuse_retired
from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.indexing import IndexReport, OnBad, check_target, store_passages
from qdrant_tools.records import Encoder, Passage, Progress
from qdrant_tools.sources.given import Given, documents_given, passage_of
from qdrant_tools.sources.origin import (
    FILES_AT_ONCE,
    INDEXED,
    ORIGIN,
    Origin,
    SourceDocument,
    SourcedPassage,
    of_earlier_versions,
    of_source,
)
from qdrant_tools.sources.seen import SeenPoints, seen_points
from qdrant_tools.validation import brief, checked_count, is_unicode

REMEMBERED = "embed_plus_source:"
"""The key of a collection's metadata under which a source is remembered, followed by the source's name. A key of its
own for each: metadata is merged by key, so that two runs at once do not undo each other."""
LONGEST_NAME = 200
PAGE = 1000
"""Points that are looked at together when what is no longer there is looked for."""


@dataclass(frozen=True)
class SourceReport:
    """What became of a source. What was removed is no part of `passages.deleted` but counted here."""

    passages: IndexReport = field(default_factory=IndexReport)
    documents: int = 0
    replaced: int = 0
    """Passages that were removed because their document, or its file, has them no more."""
    gone: int = 0
    """Passages that were removed because their document did not come."""
    left: int = 0
    """Passages of documents that did not come, which are still there: without `delete_missing`."""
    kept: int = 0
    """Passages of documents that could not be read this time, which are still there."""

    @property
    def removed(self) -> int:
        return self.replaced + self.gone


@dataclass(frozen=True)
class Remembered:
    """What a collection remembers of a source."""

    place: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the last whole run was made with."""


def sync(
    collection: Collection,
    documents: Iterable[SourceDocument | Given],
    encoder: Encoder,
    *,
    source: str,
    place: str = "",
    moved: bool = False,
    settings: Mapping[str, Any] | None = None,
    delete_missing: bool = False,
    unread: Callable[[str], bool] = lambda file: False,
    whole: Callable[[str], bool] = lambda file: False,
    within: Callable[[str], bool] | Iterable[str] | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
    on_bad: OnBad = "raise",
    dry_run: bool = False,
    skip_duplicates: float | None = None,
) -> SourceReport:
    """Store the documents of a source, and remove what the collection has of them and they have no more.

    documents: with all their passages. What `Collection.index` takes is a document too: one longer than the encoder
        reads is cut, and nodes of LlamaIndex are parts of the document they were made of.
    source: its name. Ids of passages should begin with it: a passage whose id belongs to another source is bad.
    place: where it lies, such as the path of a folder; the collection remembers it.
    moved: the source is the one that is known by its name, and lies elsewhere now.
    settings: what its passages were made with; remembered when the run is over.
    delete_missing: also remove what the source has in the collection of documents that did not come.
    unread: whether a file is there and could not be read so far; "" is asked for documents without a file.
    whole: whether all of a file came; asked at the end. Others of its documents that are named after it (`source/file`,
        `source/file#...`) are removed in any case, as the tail of a document is.
    within: the run is about these files of the source only: their names, or whether a file is one of them.
    dry_run: count what would be done; nothing is encoded, written or removed.
    skip_duplicates: as in `index_passages`. Of its own source only what came in the same run is a near-duplicate,
        because what it had before may be about to go.

    Raises:
        CollectionError: the name is that of another place; or as `index_passages` says.
        InputError: a name that is none; nothing came, and `delete_missing` without `within`; or as there.
    """
    check_target(collection, encoder)
    checked_count("batch_size", batch_size)
    check_name(source)
    known = remembered(collection).get(source)
    if known is not None and place and known.place not in ("", place) and not moved:
        _refuse_place(collection, source, known.place, place)
    if not dry_run:
        prepare(collection)
        if known is None or (place and known.place != place):
            _remember(collection, source, Remembered(place, {} if known is None else known.settings))
    with seen_points() as seen, seen_points() as done, seen_points() as cut:
        run = _Run(collection, source, seen, done, cut)
        report = store_passages(
            collection,
            run.passages(documents_given(documents, encoder), unread),
            encoder,
            batch_size=batch_size,
            progress=progress,
            on_bad=on_bad,
            seen=seen,
            dry_run=dry_run,
            skip_duplicates=skip_duplicates,
        )
        if delete_missing and within is None and not run.documents:
            raise InputError(
                f"source {source!r} has no documents, and all its passages would be removed: if that is meant, "
                "delete them by its name"
            )
        result = run.removed(delete_missing, unread, whole, within, dry_run=dry_run)
    if not dry_run:
        if result.removed:
            refuse_retired(collection)
        if within is None and settings is not None:
            _remember(collection, source, Remembered(place or (known.place if known else ""), settings))
    return SourceReport(report, run.documents, result.replaced, result.gone, result.left, result.kept)


def check_name(source: str) -> None:
    """Raise `InputError` for a name that cannot stand at the beginning of an id."""
    if not isinstance(source, str) or not source.strip() or not is_unicode(source):
        raise InputError(f"source is {brief(source)}, expected a name")
    if len(source) > LONGEST_NAME or any(sign in source for sign in "/\\#") or not source.isprintable():
        raise InputError(
            f"source is {brief(source)}, expected a name of at most {LONGEST_NAME} characters without / \\ and #: "
            "it stands in front of the paths of its files"
        )


def remembered(collection: Collection) -> dict[str, Remembered]:
    """The sources of a collection by their names."""
    found = {}
    for key, row in metadata_in(collection.gateway.info()).items():
        if key.startswith(REMEMBERED) and isinstance(row, Mapping):
            place, settings = row.get("place"), row.get("settings")
            found[key.removeprefix(REMEMBERED)] = Remembered(
                place if isinstance(place, str) else "", settings if isinstance(settings, Mapping) else {}
            )
    return found


def prepare(collection: Collection) -> None:
    """Have the engine index what is asked for here, if it has indexes."""
    if engine_of(collection.client) == "memory":
        return
    present = collection.gateway.info().payload_schema or {}
    for path in INDEXED:
        if path not in present:
            collection.gateway.index_payload(path, models.PayloadSchemaType.KEYWORD)


def _remember(collection: Collection, source: str, what: Remembered) -> None:
    row = {"place": what.place, "settings": dict(what.settings)}
    collection.gateway.update(metadata={f"{REMEMBERED}{source}": row})


def _refuse_place(collection: Collection, source: str, known: str, place: str) -> None:
    # a run that was refused or killed before anything was stored takes no name
    if collection.gateway.count(of_source(source)):
        raise CollectionError(
            f"source {source!r} of collection {collection.name!r} lies in {known}, and this is {place}: give this one "
            "a name of its own (--source NAME), or say that the source has moved here (--moved)"
        )


@dataclass
class _Run:
    """One run over the documents of a source: what came, and what is to go."""

    collection: Collection
    source: str
    seen: SeenPoints
    """The points of the passages that came."""
    done: SeenPoints
    """The documents that came, each by the point that its id would have."""
    cut: SeenPoints
    """Those of them whose passages have ids of their own."""
    documents: int = 0
    """Those that have a passage."""

    def passages(self, documents: Iterable[SourceDocument], unread: Callable[[str], bool]) -> Iterator[Passage]:
        for document in documents:
            origin, before = Origin(self.source, document.id, document.file), unread(document.file)
            first = True
            for given in document.passages:
                try:
                    passage = passage_of(given)
                except InputError:
                    yield given  # for its own error
                    continue
                if first and isinstance(passage.id, str) and passage.id.startswith(f"{document.id}#"):
                    self.cut.add([point_id(document.id)])
                self.documents += first
                first = False
                yield SourcedPassage(passage.id, passage.text, passage.metadata, origin)
            # not one that ended too early: its file became unread while it was read
            if before or not unread(document.file):
                self.done.add([point_id(document.id)])

    def removed(
        self,
        delete_missing: bool,
        unread: Callable[[str], bool],
        whole: Callable[[str], bool],
        within: Callable[[str], bool] | Iterable[str] | None,
        *,
        dry_run: bool,
    ) -> SourceReport:
        """Remove what is no longer there; the counts of that."""
        replaced = gone = left = kept = 0
        for records in self._candidates(within):
            doomed: list[str | int] = []
            for record in records:
                point = plain_id(record.id)
                origin = Origin.of_payload(record.payload) or self._of_earlier_versions(point, record.payload or {})
                if origin is None or origin.source != self.source or point in self.seen:
                    continue
                if point_id(origin.document) in self.done:
                    replaced += 1
                elif callable(within) and not within(origin.file):
                    continue
                elif unread(origin.file):
                    kept += 1
                    continue
                elif origin.is_of_its_file and whole(origin.file):
                    replaced += 1
                elif not delete_missing:
                    left += 1
                    continue
                else:
                    gone += 1
                doomed.append(point)
            if doomed and not dry_run:
                self.collection.gateway.delete(doomed)
        return SourceReport(replaced=replaced, gone=gone, left=left, kept=kept)

    def _candidates(self, within: Callable[[str], bool] | Iterable[str] | None) -> Iterator[list[models.Record]]:
        pages = self.collection.gateway.pages
        if within is None or callable(within):
            yield from pages(batch_size=PAGE, with_payload=[ORIGIN], scroll_filter=of_source(self.source))
        else:
            files = list(within)
            for start in range(0, len(files), FILES_AT_ONCE):
                some = of_source(self.source, files[start : start + FILES_AT_ONCE])
                yield from pages(batch_size=PAGE, with_payload=[ORIGIN], scroll_filter=some)
        # a document that fitted into one passage had its id, and an earlier version gave it no origin
        for points in self.cut.pages(PAGE):
            yield self.collection.gateway.retrieve(points, with_payload=["passage_id", ORIGIN])
        fields = ["passage_id", "metadata.source", "metadata.part"]
        yield from pages(batch_size=PAGE, with_payload=fields, scroll_filter=of_earlier_versions())

    def _of_earlier_versions(self, point: str | int, payload: Mapping[str, Any]) -> Origin | None:
        """The origin of what a version without sources stored, if its document came now. Parts were `path#number`."""
        if point in self.cut:
            return Origin(self.source, str(payload.get("passage_id")))
        metadata = payload.get("metadata")
        if not isinstance(metadata, Mapping):
            return None
        path, part = metadata.get("source"), metadata.get("part")
        document = f"{self.source}/{path}"
        is_part = payload.get("passage_id") == f"{path}#{part}" and type(part) is int
        return Origin(self.source, document, str(path)) if is_part and point_id(document) in self.done else None
