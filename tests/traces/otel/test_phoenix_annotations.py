"""What was said in Phoenix and Arize, out of every way in which they give it out."""

from __future__ import annotations

from typing import Any

import pytest
from spans_written import SPAN, TRACE, form_of, read

from qdrant_tools.errors import InputError
from qdrant_tools.traces.records import Annotation


def said(row: dict[str, Any], **settings: Any) -> list[Annotation]:
    assert form_of(row).name == "phoenix"
    return [each for each in read(row, **settings) if isinstance(each, Annotation)]


def thumb() -> dict[str, Any]:
    """A row of `get_span_annotations_dataframe`, out of CSV."""
    return {
        "span_id": SPAN, "id": "U3BhbkFubm90YXRpb246Mg==", "created_at": "2026-11-26T23:21:06+00:00",
        "updated_at": "2026-11-26T23:24:21+00:00", "source": "API", "user_id": "", "annotation_name": "user_feedback",
        "annotator_kind": "HUMAN", "metadata": "{'channel': 'web'}", "identifier": "user-1",
        "result.label": "thumbs-down", "result.score": "0.0", "result.explanation": "does not say who",
    }  # fmt: skip


def rest(**target: Any) -> dict[str, Any]:
    """A row of the REST API."""
    return {
        "id": "VHJhY2U6MQ==", "created_at": "2026-11-26T23:21:06+00:00", "updated_at": "2026-11-26T23:24:21+00:00",
        "source": "API", "user_id": None, "name": "csat", "annotator_kind": "HUMAN", "identifier": "",
        "result": {"label": None, "score": 0.5, "explanation": None}, "metadata": {}, **target,
    }  # fmt: skip


def test_a_thumb_has_its_span_who_gave_it_and_when_it_was_changed():
    (annotation,) = said(thumb())
    assert (annotation.span, annotation.trace, annotation.name) == (SPAN, None, "user_feedback")
    assert (annotation.label, annotation.value, annotation.comment) == ("thumbs-down", 0.0, "does not say who")
    assert (annotation.by, annotation.who, annotation.id) == ("person", "user-1", "U3BhbkFubm90YXRpb246Mg==")
    assert annotation.at is not None and annotation.at.minute == 24


def test_annotations_of_spans_traces_and_sessions_come_by_the_rest_api():
    (on_span,), (on_trace,), (on_session,) = (
        said(rest(**target)) for target in ({"span_id": SPAN}, {"trace_id": TRACE}, {"session_id": "s-2"})
    )
    assert (on_span.span, on_trace.trace, on_session.session) == (SPAN, TRACE, "s-2")
    assert {each.value for each in (on_span, on_trace, on_session)} == {0.5}
    assert (on_trace.span, on_session.trace, on_span.label) == (None, None, None)


def test_the_labels_of_documents_come_by_graphql_wherever_the_query_put_the_spans():
    node = {
        "spanId": SPAN,
        "documentEvaluations": [
            {"documentPosition": 0, "name": "relevance", "label": "relevant", "score": 1.0, "annotatorKind": "HUMAN"},
            {"documentPosition": 1, "name": "relevance", "label": "unrelated", "score": 0.0, "annotatorKind": "LLM"},
        ],
        "spanAnnotations": [{"name": "note", "label": "ok", "annotatorKind": "HUMAN", "identifier": "ada"}],
    }
    edges = {"edges": [{"node": node}, {"node": {"spanId": "ff", "documentEvaluations": []}}]}
    answer = {"data": {"projects": {"edges": [{"node": {"name": "kitchen", "spans": edges}}]}}}
    for row in (node, answer):
        first, second, note = said(row)
        assert [(each.span, each.position, each.label, each.by) for each in (first, second)] == [
            (SPAN, 0, "relevant", "person"), (SPAN, 1, "unrelated", "judge"),
        ]  # fmt: skip
        assert (note.position, note.who) == (None, "ada")
    with pytest.raises(InputError, match="has no spanId"):
        said({"name": "x", "documentEvaluations": node["documentEvaluations"]})


def test_a_table_of_phoenix_evals_is_a_judges_and_named_by_the_caller():
    row = {"context.span_id": SPAN, "document_position": "1", "label": "unrelated", "score": "0", "explanation": "no"}
    (annotation,) = said(row, judge="hallucination")
    assert (annotation.name, annotation.position, annotation.by) == ("hallucination", 1, "judge")
    # as it is given to log_span_annotations_dataframe
    (short,) = said({"span_id": SPAN, "score": 1})
    assert (short.span, short.value, short.name, short.by) == (SPAN, 1.0, "evaluation", "judge")
    # beside the documents that were judged
    (beside,) = said({**row, "reference": "a text", "input.value": "q"})
    assert (beside.position, beside.label) == (1, "unrelated")


def test_arizes_columns_of_a_span_are_what_people_and_judges_said_of_it():
    row = {
        "context.span_id": SPAN, "context.trace_id": TRACE, "attributes.input.value": "q", "name": "retrieve",
        "start_time": "2026-11-26T10:00:00Z", "attributes.openinference.span.kind": "CHAIN",
        "annotation.thumbs.label": "up", "annotation.thumbs.updated_by": "ada", "annotation.other.label": None,
        "eval.qa.label": "correct", "eval.qa.score": 1, "eval.qa.explanation": "right",
        "trace_eval.safe.score": 0.5,
    }  # fmt: skip
    by_name = {annotation.name: annotation for annotation in said(row)}
    assert set(by_name) == {"thumbs", "qa", "safe"}
    assert (by_name["thumbs"].by, by_name["thumbs"].who, by_name["thumbs"].label) == ("person", "ada", "up")
    assert (by_name["qa"].by, by_name["qa"].value, by_name["qa"].comment) == ("judge", 1.0, "right")
    assert (by_name["safe"].trace, by_name["safe"].span) == (TRACE, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"annotator_kind": "ROBOT"}, "annotator_kind is 'ROBOT', expected HUMAN, LLM or CODE"),
        ({"result.score": "much"}, "the score of the annotation 'user_feedback' is 'much'"),
        ({"updated_at": "yesterday"}, "updated_at is 'yesterday'"),
        ({"document_position": "first"}, "document_position is 'first'"),
        ({"span_id": "x" * 600}, "span_id is 'xxx"),
    ],
)
def test_what_is_not_understood_of_an_annotation_is_refused(changes, named):
    with pytest.raises(InputError) as refused:
        said({**thumb(), **changes})
    assert named in str(refused.value)
