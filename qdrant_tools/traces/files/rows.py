"""A file that a tracing tool exported -> its rows, one by one, whatever its ending says.

Rows are the lines of JSONL; the objects of a list; the objects under `data`, `spans`, `traces` or `observations` of a
page of an API; a table in JSON by columns, by labels or split, as pandas writes it; objects one after the other without
a sign between them, as console exporters write; rows of CSV, TSV and Parquet. Any of them may be packed by gzip. A
document of OTLP (`resourceSpans`) is given in pieces of its own shape, so that it may be as long as the disk allows.

Guarantees: no row takes more memory than `qdrant_tools.files` allows. A file that was cut in its last row gives the
rows before it, and says so in `notes`; one that is damaged elsewhere is an error with its place. Does not know: what
the rows mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError, brief, listed
from qdrant_tools.files.json_stream import JsonStream
from qdrant_tools.files.packed import Unpacked
from qdrant_tools.files.parquet import parquet_rows
from qdrant_tools.files.rows import LONGEST_ROW, Row, ending, read_lines, read_rows, row_of_line

PAGES = frozenset(
    {"data", "spans", "traces", "observations", "runs", "items", "results", "scores", "feedback"}
    | {"content", "events", "calls"}
)
"""Under which APIs write the list of what was asked for."""
PAGING = frozenset(
    {"next_cursor", "nextCursor", "cursor", "cursors", "meta", "page", "pages", "limit", "offset", "total", "count"}
    | {"next", "previous", "next_page_token", "nextPageToken", "has_more", "hasMore", "object", "links", "errors"}
    | {"sortable_by", "totalEvents", "totalItems", "total_items", "schema", "freshness_state"}
    | {"success", "status", "version", "exported_at", "exportedAt", "size", "total_count", "totalCount"}
)
"""What stands beside it and says nothing of the rows."""
_FOLLOWING = ("next_cursor", "nextCursor", "next_page_token", "nextPageToken")
"""Where a page says with which word the next one is to be asked for."""
OTLP = {
    "resourceSpans": ("scopeSpans", "instrumentationLibrarySpans"),
    "resource_spans": ("scope_spans",),
    "batches": ("scopeSpans", "instrumentationLibrarySpans"),
    "resourceLogs": ("scopeLogs",),
    "resource_logs": ("scope_logs",),
}
"""Lists of resources, each with lists of scopes, each with a list of spans or records of a log."""
_RECORDS = frozenset({"spans", "logRecords", "log_records"})
SPANS_AT_ONCE = 32
_FEWEST_COLUMNS = 3
_LABEL = re.compile(r"[0-9a-f-]+")
"""Of a row of pandas: a number, or the id of a span. No column is called so."""
# a span that embeds a batch has all its vectors: a hundred of 3,072 numbers, each an object in OTLP
LONGEST_SPAN = 24_000_000
MOST_VALUES = 1_500_000


class TraceFile:
    """The rows of a file. `notes` says what is odd about it, once all were read; `position` is how far that is.

    `tells_of_more`: whether the file itself says if other pages follow it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self.tells_of_more = False
        self._next = ""
        self._opened: Unpacked | None = None

    @property
    def position(self) -> int:
        """Bytes of the file that were read so far."""
        return 0 if self._opened is None else self._opened.position

    def rows(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            InputError: the file cannot be read, or not from here on.
        """
        suffix = ending(self.path)
        if suffix == ".parquet":
            yield from parquet_rows(self.path)
        elif suffix in (".csv", ".tsv"):
            yield from self._table()
        elif self._is_lines():
            yield from self._lines()
        else:
            yield from self._values()

    def _open(self, path: Path) -> Any:
        self._opened = Unpacked(path)
        return self._opened.stream

    def _is_lines(self) -> bool:
        """Whether the first line is an object that is no page of many."""
        try:
            number, line = next(read_lines(self.path, self._open), (0, ""))
            return not line or not _is_page(row_of_line(self.path, number, line, most_values=MOST_VALUES).values)
        except InputError:
            return False

    def _lines(self) -> Iterator[Row]:
        lines = read_lines(self.path, self._open)
        for number, line in lines:
            try:
                row = row_of_line(self.path, number, line, most_values=MOST_VALUES)
            except InputError as error:
                if number == 1 or not _at_end(error) or next(lines, None) is not None or self._ends_in_line():
                    raise
                self._cut(f"line {number:,}")
                return
            yield row
        if self._opened is not None and self._opened.cut:
            self._cut("the last line")

    def _ends_in_line(self) -> bool:
        """Whether the writer has ended its last line, so that nothing was cut from it."""
        return self._opened is not None and self._opened.last == b"\n" and not self._opened.cut

    def _table(self) -> Iterator[Row]:
        rows = read_rows(self.path, opened=self._open, twice=True)
        before: Row | None = None
        try:
            for row in rows:
                if before is not None:
                    yield before
                before = row
        except InputError:
            # nothing behind it, and no end of the line: the file has more columns than were written
            if before is None or self._opened is None or not self._opened.at_end or self._ends_in_line():
                raise
            self._cut(f"the row behind line {before.line:,}")
        if before is not None:
            yield before

    def _values(self) -> Iterator[Row]:
        number = 0
        with JsonStream(self.path, self._open) as document:
            try:
                while mark := document.peek():
                    found = document.elements(LONGEST_SPAN, MOST_VALUES) if mark == "[" else self._object(document)
                    for fields in found:
                        number += 1
                        if not isinstance(fields, dict):
                            raise InputError(f"{self.path}:{number}: {brief(fields)} is no row, expected an object")
                        yield Row(fields, self.path, number)
            except InputError as error:
                if not number or not document.ended or not _at_end(error):
                    raise
                self._cut(f"row {number + 1:,}")
        if self._next:
            self.notes.append(
                f"{self.path} is a page of several, and {self._next} says that another one follows: name its file too, "
                "or ask for more at once (limit=)"
            )

    def _object(self, document: JsonStream) -> Iterator[dict[str, Any]]:
        """The object that begins here, or what is listed in it."""
        fields: dict[str, Any] = {}
        is_page = False
        for key in document.items():
            if key in fields:
                raise InputError(f"{self.path}: an object has the key {brief(key)} twice")
            if key in OTLP and document.peek() == "[":
                is_page = True
                yield from _resources(document, key)
            elif key in PAGES and document.peek() == "[" and fields.keys() <= PAGING:
                is_page = True
                yield from document.elements(LONGEST_SPAN, MOST_VALUES)
            else:
                fields[key] = document.value(LONGEST_SPAN, MOST_VALUES)
        if not is_page:
            yield from _frame(fields) or (fields,)
            return
        following = [key for key in _FOLLOWING if key in fields]
        self.tells_of_more |= bool(following)
        self._next = next((key for key in following if fields[key]), "")
        if left := [key for key in fields if key not in PAGING]:
            self.notes.append(f"{self.path}: beside the list of rows, {listed(left)} was not read")

    def _cut(self, where: str) -> None:
        self.notes.append(
            f"{self.path} was cut in {where}, which is left out: the rows before it are read; write the file again to "
            "have all"
        )


def _is_page(fields: Any) -> bool:
    """Whether an object is a list of rows, and what an API writes around it."""
    if _frame(fields):
        return True
    lists = {key for key, value in fields.items() if isinstance(value, list) and key in PAGES}
    return bool(OTLP.keys() & fields.keys()) or (len(lists) == 1 and fields.keys() - lists <= PAGING)


def _frame(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table as pandas' `to_json` writes it without `orient="records"`; none for anything else."""
    if fields.keys() == {"columns", "index", "data"} and all(isinstance(value, list) for value in fields.values()):
        names, rows = fields["columns"], fields["data"]
        if all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return [dict(zip(map(str, names), row, strict=True)) for row in rows]
    parts = list(fields.values())
    if len(parts) < _FEWEST_COLUMNS or not all(isinstance(part, dict) and part for part in parts):
        return []
    if any(part.keys() != parts[0].keys() for part in parts):
        return []
    if all(_LABEL.fullmatch(name) for name in fields):
        return parts
    return [{name: part[label] for name, part in fields.items()} for label in parts[0]]


def _resources(document: JsonStream, key: str) -> Iterator[dict[str, Any]]:
    """The pieces of a document of OTLP: each has the resource and the scope of its spans."""
    for _ in document.places():
        resource: dict[str, Any] = {}
        for part in document.items():
            if part in OTLP[key] and document.peek() == "[":
                for scope, name, spans in _scopes(document):
                    yield {key: [{**resource, part: [{**scope, name: spans}]}]}
            else:
                resource[part] = document.value()


def _scopes(document: JsonStream) -> Iterator[tuple[dict[str, Any], str, list[Any]]]:
    for _ in document.places():
        scope: dict[str, Any] = {}
        for part in document.items():
            if part not in _RECORDS or document.peek() != "[":
                scope[part] = document.value()
                continue
            spans: list[Any] = []
            size = 0
            for span in document.elements(LONGEST_SPAN, MOST_VALUES):
                spans.append(span)
                size += document.size
                if len(spans) == SPANS_AT_ONCE or size > LONGEST_ROW:
                    yield scope, part, spans
                    spans, size = [], 0
            if spans:
                yield scope, part, spans


def _at_end(error: BaseException) -> bool:
    """Whether JSON went wrong where its text ends, and nowhere before."""
    cause = error.__cause__
    text, place = getattr(cause, "doc", None), getattr(cause, "pos", None)
    if text is None or place is None:
        # the stream found nothing where a sign is expected
        return "no JSON: '' stands" in str(error)
    return "Unterminated string" in str(cause) or place >= len(text.rstrip()) - len("false")
