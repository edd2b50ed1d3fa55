"""Langfuse's observations, traces and scores, in each way out of it."""

import csv
import json

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from spans_written import instrumented
from tool_rows import ROOT, STEP, TEXTS, TRACE, ids, imported, langchain, read, scored

from qdrant_tools.errors import InputError
from qdrant_tools.traces.importer import read_traces
from qdrant_tools.traces.records import TraceSettings


def observation(id=STEP, parent=ROOT, type="RETRIEVER", input="Which rock floats?", output=None, **other):
    """A row of blob storage: texts are JSON, times have no zone."""
    return {
        "id": id, "trace_id": TRACE, "project_id": "p", "environment": "default", "type": type, "name": "step",
        "parent_observation_id": parent, "start_time": "2026-05-01 10:00:00.250000", "end_time": None, "metadata": {},
        "level": "DEFAULT", "input": json.dumps(input), "output": json.dumps(output), "user_id": "ann",
        "session_id": "visit", **other,
    }  # fmt: skip


def root(**other):
    return observation(id=ROOT, parent=None, type="CHAIN", output="Pumice does.", **other)


def camel(row):
    """The same row as the API has it."""
    names = {name: "".join([name.split("_")[0], *map(str.capitalize, name.split("_")[1:])]) for name in row}
    return {names[name]: value for name, value in row.items()} | {"startTime": "2026-05-01T10:00:00.250Z"}


def score(name="user-feedback", value=1, **other):
    return {
        "id": f"score-{name}", "timestamp": "2026-05-01 10:05:00.000000", "trace_id": TRACE, "observation_id": None,
        "session_id": None, "name": name, "value": value, "source": "API", "comment": None, "data_type": "BOOLEAN",
        "string_value": str(bool(value)), **other,
    }  # fmt: skip


def test_a_chain_and_its_retriever_are_a_search_with_its_answer(tmp_path):
    (search,), report = imported(tmp_path, observation(output=langchain("p1", "p2")), root(), score())
    assert (search.query, ids(search), search.collection) == ("Which rock floats?", ["p1", "p2"], "rocks")
    assert search.at.isoformat() == "2026-05-01T10:00:00.250000+00:00"  # without a zone is UTC
    assert search.answer is not None and search.answer.text == "Pumice does."
    (verdict,) = search.answer.verdicts
    assert (verdict.kind, verdict.value, verdict.name) == ("thumb", 1.0, "user-feedback")
    assert report.dropped == {}


def test_the_api_gives_the_same_searches_as_blob_storage(tmp_path):
    rows = [observation(output=langchain("p1")), root()]
    (stored,), _ = imported(tmp_path, *rows)
    (asked,), _ = imported(tmp_path, *map(camel, rows))
    assert (stored.id, stored.query, stored.hits, stored.session) == (asked.id, asked.query, asked.hits, asked.session)


def test_the_export_of_the_screen_has_parsed_values_and_a_column_per_score(tmp_path):
    rows = [camel(observation()) | {"input": {"query": "Which rock floats?"}, "output": scored("p1")}]
    rows.append(camel(root()) | {"input": "Which rock floats?", "output": "Pumice.", "user-feedback": [1], "toxic": []})
    (search,), _ = imported(tmp_path, *rows)
    assert (ids(search), search.hits[0].score) == (["p1"], 0.9)
    assert search.answer is not None and [verdict.value for verdict in search.answer.verdicts] == [1.0]


def test_lists_of_llamaindex_lie_in_the_attributes_and_not_in_the_output(tmp_path):
    said = {
        "retrieval.documents.10.document.id": "p3", "retrieval.documents.10.document.score": "0.1",
        "retrieval.documents.2.document.id": "p2", "retrieval.documents.2.document.score": "0.4",
        "retrieval.documents.0.document.id": "p1", "retrieval.documents.0.document.content": "Pumice",
        "openinference.span.kind": "RETRIEVER",
    }  # fmt: skip
    reprs = ["<NodeWithScore(node=TextNode(id_=p1), score=0.4)>"]
    row = observation(parent=None, output=reprs, metadata={"attributes": json.dumps(said), "scope": "{}"})
    (search,), _ = imported(tmp_path, row)
    assert [(hit.id, hit.rank) for hit in search.hits] == [("p1", 1), ("p2", 3), ("p3", 11)]


def test_reprs_alone_give_ids_and_scores():
    output = [f"<NodeWithScore(node=TextNode(id_=p{n}), score=0.{n})>" for n in (2, 1)]
    (span,), _ = read(observation(output=output))
    assert [(each.id, each.score) for each in span.documents] == [("p2", 0.2), ("p1", 0.1)]


@pytest.mark.parametrize("type", ["SPAN", "TOOL"])
def test_the_type_is_not_trusted_alone(type, tmp_path):
    said = {"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": "Which rock floats?"}
    said["gen_ai.retrieval.documents"] = json.dumps([{"id": "p1", "score": 0.4}])
    genai = observation(type=type, output="", metadata={"attributes": said})
    (search,), _ = imported(tmp_path, genai, root())
    assert ids(search) == ["p1"]
    (plain,), _ = imported(tmp_path, observation(type=type, output=scored("p2")), root())
    assert ids(plain) == ["p2"]


def test_a_reranker_arrives_as_a_span_and_is_what_the_model_saw(tmp_path):
    rerank = observation(id="aa" * 8, type="SPAN", name="rerank", output=[scored("p2")[0] | {"score": 7.5}])
    (search,), _ = imported(tmp_path, observation(output=scored("p1", "p2")), rerank, root())
    assert ids(search) == ["p1", "p2"]
    assert search.answer is not None and search.answer.context == ("p2",)
    assert [(event.kind, event.id, event.value) for event in search.feedback] == [("reranked", "p2", 7.5)]


def test_traces_of_older_exports_bring_the_session_and_the_answer(tmp_path):
    retriever = observation(parent=None, output=scored("p1"))
    del retriever["user_id"], retriever["session_id"]
    trace = {
        "id": TRACE, "timestamp": "2026-05-01 10:00:00.000000", "name": "chat", "user_id": "ann", "session_id": "visit",
        "input": '"Which rock floats?"', "output": '"Pumice."', "release": None, "version": None, "bookmarked": False,
    }  # fmt: skip
    (search,), _ = imported(tmp_path, retriever, trace, score())
    (enriched,), _ = imported(tmp_path, observation(parent=None, output=scored("p1")))
    assert search.session == enriched.session != ""
    assert search.answer is not None and search.answer.text == "Pumice." and search.answer.verdicts


def test_a_trace_with_its_observations_and_scores_inside_is_read_whole(tmp_path):
    inside = {"observations": [camel(observation(parent=None, output=scored("p1")))], "scores": [camel(score())]}
    trace = {
        "id": TRACE, "timestamp": "2026-05-01T10:00:00Z", "name": "chat", "userId": "ann", "sessionId": "visit",
        "htmlPath": "/x", "input": "Which rock floats?", "output": "Pumice.", **inside,
    }  # fmt: skip
    (search,), _ = imported(tmp_path, trace)
    assert ids(search) == ["p1"] and search.answer is not None and len(search.answer.verdicts) == 1


def test_who_gave_a_score_is_told_by_its_source_and_else_by_its_name():
    rows = [score("user-feedback"), score("ragas", 0.5, data_type="NUMERIC", string_value=None)]
    rows += [score("quality", source="EVAL"), score("quality", source="ANNOTATION")]
    _, annotations = read(*rows)
    assert [each.by for each in annotations] == ["person", "code", "judge", "person"]
    _, (named,) = read(score("ragas"), settings=TraceSettings(thumb="ragas"))
    assert named.by == "person"


def test_the_number_of_a_categorical_score_is_no_value_and_a_correction_says_nothing():
    _, (said,) = read(score("answer", 0, data_type="CATEGORICAL", string_value="no_answer"))
    assert (said.label, said.value) == ("no_answer", None)
    assert read(score("fix", 0, data_type="CORRECTION", string_value="Pumice")) == ([], [])


def test_a_retriever_without_output_says_which_fields_to_ask_for(tmp_path):
    row = camel(observation())
    del row["input"], row["output"]
    found, report = imported(tmp_path, row)
    assert found == [] and report.dropped == {"no documents": 1}
    assert any("groups io and metadata" in hint for hint in report.hints)


def test_spans_of_the_sdk_are_the_same_observations(tmp_path):
    attributes = {
        "langfuse.observation.type": "retriever", "langfuse.observation.input": "Which rock floats?",
        "langfuse.observation.output": json.dumps(langchain("p1", "p2")), "session.id": "visit", "user.id": "ann",
    }  # fmt: skip
    span = {
        "name": "step", "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{STEP}"}, "parent_id": None,
        "start_time": "2026-05-01T10:00:00.250000Z", "status": {"status_code": "UNSET"}, "attributes": attributes,
        "resource": {"attributes": {}},
    }  # fmt: skip
    (sent,), report = imported(tmp_path, span)
    (stored,), _ = imported(tmp_path, observation(parent=None, output=langchain("p1", "p2")))
    assert (sent.id, sent.query, sent.hits, sent.session) == (stored.id, stored.query, stored.hits, stored.session)
    assert set(report.forms.values()) == {"langfuse"}


def test_a_damaged_time_is_refused_with_its_value():
    with pytest.raises(InputError, match="start"):
        read(observation(start_time="yesterday"))


def test_the_csv_of_the_screen_has_texts_in_its_cells(tmp_path):
    rows = [camel(observation()) | {"output": json.dumps(langchain("p1", "p2")), "input": "Which rock floats?"}]
    rows.append(camel(root()) | {"output": "Pumice.", "input": "Which rock floats?", "user-feedback": "[1]"})
    file = tmp_path / "observations.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[1]))
        writer.writeheader()
        writer.writerows({name: "" if value in (None, {}) else value for name, value in row.items()} for row in rows)
    with read_traces(file) as traces:
        (search,) = traces.searches()
    assert (search.query, ids(search)) == ("Which rock floats?", ["p1", "p2"])
    assert search.answer is not None and search.answer.text == "Pumice."
    assert [verdict.value for verdict in search.answer.verdicts] == [1.0]


def as_stored(span):
    """A span of OpenInference as Langfuse stores it: input and output on their own, the rest as texts in metadata."""
    said = dict(span["attributes"])
    given, returned = said.pop("input.value", None), said.pop("output.value", None)
    types = {"RETRIEVER": "RETRIEVER", "LLM": "GENERATION", "EMBEDDING": "EMBEDDING", "CHAIN": "CHAIN"}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
    row = observation(
        span["context"]["span_id"][2:],
        span["parent_id"] and span["parent_id"][2:],
        types.get(said.get("openinference.span.kind"), "SPAN"),
        metadata={"attributes": json.dumps(texts), "resourceAttributes": json.dumps(span["resource"]["attributes"])},
    )
    about = {"trace_id": span["context"]["trace_id"][2:], "name": span["name"], "input": given, "output": returned}
    times = {name: span[name].replace("T", " ").rstrip("Z") for name in ("start_time", "end_time")}
    return row | about | times | {"user_id": None, "session_id": None}


def test_an_application_of_llamaindex_gives_the_same_searches_as_from_its_spans(tmp_path):
    index = VectorStoreIndex(
        [TextNode(id_=name, text=text) for name, text in TEXTS.items()], embed_model=MockEmbedding(4)
    )
    engine = index.as_query_engine(llm=MockLLM(max_tokens=5), similarity_top_k=2)
    fused = QueryFusionRetriever([index.as_retriever()], llm=MockLLM(), num_queries=1, use_async=False)
    with instrumented() as written:
        for question in ("Which rock floats?", "What splits?"):
            engine.query(question)
        fused.retrieve("What is made of shells?")
    spans = written()
    (sent, _), (stored, _) = imported(tmp_path, *spans), imported(tmp_path, *map(as_stored, spans))
    assert len(sent) == 3 and [search.as_row() for search in sent] == [search.as_row() for search in stored]


def test_scores_of_older_versions_have_no_type():
    old = score(value=0.0)
    del old["data_type"], old["string_value"]
    _, (said,) = read(old)
    assert (said.label, said.value) == (None, 0.0)
