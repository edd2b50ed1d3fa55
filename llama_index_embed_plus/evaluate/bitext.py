"""Sentences in one language and their translations -> how often the nearest sentence is the translation.

Guarantees: mteb's definition: for each sentence of the first list the nearest of the second, and the F1 of the
predicted places, weighted by how often a place is right. Does not know: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.inputs import Role, embed, needs_eval, same_length, unit_rows
from qdrant_tools.records import Encoder, Vectors

ROWS_AT_ONCE = 512
"""Bounds the matrix of cosines."""


@dataclass(frozen=True)
class BitextReport:
    """0 to 1 each."""

    f1: float
    precision: float
    recall: float
    accuracy: float
    pairs: int


def bitext_mining(
    encoder: Encoder,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    gold: Sequence[int] | None = None,
    role: Role = "passage",
) -> BitextReport:
    """Find each source's translation among all targets by the cosine.

    gold: for each source the row of its translation; None: they are side by side.
    Raises:
        InputError: columns of different lengths, or a gold row that no target has.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("bitext mining")
    from sklearn.metrics import f1_score, precision_score, recall_score

    if gold is None:
        same_length("translations", len(targets), len(sources))
        gold = range(len(sources))
    same_length("gold", len(gold), len(sources))
    odd = next((row for row in gold if not 0 <= row < len(targets)), None)
    if odd is not None:
        raise InputError(f"gold: row {odd}, but there are {len(targets)} targets, counted from 0")
    found = nearest(embed(encoder, sources, role=role, what="sources"), embed(encoder, targets, role=role))
    known = np.asarray(gold)
    weighted = {"average": "weighted", "zero_division": 0}
    return BitextReport(
        float(f1_score(known, found, **weighted)),
        float(precision_score(known, found, **weighted)),
        float(recall_score(known, found, **weighted)),
        float((known == found).mean()),
        len(known),
    )


def nearest(queries: Vectors, passages: Vectors) -> np.ndarray:
    """For each row of `queries` the row of `passages` with the largest cosine, the first of equal ones."""
    left, right = unit_rows(queries), unit_rows(passages)
    best = [(left[at : at + ROWS_AT_ONCE] @ right.T).argmax(axis=1) for at in range(0, len(left), ROWS_AT_ONCE)]
    return np.concatenate(best)
