"""Measurements -> one PNG page each. Needs the extra `plot`.

Every function takes the path first, None to write no file, and returns the figure, which a notebook shows.

Guarantees: the style of `style`; axes labelled with units. Does not know: how it was measured.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llama_index_embed_plus.evaluate.style import DARK, FILLS, INK, LIGHT, MARKERS, finish, page, shades
from qdrant_tools.mine.audit import Audit
from qdrant_tools.mine.tally import BINS_PER_UNIT
from qdrant_tools.tune import Trial, TuningReport

if TYPE_CHECKING:
    from llama_index_embed_plus.evaluate.picture import Picture


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
        at = np.arange(len(metrics)) + (place - (len(systems) - 1) / 2) * width
        heights = [values[metric] for metric in metrics]
        bars = left.bar(at, heights, width, color=colour, hatch=hatch, edgecolor=INK, label=name)
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
    right.set_ylabel(f"nDCG@10 of {list(systems)[-1]} minus {next(iter(systems))}")
    return finish(figure, path)


def audit_page(path: Path | None, found: Audit, *, title: str = "Mined negatives") -> Picture:
    """Write two panels: how positives and negatives score, and what share of the candidates each rule removed.

    The title adds what the audit found of negatives that are relevant.
    """
    for finding in (each for each in found.false_negatives if each.looked_at):
        title += f"\n{finding.relevant} of {finding.looked_at} relevant by {finding.source}"
        title += f" ({finding.rate:.1%}, 95 % interval {finding.low:.1%} to {finding.high:.1%})"
    figure, (left, right) = page(2, title)
    for (colour, hatch), name in zip(FILLS, ("negatives", "positives")):
        bins = found.histograms.get(name, {})
        heights = np.array(list(bins.values())) / max(1, sum(bins.values()))
        places = np.array(list(bins)) / BINS_PER_UNIT
        label = f"{name} ({sum(bins.values())})"
        width = 1 / BINS_PER_UNIT
        left.bar(places, heights, width, align="edge", color=colour, hatch=hatch, edgecolor=INK, alpha=0.7, label=label)
    left.set_xlabel("similarity to the query")
    left.set_ylabel("share of the passages")
    left.legend(frameon=False)
    rules = list(found.removed_share)[::-1]
    bars = right.barh(rules, [found.removed_share[rule] for rule in rules], color=DARK)
    right.bar_label(bars, fmt="{:.1%}", fontsize=8, padding=2)
    right.set_xlim(0, 1)
    right.set_xlabel("share of the candidates that the rule removed")
    return finish(figure, path)


def recall_latency(path: Path | None, found: TuningReport) -> Picture:
    """Write one panel: every setting that was tried by its recall and its median latency, the chosen one marked."""
    reason = textwrap.fill(found.reason, 60)
    figure, axis = page(1, f"{found.collection}: {found.points} points, {found.queries} queries\n{reason}")
    families: dict[str, list[Trial]] = {}
    for trial in found.trials:
        quantized = "" if trial.quantization == "none" else f", {trial.quantization} x{trial.oversampling:g}"
        families.setdefault("exact" if trial.exact else f"m={trial.m}{quantized}", []).append(trial)
    for (name, trials), marker, shade in zip(families.items(), itertools.cycle(MARKERS), shades(len(families))):
        ordered = sorted(trials, key=lambda trial: trial.recall)
        x, y = [trial.recall for trial in ordered], [trial.p50_ms for trial in ordered]
        axis.plot(x, y, "-", marker=marker, markersize=5, linewidth=0.8, label=name, color=shade, markeredgecolor=INK)
        for trial in ordered if name != "exact" and len(families) <= 4 else ():
            axis.annotate(
                f"ef {trial.hnsw_ef}", (trial.recall, trial.p50_ms), (4, 4), "data", "offset points", fontsize=7
            )
    axis.plot([found.chosen.recall], [found.chosen.p50_ms], "o", markersize=14, fillstyle="none", color=INK)
    axis.axvline(found.target_recall, color=INK, linewidth=0.8, linestyle="--")
    axis.set_xlabel(f"recall@{found.k} against exact search (0 to 1)")
    axis.set_ylabel("median latency of a query (ms)")
    latencies = [trial.p50_ms for trial in found.trials]
    if max(latencies) > 10 * min(latencies):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, fontsize=8)
    return finish(figure, path)
