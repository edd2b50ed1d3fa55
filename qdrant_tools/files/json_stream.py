"""A JSON file -> its values one by one, so that a list of rows may be as long as the disk allows.

Guarantees: no value takes more memory than the limits of `qdrant_tools.files.rows`; what cannot be read is one
`InputError` with the path. Does not know: what the values mean.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError, brief, first_line
from qdrant_tools.files.json_files import DEEPEST, deeper, has_more_values, open_regular
from qdrant_tools.files.rows import LONGEST_ROW, MOST_VALUES, Opener

_PIECE = 1 << 16


class JsonStream:
    """A JSON file, read value by value, so that a list of rows may be as long as its disk allows."""

    def __init__(self, file: Path, opened: Opener = open_regular) -> None:
        self.file, self.text, self.at, self.ended = file, "", 0, False
        self.size = 0
        """Characters of the last value."""
        try:
            self.stream = io.TextIOWrapper(opened(file), encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error

    def __enter__(self) -> JsonStream:
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

    def elements(self, most: int = LONGEST_ROW, most_values: int = MOST_VALUES) -> Iterator[Any]:
        """The values of the list that begins here."""
        for _ in self.places():
            yield self.value(most, most_values)

    def places(self) -> Iterator[None]:
        """Stand at each value of the list that begins here, which is to be read before the next."""
        self._take("[")
        if self.peek() != "]":
            yield
            while self.peek() == ",":
                self._take(",")
                yield
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
