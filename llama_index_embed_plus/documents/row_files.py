"""A file of rows -> its rows as they are written, one by one, each with its place.

JSONL (`.jsonl`, `.ndjson`), a list of objects in `.json`, CSV and TSV with a header, Parquet (with the extra
`files`). A row that cannot be read is given as the error about it where the next ones can be read all the same.

Guarantees: rows are streamed, and none takes more memory than `qdrant_tools.files.rows` allows. The number of a row
stands for its line where a format has none. Does not know: what the fields mean.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.files.encodings import encoding_of
from llama_index_embed_plus.errors import MissingExtraError
from qdrant_tools.errors import InputError, PlusError, listed
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.files.json_stream import JsonStream
from qdrant_tools.files.parquet import parquet_rows
from qdrant_tools.files.rows import Row, read_lines, read_rows, row_of_line

logger = logging.getLogger(__name__)

TABLES = (".csv", ".tsv")
SUFFIXES = (".jsonl", ".ndjson", ".json", *TABLES, ".parquet")


def read_row_file(path: Path, encoding: str | None = None, *, quiet: bool = False) -> Iterator[Row | InputError]:
    """The rows of a file, by its ending; an error in the place of a row that cannot be read.

    encoding: of a CSV, which spreadsheets write in that of their machine; None: it is found out, and said (not if
        `quiet`).

    Raises:
        InputError: the file cannot be read, or not from here on.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    if path.suffix.lower() == ".csv":
        return _csv(path, encoding, quiet)
    return _READERS.get(path.suffix.lower(), _lines)(path)


def has_field(path: Path, field: str, encoding: str | None = None) -> bool:
    """Whether the first row of a file, or its header, has a field; False for what cannot be read."""
    if path.suffix.lower() == ".json" and not _begins_with_list(path):
        return False
    try:
        first = next(read_row_file(path, encoding, quiet=True), None)
    except PlusError:
        return False
    return isinstance(first, Row) and field_of(first.values, field) is not None


def field_of(values: Mapping[str, Any], field: str) -> tuple[str, ...] | None:
    """The way to a field: its name, or else the path `author.name` of names; None if there is no such field."""
    if field in values:
        return (field,)
    way: tuple[str, ...] = ()
    inside: Any = values
    for name in field.split("."):
        if not isinstance(inside, Mapping) or name not in inside:
            return None
        inside, way = inside[name], (*way, name)
    return way


def _lines(path: Path) -> Iterator[Row | InputError]:
    for number, line in read_lines(path):
        row: Row | InputError
        try:
            row = row_of_line(path, number, line)
        except InputError as error:
            row = error
        yield row


def _list(path: Path) -> Iterator[Row | InputError]:
    if not _begins_with_list(path):
        yield from _lines(path)
        return
    with JsonStream(path) as document:
        for number, values in enumerate(document.elements(), start=1):
            if isinstance(values, dict):
                yield Row(values, path, number)
            else:
                yield InputError(f"{path}:{number}: a {type(values).__name__}, expected an object")
        document.end()


def _begins_with_list(path: Path) -> bool:
    """Whether a file of JSON is a list of objects: others call JSONL `.json`, or write one object."""
    try:
        with JsonStream(path) as document:
            if document.peek() != "[":
                return False
            return isinstance(next(document.elements(), None), dict)
    except InputError:
        return False


def _csv(path: Path, given: str | None, quiet: bool) -> Iterator[Row | InputError]:
    with open_regular(path) as stream:
        encoding = encoding_of(stream, given)
    if encoding.note is not None and not quiet:
        logger.warning("%s: read as %s", path, encoding.note)
    yield from read_rows(path, encoding=None if encoding.name in ("utf-8", "utf-8-sig") else encoding.name)


def _table(path: Path) -> Iterator[Row | InputError]:
    # a row that ends early may be one whose quotes are broken: it is no row with empty cells
    return iter(read_rows(path))


def _parquet(path: Path) -> Iterator[Row | InputError]:
    def warn(names: list[str]) -> None:
        logger.warning("%s: columns of bytes, which metadata cannot hold, are left out: %s", path, listed(names))

    missing = MissingExtraError(f"{path} is Parquet, which", extra="files")
    return iter(parquet_rows(path, without_bytes=warn, missing=missing))


_READERS: Mapping[str, Callable[[Path], Iterator[Row | InputError]]] = {
    ".json": _list,
    ".tsv": _table,
    ".parquet": _parquet,
}
