"""LangSmith's runs and feedback, and the runs of LangChain's tracers."""

import json

import pytest
from tool_rows import ids, imported, langchain, read, scored

from qdrant_tools.errors import InputError
from qdrant_tools.traces.records import TraceSettings

ROOT, STEP = "01a21a2b-e249-7432-9ae8-3dcecc9b402e", "01a21a2b-e250-7516-8f88-74523aa0ff1b"


def run(id=STEP, parent=ROOT, type="retriever", inputs=None, outputs=None, **other):
    return {
        "id": id, "trace_id": ROOT, "parent_run_id": parent, "name": "step", "run_type": type,
        "start_time": "2026-05-01T10:00:00.500000+00:00", "end_time": "2026-05-01T10:00:01.000000+00:00",
        "inputs": {"query": "Which rock floats?"} if inputs is None else inputs, "outputs": outputs, "error": None,
        "session_id": "the-project", "session_name": "rocks", "extra": {"metadata": {"thread_id": "visit"}}, **other,
    }  # fmt: skip


def root(**other):
    outputs = other.pop("outputs", {"output": "Pumice."})
    return run(ROOT, None, "chain", {"input": "Which rock floats?"}, outputs, **other)


def feedback(key="user_score", run_id=ROOT, **other):
    return {
        "id": f"of-{key}", "run_id": run_id, "trace_id": ROOT, "key": key, "score": 1, "value": None, "comment": None,
        "created_at": "2026-05-01T10:05:00+00:00", "feedback_source": {"type": "api"}, **other,
    }  # fmt: skip


def test_documents_of_langchain_have_their_point_in_the_metadata(tmp_path):
    rows = [run(outputs={"documents": langchain("p1", "p2")}), root(), feedback()]
    (search,), _ = imported(tmp_path, *rows)
    assert (search.query, ids(search), search.collection) == ("Which rock floats?", ["p1", "p2"], "rocks")
    assert search.answer is not None and search.answer.text == "Pumice."
    assert [verdict.value for verdict in search.answer.verdicts] == [1.0]


@pytest.mark.parametrize("output", [scored("p1"), [{"page_content": "Pumice", "metadata": {"id": "p1", "score": 0.3}}]])
def test_a_traced_function_has_its_list_under_output(output, tmp_path):
    (search,), _ = imported(tmp_path, run(parent=None, outputs={"output": output}))
    assert ids(search) == ["p1"] and search.hits[0].score is not None


def test_the_session_is_that_of_the_metadata_and_never_the_project(tmp_path):
    alone = run("aa", None, outputs={"documents": langchain("p1")}, extra={"metadata": {}}) | {"trace_id": "aa"}
    other = alone | {"id": "bb", "trace_id": "bb", "extra": {"metadata": {"session_id": "visit"}}}
    (without, named), _ = imported(tmp_path, alone, other)
    assert without.session == "" and named.session != ""


def test_tables_have_objects_as_python_prints_them(tmp_path):
    whole = [run(outputs={"documents": langchain("p1", "p2")}), root()]
    rows = [{name: repr(value) if isinstance(value, dict) else value for name, value in row.items()} for row in whole]
    (search,), _ = imported(tmp_path, *rows)
    (same,), _ = imported(tmp_path, *whole)
    assert search == same and ids(search) == ["p1", "p2"] and search.session


def test_bulk_exports_have_objects_as_json(tmp_path):
    whole = run(outputs={"documents": langchain("p1")})
    row = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in whole.items()}
    (search,), _ = imported(tmp_path, row, root())
    (other,), _ = imported(tmp_path, whole, root())
    assert (search.id, search.hits, search.session) == (other.id, other.hits, other.session)


def test_a_run_without_a_trace_finds_it_in_its_order():
    row = run(
        outputs={"documents": langchain("p1")}, dotted_order=f"20260501T100000000000Z{ROOT}.20260501T100001Z{STEP}"
    )
    del row["trace_id"]
    (span,), _ = read(row)
    assert span.trace == ROOT


def test_children_inside_of_a_run_are_read_as_if_they_stood_beside_it(tmp_path):
    child = run(outputs={"documents": langchain("p1", "p3")})
    (inside,), _ = imported(tmp_path, root(child_runs=[child]))
    (beside,), _ = imported(tmp_path, root(), child)
    assert (inside.id, inside.hits, inside.answer) == (beside.id, beside.hits, beside.answer)


def test_documents_that_were_dumped_as_text_are_read_from_pythons_repr(tmp_path):
    text = 'It\'s "pumice", says metadata={}'
    said = [f"page_content={text!r} metadata={{'_id': 'p1', '_collection_name': 'rocks'}}"]
    said.append("Document(metadata={'_id': 'p2', '_collection_name': 'rocks'}, page_content='Slate')")
    (span,), _ = read(run(outputs={"documents": said}))
    assert [(each.id, each.text) for each in span.documents] == [("p1", text), ("p2", "Slate")]


def test_nothing_in_a_repr_is_run(tmp_path):
    bad = "Document(page_content=__import__('os').getcwd(), metadata={'_id': 'p1'})"
    (span,), _ = read(run(outputs={"documents": [bad]}))
    assert span.documents is None or span.documents[0].id is None


def test_what_passes_through_a_parallel_step_is_found_by_the_retriever(tmp_path):
    state = {"context": langchain("p1", "p2"), "question": "Which rock floats?"}
    parallel = run("aa", ROOT, "chain", {"input": "Which rock floats?"}, state)
    retriever = run(parent="aa", outputs={"documents": langchain("p1", "p2")})
    (search,), report = imported(tmp_path, parallel, retriever, root())
    assert report.dropped == {"inner": 1}
    (alone,), _ = imported(tmp_path, retriever, root())
    assert search.id == alone.id


def test_a_node_whose_search_was_not_traced_has_the_list_that_it_put_into_the_state(tmp_path):
    """`similarity_search` in a node of a graph is no run of its own."""
    found = run("aa", ROOT, "chain", {"state": {"question": "Which rock floats?"}}, {"context": langchain("p2", "p1")})
    state = {"question": "Which rock floats?", "context": langchain("p2", "p1"), "answer": "Pumice."}
    (search,), _ = imported(tmp_path, found, root(outputs=state))
    assert (search.query, ids(search)) == ("Which rock floats?", ["p2", "p1"])
    assert search.answer is not None and search.answer.text == "Pumice."


def test_one_voice_in_the_statistics_counts_and_an_average_does_not():
    stats = {"user_score": {"n": 1, "avg": 0.0}, "helpful": {"n": 3, "avg": 0.67}}
    _, annotations = read(root(feedback_stats=stats))
    assert [(each.name, each.value) for each in annotations] == [("user_score", 0.0)]


def test_the_statistics_give_way_to_the_feedback_that_they_count(tmp_path):
    """Else one person would be two: the statistics do not say who it was."""
    rows = [run(outputs={"documents": langchain("p1")}), root(feedback_stats={"user_score": {"n": 1, "avg": 1.0}})]
    said = feedback(feedback_source={"type": "api", "user_id": "ann"})
    (search,), report = imported(tmp_path, *rows, said)
    assert report.unjoined == {"replaced": 1}
    assert search.answer is not None and [(each.value, each.who != "") for each in search.answer.verdicts] == [
        (1.0, True)
    ]
    (alone,), _ = imported(tmp_path, *rows)
    assert alone.answer is not None and [(each.value, each.who) for each in alone.answer.verdicts] == [(1.0, "")]


def test_a_person_at_the_screen_is_told_from_a_model_and_from_a_program():
    rows = [feedback("correct", feedback_source={"type": type}) for type in ("app", "model", "api")]
    _, annotations = read(*rows, feedback())
    assert [each.by for each in annotations] == ["person", "judge", "code", "person"]
    _, (named,) = read(feedback("correct"), settings=TraceSettings(judge="correct"))
    assert named.by == "judge"


def test_runs_of_experiments_are_no_users(tmp_path):
    rows = [run(outputs={"documents": langchain("p1")}), root(reference_example_id="e-1")]
    found, report = imported(tmp_path, *rows)
    assert found == [] and sum(report.dropped.values()) == 1


def test_a_retriever_that_failed_is_an_error_and_one_without_outputs_says_how_to_get_them(tmp_path):
    failed = run("aa", None, outputs=None, error="RuntimeError") | {"trace_id": "aa"}
    lacking = run("bb", None) | {"trace_id": "bb"}
    found, report = imported(tmp_path, failed, lacking)
    assert found == [] and report.dropped == {"error": 1, "no documents": 1}
    assert any("list_runs" in hint for hint in report.hints)


def test_a_time_without_a_zone_is_utc_and_an_odd_one_is_refused(tmp_path):
    row = run(parent=None, outputs={"documents": langchain("p1")}, start_time="2026-05-01 10:00:00.500000")
    (search,), _ = imported(tmp_path, row)
    assert search.at.isoformat() == "2026-05-01T10:00:00.500000+00:00"
    with pytest.raises(InputError, match="start_time"):
        read(row | {"start_time": "soon"})


def test_runs_that_are_sent_as_spans_of_opentelemetry_are_read(tmp_path):
    said = {
        "langsmith.span.kind": "retriever", "langsmith.trace.session_name": "rocks",
        "gen_ai.operation.name": "retriever", "langsmith.metadata.thread_id": "visit",
        "gen_ai.prompt": '{"query": "Which rock floats?"}',
        "gen_ai.completion": json.dumps({"documents": langchain("p1", "p2")}),
    }  # fmt: skip
    span = {
        "name": "step", "context": {"trace_id": "0x" + "a" * 32, "span_id": "0x" + "b" * 16}, "parent_id": None,
        "start_time": "2026-05-01T10:00:00Z", "status": {"status_code": "OK"}, "attributes": said, "resource": {},
    }  # fmt: skip
    (search,), report = imported(tmp_path, span)
    assert (search.query, ids(search), search.collection) == ("Which rock floats?", ["p1", "p2"], "rocks")
    assert search.session != "" and set(report.forms.values()) == {"langsmith"}


def test_what_is_named_after_its_reranker_is_still_what_it_is(tmp_path):
    retriever = run(outputs={"documents": langchain("p1", "p2")}, name="RerankingRetriever")
    engine = root(name="retrieve_rerank_and_answer", outputs={"answer": "Pumice.", "documents": langchain("p2")})
    (search,), _ = imported(tmp_path, retriever, engine)
    assert ids(search) == ["p1", "p2"] and search.answer is not None and search.answer.text == "Pumice."


def test_a_step_that_reranks_is_what_the_model_saw(tmp_path):
    step = run("aa", ROOT, "chain", {"documents": langchain("p1", "p2")}, {"documents": scored("p2")}, name="rerank")
    (search,), _ = imported(tmp_path, run(outputs={"documents": langchain("p1", "p2")}), step, root())
    assert ids(search) == ["p1", "p2"] and search.answer is not None and search.answer.context == ("p2",)
