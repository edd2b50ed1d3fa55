"""Scores, and the differences of two systems -> pictures of where they come from. Needs the extra `plot`.

Every function takes the path first, None to write no file, and returns the figure, which a notebook shows.

Guarantees: the style of `style`; axes labelled with units. Does not know: how it was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.compare import Comparison
from llama_index_embed_plus.evaluate.style import DARK, FILLS, INK, LIGHT, finish, label_of, page
from qdrant_tools.records import Qrels, Run

if TYPE_CHECKING:
    from llama_index_embed_plus.evaluate.picture import Picture

BINS = 40
TEXTS_SHOWN = 3
MOST_EDGES = 60
"""Bars; the edges of more would be all that is seen."""


def scores_by_relevance(run: Run, qrels: Qrels) -> tuple[list[float], list[float]]:
    """The scores of the passages that were found for judged queries: of relevant ones, and of all others.

    A passage without judgement is among the others, as in every metric.
    """
    relevant: list[float] = []
    others: list[float] = []
    for query, grades in qrels.items():
        for passage, score in run.get(query, {}).items():
            (relevant if grades.get(passage, 0) > 0 else others).append(score)
    return relevant, others


def score_histograms(
    path: Path | None,
    relevant: ArrayLike,
    irrelevant: ArrayLike,
    *,
    title: str = "Scores of relevant and other passages",
    unit: str = "cosine similarity, -1 to 1",
) -> Picture:
    """Draw how the scores of relevant and of other passages are distributed, each as shares of its own kind.

    Raises:
        InputError: no scores at all, or one that is not finite.
    """
    sides = [np.asarray(scores, np.float64).ravel() for scores in (irrelevant, relevant)]
    every = np.concatenate(sides)
    if not len(every) or not np.isfinite(every).all():
        raise InputError(f"{len(every)} scores, expected at least one, and all of them finite numbers")
    edges = np.histogram_bin_edges(every, BINS)
    figure, axis = page(1, title)
    kinds = (("others", "--", FILLS[0]), ("relevant", "-", FILLS[2]))
    for scores, (name, line, (colour, hatch)) in zip(sides, kinds):
        shares = np.histogram(scores, edges)[0] / max(1, len(scores))
        style = {"color": colour, "hatch": hatch, "edgecolor": INK, "alpha": 0.75, "linewidth": 0.5}
        axis.bar(edges[:-1], shares, np.diff(edges), align="edge", label=f"{name} ({len(scores)})", **style)
        if len(scores):
            middle = float(np.median(scores))
            label = f"median of the {name}, {middle:.2f}"
            axis.axvline(middle, color=INK, linewidth=1, linestyle=line, label=label)
    axis.set_ylim(top=1.4 * axis.get_ylim()[1])  # room for the legend
    axis.set_xlabel(f"score ({unit})")
    axis.set_ylabel("share of the passages of its kind (0 to 1)")
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    return finish(figure, path)


def query_differences(path: Path | None, found: Comparison, *, title: str = "") -> Picture:
    """Draw two panels: the difference of every query, most improved first, and each query before against after.

    The left panel names the most improved and the most worsened queries, where their texts are known.
    """
    first, second = (name or default for name, default in zip(found.names, ("before", "after")))
    test = found.deciding
    interval = f"{test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f}), p {test.p_value:.4f}"
    figure, (left, right) = page(2, title or f"{second} minus {first}: {found.metric} {interval}")
    differences = np.array([change.difference for change in found.changes])
    colours = np.where(differences >= 0, DARK, LIGHT)
    edge = 0.3 if len(differences) <= MOST_EDGES else 0.0
    left.bar(np.arange(len(differences)), differences, 1.0, color=colours, edgecolor=INK, linewidth=edge)
    left.axhline(0, color=INK, linewidth=0.8)
    left.set_ylim(-1.05, 1.05)
    left.set_xlabel(f"queries, most improved first ({test.better} better, {test.same} same, {test.worse} worse)")
    left.set_ylabel(f"difference in {found.metric} (-1 to 1)")
    improved = [change.text for change in found.improved(TEXTS_SHOWN)]
    worsened = [change.text for change in found.worsened(TEXTS_SHOWN)]
    for place, side, texts in (((0.98, 0.97), "top", improved), ((0.02, 0.03), "bottom", worsened)):
        sign = "+" if side == "top" else "\N{MINUS SIGN}"
        lines = "\n".join(f"{sign} {label_of(text)}" for text in texts if text)
        align = "right" if side == "top" else "left"
        left.text(*place, lines, transform=left.transAxes, ha=align, va=side, fontsize=7, color=INK)
    _cloud(right, found)
    right.set_xlabel(f"{found.metric} of {first} (0 to 1)")
    right.set_ylabel(f"{found.metric} of {second} (0 to 1)")
    return finish(figure, path)


def _cloud(axis: Any, found: Comparison) -> None:
    """One circle per pair of values, its area the number of queries that have it."""
    pairs, counts = np.unique(
        np.round([(change.before, change.after) for change in found.changes], 3), axis=0, return_counts=True
    )
    axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    colours = np.where(pairs[:, 1] >= pairs[:, 0], DARK, LIGHT)
    axis.scatter(pairs[:, 0], pairs[:, 1], s=18 * counts**0.5, c=colours, edgecolors=INK, linewidths=0.5, alpha=0.8)
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(-0.05, 1.05)
