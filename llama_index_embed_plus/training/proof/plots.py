"""A training report -> one PNG: what training did to the loss, to the metrics, to the scores and to the vectors.

Panels: loss of every step; the metrics after every stage; how relevant and irrelevant passages score, before and after;
queries and passages in one plane, that of the two largest principal components of both encoders' vectors.

Guarantees: readable in greyscale; the file is written whole or not at all; the panels before and after share their
axes; a panel for what was not measured says so. Does not know: how it was measured.
"""

from __future__ import annotations

from itertools import accumulate, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index_embed_plus.evaluate.plots.style import FILLS, INK, finish, literal, page
from llama_index_embed_plus.training.proof.plot_data import BIN_EDGES, View
from llama_index_embed_plus.training.proof.report import Stage, TrainReport

if TYPE_CHECKING:
    from llama_index_embed_plus.evaluate.plots.picture import Picture

_DARK, _LIGHT = FILLS[1][0], FILLS[2][0]
_LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-", "D"), ("--", "P"), (":", "X"))


def training_plot(path: Path | str | None, report: TrainReport) -> Picture:
    """Write the page to `path`, if there is one, and return it: a matplotlib `Figure` that a notebook shows.

    Its six axes are loss, scores before, plane before, and below them metrics, scores after, plane after.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return finish(_drawn(report), path)


def _drawn(report: TrainReport) -> Picture:
    title = f"{report.lineage.base}, {report.method}: {len(report.losses)} steps in {report.seconds:.0f} s"
    verdict = "may be promoted" if report.promotable else "not to be promoted"
    figure, axes = page(3, f"{title}\n{verdict}: {_cut(report.verdict)}", rows=2)
    (loss, scores_before, plane_before), (stages, scores_after, plane_after) = axes
    _loss(loss, report)
    _stages(stages, report)
    views = (report.proof.plot_data.before, report.proof.plot_data.after) if report.proof else (None, None)
    for axis, view, when in zip((scores_before, scores_after), views, ("before", "after")):
        _scores(axis, view, when)
    if report.proof is not None:
        _share_axes(scores_before, scores_after, views)
    for axis, view, when in zip((plane_before, plane_after), views, ("before", "after")):
        _plane(axis, view, when)
    if report.proof is not None:
        _share_plane(plane_before, plane_after, views)
    return figure


def _loss(axis: Any, report: TrainReport) -> None:
    axis.set_title("training loss")
    if not report.losses:
        _not_measured(axis, "no steps")
        return
    losses = np.array(report.losses)
    steps = np.arange(1, len(losses) + 1)
    axis.plot(steps, losses, color=FILLS[0][0], linewidth=0.8, label="every step")
    width = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    label = "loss" if width == 1 else f"mean of {width} steps"
    # a mean is drawn at the last of its steps
    axis.plot(steps[width - 1 :], smooth, color=_DARK, linewidth=1.6, label=label)
    # a line between two stages, none after the last
    for end, stage in zip(accumulate(done.steps for done in report.stages), report.stages[:-1]):
        axis.axvline(end, color=INK, linewidth=0.8, linestyle="--")
        axis.annotate(
            literal(stage.name), (end, losses.max()), (-3, 0), textcoords="offset points", fontsize=7, ha="right"
        )
    axis.set_xlabel("optimiser step")
    axis.set_ylabel("loss")
    axis.legend(frameon=False, fontsize=8)


def _stages(axis: Any, report: TrainReport) -> None:
    axis.set_title("metrics on held-out data")
    points = [(stage.name, stage.metrics) for stage in _measured(report)]
    names = list(dict.fromkeys(name for _, metrics in points for name in metrics))
    if not names:
        _not_measured(axis)
        return
    at = np.arange(len(points))
    for name, (line, marker), shade in zip(names, cycle(_LINES), cycle((_DARK, _LIGHT, INK))):
        # NaN leaves a gap where a stage was not measured by this name
        values = [metrics.get(name, np.nan) for _, metrics in points]
        axis.plot(at, values, line, marker=marker, color=shade, label=literal(name))
    axis.set_xticks(at, [literal(name) for name, _ in points], rotation=20 if len(points) > 3 else 0)
    axis.margins(x=0.15)
    axis.set_ylabel("mean over the queries")
    axis.legend(frameon=False, fontsize=8, ncols=2)


def _measured(report: TrainReport) -> list[Stage]:
    """The stages that were measured, between the base and the result of the proof.

    A stage is measured on dev queries and the proof on others: their figures are never joined to one line.
    """
    stages = [stage for stage in report.stages if stage.metrics]
    if report.proof is None:
        return stages
    base = Stage("base", 0, {f"{change.metric}, proof": change.before for change in report.proof.changes})
    result = Stage("result", 0, {f"{change.metric}, proof": change.after for change in report.proof.changes})
    return [base, *stages, result]


def _scores(axis: Any, view: View | None, when: str) -> None:
    axis.set_title(f"scores {when}")
    if view is None:
        _not_measured(axis)
        return
    for name, counts, (colour, hatch) in (
        ("irrelevant", view.irrelevant, FILLS[0]),
        ("relevant", view.relevant, FILLS[1]),
    ):
        shares = np.array(counts) / max(1, sum(counts))
        label = f"{name} ({sum(counts)})"
        axis.bar(
            BIN_EDGES[:-1], shares, np.diff(BIN_EDGES), align="edge", color=colour, hatch=hatch, edgecolor=INK,
            linewidth=0.4, alpha=0.75, label=label,
        )  # fmt: skip
    axis.set_xlabel("cosine of query and passage")
    axis.set_ylabel("share of the pairs")
    axis.legend(frameon=False, fontsize=8)


def _share_axes(before: Any, after: Any, views: tuple[View | None, View | None]) -> None:
    used = np.sum([[view.relevant, view.irrelevant] for view in views if view is not None], axis=(0, 1))
    bins = np.nonzero(used)[0]
    top = max(axis.get_ylim()[1] for axis in (before, after))
    for axis in (before, after):
        axis.set_xlim(BIN_EDGES[bins[0]], BIN_EDGES[bins[-1] + 1])
        axis.set_ylim(0, top)


def _plane(axis: Any, view: View | None, when: str) -> None:
    axis.set_title(f"queries and passages {when}")
    if view is None:
        _not_measured(axis)
        return
    for name, points, style in (
        ("passages", view.passages, {"marker": "o", "s": 12, "facecolors": "none", "edgecolors": _LIGHT}),
        ("queries", view.queries, {"marker": "x", "s": 18, "color": _DARK}),
    ):
        places = np.array(points).reshape(-1, 2)
        axis.scatter(places[:, 0], places[:, 1], label=f"{name} ({len(places)})", linewidths=0.8, **style)
    axis.set_xlabel(f"first principal component (the two have {view.explained:.0%} of the variance)")
    axis.set_ylabel("second principal component")
    # one scale for both components, or the shapes would be stretched
    axis.set_aspect("equal", adjustable="box")
    axis.legend(frameon=False, fontsize=8)


def _share_plane(before: Any, after: Any, views: tuple[View | None, View | None]) -> None:
    places = np.array([place for view in views if view is not None for place in (*view.queries, *view.passages)])
    low, high = places.min(axis=0), places.max(axis=0)
    # squares of one size, so that both panels have one scale
    middle, reach = (low + high) / 2, 0.55 * max(float((high - low).max()), 1e-3)
    for axis in (before, after):
        axis.set_xlim(middle[0] - reach, middle[0] + reach)
        axis.set_ylim(middle[1] - reach, middle[1] + reach)


def _not_measured(axis: Any, why: str = "not measured") -> None:
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color=INK)
    axis.set_xticks([])
    axis.set_yticks([])


def _cut(text: str, most: int = 150) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
