from .importer import Traces, read_traces
from .records import TraceSettings
from .report import TraceReport

__all__ = ["TraceReport", "TraceSettings", "Traces", "read_traces"]
