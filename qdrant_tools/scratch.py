"""A collection and other index settings -> a copy of its vectors, indexed so, for as long as a measurement takes.

Guarantees: the copy is dropped with the context. For the embedded engine it lies in a temporary folder; on a server it
is a collection whose name begins with "embed-plus-scratch-", which a kill leaves there.
Does not know: what is measured.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory

from qdrant_client import QdrantClient, models

from qdrant_tools.connect import connect, engine_of
from qdrant_tools.copying import pages
from qdrant_tools.handle import Collection
from qdrant_tools.layout import OURS
from qdrant_tools.readiness import build_index
from qdrant_tools.settings import CollectionSettings
from qdrant_tools.translate import engine_errors

PREFIX = "embed-plus-scratch-"


@contextmanager
def scratch_copy(collection: Collection, settings: CollectionSettings) -> Iterator[Collection]:
    """Copy ids and dense vectors into a new collection with these settings, and build its index."""
    name = PREFIX + uuid.uuid4().hex[:12]
    with _place(collection.client) as client:
        try:
            copy = _filled(client, name, collection, replace(settings, lexical=None, payload_indexes={}))
            yield copy
        finally:
            with engine_errors(f"drop collection {name!r}"):
                client.delete_collection(name)


@contextmanager
def _place(client: QdrantClient) -> Iterator[QdrantClient]:
    if engine_of(client) == "server":
        yield client
        return
    with TemporaryDirectory(prefix="qdrant-tools-") as folder:
        beside = connect(folder)
        try:
            yield beside
        finally:
            beside.close()


def _filled(client: QdrantClient, name: str, source: Collection, settings: CollectionSettings) -> Collection:
    with engine_errors(f"create collection {name!r}"):
        client.create_collection(name, **settings.create_options(source.dimension))
    copy = Collection(client, name, source.space, source.dimension, settings.hnsw_ef, OURS, None, settings.quantization)
    for records in pages(
        source.client, source.name, batch_size=512, with_payload=False, with_vectors=source.vector_selector
    ):
        points = [models.PointStruct(id=r.id, vector=source.layout.dense(r.vector)) for r in records]
        with engine_errors(f"write to collection {name!r}"):
            client.upsert(name, points, wait=True)
    build_index(copy)
    return copy
