"""A collection and a new encoder -> the same collection with that encoder's vectors beside the old ones.

The engine adds an empty vector under a new name to every point (Qdrant 1.18 and newer, and the engines here), and the
stored texts are embedded into it. Then one update of the metadata says which name serves. A point that was written
meanwhile lacks the new vector, or has one of its former text: both are found by a note in its payload (`made_of`).

Guarantees: the old vectors serve untouched until the switch, and until `drop_vector` there is a way back. A vector is
stored only if its point still has the text it was made of; the engine checks that in the same operation. What is
interrupted goes on with the points that lack a vector. Does not know: aliases.

Limit: a text that is changed after `verify` by a program that leaves the rest of the payload as it is, as one does
that reads a payload and writes it back, keeps the vector of its former text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import compress

from qdrant_client import models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import engine_errors, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import metadata_of
from qdrant_tools.collections.settings import dense_params
from qdrant_tools.errors import CollectionError, CollectionNotFoundError, EngineError, InputError, NotSupportedError
from qdrant_tools.promotion.made_of import made_of_its_text, note, says_another_text
from qdrant_tools.promotion.plan import vector_name
from qdrant_tools.promotion.sync import SyncReport, embed_records
from qdrant_tools.records import Encoder, Progress
from qdrant_tools.search.adapters import adapter_of

PASSES = 10
"""Passes after which filling stops although writes go on: the switch does the rest."""


def with_vector_of(collection: Collection, encoder: Encoder) -> Collection:
    """The collection as it will be once this encoder's vectors serve."""
    metadata = replace(
        collection.metadata,
        space=encoder.space,
        dimension=encoder.dimension,
        layout=replace(collection.layout, vector=vector_name(encoder.space)),
        adapter=adapter_of(encoder),
    )
    return replace(collection, metadata=metadata, encoder=encoder)


def has_vector(collection: Collection) -> bool:
    """Whether there is a vector of the name that the collection's layout says."""
    vectors = collection.gateway.info().config.params.vectors
    names = list(vectors) if isinstance(vectors, dict) else [""]
    return collection.layout.vector in names


def add_vector(source: Collection, target: Collection) -> None:
    """Add the vector of `target` to the collection, compared and kept as that of `source`; nothing if it is there.

    Raises:
        NotSupportedError: a server older than 1.18.
    """
    if has_vector(target):
        return
    params = dense_params(source.gateway.info(), source.layout.vector)
    if params is None:
        raise CollectionError(f"collection {source.name!r} has no vector {source.layout.vector!r}")
    datatype = None if params.datatype is None else models.VectorStorageDatatype(params.datatype.value)
    dense = models.DenseVectorConfig(size=target.dimension, distance=params.distance, datatype=datatype)
    name, vector, client = source.name, target.layout.vector, source.client
    try:
        with engine_errors(f"add vector {vector!r} to collection {name!r}"):
            client.create_vector_name(name, vector, models.DenseVectorNameConfig(dense=dense), wait=True)
    except CollectionNotFoundError as error:  # an older server knows no such request
        raise NotSupportedError(
            f"this server cannot add a vector to collection {name!r} (Qdrant 1.18 and newer can): promote into a new "
            "collection instead"
        ) from error
    # the request that adds a vector takes none of these, so a second one sets them
    diff = models.VectorParamsDiff(
        hnsw_config=params.hnsw_config, quantization_config=params.quantization_config, on_disk=params.on_disk
    )
    if diff.model_dump(exclude_none=True):
        source.gateway.update(vectors_config={vector: diff})


def drop_vector(collection: Collection) -> bool:
    """Remove the vector that the collection's layout names, from every point; whether it was there.

    A server has no way to remove the vector without a name over HTTP: there it is deleted from every point, and an
    empty place in the configuration stays.
    """
    if not has_vector(collection):
        return False
    if not collection.layout.vector and engine_of(collection.client) == "server":
        return _delete_unnamed(collection)
    with engine_errors(f"remove vector {collection.layout.vector!r} from collection {collection.name!r}"):
        collection.client.delete_vector_name(collection.name, collection.layout.vector, wait=True)
    return True


def _delete_unnamed(collection: Collection) -> bool:
    holding = models.Filter(must=[models.HasVectorCondition(has_vector="")])
    if not collection.gateway.count(holding):
        return False
    collection.gateway.delete_vectors([""], holding)
    return True


def count_missing(collection: Collection) -> int:
    """How many points lack the vector that the collection's layout names, or have one of another text."""
    return collection.gateway.count(_missing(collection))


def changed_texts(collection: Collection, *, batch_size: int = 256) -> Iterator[list[models.Record]]:
    """The points whose text is not the one that their note speaks of, page by page: reads the whole collection."""
    for records in collection.gateway.pages(batch_size=batch_size):
        changed = [record for record in records if says_another_text(record.payload, collection.layout)]
        if changed:
            yield changed


def fill(
    target: Collection,
    encoder: Encoder,
    *,
    batch_size: int = 256,
    progress: Progress | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> SyncReport:
    """Embed the texts of the points that lack the vector, in passes until none is left or `PASSES` were made.

    `progress` receives the points of each page once they are stored; `heartbeat` is called for every page.

    Raises:
        SpaceMismatchError: the target is of another space than the encoder.
        CollectionError: a point has no text to embed; the message names it.
    """
    target.check(encoder)
    vectors = [target.layout.vector, _serving_vector(target)]
    before = missing = count_missing(target)
    for _ in range(PASSES):
        if not missing:
            break
        # filling while reading pages skips nothing: the next page begins at an id
        for records in target.gateway.pages(batch_size=batch_size, scroll_filter=_missing(target)):
            heartbeat()
            _store(target, records, embed_records(target, records, encoder).tolist(), vectors)
            if progress is not None:
                progress(len(records))
        missing = count_missing(target)
    # counted by what is left, not by what was sent: the engine skips a vector whose text has changed
    return SyncReport(written=before - missing)


def fill_changed(target: Collection, encoder: Encoder, *, batch_size: int = 256) -> SyncReport:
    """Embed the texts again that were changed by programs that left the note of another text in the payload."""
    vectors, written = [target.layout.vector, _serving_vector(target)], 0
    for records in changed_texts(target, batch_size=batch_size):
        _store(target, records, embed_records(target, records, encoder).tolist(), vectors)
        written += len(records)
    return SyncReport(written=written)


def _serving_vector(collection: Collection) -> str:
    """The name of the vector that serves now, whatever the handle says."""
    metadata = metadata_of(collection.gateway.info())
    return collection.layout.vector if metadata is None else metadata.layout.vector


def _store(
    target: Collection, records: Sequence[models.Record], rows: Sequence[list[float]], noted: Sequence[str]
) -> None:
    if not records:
        return
    ids = [plain_id(record.id) for record in records]
    vectors = [
        models.PointVectors(id=point_id, vector={target.layout.vector: row})
        for point_id, row in zip(ids, rows, strict=True)
    ]
    unchanged = [_unchanged(target, record) for record in records]
    try:
        target.gateway.update_vectors(vectors, update_filter=models.Filter(should=[*unchanged]))
    except (InputError, EngineError, CollectionNotFoundError):
        # The engine refuses the whole batch for one point that was deleted meanwhile: write the others again.
        stored = {plain_id(record.id) for record in target.gateway.retrieve(ids, with_payload=False)}
        present = [point_id in stored for point_id in ids]
        if all(present):
            raise
        # this ends: every call has at least one point fewer
        _store(target, list(compress(records, present)), list(compress(rows, present)), noted)
        return
    # after the vectors: a note is never there before what it speaks of
    texts = (target.layout.passage(record.payload, point_id=plain_id(record.id)).text for record in records)
    target.gateway.set_payloads(
        [models.SetPayload(payload=note(text, noted), filter=same) for text, same in zip(texts, unchanged, strict=True)]
    )


def _unchanged(target: Collection, record: models.Record) -> models.Filter:
    """This point, if it still holds what was embedded. Our own passages say it by a hash, others by the text itself."""
    payload = record.payload or {}
    key = "content_hash" if "content_hash" in payload else target.layout.text
    same = models.FieldCondition(key=key, match=models.MatchValue(value=payload[key]))
    return models.Filter(must=[models.HasIdCondition(has_id=[plain_id(record.id)]), same])


def _missing(collection: Collection) -> models.Filter:
    return models.Filter(must_not=[made_of_its_text(collection.layout.vector)])
