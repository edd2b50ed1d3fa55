"""Every form in which traces are read, in the order in which a row is tried.

Guarantees: no row is of two forms. Does not know: files.
"""

from __future__ import annotations

from qdrant_tools.traces.forms.langfuse import Langfuse
from qdrant_tools.traces.forms.langsmith import LangSmith
from qdrant_tools.traces.forms.layouts import ANY, LAYOUT_FORMS, LayoutForm
from qdrant_tools.traces.forms.llamaindex_events import LlamaIndexEvents
from qdrant_tools.traces.forms.mlflow import MlflowTraces
from qdrant_tools.traces.forms.otel.forms import OTEL_FORMS
from qdrant_tools.traces.records import TraceForm

FORMS: tuple[TraceForm, ...] = (
    *OTEL_FORMS,
    Langfuse(),
    LangSmith(),
    MlflowTraces(),
    LlamaIndexEvents(),
    *LAYOUT_FORMS,
)
ANY_SPANS: TraceForm = LayoutForm("spans", (ANY,))
"""For rows that are of no known tool."""
