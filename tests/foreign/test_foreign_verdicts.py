"""What strangers write beside the texts of a row: fields that judge it, other spellings of a text, words and ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import Distilled, JudgedPair
from qdrant_tools.errors import InputError
from qdrant_tools.records import Example
from qdrant_tools.same import SameTexts

Q, BEES, CATS, WASPS = "who makes honey", "Bees make honey.", "Cats sleep all day.", "Wasps build nests of paper."


def read(folder: Path, rows: list[dict[str, Any]] | str, **told: Any) -> Any:
    """The data of rows, as JSONL, or of the text of a CSV."""
    file = folder / ("rows.csv" if isinstance(rows, str) else "rows.jsonl")
    file.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    return read_training_data(file, **told)


def shown(data: Any) -> list[Any]:
    """Examples as (query, positives, negatives), other rows as they are."""
    return [
        (row.query, [text.text for text in row.positives], [text.text for text in row.negatives])
        if isinstance(row, Example)
        else row
        for row in data.rows
    ]


RIGHT = [(Q, [BEES], [CATS])]

JUDGING = {
    "hilfreich": ("ja", "nein"),
    "pertinent": ("oui", "non"),
    "relevante": ("sí", "no"),
    "релевантность": (2, 0),
    "是否相关": ("是", "否"),
    "eval": ("good", "bad"),
    "ok": (True, False),
    "status": ("approved", "rejected"),
    "checked": ("WAHR", "FALSCH"),
    "review": ("pass", "fail"),
    "type": ("gold", "distractor"),
    "llm_judge": (5, 1),
    "confidence": (0.9, 0.1),
    "logit": (7.5, -3.1),
    "relevancy": (3, 0),
    "bm25": (0.93, 0.12),
    "nota": (9, 2),
    "annotator_1": (3, 0),
    "phase": ("train", "test"),
    "is_train": (1, 0),
}


@pytest.mark.parametrize("name", JUDGING)
def test_an_unknown_field_that_says_which_rows_are_right_is_refused(tmp_path, name):
    yes, no = JUDGING[name]
    rows = [{"query": Q, "passage": BEES, name: yes}, {"query": Q, "passage": CATS, name: no}]
    with pytest.raises(InputError, match=rf"the field '{name}'.*--ignore"):
        read(tmp_path, rows)
    assert shown(read(tmp_path, rows, ignore=[name])) == [(Q, [BEES], []), (Q, [CATS], [])]


HONEST = {
    "source": ("faq", "forum"), "lang": ("en", "en"), "page": (3, 7), "chunk_index": (0, 4), "year": (2020, 2021),
    "hop": (1, 2), "reviewed": (True, True), "length": (120, 80), "temperature": (0.7, 0.2),
    "url": ("a.html", "b.html"), "created_at": ("2026-01-01", "2026-01-02"), "tokens": (9, 4),
}  # fmt: skip


def test_fields_that_say_where_a_text_comes_from_are_named_and_no_more(tmp_path):
    rows = [
        {"query": Q, "passage": text, **{name: values[place] for name, values in HONEST.items()}}
        for place, text in enumerate((BEES, CATS))
    ]
    data = read(tmp_path, rows)
    assert data.kind == "pairs" and set(data.ignored) == set(HONEST)


def test_the_verdicts_of_an_annotation_program_are_no_answers(tmp_path):
    rows = [{"query": Q, "text": BEES, "answer": "accept"}, {"query": Q, "text": CATS, "answer": "reject"}]
    with pytest.raises(InputError, match="'answer' is a verdict in every row: call it `label`"):
        read(tmp_path, rows)
    renamed = [{"query": row["query"], "text": row["text"], "label": row["answer"]} for row in rows]
    assert shown(read(tmp_path, renamed)) == RIGHT


def test_a_short_answer_is_not_trained_on_beside_what_it_was_taken_from(tmp_path):
    row = {"question": Q, "answer": "Bees", "source_text": "In spring and summer bees make honey."}
    with pytest.raises(InputError, match=r"'answer' may be a few words out of 'source_text'.*`positive`"):
        read(tmp_path, [row])
    data = read(tmp_path, [{"question": Q, "answer": "Bees do.", "chunk_id": "c1"}], passages={"c1": BEES})
    assert shown(data) == [(Q, [BEES], [])] and data.ignored == ("answer",)
    explained = {"question": Q, "answer": "Bees.", "explanation": "They do it in spring and summer."}
    assert shown(read(tmp_path, [explained])) == [(Q, ["Bees."], [])]


@pytest.mark.parametrize("spelling", [BEES + " ", "bees  make honey", "BEES MAKE HONEY."])
def test_a_positive_in_another_spelling_is_no_negative(tmp_path, spelling):
    assert shown(read(tmp_path, [{"query": Q, "positive": BEES, "negative": spelling}])) == [(Q, [BEES], [])]
    assert shown(read(tmp_path, [{"query": Q, "pos": [BEES], "neg": [spelling, CATS]}])) == RIGHT
    apart = [
        {"query": Q, "positive": BEES, "negative": CATS},
        {"query": f"{Q}?", "positive": WASPS, "negative": spelling},
    ]
    assert shown(read(tmp_path, apart)) == [*RIGHT, (f"{Q}?", [WASPS], [])]
    judged = [{"query": Q, "passage": BEES, "label": 1}, {"query": f"{Q}?", "passage": spelling, "label": 0}]
    with pytest.raises(InputError, match=r"rows.jsonl:2: .* are judged 0 here and 1 in line 1"):
        read(tmp_path, judged)


def test_composed_and_decomposed_texts_are_one_judged_text(tmp_path):
    rows = [
        {"query": "drink", "passage": text, "label": 1 - place}
        for place, text in enumerate(("Un café", "Un cafe\u0301"))
    ]
    with pytest.raises(InputError, match="are judged 0 here and 1 in line 1"):
        read(tmp_path, rows)


def test_texts_are_the_same_per_query():
    texts: SameTexts[int] = SameTexts()
    assert texts.setdefault("q", BEES, 1) == 1 and texts.setdefault("q", "bees make honey", 2) == 1
    assert texts.get("q", " Bees make honey") == 1
    assert texts.get("other", BEES) is None and texts.get("q", "Bees make honey and wax.") is None


def test_words_are_texts_where_the_file_has_texts_or_the_caller_says_so(tmp_path):
    words = {"query": "capital of France", "pos": ["Paris"], "neg": ["London", "Rome"]}
    read_as = ("capital of France", ["Paris"], ["London", "Rome"])
    assert shown(read(tmp_path, [words, {"query": Q, "pos": [BEES], "neg": [CATS]}])) == [read_as, *RIGHT]
    with pytest.raises(InputError, match=r"'pos' holds 'Paris'.*say the kind if these are the texts"):
        read(tmp_path, [words])
    assert shown(read(tmp_path, [words], kind="examples")) == [read_as]
    flat = {"query": "who", "positive": "Bees", "negatives": ["a", "b"]}
    assert shown(read(tmp_path, [flat], kind="examples")) == [("who", ["Bees"], ["a", "b"])]
    codes = [{"query": "a cheap phone", "pos": ["SKU-123"], "neg": ["SKU-124"]}]
    with pytest.raises(InputError, match="'pos' holds 'SKU-123'"):
        read(tmp_path, codes)
    assert shown(read(tmp_path, codes, kind="examples")) == [("a cheap phone", ["SKU-123"], ["SKU-124"])]


def test_ids_are_no_queries(tmp_path):
    rows = [{"query": "q1", "positive": BEES}, {"query": "q2", "positive": CATS}]
    with pytest.raises(InputError, match="every query is a word such as 'q1'.*--examples-kind"):
        read(tmp_path, rows)
    assert len(read(tmp_path, rows, kind="pairs")) == 2


def test_scores_in_an_order_that_is_not_stated_are_refused(tmp_path):
    with pytest.raises(InputError, match="stands before the positive"):
        read(tmp_path, [{"query": Q, "negative": CATS, "positive": BEES, "scores": [0.1, 0.9]}])
    far = [{"query": f"{Q} {i}", "positive": BEES, "negative": CATS, "scores": [0.1, 0.9]} for i in range(4)]
    with pytest.raises(InputError, match="the positive has the lowest score: they may be distances"):
        read(tmp_path, far)
    assert shown(read(tmp_path, far[:1], kind="distillation")) == [Distilled(f"{Q} 0", BEES, (CATS,), (-0.8,))]


def test_judgements_as_programs_write_them(tmp_path):
    inside = {"query": Q, "passages": [{"text": BEES, "label": 1}, {"text": CATS, "label": 0}]}
    assert shown(read(tmp_path, [inside])) == RIGHT
    comma = "query;passage;score\nq;Bees make honey.;0,95\nq;Cats sleep.;0,10\n"
    assert [row.score for row in read(tmp_path, comma).rows if isinstance(row, JudgedPair)] == [0.95, 0.1]
    # a program that leaves empty fields out
    lacking = [{"query": Q, "passage": BEES, "label": 1}, {"query": Q, "passage": CATS}]
    assert shown(read(tmp_path, lacking)) == [(Q, [BEES], [])] and read(tmp_path, lacking).left_out == 1
    mixed = [{"query": Q, "passage": text, "label": label} for text, label in ((BEES, "yes"), (CATS, 2), (WASPS, 0))]
    with pytest.raises(InputError, match="which grade a yes is cannot be told"):
        read(tmp_path, mixed)


def test_rows_of_well_known_files_are_read(tmp_path):
    simcse = "sent0,sent1,hard_neg\nA man runs.,A person runs.,Nobody moves.\n"
    assert shown(read(tmp_path, simcse)) == [("A man runs.", ["A person runs."], ["Nobody moves."])]
    wikihow = [{"summary": "Feed the bees.", "text": "Bees are fed with sugar and water."}]
    assert shown(read(tmp_path, wikihow, kind="pairs")) == [
        ("Feed the bees.", ["Bees are fed with sugar and water."], [])
    ]
    first_has_none = [{"query": "what", "pos": None, "neg": [CATS]}, {"query": Q, "pos": [BEES], "neg": [CATS]}]
    assert shown(read(tmp_path, first_has_none)) == RIGHT
    studio = [{"id": 1, "query": Q, "passage": BEES, "relevance": "Relevant", "annotation_id": 3, "lead_time": 3.4}]
    assert shown(read(tmp_path, studio)) == [(Q, [BEES], [])]
