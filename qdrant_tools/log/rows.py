"""A file of another system's log -> its rows: a table, JSONL, or a JSON list of rows.

Guarantees: rows come one by one, so that a file may be as long as the disk allows. Does not know: what a column means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.files.json_stream import JsonStream
from qdrant_tools.files.packed import unpacked
from qdrant_tools.files.parquet import parquet_rows
from qdrant_tools.files.rows import Row, ending, read_rows


def is_list_of_rows(path: str | Path) -> bool:
    """Whether a JSON file begins as a list does. Raises InputError: it cannot be read."""
    with JsonStream(Path(path), unpacked) as document:
        return document.peek() == "["


def rows_of_log(path: str | Path) -> Iterator[Row]:
    """Yield the rows; in a JSON list the number of the row stands for the line.

    Raises:
        InputError: the file cannot be read, or a row is no object.
    """
    file = Path(path)
    if ending(file) == ".parquet":
        for row in parquet_rows(file):
            yield replace(row, values=_written(row.values))
        return
    if ending(file) != ".json" or not is_list_of_rows(file):
        yield from read_rows(file, pad=True, opened=unpacked)
        return
    with JsonStream(file, unpacked) as document:
        for number, fields in enumerate(document.elements(), start=1):
            if not isinstance(fields, dict):
                raise InputError(f"{file}:{number}: {brief(fields)} is no row, expected an object of columns")
            yield Row(fields, file, number)
        document.end()


def _written(value: Any) -> Any:
    """A value as a table of texts would have it: the times and decimals of Parquet are none of JSON."""
    match value:
        case Mapping():
            return {name: _written(part) for name, part in value.items()}
        case list():
            return [_written(part) for part in value]
        case date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bytes():
            return value.hex()
    return value
