"""Which passage supports an answer: by words, by an encoder; refusals; queries without an answer; rerankers' lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from qdrant_tools.debias import encoder_support, is_refusal, lists_of_rerankers, ngram_support, queries_without_answer
from qdrant_tools.debias.support import NGRAMS
from qdrant_tools.log import Answer, Feedback, LoggedHit, LoggedSearch, Verdict

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HEADER = "Copyright 2026 by the makers. All rights are reserved. "


def best(answer, passages, **more):
    return NGRAMS.supporting(answer, passages) if not more else int(np.argmax(ngram_support(answer, passages, **more)))


def test_words_that_all_passages_have_support_nothing():
    passages = [HEADER + "The oven reaches three hundred degrees.", HEADER + "The fridge holds ninety litres."]
    assert NGRAMS.supporting(HEADER, passages) == []
    assert NGRAMS.supporting(HEADER + "It holds ninety litres, like most fridges.", passages) == [1]


def test_words_of_the_query_support_nothing_either():
    passages = ["opening hours of the town library on sunday", "the museum of clocks opens at noon and costs nothing"]
    answer = "The opening hours of the town library: noon, and it costs nothing."
    query = "opening hours of the town library on sunday"
    assert int(np.argmax(ngram_support(answer, passages, query=query))) == 1


def test_a_verbatim_quote_has_its_passage_and_a_copy_of_the_passage_is_the_same_one():
    passages = ["Water boils at one hundred degrees.", "Iron melts at fifteen hundred degrees.", "Gold is soft."]
    assert NGRAMS.supporting(passages[1], passages) == [1]
    assert NGRAMS.supporting(passages[1], [*passages, passages[1].upper()]) == [1, 3]


def test_an_answer_that_several_passages_share_alike_is_supported_by_none():
    passages = [f"Train {n} leaves platform seven every morning at dawn." for n in ("alpha", "bravo", "delta", "gamma")]
    assert NGRAMS.supporting("It leaves platform seven every morning at dawn.", passages) == []


@pytest.mark.parametrize("answer", ["", "yes", "No.", "It is.", "[1]", "Yes, correct [2, 3]", "はい", "いいえ", "..."])
def test_answers_that_say_nothing_are_supported_by_nothing(answer):
    assert ngram_support(answer, ["yes no 1 it is correct はい", "another one"]) == [0.0, 0.0]


@pytest.mark.parametrize("answer", ["Owls [2].", "42", "Owls, 42", "鸮鸟"])
def test_an_answer_of_a_word_or_two_is_supported_by_the_only_passage_that_has_them(answer):
    passages = ["Bats hear where insects are.", "Owls hunt at night, 42 of them: 鸮鸟", "Cats sleep."]
    assert NGRAMS.supporting(answer, passages) == [1]
    assert NGRAMS.supporting(answer, [*passages, "Not only owls do so: 42 鸮鸟"]) == []
    assert NGRAMS.supporting(answer, passages[:1]) == [] and NGRAMS.supporting(answer, passages[1:2]) == [0]


def test_marks_of_citations_are_no_words():
    passages = ["Section 1: the oven is hot.", "Section 2: the fridge is cold and holds ninety litres."]
    assert NGRAMS.supporting("It is cold and holds ninety litres [1].", passages) == [1]


def test_what_is_written_without_spaces_is_compared_by_neighbouring_characters():
    passages = [
        "红色电缆接到左边的插座,然后按两次绿色按钮。",
        "把纸放进下面的纸盒,打印面朝下。",
        "墨盒大约可以打印三百页。",
    ]
    assert NGRAMS.supporting("请把红色电缆接到左边插座,再按绿色按钮。", passages) == [0]
    assert NGRAMS.supporting("墨盒可以打印大约三百页。", passages) == [2]


def test_scores_do_not_depend_on_the_order_of_the_passages():
    passages = ["red cable left socket", "paper lower tray side", "ink three hundred pages"]
    answer = "the red cable and the paper go to the left"
    scores = ngram_support(answer, passages)
    assert ngram_support(answer, passages[::-1]) == scores[::-1]


def test_no_passages_are_no_scores_and_a_long_answer_takes_linear_time():
    assert ngram_support("some answer with many words", []) == [] == NGRAMS.supporting("some answer of words", [])
    assert len(ngram_support("word " * 200_000 + "alpha beta gamma", ["alpha beta gamma", "x"])) == 2


class Axes:
    """An encoder whose vectors say which of three words a text has."""

    dimension, space = 3, "axes@000000000000"

    def encode_passages(self, texts):
        vectors = np.array([[float(word in text) for word in ("red", "blue", "green")] for text in texts]) + 1e-6
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_passages


def test_an_encoder_may_judge_support():
    support = encoder_support(Axes())
    assert support.supporting("blue it is", ["a red one", "the blue one", "one that is red and green"]) == [1]
    assert support.supporting("blue it is", ["a red one"]) == []


REFUSALS = [
    "I don't know.",
    "I’m sorry, but I cannot answer that question.",
    "Empty Response",
    "The provided context does not contain the answer.",
    "The context information doesn't mention any dates.",
    "There is no information about that in the documents.",
    "Not enough information.",
    "This is not mentioned in the given context.",
    "Das weiß ich nicht, ich weiß es leider nicht.",
    "Im Kontext gibt es keine Informationen über den Preis.",
    "Je ne sais pas.",
    "No lo sé.",
    "我不知道。",
    "根据上下文没有提到该信息。",
    "提供された情報は含まれていません。わかりません。",
    "Я не знаю.",
]
ANSWERS = [
    "The context manager does not close the file.",
    "If the argument is not provided, it is None.",
    "There is no information loss in PNG files.",
    "The document does not need a signature.",
    "It returns None if nothing is found.",
    "Sources do not have to be cited.",
    "You cannot find out who deleted it.",
    "Not all of them are included in the price.",
    "I don't know who wrote it, but the second edition adds a chapter about gardens. " * 5,
    "",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_one_in_several_languages(text):
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_that_says_no_is_no_refusal(text):
    assert not is_refusal(text)


def asked(number, query, answer=None, hits=("a",), **more):
    shown = tuple(LoggedHit(name, rank) for rank, name in enumerate(hits, start=1))
    return LoggedSearch(f"s{number}", NOON + timedelta(days=number), query, hits=shown, answer=answer, **more)


def test_queries_without_an_answer_are_listed_with_the_reason_and_how_often_they_came():
    down = Answer("t", "It is red.", verdicts=(Verdict("thumb", 0.0, NOON),))
    both = Answer("t", "It is red.", verdicts=(Verdict("thumb", 0.0, NOON), Verdict("thumb", 1.0, NOON, who="u2")))
    found = queries_without_answer(
        [
            asked(1, "Where is it?", Answer("t", "I don't know.")),
            asked(2, "where is it", down),
            asked(3, "what?", hits=()),
            asked(4, "liked", both),
            asked(5, "silence", Answer("t", "It is red.")),
            asked(6, "no answer at all"),
            asked(7, "redacted:", hits=(), redacted=True),
            asked(8, "made up", Answer("t", "I don't know."), generated=True),
        ]
    )
    assert [(one.query, one.times, one.reasons) for one in found] == [
        ("Where is it?", 2, {"refused": 1, "thumb down": 1}),
        ("what?", 1, {"no hits": 1}),
    ]
    assert found[0].as_row()["last"] == "2026-02-02T12:00:00+00:00"


def test_a_rerankers_scores_become_lists_with_margins_and_scores_of_retrievers_do_not():
    hits = tuple(LoggedHit(name, rank, 0.5) for rank, name in enumerate("abcd", start=1))
    scores = tuple(Feedback(name, "reranked", score, NOON) for name, score in zip("abcd", [1.0, 4.0, 3.5, -2.0]))
    searches = [
        LoggedSearch("s1", NOON, "q", hits=hits, feedback=scores),
        LoggedSearch("s2", NOON, "other", hits=hits, scored_by="retriever"),
        LoggedSearch("s3", NOON, "third", hits=(LoggedHit("a", 1, 2.0), LoggedHit("b", 2, 0.5)), scored_by="reranker"),
        LoggedSearch("s4", NOON, "redacted:", hits=hits, feedback=scores, redacted=True),
        LoggedSearch("s5", NOON, "single", hits=hits[:1], feedback=scores[:1]),
    ]
    found = list(lists_of_rerankers(searches, lambda ids: {i: f"text {i}" for i in ids if i != "d"}))
    assert [one.as_row() for one in found] == [
        {"query": "q", "positive": "text b", "negative_1": "text c", "negative_2": "text a", "margins": [0.5, 3.0]},
        {"query": "third", "positive": "text a", "negative_1": "text b", "margins": [1.5]},
    ]
