"""A map of vectors, or a few texts with their vectors -> pictures of what is near what. Needs the extra `plot`.

Every function takes the path first, None to write no file, and returns the figure, which a notebook shows.

Guarantees: the style of `style`; clusters differ in shape and lightness; axes labelled with units.
Does not know: encoders, collections; `mapping` makes the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.inputs import unit_rows
from llama_index_embed_plus.evaluate.mapping import VectorMap
from llama_index_embed_plus.evaluate.style import INK, MARKERS, finish, label_of, page, shades
from qdrant_tools.vectors import checked_vectors

if TYPE_CHECKING:
    from llama_index_embed_plus.evaluate.picture import Picture

MOST_TEXTS = 30
"""More do not fit on a heat map that can be read."""


def vector_map(path: Path | None, found: VectorMap, *, title: str = "") -> Picture:
    """Draw the points of a map, a shape and a shade per cluster, each cluster's name at the median of its points."""
    sampled = f"{len(found.points)} of {found.total} vectors" if found.total > len(found.points) else ""
    heading = title or f"{len(found.points)} vectors"
    figure, axis = page(1, f"{heading} ({sampled})" if sampled and title else sampled or heading, width=7.5, height=5.5)
    for cluster, (name, colour) in enumerate(zip(found.names, shades(len(found.names)))):
        points = found.points[found.clusters == cluster]
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
    if found.explained is None:
        names = [f"t-SNE dimension {number} (no unit)" for number in (1, 2)]
    else:
        names = [
            f"principal component {number} ({s:.1%} of the variance)" for number, s in enumerate(found.explained, 1)
        ]
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
    rows = unit_rows(
        checked_vectors(array, dimension=array.shape[-1] if array.ndim else 0, count=len(texts), what="vectors")
    )
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
        colour = "white" if (cosine - least) / (1 - least) > 0.55 else INK
        value = f"{round(cosine, 2) + 0.0:.2f}"  # no minus before zero
        axis.text(column, row, value, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axis, label="cosine similarity (-1 to 1)", shrink=0.8)
    return finish(figure, path)
