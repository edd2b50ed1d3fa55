"""Whatever kind of file rows lie in, they are the same rows; what is cut or damaged is said."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
from written import annotation, imported, question, span, write

from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.traces import read_traces
from qdrant_tools.traces.files.rows import SPANS_AT_ONCE, TraceFile

HITS = [("a", 0.9), ("b", 0.8)]
ROWS = [row for number in range(4) for row in question(f"t{number}", f"query {number}", HITS, at=number)]


def rows_in(path):
    file = TraceFile(path)
    return [dict(row.values) for row in file.rows()], file.notes


def shapes():
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    return {
        "lines.jsonl": lines,
        "no_end.jsonl": lines.rstrip("\n"),
        "list.json": json.dumps(ROWS),
        "indented.json": json.dumps(ROWS, indent=1),
        "page.json": json.dumps({"data": ROWS, "next_cursor": None}),
        "spans.json": json.dumps({"meta": {"page": 1}, "spans": ROWS}, indent=1),
        "console.txt": "".join(json.dumps(row, indent=4) + "\n" for row in ROWS),
        "mark.jsonl": "\ufeff" + lines,
    }


@pytest.mark.parametrize("name", shapes())
@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_the_same_in_every_shape_and_packed(tmp_path, name, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    content = shapes()[name].encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert rows_in(path) == (ROWS, [])


def tables():
    labels = {"numbers": [str(number) for number in range(len(ROWS))], "ids": [f"{n:02x}ab" for n in range(len(ROWS))]}
    by_row = {name: dict(zip(own, ROWS, strict=True)) for name, own in labels.items()}
    split = {"columns": list(ROWS[0]), "index": labels["ids"], "data": [list(row.values()) for row in ROWS]}
    by_column = {
        name: {column: {label: row[column] for label, row in rows.items()} for column in ROWS[0]}
        for name, rows in by_row.items()
    }
    return {"split": split, **{f"{name} by column": table for name, table in by_column.items()}, **by_row}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", tables())
def test_a_table_in_json_has_the_rows_of_a_list(tmp_path, name, indent):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(tables()[name], indent=indent))
    assert rows_in(path) == (ROWS, [])


@pytest.mark.parametrize(
    "row",
    [
        {"info": {"a": 1}, "data": {"a": 2}},
        {"one": {"a": 1}, "two": {"b": 1}, "three": {"a": 1}},
        {"one": {}, "two": {}, "three": {}},
        {"columns": ["a"], "index": [0], "data": [[1, 2]]},
        {"columns": ["a"], "index": [0], "data": [{"a": 1}]},
    ],
)
def test_an_object_that_is_no_table_is_a_row(tmp_path, row):
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row))
    assert rows_in(path) == ([row], [])


@pytest.mark.parametrize("name", shapes())
def test_of_a_file_that_was_cut_in_its_last_row_the_others_are_read_and_it_is_said(tmp_path, name):
    whole = shapes()[name].encode()
    path = tmp_path / name
    path.write_bytes(whole[: whole.rindex(b'"service.name"') + 4])
    rows, notes = rows_in(path)
    assert rows == ROWS[:-1] and len(notes) == 1 and "was cut in" in notes[0]


def test_a_packed_file_that_was_cut_gives_what_can_be_unpacked(tmp_path):
    path = tmp_path / "spans.jsonl.gz"
    packed = gzip.compress(
        "".join(json.dumps(row | {"salt": number}) + "\n" for number, row in enumerate(ROWS * 50)).encode()
    )
    path.write_bytes(packed[: len(packed) // 2])
    rows, notes = rows_in(path)
    assert 0 < len(rows) < 400 and "was cut" in notes[0]


@pytest.mark.parametrize("name", ["lines.jsonl", "list.json", "console.txt"])
def test_a_file_that_is_damaged_in_the_middle_is_an_error(tmp_path, name):
    whole = shapes()[name]
    middle = len(whole) // 2
    (tmp_path / name).write_text(whole[:middle] + whole[middle + 700 :])
    with pytest.raises(InputError, match=name):
        rows_in(tmp_path / name)


def test_a_last_line_that_was_written_to_its_end_is_not_cut_but_damaged(tmp_path):
    path = write(tmp_path / "spans.jsonl", ROWS)
    path.write_text(path.read_text() + '{"name": \n')
    with pytest.raises(InputError, match="spans.jsonl:9: not JSON"):
        rows_in(path)


def test_a_document_of_otlp_is_given_in_pieces_of_its_own_shape(tmp_path):
    spans = [{"traceId": "t", "spanId": str(number)} for number in range(3 * SPANS_AT_ONCE + 1)]
    document = {
        "resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "x"}, "spans": spans}]}]
    }
    path = tmp_path / "otlp.json"
    path.write_text(json.dumps(document, indent=1) + json.dumps(document))
    rows, _ = rows_in(path)
    assert len(rows) == 8 and all(list(row) == ["resourceSpans"] for row in rows)
    parts = [row["resourceSpans"][0] for row in rows]
    assert all(
        part["resource"] == {"attributes": []} and part["scopeSpans"][0]["scope"] == {"name": "x"} for part in parts
    )
    assert [each for part in parts for each in part["scopeSpans"][0]["spans"]] == spans * 2


def test_the_spans_of_a_flush_of_the_collector_may_be_more_than_a_row_may_have(tmp_path):
    spans = [{"traceId": "t", "spanId": str(number), "text": "x" * 1000} for number in range(14_000)]
    path = tmp_path / "otlp.jsonl"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}) + "\n")
    assert path.stat().st_size > 13_000_000
    assert sum(len(row["resourceSpans"][0]["scopeSpans"][0]["spans"]) for row in rows_in(path)[0]) == 14_000


def test_a_row_with_a_list_of_its_own_is_no_page(tmp_path):
    row = {"id": "t", "name": "chat", "observations": [{"id": "o"}], "scores": []}
    assert rows_in(write(tmp_path / "traces.jsonl", [row, row]))[0] == [row, row]


def test_an_index_that_pandas_writes_beside_its_column_is_one_column(tmp_path):
    def table(rows):
        with (tmp_path / "spans.csv").open("w", newline="") as out:
            csv.writer(out).writerows([["id", "name", "id"], *rows])

    table([["1", "x", "1"]])
    assert rows_in(tmp_path / "spans.csv")[0] == [{"id": "1", "name": "x"}]
    table([["1", "x", "1"], ["1", "x", "2"]])
    with pytest.raises(InputError, match="two columns of one name, such as 'id', differ here"):
        rows_in(tmp_path / "spans.csv")


def test_a_table_that_was_cut_in_its_last_row_is_read_up_to_it(tmp_path):
    path = tmp_path / "spans.csv"
    path.write_text('id,text\n1,a\n2,b\n3,"c')
    rows, notes = rows_in(path)
    assert [row["id"] for row in rows] == ["1", "2"] and "the row behind line 3" in notes[0]


def test_tables_of_parquet_are_rows_of_plain_python(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from datetime import datetime

    import pyarrow.parquet as parquet

    documents = [[{"id": "a", "score": 0.5}, {"id": "b", "score": None}]]
    at = pyarrow.array([1_790_000_000_123_456_789], pyarrow.timestamp("ns", tz="UTC"))
    parquet.write_table(pyarrow.table({"documents": documents, "at": at}), tmp_path / "spans.parquet")
    ((row,), _) = rows_in(tmp_path / "spans.parquet")
    assert row["documents"] == documents[0] and isinstance(row["at"], datetime) and row["at"].microsecond == 123456
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "spans.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match="cut.parquet"):
        rows_in(tmp_path / "cut.parquet")


def test_the_cut_is_in_the_report(tmp_path):
    path = write(tmp_path / "spans.jsonl", ROWS)
    path.write_text(path.read_text() + json.dumps(span("ask"))[:50])
    with read_traces(path) as traces:
        assert len(list(traces.searches())) == 4
    assert "spans.jsonl was cut in line 9" in traces.report.lines()[-1]


@pytest.mark.parametrize("name", ["spans.jsonl", "spans.jsonl.gz"])
def test_progress_tells_every_byte_of_the_files(tmp_path, name):
    content = "".join(json.dumps(row) + "\n" for row in ROWS * 500).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    told = []
    read_traces(tmp_path / name, progress=told.append).close()
    assert sum(told) == (tmp_path / name).stat().st_size and (len(told) > 2 or name.endswith(".gz"))


def test_spans_of_a_trace_may_lie_in_several_files_with_annotations_first(tmp_path):
    retrieve, ask = question("t", "tea", HITS)
    paths = [
        write(tmp_path / "annotations.jsonl", [annotation("thumb", "ask", label="up")]),
        write(tmp_path / "late.jsonl", [retrieve]),
        write(tmp_path / "root.jsonl", [ask]),
    ]
    with read_traces(paths) as traces:
        (search,) = traces.searches()
    assert search.answer.verdicts[0].value == 1.0 and search.query == "tea"
    assert list(traces.report.forms.values()) == ["phoenix", "openinference", "openinference"]


def test_a_row_of_no_tool_is_named_with_its_fields_and_a_way_out(tmp_path):
    with pytest.raises(
        InputError, match=r"rows.jsonl:1: a row that no known tool writes: its fields are q, found; .*--columns"
    ):
        imported(tmp_path, {"q": "tea", "found": 3})
    with pytest.raises(UsageError, match="no row is of the format mlflow: .*openinference"):
        read_traces(write(tmp_path / "spans.jsonl", ROWS), form="mlflow")
    # the span of a web server is of no convention, and makes the others none of MLflow's
    served = {**ROWS[0], "attributes": {"http.method": "POST"}}
    served["context"] = {**served["context"], "span_id": "0x" + "f" * 16}
    with pytest.raises(UsageError, match="no row is of the format mlflow: .*openinference, opentelemetry"):
        read_traces(write(tmp_path / "served.jsonl", [*ROWS, served]), form="mlflow")
    with pytest.raises(UsageError, match="format is 'phoenics', expected auto or one of"):
        read_traces(tmp_path / "spans.jsonl", form="phoenics")


def frame(name, parent, *, without=()):
    """A retrieval in Phoenix's table of spans."""
    listed = [{"document.id": each, "document.score": 0.5, "document.content": f"all about {each}"} for each in "ab"]
    row = {
        "context.span_id": f"{name:016x}", "context.trace_id": "5" * 32, "parent_id": parent, "span_kind": "RETRIEVER",
        "start_time": f"2026-10-05T09:00:0{name}+00:00", "attributes.input.value": "tea",
        "attributes.retrieval.documents": json.dumps(listed),
    }  # fmt: skip
    return {key: value for key, value in row.items() if key not in without}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "json"])
def test_spans_that_never_say_their_parent_are_told_as_such(tmp_path, ending):
    def notes(rows):
        file = tmp_path / f"spans.{ending}"
        if ending in ("jsonl", "json"):
            file.write_text("\n".join(map(json.dumps, rows)) if ending == "jsonl" else json.dumps(rows))
        elif ending == "csv":
            with file.open("w", newline="") as stream:
                table = csv.DictWriter(stream, dict.fromkeys(key for row in rows for key in row))
                table.writeheader()
                table.writerows(rows)
        else:
            pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            pq.write_table(pa.Table.from_pylist(rows), file)
        with read_traces(file) as traces:
            return len(list(traces)), [line for line in traces.report.lines() if '"parent_id"' in line]

    outer, inner = frame(1, None), frame(2, f"{1:016x}")
    assert notes([outer, inner]) == (1, [])
    bare = [frame(number, None, without=["parent_id"]) for number in (1, 2)]
    count, (told,) = notes(bare)
    assert count == 2 and "cannot be told from what a user asked" in told
    # a root that says nothing of a parent, beside a span that does
    assert notes([inner, bare[0]]) == (1, [])
    # documents one by one, as an exploded query gives them
    exploded = [
        {"context.span_id": f"{1:016x}", "start_time": "2026-10-05T09:00:01+00:00", "input.value": "tea",
         "document_position": place, "document_id": name, "document_score": 0.5}
        for place, name in enumerate("ab")
    ]  # fmt: skip
    assert notes(exploded)[0] == len(notes(exploded)[1]) == 1
    # where nothing was retrieved, nobody needs it
    assert notes([row | {"span_kind": "LLM", "attributes.retrieval.documents": None} for row in bare])[1] == []


@pytest.mark.parametrize("row", ["span of the REST API", "span of otlpv1"])
def test_a_page_that_names_the_next_one_is_said_to_be_one_of_several(tmp_path, row):
    of_rest = {**ROWS[1], "span_kind": "CHAIN", "status_code": "OK"}
    of_otlp = {
        "trace_id": "1" * 32,
        "span_id": "2" * 16,
        "start_time_unix_nano": 1790000000000000000,
        "attributes": [],
        "name": "ask",
    }
    rows = [of_rest if row == "span of the REST API" else of_otlp] * 1000
    pages = [{"data": rows, "next_cursor": "U3BhbjoyMzI="}, {"data": rows[:1], "next_cursor": None}]
    first, both, last = tmp_path / "first.json", tmp_path / "both.json", tmp_path / "last.json"
    first.write_text(json.dumps(pages[0]))
    both.write_text("".join(json.dumps(page) + "\n" for page in pages))
    last.write_text(json.dumps({**pages[0], "next_cursor": None}))
    notes = {}
    for path in (first, both, last):
        with read_traces(path) as traces:
            assert list(traces.searches()) == []
            notes[path.name] = traces.report.notes
    (note,) = notes.pop("first.json")
    assert "next_cursor says that another one follows: name its file too" in note
    assert notes == {"both.json": [], "last.json": []}
