"""Rows of every tool with each value replaced by what should not be there: understood or refused, never a traceback."""

from collections.abc import Iterator
from typing import Any

import pytest
import test_langfuse_rows as langfuse
import test_langsmith_runs as langsmith
import test_mlflow_traces as mlflow
import test_other_tools as others
from tool_rows import langchain, scored

from qdrant_tools.errors import InputError
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.records import TraceSettings


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"input": [value]}
    return value


EVENT = {
    "timestamp": "2026-05-01T10:00:00", "id_": "e", "span_id": "R.retrieve-3d0f3a0e-0000-0000-0000-000000000000",
    "tags": {}, "str_or_query_bundle": {"query_str": "q"}, "nodes": [{"node": {"id_": "a", "text": "t"}, "score": 0.5}],
}  # fmt: skip
ROWS = {
    "langfuse": langfuse.observation(
        output=langchain("p1"), metadata={"attributes": {"openinference.span.kind": "RETRIEVER"}}
    ),
    "langfuse score": langfuse.score(),
    "langsmith": langsmith.run(outputs={"documents": langchain("p1")}),
    "langsmith feedback": langsmith.feedback(),
    "mlflow": mlflow.trace(
        mlflow.span(inputs="q", outputs=scored("p1")), assessments=[mlflow.assessment("relevance", {"0": True})]
    ),
    "llamaindex": EVENT,
    "chat": others.chat(),
    **{name: rows[0] for name, rows in others.TOOLS.items()},
    **{f"{name} {place}": others.TOOLS[name][place]
       for name, place in [("posthog", 3), ("newrelic-ai", 1), ("newrelic-ai", 4), ("bedrock-agents", 1)]},
}  # fmt: skip
ODD = [
    None, True, -1, 10**30, float("nan"), "", "\0", "x" * 5000, [], {}, [None], [[]], [[[1]]], {"": None}, "{", "[{}]",
    {"a": [1, {"b": []}]}, nested(60), "[" * 500, "Document(" * 100, "page_content=' metadata=", b"x",
]  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from paths(part, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], odd)
    return copy


@pytest.mark.parametrize("name", ROWS)
def test_whatever_stands_in_a_row_it_is_read_or_refused(name: str) -> None:
    row = ROWS[name]
    for path in paths(row):
        if not path:
            continue
        for odd in ODD:
            damaged = replaced(row, path, odd)
            for form in FORMS:
                if not form.recognises(damaged):
                    continue
                try:
                    list(form.read(damaged, TraceSettings()))
                except InputError:
                    continue
