"""Training examples + a collection -> arrays: query vectors, stored vectors, who answers what.

Guarantees: every positive and mined negative that the collection holds is among the stored vectors, and as many others
as fit, a seeded sample of the whole collection; equal queries share their positives. Memory is that of the vectors,
4 bytes * dimension * (queries + stored); nothing grows with queries times stored. Does not know: losses.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import TrainingError
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import mismatch, sample_vectors
from qdrant_tools.records import Encoder, Example, Vectors
from qdrant_tools.same import id_spellings, query_key, spelled

Rows = NDArray[np.int64]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pairs:
    """One row per (query, positive), and what is known of the queries.

    queries: (n, dimension) vectors; stored: (m, dimension) vectors.
    query, positive, weight: (rows,) index into queries, index into stored, how much the row counts.
    group: per query, the number of its key (`same.query_key`): spellings of one query are one group.
    known: per group, the stored positives; mined: per query, the stored mined negatives.
    mixed: whether there are both real and synthetic queries.
    """

    queries: Vectors
    stored: Vectors
    query: Rows
    positive: Rows
    weight: NDArray[np.float32]
    group: tuple[int, ...]
    known: tuple[tuple[int, ...], ...]
    mined: tuple[tuple[int, ...], ...]
    mixed: bool = False


def read_pairs(collection: Collection, examples: Sequence[Example], encoder: Encoder, *, most: int, seed: int) -> Pairs:
    """Take the vectors of examples from the collection, with others up to `most` stored vectors in all.

    Raises TrainingError: fewer than 2 examples have a weight above 0 and a positive that the collection holds, all of
    their queries are the same, or a vector has something other than numbers in it.
    """
    if not examples:
        raise TrainingError("there are no examples: mine some from a retrieval log, or label a few queries")
    ids, stored = _stored_sample(collection, examples, most=most, seed=seed)
    place = {passage_id: i for i, passage_id in enumerate(ids)}
    index = {name: place[passage_id] for name, passage_id in spelled(_labelled(examples), place).items()}
    usable = [example for example in examples if example.weight > 0 and any(p.id in index for p in example.positives)]
    answers = [positive.id for example in examples for positive in example.positives]
    missing = [name for name in dict.fromkeys(answers) if name not in index]
    if len(usable) < 2:
        example_of = f" ({mismatch(collection, missing)})" if missing else ""
        problem = (
            f"{len(usable)} of {len(examples)} examples have a positive that collection {collection.name!r} holds "
            f"(and a weight above 0){example_of}, expected at least 2"
        )
        if len(usable) == len(examples):
            raise TrainingError(problem).with_way_out(
                python="mine more searches with clicks",
                command="mine COLLECTION LOG --out EXAMPLES again, once there are some hundred searches with clicks "
                "(embed-plus log stats LOG counts them)",
            )
        raise TrainingError(f"{problem}: index the positives, or check that the ids are passage ids")
    if 2 * len(missing) > len(set(answers)):
        several = f"{len(missing)} of {len(set(answers))} positives"
        logger.warning("%s are not in the collection: %s", several, mismatch(collection, missing))
    texts = [query_key(example.query) for example in usable]
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
    known: list[dict[int, None]] = [{} for _ in groups]  # sets that keep an order
    rows: list[tuple[int, int, float]] = []
    for number, example in enumerate(examples):
        # distinct: two ids may be two ways of writing one
        stored_positives = list(dict.fromkeys(index[p.id] for p in example.positives if p.id in index))
        known[group[number]].update(dict.fromkeys(stored_positives))
        # an example counts once, however many positives it has
        rows += [(number, position, example.weight / len(stored_positives)) for position in stored_positives]
    query, positive, weight = zip(*rows)
    return Pairs(
        np.ascontiguousarray(queries, np.float32),
        stored,
        np.array(query, np.int64),
        np.array(positive, np.int64),
        np.array(weight, np.float32),
        group,
        tuple(tuple(positions) for positions in known),
        tuple(tuple(index[n.id] for n in example.negatives if n.id in index) for example in examples),
        mixed=len({example.synthetic for example in examples}) > 1,
    )


def _check(vectors: Vectors, names: Sequence[str], way_out: str) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise TrainingError(
            f"the vectors of {len(bad)} texts hold NaN or infinity, the first is {names[bad[0]]}: {way_out}"
        )


def _labelled(examples: Sequence[Example]) -> set[str]:
    return {text.id for example in examples for text in (*example.positives, *example.negatives)}


def _stored_sample(
    collection: Collection, examples: Sequence[Example], *, most: int, seed: int
) -> tuple[list[str], Vectors]:
    """Every positive and mined negative, and as many other stored vectors as fit."""
    # of every id as it may be spelled: those that are not there are drawn by nobody
    labelled = {name for passage_id in _labelled(examples) for name in id_spellings(passage_id)}
    sample = sample_vectors(collection, most, seed=seed, always=labelled)
    if not sample.ids:
        raise TrainingError(f"collection {collection.name!r} is empty: index passages before fitting an adapter")
    # Labelled passages first: the rows' numbers decide which negatives a seed draws.
    order = sorted(range(len(sample.ids)), key=lambda row: sample.ids[row] not in labelled)
    return [sample.ids[row] for row in order], sample.vectors[order]
