"""Two encoders' vectors of the same texts -> a map from the new space into the old one, and what it costs.

While a large collection is being embedded again, the new model's queries can already search the old vectors through
such a map. There are two. An orthogonal one (Schönemann, "A generalized solution of the orthogonal Procrustes problem",
Psychometrika 1966) keeps all angles and needs few samples. A low-rank affine one (reduced-rank ridge regression) can
also stretch, and needs more. Bridging encoders on the query side is the idea of Drift-Adapter (EMNLP 2025, arXiv
2509.23471).

Guarantees: mapped vectors are unit vectors of the old space. What the bridge costs is measured against a full
re-embedding of the sample, on queries that the fit did not see. Does not know: how a collection is searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdrant_tools.client.gateway import PointId
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, sample_vectors
from qdrant_tools.errors import InputError, NotSupportedError, SpaceMismatchError
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.search.neighbours import exact_depth, nearest_of, recall_at
from qdrant_tools.validation import checked_unit_vectors, checked_vectors, unit_rows

BridgeMethod = Literal["procrustes", "low-rank"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bridge:
    """`old = unit(new @ weight + bias)`: weight (new dimension, old dimension), bias (old dimension,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    from_space: str
    to_space: str
    method: BridgeMethod

    def __call__(self, vectors: Vectors) -> Vectors:
        """Map (n, new dimension) vectors to (n, old dimension) unit vectors."""
        return unit_rows(vectors @ self.weight + self.bias)


class BridgedEncoder:
    """The new encoder for the queries of the old collection. It has the old space, and cannot fill a collection."""

    def __init__(self, encoder: Encoder, bridge: Bridge) -> None:
        if encoder.space != bridge.from_space:
            raise SpaceMismatchError(
                f"the map was fitted from {bridge.from_space!r}, this encoder makes {encoder.space!r}: fit it again"
            )
        self.encoder = encoder
        self.bridge = bridge

    @property
    def dimension(self) -> int:
        return int(self.bridge.weight.shape[1])

    @property
    def space(self) -> str:
        # the old space, although the model is new: with it a collection of the old vectors accepts this encoder
        return self.bridge.to_space

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.bridge(self.encoder.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        raise NotSupportedError(
            f"a bridge into {self.space!r} is for queries: index with the encoder that filled the collection"
        )


@dataclass(frozen=True)
class BridgeReport:
    """What a bridge finds of what a full re-embedding of the sample would find.

    `bridged` is the recall@k of mapped new queries over the old vectors, against new queries over new vectors.
    `unbridged` is that of the old encoder's own queries, None if there was no old encoder to ask.
    """

    method: BridgeMethod
    k: int
    fitted_on: int
    sample: int
    queries: int
    bridged: float
    unbridged: float | None

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class BridgeSample:
    """Texts of one collection with their vectors by both encoders, rows in the same order."""

    texts: tuple[str, ...]
    old: Vectors
    new: Vectors
    old_space: str
    new_space: str
    ids: tuple[str, ...] = field(default=())

    def halves(self) -> tuple[BridgeSample, BridgeSample]:
        """Every other text, and the rest: the order is the collection's, which says nothing about contents."""
        return self._every_other(0), self._every_other(1)

    def _every_other(self, first: int) -> BridgeSample:
        rows = slice(first, None, 2)
        return replace(self, texts=self.texts[rows], old=self.old[rows], new=self.new[rows], ids=self.ids[rows])


def draw_sample(collection: Collection, encoder: Encoder, *, size: int = 2000, seed: int = 0) -> BridgeSample:
    """Read stored texts and vectors, evenly over the collection, and embed the texts by the new encoder.

    Raises:
        InputError: fewer than two texts.
    """
    drawn = sample_vectors(collection, size, seed=seed)
    if len(drawn.ids) < 2:
        raise InputError(f"collection {collection.name!r} gives {len(drawn.ids)} texts, expected at least 2 to compare")
    stored = fetch(collection, drawn.ids)
    texts = tuple(stored[passage_id].text for passage_id in drawn.ids)
    new = checked_unit_vectors(
        encoder.encode_passages(texts),
        dimension=encoder.dimension,
        count=len(texts),
        what=f"samples encoded by {encoder.space!r}",
    )
    old = unit_rows(drawn.vectors)
    return BridgeSample(texts, old, new, collection.space, encoder.space, tuple(drawn.ids))


def fit_bridge(
    sample: BridgeSample, *, method: BridgeMethod = "procrustes", rank: int | None = None, ridge: float = 1e-2
) -> Bridge:
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
        # the orthogonal map of the smallest squared error; orthonormal rows or columns where the dimensions differ
        left, _, right = np.linalg.svd(new.T @ old, full_matrices=False)
        weight, bias = left @ right, np.zeros(old.shape[1])
    elif method == "low-rank":
        weight, bias = _low_rank(new, old, rank or max(1, min(new.shape[1], old.shape[1]) // 2), ridge)
    else:
        raise InputError(f"method is {method!r}, expected 'procrustes' or 'low-rank'")
    return Bridge(weight.astype(np.float32), bias.astype(np.float32), sample.new_space, sample.old_space, method)


def measure_bridge(
    sample: BridgeSample,
    queries: Sequence[str],
    encoder: Encoder,
    *,
    old: Encoder | None = None,
    k: int = 10,
    method: BridgeMethod = "procrustes",
    rank: int | None = None,
) -> tuple[Bridge, BridgeReport]:
    """Fit a map on one half of the sample, and measure on the other what it finds of what a re-embedding would find.

    The other half is the collection of this experiment: its new vectors are the full re-embedding, its old vectors
    what the map searches. Give real queries; the fit sees none of them.

    Raises:
        InputError: no queries, k below 1, or a sample of fewer than four texts.
    """
    # two texts in each half
    if k < 1 or not queries or len(sample.texts) < 4:
        raise InputError(f"k={k}, {len(queries)} queries, {len(sample.texts)} texts: expected at least 1, 1 and 4")
    fitted, searched = sample.halves()
    bridge = fit_bridge(fitted, method=method, rank=rank)
    vectors = encoder.encode_queries(queries)
    depth = exact_depth(k)
    truth = [nearest_of(ranking, k, depth=depth) for ranking in _nearest(vectors, searched.new, depth)]

    def exact_scores(rows: Mapping[int, Sequence[PointId]]) -> dict[int, dict[PointId, float]]:
        return {
            query: {row: float(vectors[query] @ searched.new[int(row)]) for row in ids} for query, ids in rows.items()
        }

    # not through an index: this measures the map, and a graph would lose neighbours of its own
    def recall(query_vectors: Vectors) -> float:
        rankings = _nearest(query_vectors, searched.old, k)
        return recall_at(k, [[row for row, _ in ranking] for ranking in rankings], truth, exact_scores)

    return bridge, BridgeReport(
        method=method,
        k=k,
        fitted_on=len(fitted.texts),
        sample=len(searched.texts),
        queries=len(queries),
        bridged=recall(bridge(vectors)),
        unbridged=None if old is None else recall(old.encode_queries(queries)),
    )


def _low_rank(new: Matrix, old: Matrix, rank: int, ridge: float) -> tuple[Matrix, Matrix]:
    """Ridge regression of `old` (n, old dimension) on `new` (n, new dimension), projected on the directions of the
    output that vary most."""
    if not 1 <= rank <= min(new.shape[1], old.shape[1]) or ridge < 0:
        raise InputError(f"rank is {rank} and ridge {ridge}, expected 1 to {min(new.shape[1], old.shape[1])}, and >= 0")
    centre_new, centre_old = new.mean(axis=0), old.mean(axis=0)
    x, y = new - centre_new, old - centre_old
    gram = x.T @ x
    damping = ridge * np.trace(gram) / len(gram)  # relative to the mean variance, so that `ridge` has no unit
    full = np.linalg.solve(gram + damping * np.eye(len(gram)), x.T @ y)
    _, _, directions = np.linalg.svd(x @ full, full_matrices=False)
    leading = directions[:rank]
    weight = full @ leading.T @ leading
    return weight, centre_old - centre_new @ weight


def _nearest(queries: ArrayLike, vectors: Vectors, depth: int) -> list[list[tuple[PointId, float]]]:
    """Row numbers and scores of the nearest vectors of each query, best first, by comparing with all of them."""
    scores = np.asarray(queries, np.float32) @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return [[(int(row), float(line[row])) for row in rows] for line, rows in zip(scores, order, strict=True)]
