"""Vectors that LlamaIndex brings to a collection -> vectors of the collection's space, or an error.

An index gives a store vectors, and does not say which model made them. What `PlusEmbedding` made in this process is
known (`serving.provenance`), and costs nothing to check. Of other vectors of nodes some are compared with the
encoder's own for their texts, and the vector of a query with the encoder's own for the query.

Guarantees: vectors of another model are refused, also those that have the right dimension; where the encoder maps
queries by an adapter, a vector of its base is mapped. Does not know: engines, nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.serving.provenance import Maker, makers_of, remember
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError, NotSupportedError, SpaceMismatchError, VectorError
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.search.adapters import adapter_of, without_adapter
from qdrant_tools.sources.windows import window_encoder
from qdrant_tools.validation import brief, checked_vectors, unit_rows

logger = logging.getLogger(__name__)

SAMPLES = 4
"""Nodes of a call whose vectors are compared, if nothing is known of them; the longest is among them."""
SIMILARITY = 0.99
"""Cosine at least; the builds of a model agree to 0.997."""


@dataclass(frozen=True)
class GivenQuery:
    """An encoder that has encoded one query already: (1, dimension)."""

    space: str
    row: Vectors

    @property
    def dimension(self) -> int:
        return int(self.row.shape[1])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return np.repeat(self.row, len(texts), axis=0)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        raise NotSupportedError("a query that is given as a vector encodes no passages")


def check_passages(collection: Collection, ids: Sequence[str], texts: Sequence[str], vectors: Vectors) -> None:
    """Refuse vectors (n, dimension) that are not those of the texts in the collection's space.

    Raises:
        SpaceMismatchError: another model made them, or another text.
        NotSupportedError: the encoder reads texts within their documents.
    """
    encoder = collection.required_encoder()
    if window_encoder(encoder) is not None:
        raise NotSupportedError(
            f"collection {collection.name!r} has late chunking, whose vectors nodes alone do not have: index documents "
            "with collection.index(), or write nodes to a collection without it"
        )
    unknown = [index for index, row in enumerate(vectors.tolist()) if not _known(collection, row)]
    chosen = _sample(unknown, texts)
    if not chosen:
        return
    own = encoder.encode_passages([texts[index] for index in chosen])
    cosines = (unit_rows(vectors[chosen]) * own).sum(axis=1)
    worst = int(np.argmin(cosines))
    if cosines[worst] < SIMILARITY:
        raise SpaceMismatchError(
            f"node {brief(ids[chosen[worst]])}: its vector is not what {collection.space!r}, the encoder of collection "
            f"{collection.name!r}, makes of its text (cosine {cosines[worst]:.3f}, expected {SIMILARITY}): embed nodes "
            "with the embedding that the collection was opened with, or give this one a collection of its own"
        )


def query_vector(collection: Collection, vector: Sequence[float] | None, text: str | None) -> Vectors:
    """The vector (1, dimension) to search with, for a query's vector, its text, or both.

    Raises:
        SpaceMismatchError: the vector is of another space.
        VectorError: the vector has another length.
        InputError: neither is there.
    """
    encoder = collection.required_encoder()
    # a vector of zeros says nothing: LlamaIndex's users give it where only words count
    if vector is None or (text and not any(vector)):
        if not text:
            raise InputError("the query has neither a text nor a vector: give query_str or query_embedding")
        return encoder.encode_queries([text])
    refuse_length(collection, vector, "the query vector")
    row = checked_vectors([vector], dimension=collection.dimension, count=1, what="query vector")
    given = row.tolist()[0]
    served = adapter_of(encoder) or ""
    if not _known(collection, given):
        if not text:
            logger.warning(
                "collection %r is searched with a vector without its text, which is not compared with the encoder of "
                "the collection",
                collection.name,
            )
            return _mapped(encoder, row)
        remember([given], _maker_by_text(collection, encoder, row, text))
    adapters = {maker.adapter for maker in makers_of(given) if maker.space == collection.space}
    if served not in adapters and "" in adapters:
        return _mapped(encoder, row)
    if served not in adapters and served:
        logger.warning("collection %r serves with %s, and is asked with %s", collection.name, served, adapters.pop())
    return unit_rows(row)


def refuse_length(collection: Collection, vector: Sequence[float], what: str) -> None:
    """Raise `VectorError` for a vector of another dimension, which another embedding than the collection's made."""
    if len(vector) != collection.dimension:
        raise VectorError(
            f"{what} has {len(vector)} numbers, expected {collection.dimension} as in collection {collection.name!r}: "
            "give the index the embedding that filled the collection (embed_model=, or Settings.embed_model)"
        )


def _known(collection: Collection, row: Sequence[float]) -> bool:
    """Whether an embedding of the collection's space made it. Raises `SpaceMismatchError` if only others did."""
    makers = makers_of(row)
    if makers and collection.space not in {maker.space for maker in makers}:
        raise SpaceMismatchError(
            f"collection {collection.name!r} holds vectors of {collection.space!r}, this one is of "
            f"{makers[0].space!r}: give the index the embedding that filled the collection (embed_model=, or "
            "Settings.embed_model), or give this embedding a collection of its own"
        )
    return bool(makers)


def _sample(indexes: Sequence[int], texts: Sequence[str]) -> list[int]:
    if len(indexes) <= SAMPLES:
        return list(indexes)
    longest = max(indexes, key=lambda index: len(texts[index]))
    spread = np.linspace(0, len(indexes) - 1, SAMPLES - 1).astype(int)
    return sorted({longest, *(indexes[place] for place in spread)})


def _maker_by_text(collection: Collection, encoder: Encoder, row: Vectors, text: str) -> Maker:
    """Whether a vector is the encoder's for its text, with or without its adapter."""
    unit, base = unit_rows(row), without_adapter(encoder)
    own = {"": base.encode_queries([text])}
    if base is not encoder:
        own[adapter_of(encoder) or ""] = encoder.encode_queries([text])
    cosines = {adapter: float((unit * each).sum()) for adapter, each in own.items()}
    best = max(cosines, key=cosines.__getitem__)
    if cosines[best] < SIMILARITY:
        raise SpaceMismatchError(
            f"the query vector is not what {collection.space!r}, the encoder of collection {collection.name!r}, makes "
            f"of {brief(text)} (cosine {cosines[best]:.3f}, expected {SIMILARITY}): give the index the embedding that "
            "filled the collection (embed_model=, or Settings.embed_model)"
        )
    return Maker(collection.space, best)


def _mapped(encoder: Encoder, row: Vectors) -> Vectors:
    """The vector of a query by the encoder's base -> that of the encoder, which may have an adapter."""
    adapter = getattr(encoder, "adapter", None)
    mapped: Vectors = unit_rows(row) if adapter is None else adapter(unit_rows(row))
    return mapped
