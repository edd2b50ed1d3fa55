"""Texts that say the same, or not -> how well cosines find that out.

Pair classification: one threshold on the cosine tells pairs with label 1 from those with 0. Average precision, and the
best F1 and accuracy over all thresholds that lie between two different cosines, as mteb defines them. Its published
figure, `max_ap`, is the largest average precision by the cosine and by three other measures of distance.

Duplicates: of all pairs of a list, best first, how many say the same (paraphrase mining, as sentence-transformers'
`ParaphraseMiningEvaluator` measures it)? And are a text's duplicates its nearest texts (Hoogeveen, Verspoor and
Baldwin, "CQADupStack", 2015)? Pairs of equal cosine are judged together.

Bitext mining: for each sentence the nearest one of another language, and the F1 of the predicted rows, weighted by
how often a place is right, as in mteb.

Does not know: files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llama_index_embed_plus.evaluate.tasks.inputs import (
    Floats,
    Integers,
    Label,
    Role,
    checked_binary,
    checked_labels,
    embed,
    needs_eval,
    paired_cosine,
    same_length,
)
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.validation import unit_rows

ROWS_AT_ONCE = 512
"""Bounds the matrix of cosines."""


@dataclass(frozen=True)
class PairReport:
    """Quality of the cosine as a judge of pairs. A threshold is None where all cosines are the same."""

    ap: float
    """Average precision by the cosine; mteb's `cosine_ap`."""
    max_ap: float
    """The largest by the cosine, the product, and Euclid's and Manhattan's distance: what mteb publishes."""
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
    encoder: Encoder, left: Sequence[str], right: Sequence[str], labels: Sequence[int], *, role: Role = "model"
) -> PairReport:
    """Tell pairs with label 1 from those with label 0 by the cosine of their texts.

    Raises:
        InputError: columns of different lengths, labels other than 0 and 1, or only one of them.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("pair classification")
    from sklearn.metrics import average_precision_score

    same_length("right texts", len(right), len(left))
    checked = checked_binary(labels, count=len(left))
    first = embed(encoder, left, role=role, task="pair_classification", what="left texts")
    second = embed(encoder, right, role=role, task="pair_classification", what="right texts")
    report = judge_pairs(paired_cosine(first, second), checked)
    ours, theirs = first.astype(np.float64), second.astype(np.float64)
    apart = ours - theirs
    others = ((ours * theirs).sum(axis=1), -(apart * apart).sum(axis=1), -np.abs(apart).sum(axis=1))
    return replace(
        report, max_ap=max(report.ap, *(float(average_precision_score(checked, scores)) for scores in others))
    )


def judge_pairs(scores: Floats, labels: Integers) -> PairReport:
    """The report of scores (the larger the more alike) and labels 0 or 1, both (n,); `max_ap` is that of these scores.

    Average precision is the sum over thresholds of the gain in recall times the precision, without interpolation.
    """
    from sklearn.metrics import average_precision_score

    order = np.argsort(-scores, kind="stable")
    ranked, correct = scores[order], labels[order] == 1
    # a threshold cannot lie within a tie, and one below all scores would judge nothing
    cuts = np.flatnonzero(ranked[:-1] != ranked[1:])
    above = cuts + 1.0  # how many pairs each threshold calls alike
    hits = np.cumsum(correct)[cuts]
    positives = int(labels.sum())
    precision, recall = hits / above, hits / positives
    f1 = 2 * hits / (above + positives)
    accuracy = (hits + (len(labels) - positives) - (above - hits)) / len(labels)
    best_f1, best_accuracy = _best(f1), _best(accuracy)
    ap = float(average_precision_score(labels, scores))
    return PairReport(
        ap,
        ap,
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


@dataclass(frozen=True)
class DuplicatesReport:
    """`ap`, `f1` and `threshold` are about pairs; `map` and `mrr` about texts that have duplicates."""

    ap: float
    f1: float
    threshold: float | None
    """The cosine from which on a pair counts as duplicate at the best F1; None if no duplicate was found."""
    map: float
    mrr: float
    texts: int
    pairs: int
    """Pairs of duplicates."""
    beyond: int
    """Pairs of duplicates that are not among the `top_k` nearest of either text: they count as not found."""


def duplicates(
    encoder: Encoder, texts: Sequence[str], groups: Sequence[Label], *, top_k: int = 100, role: Role = "model"
) -> DuplicatesReport:
    """Find texts of the same group by their cosine; a text without duplicates is a group of its own.

    Only each text's `top_k` nearest are looked at, so that memory grows with the number of texts and not its square;
    below `top_k` texts nothing is left out. Of equal cosines the text that is no duplicate comes first.

    Raises:
        InputError: texts and groups of different lengths, a missing group, or no two texts in one group.
        TextError, VectorError: see `inputs.embed`.
    """
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}, expected at least 1")
    checked = checked_labels(groups, count=len(texts), what="groups")
    sizes = Counter(checked)
    pairs = sum(size * (size - 1) // 2 for size in sizes.values())
    if not pairs:
        raise InputError(f"no two of the {len(texts)} texts are in one group: there are no duplicates to find")
    codes = {group: code for code, group in enumerate(sizes)}
    coded = np.asarray([codes[group] for group in checked], np.int64)
    rows, columns, cosines = _neighbours(
        unit_rows(embed(encoder, texts, role=role, task="duplicates"), np.float64), top_k
    )
    same = coded[rows] == coded[columns]
    averages, ranks = _per_text(rows, cosines, same, np.asarray([sizes[group] - 1 for group in checked]))
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    # both texts of a pair may have found it, and it counts once
    _, once = np.unique(low * len(texts) + high, return_index=True)
    ap, f1, threshold = _over_pairs(cosines[once], same[once], pairs)
    return DuplicatesReport(ap, f1, threshold, averages, ranks, len(texts), pairs, beyond=pairs - int(same[once].sum()))


def _neighbours(vectors: Floats, top_k: int) -> tuple[Integers, Integers, Floats]:
    """(row, neighbour, cosine) of each row's nearest other rows, in no order."""
    k = min(top_k, len(vectors) - 1)
    columns, cosines = [], []
    for at in range(0, len(vectors), ROWS_AT_ONCE):
        block = vectors[at : at + ROWS_AT_ONCE] @ vectors.T
        # both directions of a pair must have one cosine to be merged: arithmetic may differ in the last bit
        block = np.round(block, 12)
        own = np.arange(len(block))
        block[own, at + own] = -np.inf  # a text is no duplicate of itself
        nearest = np.argpartition(-block, k - 1, axis=1)[:, :k]
        columns.append(nearest.ravel())
        cosines.append(np.take_along_axis(block, nearest, axis=1).ravel())
    return np.repeat(np.arange(len(vectors)), k), np.concatenate(columns), np.concatenate(cosines)


def _per_text(rows: Integers, cosines: Floats, same: np.ndarray, duplicates_of: Integers) -> tuple[float, float]:
    """Mean average precision and mean reciprocal rank over the texts that have duplicates."""
    # the last key sorts first; of equal cosines the text that is no duplicate comes first
    order = np.lexsort((same, -cosines, rows))
    rows, same = rows[order], same[order]
    k = len(rows) // len(duplicates_of)
    correct = same.reshape(-1, k)[duplicates_of > 0]
    ranks = np.arange(1, k + 1)
    precision = np.cumsum(correct, axis=1) / ranks
    average = (precision * correct).sum(axis=1) / duplicates_of[duplicates_of > 0]
    # argmax of a row without a duplicate is 0, which would read as rank 1
    first = np.where(correct.any(axis=1), 1 / (correct.argmax(axis=1) + 1), 0.0)
    return float(average.mean()), float(first.mean())


def _over_pairs(cosines: Floats, same: np.ndarray, total: int) -> tuple[float, float, float | None]:
    """Average precision, best F1 and its threshold, where `total` pairs were to be found."""
    order = np.argsort(-cosines, kind="stable")
    ranked, cumulated = cosines[order], np.cumsum(same[order])
    ends = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True))  # of each group of equal cosines
    hits, above = cumulated[ends], ends + 1
    ap = float((np.diff(hits, prepend=0) * hits / above).sum() / total)
    f1 = 2 * hits / (above + total)
    best = int(f1.argmax())
    return ap, float(f1[best]), float(ranked[ends[best]]) if hits[best] else None


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
    role: Role = "model",
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
    missing = next((row for row in gold if not 0 <= row < len(targets)), None)
    if missing is not None:
        raise InputError(f"gold: row {missing}, but there are {len(targets)} targets, counted from 0")
    left, right = (
        embed(encoder, texts, role=role, task="bitext_mining", what=what)
        for texts, what in ((sources, "sources"), (targets, "targets"))
    )
    predicted = nearest(left, right)
    expected = np.asarray(gold)
    weighted = {"average": "weighted", "zero_division": 0}
    return BitextReport(
        float(f1_score(expected, predicted, **weighted)),
        float(precision_score(expected, predicted, **weighted)),
        float(recall_score(expected, predicted, **weighted)),
        float((expected == predicted).mean()),
        len(expected),
    )


def nearest(queries: Vectors, passages: Vectors) -> np.ndarray:
    """For each row of `queries` the row of `passages` with the largest cosine, the first of equal ones."""
    left, right = unit_rows(queries, np.float64), unit_rows(passages, np.float64)
    blocks = (left[at : at + ROWS_AT_ONCE] @ right.T for at in range(0, len(left), ROWS_AT_ONCE))
    # equal rows may differ in the last bit
    return np.concatenate([np.round(block, 12).argmax(axis=1) for block in blocks])
