"""A JSONL, CSV or TSV file -> its rows, each with its line.

The formats: JSONL has one object per line. CSV has a header and quotes where it needs them; it is parted by commas, or
by the semicolons or tabs that its header has instead. TSV has a header and no quotes, as in BEIR and STS-Benchmark;
only a text whose own quotes were doubled, as pandas does, is unquoted. All are UTF-8, with or without a byte order
mark.

Guarantees: rows are streamed; blank lines are skipped; what cannot be read is an `InputError` with `file:line`. The
files may be anybody's: a pipe, a device, a row of hundreds of megabytes, a table of a million columns, JSON that is
nested deep or names one key twice are such errors too, and none takes more memory than the largest row that is allowed.
Does not know: what the rows mean.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from qdrant_tools.errors import InputError, brief, first_line, listed, name_shown
from qdrant_tools.files.json_files import DEEPEST, deeper, has_more_values, open_regular, why_not_utf8
from qdrant_tools.validation import number_in

T = TypeVar("T")
Opener = Callable[[Path], BinaryIO]
"""What opens a file to read its bytes: `open_regular`, or what unpacks them on the way."""

# reading a row takes up to eight times this, and a refusal has a hundred megabytes
LONGEST_ROW = 12_000_000
"""Bytes of a row. The longest novels have four million, and an encoder reads the first few thousand."""
MOST_VALUES = 250_000
"""Values in one row of JSONL: each takes some hundred bytes, however short it is written."""
MOST_COLUMNS = 10_000
MOST_BLANK_LINES = 100_000
"""One after the other: a file of nothing else would be read for hours."""


@dataclass(frozen=True)
class Row:
    """One row of a file: its fields by name, and the place it comes from."""

    values: Mapping[str, Any]
    path: Path
    line: int

    @property
    def is_short(self) -> bool:
        """Whether it is a row of a table that ends before its header does."""
        return isinstance(self.values, _Padded)

    @property
    def where(self) -> str:
        """`file:line`, for messages."""
        return f"{self.path}:{self.line}"

    def parse(self, parser: Callable[[Mapping[str, Any]], T], what: str = "") -> T:
        """What `parser` makes of the fields; its errors get the place, and `what` the row should have been.

        Raises:
            InputError: the parser raised it, or stumbled over a value of another type.
        """
        try:
            return parser(self.values)
        except (InputError, AttributeError, TypeError, ValueError, OverflowError) as error:
            expected = f"not {what}: " if what else ""
            raise InputError(f"{self.where}: {expected}{first_line(error)}") from error

    def text(self, column: str) -> str:
        """A non-empty string."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{self._at(column)} is {brief(value)}, expected a non-empty text")
        return value

    def texts(self, column: str) -> tuple[str, ...]:
        """A list of non-empty strings; one string is a list of one."""
        value = self.values.get(column)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f"{self._at(column)} is {brief(value)}, expected a list of non-empty texts")
        return tuple(texts)

    def number(self, column: str) -> float:
        """A finite number. CSV and TSV hold it as text, JSONL must not."""
        return self._number(self.values.get(column), column, as_text=ending(self.path) in _TABLES)

    def numbers(self, column: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self.values.get(column)
        if not isinstance(value, list):
            raise InputError(f"{self._at(column)} is {brief(value)}, expected a list of numbers")
        return tuple(self._number(number, column, as_text=False) for number in value)

    def label(self, column: str) -> str | int:
        """A non-empty string or a whole number. In CSV and TSV it is a string."""
        value = self.values.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
        # to Python, JSON's true is the number 1
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise InputError(f"{self._at(column)} is {brief(value)}, expected a label: a text or a whole number")

    def _at(self, column: str) -> str:
        return f"{self.where}: {name_shown(column)}"

    def _number(self, value: object, column: str, *, as_text: bool) -> float:
        number = math.nan
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # an integer beyond what a float holds
            with suppress(OverflowError):
                number = float(value)
        elif as_text and isinstance(value, str):
            number = number_in(value)
        # NaN and Infinity are refused too: Python's JSON reader accepts them
        if not math.isfinite(number):
            raise InputError(f"{self._at(column)} is {brief(value)}, expected a finite number")
        return number


def read_rows(
    path: str | Path,
    *,
    pad: bool = False,
    array: Callable[[list[Any]], Mapping[str, Any]] | None = None,
    encoding: str | None = None,
    opened: Opener = open_regular,
    twice: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a file: `.csv` and `.tsv` are tables, every other ending is read as JSONL.

    pad: a row of a table that is shorter than its header ends in empty cells; otherwise it is an error.
    array: makes the fields of a line of JSONL that is an array; otherwise such a line is an error.
    encoding: of a `.csv`; None and every other file: UTF-8.
    twice: a column of a `.csv` may stand twice, where its cells are equal: pandas writes an index beside its column.
    opened: opens the file; the ending `.gz` of one that it unpacks does not count.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or a line is no JSON object or no row of the table.
    """
    file = Path(path)
    suffix = ending(file)
    if suffix == ".csv":
        return _table(file, _csv_cells(file, encoding or "utf-8-sig", opened), pad=pad, twice=twice)
    if suffix == ".tsv":
        return _table(file, _tsv_cells(file, opened), pad=pad)
    return _objects(file, array, opened)


def ending(path: Path) -> str:
    """What says how the rows are written: `.csv` of `log.csv` and of `log.csv.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])


def read_lines(path: str | Path, opened: Opener = open_regular) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without its end) for each line that is not blank.

    Raises:
        InputError: the file cannot be read, a line is not UTF-8 or longer than `LONGEST_ROW`, or hardly any line is
            not blank.
    """
    number = blank = 0
    try:
        # binary, so that only "\n" and "\r\n" end a line and a byte that is not UTF-8 is found in its line
        with opened(Path(path)) as file:
            while line := file.readline(LONGEST_ROW + 1):
                number += 1
                if len(line) > LONGEST_ROW:
                    raise _too_long(path, number)
                # a byte order mark can stand in the first line only; the bytes are let go of before the text is used
                text, line = line.decode("utf-8-sig" if number == 1 else "utf-8"), b""
                # one character beyond the Basic Multilingual Plane makes every other one four bytes wide
                if sys.getsizeof(text) > 3 * LONGEST_ROW:
                    raise _too_long(path, number)
                if "\0" in text:
                    raise InputError(
                        f"{path}:{number}: a NUL in this line: it is UTF-16 or no text, convert it to UTF-8"
                    )
                blank = 0 if text.strip() else blank + 1
                if not blank:
                    yield number, text.rstrip("\r\n")
                elif blank > MOST_BLANK_LINES:
                    raise InputError(f"{path}:{number}: the {blank:,} lines up to here are blank: remove them")
    except UnicodeDecodeError as error:
        why = why_not_utf8(error.object if number == 1 else b"")
        raise InputError(f"{path}:{number}: this line is not UTF-8 text (byte {error.start}){why}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _objects(
    path: Path, array: Callable[[list[Any]], Mapping[str, Any]] | None, opened: Opener = open_regular
) -> Iterator[Row]:
    for number, line in read_lines(path, opened):
        yield row_of_line(path, number, line, array=array)


def row_of_line(
    path: Path,
    number: int,
    line: str,
    *,
    array: Callable[[list[Any]], Mapping[str, Any]] | None = None,
    most_values: int = MOST_VALUES,
) -> Row:
    """The row that a line of JSONL holds, as `read_rows` reads it. Raises `InputError`."""
    openings = line.count("[") + line.count("{")
    if has_more_values(line, most_values):
        raise InputError(f"{path}:{number}: more than {most_values:,} values, expected one object per line")
    try:
        values = _DECODER.decode(line)
        if isinstance(values, list) and array is not None:
            values = array(values)
    except InputError as error:
        raise InputError(f"{path}:{number}: {error}") from error
    # RecursionError: JSON that is nested deeper than Python's stack
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: not JSON ({first_line(error)}); expected one object per line") from error
    if not isinstance(values, dict):
        way = ": write one per line (jq -c '.[]', or lines=True in pandas)" if isinstance(values, list) else ""
        raise InputError(f"{path}:{number}: a {type(values).__name__}, expected an object{way}")
    # few rows have that many brackets, so few are looked at
    if openings > DEEPEST and deeper(values, DEEPEST):
        raise InputError(f"{path}:{number}: nested more than {DEEPEST} levels deep: make it flatter")
    return Row(values, path, number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InputError(f"an object has the key {brief(repeated)} twice: which one is meant cannot be told")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _table(path: Path, lines: Iterator[tuple[int, list[str]]], *, pad: bool, twice: bool = False) -> Iterator[Row]:
    first, header = next(lines, (0, []))
    header = [name.strip() for name in header]
    if len(header) > MOST_COLUMNS:
        raise InputError(f"{path}:{first}: more than {MOST_COLUMNS:,} columns: this is no table of rows")
    repeated = next((name for name, count in Counter(header).items() if count > 1 and name), None)
    if repeated is not None and not twice:
        raise InputError(f"{path}:{first}: two columns are named {brief(repeated)}: which one is meant cannot be told")
    # spreadsheets write the columns that were once used; of one, which may be pandas's index, nothing is lost
    unnamed = [place for place, name in enumerate(header) if not name]
    unnamed = unnamed if len(unnamed) > 1 else []
    blank, names = 0, dict.fromkeys(header)
    for number, cells in lines:
        missing = len(header) - len(cells)
        if missing < 0 or (missing and not pad):
            raise InputError(f"{path}:{number}: {len(cells)} columns, the header has {len(header)}: {listed(header)}")
        if missing and any(cells) and ending(path) == ".tsv" and _goes_on(cells[-1]):
            raise InputError(
                f"{path}:{number}: {len(cells)} columns, the header has {len(header)}, and the last one seems to go on "
                "in the next line: in a .tsv every line is a row; in a .csv, which may be parted by tabs, a text in "
                "quotes has several lines"
            )
        for place in unnamed:
            if cells[place : place + 1] not in ([], [""]):
                raise InputError(
                    f"{path}:{number}: {brief(cells[place])} is in one of several columns without a name: is line "
                    f"{first} the header?"
                )
        blank = 0 if any(cells) else blank + 1
        if not blank:
            values = dict(zip(header, cells))
            if repeated is not None and any(values[name] != cell for name, cell in zip(header, cells)):
                raise InputError(f"{path}:{number}: two columns of one name, such as {brief(repeated)}, differ here")
            yield Row(_Padded(values, names) if missing else values, path, number)
        elif blank > MOST_BLANK_LINES:
            raise InputError(f"{path}:{number}: the {blank:,} rows up to here are empty: remove them")


def _goes_on(cell: str) -> bool:
    """Whether a cell lacks its end: an open quote, or the backslash before a line's end."""
    return (cell.startswith('"') and (len(cell) == 1 or not cell.endswith('"'))) or cell.endswith("\\")


class _Padded(Mapping[str, str]):
    """A short row of a table: what it lacks is empty, and takes no memory, of ten thousand columns neither."""

    def __init__(self, values: dict[str, str], header: dict[str, None]) -> None:
        self._values, self._header = values, header

    def __getitem__(self, column: str) -> str:
        if column not in self._values and column in self._header:
            return ""
        return self._values[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)


def _tsv_cells(path: Path, opened: Opener = open_regular) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path, opened):
        if "\r" in line:
            raise InputError(f"{path}:{number}: a carriage return inside of a line: end the lines with a line feed")
        # one more than there may be, and never millions of them
        cells = line.split("\t", MOST_COLUMNS)
        yield number, [_unquoted(cell) if cell else cell for cell in cells] if '""' in line else cells


def _unquoted(cell: str) -> str:
    """The text of a cell in quotes that doubles every quote in it, which nobody types; any other as it is."""
    inside = cell[1:-1]
    if cell[0] != '"' or cell[-1] != '"' or '""' not in inside or '"' in inside.replace('""', ""):
        return cell
    # three at both ends are those of a docstring
    return cell if inside.startswith('""') and inside.endswith('""') else inside.replace('""', '"')


def _csv_cells(
    path: Path, encoding: str = "utf-8-sig", opened: Opener = open_regular
) -> Iterator[tuple[int, list[str]]]:
    try:
        # newline="": the csv module reads line ends inside quoted cells itself
        with opened(path) as binary, io.TextIOWrapper(binary, encoding=encoding, newline="") as file:
            lines = _LinesOfRow(file, path)
            # strict, because an unclosed quote would otherwise swallow the rest of the file without an error
            reader = csv.reader(lines, strict=True, delimiter=lines.delimiter)
            while (cells := _next_cells(reader, lines)) is not None:
                if cells:
                    # the last line of the row: a quoted cell may have several
                    yield lines.skipped + reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path}:{lines.skipped + reader.line_num}: not a row of the table: {error}") from error
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise InputError(f"{path} is not {name} text (byte {error.start}){why_not_utf8(error.object)}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


class _LinesOfRow:
    """The lines of a file, for as long as those of one row are not too long together."""

    def __init__(self, file: io.TextIOWrapper, path: Path) -> None:
        self._file, self._path = file, path
        self._number = self._blank = self.skipped = 0
        self.begin()
        self.delimiter = self._delimiter()

    def begin(self) -> None:
        """The next line begins a row."""
        self._bytes = self._parts = 0

    def __iter__(self) -> _LinesOfRow:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._bytes += max(len(line), sys.getsizeof(line) - _SIZE_OF_EMPTY)
        self._parts += 1 + line.count(self.delimiter)
        self._blank = self._blank + 1 if line.isspace() else 0
        if self._bytes > LONGEST_ROW:
            raise _too_long(self._path, self._number)
        if self._parts > MOST_VALUES or self._blank > MOST_BLANK_LINES:
            what = "commas or lines in one row" if self._parts > MOST_VALUES else "blank lines"
            raise InputError(f"{self._path}:{self._number}: hundreds of thousands of {what}: this is no table of rows")
        if "\0" in line:
            raise InputError(f"{self._path}:{self._number}: a NUL in this row: it is UTF-16 or no text, convert it")
        return line

    def _delimiter(self) -> str:
        """What parts the columns of the header, which nobody names after a semicolon or a tab."""
        line = self._file.readline(LONGEST_ROW + 1)
        # a line that Excel reads, and writes
        if (told := re.fullmatch(r"sep=(.)\s*", line)) is not None:
            self._number = self.skipped = 1
            return told[1]
        self._file.seek(0)
        bare = re.sub(r'"[^"]*("|$)', "", line)
        counts = {mark: bare.count(mark) for mark in (",", ";", "\t")}
        found = [mark for mark, count in counts.items() if count]
        if len(found) > 1 and counts[","] <= max(counts[";"], counts["\t"]):
            raise InputError(
                f"{self._path}:1: the header has several of comma, semicolon and tab, and which one parts the columns "
                "cannot be told: put quotes around the names"
            )
        return found[0] if found else ","


# what a string takes at most without its characters
_SIZE_OF_EMPTY = 80


def _next_cells(reader: Any, lines: _LinesOfRow) -> list[str] | None:
    lines.begin()
    # The module's own limit, 128 KiB, is shorter than some passages. It belongs to the process, so it is raised only
    # while a row is read.
    limit = csv.field_size_limit(LONGEST_ROW)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def _too_long(path: str | Path, line: int) -> InputError:
    return InputError(
        f"{path}:{line}: a row of more than {LONGEST_ROW:,} bytes: cut its texts into passages, or check that the file "
        "has one row per line"
    )


_TABLES = (".csv", ".tsv")
