from .importer import Traces, read_traces
from .records import Annotation, Span, SpanDocument, TraceSettings
from .report import TraceReport

__all__ = ["Annotation", "Span", "SpanDocument", "TraceReport", "TraceSettings", "Traces", "read_traces"]
