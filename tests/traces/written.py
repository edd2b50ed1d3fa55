"""A trace as an instrumented application writes it, span by span, in a file; and what the import makes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.traces import TraceReport, TraceSettings, read_traces

START = datetime(2026, 10, 5, 9, 0, tzinfo=UTC)

Documents = Sequence[tuple[str, float | None]]


def hex_of(name: str, digits: int) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def span(
    name: str,
    kind: str = "CHAIN",
    *,
    trace: str = "t",
    parent: str | None = None,
    at: float = 0,
    lasts: float = 1,
    query: Any = None,
    answer: str | None = None,
    documents: Documents | None = None,
    reranked: Documents | None = None,
    failed: bool = False,
    service: str = "shop",
    **attributes: Any,
) -> dict[str, Any]:
    """A span as the SDK writes it; `name` is its id too, by a hash."""
    own: dict[str, Any] = {"openinference.span.kind": kind}
    if query is not None:
        own["input.value"] = query if isinstance(query, str) else json.dumps(query)
    if answer is not None:
        own["output.value"] = answer
    for prefix, given in (("retrieval.documents", documents), ("reranker.output_documents", reranked)):
        for place, (document, score) in enumerate(given or ()):
            own |= {f"{prefix}.{place}.document.id": document, f"{prefix}.{place}.document.content": text_of(document)}
            own |= {} if score is None else {f"{prefix}.{place}.document.score": score}
    begin = START + timedelta(seconds=at)
    return {
        "name": name,
        "context": {"trace_id": f"0x{hex_of(trace, 32)}", "span_id": f"0x{hex_of(trace + name, 16)}"},
        "parent_id": None if parent is None else f"0x{hex_of(trace + parent, 16)}",
        "start_time": begin.isoformat(),
        "end_time": (begin + timedelta(seconds=lasts)).isoformat(),
        "status": {"status_code": "ERROR" if failed else "OK"},
        "attributes": own | {key.replace("__", "."): value for key, value in attributes.items()},
        "events": [],
        "resource": {"attributes": {"service.name": service}},
    }


def question(trace: str, query: str, documents: Documents, *, at: float = 0, **root: Any) -> list[dict[str, Any]]:
    """A question, its retrieval and its answer, children first."""
    answer = root.pop("answer", f"the answer to {query}")
    return [
        span(
            "retrieve", "RETRIEVER", trace=trace, parent="ask", at=at + 0.1, lasts=0.2, query=query, documents=documents
        ),
        span("ask", trace=trace, at=at, query=query, answer=answer, **root),
    ]


def text_of(document: str) -> str:
    return f"what the passage {document} says about its subject"


def annotation(name: str, about: str, *, trace: str = "t", **said: Any) -> dict[str, Any]:
    """An annotation of a span as Phoenix gives it in a table."""
    row = {"label": None, "score": None, "explanation": None} | said
    return {
        "span_id": hex_of(trace + about, 16),
        "annotation_name": name,
        "annotator_kind": row.pop("by", "HUMAN"),
        "identifier": row.pop("who", ""),
        "created_at": row.pop("at", (START + timedelta(hours=1)).isoformat()),
        "id": row.pop("id", hex_of(f"{name}{about}{row}", 12)),
        **{f"result.{key}": row[key] for key in ("label", "score", "explanation")},
        **{key: value for key, value in row.items() if key not in ("label", "score", "explanation")},
    }


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def imported(tmp_path: Path, *rows: Mapping[str, Any], **settings: Any) -> tuple[list[LoggedSearch], TraceReport]:
    """The searches of rows, and the report."""
    with read_traces(write(tmp_path / "rows.jsonl", rows), TraceSettings(**settings)) as traces:
        return list(traces.searches()), traces.report


def ids(search: LoggedSearch) -> list[str]:
    return [hit.id for hit in search.hits]
