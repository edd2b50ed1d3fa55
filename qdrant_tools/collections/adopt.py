"""Checks before an encoder adopts a collection that another program filled: is it the encoder that made its vectors?

A few stored texts are embedded again and compared with their stored vectors. Also finds out which vector and which
payload fields the collection uses.

Guarantees: nothing is written. A collection that another model filled, or half filled, is refused with the measured
similarity; an empty one fits any encoder. Does not know: how the collection was filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from qdrant_tools.client.gateway import Gateway, plain_id
from qdrant_tools.collections.metadata import OURS, Layout, detect
from qdrant_tools.collections.settings import DISTANCES
from qdrant_tools.errors import CollectionError, InputError, SpaceMismatchError, VectorError
from qdrant_tools.records import Encoder
from qdrant_tools.validation import checked_unit_vectors, unit_rows

AGREEING_SHARE = 0.9
"""Share of the samples that must agree: a text may have been edited since, but not every tenth one."""


def vector_names(info: models.CollectionInfo) -> dict[str, models.VectorParams]:
    """The dense vectors of a collection by name; "" is the unnamed one."""
    vectors = info.config.params.vectors
    if vectors is None:
        return {}
    named = dict(vectors) if isinstance(vectors, Mapping) else {"": vectors}
    # multivectors are left out: an encoder here makes one vector per text
    return {name: params for name, params in named.items() if params.multivector_config is None}


def choose_vector(name: str, info: models.CollectionInfo, dimension: int, vector: str | None) -> str:
    """The name of the vector that an encoder of this dimension may have filled; `vector` if it is that one.

    Raises:
        VectorError: none has this dimension.
        CollectionError: several have, or its distance is not a similarity.
    """
    vectors = vector_names(info)
    fitting = [own for own, params in vectors.items() if params.size == dimension and vector in (None, own)]
    if not fitting:
        sizes = ", ".join(f"{own!r}: {params.size}" for own, params in vectors.items()) or "none"
        raise VectorError(f"collection {name!r} has no {dimension}-dimensional vector; its vectors: {sizes}")
    if len(fitting) > 1:
        raise CollectionError(
            f"collection {name!r} has several {dimension}-dimensional vectors ({', '.join(fitting)}): give a Layout "
            "that names the one to use"
        )
    distance = vectors[fitting[0]].distance
    if distance not in DISTANCES.values():
        raise CollectionError(f"collection {name!r} compares by {distance.value}, expected cosine or dot product")
    return fitting[0]


def check_samples(
    client: QdrantClient, name: str, encoder: Encoder, layout: Layout, *, samples: int, similarity: float
) -> Layout:
    """The layout whose texts, embedded, give the stored vectors. An empty collection is any encoder's.

    For LlamaIndex's layout the texts with and without the metadata are tried.

    Raises:
        CollectionError: the samples have no text.
        SpaceMismatchError: the vectors differ; the message says by how much.
    """
    if samples < 1 or not 0 < similarity <= 1:
        raise InputError(f"samples is {samples} and similarity {similarity}, expected at least 1 and up to 1")
    records = Gateway(client, name).sample(samples, with_vectors=[layout.vector] if layout.vector else True)
    if not records:
        return layout  # nothing contradicts the encoder
    cosines = {
        candidate: _similarities(name, records, encoder, candidate)
        # a set: one candidate only where the layout does not embed metadata anyway
        for candidate in {layout, replace(layout, embedded_metadata=False)}
    }
    # equally good without the metadata: such as where no node has any; LlamaIndex's own way then
    best = max(cosines, key=lambda candidate: (float(np.mean(cosines[candidate])), candidate.embedded_metadata))
    agreeing = float(np.mean(cosines[best] >= similarity))
    if agreeing < AGREEING_SHARE:
        median = float(np.median(cosines[best]))
        raise SpaceMismatchError(
            f"collection {name!r} was not filled by {encoder.space!r}: {agreeing:.0%} of {len(cosines[best])} sampled "
            f"vectors agree with their texts (median cosine {median:.3f}, expected {similarity}); try the encoder that "
            "filled it, or index its texts into a new collection"
        )
    return best


def detect_layout(client: QdrantClient, name: str, vector: str) -> Layout:
    """The layout of some sampled points; our own for a collection that is empty."""
    payloads = [record.payload or {} for record in Gateway(client, name).sample(16)]
    if not payloads:
        return replace(OURS, vector=vector)
    return detect(payloads, vector=vector)


def _similarities(name: str, records: list[models.Record], encoder: Encoder, layout: Layout) -> Any:
    passages = [layout.passage(record.payload, point_id=plain_id(record.id)) for record in records]
    usable = [(p.text, r.vector) for p, r in zip(passages, records, strict=True) if p.text.strip() and r.vector]
    if not usable:
        raise CollectionError(f"none of {len(records)} points of {name!r} has a text in {layout.text!r}: give a Layout")
    stored = np.array([layout.dense(vector) for _, vector in usable], dtype=np.float32)
    embedded = checked_unit_vectors(
        encoder.encode_passages([text for text, _ in usable]),
        dimension=stored.shape[1],
        count=len(usable),
        what=f"samples encoded by {encoder.space!r}",
    )
    # stored vectors that are compared by dot product may have any length
    return (unit_rows(stored) * embedded).sum(axis=1)
