"""Rows of JSONL, JSON, CSV, TSV and Parquet -> documents with their own ids and fields."""

from __future__ import annotations

import csv
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.documents.passages import CutReport
from llama_index_embed_plus.documents.reading import Source, read_passages
from llama_index_embed_plus.documents.records import CutSettings, ReadSettings
from llama_index_embed_plus.documents.rows import MOST_BAD_ROWS, documents_of, is_rows
from qdrant_tools.errors import InputError


def written(path, rows):
    """The rows as a file of the format that its ending names, by that format's own writer."""
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path, **fields):
    """(id, text, own metadata) of each row of a file."""
    return [
        (document.id, document.text, dict(document.metadata)) for document in documents_of(path, ReadSettings(**fields))
    ]


FORMATS = ["rows.jsonl", "rows.ndjson", "rows.json", "rows.csv", "rows.tsv", "rows.parquet"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_is_a_document_with_its_own_id_and_every_other_field_as_metadata(tmp_path, name):
    rows = [
        {"id": "a", "text": "Bees make honey.", "author": "Ann", "url": "https://example.org/1"},
        {"id": "b", "text": "Grüner Tee, 绿茶.", "author": "Bob", "url": "https://example.org/2"},
    ]
    path = written(tmp_path / name, rows)
    assert is_rows(path, ReadSettings())
    assert read(path) == [(row["id"], row["text"], {"author": row["author"], "url": row["url"]}) for row in rows]


@pytest.mark.parametrize("name", FORMATS)
def test_a_title_comes_first_as_every_system_embeds_beir(tmp_path, name):
    path = written(tmp_path / name, [{"_id": "b", "title": "T", "text": "two"}, {"_id": "c", "title": "", "text": "x"}])
    assert read(path) == [("b", "T two", {}), ("c", "x", {})]


@pytest.mark.parametrize("name", FORMATS)
def test_other_fields_may_hold_id_and_text(tmp_path, name):
    rows = [{"key": "k1", "content": "Bees make honey.", "id": "kept", "text": "kept too"}]
    path = written(tmp_path / name, rows)
    assert read(path, id_field="key", text_field="content") == [
        ("k1", "Bees make honey.", {"id": "kept", "text": "kept too"})
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_a_field_inside_others_is_named_by_its_path(tmp_path, name):
    rows = [{"meta": {"key": 7, "lang": "en"}, "article": {"body": "Bees make honey.", "words": 3}}]
    path = written(tmp_path / name, rows)
    assert read(path, id_field="meta.key", text_field="article.body") == [
        ("7", "Bees make honey.", {"meta": {"lang": "en"}, "article": {"words": 3}})
    ]


def test_a_name_with_a_dot_is_a_name_before_it_is_a_path(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"id": "a", "a.b": "by name", "a": {"b": "by path"}}])
    assert read(path, text_field="a.b") == [("a", "by name", {"a": {"b": "by path"}})]


def test_what_metadata_holds_stands_beside_the_other_fields(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"id": "a", "text": "one", "metadata": {"year": 1}, "lang": "en"}])
    assert read(path) == [("a", "one", {"lang": "en", "year": 1})]


def test_metadata_is_an_ordinary_column_of_a_table(tmp_path):
    path = written(tmp_path / "rows.csv", [{"id": "a", "text": "one", "metadata": "{'year': 1}"}])
    assert read(path) == [("a", "one", {"metadata": "{'year': 1}"})]


@given(st.integers(-(10**30), 10**30))
@settings(max_examples=30, deadline=None)
def test_whole_numbers_are_ids_in_their_decimal_digits(tmp_path_factory, number):
    path = written(tmp_path_factory.mktemp("ids") / "rows.jsonl", [{"_id": number, "text": "x"}])
    assert read(path) == [(str(number), "x", {})]


def test_a_number_and_its_digits_are_one_id(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"id": 0, "text": "x"}, {"id": "0", "text": "x"}])
    assert [name for name, _, _ in read(path)] == ["0", "0"]


def test_ids_of_parquet_may_be_numbers_and_uuids(tmp_path):
    numbers = pa.table({"id": pa.array([0, 2**40], pa.int64()), "text": ["a", "b"]})
    pq.write_table(numbers, tmp_path / "numbers.parquet")
    assert [name for name, _, _ in read(tmp_path / "numbers.parquet")] == ["0", str(2**40)]
    given = uuid.uuid5(uuid.NAMESPACE_URL, "x")
    pq.write_table(pa.table({"id": pa.array([given.bytes], pa.uuid()), "text": ["a"]}), tmp_path / "uuids.parquet")
    assert [name for name, _, _ in read(tmp_path / "uuids.parquet")] == [str(given)]


BAD = {
    "not json": r"rows.jsonl:2: not JSON",
    "[1]": r"rows.jsonl:2: a list, expected an object",
    '{"text": "x"}': r"rows.jsonl:2: id is None, expected a non-empty text or a whole number",
    '{"id": null, "text": "x"}': r"rows.jsonl:2: id is None",
    '{"id": " ", "text": "x"}': r"rows.jsonl:2: id is ' '",
    '{"id": true, "text": "x"}': r"rows.jsonl:2: id is True, expected a non-empty text or a whole number",
    '{"id": 1.0, "text": "x"}': r"rows.jsonl:2: id is 1.0, .*: write whole numbers without a point",
    '{"id": NaN, "text": "x"}': r"rows.jsonl:2: id is nan, expected a non-empty text or a whole number$",
    '{"id": ["a"], "text": "x"}': r"rows.jsonl:2: id is \['a'\]",
    '{"id": "x", "_id": "y", "text": "x"}': r"rows.jsonl:2: id is 'x' and _id 'y': leave one out",
    '{"id": "x"}': r"rows.jsonl:2: text is None",
    '{"id": "x", "text": 5}': r"rows.jsonl:2: text is 5",
    '{"id": "x", "text": ["a", "b"]}': r"rows.jsonl:2: text is \['a', 'b'\]",
    '{"id": "x", "text": "y", "title": 7}': r"rows.jsonl:2: title is 7, expected a text",
    '{"id": "x", "text": "y", "metadata": 3}': r"rows.jsonl:2: metadata is a int, expected an object",
    '{"id": "x", "text": "y", "score": NaN}': r"rows.jsonl:2: metadata field 'score' is nan: JSON has no NaN",
    '{"id": "x", "text": "y", "a": {"b": [1, Infinity]}}': r"rows.jsonl:2: metadata field .* is inf: JSON has no infin",
    '{"id": "x", "text": "y", "a": 1, "metadata": {"a": 2}}': r"rows.jsonl:2: 'a' is 1, and 2 in its metadata",
    '{"id": "x", "text": "\\ud800"}': r"rows.jsonl:2: its text holds a lone surrogate",
    '{"id": "\\ud800", "text": "x"}': r"rows.jsonl:2: id .* holds a lone surrogate",
    '{"id": "x", "id": "y", "text": "x"}': r"rows.jsonl:2: an object has the key 'id' twice",
}


@pytest.mark.parametrize("text", ['""', '" "', "null"])
@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_row_whose_text_is_empty_is_counted_with_its_line_and_the_next_one_is_read(tmp_path, text, given):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "text": "fine"}\n{"id": "b", "text": ' + text + '}\n{"id": "c", "text": "fine"}\n')
    source = Source(rows if given == "file" else tmp_path)
    assert [document.id for document in source] == ["a", "c"]
    (skipped,) = source.skipped
    assert skipped.reason == "empty row" and "rows.jsonl:2: text is " in skipped.detail
    with pytest.raises(InputError, match="1 empty row"):
        source.require_complete()


def test_of_thousands_of_empty_rows_the_first_hundred_are_named(tmp_path):
    lines = ['{"id": "a", "text": "fine"}', *(json.dumps({"id": str(number), "text": ""}) for number in range(3000))]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    source = Source(tmp_path / "rows.jsonl")
    assert len(list(source)) == 1
    assert len(source.skipped) == 101 and source.skipped[-1].detail == "2,900 further rows have no text"


@pytest.mark.parametrize("line", BAD)
def test_a_bad_row_of_a_file_that_is_given_is_an_error_with_file_and_line(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text('{"id": "ok", "text": "fine"}\n' + line + '\n{"id": "c", "text": "fine"}\n')
    with pytest.raises(InputError, match=BAD[line]):
        list(read_passages(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("line", BAD)
def test_a_bad_row_inside_a_folder_is_counted_and_the_next_one_is_read(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text('{"id": "ok", "text": "fine"}\n' + line + '\n{"id": "c", "text": "fine"}\n')
    source = Source(tmp_path)
    assert [document.id for document in source] == ["ok", "c"]
    (skipped,) = source.skipped
    assert skipped.reason == "bad row" and "rows.jsonl:2: " in skipped.detail


def test_a_table_is_read_up_to_the_row_behind_which_nothing_is_sure(tmp_path):
    (tmp_path / "rows.csv").write_text('id,text\na,one\nb,"two\n')
    source = Source(tmp_path)
    assert [document.id for document in source] == ["a"]
    (skipped,) = source.skipped
    assert skipped.reason == "damaged" and "the rest of the file was not read" in skipped.detail


def test_a_hundred_bad_rows_are_told_one_by_one_and_the_rest_in_one_line(tmp_path):
    rows = [{"id": "ok", "text": "fine"}, *({"id": str(i)} for i in range(MOST_BAD_ROWS + 30))]
    written(tmp_path / "rows.jsonl", rows)
    source = Source(tmp_path)
    assert [document.id for document in source] == ["ok"]
    assert len(source.skipped) == MOST_BAD_ROWS + 1
    assert source.skipped[-1].detail == "30 further rows are no documents"


def test_a_file_without_any_row_that_can_be_read_is_skipped_once(tmp_path):
    (tmp_path / "rows.jsonl").write_text("no json\n" * 5000)
    (tmp_path / "a.txt").write_text("Bees make honey.")
    source = Source(tmp_path)
    assert [document.file for document in source] == ["a.txt"]
    assert len(source.skipped) == MOST_BAD_ROWS


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "content": "x"}, r"the fields are id, content: .* --text-field content \(text_field='content'\)"),
        ({"id": "a", "page_content": "x"}, r"such as --text-field page_content"),
        ({"id": "a", "body": "x", "title": "t"}, r"such as --text-field body"),
        (
            {"id": "a", "x": "y"},
            r"no field 'text', the fields are id, x: name the one with the text, --text-field NAME",
        ),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_text_under_another_name_is_never_guessed_and_the_way_out_is_said(tmp_path, name, row, message):
    with pytest.raises(InputError, match=message):
        read(written(tmp_path / name, [row]))


@pytest.mark.parametrize("option", ["id_field", "text_field"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_field_that_is_not_there_is_refused_with_the_fields_that_are(tmp_path, name, option):
    path = written(tmp_path / name, [{"id": "a", "text": "x", "lang": "en"}])
    with pytest.raises(InputError, match=r"no field 'nope' .*the fields are id, text, lang"):
        list(read_passages(path, read=ReadSettings(**{option: "nope"})))


@pytest.mark.parametrize("name", FORMATS)
def test_rows_without_ids_get_ids_of_their_content(tmp_path, name, caplog):
    rows = [{"text": "one", "lang": "en"}, {"text": "two", "lang": "en"}, {"text": "one", "lang": "de"}]
    path = written(tmp_path / name, rows)
    first = [name for name, _, _ in read(path)]
    assert len(set(first)) == 3
    assert all(
        name.startswith(f"{tmp_path.name}/{path.name}#") and len(name.rpartition("#")[2]) == 12 for name in first
    )
    assert "no field 'id' or '_id': the ids of the rows are made of their content" in caplog.text
    written(path, [{"text": "new", "lang": "en"}, *rows])
    assert [name for name, _, _ in read(path)][1:] == first


def test_an_id_that_only_later_rows_have_is_no_id_of_the_file(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"text": "one"}, {"id": "b", "text": "two"}])
    with pytest.raises(InputError, match="rows.jsonl:2: id is 'b', and the first row has none"):
        read(path)


@pytest.mark.parametrize("cell", ["", "NULL", "NaN", r"\N", "#N/A"])
def test_a_cell_that_says_nothing_is_no_metadata_no_title_and_no_text(tmp_path, cell):
    path = tmp_path / "rows.csv"
    path.write_text(f"id,title,text,lang\na,{cell},one,{cell}\n")
    assert read(path) == [("a", "one", {})]
    path.write_text(f"id,text\na,{cell}\n")
    with pytest.raises(InputError, match=r"rows.csv:2: text is"):
        read(path)


def test_a_title_alone_is_a_text(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"_id": "a", "title": "Bees", "text": ""}])
    assert read(path) == [("a", "Bees", {})]


def test_values_of_parquet_are_those_of_json(tmp_path):
    table = pa.table(
        {
            "id": ["a"],
            "text": ["Bees make honey."],
            "day": pa.array([date(2024, 2, 29)]),
            "at": pa.array([datetime(2024, 2, 29, 12, 30, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            "price": pa.array([Decimal("12.50")], pa.decimal128(9, 2)),
            "views": pa.array(np.array([7], np.int32)),
            "score": pa.array(np.array([0.5], np.float32)),
            "tags": pa.array([["x", "y"]]),
            "author": pa.array([{"name": "Ann", "age": 5}]),
            "none": pa.array([None], pa.string()),
            "nan": pa.array([float("nan")]),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == [
        (
            "a",
            "Bees make honey.",
            {
                "day": "2024-02-29",
                "at": "2024-02-29T12:30:00+00:00",
                "price": 12.5,
                "views": 7,
                "score": 0.5,
                "tags": ["x", "y"],
                "author": {"name": "Ann", "age": 5},
            },
        )
    ]


def test_columns_of_bytes_are_left_out_and_named(tmp_path, caplog):
    images = pa.array([{"bytes": b"\x89PNG", "path": "a.png"}])
    table = pa.table({"id": ["a"], "text": ["x"], "image": images, "raw": pa.array([b"\x00"])})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == [("a", "x", {})]
    assert "columns of bytes, which metadata cannot hold, are left out: image, raw" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"not parquet at all"])
def test_a_file_that_is_no_parquet_is_one_error(tmp_path, content):
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"rows.parquet is no Parquet file that can be read"):
        list(documents_of(tmp_path / "rows.parquet", ReadSettings()))


def test_a_parquet_whose_end_is_there_and_whose_rows_are_damaged_is_one_error(tmp_path):
    path = written(tmp_path / "rows.parquet", [{"id": str(i), "text": f"text {i}"} for i in range(1000)])
    content = bytearray(path.read_bytes())
    content[10:200] = b"\xff" * 190
    path.write_bytes(content)
    with pytest.raises(InputError, match="no Parquet file that can be read"):
        read(path)


def test_a_table_without_texts_is_no_rows(tmp_path):
    prices = written(tmp_path / "prices.csv", [{"item": "tea", "price": "3"}])
    assert not is_rows(prices, ReadSettings())
    assert is_rows(prices, ReadSettings(text_field="item"))
    settings_file = tmp_path / "package.json"
    settings_file.write_text('{"text": "this is one object"}')
    assert not is_rows(settings_file, ReadSettings())
    numbers = tmp_path / "numbers.json"
    numbers.write_text("[1, 2, 3]")
    assert not is_rows(numbers, ReadSettings())


def test_equal_rows_give_equal_documents(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"id": i, "text": f"text {i}", "n": [i]} for i in range(50)])
    assert read(path) == read(path)


def test_without_an_encoder_rows_are_whole_and_files_are_refused(tmp_path, minilm):
    text = " ".join(f"Sentence {i} is about honey." for i in range(200))
    written(tmp_path / "rows.jsonl", [{"id": "a", "title": "Honey", "text": text}])
    assert [(p.id, p.text) for p in read_passages(tmp_path / "rows.jsonl")] == [("a", f"Honey {text}")]
    (tmp_path / "notes.txt").write_text(text)
    with pytest.raises(InputError, match=r"notes.txt is a text, and which passages it has depends on an encoder: give"):
        list(read_passages(tmp_path))
    encoder = open_encoder(minilm, backend="torch")
    passages = list(read_passages(tmp_path, encoder, whole_rows=True))
    assert [p.id for p in passages if p.text == f"Honey {text}"] == ["a"]
    assert len(passages) > 3 and all(p.id.startswith(f"{tmp_path.name}/notes.txt#") for p in passages if p.id != "a")


def test_what_is_not_read_of_passages_is_warned_of(tmp_path, caplog):
    written(tmp_path / "rows.jsonl", [{"id": "a", "text": "one"}, {"id": "b", "text": ""}])
    assert [p.id for p in read_passages(tmp_path)] == ["a"]
    assert "1 files or rows were not read (1 empty row), such as" in caplog.text


def test_a_row_of_a_hundred_thousand_words_is_cut_into_passages(tmp_path, minilm):
    encoder = open_encoder(minilm, backend="torch")
    words = "a b c. " * 33_000
    written(tmp_path / "rows.jsonl", [{"id": "short", "text": "Bees."}, {"id": "long", "title": "T", "text": words}])
    passages = list(read_passages(tmp_path / "rows.jsonl", encoder))
    assert (passages[0].id, passages[0].text) == ("short", "Bees.")
    assert len(passages) > 500 and {p.metadata["document"] for p in passages[1:]} == {"long"}
    assert encoder.count_overlong([p.text for p in passages]) == 0
    whole = CutSettings(whole=True)
    report = CutReport()
    assert [p.id for p in read_passages(tmp_path / "rows.jsonl", encoder, cut=whole, report=report)] == [
        "short",
        "long",
    ]
    assert report.truncated == 1 and report.lost > 100_000


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_a_csv_in_the_encoding_of_its_machine_is_rows(tmp_path, encoding, caplog):
    rows = "id;text;city\n" + "".join(f"{i};Die Königin überwintert für {i} Tage.;Köln\n" for i in range(20))
    (tmp_path / "rows.csv").write_bytes(rows.encode(encoding))
    assert read(tmp_path / "rows.csv")[3] == ("3", "Die Königin überwintert für 3 Tage.", {"city": "Köln"})
    assert [document.id for document in Source(tmp_path)][:2] == ["0", "1"]
    assert ("read as" in caplog.text) == (encoding != "utf-8-sig")
    (tmp_path / "rows.csv").write_bytes(rows.encode("cp437"))
    assert read(tmp_path / "rows.csv", encoding="cp437")[3][2] == {"city": "Köln"}
