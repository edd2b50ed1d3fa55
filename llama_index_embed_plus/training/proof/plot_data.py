"""Vectors before and after -> the numbers behind two pictures: how scores are distributed, and a plane of the vectors.

Guarantees: small (a few hundred points), the same queries and passages before and after, the same seed the same
numbers. Does not know: how they are drawn; see `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.records import Qrels, Vectors

BIN_EDGES = np.linspace(-1.0, 1.0, 81)
"""Edges of the histograms of cosines; the last bin includes 1."""
_IRRELEVANT_PER_QUERY = 50
_QUERIES_SHOWN, _PASSAGES_SHOWN = 100, 200

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class View:
    """What one encoder makes of the held-out data.

    relevant, irrelevant: passages per bin of `BIN_EDGES`. queries, passages: their places in the plane of the two
    largest principal components (Pearson 1901) of both encoders' vectors together; `explained` is the share of this
    encoder's variance in it.
    """

    relevant: tuple[int, ...]
    irrelevant: tuple[int, ...]
    queries: Points
    passages: Points
    explained: float


@dataclass(frozen=True)
class PlotData:
    """The views of two encoders on the same queries and passages, in one plane: what did not move lies where it lay."""

    before: View
    after: View


@dataclass(frozen=True, eq=False)
class QueryPassageVectors:
    """Queries (n, dimension) and passages (m, dimension) of one encoder."""

    queries: Vectors
    passages: Vectors


def plot_data(
    qrels: Qrels,
    query_ids: Sequence[str],
    passage_ids: Sequence[str],
    systems: tuple[QueryPassageVectors, QueryPassageVectors],
    *,
    seed: int,
) -> PlotData:
    """Compute both views; irrelevant passages are a seeded sample of those that are not judged relevant."""
    place = {name: i for i, name in enumerate(passage_ids)}
    random = np.random.default_rng(seed)
    relevant, irrelevant = _pairs(qrels, query_ids, place, random)
    queries = np.sort(random.permutation(len(query_ids))[:_QUERIES_SHOWN])
    # answers first: the picture is about where they lie
    answers = dict.fromkeys(column for row, column in relevant.tolist() if row in set(queries.tolist()))
    others = dict.fromkeys(random.permutation(len(passage_ids))[:_PASSAGES_SHOWN].tolist())
    passages = np.array(list(answers | others)[:_PASSAGES_SHOWN], np.int64)
    shown = [np.concatenate([system.queries[queries], system.passages[passages]]) for system in systems]
    places, _ = principal_plane(np.concatenate(shown))
    before, after = (
        _view(system, relevant, irrelevant, plane, _explained(vectors, plane), len(queries))
        for system, vectors, plane in zip(systems, shown, np.split(places, 2))
    )
    return PlotData(before, after)


def principal_plane(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Project (n, dimension) rows onto their two largest principal components.

    Returns (n, 2) coordinates and the share of the variance that they keep. Signs are fixed by the largest coordinate
    of each component, so that the same data gives the same picture.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.pad(axes, ((0, max(0, 2 - len(axes))), (0, 0)))[:2]  # fewer than two rows or dimensions
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    total = float((sizes**2).sum())
    return centred @ (axes * np.where(signs == 0, 1, signs)[:, None]).T, float(
        (sizes[:2] ** 2).sum() / total
    ) if total else 1.0


def _pairs(
    qrels: Qrels, query_ids: Sequence[str], place: Mapping[str, int], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row of a query, row of a passage) of relevant pairs and of sampled irrelevant ones."""
    relevant, irrelevant = [], []
    for row, query in enumerate(query_ids):
        answers = {place[passage] for passage, grade in qrels[query].items() if grade > 0 and passage in place}
        relevant += [(row, column) for column in sorted(answers)]
        drawn = random.integers(len(place), size=_IRRELEVANT_PER_QUERY).tolist()
        irrelevant += [(row, column) for column in dict.fromkeys(drawn) if column not in answers]
    return np.array(relevant, np.int64).reshape(-1, 2), np.array(irrelevant, np.int64).reshape(-1, 2)


def _view(
    system: QueryPassageVectors,
    relevant: NDArray[np.int64],
    irrelevant: NDArray[np.int64],
    plane: NDArray[np.float64],
    explained: float,
    queries: int,
) -> View:
    points: Points = tuple((round(float(x), 4), round(float(y), 4)) for x, y in plane)
    return View(
        _counts(system, relevant),
        _counts(system, irrelevant),
        points[:queries],
        points[queries:],
        round(explained, 4),
    )


def _explained(vectors: NDArray[np.floating], plane: NDArray[np.float64]) -> float:
    """The share of the variance of (n, dimension) vectors that their (n, 2) places in a plane have."""
    total = float(np.var(np.asarray(vectors, np.float64), axis=0).sum())
    return float(np.var(plane, axis=0).sum()) / total if total else 1.0


def _counts(system: QueryPassageVectors, pairs: NDArray[np.int64]) -> tuple[int, ...]:
    # rounding may put a cosine beyond 1, where no bin would count it
    cosines = np.einsum("nd,nd->n", system.queries[pairs[:, 0]], system.passages[pairs[:, 1]])
    return tuple(np.histogram(np.clip(cosines, -1, 1), BIN_EDGES)[0].tolist())
