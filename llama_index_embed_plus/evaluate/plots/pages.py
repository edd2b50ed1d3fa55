"""Measurements -> one PNG page each: quality, tuning, mining, monitoring. Needs the extra `plot`.

Every function takes the path first, None to write no file, and returns the figure, which a notebook shows.

Guarantees: the style of `style`; axes labelled with units. Does not know: how it was measured.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from llama_index_embed_plus.evaluate.plots.style import (
    DARK,
    FILLS,
    INK,
    LIGHT,
    MARKERS,
    finish,
    label_of,
    literal,
    page,
    shades,
)
from llama_index_embed_plus.evaluate.retrieval.comparison import Comparison
from qdrant_tools.errors import InputError
from qdrant_tools.mining.false_negatives import Audit
from qdrant_tools.mining.miner import BINS_PER_UNIT
from qdrant_tools.monitor.report import MonitorReport
from qdrant_tools.monitor.signals import Share
from qdrant_tools.records import Qrels, Run
from qdrant_tools.tuning import TuningReport, TuningTrial

if TYPE_CHECKING:
    from llama_index_embed_plus.evaluate.plots.picture import Picture

BINS = 40
TEXTS_SHOWN = 3
MOST_EDGES = 60
"""With more bars than this, only their edges would be seen."""


def before_after(
    path: Path | None,
    systems: Mapping[str, Mapping[str, float]],
    *,
    differences: Sequence[float],
    title: str,
) -> Picture:
    """Write two panels: the metrics of each system, and the last system's nDCG minus the first's for every query."""
    figure, (left, right) = page(2, title)
    metrics = list(next(iter(systems.values())))
    width = 0.8 / len(systems)
    for place, ((name, values), (colour, hatch)) in enumerate(zip(systems.items(), FILLS)):
        # the bars of one metric stand side by side, their middle above its tick
        at = np.arange(len(metrics)) + (place - (len(systems) - 1) / 2) * width
        heights = [values[metric] for metric in metrics]
        bars = left.bar(at, heights, width, color=colour, hatch=hatch, edgecolor=INK, label=literal(name))
        left.bar_label(bars, fmt="%.3f", fontsize=8)
    left.set_xticks(np.arange(len(metrics)), metrics)
    left.set_ylim(0, 1)
    left.set_ylabel("mean over held-out queries (0 to 1)")
    left.legend(frameon=False, ncols=len(systems), loc="upper left")
    ordered = np.sort(np.asarray(differences))[::-1]
    right.bar(np.arange(len(ordered)), ordered, 1.0, color=np.where(ordered >= 0, DARK, LIGHT))
    right.axhline(0, color=INK, linewidth=0.8)
    right.set_ylim(-1, 1)
    right.set_xlabel("held-out queries, most improved first")
    right.set_ylabel(f"nDCG@10 of {literal(list(systems)[-1])} minus {literal(next(iter(systems)))}")
    return finish(figure, path)


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
    # one set of edges for both, or their shares could not be compared
    edges = np.histogram_bin_edges(every, BINS)
    figure, axis = page(1, title)
    kinds = (("others", "--", FILLS[0]), ("relevant", "-", FILLS[2]))
    for scores, (name, line, (colour, hatch)) in zip(sides, kinds):
        # one of the two kinds may be empty
        shares = np.histogram(scores, edges)[0] / max(1, len(scores))
        style = {"color": colour, "hatch": hatch, "edgecolor": INK, "alpha": 0.75, "linewidth": 0.5}
        axis.bar(edges[:-1], shares, np.diff(edges), align="edge", label=f"{name} ({len(scores)})", **style)
        if len(scores):
            middle = float(np.median(scores))
            label = f"median of the {name}, {middle:.2f}"
            axis.axvline(middle, ymax=0.7, color=INK, linewidth=1, linestyle=line, label=label)
    axis.set_ylim(top=1.4 * axis.get_ylim()[1])  # room for the legend, above the lines
    axis.set_xlabel(f"score ({unit})")
    axis.set_ylabel("share of the passages of its kind (0 to 1)")
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    return finish(figure, path)


def query_differences(path: Path | None, comparison: Comparison, *, title: str = "") -> Picture:
    """Draw two panels: the difference of every query, most improved first, and each query before against after.

    The left panel names the most improved and the most worsened queries, where their texts are known.
    """
    first, second = (name or default for name, default in zip(comparison.names, ("before", "after")))
    test = comparison.deciding
    interval = f"{test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f}), p {test.p_value:.4f}"
    figure, (left, right) = page(2, title or f"{second} minus {first}: {comparison.metric} {interval}")
    differences = np.array([change.difference for change in comparison.changes])
    colours = np.where(differences >= 0, DARK, LIGHT)
    edge = 0.3 if len(differences) <= MOST_EDGES else 0.0
    left.bar(np.arange(len(differences)), differences, 1.0, color=colours, edgecolor=INK, linewidth=edge)
    left.axhline(0, color=INK, linewidth=0.8)
    left.set_ylim(-1.05, 1.05)
    left.set_xlabel(f"queries, most improved first ({test.better} better, {test.same} same, {test.worse} worse)")
    left.set_ylabel(f"difference in {comparison.metric} (-1 to 1)")
    improved = [change.text for change in comparison.improved(TEXTS_SHOWN)]
    worsened = [change.text for change in comparison.worsened(TEXTS_SHOWN)]
    for place, side, texts in (((0.98, 0.97), "top", improved), ((0.02, 0.03), "bottom", worsened)):
        sign = "+" if side == "top" else "\N{MINUS SIGN}"
        lines = "\n".join(f"{sign} {label_of(text)}" for text in texts if text)
        align = "right" if side == "top" else "left"
        left.text(*place, lines, transform=left.transAxes, ha=align, va=side, fontsize=7, color=INK)
    _scatter(right, comparison)
    right.set_xlabel(f"{comparison.metric} of {literal(first)} (0 to 1)")
    right.set_ylabel(f"{comparison.metric} of {literal(second)} (0 to 1)")
    return finish(figure, path)


def _scatter(axis: Any, comparison: Comparison) -> None:
    """One circle per pair of values; the more queries have it, the larger it is."""
    # values that differ by rounding alone are one circle
    pairs, counts = np.unique(
        np.round([(change.before, change.after) for change in comparison.changes], 3), axis=0, return_counts=True
    )
    axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    colours = np.where(pairs[:, 1] >= pairs[:, 0], DARK, LIGHT)
    # `s` is an area: the root keeps a pair that most queries share from covering the rest
    axis.scatter(pairs[:, 0], pairs[:, 1], s=18 * counts**0.5, c=colours, edgecolors=INK, linewidths=0.5, alpha=0.8)
    # circles at 0 and 1 are drawn whole
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(-0.05, 1.05)


def recall_latency(path: Path | None, report: TuningReport) -> Picture:
    """Write one panel: every setting that was tried by its recall and its median latency, the chosen one marked.

    The line of a graph goes by its `hnsw_ef`. The ends of each line say which; between them, so does what is chosen.
    """
    title = f"{report.collection}: {report.points:,} points, {report.queries:,} queries"
    figure, axis = page(1, title, width=7.5, height=4.5)
    families: dict[str, list[TuningTrial]] = {}
    for trial in report.trials:
        quantized = "" if trial.quantization == "none" else f", {trial.quantization} x{trial.oversampling:g}"
        families.setdefault("exact" if trial.exact else f"m={trial.m}{quantized}", []).append(trial)
    for (name, trials), marker, shade in zip(families.items(), itertools.cycle(MARKERS), shades(len(families))):
        ordered = sorted(trials, key=lambda trial: trial.hnsw_ef or 0)
        x, y = [trial.recall for trial in ordered], [trial.p50_ms for trial in ordered]
        axis.plot(x, y, "-", marker=marker, markersize=5, linewidth=0.8, label=name, color=shade, markeredgecolor=INK)
        # every label of every curve would cover others: the ends say enough, one below its line and one above
        for trial, below in ((ordered[0], True), (ordered[-1], False)) if name != "exact" else ():
            if trial != report.chosen and len(families) <= 5:
                _name_trial(axis, trial, below=below)
    axis.plot([report.chosen.recall], [report.chosen.p50_ms], "o", markersize=14, fillstyle="none", color=INK)
    if not report.chosen.exact:
        _name_trial(axis, report.chosen, below=True, before="chosen: ")
    axis.axvline(report.target_recall, color=INK, linewidth=0.8, linestyle="--", label="target")
    axis.set_xlabel(
        f"recall@{report.k} against exact search (0 to 1)\n{textwrap.fill(label_of(report.reason, length=180), 90)}"
    )
    axis.set_ylabel("median latency of a query (ms)")
    latencies = [trial.p50_ms for trial in report.trials]
    if max(latencies) > 10 * min(latencies):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")  # 10 and not 10^1
    axis.margins(0.1, 0.12)  # room for the labels at the ends
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return finish(figure, path)


def _name_trial(axis: Any, trial: TuningTrial, *, below: bool, before: str = "") -> None:
    axis.annotate(
        f"{before}ef {trial.hnsw_ef}", (trial.recall, trial.p50_ms), (0, -11 if below else 7), "data",
        "offset points", ha="center", va="top" if below else "bottom", fontsize=7,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85},
    )  # fmt: skip


def audit_page(path: Path | None, report: Audit, *, title: str = "Mined negatives") -> Picture:
    """Write two panels: how positives and negatives score, and what share of the candidates each rule removed.

    The title adds what the audit found of negatives that are relevant.
    """
    for finding in report.false_negatives:
        title += f"\n{finding.sentence}"
    figure, (left, right) = page(2, title)
    for (colour, hatch), name in zip(FILLS, ("negatives", "positives")):
        bins = report.histograms.get(name, {})
        heights = np.array(list(bins.values())) / max(1, sum(bins.values()))
        # a bin's number is its lower edge times `BINS_PER_UNIT`
        places = np.array(list(bins)) / BINS_PER_UNIT
        label = f"{name} ({sum(bins.values())})"
        width = 1 / BINS_PER_UNIT
        left.bar(places, heights, width, align="edge", color=colour, hatch=hatch, edgecolor=INK, alpha=0.7, label=label)
    left.set_xlabel("similarity to the query")
    left.set_ylabel("share of the passages")
    left.legend(frameon=False)
    # barh draws the first at the bottom
    rules = list(report.removed_share)[::-1]
    bars = right.barh(rules, [report.removed_share[rule] for rule in rules], color=DARK)
    right.bar_label(bars, fmt="{:.1%}", fontsize=8, padding=2)
    # bars of a few percent on an axis to 1 would all look the same; the room is for the labels
    right.set_xlim(0, min(1.0, 1.25 * max(report.removed_share.values(), default=0.8) or 1.0))
    right.set_xlabel("share of the candidates that the rule removed")
    return finish(figure, path)


def monitor_page(path: Path | None, report: MonitorReport) -> Picture:
    """Write two panels: the share of searches that went badly, and click-through by rank.

    Both show then and now with their 95 % intervals. The title says what is an alarm.
    """
    alarms = f"ALARM: {', '.join(report.alarms)}" if report.alarms else "no alarm"
    span = f"{report.current.start:%Y-%m-%d} to {report.current.end:%Y-%m-%d}"
    searches = f"{report.counts['current']['searches']} searches, {report.counts['reference']['searches']} before"
    lines = [f"{report.collection}, {span} ({searches}): {alarms}"]
    if report.drift is not None:
        least = f"an alarm needs {report.alpha / report.tests:.4g} as the smallest of {report.tests} tests"
        lines.append(f"drift of the queries {report.drift.share:.1%}, p = {report.drift.p_value:.3g} ({least})")
    if report.canaries is not None:
        state = "passed" if report.canaries.passed else "failed"
        lines.append(f"canaries {state}: {report.canaries.mean:.1%} found")
    if report.estimate is not None:
        gain = report.estimate
        lines.append(f"candidate {gain.difference:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] gain: {gain.verdict}")
    figure, (left, right) = page(2, "\n".join(lines))
    _bars(left, [(signal.reference, signal.current) for signal in report.signals])
    left.set_xticks(range(len(report.signals)), [signal.name.replace("_", " ") for signal in report.signals])
    left.set_ylabel("share of the searches (0 to 1)")
    left.legend(frameon=False)
    ranks = report.click_through
    _bars(right, [(rate.reference, rate.current) for rate in ranks])
    right.set_xticks(range(len(ranks)), [str(rate.rank) for rate in ranks])
    right.set_xlabel("rank of the hit")
    right.set_ylabel("share of hits that were clicked (0 to 1)")
    return finish(figure, path)


def _bars(axis: Any, pairs: Sequence[tuple[Share, Share]]) -> None:
    """Two bars per place with their intervals."""
    for side, ((colour, hatch), name) in enumerate(zip(FILLS, ("reference window", "current window"))):
        shares = [pair[side] for pair in pairs]
        heights = np.array([share.share for share in shares])
        # the shape keeps two rows where there are no shares
        errors = np.array([(s.share - s.low, s.high - s.share) for s in shares]).reshape(-1, 2).T
        at = np.arange(len(shares)) + (side - 0.5) * 0.4
        axis.bar(at, heights, 0.4, color=colour, hatch=hatch, edgecolor=INK, label=name)
        # a share of nothing could be anything: it has no interval to draw
        known = np.array([share.of > 0 for share in shares], bool)
        # the bound of a share may pass it by rounding, and matplotlib refuses negative errors
        bounds = np.maximum(errors, 0)[:, known]
        axis.errorbar(at[known], heights[known], bounds, fmt="none", ecolor=FILLS[2][0], capsize=2, linewidth=1)
        for place in at[~known]:
            axis.annotate(
                "not measurable", (place, 0), (0, 3), textcoords="offset points", rotation=90, ha="center", fontsize=7
            )
    axis.set_ylim(bottom=0)
