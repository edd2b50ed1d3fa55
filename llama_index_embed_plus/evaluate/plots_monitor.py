"""A monitoring report -> one PNG page. Needs the extra `plot`.

Guarantees and style as in `style`. Does not know: how it was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus.evaluate.style import FILLS, INK, page
from qdrant_tools.monitor.report import MonitorReport
from qdrant_tools.monitor.signals import Share


def monitor_page(path: Path, report: MonitorReport) -> None:
    """Write two panels: the share of searches that went badly, and click-through by rank; then and now, each with its
    95 % interval. The title says what is an alarm."""
    alarms = f"ALARM: {', '.join(report.alarms)}" if report.alarms else "no alarm"
    span = f"{report.current.start:%Y-%m-%d} to {report.current.end:%Y-%m-%d}"
    searches = f"{report.counts['current']['searches']} searches, {report.counts['reference']['searches']} before"
    lines = [f"{report.collection}, {span} ({searches}): {alarms}"]
    if report.drift is not None:
        lines.append(f"drift of the queries {report.drift.share:.1%}, p = {report.drift.p_value:.3g}")
    if report.canaries is not None:
        state = "passed" if report.canaries.passed else "failed"
        lines.append(f"canaries {state}: {report.canaries.mean:.1%} found")
    if report.estimate is not None:
        its = report.estimate
        lines.append(f"candidate {its.difference:+.3f} [{its.low:+.3f}, {its.high:+.3f}] gain: {its.verdict}")
    figure, (left, right) = page(2, "\n".join(lines))
    _pairs(left, [(each.reference, each.current) for each in report.signals])
    left.set_xticks(range(len(report.signals)), [each.name.replace("_", " ") for each in report.signals])
    left.set_ylabel("share of the searches (0 to 1)")
    left.legend(frameon=False)
    ranks = report.click_through
    _pairs(right, [(each.reference, each.current) for each in ranks])
    right.set_xticks(range(len(ranks)), [str(each.rank) for each in ranks])
    right.set_xlabel("rank of the hit")
    right.set_ylabel("share of hits that were clicked (0 to 1)")
    figure.savefig(path, dpi=120)


def _pairs(axis: Any, pairs: Sequence[tuple[Share, Share]]) -> None:
    """Two bars per place with their intervals."""
    for side, ((colour, hatch), name) in enumerate(zip(FILLS, ("reference window", "current window"))):
        shares = [pair[side] for pair in pairs]
        heights = np.array([share.share for share in shares])
        errors = np.array([(s.share - s.low, s.high - s.share) for s in shares]).reshape(-1, 2).T
        at = np.arange(len(shares)) + (side - 0.5) * 0.4
        axis.bar(at, heights, 0.4, color=colour, hatch=hatch, edgecolor=INK, label=name)
        axis.errorbar(at, heights, np.maximum(errors, 0), fmt="none", ecolor=FILLS[2][0], capsize=2, linewidth=1)
    axis.set_ylim(bottom=0)
