"""A retrieval log and its collection -> is retrieval still as it was, and would another encoder do better?

`windows` cuts the log into a reference and the present, `drift` compares the queries of the two, `signals` their
scores, hits and clicks; `counterfactual` estimates another encoder from logged clicks; `canary` re-runs queries whose
answers are known; `report` puts all of it on one page.
"""

from __future__ import annotations

from qdrant_tools.monitor.canary import (
    Canary,
    CanaryReport,
    freeze_canaries,
    read_canaries,
    run_canaries,
    write_canaries,
)
from qdrant_tools.monitor.counterfactual import Estimate, estimate_candidate
from qdrant_tools.monitor.drift import DriftTest, energy_test
from qdrant_tools.monitor.report import MonitorReport, MonitorSettings, monitor
from qdrant_tools.monitor.windows import Span, Window, Windows, read_windows, recent_spans

__all__ = [
    "Canary",
    "CanaryReport",
    "DriftTest",
    "Estimate",
    "MonitorReport",
    "MonitorSettings",
    "Span",
    "Window",
    "Windows",
    "energy_test",
    "estimate_candidate",
    "freeze_canaries",
    "monitor",
    "read_canaries",
    "read_windows",
    "recent_spans",
    "run_canaries",
    "write_canaries",
]
