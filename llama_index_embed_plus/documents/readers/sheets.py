"""Workbooks and tables -> blocks: rows under the names of their columns; the name of the sheet is the page.

Guarantees: row after row, in parts of at most `MOST_CHARACTERS`, each with the first row above it. Does not know:
formulas whose values were never computed, charts.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.files.archives import require_small
from llama_index_embed_plus.documents.files.encodings import encoding_of, lines_of
from llama_index_embed_plus.documents.files.items import Item, table
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import first_line

MOST_CHARACTERS = 1500
MOST_COLUMNS = 1000
_LONGEST_CELL = 1 << 20


def read_xlsx(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a workbook of Excel."""
    require_small(path)
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    # given open: the library refuses a workbook whose name has another ending
    with path.open("rb") as file:
        try:
            book = load_workbook(file, read_only=True, data_only=True)
        except (InvalidFileException, KeyError, ValueError) as error:
            raise UnreadFileError("damaged", f"it is no workbook: {first_line(error)}") from error
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
        yield {"pages": len(sheets)}
        for sheet in sheets:
            # what the file says of its size may be wrong
            sheet.reset_dimensions()
            yield from table_items(
                (map(_shown, row[:MOST_COLUMNS]) for row in sheet.iter_rows(values_only=True)), sheet.title
            )


def read_table(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a table as text (CSV, TSV)."""
    csv.field_size_limit(_LONGEST_CELL)
    with path.open("rb") as stream:
        found = encoding_of(stream, encoding)
        if found.note:
            yield {"encoding": found.note}
        lines = lines_of(stream, found)
        first = next(lines, "")
        mark = max("\t;,", key=first.count)
        try:
            yield from table_items(csv.reader(_again(first, lines), delimiter=mark))
        except csv.Error as error:
            raise UnreadFileError("damaged", f"it is no table: {first_line(error)}") from error


def table_items(rows: Iterable[Iterable[str]], page: str | None = None) -> Iterator[Item]:
    """The blocks of a table, whose first row names its columns."""
    head: list[str] | None = None
    part: list[list[str]] = []
    size = 0
    for number, cells in enumerate(rows):
        row = _trimmed(cells)
        if number % 1000 == 0:
            yield {}
        if not row:
            continue
        if head is None:
            head = row
            continue
        length = sum(map(len, row))
        if part and size + length > MOST_CHARACTERS:
            yield Block(table([head, *part]), "table", (), page)
            part, size = [], 0
        part.append(row)
        size += length
    if head is not None:
        yield Block(table([head, *part]), "table", (), page)


def _trimmed(cells: Iterable[str]) -> list[str]:
    row = [cell.strip() for cell in cells]
    while row and not row[-1]:
        row.pop()
    return row


def _again(first: str, lines: Iterable[str]) -> Iterator[str]:
    # the reader of tables joins the lines of a quoted cell by their ends
    yield f"{first}\n"
    for line in lines:
        yield f"{line}\n"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
