"""Files of rows that somebody else made: one error with the place, in little memory, whatever is in them."""

from __future__ import annotations

import pytest
from rows import NUMBERS, ROWS

from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_run
from qdrant_tools.errors import InputError, brief
from qdrant_tools.files.rows import MOST_VALUES, Row, read_lines, read_rows
from qdrant_tools.metrics import measure


@pytest.mark.parametrize("name", ROWS)
def test_a_hostile_file_of_rows_is_one_short_error(tmp_path, name):
    suffix, write = ROWS[name]
    path = tmp_path / f"x.{suffix}"
    write(path)
    with pytest.raises(InputError, match="x.") as refusal:
        list(read_rows(path))
    assert str(path) in str(refusal.value) and len(str(refusal.value)) < 400 + len(str(path))


def test_rows_as_large_as_honest_ones_may_be_are_read(tmp_path):
    path = tmp_path / "x.jsonl"
    # commas and brackets inside a text are no values
    path.write_text('{"id": "a", "text": "' + "[,]{" * 2_500_000 + '"}\n{"v": [' + "1," * (MOST_VALUES - 3) + "1]}\n")
    first, second = read_rows(path)
    assert len(first.values["text"]) == 10_000_000 and len(second.values["v"]) == MOST_VALUES - 2


@pytest.mark.parametrize("text", NUMBERS.values(), ids=NUMBERS)
def test_a_text_that_is_hardly_a_number_is_no_score_and_no_grade(tmp_path, text):
    with pytest.raises(InputError, match="expected a finite number") as refusal:
        Row({"n": text}, tmp_path / "x.csv", 1).number("n")
    assert len(str(refusal.value)) < 400
    (tmp_path / "run").write_text(f"q Q0 p 1 {text} name\n", encoding="utf-8")
    (tmp_path / "qrels").write_text(f"query-id\tcorpus-id\tscore\nq\tp\t{text}\n", encoding="utf-8")
    for read, name in ((read_run, "run"), (read_qrels, "qrels")):
        with pytest.raises(InputError, match=f"{name}:") as refusal:
            read(tmp_path / name)
        assert len(str(refusal.value)) < 400


def test_an_integer_beyond_what_a_float_holds_is_no_number(tmp_path):
    row = Row({"n": 10**400, "list": [1, 10**400]}, tmp_path / "x.jsonl", 1)
    for read, column in ((row.number, "n"), (row.numbers, "list")):
        with pytest.raises(InputError, match="expected"):
            read(column)


@pytest.mark.parametrize("value", [10**400, float("nan"), "1", None, 2**31, 0.5], ids=brief)
def test_a_grade_that_no_gain_can_be_made_of_is_refused(value):
    with pytest.raises(InputError, match="grade of 'p'"):
        measure({"q": {"p": value}}, {"q": {"p": 1.0}})


@pytest.mark.parametrize("value", [10**400, float("nan"), "1", None], ids=brief)
def test_a_score_that_is_no_number_is_refused_and_infinite_ones_are_ranked(value):
    with pytest.raises(InputError, match="score of 'p'"):
        measure({"q": {"p": 1}}, {"q": {"p": value}})
    values = measure({"q": {"p": 1}}, {"q": {"p": float("inf"), "r": 1e30, "s": float("-inf")}})
    assert values["mrr@10"] == {"q": 1.0}


def test_lines_of_a_million_columns_are_refused_without_splitting_them(tmp_path):
    (tmp_path / "run").write_text("a " * 1_000_000)
    with pytest.raises(InputError, match="more than 6 columns"):
        read_run(tmp_path / "run")
    with pytest.raises(InputError, match="more than 4 columns"):
        read_qrels(tmp_path / "run")
    assert len(list(read_lines(tmp_path / "run"))) == 1
