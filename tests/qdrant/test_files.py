"""Rows of files with their places, and files that are written whole or not at all."""

from __future__ import annotations

import csv
import json
import os

import pytest

from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.files.rows import Row, read_lines, read_rows
from qdrant_tools.files.written import write_rows, write_text, written_whole


def file_of(folder, name: str, content: str | bytes):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", '\ufeff{"a": "x, y", "b": "\\"1"}\n\n  \n{"a": "z", "b": "2"}\r\n'),
        ("rows.csv", '\ufeffa,b\n"x, y","""1"\n\n,\nz,2\r\n'),
        ("rows.tsv", 'a\tb\nx, y\t"1\n\n\t\nz\t2\r\n'),
    ],
)
def test_the_three_formats_hold_the_same_rows(tmp_path, name, content):
    rows = list(read_rows(file_of(tmp_path, name, content)))
    assert [dict(row.values) for row in rows] == [{"a": "x, y", "b": '"1'}, {"a": "z", "b": "2"}]
    assert [row.line for row in rows] == ([1, 4] if name == "rows.jsonl" else [2, 5])
    assert rows[0].where == f"{tmp_path / name}:{rows[0].line}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "{}\n{\n", "x.jsonl:2: not JSON"),
        ("x.jsonl", "[" * 100_000, "x.jsonl:1: not JSON"),
        ("x.jsonl", "{}\n3\n", "x.jsonl:2: a int, expected an object"),
        ("x.jsonl", b'{}\n{"a": "\xe9"}\n', "x.jsonl:2: this line is not UTF-8 text .byte 7."),
        ("x.tsv", b"a\n\xe9\n", "x.tsv:2: this line is not UTF-8"),
        ("x.csv", b"a\n\xe9\n", "x.csv is not UTF-8 text .byte 2."),
        ("x.csv", 'a,b\n1,"2\n', "x.csv:2: not a row of the table: unexpected end"),
        ("x.csv", "a,b\n1,2\n3\n", "x.csv:3: 1 columns, the header has 2: a, b"),
        ("x.tsv", "a\tb\n1\t2\t3\n", "x.tsv:2: 3 columns, the header has 2: a, b"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        list(read_rows(file_of(tmp_path, name, content)))


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in ("none.jsonl", "none.csv", "none.tsv"):
        with pytest.raises(InputError, match=f"cannot read .*{name}: No such file"):
            list(read_rows(tmp_path / name))


def test_short_rows_of_a_table_end_in_empty_cells_where_that_is_meant(tmp_path):
    path = file_of(tmp_path, "x.csv", "a,b,c\n1\n1,2,3\n")
    assert [tuple(row.values.values()) for row in read_rows(path, pad=True)] == [("1", "", ""), ("1", "2", "3")]
    with pytest.raises(InputError, match="4 columns"):
        list(read_rows(file_of(tmp_path, "y.csv", "a,b,c\n1,2,3,4\n"), pad=True))


def test_a_cell_of_ten_megabytes_is_read_and_the_limit_of_the_process_stays(tmp_path):
    limit = csv.field_size_limit()
    rows = read_rows(file_of(tmp_path, "x.csv", "a\n" + "x" * 10_000_000 + "\nshort\n"))
    assert len(next(rows).values["a"]) == 10_000_000 and csv.field_size_limit() == limit
    assert next(rows).values["a"] == "short" and csv.field_size_limit() == limit


def test_values_are_checked_with_their_place(tmp_path):
    row = Row(
        {"t": "x", "n": "1.5", "l": " 3 ", "i": 4, "list": ["a"], "b": True, "f": [1, 2.5]}, tmp_path / "x.csv", 7
    )
    assert (row.text("t"), row.number("n"), row.label("l"), row.label("i")) == ("x", 1.5, "3", 4)
    assert (row.texts("list"), row.texts("t"), row.numbers("f")) == (("a",), ("x",), (1.0, 2.5))
    for read, column in [(row.text, "i"), (row.number, "t"), (row.label, "b"), (row.numbers, "n"), (row.texts, "f")]:
        with pytest.raises(InputError, match=f"x.csv:7: {column} is .*, expected"):
            read(column)
    with pytest.raises(InputError, match="x.jsonl:1: n is '1', expected a finite number"):
        Row({"n": "1"}, tmp_path / "x.jsonl", 1).number("n")


def test_errors_of_a_parser_get_the_place(tmp_path):
    row = Row({"a": 1}, tmp_path / "x.jsonl", 3)
    assert row.parse(dict) == {"a": 1}
    with pytest.raises(InputError, match="x.jsonl:3: not a thing: .*object is not subscriptable"):
        row.parse(lambda values: values["a"]["b"], "a thing")


def test_lines_are_numbered_as_an_editor_does(tmp_path):
    path = file_of(tmp_path, "x.txt", "one\r\n\n\u2028two\u2028\n")
    assert list(read_lines(path)) == [(1, "one"), (3, "\u2028two\u2028")]


def test_a_file_is_replaced_whole_and_a_failure_leaves_the_old_one_alone(tmp_path):
    path = file_of(tmp_path, "x", "old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as draft:
        draft.write_text("new")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]
    for durable in (False, True):
        with written_whole(path, durable=durable) as draft:
            draft.write_text("new")
            assert path.read_text() == "old" or durable
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["x"]


def test_rows_that_were_written_are_read_again_even_with_half_a_character(tmp_path):
    rows = [{"query": "Tee für \ud83d"}, {"query": "plain"}]
    assert write_rows(tmp_path / "x.jsonl", rows) == 2
    assert [row.values for row in read_rows(tmp_path / "x.jsonl")] == rows
    assert json.loads((tmp_path / "x.jsonl").read_text("utf-8").splitlines()[0]) == rows[0]


def test_a_place_that_cannot_be_written_is_a_usage_error_and_leaves_nothing(tmp_path):
    with pytest.raises(UsageError, match="cannot write .*no folder"):
        write_text(tmp_path / "no folder" / "x", "text")
    with pytest.raises(UsageError, match="cannot write"):
        write_rows(tmp_path, [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_two_columns_of_one_name_are_refused(tmp_path, ending):
    separator = {"csv": ",", "tsv": "\t"}[ending]
    lines = [separator.join(cells) for cells in (["a", "b", "a"], ["1", "2", "3"])]
    (tmp_path / f"rows.{ending}").write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"rows.{ending}:1: two columns are named 'a'"):
        list(read_rows(tmp_path / f"rows.{ending}"))
