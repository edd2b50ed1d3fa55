"""From spans to the searches of the log: pieces of a list, streamed answers, tools that a model calls, what it saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from spans_written import TEXTS, TRACE, otlp, otlp_span, retrieved, sdk

from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.traces import TraceSettings, read_traces


def written(folder: Path, *rows: dict[str, Any], name: str = "spans.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def searches_in(*files: Path, **settings: Any) -> list[LoggedSearch]:
    with read_traces(files, TraceSettings(**settings)) as traces:
        return list(traces)


def chain(
    number: int, parent: int | None, given: str, made: str, kind: str = "CHAIN", **changes: Any
) -> dict[str, Any]:
    """A step of an application; 0 is the root."""
    attributes = {"input.value": given, "output.value": made, "openinference.span.kind": kind}
    return placed(number, parent, attributes, **changes)


def placed(number: int, parent: int | None, attributes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return sdk(
        attributes,
        context={"trace_id": f"0x{TRACE}", "span_id": f"0x{number + 1:016x}"},
        parent_id=None if parent is None else f"0x{parent + 1:016x}",
        start_time=f"2026-11-26T10:00:{number:02}.000000Z",
        **changes,
    )


def test_a_list_that_was_exported_a_document_a_row_is_one_search_with_the_time_of_its_span(tmp_path):
    span = {"context.span_id": "b7ad6b7169203331", "context.trace_id": TRACE}
    pieces = [
        {**span, "document_position": place, "input.value": "q?", "reference": TEXTS[name], "document_id": f"id-{name}"}
        for place, name in enumerate(["bread", "tea", "rust"])
    ]
    timeless = written(tmp_path, *pieces[::-1])
    with read_traces([timeless]) as traces:
        (search,) = traces
        assert abs(search.at.timestamp() - timeless.stat().st_mtime) < 1 and traces.report.untimed == 1
        assert any("the time of their file" in line for line in traces.report.lines())
        assert any("start_time" in line for line in traces.report.lines())
    timed = [{**piece, "start_time": "2026-11-26T10:00:00Z"} for piece in pieces]
    (search,) = searches_in(written(tmp_path, *timed, name="timed.jsonl"))
    assert [(hit.id, hit.rank) for hit in search.hits] == [("id-bread", 1), ("id-tea", 2), ("id-rust", 3)]
    # the span itself, from another export, is the same search
    whole = written(tmp_path, sdk(retrieved("q?", "bread", "tea", "rust"), parent_id=None), name="whole.jsonl")
    (again,) = searches_in(timeless, whole)
    assert again.at.year == 2026 and again.at.second == 35
    assert (again.id, [hit.id for hit in again.hits]) == (search.id, [hit.id for hit in search.hits])


def test_a_csv_in_which_pandas_wrote_the_index_beside_the_column_of_its_name_is_read(tmp_path):
    file = tmp_path / "spans.csv"
    header = "context.span_id,name,parent_id,start_time,context.span_id,context.trace_id,attributes.input.value,"
    listed = "attributes.retrieval.documents,span_kind\n"
    row = f"""b7ad6b7169203331,retrieve,,2026-11-26 10:00:00+00:00,b7ad6b7169203331,{TRACE},q?,"""
    file.write_text(header + listed + row + "\"[{'document.id': 'a', 'document.score': 0.5}]\",RETRIEVER\n")
    (search,) = searches_in(file)
    assert (search.query, [hit.id for hit in search.hits]) == ("q?", ["a"])
    file.write_text(header + listed + row.replace("b7ad", "c7ad", 1) + ",RETRIEVER\n")
    with pytest.raises(InputError, match="spans.csv:2: two columns of one name, such as 'context.span_id'"):
        searches_in(file)


def test_just_as_many_spans_as_phoenix_gives_at_once_are_said_to_be_perhaps_not_all(tmp_path):
    row = {"context.span_id": "1", "context.trace_id": "2", "start_time": "2026-11-26T10:00:00Z", "attributes.x": 1}
    rows = [{**row, "context.span_id": f"{number:016x}"} for number in range(1, 1001)]
    with read_traces(written(tmp_path, *rows)) as traces:
        assert list(traces) == []
        assert any("newest 1,000 spans" in line and "limit=" in line for line in traces.report.lines())
    with read_traces(written(tmp_path, *rows[:999])) as traces:
        assert list(traces) == [] and traces.report.notes == []


def test_an_answer_that_was_streamed_is_what_the_language_model_said_last(tmp_path):
    file = written(
        tmp_path,
        chain(0, None, "Why does bread rise?", '{"response_gen": "<generator object>", "source_nodes": []}'),
        placed(1, 0, retrieved("Why does bread rise?", "bread")),
        chain(2, 0, "condense", "Why?", "LLM"),
        chain(3, 0, "prompt", "Yeast makes gas.", "LLM"),
    )
    (search,) = searches_in(file)
    assert search.answer is not None and search.answer.text == "Yeast makes gas."


def test_what_the_answer_names_as_its_sources_is_what_the_language_model_saw(tmp_path):
    def engine(*ids: str) -> dict[str, Any]:
        nodes = [f"<NodeWithScore(node=TextNode(id_={name}), score=0.5)>" for name in ids]
        return chain(0, None, "q?", json.dumps({"response": "Yes.", "source_nodes": nodes}))

    retrieval = placed(1, 0, retrieved("q?", "bread", "tea", "rust"))
    (search,) = searches_in(written(tmp_path, engine("id-bread", "id-tea"), retrieval))
    assert search.answer is not None and search.answer.context == ("id-bread", "id-tea")
    # a citation engine splits passages and gives the pieces new ids
    (search,) = searches_in(written(tmp_path, engine("new-1", "new-2"), retrieval))
    assert search.answer is not None and search.answer.context == ()


@pytest.mark.parametrize(("called", "generated"), [("bread yeast", True), ("Why does bread rise?", False)])
def test_what_a_tool_was_asked_is_the_words_of_a_model_unless_they_are_those_of_the_user(tmp_path, called, generated):
    file = written(
        tmp_path,
        chain(0, None, "Why does bread rise?", "Yeast makes gas."),
        chain(1, 0, json.dumps({"kwargs": {"input": called}}), "a text", "TOOL"),
        chain(2, 1, called, "an answer of the tool"),
        placed(3, 2, retrieved(called, "bread")),
    )
    (search,) = searches_in(file)
    assert (search.query, search.generated) == (called, generated)
    assert search.answer is not None and search.answer.text == "Yeast makes gas."


def test_an_agent_that_shows_its_question_to_nobody_asks_in_its_own_words(tmp_path):
    said = "ChatMessage(role=<MessageRole.ASSISTANT: 'assistant'>, additional_kwargs={}, blocks=[TextBlock(block_type="
    result = f"""StopEvent(result=AgentOutput(response={said}'text', text="It's yeast.")]), structu..."""
    file = written(
        tmp_path,
        chain(0, None, '{"init_state": {}, "start_event": "AgentWorkflowStartEvent()"}', result),
        chain(1, 0, json.dumps({"kwargs": {"input": "bread yeast"}}), "a text", "TOOL"),
        placed(2, 1, retrieved("bread yeast", "bread")),
    )
    (search,) = searches_in(file)
    assert search.generated and search.answer is not None and search.answer.text == "It's yeast."


def test_a_tool_that_the_application_calls_itself_is_asked_by_its_user_and_answers_nothing(tmp_path):
    file = written(
        tmp_path,
        chain(0, None, '{"query": "why does bread rise"}', TEXTS["bread"], "TOOL"),
        placed(1, 0, retrieved("why does bread rise", "bread")),
    )
    (search,) = searches_in(file)
    assert not search.generated and search.answer is None


def test_a_query_that_the_sdk_dropped_is_that_of_the_engine(tmp_path):
    attributes = retrieved("q", "bread", "tea")
    del attributes["input.value"]
    file = written(tmp_path, chain(0, None, "Why does bread rise?", "x"), placed(1, 0, attributes))
    (search,) = searches_in(file)
    assert (search.query, search.generated) == ("Why does bread rise?", False)


def test_the_name_of_a_convention_is_right_for_every_envelope_that_its_spans_are_in(tmp_path):
    file = written(tmp_path, otlp(otlp_span(retrieved("q?", "bread"), parentSpanId="")))
    # and Phoenix has an export of its own in this one
    for name in ("otlp", "openinference", "phoenix"):
        with read_traces(file, form=name) as traces:
            assert len(list(traces)) == 1
    with pytest.raises(UsageError, match="no row is of the format jaeger: .*: otlp"):
        read_traces(file, form="jaeger")


@pytest.mark.parametrize("first", [True, False])
def test_a_span_with_the_vectors_of_a_large_batch_does_not_stand_in_the_way(tmp_path, first):
    retrieval = placed(1, None, retrieved("q?", "bread"))

    def with_vectors(number: int) -> list[dict[str, Any]]:
        vectors = {f"embedding.embeddings.{text}.embedding.vector": [0.5] * 3072 for text in range(number)}
        embedding = placed(5, None, {"openinference.span.kind": "EMBEDDING", **vectors})
        return [embedding, retrieval] if first else [retrieval, embedding]

    (search,) = searches_in(written(tmp_path, *with_vectors(90)))
    # in OTLP, a number is an object
    rows = with_vectors(30)
    spans = [
        otlp_span(row["attributes"], spanId=row["context"]["span_id"][2:], parentSpanId="") for row in rows
    ]  # fmt: skip
    (again,) = searches_in(written(tmp_path, otlp(*spans), name="otlp.jsonl"))
    assert again.id == search.id
