"""Logs of known tools in which no search is: the refusal names the tool, and what to export instead."""

import json

import pytest
from test_other_tools import TOOLS
from tool_rows import WHEN
from typer.testing import CliRunner

from llama_index_embed_plus.cli.app import app
from qdrant_tools.errors import InputError
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.forms.unread import KNOWN, WITHOUT_RETRIEVAL, why_unread
from qdrant_tools.traces.importer import read_traces

ROWS = {
    "Portkey": {"id": "1", "trace_id": "t", "created_at": WHEN, "request": {}, "response": {}, "ai_org": "openai",
                "ai_model": "m", "cost": 1},
    "invocations": {"schemaType": "ModelInvocationLog", "requestId": "r", "modelId": "m", "input": {}, "output": {}},
    "question": {"retrievalResults": [{"content": {"text": "Pumice"}, "score": 0.4}]},
    "Tempo": {"traceID": "a1", "rootServiceName": "s", "rootTraceName": "GET", "durationMs": 3},
    "X-Ray": {"TraceSummaries": [{"Id": "1-5", "Duration": 0.1}]},
    "Cloud Trace": {"projectId": "p", "traceId": "a1"},
    "metrics": {"resourceMetrics": []},
    "Cloud Logging": {"insertId": "i", "logName": "l", "jsonPayload": {}, "timestamp": WHEN},
    "Cloudflare": {"id": "1", "model": "m", "tokens_in": 3, "tokens_out": 4, "cached": False, "request": "{}"},
    "Azure": {"resourceId": "/S", "operationName": "o", "category": "RequestResponse", "time": WHEN},
    "DSPy": {"prompt": None, "messages": [], "kwargs": {}, "outputs": ["x"], "uuid": "u", "model": "m"},
    "TruLens": {"record_id": "r", "app_id": "a", "input": "q", "output": "a", "record_json": "{}", "ts": WHEN},
    "Langfuse": {"id": "1", "datasetId": "d", "input": "q", "expectedOutput": "a"},
    "Ragas": {"user_input": "Which rock floats?", "response": "Pumice.", "reference": "Pumice."},
    "DeepEval": {"input": "Which rock floats?", "actual_output": "Pumice.", "expected_output": "Pumice."},
    "chats": {"messages": [{"role": "user", "content": "Which rock floats?"}]},
}  # fmt: skip


def test_every_kind_has_an_example():
    assert len(ROWS) == len(KNOWN)


@pytest.mark.parametrize("name", ROWS)
def test_a_log_without_searches_is_refused_by_its_name_with_the_way_out(name, tmp_path):
    row = ROWS[name]
    assert not any(form.recognises(row) for form in FORMS)
    (kind,) = [kind for kind in KNOWN if kind.recognises(row)]
    assert name in kind.what and kind.instead
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=name):
        read_traces(file)
    result = CliRunner().invoke(app, ["log", "import", str(tmp_path / "log.sqlite"), str(file), "--yes"])
    assert result.exit_code != 0 and name in str(result.exception)
    assert not (tmp_path / "log.sqlite").exists()


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_read_is_not_taken_for_a_log_without_searches(tool):
    assert all(any(form.recognises(row) for form in FORMS) for row in TOOLS[tool])


def test_rows_of_nobody_are_no_known_log():
    assert why_unread([{"q": "x", "shown": "a,b"}, {"query": "x", "hits": "a"}, {"term": "x", "results": "a"}]) is None


def test_a_file_of_calls_alone_says_what_its_tool_would_write(tmp_path):
    (row,) = TOOLS["litellm"]
    file = tmp_path / "calls.jsonl"
    file.write_text(json.dumps({**row, "metadata": {}}) + "\n")
    result = CliRunner().invoke(app, ["log", "import", str(tmp_path / "log.sqlite"), str(file), "--yes"])
    assert WITHOUT_RETRIEVAL["litellm"] in str(result.exception)
