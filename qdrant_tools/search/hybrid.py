"""Queries -> hits by their words (BM25), or by words and vectors together.

Needs a collection made with `CollectionSettings(lexical=Bm25(...))`. Guarantees: as in `search.dense`, typed hits, best
first, equal scores in the order of the ids. Does not know: how the engine fuses rankings.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from qdrant_client import models

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import OURS
from qdrant_tools.errors import NotSupportedError, PlusError
from qdrant_tools.fields import Field
from qdrant_tools.records import Encoder, Hit, Vectors
from qdrant_tools.search.bm25 import VECTOR, Bm25
from qdrant_tools.search.dense import checked_queries, encoded, run_requests
from qdrant_tools.search.fusion import USUAL, Fusion
from qdrant_tools.search.options import PlainFilter, SearchOptions, as_filter

logger = logging.getLogger(__name__)


def search_lexical(
    collection: Collection,
    queries: Sequence[str],
    *,
    k: int = 10,
    filter: PlainFilter | models.Filter | None = None,
    fields: Sequence[Field] | None = None,
    text: bool = True,
) -> list[list[Hit]]:
    """Find the k passages of each query that share the most telling words with it; others are no hits at all.

    Scores are BM25 scores: not comparable between queries. No encoder is needed. `fields` and `text` say what the hits
    carry, as in `SearchOptions`.

    Raises:
        NotSupportedError: the collection has no lexical vectors.
        InputError: a query that is empty or not a string, k below 1.
    """
    bm25 = lexical_of(collection)
    options = SearchOptions(k=k, fields=fields, text=text)
    template = models.QueryRequest(
        using=VECTOR,
        filter=as_filter(filter, collection=collection),
        limit=k,
        with_payload=options.payload(collection),
    )
    texts = checked_queries(queries)
    return run_requests(collection, (template.model_copy(update={"query": bm25.query(query)}) for query in texts))


def search_hybrid(
    collection: Collection,
    queries: Sequence[str],
    encoder: Encoder,
    *,
    k: int = 10,
    fusion: Fusion | None = None,
    filter: PlainFilter | models.Filter | None = None,
    fields: Sequence[Field] | None = None,
    text: bool = True,
) -> list[list[Hit]]:
    """Find the k best passages by the dense and the lexical ranking together. Scores are those of the fusion.

    `fusion` None: the one that the collection keeps, or else `USUAL`. `fields` and `text` say what the hits carry, as
    in `SearchOptions`.

    Raises:
        NotSupportedError: the collection has no lexical vectors.
        SpaceMismatchError, InputError: as in `search_batch`.
    """
    bm25 = lexical_of(collection)
    # here and not only in `encoded`: a wrong encoder is refused without queries too
    collection.check(encoder)
    payload = SearchOptions(k=k, fields=fields, text=text).payload(collection)
    fusion = fusion or collection.fusion or USUAL
    texts = checked_queries(queries)
    if not texts:
        return []
    vectors = encoded(collection, texts, encoder)
    condition = as_filter(filter, collection=collection)
    depth = max(fusion.depth, k)

    def request(query: str, row: Vectors) -> models.QueryRequest:
        dense = models.Prefetch(
            query=row.tolist(),
            using=collection.layout.vector or None,
            filter=condition,
            limit=depth,
            params=collection.search_params(),
        )
        lexical = models.Prefetch(query=bm25.query(query), using=VECTOR, filter=condition, limit=depth)
        return models.QueryRequest(prefetch=[dense, lexical], query=_query(fusion), limit=k, with_payload=payload)

    return run_requests(collection, map(request, texts, vectors))


def lexical_of(collection: Collection) -> Bm25:
    """The collection's BM25. If its words are not those of this version, that is logged, once.

    Raises:
        NotSupportedError: it was made without.
    """
    if collection.lexical is None:
        error = NotSupportedError(f"collection {collection.name!r} has no lexical vectors")
        if not takes_words(collection):
            raise with_words_elsewhere(error, collection)
        raise error.with_way_out(
            python="add them with Collection.add_lexical(), which embeds nothing again",
            command=f"collection add-lexical {shlex.quote(collection.name)} adds them, embedding nothing again",
        )
    say_caution(collection.name, collection.lexical)
    return collection.lexical


def takes_words(collection: Collection) -> bool:
    """Whether words can be added in place: not to a collection that another program writes."""
    return replace(collection.layout, vector="") == OURS


def with_words_elsewhere(error: PlusError, collection: Collection) -> PlusError:
    """The error, with what leads to words for a collection of another program: its texts in one of ours."""
    name = shlex.quote(collection.name)
    file = shlex.quote(f"{collection.name}.jsonl")
    read = f"passages list {name} -k {max(1, collection.gateway.count())} --json > {file}"
    return error.with_way_out(
        python="another program lays out its points, so index its texts into a new collection that has "
        "CollectionSettings(lexical=Bm25()); nodes of LlamaIndex bring their vectors, new_store.add(store.get_nodes())",
        command=f"{read}, then embed-plus index NEW {file} --whole --lexical, make a collection of its texts",
    )


def say_caution(name: str, lexical: Bm25) -> None:
    """Log, once, if the words of a collection are not those of this version."""
    if (caution := lexical.caution) is not None:
        _warn_once(f"collection {name!r} {caution}")


@lru_cache(maxsize=1000)
def _warn_once(caution: str) -> None:
    logger.warning(caution)


def _query(fusion: Fusion) -> models.RrfQuery | models.FusionQuery:
    if fusion.method == "dbsf":
        return models.FusionQuery(fusion=models.Fusion.DBSF)
    # The engine adds 1 / (k - 1 + rank / weight), ranks from 1.
    rrf = models.Rrf(k=fusion.rank_constant + 1, weights=[fusion.dense_weight, fusion.lexical_weight])
    return models.RrfQuery(rrf=rrf)
