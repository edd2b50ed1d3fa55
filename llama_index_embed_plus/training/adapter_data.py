"""How to fit a query adapter, as one frozen value that is checked when it is made. Does not know: vectors.

Training examples + a collection -> arrays: query vectors, stored vectors, who answers what.

Guarantees: every positive and mined negative that the collection holds is among the stored vectors, and as many others
as fit, a seeded sample of the whole collection; equal queries share their positives. Memory is that of the vectors,
4 bytes * dimension * (queries + stored); nothing grows with queries times stored. Does not know: losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from llama_index_embed_plus.encoders.adapter import MAPS, AdapterKind
from llama_index_embed_plus.errors import TrainingError
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import sample_vectors
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, Example, Vectors

Source = Literal["in_batch", "mined", "collection"]
SOURCES: tuple[Source, ...] = ("in_batch", "mined", "collection")
RATES = {"full": 3e-4, "low_rank": 1e-3, "orthogonal": 1e-4, "mlp": 1e-3}
"""Learning rates that suit the kinds."""


@dataclass(frozen=True)
class AdapterSettings:
    """How to fit.

    kind: full, low_rank, orthogonal or mlp; see `adapter.maps`. width: rank of low_rank, hidden units of mlp.
    temperature: divides cosines in the loss.
    learning_rate: None: what suits the kind.
    negatives: what a query is told from: the other positives of its batch, its mined negatives, stored vectors.
    sampled: how many stored vectors are drawn for a batch; a smaller collection is taken whole.
    max_stored_vectors: how many are held in memory to draw from; positives and mined negatives always are.
    same_passage_similarity: from which cosine to a known positive on a stored vector is taken for a hidden one.
    validation_share: of the queries, at most `max_validation`; they decide when to stop: after `patience` epochs
        without a better one.
    """

    kind: AdapterKind = "full"
    width: int = 32
    temperature: float = 0.05
    learning_rate: float | None = None
    weight_decay: float = 0.0
    batch_size: int = 64
    max_epochs: int = 60
    patience: int = 5
    negatives: tuple[Source, ...] = SOURCES
    sampled: int = 4096
    max_stored_vectors: int = 50_000
    same_passage_similarity: float = 0.95
    validation_share: float = 0.1
    max_validation: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in MAPS:
            raise UsageError(f"adapter kind is {self.kind!r}, expected one of {', '.join(MAPS)}")
        for name in (
            "width",
            "batch_size",
            "max_epochs",
            "patience",
            "sampled",
            "max_stored_vectors",
            "max_validation",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("temperature", "rate"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                shown = "learning_rate" if name == "rate" else name
                raise UsageError(f"{shown} is {getattr(self, name)}, expected a number above 0")
        if not self.weight_decay >= 0:
            raise UsageError(f"weight_decay is {self.weight_decay}, expected 0 or more")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"validation_share is {self.validation_share}, expected a share between 0 and 1")
        if not self.negatives or set(self.negatives) - set(SOURCES):
            raise UsageError(f"negatives is {self.negatives!r}, expected some of {', '.join(SOURCES)}")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return RATES[self.kind] if self.learning_rate is None else self.learning_rate

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "negatives": list(self.negatives), "learning_rate": self.rate}


@dataclass(frozen=True, eq=False)
class Pairs:
    """One row per (query, positive), and what is known of the queries.

    queries: (n, dimension) vectors; stored: (m, dimension) vectors.
    query, positive, weight: (rows,) index into queries, index into stored, how much the row counts.
    group: per query, the number of its text: equal texts are one group.
    known: per group, the stored positives; mined: per query, the stored mined negatives.
    """

    queries: torch.Tensor
    stored: torch.Tensor
    query: torch.Tensor
    positive: torch.Tensor
    weight: torch.Tensor
    group: tuple[int, ...]
    known: tuple[tuple[int, ...], ...]
    mined: tuple[tuple[int, ...], ...]


def read_pairs(collection: Collection, examples: Sequence[Example], encoder: Encoder, *, most: int, seed: int) -> Pairs:
    """Take the vectors of examples from the collection, with others up to `most` stored vectors in all.

    Raises TrainingError: fewer than 2 examples have a weight above 0 and a positive that the collection holds, all of
    their queries are the same, or a vector has something other than numbers in it.
    """
    if not examples:
        raise TrainingError("there are no examples: mine some from a retrieval log, or label a few queries")
    ids, stored = _stored_sample(collection, examples, most=most, seed=seed)
    index = {passage_id: i for i, passage_id in enumerate(ids)}
    usable = [example for example in examples if example.weight > 0 and any(p.id in index for p in example.positives)]
    if len(usable) < 2:
        raise TrainingError(
            f"{len(usable)} of {len(examples)} examples have a positive that collection {collection.name!r} holds "
            "(and a weight above 0), expected at least 2: index the positives, or check that the ids are passage ids"
        )
    texts = [" ".join(example.query.split()).casefold() for example in usable]
    if len(set(texts)) < 2:
        raise TrainingError(
            f"all {len(usable)} queries are {usable[0].query[:60]!r}: an adapter needs different queries to learn from"
        )
    queries = encoder.encode_queries([example.query for example in usable])
    _check(queries, [f"query {example.query[:60]!r}" for example in usable], "the encoder is damaged")
    _check(stored, [f"passage {passage_id!r}" for passage_id in ids], f"index it again in {collection.name!r}")
    return _pairs(usable, texts, index, queries, stored)


def _pairs(
    examples: Sequence[Example], texts: Sequence[str], index: dict[str, int], queries: Vectors, stored: Vectors
) -> Pairs:
    groups: dict[str, int] = {}
    group = tuple(groups.setdefault(text, len(groups)) for text in texts)
    known: list[dict[int, None]] = [{} for _ in groups]
    rows: list[tuple[int, int, float]] = []
    for number, example in enumerate(examples):
        found = [index[p.id] for p in example.positives if p.id in index]
        known[group[number]].update(dict.fromkeys(found))
        rows += [(number, position, example.weight / len(found)) for position in found]
    query, positive, weight = zip(*rows)
    return Pairs(
        torch.from_numpy(np.ascontiguousarray(queries, np.float32)),
        torch.from_numpy(stored),
        torch.tensor(query),
        torch.tensor(positive),
        torch.tensor(weight, dtype=torch.float32),
        group,
        tuple(tuple(positions) for positions in known),
        tuple(tuple(index[n.id] for n in example.negatives if n.id in index) for example in examples),
    )


def _check(vectors: Vectors, names: Sequence[str], way_out: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise TrainingError(
            f"the vectors of {len(bad)} texts hold NaN or infinity, the first is {names[bad[0]]}: {way_out}"
        )


def _stored_sample(
    collection: Collection, examples: Sequence[Example], *, most: int, seed: int
) -> tuple[list[str], Vectors]:
    """Every positive and mined negative, and as many other stored vectors as fit."""
    labelled = {text.id for example in examples for text in (*example.positives, *example.negatives)}
    sample = sample_vectors(collection, most, seed=seed, always=labelled)
    if not sample.ids:
        raise TrainingError(f"collection {collection.name!r} is empty: index passages before fitting an adapter")
    return sample.ids, sample.vectors
