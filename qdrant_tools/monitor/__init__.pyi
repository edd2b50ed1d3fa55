from .canary import Canary, CanaryReport, freeze_canaries, read_canaries, run_canaries, write_canaries
from .counterfactual import Estimate, estimate_candidate
from .report import MonitorReport, MonitorSettings, monitor
from .signals import DriftTest, Signal, energy_test
from .windows import Span, Window, Windows, read_windows, recent_spans

__all__ = [
    "Canary",
    "CanaryReport",
    "DriftTest",
    "Estimate",
    "MonitorReport",
    "MonitorSettings",
    "Signal",
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
