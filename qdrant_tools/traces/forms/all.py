"""Every form in which traces are read, in the order in which a row is tried.

Guarantees: no row is of two forms. Does not know: files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_tools.traces.forms.otel.envelopes.phoenix import PARENT_NOTE, is_without_parents
from qdrant_tools.traces.forms.otel.forms import CONVENTIONS, OTEL_FORMS, WITH_CONVENTIONS
from qdrant_tools.traces.forms.tools.bedrock_agents import BedrockAgents
from qdrant_tools.traces.forms.tools.gateways import Helicone, LiteLLM
from qdrant_tools.traces.forms.tools.langfuse import Langfuse
from qdrant_tools.traces.forms.tools.langsmith import LangSmith
from qdrant_tools.traces.forms.tools.layouts import ANY, LAYOUT_FORMS, LayoutForm
from qdrant_tools.traces.forms.tools.llamaindex_events import LlamaIndexEvents
from qdrant_tools.traces.forms.tools.mlflow import MlflowTraces
from qdrant_tools.traces.forms.tools.newrelic_events import NewRelicEvents
from qdrant_tools.traces.forms.tools.openwebui import OpenWebui
from qdrant_tools.traces.forms.tools.posthog import PostHog
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
    PostHog(),
    Helicone(),
    LiteLLM(),
    NewRelicEvents(),
    BedrockAgents(),
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


@dataclass(frozen=True)
class WithoutRetrieval:
    """Rows among whole searches for which nothing was retrieved: chat programs write a greeting as any message."""

    name: str = "rows"

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has a query and an empty list of documents, and is of no known tool."""
        return _ROWS.is_empty(row) and not any(form.recognises(row) for form in TOOLS)

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> Iterable[Span | Annotation]:
        """The question and its answer. Raises `InputError`."""
        return _ROWS.read(row, settings)


_SPANS, _ROWS = LayoutForm("spans", (ANY,)), WholeRows()
_ALSO_WRITES = {"phoenix": frozenset({"otlp"})}
"""Phoenix gives its spans out as spans of OTLP too (`otlpv1`)."""
_PAGES = {"phoenix": {100: "the REST API gives 100 spans", 1000: "get_spans_dataframe gives the newest 1,000 spans"}}


def may_be(named: str, told: str) -> bool:
    """Whether rows of the form that was told are what somebody named: a convention may be in any envelope."""
    if named in _ALSO_WRITES:
        return told == named or told in _ALSO_WRITES[named]
    return named == told or (named in CONVENTIONS and told in WITH_CONVENTIONS)


def notes_on(rows: Mapping[str, int], fields: Iterable[Iterable[str]] = ()) -> list[str]:
    """What the number of rows of each form tells: just as many as a tool gives out at once are probably not all.

    fields: the names of the fields of each kind of row; given where there are retrievals, whose parents then matter.
    """
    pages = [
        f"{count:,} rows of {form}: {page} unless more is asked for by limit=, so there may be others"
        for form, count in rows.items()
        if (page := _PAGES.get(form, {}).get(count)) is not None
    ]
    return [*pages, PARENT_NOTE] if is_without_parents(fields) else pages


FORMS: tuple[TraceForm, ...] = (*TOOLS, Otherwise("rows", _ROWS), Otherwise("spans", _SPANS))
AMONG_OTHERS: tuple[TraceForm, ...] = (WithoutRetrieval(),)
"""Forms whose rows tell nothing of a file that has no others."""
