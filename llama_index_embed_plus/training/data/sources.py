"""A file of training data -> its rows of fields, each with its place.

JSONL; JSON (a list of rows; an object whose `data` or `examples` is such a list; LlamaIndex's
`EmbeddingQAFinetuneDataset`; or JSONL under this ending); CSV and TSV with a header; one text per line (.txt).

Guarantees: rows are streamed, from a JSON list too; a row takes no more memory than `files` allows. An empty cell of a
table is a field that says nothing (None). Does not know: what the fields mean, kinds, losses.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.integrations.qa_dataset import from_qa_dataset
from qdrant_tools.errors import InputError, UsageError, brief, first_line
from qdrant_tools.files import LONGEST_ROW, MOST_VALUES, Row, read_lines, read_rows
from qdrant_tools.json_files import DEEPEST, MOST_BYTES, deeper, has_more_values, open_regular

Fields = Mapping[str, Any]

_MOST_VALUES = 1_000_000
_LISTS = ("data", "examples")
_PIECE = 1 << 16


def rows_of(file: Path) -> Iterator[Row]:
    """The rows of a file, in their order.

    Raises:
        InputError: it cannot be read, or holds no rows.
        UsageError: an ending that is unknown.
    """
    suffix = file.suffix.lower()
    if suffix not in _READERS:
        raise UsageError(f"{file} ends in {file.suffix!r}, expected one of {', '.join(_READERS)}")
    return _READERS[suffix](file)


def _table(file: Path) -> Iterator[Row]:
    for row in read_rows(file):
        yield replace(row, values={name: cell if cell != "" else None for name, cell in row.values.items()})


def _texts(file: Path) -> Iterator[Row]:
    return (Row({"text": line.strip()}, file, number) for number, line in read_lines(file))


def _json(file: Path) -> Iterator[Row]:
    if _is_jsonl(file):
        yield from read_rows(file)
        return
    with _Json(file) as document:
        opening = document.peek()
        if opening == "[":
            yield from _listed(file, document)
        elif opening == "{":
            yield from _of_object(file, document)
        else:
            raise _no_rows(file)
        document.end()


def _is_jsonl(file: Path) -> bool:
    """Whether there are several lines, of an object each: FlagEmbedding writes JSONL under the ending .json."""
    try:
        lines = [line.strip() for (_, line), _ in zip(read_lines(file), range(2), strict=False)]
    except InputError:
        return False  # a long line, or one that cannot be read: what is wrong is said by the reader of JSON
    return len(lines) == 2 and lines[0].endswith("}") and all(line.startswith("{") for line in lines)


def _listed(file: Path, document: _Json) -> Iterator[Row]:
    # in a JSON list the number of the row stands for the line
    return (Row(fields, file, number) for number, fields in enumerate(document.elements(), start=1))


def _of_object(file: Path, document: _Json) -> Iterator[Row]:
    """The rows of an object: those of a list in it, or of the data set that it is."""
    content: dict[str, Any] = {}
    room = MOST_BYTES
    for key in document.items():
        if key in _LISTS and document.peek() == "[" and "columns" not in content:
            yield from _listed(file, document)
            content[key] = None
        elif key in content:
            raise InputError(f"{file}: the key {brief(key)} stands in it twice: which one is meant cannot be told")
        else:
            content[key] = document.value(room, _MOST_VALUES)
            room -= document.size
    if {"queries", "corpus", "relevant_docs"} <= content.keys():
        yield from _qa(file, content)
    elif not any(key in _LISTS for key in content):
        raise _no_rows(file)


def _qa(file: Path, content: Fields) -> Iterator[Row]:
    try:
        examples = list(from_qa_dataset(content).examples())
    except InputError as error:
        raise InputError(f"{file} is not an EmbeddingQAFinetuneDataset: {error}") from error
    return (Row(example.as_row(), file, number) for number, example in enumerate(examples, start=1))


def _no_rows(file: Path) -> InputError:
    return InputError(f"{file} holds no list of rows and no EmbeddingQAFinetuneDataset")


class _Json:
    """A JSON file, read value by value, so that a list of rows may be as long as its disk allows."""

    def __init__(self, file: Path) -> None:
        self.file, self.text, self.at, self.ended = file, "", 0, False
        self.size = 0
        """Characters of the last value."""
        try:
            self.stream = io.TextIOWrapper(open_regular(file), encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error

    def __enter__(self) -> _Json:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def peek(self) -> str:
        """The next character that is no white space, or nothing at the end."""
        blank = 0
        while not (rest := self.text[self.at :].lstrip(" \t\r\n")):
            blank += len(self.text) - self.at
            self.at = len(self.text)
            if blank > LONGEST_ROW:
                raise InputError(f"{self.file}: {blank:,} characters of white space: this is no list of rows")
            if not self._more(_PIECE):
                return ""
        self.at = len(self.text) - len(rest)
        return rest[0]

    def value(self, most: int = LONGEST_ROW, most_values: int = MOST_VALUES) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                self.size = end - self.at
                # a number at the end of what was read may go on
                if end < len(self.text) or not self._more(_PIECE):
                    break
            except RecursionError as error:
                raise self._deep() from error
            except InputError as error:
                raise InputError(f"{self.file}: {error}") from error
            except ValueError as error:
                read = len(self.text) - self.at
                if read > most or has_more_values(self.text[self.at :], most_values):
                    raise InputError(
                        f"{self.file}: a value of more than {most:,} characters or {most_values:,} values: write the "
                        "rows as .jsonl, one per line"
                    ) from error
                if not self._more(max(_PIECE, read)):
                    raise InputError(f"{self.file} is no JSON ({first_line(error)})") from error
        if deeper(value, DEEPEST):
            raise self._deep()
        self.at += self.size
        return value

    def elements(self) -> Iterator[Any]:
        """The values of the list that begins here."""
        self._take("[")
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self._take(",")
                yield self.value()
        self._take("]")

    def items(self) -> Iterator[str]:
        """The keys of the object that begins here; the value of each is to be read before the next."""
        self._take("{")
        while self.peek() == '"':
            key = self.value(_PIECE)
            self._take(":")
            yield key
            if self.peek() != ",":
                break
            self._take(",")
        self._take("}")

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise self._broken("the end")

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            raise self._broken(brief(mark))
        self.at += 1

    def _more(self, size: int) -> bool:
        try:
            piece = "" if self.ended else self.stream.read(size)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.file} is not UTF-8 text: convert it") from error
        except OSError as error:
            raise InputError(f"cannot read {self.file}: {error.strerror}") from error
        self.ended = not piece
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def _broken(self, expected: str) -> InputError:
        found = brief(self.text[self.at : self.at + 20])
        return InputError(f"{self.file} is no JSON: {found} stands where {expected} is expected")

    def _deep(self) -> InputError:
        return InputError(f"{self.file} is nested more than {DEEPEST} levels deep: make it flatter")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InputError("an object in it has one key twice: which value is meant cannot be told")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": read_rows,
    ".ndjson": read_rows,
    ".csv": _table,
    ".tsv": _table,
    ".txt": _texts,
}
