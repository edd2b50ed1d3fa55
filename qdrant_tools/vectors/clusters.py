"""A collection -> groups of passages about the same, named by their words.

The centres are those of a sample; then every passage goes to the nearest one, page by page. Memory holds the sample and
a page, whatever the size of the collection.

Guarantees: the same for a seed and the same contents. Nothing is embedded; only `Clustering.write` writes. Does not
know: encoders.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.client.gateway import PointId
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, sample_vectors, vector_pages
from qdrant_tools.errors import InputError
from qdrant_tools.records import Progress, Vectors
from qdrant_tools.validation import checked_count, unit_rows
from qdrant_tools.vectors.kmeans import choose_count, kmeans, nearest, silhouette
from qdrant_tools.vectors.written import write_field

SAMPLE = 20_000
MOST = 32
"""Clusters, where their number is chosen."""
NAMING = 5000
"""Texts that name the clusters."""
CENTRAL = 3
WORD = re.compile(r"[^\W\d_]{3,}")
WORDS_PER_NAME = 3
_AT_ONCE = 256


@dataclass(frozen=True)
class Cluster:
    """One group: `central` are the ids of the passages nearest to its centre, `cohesion` the mean cosine with it."""

    number: int
    name: str
    size: int
    cohesion: float
    central: tuple[str, ...]


@dataclass(frozen=True)
class Assigned:
    """A page of passages, each with the number of its cluster (from 0) and the cosine with its centre."""

    points: list[PointId]
    ids: list[str]
    numbers: NDArray[np.int64]
    cosines: NDArray[np.float32]


@dataclass(frozen=True)
class Clustering:
    """What `cluster` found: the largest cluster of the sample first."""

    collection: Collection = field(repr=False)
    clusters: tuple[Cluster, ...]
    silhouette: float
    """How much nearer the sample is to its own centres than to the next: from -1 to 1; under 0.1 there are hardly
    any groups."""
    tried: dict[int, float]
    """Numbers of clusters -> their silhouette on held-out vectors, if the number was chosen."""
    sampled: int
    total: int
    centres: Vectors = field(repr=False, compare=False)

    def assigned(self, *, progress: Progress | None = None) -> Iterator[Assigned]:
        """Every passage of the collection with its cluster, page by page."""
        return _assigned(self.collection, self.centres, progress)

    def write(self, field: str, *, progress: Progress | None = None) -> int:
        """Write the name of its cluster into a metadata field of every passage; see `written.write_field`."""
        names = [cluster.name for cluster in self.clusters]
        pages = self.assigned(progress=progress)
        return write_field(
            self.collection, field, ((page.points, [names[number] for number in page.numbers]) for page in pages)
        )

    def as_row(self) -> dict[str, object]:
        rows = [
            {
                "number": each.number,
                "name": each.name,
                "size": each.size,
                "cohesion": each.cohesion,
                "central": list(each.central),
            }
            for each in self.clusters
        ]
        return {
            "collection": self.collection.name,
            "passages": self.total,
            "sampled": self.sampled,
            "silhouette": self.silhouette,
            "tried": {str(count): value for count, value in self.tried.items()},
            "clusters": rows,
        }


def cluster(
    collection: Collection,
    count: int | None = None,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Clustering:
    """Part the passages of a collection into `count` groups of like ones, by spherical k-means on a sample.

    Without a count, the one of the largest silhouette on held-out vectors is taken, among numbers from 2 to the square
    root of the passages, 32 at most.

    Raises:
        InputError: fewer than 4 vectors, fewer in the sample, or a count below 2.
    """
    if count is not None:
        checked_count("count", count, least=2)
    checked_count("sample", sample, least=4)
    drawn = sample_vectors(collection, sample, seed=seed)
    if len(drawn.ids) < 4:
        raise InputError(
            f"collection {collection.name!r} holds {drawn.total} vectors, expected at least 4 for clusters"
        )
    # in the order of the ids: that of an engine differs from one to the other
    order = sorted(range(len(drawn.ids)), key=drawn.ids.__getitem__)
    ids, rows = [drawn.ids[number] for number in order], unit_rows(drawn.vectors[order])
    tried = choose_count(rows, most=MOST, seed=seed) if count is None else {}
    if count is None:
        count = max(tried, key=tried.__getitem__)
    centres, numbers = kmeans(rows, count, seed=seed)
    names = _names(collection, ids, numbers, seed)
    sizes, sums, best = np.zeros(len(centres), np.int64), np.zeros(len(centres)), [_Nearest() for _ in centres]
    total = 0
    for page in _assigned(collection, centres, progress):
        total += len(page.ids)
        sizes += np.bincount(page.numbers, minlength=len(centres))
        sums += np.bincount(page.numbers, weights=page.cosines, minlength=len(centres))
        for name, number, cosine in zip(page.ids, page.numbers.tolist(), page.cosines.tolist(), strict=True):
            best[number].add(cosine, name)
    clusters = tuple(
        Cluster(
            number + 1,
            names[number],
            int(sizes[number]),
            float(sums[number] / max(1, sizes[number])),
            best[number].names(),
        )
        for number in range(len(centres))
    )
    return Clustering(collection, clusters, silhouette(rows, centres), tried, len(ids), total, centres)


def _assigned(collection: Collection, centres: Vectors, progress: Progress | None) -> Iterator[Assigned]:
    for page in vector_pages(collection):
        numbers, cosines = nearest(unit_rows(page.vectors), centres)
        yield Assigned(page.points, page.ids, numbers, cosines)
        if progress is not None:
            progress(len(page.ids))


def distinctive_words(texts: Sequence[str], clusters: NDArray[np.int64]) -> list[str]:
    """Name each cluster by the words that are in more of its texts than of all texts.

    The score of a word is p log(p / q): p is the share of the cluster's texts that have it, q that of all texts (its
    part of the Kullback-Leibler divergence).
    """
    words = [set(WORD.findall(text.lower())) for text in texts]
    overall = Counter(word for of_text in words for word in of_text)
    names = []
    for cluster in range(int(clusters.max()) + 1):
        members = [of_text for of_text, number in zip(words, clusters) if number == cluster]
        inside = Counter(word for of_text in members for word in of_text)
        score = {
            word: count / len(members) * math.log(count / len(members) * len(texts) / overall[word])
            for word, count in inside.items()
        }
        best = sorted(score, key=lambda word: (-score[word], word))[:WORDS_PER_NAME]
        names.append(", ".join(best) or f"cluster {cluster + 1}")
    return names


def _names(collection: Collection, ids: list[str], numbers: NDArray[np.int64], seed: int) -> list[str]:
    """A name for each cluster, no two alike."""
    # of each cluster its share of the texts, and one at least
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:NAMING])
    first = np.unique(numbers, return_index=True)[1]
    chosen = np.unique(np.concatenate([chosen, first]))
    named = [ids[number] for number in chosen]
    texts: dict[str, str] = {}
    for start in range(0, len(named), _AT_ONCE):
        stored = fetch(collection, named[start : start + _AT_ONCE])
        texts.update((name, passage.text) for name, passage in stored.items())
    # a passage may have been deleted since the sample was drawn
    words = distinctive_words([texts.get(name, "") for name in named], numbers[chosen])
    seen: dict[str, int] = {}
    unlike = []
    for name in words:
        seen[name] = seen.get(name, 0) + 1
        unlike.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unlike


class _Nearest:
    """The few passages nearest to a centre."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def add(self, cosine: float, name: str) -> None:
        if len(self._heap) < CENTRAL:
            heapq.heappush(self._heap, (cosine, name))
        else:
            heapq.heappushpop(self._heap, (cosine, name))

    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name in sorted(self._heap, key=lambda each: (-each[0], each[1])))
