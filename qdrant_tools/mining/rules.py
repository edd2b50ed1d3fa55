"""Settings, and the scores of one query's candidates -> which candidates may be negatives, and in which order.

`MiningSettings` says which rules hold. The rules are pure functions over ids and scores.

Guarantees: deterministic. Whether a candidate is sampled depends on the seed, the query and its own id alone.
Does not know: engines, texts.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_tools.errors import InputError, brief
from qdrant_tools.fields import json_value, payload_path, steps_of
from qdrant_tools.search.neighbours import ROUNDING, TIE, levelled
from qdrant_tools.search.options import PlainFilter
from qdrant_tools.validation import checked_count, checked_number

Sampling = Literal["top", "random", "softmax"]
Source = Literal["dense", "lexical", "both"]
SeveralPositives = Literal["min", "mean", "each"]
Scores = NDArray[np.float32]

SAME_SCORE = 1e-3
"""Up to this difference two scores may be those of one pair, one from the engine and one from the stored vector.
Rounding differs by far less."""


@dataclass(frozen=True)
class MiningSettings:
    """Which candidates are looked at, which are removed, and how negatives are sampled from the rest."""

    negatives: int = 4
    """Per example, at most."""
    minimum: int = 0
    """Examples with fewer negatives are left out, and counted."""
    source: Source = "dense"
    """Where candidates come from: the nearest vectors, the best by BM25, or both in turns. The rules always look at
    the similarity of vectors, never at a BM25 score."""
    depth: int = 200
    """Candidates looked at per query, not counting its known positives."""
    skip: int = 0
    """Candidates passed over at the top of the ranking."""
    max_share: float | None = 0.95
    """Share of the positive's score that a negative may reach; see `score_limit`. None: no such rule."""
    margin: float | None = None
    """How far below the positive's score a negative must stay. None: no such rule."""
    several: SeveralPositives = "min"
    """Which positive the two rules above look at: the lowest-scoring one, the mean of the scores, or each in an
    example of its own."""
    duplicate_similarity: float | None = 0.95
    """A candidate with this cosine to a positive, or more, counts as a copy of it. None: no such rule."""
    document_key: str | tuple[str, ...] | None = None
    """Metadata field that names the document of a passage: other passages of a positive's document are left out. A
    tuple of names reaches into nested metadata."""
    filter: PlainFilter | models.Filter | None = None
    """Only candidates that match; as in `search`."""
    sampling: Sampling = "random"
    """How negatives are drawn of the candidates that are left: the first ones, any, or the likelier the nearer. What
    nobody has labelled is an answer the more often, the nearer it is."""
    temperature: float = 0.05
    """Of softmax sampling over scores: small is close to top, large is close to random."""
    seed: int = 0
    hnsw_ef: int | None = 512
    """How far HNSW looks. Mining reads deeper into the ranking than a search does, and what the graph loses there is
    lost silently. None: as the collection searches."""
    exact: bool = False
    """Compare with every vector, as a collection that searches exactly does anyway."""
    batch_size: int = 64
    """Queries at a time."""

    def __post_init__(self) -> None:
        for name, least in (("negatives", 1), ("minimum", 0), ("depth", 1), ("skip", 0), ("batch_size", 1)):
            checked_count(name, getattr(self, name), least=least)
        if self.minimum > self.negatives:
            raise InputError(f"minimum is {self.minimum} of {self.negatives} negatives: no example is left")
        if self.skip >= self.depth:
            raise InputError(f"skip is {self.skip} of depth {self.depth}: no candidate is left")
        if self.max_share is not None:
            checked_number("max_share", self.max_share, above=0, most=1)
        if self.margin is not None:
            checked_number("margin", self.margin, least=0)
        if self.duplicate_similarity is not None:
            checked_number("duplicate_similarity", self.duplicate_similarity, least=-1, most=1)
        if self.sampling not in ("top", "random", "softmax"):
            raise InputError(f"sampling is {self.sampling!r}, expected 'top', 'random' or 'softmax'")
        if self.source not in ("dense", "lexical", "both"):
            raise InputError(f"source is {self.source!r}, expected 'dense', 'lexical' or 'both'")
        if self.several not in ("min", "mean", "each"):
            raise InputError(f"several is {self.several!r}, expected 'min', 'mean' or 'each'")
        checked_number("temperature", self.temperature, above=0)
        if self.document_key is not None:
            steps = steps_of(self.document_key, "document_key")
            payload_path(steps)
            if not all(isinstance(step, str) for step in steps):
                raise InputError(f"document_key is {brief(self.document_key)}, expected names only")

    def as_row(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        row = asdict(self)
        if isinstance(self.filter, models.Filter):
            row["filter"] = self.filter.model_dump(mode="json", exclude_none=True)
        elif isinstance(self.filter, Mapping):
            row["filter"] = {
                field if isinstance(field, str) else json.dumps(field): json_value(value, "filter")
                for field, value in self.filter.items()
            }
        return row


@dataclass(frozen=True)
class Judge:
    """A second opinion on sampled candidates. `score` is any callable that scores (query, passage text) pairs, such as
    a cross-encoder's `predict`.

    A pair that scores at least `threshold` is no negative: it is dropped, or with `promote` it becomes a positive.
    The next candidate in line takes its place and is judged too. `name` says which judge it is: a resumed run compares
    it. `cross_encoder_judge` of `llama_index_embed_plus` makes one of a cross-encoder.
    """

    score: Callable[[Sequence[tuple[str, str]]], Sequence[float]]
    threshold: float
    promote: bool = False
    name: str = ""

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each pair is relevant.

        Raises:
            InputError: `score` did not return one finite number per pair.
        """
        if not pairs:
            return []
        scores = np.asarray(self.score(pairs), dtype=np.float64)
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise InputError(
                f"the judge returned shape {scores.shape}, expected {len(pairs)} finite scores, one per pair"
            )
        relevant: list[bool] = (scores >= self.threshold).tolist()
        return relevant


@dataclass(frozen=True)
class Candidates:
    """The candidates of one query, best first: point ids, similarities (n,), and documents if a rule needs them."""

    points: Sequence[str | int]
    scores: Scores
    documents: Sequence[object] = ()


@dataclass(frozen=True)
class Positives:
    """The known positives of one query: point ids, similarities (n,) and documents."""

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
    candidates: Candidates, known: Positives, compared: Positives, settings: MiningSettings
) -> tuple[NDArray[np.int64], Counter[str]]:
    """Indices of the candidates that may be negatives, best first, and how many each rule removed.

    `known` are all positives of the query; `compared` are those that the rules measure against. A candidate that
    several rules would remove counts for the first: known_positive, skipped, same_document, close_to_positive.

    A known positive is looked for among the candidates that score as it does, to `SAME_SCORE`. An engine that answers
    with scores of compressed vectors can hide one from that: check the ids of what was sampled too.
    """
    protected = set(known.points)
    # an id of the engine is made when it is read, which costs more than comparing scores: read only likely ones
    same_score = np.abs(candidates.scores[:, None] - known.scores[None, :]) <= SAME_SCORE
    is_known = {index for index in same_score.nonzero()[0].tolist() if candidates.points[index] in protected}
    # a Python loop over fifty candidates takes less than the calls into numpy that it saves
    remaining = [index for index in range(len(candidates.points)) if index not in is_known][: settings.depth]
    removed = Counter(known_positive=len(is_known), candidates=len(remaining), skipped=len(remaining[: settings.skip]))
    remaining = remaining[settings.skip :]
    # a candidate that scores as the limit, to rounding, is below it: on every machine
    limit = score_limit(compared.scores, settings) + TIE * float(np.abs(compared.scores).max(initial=0.0))
    violations = {
        "same_document": _same_document(candidates, compared),
        "close_to_positive": (candidates.scores > limit).tolist(),
    }
    for rule, violates in violations.items():
        kept = [index for index in remaining if not violates[index]] if violates else remaining
        removed[rule] += len(remaining) - len(kept)
        remaining = kept
    return np.array(remaining, dtype=np.int64), removed


def sampling_order(
    candidates: Candidates, indices: NDArray[np.int64], settings: MiningSettings, query: str
) -> list[int]:
    """All eligible indices (n,), in the order in which they are sampled: the first k are k draws without replacement.

    Softmax samples by the Gumbel top-k trick (Kool, van Hoof, Welling, "Stochastic beams and where to find them", ICML
    2019).
    """
    if settings.sampling == "top":
        return [int(index) for index in indices]
    keys = _uniform([candidates.points[index] for index in indices], settings.seed, query)
    if settings.sampling == "softmax":
        keys = candidates.scores[indices].astype(np.float64) / settings.temperature - np.log(-np.log(keys))
    return [int(index) for index in indices[np.argsort(-keys, kind="stable")]]


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
    """Whether a vector (dimension,) has this cosine, or more, to one of the positives (n, dimension)."""
    # stored vectors that are compared by dot product may have any length
    lengths = np.linalg.norm(positives, axis=1) * np.linalg.norm(vector)
    return bool((positives @ vector >= (similarity - TIE) * lengths).any())


def _same_document(candidates: Candidates, positives: Positives) -> list[bool]:
    """Whether each candidate is of a positive's document; an empty list where no positive has one."""
    documents = [document for document in positives.documents if document is not None]
    return [document in documents for document in candidates.documents] if documents else []


def _uniform(points: Sequence[str | int], seed: int, query: str) -> NDArray[np.float64]:
    """One number in (0, 1) per id."""
    start = hashlib.blake2b(f"{seed}\0{query}\0".encode("utf-8", "surrogatepass"), digest_size=8)
    numbers = np.empty(len(points))
    for index, point in enumerate(points):
        digest = start.copy()
        digest.update(str(point).encode())
        # the half keeps it off 0, whose logarithm is infinite
        numbers[index] = (int.from_bytes(digest.digest(), "big") + 0.5) / 2.0**64
    return numbers
