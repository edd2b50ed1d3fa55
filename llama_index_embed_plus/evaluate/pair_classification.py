"""Pairs of texts that mean the same or not -> how well one threshold on the cosine tells them apart.

Guarantees: mteb's definitions: average precision, and the best F1 and accuracy over all thresholds that lie between
two different cosines. Does not know: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.evaluate.inputs import (
    Floats,
    Integers,
    Role,
    checked_binary,
    embed,
    needs_eval,
    paired_cosine,
    same_length,
)
from qdrant_tools.records import Encoder


@dataclass(frozen=True)
class PairReport:
    """Quality of the cosine as a judge of pairs. A threshold is None where all cosines are the same."""

    ap: float
    f1: float
    f1_threshold: float | None
    precision: float
    """At the threshold of the best F1, as `recall`."""
    recall: float
    accuracy: float
    accuracy_threshold: float | None
    pairs: int
    positives: int


def pair_classification(
    encoder: Encoder, left: Sequence[str], right: Sequence[str], labels: Sequence[int], *, role: Role = "passage"
) -> PairReport:
    """Tell pairs with label 1 from those with label 0 by the cosine of their texts.

    Raises:
        InputError: columns of different lengths, labels other than 0 and 1, or only one of them.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("pair classification")
    same_length("right texts", len(right), len(left))
    known = checked_binary(labels, count=len(left))
    cosines = paired_cosine(
        embed(encoder, left, role=role, what="left texts"), embed(encoder, right, role=role, what="right texts")
    )
    return judge_pairs(cosines, known)


def judge_pairs(scores: Floats, labels: Integers) -> PairReport:
    """The report of scores (the larger the more alike) and labels 0 or 1, both (n,).

    Average precision is the sum over thresholds of the gain in recall times the precision, without interpolation.
    """
    from sklearn.metrics import average_precision_score

    order = np.argsort(-scores, kind="stable")
    ranked, correct = scores[order], labels[order] == 1
    # a threshold cannot lie within a tie, and one below all scores would judge nothing
    cuts = np.flatnonzero(ranked[:-1] != ranked[1:])
    above = cuts + 1.0
    hits = np.cumsum(correct)[cuts]
    positives = int(labels.sum())
    precision, recall = hits / above, hits / positives
    f1 = 2 * hits / (above + positives)
    accuracy = (hits + (len(labels) - positives) - (above - hits)) / len(labels)
    best_f1, best_accuracy = _best(f1), _best(accuracy)
    return PairReport(
        float(average_precision_score(labels, scores)),
        0.0 if best_f1 is None else float(f1[best_f1]),
        _between(ranked, cuts, best_f1),
        0.0 if best_f1 is None else float(precision[best_f1]),
        0.0 if best_f1 is None else float(recall[best_f1]),
        0.0 if best_accuracy is None else float(accuracy[best_accuracy]),
        _between(ranked, cuts, best_accuracy),
        len(labels),
        positives,
    )


def _best(values: Floats) -> int | None:
    """The first of the largest values, unless none is above 0."""
    return int(values.argmax()) if len(values) and values.max() > 0 else None


def _between(ranked: Floats, cuts: Integers, best: int | None) -> float | None:
    return None if best is None else float(ranked[cuts[best]] + ranked[cuts[best] + 1]) / 2
