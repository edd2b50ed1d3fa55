"""What people and judges said: of which answer or document, what it says, and what is left out for which reason."""

from __future__ import annotations

from datetime import timedelta

import pytest
from written import START, annotation, hex_of, ids, imported, question, span

from qdrant_tools.log import RetrievalLog

HITS = [("a", 0.9), ("b", 0.8), ("c", 0.7)]
TEA = question("t", "tea", HITS)


def said(search):
    return [(each.kind, each.value, each.by, each.text) for each in search.answer.verdicts] if search.answer else []


@pytest.mark.parametrize("about", ["ask", "complete"])
def test_a_thumb_on_a_step_is_on_the_answer_around_it_and_on_no_passage(tmp_path, about):
    rows = [
        *TEA,
        span("complete", "LLM", parent="ask"),
        annotation("user_feedback", about, label="thumbs-up", who="ann"),
    ]
    (search,), report = imported(tmp_path, *rows)
    assert said(search) == [("thumb", 1.0, "person", "")] and search.feedback == ()
    assert report.verdicts == {"thumb": 1} and not report.unjoined
    assert search.answer.verdicts[0].who not in ("", "ann") and search.answer.verdicts[0].name == "user_feedback"


def test_a_thumb_with_a_comment_is_both(tmp_path):
    (search,), _ = imported(tmp_path, *TEA, annotation("thumb", "ask", score=0, explanation="too short"))
    assert sorted(said(search)) == [("comment", 1.0, "person", "too short"), ("thumb", 0.0, "person", "")]


@pytest.mark.parametrize(
    ("label", "score", "settings", "expected"),
    [
        ("thumbs-up", None, {}, 1.0), ("👎", None, {}, 0.0), ("like", 1.0, {}, 1.0), (None, 1.0, {}, 1.0),
        (None, -1.0, {}, 0.0), ("True", None, {}, 1.0), ("no", None, {}, 0.0),
        ("5", None, {"up": ("4", "5"), "down": ("1",)}, 1.0), (None, 1.0, {"up": ("4", "5"), "down": ("1",)}, 0.0),
        ("resolved", None, {"up": ("Resolved",)}, 1.0),
        (None, 5.0, {}, None), ("resolved", None, {}, None), ("up", 0.0, {}, None),
    ],
)  # fmt: skip
def test_what_is_no_clear_yes_or_no_is_neither(tmp_path, label, score, settings, expected):
    (search,), report = imported(
        tmp_path, *TEA, annotation("user_feedback", "ask", label=label, score=score), **settings
    )
    assert [value for _, value, _, _ in said(search)] == ([] if expected is None else [expected])
    assert report.unjoined == ({"not certain": 1} if expected is None else {})


def test_what_is_said_of_evaluations_is_counted(tmp_path):
    rows = question("t", "tea", HITS, service="evaluation")
    searches, report = imported(tmp_path, *rows, annotation("thumb", "ask", score=1))
    assert not searches and (report.annotations, report.unjoined) == (1, {"left out": 1})


def test_only_the_question_that_was_named_is_a_thumb(tmp_path):
    rows = [*TEA, annotation("user_feedback", "ask", label="thumbs-up"), annotation("csat", "ask", score=0)]
    (search,), report = imported(tmp_path, *rows, thumb="CSAT")
    assert said(search) == [("thumb", 0.0, "person", "")] and report.unjoined == {"another question": 1}
    (search,), report = imported(tmp_path, *rows)
    assert said(search) == [("thumb", 1.0, "person", "")] and report.examples["another question"] == ["'csat' = 0.0"]


def test_an_annotation_that_is_there_twice_keeps_its_comment(tmp_path):
    whole = annotation("thumb", "ask", score=0, explanation="too short", id="1")
    without = annotation("thumb", "ask", score=0, id="2")
    for rows in ((whole, without), (without, whole)):
        (search,), report = imported(tmp_path, *TEA, *rows)
        assert sorted(said(search)) == [("comment", 1.0, "person", "too short"), ("thumb", 0.0, "person", "")]
        assert report.unjoined == {"replaced": 1}


def test_the_last_thumb_of_a_person_counts_and_each_persons_is_kept(tmp_path):
    later = (START + timedelta(hours=5)).isoformat()
    rows = [
        annotation("user_feedback", "ask", label="thumbs-down", who="ann", at=later),
        annotation("user_feedback", "ask", label="thumbs-up", who="ann"),
        annotation("user_feedback", "ask", label="thumbs-up", who="bob"),
    ]
    (search,), report = imported(tmp_path, *rows, *TEA)
    assert sorted(value for _, value, _, _ in said(search)) == [0.0, 1.0] and report.unjoined == {"replaced": 1}


def test_of_an_answer_of_several_searches_a_thumb_is_ambiguous(tmp_path):
    rows = [
        span("one", "RETRIEVER", parent="ask", at=1, query="honey", documents=HITS),
        span("two", "RETRIEVER", parent="ask", at=2, query="owls", documents=HITS),
        span("ask", query="Compare honey and owls", answer="bees; night", lasts=4),
        annotation("user_feedback", "ask", label="thumbs-up"),
    ]
    searches, report = imported(tmp_path, *rows)
    assert [search.answer.searches for search in searches] == [2, 2] and report.ambiguous == 1
    assert [said(search) for search in searches] == [[("thumb", 1.0, "person", "")]] * 2


def test_an_answer_inside_of_another_has_its_own_thumb(tmp_path):
    rows = [
        *(span(f"retrieve {n}", "RETRIEVER", parent=f"turn {n}", at=n, query=f"q{n}", documents=HITS) for n in (1, 2)),
        *(span(f"turn {n}", parent="chat", at=n, query=f"q{n}", answer=f"a{n}") for n in (1, 2)),
        span("chat", query="", answer="a1 a2", lasts=9),
        annotation("user_feedback", "turn 1", label="thumbs-up"),
    ]
    (first, second), report = imported(tmp_path, *rows)
    assert first.answer.text == "a1" and first.answer.searches == 1 and said(first) and report.ambiguous == 0
    assert second.answer.text == "a1 a2" and not said(second)


def test_grades_of_documents_are_ratings_of_people_and_judgements_of_models(tmp_path):
    rows = [
        *TEA,
        annotation("relevance", "retrieve", by="HUMAN", label="relevant", document_position=1),
        annotation("relevance", "retrieve", by="LLM", label="unrelated", score=0, document_position=0),
        annotation("relevance", "retrieve", by="LLM", label="relevant", score=1, document_position=7),
        annotation("relevance", "retrieve", by="CODE", score=1, document_position=2),
    ]
    (search,), report = imported(tmp_path, *rows)
    assert {(e.id, e.kind, e.value) for e in search.feedback} == {("b", "rating", 1.0), ("a", "judged", 0.0)}
    assert report.unjoined == {"no such document": 1, "by a program": 1}


def test_a_judge_of_the_whole_list_judges_no_document(tmp_path):
    rows = [*TEA, annotation("relevance", "retrieve", by="LLM", label="relevant", score=1)]
    (search,), report = imported(tmp_path, *rows, judge="relevance")
    assert search.feedback == () and report.unjoined == {"whole list": 1}
    (search,), report = imported(tmp_path, *TEA, annotation("quality", "ask", by="LLM", score=0.7), judge="quality")
    assert said(search) == [("score", 0.7, "judge", "")]


def test_annotations_that_match_nothing_are_counted_with_examples(tmp_path):
    elsewhere = question("other", "milk", HITS)[1:]
    rows = [
        *TEA,
        *elsewhere,
        annotation("thumb", "nowhere", label="up"),
        annotation("thumb", "ask", trace="other", label="up"),
    ]
    (search,), report = imported(tmp_path, *rows)
    assert not said(search) and report.unjoined == {"matches nothing": 2}
    assert any("2 annotations are about spans that are in none of these files" in line for line in report.lines())


def test_a_thumb_on_a_retrieval_that_nothing_was_answered_with_is_kept(tmp_path):
    rows = [span("retrieve", "RETRIEVER", query="tea", documents=HITS), annotation("thumb", "retrieve", label="up")]
    (search,), _ = imported(tmp_path, *rows)
    assert search.answer.text == "" and said(search) == [("thumb", 1.0, "person", "")]


def test_annotations_that_come_later_find_their_search_in_the_log(tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        assert log.extend(imported(tmp_path, *TEA)[0]) == 1
        more, _ = imported(tmp_path, *TEA, annotation("user_feedback", "ask", label="thumbs-up"))
        assert log.extend(more) == 0 and log.extend(more) == 0
        (search,) = log.searches()
    assert said(search) == [("thumb", 1.0, "person", "")] and ids(search) == ["a", "b", "c"]


def test_half_an_emoji_is_no_reason_to_refuse_a_file(tmp_path):
    """A program in JavaScript cut its texts; no database holds what it wrote."""
    rows = question("t\ud83d", "tea \ud83d", [("a\ud83d", 0.5)], answer="a drink \ude00", user__id="\ud83d")
    rows += [annotation("thumb", "ask", trace="t\ud83d", label="up", explanation="ok \ud83d", who="\ud83d")]
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        log.extend(imported(tmp_path, *rows)[0])
        (search,) = log.searches()
    assert search.query == "tea \ufffd" and ids(search) == ["a\ufffd"] and len(said(search)) == 2


def test_what_was_said_of_an_answer_that_failed_is_not_said_of_the_next(tmp_path):
    rows = question("first", "tea", HITS, failed=True, answer=None, session__id="s")
    rows += question("second", "tea", HITS, at=20, session__id="s")
    rows += [annotation("thumb", "ask", trace="first", label="down"),
             annotation("relevance", "retrieve", trace="first", label="relevant", document_position=0)]  # fmt: skip
    (search,), report = imported(tmp_path, *rows)
    assert not said(search) and report.unjoined == {"failed answer": 1} and report.verdicts["thumb"] == 0
    assert [(event.id, event.kind) for event in search.feedback] == [("a", "rating")]


def test_the_id_of_a_span_in_an_annotation_may_be_written_in_capitals(tmp_path):
    row = annotation("thumb", "ask", label="up") | {"span_id": hex_of("task", 16).upper()}
    (search,), _ = imported(tmp_path, *TEA, row)
    assert said(search)


def test_a_persons_score_of_a_document_is_a_rating_where_its_name_is_known_or_named(tmp_path):
    rows = question("t", "Who makes honey?", [("a", 0.9), ("b", 0.8), ("c", 0.7)])
    scores = [annotation("quality", "retrieve", document_position=n, score=value) for n, value in ((0, 0.8), (1, 0.2))]
    scores.append(annotation("relevance", "retrieve", document_position=2, score=0.6))
    (search,), report = imported(tmp_path, *rows, *scores)
    assert [(event.kind, event.id, event.value) for event in search.feedback] == [("rating", "c", 0.6)]
    assert report.unjoined == {"another question": 2}
    (search,), _ = imported(tmp_path, *rows, *scores, thumb="quality")
    assert {(event.id, event.value) for event in search.feedback} == {("a", 0.8), ("b", 0.2), ("c", 0.6)}
