"""Rows of a file -> documents: a text with its own id, and every other field as metadata.

The id is `id` or `_id`, the text `text` behind a `title`, as in BEIR, unless the settings name other fields; a name may
be a path (`article.body`) into objects. A row is embedded as its author wrote it where it fits, and cut at its
paragraphs and sentences where it does not. A file whose rows have no id gives them one of their content.

Guarantees: equal rows give equal documents, in constant memory; what metadata cannot hold, and an id that is no text
and no whole number, is refused with `file:line`. Does not know: tokens, collections, folders.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from llama_index_embed_plus.documents.blocks import text_blocks
from llama_index_embed_plus.documents.records import Block, Document, ReadSettings, SkippedFile
from llama_index_embed_plus.documents.row_files import SUFFIXES, TABLES, field_of, has_field, read_row_file
from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import InputError, brief, listed
from qdrant_tools.fields import json_metadata
from qdrant_tools.files.rows import Row
from qdrant_tools.foreign import is_absent
from qdrant_tools.validation import checked_text, is_unicode

logger = logging.getLogger(__name__)

OnBadRow = Callable[[SkippedFile], None]
Way = tuple[str, ...]
"""The names that lead to a field."""

MOST_BAD_ROWS = 100
"""Told one by one; a file that begins with so many holds no rows of this kind."""
_IDS, _TEXT, _TITLE, _METADATA = ("id", "_id"), "text", "title", "metadata"
_TEXTS_OF_OTHERS = (
    *("content", "contents", "page_content", "body", "passage", "document", "article", "abstract", "answer", "chunk"),
    *("description", "raw_text", "full_text", "Text", "TEXT", "texts", "sentence", "summary"),
)
"""What others call the text: named in a refusal, and never taken for it."""
_OF_PARTS = ("document", "part", "header_path", "page_label")


def is_rows(path: Path, settings: ReadSettings) -> bool:
    """Whether a file holds rows, each of them a document: a table or a JSON list only if it has a field of texts."""
    suffix = path.suffix.lower()
    if suffix in (*TABLES, ".json"):
        return has_field(path, settings.text_field or _TEXT, settings.encoding)
    return suffix in SUFFIXES


def documents_of(
    path: Path,
    settings: ReadSettings,
    *,
    name: str | None = None,
    on_bad: OnBadRow | None = None,
    on_empty: OnBadRow | None = None,
) -> Iterator[Document]:
    """The documents of a file of rows, in their order.

    name: what the ids of rows without one begin with: `source/path`; None: the folder's name and the file's.
    on_bad: told of a row that is no document, and the next one is read; None: such a row is an error.
    on_empty: told of a row whose text is empty, which many corpora have; None: it is as bad as others.

    Raises:
        InputError: the file cannot be read, has no field of texts or ids that was asked for, or holds a bad row.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    bad, empty = _BadRows(path, on_bad), _EmptyRows(path, on_empty)
    reader: _Rows | None = None
    for row in bad.until_broken(read_row_file(path, settings.encoding)):
        try:
            if isinstance(row, InputError):
                raise row
            if reader is None:
                reader = _Rows.of(row, settings, name or f"{path.resolve().parent.name}/{path.name}")
            document = reader.document(row)
        except InputError as error:
            if isinstance(error, _EmptyRowError) and empty.note(error, row):
                continue
            # without a reader the row is fine and the fields of the file are not
            bad.note(error, row, fatal=reader is None and isinstance(row, Row))
        else:
            bad.good += 1
            yield document
    bad.end()
    empty.end()


class _EmptyRowError(InputError):
    """A row that says nothing: its text is there, and empty."""


@dataclass
class _EmptyRows:
    """What becomes of rows without a text: the first hundred are told one by one, if anybody wants to know."""

    path: Path
    tell: OnBadRow | None
    count: int = 0

    def note(self, error: InputError, row: Row | InputError) -> bool:
        """Whether it was told, so that it is no error."""
        if self.tell is None or not isinstance(row, Row):
            return False
        self.count += 1
        if self.count <= MOST_BAD_ROWS:
            self.tell(SkippedFile(row.where, "empty row", str(error)))
        return True

    def end(self) -> None:
        if self.tell is not None and self.count > MOST_BAD_ROWS:
            further = f"{self.count - MOST_BAD_ROWS:,} further rows have no text"
            self.tell(SkippedFile(str(self.path), "empty row", further))


@dataclass
class _BadRows:
    """What becomes of rows that are no documents: the first is an error, or the first hundred are told one by one."""

    path: Path
    tell: OnBadRow | None
    good: int = 0
    bad: int = 0

    def note(self, error: InputError, row: Row | InputError, *, fatal: bool) -> None:
        self.bad += 1
        if self.tell is None or fatal or (self.bad == MOST_BAD_ROWS and not self.good):
            raise error
        if self.bad <= MOST_BAD_ROWS:
            self.tell(SkippedFile(row.where if isinstance(row, Row) else str(self.path), "bad row", str(error)))

    def until_broken(self, rows: Iterator[Row | InputError]) -> Iterator[Row | InputError]:
        """The rows up to one behind which nothing can be read."""
        try:
            yield from rows
        except InputError as error:
            if self.tell is None or not self.good:
                raise
            self.tell(SkippedFile(str(self.path), "damaged", f"{error}; the rest of the file was not read"))

    def end(self) -> None:
        if self.tell is not None and self.bad > MOST_BAD_ROWS:
            further = f"{self.bad - MOST_BAD_ROWS:,} further rows are no documents"
            self.tell(SkippedFile(str(self.path), "bad row", further))


@dataclass(frozen=True)
class _Rows:
    """What the first row says about all rows of a file: which fields are what."""

    name: str
    id_field: Way | None
    """None: the rows have none, and get one of their content."""
    text_field: Way
    suffix: str

    @classmethod
    def of(cls, row: Row, settings: ReadSettings, name: str) -> _Rows:
        text_field = _field(row, settings.text_field, "text") or ((_TEXT,) if _TEXT in row.values else None)
        if text_field is None:
            likely = [key for key in _TEXTS_OF_OTHERS if key in row.values]
            such = f"such as --text-field {likely[0]} (text_field={likely[0]!r})" if likely else "--text-field NAME"
            raise UnreadFileError(
                "no field",
                f"{row.where}: no field 'text', the fields are {listed(row.values)}: name the one with the text, "
                f"{such}",
            )
        id_field = _field(row, settings.id_field, "id")
        if id_field is None and any(key in row.values for key in _IDS):
            id_field = _IDS
        if id_field is None:
            logger.warning(
                "%s: no field 'id' or '_id': the ids of the rows are made of their content, unless --id-field "
                "(id_field=) names one of %s",
                row.path,
                listed(row.values),
            )
        if replaced := [key for key in _OF_PARTS if key in row.values]:
            logger.warning("%s: where a row is cut, its parts have a %s of their own", row.path, listed(replaced))
        return cls(name, id_field, text_field, row.path.suffix.lower())

    def document(self, row: Row) -> Document:
        title, text = self.title(row), self.text(row)
        if not text and not title:
            value = _value(row.values, self.text_field)
            # a row without the field may be of another kind than the rows before
            kind = InputError if self.text_field[0] not in row.values else _EmptyRowError
            raise kind(f"{row.where}: {_shown(self.text_field)} is {brief(value)}, expected a non-empty text")
        if not is_unicode(title + text):
            raise InputError(f"{row.where}: its text holds a lone surrogate, expected Unicode text")
        metadata = self.metadata(row)
        name = self.own_id(row) if self.id_field is not None else self.made_id(row, title, text, metadata)
        # as every system embeds BEIR's passages
        whole = f"{title} {text}".strip() if title else text
        return Document(name, _blocks(title.strip(), text), metadata, keeps_id=True, text=whole)

    def title(self, row: Row) -> str:
        value = None if self.text_field == (_TITLE,) else row.values.get(_TITLE)
        if value is None or self.is_nothing(value):
            return ""
        if not isinstance(value, str):
            raise InputError(f"{row.where}: title is {brief(value)}, expected a text")
        return value if value.strip() else ""

    def text(self, row: Row) -> str:
        value = _value(row.values, self.text_field)
        if value is None or self.is_nothing(value):
            return ""
        if not isinstance(value, str):
            raise InputError(f"{row.where}: {_shown(self.text_field)} is {brief(value)}, expected a non-empty text")
        return value if value.strip() else ""

    def own_id(self, row: Row) -> str:
        if self.id_field is not _IDS:
            assert self.id_field is not None
            return _as_id(_value(row.values, self.id_field), f"{row.where}: {_shown(self.id_field)}")
        ids = {key: row.values[key] for key in _IDS if key in row.values}
        if len({str(value) for value in ids.values()}) > 1:
            raise InputError(
                f"{row.where}: id is {brief(ids['id'])} and _id {brief(ids['_id'])}: leave one out, or name the one "
                "that counts, --id-field (id_field=)"
            )
        # a row with neither is an error about `id`, this project's own name
        key = next(iter(ids), _IDS[0])
        return _as_id(ids.get(key), f"{row.where}: {key}")

    def made_id(self, row: Row, title: str, text: str, metadata: Mapping[str, Any]) -> str:
        named = next((key for key in _IDS if key in row.values), None)
        if named is not None:
            raise InputError(f"{row.where}: {named} is {brief(row.values[named])}, and the first row has none")
        content = json.dumps([title, text, metadata], sort_keys=True, ensure_ascii=False)
        return f"{self.name}#{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def metadata(self, row: Row) -> dict[str, Any]:
        """Every other field, as JSON has it; what `metadata` holds stands beside them."""
        ids = [(key,) for key in _IDS] if self.id_field in (None, _IDS) else [self.id_field or ()]
        values: Mapping[str, Any] = row.values
        for way in (self.text_field, (_TITLE,), *ids):
            values = _without(values, way)
        others = {key: value for key, value in values.items() if not self.is_nothing(value)}
        # in a table it may be the name of a column as any other
        inside = {} if isinstance(others.get(_METADATA), str) and self.suffix in TABLES else others.pop(_METADATA, None)
        if not isinstance(inside or {}, Mapping):
            raise InputError(f"{row.where}: metadata is a {type(inside).__name__}, expected an object")
        for key, value in others.items():
            if key in (inside or {}) and inside[key] != value:
                raise InputError(
                    f"{row.where}: {brief(key)} is {brief(value)}, and {brief(inside[key])} in its metadata: leave one "
                    "out"
                )
        return json_metadata({**others, **(inside or {})}, f"{row.where}: metadata")

    def is_nothing(self, value: Any) -> bool:
        """Whether it is a cell that says nothing, of a format where every row has every column."""
        if self.suffix in TABLES:
            return is_absent(value)
        return self.suffix == ".parquet" and (value is None or (isinstance(value, float) and math.isnan(value)))


def _field(row: Row, name: str | None, what: str) -> Way | None:
    """The way to a field that was asked for. Raises `InputError` if the row has none."""
    way = None if name is None else field_of(row.values, name)
    if name is not None and way is None:
        raise UnreadFileError(
            "no field", f"{row.where}: no field {brief(name)} with the {what}, the fields are {listed(row.values)}"
        )
    return way


def _value(values: Mapping[str, Any], way: Way) -> Any:
    inside: Any = values
    for name in way:
        inside = inside.get(name) if isinstance(inside, Mapping) else None
    return inside


def _without(values: Mapping[str, Any], way: Way) -> Mapping[str, Any]:
    """The same fields but for the one at the end of the way."""
    if not way or way[0] not in values:
        return values
    rest = {name: value for name, value in values.items() if name != way[0]}
    inside = values[way[0]]
    return {**rest, way[0]: _without(inside, way[1:])} if len(way) > 1 and isinstance(inside, Mapping) else rest


def _as_id(value: Any, what: str) -> str:
    """An id as a text: whole numbers in decimal digits, UUIDs as they are written."""
    if isinstance(value, str) and value.strip():
        return checked_text(what, value)
    if isinstance(value, (int, np.integer, UUID)) and not isinstance(value, bool):
        return str(value)
    way = ": write whole numbers without a point" if isinstance(value, float) and value == value else ""
    raise InputError(f"{what} is {brief(value)}, expected a non-empty text or a whole number{way}")


def _blocks(title: str, text: str) -> Iterator[Block]:
    if not title:
        yield from text_blocks(text.splitlines())
        return
    yield Block(title, "heading", (title,))
    for block in text_blocks(text.splitlines()):
        yield replace(block, headings=(title, *block.headings))


def _shown(way: Way) -> str:
    return ".".join(way)
