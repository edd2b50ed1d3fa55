"""Rows of the shapes that tools write, about texts of our own, and how tests read them."""

import base64
import json
from pathlib import Path
from typing import Any

from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.importer import read_traces
from qdrant_tools.traces.records import Annotation, Span, TraceSettings
from qdrant_tools.traces.report import TraceReport

TRACE, ROOT, STEP = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "53995c3f42cd8ad8"
WHEN = "2026-05-01T10:00:00Z"
TEXTS = {"p1": "Pumice floats on water.", "p2": "Slate splits into thin sheets.", "p3": "Chalk is made of shells."}


def read(*rows: dict[str, Any], settings: TraceSettings | None = None) -> tuple[list[Span], list[Annotation]]:
    """What the one form that recognises each row makes of it."""
    spans: list[Span] = []
    annotations: list[Annotation] = []
    for row in rows:
        (form,) = [form for form in FORMS if form.recognises(row)]
        for each in form.read(row, settings or TraceSettings()):
            spans.append(each) if isinstance(each, Span) else annotations.append(each)
    return spans, annotations


def imported(
    folder: Path, *rows: dict[str, Any], settings: TraceSettings | None = None
) -> tuple[list[LoggedSearch], TraceReport]:
    """The searches of a file of rows, through the whole import."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
    with read_traces(file, settings) as traces:
        found = list(traces.searches())
        return found, traces.report


def ids(search: LoggedSearch) -> list[str]:
    return [hit.id for hit in search.hits]


def langchain(*names: str) -> list[dict[str, Any]]:
    """Documents as LangChain dumps them: the point's id is in the metadata, the document's own is empty."""
    return [
        {"id": None, "page_content": TEXTS[name], "metadata": {"_id": name, "_collection_name": "rocks"}}
        for name in names
    ]


def scored(*names: str) -> list[dict[str, Any]]:
    """Documents as an application writes them itself."""
    return [{"id": name, "text": TEXTS[name], "score": 0.9 - place / 10} for place, name in enumerate(names)]


def base64_of(hex_id: str) -> str:
    return base64.b64encode(bytes.fromhex(hex_id)).decode()
