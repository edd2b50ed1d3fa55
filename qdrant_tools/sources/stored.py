"""A source, a document or a file -> the stored passages of it, to be looked at or deleted.

Guarantees: a passage belongs where its origin says, and only without one where its metadata says. A collection of
another program is looked at and never written. Does not know: how passages came into the collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from qdrant_client import models

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import LLAMA_INDEX, OURS
from qdrant_tools.collections.points import StoredPassage, fetch
from qdrant_tools.collections.retirement import refuse_retired
from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.fields import payload_path
from qdrant_tools.records import Hit
from qdrant_tools.sources.origin import ORIGIN, Origin, SourcedHit
from qdrant_tools.validation import brief

PAGE = 500
_METADATA = {"source": "source", "document": "document", "file": "file_path"}
"""What an origin says -> the metadata field that says it where there is no origin."""


def stored_passages(
    collection: Collection, *, source: str | None = None, document: str | None = None, file: str | None = None
) -> Iterator[tuple[StoredPassage, Origin | None]]:
    """The passages of a source, a document or a file, or all of them, with where they come from."""
    layout = collection.layout
    chosen = _filter(collection, source=source, document=document, file=file)
    for records in collection.gateway.pages(batch_size=PAGE, scroll_filter=chosen):
        for record in records:
            passage = layout.passage(record.payload, point_id=plain_id(record.id))
            stored = StoredPassage(passage.id, passage.text, passage.metadata, plain_id(record.id))
            yield stored, Origin.of_payload(record.payload) if _is_ours(collection) else None


def with_origins(collection: Collection, hits: Sequence[Hit]) -> list[Hit]:
    """The hits, as `SourcedHit` those whose passage has an origin: a row's metadata do not name its file."""
    records = collection.gateway.retrieve([hit.point_id for hit in hits], with_payload=[ORIGIN]) if hits else []
    origins = {plain_id(record.id): Origin.of_payload(record.payload) for record in records}
    placed: list[Hit] = []
    for hit in hits:
        origin = origins.get(hit.point_id) if _is_ours(collection) else None
        values = {field.name: getattr(hit, field.name) for field in fields(Hit)}
        placed.append(hit if origin is None else SourcedHit(**values, origin=origin))
    return placed


def count_passages(
    collection: Collection, *, source: str | None = None, document: str | None = None, file: str | None = None
) -> int:
    """How many passages `stored_passages` would give."""
    return collection.gateway.count(_filter(collection, source=source, document=document, file=file))


def delete_passages(
    collection: Collection, *, source: str | None = None, document: str | None = None, file: str | None = None
) -> int:
    """Delete the passages of a source, a document or a file; how many.

    Raises:
        CollectionError: the collection is another program's, or another one takes its place just now.
        InputError: none of the three is given.
    """
    _require_ours(collection)
    chosen = _filter(collection, source=source, document=document, file=file)
    if chosen is None:
        raise InputError("no source, document or file: say which passages to delete; drop the collection to delete all")
    deleted = 0
    # deleting while reading pages skips nothing: the next page begins at an id
    for records in collection.gateway.pages(batch_size=PAGE, with_payload=False, scroll_filter=chosen):
        collection.gateway.delete([plain_id(record.id) for record in records])
        deleted += len(records)
    refuse_retired(collection)
    return deleted


def delete_ids(collection: Collection, passage_ids: Sequence[str]) -> int:
    """Delete passages by their ids, all or none; how many.

    Raises:
        CollectionError: as `delete_passages`.
        InputError: one of the ids is not in the collection.
    """
    _require_ours(collection)
    found = fetch(collection, passage_ids, with_text=False)
    for passage_id in passage_ids:
        if passage_id not in found:
            raise InputError(f"passage {brief(passage_id)} is not in {collection.name!r}: nothing was deleted")
    points = {found[passage_id].point_id for passage_id in passage_ids}
    if points:
        collection.gateway.delete(list(points))
        refuse_retired(collection)
    return len(points)


def _is_ours(collection: Collection) -> bool:
    return collection.layout.name == OURS.name


def _require_ours(collection: Collection) -> None:
    if not _is_ours(collection):
        raise CollectionError(
            f"collection {collection.name!r} has the layout of {collection.layout.name!r}: delete its passages with "
            "the program that made it"
        )


def _filter(
    collection: Collection, *, source: str | None, document: str | None, file: str | None
) -> models.Filter | None:
    given = {"source": source, "document": document, "file": file}
    must: list[models.Condition] = [
        _says(collection, name, value) for name, value in given.items() if value is not None
    ]
    return models.Filter(must=must) if must else None


def _says(collection: Collection, name: str, value: str) -> models.Filter:
    match = models.MatchValue(value=value)
    in_metadata = models.FieldCondition(key=collection.layout.metadata_field(_METADATA[name]), match=match)
    if _is_ours(collection):
        no_origin = models.IsEmptyCondition(is_empty=models.PayloadField(key=f"{ORIGIN}.source"))
        return models.Filter(
            should=[
                models.FieldCondition(key=f"{ORIGIN}.{name}", match=match),
                models.Filter(must=[no_origin, in_metadata]),
            ]
        )
    if name == "document" and collection.layout.name == LLAMA_INDEX.name:
        of_node = models.FieldCondition(key=payload_path(["ref_doc_id"]), match=match)
        return models.Filter(should=[of_node, in_metadata])
    return models.Filter(must=[in_metadata])
