"""Vectors, or a sample of a collection -> a plane of points with named clusters, and pictures of what is near what.

`map_vectors` and `map_collection` compute a `VectorMap`; `vector_map` draws it. Both draw functions take the path
first, None to write no file, and return the figure, which a notebook shows.

Guarantees: the same for a seed; never more than `sample` vectors are held, drawn so that each is as likely as any
other; clusters differ in shape and lightness. Needs the extras `eval` and `plot`. Does not know: encoders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llama_index_embed_plus.evaluate.plots.style import INK, MARKERS, finish, label_of, page, shades
from llama_index_embed_plus.evaluate.tasks.inputs import needs_eval
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, sample_vectors
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.validation import checked_vectors, unit_rows
from qdrant_tools.vectors.clusters import distinctive_words

if TYPE_CHECKING:
    from llama_index_embed_plus.evaluate.plots.picture import Picture

Method = Literal["pca", "tsne"]
_AT_ONCE = 256
MOST_TEXTS = 30
"""More do not fit on a heat map that can be read."""


@dataclass(frozen=True)
class MapSettings:
    """How the plane and the clusters are computed.

    method: "pca" (Pearson 1901), linear, or "tsne" (van der Maaten and Hinton, JMLR 2008), which keeps neighbours
        together; distances between groups mean nothing.
    clusters: of k-means on the unit vectors; fewer if there are fewer different vectors.
    sample: of vectors, at most.
    """

    method: Method = "pca"
    clusters: int = 8
    sample: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(f"method is {self.method!r}, expected one of {', '.join(get_args(Method))}")
        if self.clusters < 1 or self.sample < 4:
            raise UsageError(f"{self}: expected at least 1 cluster and a sample of at least 4")


@dataclass(frozen=True, eq=False)
class VectorMap:
    """`points` (n, 2) and `clusters` (n,), the number of each point's cluster; `names` of the clusters."""

    points: NDArray[np.float64]
    clusters: NDArray[np.int64]
    names: tuple[str, ...]
    method: Method
    explained: tuple[float, float] | None
    """Share of the variance along each axis; of "pca" alone."""
    total: int
    """Vectors that the sample was drawn from."""


def map_vectors(
    vectors: ArrayLike,
    *,
    texts: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    settings: MapSettings | None = None,
) -> VectorMap:
    """Place vectors (n, dimension) in a plane and cluster them.

    texts: clusters are named by the words that tell them from the others. labels: by their most frequent label.
    Raises:
        InputError: fewer than 4 vectors, or another number of texts or labels than of vectors.
        VectorError: NaN or a row of zeros.
        MissingExtraError: scikit-learn is not installed.
    """
    needs_eval("a map of vectors")
    settings = settings or MapSettings()
    array = np.asarray(vectors)
    if array.ndim != 2 or len(array) < 4:
        raise InputError(f"vectors of shape {array.shape}, expected (n, dimension) with n of at least 4")
    for what, column in (("texts", texts), ("labels", labels)):
        if column is not None and len(column) != len(array):
            raise InputError(f"{len(column)} {what} for {len(array)} vectors")
    sample = np.sort(np.random.default_rng(settings.seed).permutation(len(array))[: settings.sample])
    sampled_texts = None if texts is None else [texts[row] for row in sample]
    sampled_labels = None if labels is None else [labels[row] for row in sample]
    return _map(array[sample], sampled_texts, sampled_labels, settings, len(array))


def map_collection(
    collection: Collection, *, label: str | None = None, settings: MapSettings | None = None
) -> VectorMap:
    """Map a random sample of a collection. `label` is a metadata field that names the clusters; else their words do.

    Raises:
        InputError: the collection holds fewer than 4 vectors.
        MissingExtraError: scikit-learn is not installed.
    """
    needs_eval("a map of a collection")
    settings = settings or MapSettings()
    sample = sample_vectors(collection, settings.sample, seed=settings.seed)
    ids = sample.ids
    passages = {
        name: passage
        for start in range(0, len(ids), _AT_ONCE)
        for name, passage in fetch(collection, ids[start : start + _AT_ONCE]).items()
    }
    if len(ids) < 4:
        raise InputError(f"collection {collection.name!r} holds {sample.total} vectors, expected at least 4 for a map")
    # a passage may have been deleted since the sample was drawn
    texts = [passages[name].text if name in passages else "" for name in ids]
    labels = None
    if label is not None:
        labels = [str(passages[name].metadata.get(label, "")) if name in passages else "" for name in ids]
    return _map(sample.vectors, texts, labels, settings, sample.total)


def _map(
    vectors: NDArray[np.float32],
    texts: Sequence[str] | None,
    labels: Sequence[str] | None,
    settings: MapSettings,
    total: int,
) -> VectorMap:
    from sklearn.cluster import KMeans

    rows = unit_rows(checked_vectors(vectors, dimension=vectors.shape[1], what="vectors"), np.float64)
    # k-means cannot fill more clusters than there are different vectors
    count = min(settings.clusters, len(np.unique(rows, axis=0)))
    clusters = np.asarray(KMeans(count, n_init=4, random_state=settings.seed).fit_predict(rows), np.int64)
    points, explained = _plane(rows, settings)
    if labels is not None:
        names = [Counter(np.array(labels)[clusters == cluster]).most_common(1)[0][0] for cluster in range(count)]
    elif texts is not None:
        names = distinctive_words(texts, clusters)
    else:
        names = [f"cluster {cluster + 1}" for cluster in range(count)]
    return VectorMap(points, clusters, tuple(map(str, names)), settings.method, explained, total)


def _plane(rows: NDArray[np.float64], settings: MapSettings) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    if settings.method == "pca":
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full")  # the default draws at random for large inputs
        points = pca.fit_transform(rows)
        # vectors that are all the same have no variance to share out
        first, second = np.nan_to_num(pca.explained_variance_ratio_)
        return np.asarray(points, np.float64), (float(first), float(second))
    from sklearn.manifold import TSNE

    # scikit-learn refuses a perplexity that is not below the number of points
    perplexity = min(30.0, (len(rows) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=settings.seed)
    return np.asarray(tsne.fit_transform(rows), np.float64), None


def vector_map(path: Path | None, plane: VectorMap, *, title: str = "") -> Picture:
    """Draw the points of a map, a shape and a shade per cluster, each cluster's name at the median of its points."""
    sampled = f"{len(plane.points)} of {plane.total} vectors" if plane.total > len(plane.points) else ""
    heading = title or f"{len(plane.points)} vectors"
    figure, axis = page(1, f"{heading} ({sampled})" if sampled and title else sampled or heading, width=7.5, height=5.5)
    for cluster, (name, colour) in enumerate(zip(plane.names, shades(len(plane.names)))):
        points = plane.points[plane.clusters == cluster]
        marker = MARKERS[cluster % len(MARKERS)]
        label = f"{label_of(name, length=34)} ({len(points)})"
        axis.scatter(
            points[:, 0], points[:, 1], s=20, marker=marker, color=colour, edgecolors=INK, linewidths=0.2, label=label
        )
        box = {"facecolor": "white", "edgecolor": INK, "linewidth": 0.4, "alpha": 0.8, "pad": 1.5}
        axis.text(*np.median(points, axis=0), str(cluster + 1), fontsize=9, ha="center", va="center", bbox=box)
    handles, labels = axis.get_legend_handles_labels()
    numbered = [f"{number} {label}" for number, label in enumerate(labels, start=1)]
    axis.legend(
        handles, numbered, frameon=False, fontsize=8, markerscale=1.6, loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
    if plane.explained is None:
        names = [f"t-SNE dimension {number} (no unit)" for number in (1, 2)]
    else:
        shares = enumerate(plane.explained, start=1)
        names = [f"principal component {number} ({share:.1%} of the variance)" for number, share in shares]
    axis.set_xlabel(names[0])
    axis.set_ylabel(names[1])
    return finish(figure, path)


def similarity_heatmap(
    path: Path | None, texts: Sequence[str], vectors: ArrayLike, *, title: str = "Similarity of texts"
) -> Picture:
    """Draw the cosine of every text with every other; `vectors` is (n, dimension), a row per text.

    Raises:
        InputError: no texts, or more than `MOST_TEXTS`.
        VectorError: NaN, a row of zeros, or another number of vectors than of texts.
    """
    if isinstance(texts, str) or not 1 <= len(texts) <= MOST_TEXTS:
        raise InputError(f"{len(texts)} texts, expected a list of 1 to {MOST_TEXTS}")
    array = np.asarray(vectors)
    dimension = array.shape[-1] if array.ndim else 0
    rows = unit_rows(checked_vectors(array, dimension=dimension, count=len(texts), what="vectors"), np.float64)
    cosines = rows @ rows.T
    least = min(0.0, float(cosines.min()))
    size = max(4.5, 0.45 * len(texts) + 3)
    figure, axis = page(1, title, width=size + 1.5, height=size)
    image = axis.imshow(cosines, cmap="Greys", vmin=least, vmax=1.0)
    labels = [label_of(text, length=38) for text in texts]
    axis.set_xticks(np.arange(len(texts)), labels, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(np.arange(len(texts)), labels, fontsize=8)
    for row, column in np.ndindex(cosines.shape):
        cosine = float(cosines[row, column])
        # dark cells need light figures
        colour = "white" if (cosine - least) / (1 - least) > 0.55 else INK
        value = f"{round(cosine, 2) + 0.0:.2f}"  # no minus before zero
        axis.text(column, row, value, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axis, label="cosine similarity (-1 to 1)", shrink=0.8)
    return finish(figure, path)
