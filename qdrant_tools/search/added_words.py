"""A collection and BM25 -> the same collection with the words of that, nothing embedded again.

The engine adds an empty sparse vector to every point (Qdrant 1.18 and newer, and the engines here), and the words of
the stored texts are counted into it. Then one update of the metadata says that words can be searched. Where the words
are counted again, a first update says that there are none.

Guarantees: until the last update the collection has no words for anybody who opens it, and searches by vectors go on;
what is interrupted begins anew with the next call, so that all words are of one kind; points that were written
meanwhile get theirs too. Does not know: encoders, vectors of meaning.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from qdrant_client import models

from qdrant_tools.client.connect import refuse_read_only
from qdrant_tools.client.gateway import engine_errors, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import metadata_of
from qdrant_tools.errors import CollectionError, CollectionNotFoundError, InputError, NotSupportedError
from qdrant_tools.records import Progress
from qdrant_tools.search.bm25 import VECTOR, Bm25, average_length
from qdrant_tools.search.hybrid import takes_words, with_words_elsewhere

__all__ = ["add_lexical"]

MEASURED = 1000
"""Passages that say how long passages are."""
BATCH = 256
MISSING = models.Filter(must_not=[models.HasVectorCondition(has_vector=VECTOR)])


def add_lexical(
    collection: Collection,
    bm25: Bm25 | None = None,
    *,
    stemming: str | None = None,
    stop_words: str | None = None,
    k1: float | None = None,
    b: float | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Collection:
    """Let a collection be searched by words too; returns it as it is then.

    `bm25` says what a word is; without it that is said by `stemming` and `stop_words` (languages), `k1` and `b`, and
    the average length is that of the first passages. `again`: words that are there are counted anew, and what is not
    said stays as it was for them; until that is done nobody can search by words. `progress` receives the points of each
    batch once they are stored. Nobody should index meanwhile with a collection that was opened before.

    Raises:
        CollectionError: it has words already, and `again` is not said; or it has the layout of another program.
        InputError: a language without stems or stop words, k1 or b out of their range, or `bm25` beside one of them.
        NotSupportedError: a server older than 1.18.
        LocationError: the folder is only read, or its disk is full.
    """
    refuse_read_only(collection.client)
    current = CollectionManager(collection.client).open(collection.name, collection.encoder)
    all_said: dict[str, Any] = {"stemming": stemming, "stop_words": stop_words, "k1": k1, "b": b}
    said = {name: value for name, value in all_said.items() if value is not None}
    if bm25 is not None and said:
        raise InputError(f"the words were given as {bm25}, and {', '.join(said)} beside it: say them once")
    if current.lexical is not None and not again:
        raise CollectionError(f"collection {current.name!r} has words already, {_told(current.lexical)}").with_way_out(
            python="search it with search_hybrid or search_lexical, or count the words anew with again=True",
            command=f"search {shlex.quote(current.name)} 'your question' --mode hybrid searches by them, and "
            "`collection add-lexical` with --again counts them anew",
        )
    if not takes_words(current):
        problem = (
            f"no words can be added to collection {current.name!r}, which has the layout of {current.layout.name!r}"
        )
        raise with_words_elsewhere(CollectionError(problem), current)
    if bm25 is None:
        usual = current.lexical or current.metadata.words_due or Bm25()
        bm25 = replace(usual, **said, stemmed_by=None, average_length=_average_length(current))
    if current.lexical is not None:
        # nobody should search words that are half those of before
        current.gateway.update(metadata=replace(current.metadata, lexical=None, words_due=bm25).for_qdrant())
    _add_vector(current)
    _fill(current, bm25, progress)
    # read again: a search may have been chosen meanwhile
    metadata = replace(metadata_of(current.gateway.info()) or current.metadata, lexical=bm25, words_due=None)
    current.gateway.update(metadata=metadata.for_qdrant())
    _fill(current, bm25, None)
    return replace(current, metadata=metadata)


def _told(bm25: Bm25) -> str:
    return f"with k1 {bm25.k1:g} and b {bm25.b:g}"


def _average_length(collection: Collection) -> float:
    records = chain.from_iterable(collection.gateway.pages(batch_size=MEASURED))
    texts = [_text(collection, record) for record in islice(records, MEASURED)]
    return average_length(texts) if any(text.strip() for text in texts) else Bm25.average_length


def _text(collection: Collection, record: models.Record) -> str:
    return collection.layout.passage(record.payload, point_id=plain_id(record.id)).text


def _add_vector(collection: Collection) -> None:
    """Add the empty vector; one that is there is what an interrupted call has left."""
    name, client = collection.name, collection.client
    config = models.SparseVectorNameConfig(sparse=models.SparseVectorConfig(modifier=models.Modifier.IDF))
    try:
        with engine_errors(f"add words to collection {name!r}"):
            if VECTOR in (collection.gateway.info().config.params.sparse_vectors or {}):
                client.delete_vector_name(name, VECTOR, wait=True)
            client.create_vector_name(name, VECTOR, config, wait=True)
    except CollectionNotFoundError as error:  # an older server knows no such request
        raise NotSupportedError(
            f"this server cannot add words to collection {name!r} (Qdrant 1.18 and newer can)"
        ).with_way_out(
            python="index into a new collection with CollectionSettings(lexical=Bm25())",
            command=f"index {shlex.quote(name)}-words SOURCE --lexical",
        ) from error


def _fill(collection: Collection, bm25: Bm25, progress: Progress | None) -> None:
    # filling while reading pages skips nothing: the next page begins at an id
    for records in collection.gateway.pages(batch_size=BATCH, scroll_filter=MISSING):
        vectors = [
            models.PointVectors(id=plain_id(record.id), vector={VECTOR: bm25.passage(_text(collection, record))})
            for record in records
        ]
        ids = models.HasIdCondition(has_id=[vector.id for vector in vectors])
        collection.gateway.update_vectors(vectors, update_filter=models.Filter(must=[ids]))
        if progress is not None:
            progress(len(records))
