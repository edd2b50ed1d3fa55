"""A JSONL, CSV or TSV file -> its rows, each with its line; and files that are written whole or not at all.

The formats: JSONL has one object per line. CSV has a header and quotes where it needs them; it is parted by commas, or
by the semicolons or tabs that its header has instead. TSV has a header and no quotes, as in BEIR and STS-Benchmark;
only a text whose own quotes were doubled, as pandas does, is unquoted. All are UTF-8, with or without a byte order
mark.

Guarantees: rows are streamed; blank lines are skipped; what cannot be read is an `InputError` with `file:line`. The
files may be anybody's: a pipe, a device, a row of hundreds of megabytes, a table of a million columns, JSON that is
nested deep or names one key twice are such errors too, and none takes more memory than the largest row that is allowed.
A reader of a file that is being written sees the old content or the new, never half, and a failed write leaves nothing
behind. Nothing is written through a link, and a new file is readable by its owner only. Does not know: what the rows
mean.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import stat
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from qdrant_tools.errors import InputError, PlusError, UsageError, brief, first_line
from qdrant_tools.json_files import DEEPEST, deeper, has_more_values, open_regular, why_not_utf8
from qdrant_tools.validation import number_in

T = TypeVar("T")

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
        return self._number(self.values.get(column), column, as_text=self.path.suffix.lower() in _TABLES)

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
        return f"{self.where}: {_shown(column)}"

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
    path: str | Path, *, pad: bool = False, array: Callable[[list[Any]], Mapping[str, Any]] | None = None
) -> Iterator[Row]:
    """Yield the rows of a file: `.csv` and `.tsv` are tables, every other ending is read as JSONL.

    pad: a row of a table that is shorter than its header ends in empty cells; otherwise it is an error.
    array: makes the fields of a line of JSONL that is an array; otherwise such a line is an error.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or a line is no JSON object or no row of the table.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    return _table(file, _TABLES[suffix](file), pad=pad) if suffix in _TABLES else _objects(file, array)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without its end) for each line that is not blank.

    Raises:
        InputError: the file cannot be read, a line is not UTF-8 or longer than `LONGEST_ROW`, or hardly any line is
            not blank.
    """
    number = blank = 0
    try:
        # binary, so that only "\n" and "\r\n" end a line and a byte that is not UTF-8 is found in its line
        with open_regular(path) as file:
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


@contextmanager
def written_whole(
    path: str | Path, *, draft: Path | None = None, durable: bool = False, private: bool = True, overwrite: bool = True
) -> Iterator[Path]:
    """Give a draft to write; when the block ends it takes the place of `path`, and when the block fails it goes.

    A link in the place of `path` is replaced, and what it points to is left alone. A file that is replaced hands on its
    permissions.

    Args:
        draft: Its path, on the same disk, instead of a new name beside `path`.
        durable: On the disk when the block is left, so that a crash of the machine leaves the old content or the new
            as well.
        private: A new file is readable by its owner only; else as the process's umask says.
        overwrite: Whether an existing `path` is replaced.

    Raises:
        UsageError: `path` exists and may not be replaced, or is a folder or a device.
    """
    target = Path(path)
    _refuse_unlike_file(target)
    if not overwrite:
        refuse_existing(target)
    # beside the target, because a rename is atomic on one disk only; a random name, so that two writers never share a
    # draft, and nobody knows beforehand where one will be
    draft = draft or target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    _create_draft(draft, target, 0o600 if private else 0o666)
    try:
        yield draft
        if durable:
            # before the rename: a file system may store the new name first, and an empty file with it
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
        if not overwrite:
            refuse_existing(target)
        os.replace(draft, target)
        if durable:
            # the new name is an entry of the folder, and not stored with the file's own content
            sync_folder(target.parent)
    finally:
        with suppress(OSError):  # the first error says more, and a draft that took its place is gone
            draft.unlink(missing_ok=True)


def refuse_existing(path: str | Path) -> None:
    """Raise `UsageError` if there is anything at `path`, a link that leads nowhere among it."""
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already: give another name, or --overwrite (overwrite=True) to replace it")


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether two names, links among them, lead to one file that is there."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False


def require_writable(path: str | Path, *, overwrite: bool) -> None:
    """Raise `UsageError` where `written_whole` would: for commands that work long before they write."""
    target = Path(path)
    try:
        os.stat(target.parent / (target.name or "."))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is too long, a file in the place of a folder, zero bytes
        raise UsageError(f"cannot write {brief(str(path))}: {first_line(error)}") from error
    _refuse_unlike_file(target)
    if not overwrite:
        refuse_existing(target)
    if not target.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {target.parent}")


def _refuse_unlike_file(target: Path) -> None:
    # a privileged process could put a file in the place of a device, or of a link of the system such as /dev/stdout
    folder = os.path.realpath(target.parent)
    of_the_system = folder == "/dev" or folder.startswith(("/proc/", "/sys/"))
    if not target.name or of_the_system or (os.path.exists(target) and not os.path.isfile(target)):
        raise UsageError(f"cannot write {target}: it is a folder or a device, expected the name of a file")


def refuse_link(path: str | Path, error: type[PlusError] = InputError) -> None:
    """Raise `error` if `path` itself is a link: what is written or removed there would be somewhere else."""
    if os.path.islink(path):
        raise error(f"{path} is a link to {os.readlink(path)!r}, expected no link here: remove it")


def open_private(path: Path, *, group: int = 0) -> IO[str]:
    """Open a file of our own to read and write, for its owner only; made if it is not there, never through a link.

    `group` are the permissions that its group gets beside the owner.

    Raises:
        OSError: it cannot be opened, or is a link, a folder or a device.
    """
    # O_NONBLOCK: opening a pipe that nobody reads would wait for ever
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600 | group)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return open(descriptor, "r+", encoding="utf-8")


def create_private(path: Path, content: bytes) -> None:
    """Put a new file there, whole and on the disk, for its owner only; one that is there, or comes first, stays.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        _write_new(draft, content)
        try:
            # unlike a rename, this never takes the place of what is there
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:
            # a disk without hard links
            with suppress(FileExistsError):
                _write_new(path, content)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can open, unless it is there.

    Raises:
        InputError: it is a link.
        OSError: it cannot be made.
    """
    refuse_link(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def _create_draft(draft: Path, target: Path, mode: int) -> None:
    refuse_link(draft)
    draft.unlink(missing_ok=True)  # a fixed name: what a killed process left
    # O_EXCL: a new file, and not one or a link that came in between
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    with suppress(FileNotFoundError):
        status = target.lstat()
        if stat.S_ISREG(status.st_mode):
            draft.chmod(stat.S_IMODE(status.st_mode))


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = True) -> int:
    """Write a JSONL file, whole or not at all; returns the number of rows.

    Raises:
        UsageError: it cannot be written, or exists and may not be replaced.
    """
    count = 0
    with errors_of_writing(path), written_whole(path, overwrite=overwrite) as draft, draft.open("wb") as file:
        for row in rows:
            file.write(json_line(row))
            count += 1
    return count


def write_text(path: str | Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file, whole or not at all.

    Raises:
        UsageError: it cannot be written, or exists and may not be replaced.
    """
    with errors_of_writing(path), written_whole(path, overwrite=overwrite) as draft:
        # bytes, because `write_text` would change the line ends on Windows
        draft.write_bytes(text.encode("utf-8", "backslashreplace"))


def json_line(row: Mapping[str, Any]) -> bytes:
    """One row of a JSONL file. A lone surrogate, which UTF-8 cannot hold, is written as JSON's escape."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def sync_folder(folder: Path) -> None:
    """Make renames, creations and deletions inside `folder` durable, where the system lets a folder be synced."""
    # Windows cannot open a folder as a file
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def errors_of_writing(path: str | Path) -> Iterator[None]:
    """Turn what the system says about writing `path` into `UsageError`."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _objects(path: Path, array: Callable[[list[Any]], Mapping[str, Any]] | None) -> Iterator[Row]:
    for number, line in read_lines(path):
        openings = line.count("[") + line.count("{")
        if has_more_values(line, MOST_VALUES):
            raise InputError(f"{path}:{number}: more than {MOST_VALUES:,} values, expected one object per line")
        try:
            values = _DECODER.decode(line)
            if isinstance(values, list) and array is not None:
                values = array(values)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        # RecursionError: JSON that is nested deeper than Python's stack
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: not JSON ({first_line(error)}); expected one object per line"
            ) from error
        if not isinstance(values, dict):
            way = ": write one per line (jq -c '.[]', or lines=True in pandas)" if isinstance(values, list) else ""
            raise InputError(f"{path}:{number}: a {type(values).__name__}, expected an object{way}")
        # few rows have that many brackets, so few are looked at
        if openings > DEEPEST and deeper(values, DEEPEST):
            raise InputError(f"{path}:{number}: nested more than {DEEPEST} levels deep: make it flatter")
        yield Row(values, path, number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InputError(f"an object has the key {brief(repeated)} twice: which one is meant cannot be told")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _table(path: Path, lines: Iterator[tuple[int, list[str]]], *, pad: bool) -> Iterator[Row]:
    first, header = next(lines, (0, []))
    header = [name.strip() for name in header]
    if len(header) > MOST_COLUMNS:
        raise InputError(f"{path}:{first}: more than {MOST_COLUMNS:,} columns: this is no table of rows")
    repeated = next((name for name, count in Counter(header).items() if count > 1 and name), None)
    if repeated is not None:
        raise InputError(f"{path}:{first}: two columns are named {brief(repeated)}: which one is meant cannot be told")
    # spreadsheets write the columns that were once used; of one, which may be pandas's index, nothing is lost
    unnamed = [place for place, name in enumerate(header) if not name]
    unnamed = unnamed if len(unnamed) > 1 else []
    blank, names = 0, dict.fromkeys(header)
    for number, cells in lines:
        missing = len(header) - len(cells)
        if missing < 0 or (missing and not pad):
            raise InputError(f"{path}:{number}: {len(cells)} columns, the header has {len(header)}: {listed(header)}")
        if missing and any(cells) and path.suffix.lower() == ".tsv" and _goes_on(cells[-1]):
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


def _tsv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path):
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


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        # newline="": the csv module reads line ends inside quoted cells itself
        with open_regular(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
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
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}){why_not_utf8(error.object)}") from error
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


def listed(names: Iterable[str]) -> str:
    """The first few names, shortened, for a message."""
    shown = [_shown(name) for name in islice(names, 9)]
    return ", ".join(shown if len(shown) < 9 else [*shown[:8], "..."])


def _shown(name: str) -> str:
    return name if len(name) <= 40 and name.isprintable() else brief(name)


_TABLES = {".csv": _csv_cells, ".tsv": _tsv_cells}
