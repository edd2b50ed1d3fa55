"""Pairs of texts with human scores -> how well the encoder's cosines order and fit them.

Guarantees: the definition of mteb's STS tasks, whose main score is Spearman's correlation of the cosine.
Does not know: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.inputs import (
    Floats,
    Role,
    checked_scores,
    embed,
    needs_eval,
    paired_cosine,
    same_length,
)
from qdrant_tools.records import Encoder


@dataclass(frozen=True)
class Correlation:
    """Of two rows of numbers, -1 to 1 each."""

    spearman: float
    """Of the ranks: is the order the same?"""
    pearson: float
    """Of the values: do they lie on a line?"""
    pairs: int


def semantic_similarity(
    encoder: Encoder, left: Sequence[str], right: Sequence[str], scores: Sequence[float], *, role: Role = "passage"
) -> Correlation:
    """Correlate the cosines of pairs of texts with scores, on whatever scale.

    Cer et al., "SemEval-2017 Task 1: Semantic Textual Similarity", 2017.

    Raises:
        InputError: columns of different lengths, a score that is no number, fewer than two pairs, or scores or
            cosines that are all the same, for which no correlation exists.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("semantic similarity")
    same_length("right texts", len(right), len(left))
    known = checked_scores(scores, count=len(left))
    found = paired_cosine(
        embed(encoder, left, role=role, what="left texts"), embed(encoder, right, role=role, what="right texts")
    )
    return correlate(found, known)


def correlate(found: Floats, known: Floats) -> Correlation:
    """Spearman's and Pearson's correlation of two arrays of one length.

    Raises:
        InputError: fewer than two values, or an array of equal ones.
    """
    from scipy.stats import pearsonr, spearmanr

    if len(known) < 2:
        raise InputError(f"{len(known)} pairs, expected at least two for a correlation")
    for name, values in (("cosines", found), ("scores", known)):
        if np.ptp(values) == 0:
            raise InputError(f"all {len(values)} {name} are {values[0]:g}: there is no correlation with a constant")
    return Correlation(float(spearmanr(found, known).statistic), float(pearsonr(found, known).statistic), len(known))
