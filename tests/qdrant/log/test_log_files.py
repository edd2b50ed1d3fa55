"""The log of another system is the same log in every kind of file: JSONL, CSV, Parquet, packed or not."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llama_index_embed_plus.cli.app import app
from qdrant_tools.errors import LogError
from qdrant_tools.log import LogColumns, LoggedSearch, read_log

ROWS: list[dict[str, Any]] = [
    {"term": "red shoes", "at": "2026-05-01T10:00:00+00:00", "visit": "v1", "shown": ["a", "b"], "clicked": ["b"]},
    {"term": "blue shoes", "at": "2026-05-01T10:05:00+00:00", "visit": "v2", "shown": ["c"], "clicked": []},
]
COLUMNS = LogColumns(query="term", at="at", session="visit", hits="shown", feedback={"click": "clicked"})
NAMED = "query=term at=at session=visit hits=shown click=clicked"


def jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def table(path: Path) -> Path:
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(ROWS[0]))
        writer.writeheader()
        cells = {"shown", "clicked"}
        writer.writerows({key: "|".join(v) if key in cells else v for key, v in row.items()} for row in ROWS)
    return path


def parquet(path: Path, *, typed: bool = False) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows = [{**row, "at": datetime.fromisoformat(row["at"])} for row in ROWS] if typed else ROWS
    table = pyarrow.Table.from_pylist(rows)
    if typed:
        place = table.schema.get_field_index("at")
        table = table.set_column(place, "at", table["at"].cast(pyarrow.timestamp("ns", tz="UTC")))
    write_table(table, path)
    return path


def packed(path: Path) -> Path:
    with_gz = path.with_name(path.name + ".gz")
    with_gz.write_bytes(gzip.compress(path.read_bytes()))
    return with_gz


def meaning(searches: list[LoggedSearch]) -> list[tuple[Any, ...]]:
    return [
        (s.query, s.at, s.session, [hit.id for hit in s.hits], [(e.kind, e.id) for e in s.feedback]) for s in searches
    ]


FILES = {
    "jsonl": lambda folder: jsonl(folder / "log.jsonl"),
    "jsonl.gz": lambda folder: packed(jsonl(folder / "log.jsonl")),
    "csv": lambda folder: table(folder / "log.csv"),
    "csv.gz": lambda folder: packed(table(folder / "log.csv")),
    "parquet": lambda folder: parquet(folder / "log.parquet"),
    "parquet of times": lambda folder: parquet(folder / "log.parquet", typed=True),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_log_is_the_same_in_every_kind_of_file(kind, tmp_path):
    file = FILES[kind](tmp_path)
    first, second = meaning(list(read_log(file, COLUMNS)))
    assert first[:4] == ("red shoes", datetime(2026, 5, 1, 10, tzinfo=UTC), first[2], ["a", "b"])
    assert (first[4], second[3], second[4]) == ([("click", "b")], ["c"], [])
    log = tmp_path / "log.sqlite"
    result = CliRunner().invoke(app, ["log", "import", str(log), str(file), "--columns", NAMED, "--yes"])
    assert result.exit_code == 0 and "2 searches added" in result.output
    # without columns, it says what might be which
    result = CliRunner().invoke(app, ["log", "import", str(log), str(file), "--yes"])
    assert "say which of its columns is what" in str(result.exception)


def test_a_packed_log_that_was_cut_is_refused_whole(tmp_path):
    rows = [{"term": f"query {n} {n * 7919 % 1009}", "shown": [str(n)]} for n in range(5000)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    file = tmp_path / "log.jsonl.gz"
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LogError, match="was cut"):
        list(read_log(file, LogColumns(query="term", hits="shown")))
