"""Every form in which traces are read, in the order in which a row is tried.

Guarantees: no row is of two forms. Does not know: files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_tools.traces.forms.otel.forms import OTEL_FORMS
from qdrant_tools.traces.forms.tools.langfuse import Langfuse
from qdrant_tools.traces.forms.tools.langsmith import LangSmith
from qdrant_tools.traces.forms.tools.layouts import ANY, LAYOUT_FORMS, LayoutForm
from qdrant_tools.traces.forms.tools.llamaindex_events import LlamaIndexEvents
from qdrant_tools.traces.forms.tools.mlflow import MlflowTraces
from qdrant_tools.traces.forms.tools.openwebui import OpenWebui
from qdrant_tools.traces.forms.tools.whole_rows import WholeRows
from qdrant_tools.traces.records import Annotation, Span, TraceForm, TraceSettings

TOOLS: tuple[TraceForm, ...] = (
    *OTEL_FORMS,
    Langfuse(),
    LangSmith(),
    MlflowTraces(),
    LlamaIndexEvents(),
    *LAYOUT_FORMS,
    OpenWebui(),
)
"""Those of known tools and conventions."""


@dataclass(frozen=True)
class Otherwise:
    """A form that any tool may write, for rows that are of no known one."""

    name: str
    form: TraceForm

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of this form, of none of a known tool, and a whole search before a step."""
        if not self.form.recognises(row) or any(form.recognises(row) for form in TOOLS):
            return False
        return self.form is _ROWS or not _ROWS.recognises(row)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterable[Span | Annotation]:
        """What the row says. Raises `InputError`."""
        return self.form.read(row, settings)


_SPANS, _ROWS = LayoutForm("spans", (ANY,)), WholeRows()
FORMS: tuple[TraceForm, ...] = (*TOOLS, Otherwise("rows", _ROWS), Otherwise("spans", _SPANS))
