"""Which candidates of a query may be negatives, and in which order they are drawn: pure functions over scores.

Guarantees: deterministic; a candidate's luck depends on seed, query and its own id alone. Does not know: engines,
texts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.mine.settings import MiningSettings
from qdrant_tools.neighbours import ROUNDING, TIE, levelled

SAME_SCORE = 1e-3
"""Scores of one pair from the engine and from the stored vector differ by rounding alone, which is far less."""

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """The candidates of one query, best first: ids, similarities (n,), and documents if they are asked for."""

    points: Sequence[str | int]
    scores: Scores
    documents: Sequence[object] = ()


@dataclass(frozen=True)
class Positives:
    """The known positives of one query: ids, scores (n,) and documents."""

    points: Sequence[str | int]
    scores: Scores
    documents: Sequence[object] = ()


def score_limit(positive_scores: Scores, settings: MiningSettings) -> float:
    """The score up to which a candidate is a safe negative; infinite without rules.

    For a positive score p, `max_share` allows p - (1 - max_share) * |p|: that is max_share * p for p >= 0, and lies
    below p for negative scores too. `margin` allows p - margin. The stricter one holds. With several positives p is
    the lowest or the mean of their scores.
    """
    p = float(positive_scores.mean() if settings.several == "mean" else min(positive_scores.tolist()))
    limit = np.inf
    if settings.max_share is not None:
        limit = min(limit, p - (1.0 - settings.max_share) * abs(p))
    if settings.margin is not None:
        limit = min(limit, p - settings.margin)
    return float(limit)


def eligible(
    candidates: Candidates, known: Positives, positives: Positives, settings: MiningSettings
) -> tuple[NDArray[np.int64], Counter[str]]:
    """Indices of the candidates that may be negatives, best first, and how many each rule removed.

    `known` are all positives of the query; `positives` those that the rules measure against. A candidate that several
    rules would remove counts for the first: known_positive, skipped, same_document, close_to_positive.

    A known positive is looked for among the candidates that score as it does, to `SAME_SCORE`. An engine that answers
    with scores of compressed vectors can hide one from that; whoever draws looks at the ids of what was drawn.
    """
    spared = set(known.points)
    alike = np.abs(candidates.scores[:, None] - known.scores[None, :]) <= SAME_SCORE
    is_known = {place for place in alike.nonzero()[0].tolist() if candidates.points[place] in spared}
    # a Python loop over fifty candidates takes less than the calls into numpy that it saves
    left = [place for place in range(len(candidates.points)) if place not in is_known][: settings.depth]
    removed = Counter(known_positive=len(is_known), candidates=len(left), skipped=len(left[: settings.skip]))
    left = left[settings.skip :]
    # a candidate that scores as the limit, to rounding, is below it: on every machine
    limit = score_limit(positives.scores, settings) + TIE * float(np.abs(positives.scores).max(initial=0.0))
    rules = {
        "same_document": _same_document(candidates, positives),
        "close_to_positive": (candidates.scores > limit).tolist(),
    }
    for rule, hit in rules.items():
        kept = [place for place in left if not hit[place]] if hit else left
        removed[rule] += len(left) - len(kept)
        left = kept
    return np.array(left, dtype=np.int64), removed


def drawing_order(candidates: Candidates, left: NDArray[np.int64], settings: MiningSettings, query: str) -> list[int]:
    """All eligible indices, in the order in which they are drawn: the first n are n draws without replacement.

    Softmax draws by the Gumbel top-k trick (Kool, van Hoof, Welling, "Stochastic beams and where to find them", ICML
    2019).
    """
    if settings.sampling == "top":
        return [int(index) for index in left]
    luck = _uniform([candidates.points[index] for index in left], settings.seed, query)
    if settings.sampling == "softmax":
        luck = candidates.scores[left].astype(np.float64) / settings.temperature - np.log(-np.log(luck))
    return [int(index) for index in left[np.argsort(-luck, kind="stable")]]


def ordered(points: Sequence[str | int], scores: Scores) -> list[int]:
    """Indices by score, best first. Scores that differ by rounding only go by id, so that two runs agree."""
    if (np.diff(scores) < -ROUNDING * float(np.abs(scores).max(initial=0.0))).all():
        return list(range(len(points)))  # an engine's answer mostly is in order: no id has to be made to see that
    falling = -levelled(scores)
    order: list[int] = np.argsort(falling, kind="stable").tolist()
    ends = np.append(np.flatnonzero(np.diff(falling[order]) > 0) + 1, len(order))
    start = 0
    for end in ends.tolist():
        if end - start > 1:
            order[start:end] = sorted(order[start:end], key=lambda index: str(points[index]))
        start = end
    return order


def is_copy(vector: Scores, positives: Scores, similarity: float) -> bool:
    """Whether a vector (dimension,) is as similar to one of the positives (n, dimension); the cosine decides."""
    lengths = np.linalg.norm(positives, axis=1) * np.linalg.norm(vector)
    return bool((positives @ vector >= (similarity - TIE) * lengths).any())


def _same_document(candidates: Candidates, positives: Positives) -> list[bool]:
    """Whether each candidate is of a positive's document; nothing where no positive has one."""
    known = [document for document in positives.documents if document is not None]
    return [document in known for document in candidates.documents] if known else []


def _uniform(points: Sequence[str | int], seed: int, query: str) -> NDArray[np.float64]:
    """One number in (0, 1) per id."""
    start = hashlib.blake2b(f"{seed}\0{query}\0".encode("utf-8", "surrogatepass"), digest_size=8)
    numbers = np.empty(len(points))
    for index, point in enumerate(points):
        digest = start.copy()
        digest.update(str(point).encode())
        numbers[index] = (int.from_bytes(digest.digest(), "big") + 0.5) / 2.0**64
    return numbers
