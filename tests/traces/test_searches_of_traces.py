"""Which spans of a trace are a search, whose query it has, and what became of the others."""

from __future__ import annotations

import json
import random
from datetime import timedelta

import pytest
from written import START, ids, imported, question, span, text_of

HITS = [("a", 0.9), ("b", 0.8), ("c", 0.7)]


def reprs(documents):
    """What LlamaIndex's spans have of a postprocessor that fires no event."""
    return json.dumps([f"<NodeWithScore(node=TextNode(id_={name}), score={score})>" for name, score in documents])


def test_a_question_its_list_and_its_answer_are_one_search(tmp_path):
    (search,), report = imported(tmp_path, *question("t", "who makes honey", HITS, session__id="s-1", user__id="ann"))
    assert (search.query, ids(search), search.scored_by) == ("who makes honey", ["a", "b", "c"], "retriever")
    assert [hit.rank for hit in search.hits] == [1, 2, 3] and search.hits[0].score == 0.9
    assert search.at == START + timedelta(seconds=0.1)
    assert search.answer.text == "the answer to who makes honey" and search.answer.searches == 1
    assert not search.generated and report.searches == 1 and not report.dropped


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity"])
def test_a_score_that_is_no_finite_number_is_counted_and_its_document_keeps_its_rank(score, tmp_path):
    rows = question("t", "tea", [("a", 0.9), ("b", float(score)), ("c", 0.7)])
    (search,), report = imported(tmp_path, *rows)
    assert [(hit.id, hit.rank, hit.score) for hit in search.hits] == [("a", 1, 0.9), ("b", 2, None), ("c", 3, 0.7)]
    assert report.scores_without_number == 1
    assert any(line.startswith("left out: 1 scores that are no finite number") for line in report.lines())
    assert report.as_row()["scores_without_number"] == 1
    (search,), report = imported(tmp_path, *question("u", "tea", [("a", float(score))]))
    assert search.hits[0].score is None and search.scored_by == "", "there is nothing of which anybody is the owner"


def test_a_list_without_scores_lacks_none(tmp_path):
    (_,), report = imported(tmp_path, *question("t", "tea", [("a", None), ("b", 0.5)]))
    assert report.scores_without_number == 0 and not any("finite" in line for line in report.lines())


def test_a_rerankers_score_that_is_no_number_is_counted_and_moves_nothing(tmp_path):
    rows = [
        span("retrieve", "RETRIEVER", parent="ask", at=0.1, lasts=0.2, query="tea", documents=HITS),
        span("rerank", "RERANKER", parent="ask", at=0.5, lasts=0.2, query="tea", reranked=[("b", float("nan"))]),
        span("ask", query="tea", answer="a drink"),
    ]
    (search,), report = imported(tmp_path, *rows)
    assert report.scores_without_number == 1
    assert not [event for event in search.feedback if event.kind == "reranked"]


def test_names_of_users_and_sessions_do_not_leave_the_file(tmp_path):
    rows = [*question("t", "tea", HITS, session__id="ann@example.org", user__id="ann@example.org")]
    rows += question("u", "milk", HITS, at=5, session__id="ann@example.org", user__id="ann@example.org")
    (tea, milk), _ = imported(tmp_path, *rows)
    assert "ann" not in str(tea.as_row())
    assert tea.user == milk.user != "" and tea.session == milk.session != "" and tea.user != tea.session


def test_the_same_span_is_the_same_search_in_any_file_and_order(tmp_path):
    rows = question("t", "tea", HITS)
    (first,), _ = imported(tmp_path, *rows)
    (again,), report = imported(tmp_path, *rows[::-1], rows[0])
    assert again.id == first.id and report.dropped == {"duplicate": 1}


def test_of_a_fusion_the_outermost_list_counts(tmp_path):
    inner = [
        span(
            f"vector {number}",
            "RETRIEVER",
            parent="fusion._retrieve",
            query=query,
            documents=[(f"{number}", 0.5), ("a", 0.4)],
        )
        for number, query in enumerate(["tea", "what is tea", "tea plants"])
    ]
    rows = [
        *inner,
        span("fusion._retrieve", "RETRIEVER", parent="fusion", query={"query_bundle": {"query_str": "tea"}}),
        span("fusion", "RETRIEVER", parent="ask", query="tea", documents=[("a", 0.05), ("0", 0.03)]),
        span("ask", query="tea", answer="a drink"),
    ]
    (search,), report = imported(tmp_path, *rows)
    assert (search.query, ids(search), search.scored_by) == ("tea", ["a", "0"], "fusion")
    assert report.dropped == {"inner": 4} and not search.generated


def test_a_retriever_in_a_retriever_with_its_list_is_one(tmp_path):
    rows = [
        span("_retrieve", "RETRIEVER", parent="retrieve", query="tea", documents=HITS),
        span("retrieve", "RETRIEVER", query="tea", documents=HITS),
    ]
    (search,), report = imported(tmp_path, *rows)
    assert report.dropped == {"inner": 1} and search.scored_by == "retriever" and search.answer is None


def test_where_the_spans_between_are_missing_times_tell_what_is_inner(tmp_path):
    """Somebody exported retrievals with documents only."""
    rows = [
        span("outer", "RETRIEVER", parent="gone", at=0, lasts=3, query="tea", documents=HITS),
        span("inner", "RETRIEVER", parent="gone too", at=1, lasts=1, query="tea plants", documents=HITS[:2]),
        span("later", "RETRIEVER", parent="gone", at=5, lasts=1, query="milk", documents=HITS),
    ]
    searches, report = imported(tmp_path, *rows)
    assert [search.query for search in searches] == ["tea", "milk"] and report.dropped == {"inner": 1}


def test_sub_questions_are_searches_that_a_language_model_asked(tmp_path):
    rows = [
        span("one", "RETRIEVER", parent="ask", at=1, query="who makes honey", documents=HITS),
        span("two", "RETRIEVER", parent="ask", at=2, query="who hunts at night", documents=HITS[1:]),
        span("ask", query="Compare who makes honey and who hunts at night", answer="bees; owls", lasts=4),
    ]
    (one, two), report = imported(tmp_path, *rows)
    assert one.generated and two.generated and report.generated == 2
    assert one.answer == two.answer and one.answer.searches == 2


def test_a_chat_question_that_was_rewritten_is_a_language_models(tmp_path):
    def rows(condensed):
        return [
            span("retrieve", "RETRIEVER", parent="chat", at=1, query=condensed, documents=HITS),
            span("chat", query={"message": "And who sleeps all day?"}, answer="owls", lasts=3),
        ]

    (same,), _ = imported(tmp_path, *rows("and who sleeps all day"))
    (other,), _ = imported(tmp_path, *rows("Which animal sleeps all day?"))
    assert not same.generated and other.generated and other.query == "Which animal sleeps all day?"
    (root,), _ = imported(tmp_path, *rows("Which animal sleeps all day?"), query="root")
    assert root.query == "And who sleeps all day?" and not root.generated and root.id == other.id


def test_what_the_language_model_saw_is_what_the_last_reranker_returned(tmp_path):
    rows = [
        span("retrieve", "RETRIEVER", parent="ask", at=1, query="tea", documents=HITS),
        span("rerank", "RERANKER", parent="ask", at=2, query="tea", reranked=[("c", 7.5), ("a", 3.0)]),
        span("Cutoff._postprocess_nodes", parent="ask", at=3,
             answer=reprs([("c", 7.5)])),
        span("ask", query="tea", answer="a drink", lasts=5),
    ]  # fmt: skip
    (search,), _ = imported(tmp_path, *rows)
    assert [(event.id, event.kind, event.value) for event in search.feedback] == [
        ("c", "reranked", 7.5),
        ("a", "reranked", 3.0),
    ]
    assert [hit.score for hit in search.hits] == [0.9, 0.8, 0.7] and search.scored_by == "retriever"
    assert search.answer.context == ("c",)


def test_a_postprocessor_that_keeps_the_scores_is_no_reranker(tmp_path):
    shown = reprs(HITS[:2])
    rows = [
        span("retrieve", "RETRIEVER", parent="ask", at=1, query="tea", documents=HITS),
        span("SimilarityPostprocessor._postprocess_nodes", parent="ask", at=2, answer=shown),
        span("ask", query="tea", answer="a drink"),
    ]
    (search,), _ = imported(tmp_path, *rows)
    assert search.feedback == () and search.answer.context == ("a", "b")


def test_citations_are_followed_by_the_text_of_the_source(tmp_path):
    prompt = "Answer by the sources.\n" + "".join(
        f"Source {number}:\n{text_of(name)}\n\n" for number, name in enumerate(["c", "unknown", "a"], 1)
    )
    rows = [
        span("retrieve", "RETRIEVER", parent="ask", at=1, query="tea", documents=HITS),
        span(
            "complete", "LLM", parent="ask", at=2, llm__prompts__0=prompt, answer="A drink [1, 2]. Made of leaves [9]."
        ),
        span("ask", query="tea", answer="A drink [1, 2]. Made of leaves [9].", lasts=5),
    ]
    (search,), _ = imported(tmp_path, *rows)
    assert search.answer.cited == ("c",), "the first source is the third hit, and the second is none"


def test_a_list_that_lost_its_head_keeps_its_ranks_and_takes_the_query_from_above(tmp_path):
    retrieve, ask = question("t", "tea", [(f"p{number}", 0.5) for number in range(12)])
    kept = {key: value for key, value in retrieve["attributes"].items() if ".documents.1" in key or "kind" in key}
    del kept["retrieval.documents.1.document.id"]
    (search,), report = imported(tmp_path, {**retrieve, "attributes": kept, "dropped_attributes": 30}, ask)
    assert search.query == "tea" and [hit.rank for hit in search.hits][-2:] == [11, 12]
    assert search.hits[0].rank > 1 and report.headless == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input.value": "__REDACTED__"}, "redacted"),
        ({"input.value": None}, "no query"),
        ({"input.value": "  "}, "no query"),
    ],
)
def test_a_query_that_was_hidden_or_is_not_there_is_none(tmp_path, change, reason):
    row = span("retrieve", "RETRIEVER", query="tea", documents=HITS)
    row["attributes"] = {key: value for key, value in (row["attributes"] | change).items() if value is not None}
    searches, report = imported(tmp_path, row)
    assert searches == [] and report.dropped == {reason: 1}


def test_documents_without_ids_give_no_search_and_a_failed_retrieval_none(tmp_path):
    unnamed = span("retrieve", "RETRIEVER", trace="u", query="tea", documents=HITS)
    unnamed["attributes"] = {k: v for k, v in unnamed["attributes"].items() if not k.endswith(".id")}
    failed = span("retrieve", "RETRIEVER", trace="f", query="tea", documents=HITS, failed=True)
    silent = span("retrieve", "RETRIEVER", trace="s", query="tea")
    searches, report = imported(tmp_path, unnamed, failed, silent)
    assert searches == [] and report.dropped == {"no id": 1, "error": 1, "no documents": 1}
    assert any("none of whose documents has an id" in line for line in report.lines())


def test_an_id_that_comes_twice_in_a_list_keeps_its_first_place_and_is_no_document_without_one(tmp_path):
    row = span("retrieve", "RETRIEVER", query="tea", documents=[("a", 0.9), ("b", 0.8), ("a", 0.7), ("d", 0.6)])
    del row["attributes"]["retrieval.documents.3.document.id"]
    (search,), report = imported(tmp_path, row)
    assert [(hit.id, hit.rank, hit.score) for hit in search.hits] == [("a", 1, 0.9), ("b", 2, 0.8)]
    assert (report.documents_repeated, report.documents_without_id) == (1, 1)
    assert "left out: 1 documents that are in their list once more" in report.lines()


def test_a_field_of_the_metadata_can_be_the_id(tmp_path):
    row = span("retrieve", "RETRIEVER", query="tea", documents=[("x", 0.5)])
    row["attributes"]["retrieval.documents.0.document.metadata"] = '{"sku": "A-1", "page": 3}'
    (search,), _ = imported(tmp_path, row, id_field="sku")
    assert ids(search) == ["A-1"]


def test_a_search_that_found_nothing_is_a_search(tmp_path):
    rows = [
        span("retrieve", "RETRIEVER", parent="ask", query="tea", answer="[]"),
        span("ask", query="tea", answer="no"),
    ]
    (search,), _ = imported(tmp_path, *rows)
    assert search.hits == ()


def test_what_the_application_asked_again_the_user_asked_once(tmp_path):
    rows = question("first", "tea", HITS, failed=True, answer=None, session__id="s")
    rows += question("second", "tea", HITS, at=20, session__id="s")
    rows += question("next day", "tea", HITS, at=86400, session__id="s")
    rows += question("another", "tea", HITS, at=30, session__id="other")
    rows += question("other hits", "tea", HITS[:2], at=40, session__id="s")
    searches, report = imported(tmp_path, *rows)
    assert len(searches) == 4 and report.dropped == {"retried": 1}
    assert all(search.answer.text for search in searches)


def test_who_asks_again_what_was_answered_has_asked_twice(tmp_path):
    rows = question("first", "tea", HITS, session__id="s") + question("second", "tea", HITS, at=20, session__id="s")
    assert len(imported(tmp_path, *rows)[0]) == 2
    # the first one's process was killed: nothing above its retrieval was written
    killed = [rows[0] | {"attributes": rows[0]["attributes"] | {"session.id": "s"}}]
    searches, report = imported(tmp_path, *killed, *rows[2:])
    assert len(searches) == 1 and report.dropped == {"retried": 1}


@pytest.mark.parametrize("between", [(), ("step",)])
def test_what_began_after_an_answer_was_given_is_no_part_of_it(between, tmp_path):
    chain = ["ask", *between, "next"]
    rows = question("t", "tea", HITS)
    rows += [span(name, "OTHER", parent=above, at=5) for above, name in zip(chain, between, strict=False)]
    rows += [
        span("next", parent=chain[-2], at=5, query="honey", answer="bees"),
        span("find", "RETRIEVER", parent="next", at=5.1, lasts=0.2, query="honey", documents=HITS[:1]),
    ]
    first, second = imported(tmp_path, *rows)[0]
    assert (first.answer.text, first.answer.searches) == ("the answer to tea", 1)
    assert (second.answer.text, second.generated) == ("bees", False)


def test_a_query_that_is_as_long_as_all_texts_is_cut_and_so_is_that_above_it(tmp_path):
    asked = "how is tea made in the mountains of the south, and"
    rows = question("t", asked, HITS, answer="x")
    for place in range(3):
        name = f"retrieval.documents.{place}.document.content"
        rows[0]["attributes"][name] = f"{place} says how tea is made in many words and more"[: len(asked)].ljust(
            50, "."
        )
    assert len(asked) == 50
    searches, report = imported(tmp_path, *rows)
    assert not searches and report.dropped == {"no query": 1}
    assert any("VALUE_LENGTH_LIMIT" in hint for hint in report.hints)


@pytest.mark.parametrize(
    "said",
    [
        {"metadata": json.dumps({"session_id": "s", "user_id": "ann"})},
        {"metadata": json.dumps({"thread_id": "s", "user_id": "ann"})},
        {"metadata__session_id": "s", "metadata__user_id": "ann"},
    ],
)
def test_user_and_session_may_be_in_the_metadata_of_a_step(said, tmp_path):
    (named,), _ = imported(tmp_path, *question("t", "tea", HITS, session__id="s", user__id="ann"))
    (search,), _ = imported(tmp_path, *question("t", "tea", HITS, **said))
    assert search.session and (search.session, search.user) == (named.session, named.user)


def test_without_a_session_only_what_failed_is_a_retry(tmp_path):
    rows = question("first", "tea", HITS) + question("second", "tea", HITS, at=20)
    assert len(imported(tmp_path, *rows)[0]) == 2
    rows = question("first", "tea", HITS, failed=True, answer=None) + question("second", "tea", HITS, at=20)
    assert len(imported(tmp_path, *rows)[0]) == 1


@pytest.mark.parametrize(
    ("change", "settings", "reason"),
    [
        ({"service": "Experiment-3f2a9c"}, {}, "evaluation"),
        ({"service": "evaluation"}, {}, "evaluation"),
        ({"tag__tags": ["experiment"]}, {}, "evaluation"),
        ({"service": "staging"}, {"left_out": ("staging",)}, "left out"),
        ({"tag__tags": ["load-test"]}, {"left_out": ("load-test",)}, "left out"),
        ({"service": "evaluations-for-schools"}, {}, None),
        ({"service": "evaluation"}, {"left_out": ("staging",)}, None),
    ],
)
def test_runs_that_are_no_users_are_left_out(tmp_path, change, settings, reason):
    searches, report = imported(tmp_path, *question("t", "tea", HITS, **change), **settings)
    assert [reason] * (reason is not None) == list(report.dropped) and len(searches) == (reason is None)


def test_spans_of_another_application_give_nothing_and_are_counted(tmp_path):
    rows = [span("GET /", "", trace=f"t{number}") for number in range(30)]
    for row in rows:
        row["attributes"] = {"http.method": "GET"}
    searches, report = imported(tmp_path, *rows)
    assert searches == [] and (report.traces, report.without_retrieval, report.retrievals) == (30, 30, 0)


def test_a_circle_of_parents_ends(tmp_path):
    rows = [
        span("retrieve", "RETRIEVER", parent="b", query="tea", documents=HITS),
        span("a", parent="b", query="tea"),
        span("b", parent="a", query="tea"),
    ]
    (search,), _ = imported(tmp_path, *rows)
    assert search.query == "tea"


def test_ids_with_quotes_are_ids(tmp_path):
    names = ["o'neil; DROP TABLE spans", 'say "hi"', "a\nb", "naïve/ü", "%s {0} \\"]
    (search,), _ = imported(tmp_path, *question("t'\"", "tea", [(name, 0.5) for name in names]))
    assert ids(search) == names


def test_a_trace_of_ten_thousand_spans_in_any_order(tmp_path):
    rows = [span("ask", query="many things", answer="done", lasts=9000)]
    for number in range(1000):
        step = f"step {number}"
        rows += [
            span(f"retrieve {number}", "RETRIEVER", parent=step, at=number, query=f"thing {number}", documents=HITS),
            span(step, parent="ask", at=number, query=f"thing {number}"),
            *(span(f"call {number} {k}", "LLM", parent=step, at=number) for k in range(8)),
        ]
    random.Random(0).shuffle(rows)
    searches, report = imported(tmp_path, *rows)
    assert report.spans == 10_001 and [search.query for search in searches] == [f"thing {n}" for n in range(1000)]
    assert {search.answer.searches for search in searches} == {1000}


def test_items_of_a_batch_are_answers_of_their_own_also_where_their_tool_nests_them(tmp_path):
    rows = []
    for place, query in enumerate(["Who makes honey?", "Who hunts at night?", "Who keeps aphids?"]):
        item = {"query": query, "answer": f"answer {place}", "at": place / 100, "lasts": 2 + place}
        chain = span(f"item {place}", parent=f"item {place - 1}" if place else None, **item)
        found = span(
            f"find {place}", "RETRIEVER", parent=f"item {place}", query=query, documents=[("a", 0.9)], at=0.5, lasts=0.1
        )
        rows += [found, {**chain, "name": "RunnableSequence"}]
    searches, _ = imported(tmp_path, *rows)
    assert sorted((search.query, search.generated, search.answer.text) for search in searches) == [
        ("Who hunts at night?", False, "answer 1"),
        ("Who keeps aphids?", False, "answer 2"),
        ("Who makes honey?", False, "answer 0"),
    ]
    # a chain that asks another one of its kind waits for it
    within = [row for row in rows if row["name"] != "RunnableSequence"]
    for place, row in enumerate(row for row in rows if row["name"] == "RunnableSequence"):
        within.append({**row, "end_time": f"2026-10-05T09:00:0{5 - place}+00:00"})
    nested, _ = imported(tmp_path, *within)
    assert sorted((search.query, search.generated, search.answer.text) for search in nested) == [
        ("Who hunts at night?", True, "answer 0"),
        ("Who keeps aphids?", True, "answer 0"),
        ("Who makes honey?", False, "answer 0"),
    ]
