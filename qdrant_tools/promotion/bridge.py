"""Two encoders' vectors of the same texts -> a map from the new space into the old one.

While a large collection is being embedded again, the new model's queries can already search the old vectors through
such a map. Two maps: an orthogonal one (Schönemann, "A generalized solution of the orthogonal Procrustes problem",
Psychometrika 1966), which keeps all angles and needs few samples; and a low-rank affine one (reduced-rank ridge
regression), which can also stretch, and needs more. The idea of bridging encoders on the query side is Drift-Adapter's
(EMNLP 2025, arXiv 2509.23471).

Guarantees: mapped vectors are unit vectors of the old space; what the bridge costs is measured against a full
re-embedding of the sample, on queries that the fit did not see. Does not know: how a collection is searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, stored_vectors
from qdrant_tools.errors import InputError, NotSupportedError, SpaceMismatchError
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.search.neighbours import PointId, exact_depth, nearest_of, recall_at
from qdrant_tools.validation import checked_unit_vectors, checked_vectors

Method = Literal["procrustes", "low-rank"]


@dataclass(frozen=True, eq=False)
class DriftMap:
    """`old = unit(new @ weight + bias)`: weight (new dimension, old dimension), bias (old dimension,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    from_space: str
    to_space: str
    method: Method

    def __call__(self, vectors: Vectors) -> Vectors:
        """Map (n, new dimension) vectors to (n, old dimension) unit vectors."""
        mapped = vectors @ self.weight + self.bias
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        return np.asarray(mapped / np.maximum(lengths, 1e-12), np.float32)


@dataclass(frozen=True)
class DriftReport:
    """What a bridge finds of what a full re-embedding of the sample would find.

    `bridged` is the recall@k of mapped new queries over the old vectors, against new queries over new vectors;
    `unbridged` is that of the old encoder's own queries, where it was given.
    """

    method: Method
    k: int
    fitted_on: int
    sample: int
    queries: int
    bridged: float
    unbridged: float | None

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


class BridgedEncoder:
    """The new encoder for the queries of the old collection. It has the old space, and cannot fill a collection."""

    def __init__(self, encoder: Encoder, drift: DriftMap) -> None:
        if encoder.space != drift.from_space:
            raise SpaceMismatchError(
                f"the map was fitted from {drift.from_space!r}, this encoder makes {encoder.space!r}: fit it again"
            )
        self.encoder = encoder
        self.drift = drift

    @property
    def dimension(self) -> int:
        return int(self.drift.weight.shape[1])

    @property
    def space(self) -> str:
        return self.drift.to_space

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.drift(self.encoder.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        raise NotSupportedError(
            f"a bridge into {self.space!r} is for queries: index with the encoder that filled the collection"
        )


@dataclass(frozen=True, eq=False)
class DriftSample:
    """Texts of one collection with their vectors by both encoders, rows in the same order."""

    texts: tuple[str, ...]
    old: Vectors
    new: Vectors
    old_space: str
    new_space: str
    ids: tuple[str, ...] = field(default=())

    def halves(self) -> tuple[DriftSample, DriftSample]:
        """Every other text, and the rest: the order is the collection's, which says nothing about contents."""
        return self._every_other(0), self._every_other(1)

    def _every_other(self, first: int) -> DriftSample:
        rows = slice(first, None, 2)
        return replace(self, texts=self.texts[rows], old=self.old[rows], new=self.new[rows], ids=self.ids[rows])


def draw_sample(collection: Collection, encoder: Encoder, *, size: int = 2000, seed: int = 0) -> DriftSample:
    """Read stored texts and vectors, evenly over the collection, and embed the texts by the new encoder.

    Raises:
        InputError: fewer than two texts.
    """
    points = collection.gateway.count()
    chosen = set(np.random.default_rng(seed).permutation(points)[:size].tolist())
    ids: list[str] = []
    rows: list[Vectors] = []
    seen = 0
    for names, vectors in stored_vectors(collection):
        picked = [i for i in range(len(names)) if seen + i in chosen]
        ids += [names[i] for i in picked]
        rows += [vectors[picked]] if picked else []
        seen += len(names)
    if len(ids) < 2:
        raise InputError(f"collection {collection.name!r} gives {len(ids)} texts, expected at least 2 to compare")
    stored = fetch(collection, ids)
    texts = tuple(stored[name].text for name in ids)
    old = np.concatenate(rows)
    new = checked_unit_vectors(
        encoder.encode_passages(texts),
        dimension=encoder.dimension,
        count=len(texts),
        what=f"samples encoded by {encoder.space!r}",
    )
    return DriftSample(texts, _unit(old), new, collection.space, encoder.space, tuple(ids))


def fit_drift(
    sample: DriftSample, *, method: Method = "procrustes", rank: int | None = None, ridge: float = 1e-2
) -> DriftMap:
    """Fit the map that takes the sample's new vectors nearest to its old ones.

    `rank` (default: half the smaller dimension) and `ridge` (times the mean variance) are for "low-rank".

    Raises:
        InputError: an unknown method, or a rank that the dimensions do not allow.
    """
    new = checked_vectors(sample.new, dimension=sample.new.shape[1], what="new vectors").astype(np.float64)
    old = checked_vectors(sample.old, dimension=sample.old.shape[1], count=len(new), what="old vectors").astype(
        np.float64
    )
    if method == "procrustes":
        if rank is not None:
            raise InputError(f"rank is {rank}, but an orthogonal map has none: leave it out, or use 'low-rank'")
        left, _, right = np.linalg.svd(new.T @ old, full_matrices=False)
        weight, bias = left @ right, np.zeros(old.shape[1])
    elif method == "low-rank":
        weight, bias = _low_rank(new, old, rank or max(1, min(new.shape[1], old.shape[1]) // 2), ridge)
    else:
        raise InputError(f"method is {method!r}, expected 'procrustes' or 'low-rank'")
    return DriftMap(weight.astype(np.float32), bias.astype(np.float32), sample.new_space, sample.old_space, method)


def measure_drift(
    sample: DriftSample,
    queries: Sequence[str],
    encoder: Encoder,
    *,
    old: Encoder | None = None,
    k: int = 10,
    method: Method = "procrustes",
    rank: int | None = None,
) -> tuple[DriftMap, DriftReport]:
    """Fit a map on one half of the sample, and measure on the other what it finds of what a re-embedding would find.

    The other half is the collection of this experiment: its new vectors are the full re-embedding, its old vectors
    what the map searches. Give real queries; the fit sees none of them.

    Raises:
        InputError: no queries, k below 1, or a sample of fewer than four texts.
    """
    if k < 1 or not queries or len(sample.texts) < 4:
        raise InputError(f"k={k}, {len(queries)} queries, {len(sample.texts)} texts: expected at least 1, 1 and 4")
    seen, unseen = sample.halves()
    drift = fit_drift(seen, method=method, rank=rank)
    asked = encoder.encode_queries(queries)
    depth = exact_depth(k)
    truth = [nearest_of(row, k, asked=depth) for row in _nearest(asked, unseen.new, depth)]

    def scores(doubtful: Mapping[int, Sequence[PointId]]) -> dict[int, dict[PointId, float]]:
        return {n: {i: float(asked[n] @ unseen.new[int(i)]) for i in rows} for n, rows in doubtful.items()}

    def recall(vectors: Vectors) -> float:
        return recall_at(k, [[place for place, _ in row] for row in _nearest(vectors, unseen.old, k)], truth, scores)

    unbridged = None if old is None else recall(old.encode_queries(queries))
    report = DriftReport(method, k, len(seen.texts), len(unseen.texts), len(queries), recall(drift(asked)), unbridged)
    return drift, report


def _low_rank(
    new: NDArray[np.float64], old: NDArray[np.float64], rank: int, ridge: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not 1 <= rank <= min(new.shape[1], old.shape[1]) or ridge < 0:
        raise InputError(f"rank is {rank} and ridge {ridge}, expected 1 to {min(new.shape[1], old.shape[1])}, and >= 0")
    centre_new, centre_old = new.mean(axis=0), old.mean(axis=0)
    x, y = new - centre_new, old - centre_old
    gram = x.T @ x
    damping = ridge * np.trace(gram) / len(gram)
    full = np.linalg.solve(gram + damping * np.eye(len(gram)), x.T @ y)
    _, _, directions = np.linalg.svd(x @ full, full_matrices=False)
    kept = directions[:rank]
    weight = full @ kept.T @ kept
    return weight, centre_old - centre_new @ weight


def _nearest(queries: ArrayLike, rows: Vectors, depth: int) -> list[list[tuple[PointId, float]]]:
    """Row numbers and scores of the nearest rows, best first, by comparing with all of them."""
    scores = np.asarray(queries, np.float32) @ rows.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return [[(int(place), float(line[place])) for place in places] for line, places in zip(scores, order, strict=True)]


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
