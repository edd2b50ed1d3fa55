"""What LlamaIndex's readers and a user's own give -> blocks.

Guarantees: whatever they return (a text, texts, blocks, documents) becomes blocks, with the page and headings that its
metadata names. Does not know: what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.blocks import text_blocks
from llama_index_embed_plus.documents.files.items import Item, require_size
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import UsageError, brief

_HEADINGS = ("header_path", "Header_Path")
_OF_FILES = frozenset(
    ("file_path", "file_name", "file_type", "file_size", "creation_date", "last_modified_date", "last_accessed_date")
)


def read_rtf(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of rich text."""
    require_size(path)
    from striprtf.striprtf import rtf_to_text

    yield from text_blocks(rtf_to_text(path.read_text("latin-1"), errors="replace").splitlines())


def read_hwp(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a document of Hangul."""
    require_size(path)
    _require("olefile")
    from llama_index.readers.file import HWPReader

    yield from items_of(HWPReader().load_data(path))


def read_xls(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a workbook of Excel before 2007."""
    require_size(path)
    _require("xlrd")
    from llama_index.readers.file import PandasExcelReader

    yield from items_of(PandasExcelReader(concat_rows=True).load_data(path))


def read_with(reader: Any, path: Path) -> Iterator[Item]:
    """The items that a user's own reader gives.

    Raises:
        UsageError: it is neither a reader of LlamaIndex nor callable, or gives something else than texts.
    """
    load: Callable[[Path], Any] | None = getattr(reader, "load_data", None) or (reader if callable(reader) else None)
    if load is None:
        raise UsageError(f"the reader of {path.suffix} is {brief(reader)}, expected one of LlamaIndex or a callable")
    yield from items_of(load(path))


def items_of(given: Any) -> Iterator[Item]:
    """The items of what a reader returned."""
    parts: Iterable[Any] = [given] if isinstance(given, (str, Block)) or hasattr(given, "metadata") else given
    for part in parts:
        if isinstance(part, Block):
            yield part
            continue
        text = part if isinstance(part, str) else getattr(part, "text", None)
        if not isinstance(text, str):
            raise UsageError(f"a reader gave {brief(part)}, expected texts, blocks or documents")
        metadata = dict(getattr(part, "metadata", None) or {})
        page = metadata.pop("page_label", None)
        path = next((str(metadata.pop(name)) for name in _HEADINGS if name in metadata), "")
        headings = tuple(filter(None, (title.strip() for title in path.replace("/", ">").split(">"))))
        # what is said of one part does not hold for the file
        facts = {name: value for name, value in metadata.items() if name not in _OF_FILES}
        if facts and page is None:
            yield facts
        for block in text_blocks(text.splitlines()):
            yield Block(block.text, block.kind, headings, None if page is None else str(page))


def _require(module: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise UnreadFileError("needs an extra", f"such files need pip install {module}") from error
