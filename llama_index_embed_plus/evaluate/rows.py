"""A JSONL, TSV or CSV file -> its rows, each knowing the line it comes from.

TSV has a header and no quoting, as in BEIR and STS-Benchmark; CSV has a header and is quoted where it must be.

Guarantees: a row or value that cannot be used is an InputError with file and line. Does not know: tasks.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.inputs import Label

SUFFIXES = (".jsonl", ".tsv", ".csv")

csv.field_size_limit(2**31 - 1)  # a passage may be longer than 128 KiB


@dataclass(frozen=True)
class Row:
    """One row; `where` is `file:line`."""

    values: Mapping[str, Any]
    where: str

    def text(self, column: str) -> str:
        """A non-empty string."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{self.where}: {column} is {value!r}, expected a non-empty text")
        return value

    def texts(self, column: str) -> tuple[str, ...]:
        """A list of non-empty strings; one string is a list of one."""
        value = self.values.get(column)
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
            raise InputError(f"{self.where}: {column} is {value!r}, expected a list of non-empty texts")
        return tuple(found)

    def number(self, column: str) -> float:
        """A finite number; in TSV and CSV spelled out, in JSONL not as text."""
        return _number(self.values.get(column), column, self.where, spelled=not self.where_is_json)

    def numbers(self, column: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self.values.get(column)
        if not isinstance(value, list):
            raise InputError(f"{self.where}: {column} is {value!r}, expected a list of numbers")
        return tuple(_number(each, column, self.where, spelled=False) for each in value)

    def label(self, column: str) -> Label:
        """A string or a whole number; what TSV and CSV hold are strings."""
        value = self.values.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise InputError(f"{self.where}: {column} is {value!r}, expected a label: a text or a whole number")

    @property
    def where_is_json(self) -> bool:
        return Path(self.where.rpartition(":")[0]).suffix.lower() == ".jsonl"


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, by its suffix.

    Raises:
        InputError: no UTF-8, no JSON, no object, or a row with other columns than the header.
    """
    try:
        yield from _jsonl(path) if path.suffix.lower() == ".jsonl" else _table(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): convert it") from error


def columns_of(path: Path) -> frozenset[str]:
    """The columns of the first row; none if the file is empty."""
    return frozenset(next((row.values for row in read_rows(path)), {}))


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise InputError(f"{where}: not JSON ({error}); expected one object per line") from error
            if not isinstance(values, dict):
                raise InputError(f"{where}: a {type(values).__name__}, expected an object")
            yield Row(values, where)


def _table(path: Path) -> Iterator[Row]:
    dialect: dict[str, Any] = {"strict": True}
    if path.suffix.lower() == ".tsv":
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, **dialect)
        try:
            header = next(reader, [])
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    found = f"{len(cells)} columns, the header has {len(header)}: {', '.join(header)}"
                    raise InputError(f"{path}:{reader.line_num}: {found}")
                yield Row(dict(zip(header, cells)), f"{path}:{reader.line_num}")
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: {error}") from error


def _number(value: object, column: str, where: str, *, spelled: bool) -> float:
    found = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value)
    elif spelled and isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{where}: {column} is {value!r}, expected a finite number")
    return found
