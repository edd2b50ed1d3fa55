"""A notebook -> blocks: its Markdown with headings, its code, and what the code printed.

Guarantees: outputs are shortened, pictures left out. Does not know: widgets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.blocks import markdown_blocks
from llama_index_embed_plus.documents.files.items import MOST_BYTES, Item
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import InputError, first_line
from qdrant_tools.files.json_files import read_json

LONGEST_OUTPUT = 1000
"""Characters: an output may be a table of a million rows."""


def read_notebook(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a notebook."""
    try:
        content = read_json(path, most=MOST_BYTES)
    except InputError as error:
        raise UnreadFileError("damaged", f"it is no notebook: {first_line(error)}") from error
    cells = _cells(content)
    if cells is None:
        raise UnreadFileError("damaged", "it is no notebook: it has no cells")
    headings: tuple[str, ...] = ()
    for cell in cells:
        source = _joined(cell.get("source", cell.get("input")))
        if cell.get("cell_type") == "markdown":
            for block in markdown_blocks([*_lines_above(headings), *source.split("\n")]):
                # the headings of earlier cells hold for this one, and are not said again
                if block.kind != "heading" or block.headings not in _beginnings(headings):
                    yield block
                last = block.headings
            headings = last if source.strip() else headings
        elif cell.get("cell_type") == "code":
            yield from _code(cell, source, headings)
        elif source.strip():
            yield Block(source.strip(), "text", headings)


def _cells(content: Any) -> list[dict[str, Any]] | None:
    cells = content.get("cells") if isinstance(content, dict) else None
    if cells is None and isinstance(content, dict) and isinstance(content.get("worksheets"), list):
        # the third version of the format
        sheets = [sheet for sheet in content["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in sheet.get("cells", [])]
    return [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else None


def _code(cell: dict[str, Any], source: str, headings: tuple[str, ...]) -> Iterator[Block]:
    if source.strip():
        yield Block(source.strip("\n").rstrip(), "code", headings)
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        text = _joined(output.get("text") or (data.get("text/plain") if isinstance(data, dict) else None)).strip("\n")
        if text.strip() and output.get("output_type") != "error":
            yield Block(text[:LONGEST_OUTPUT].rstrip(), "code", headings)


def _lines_above(headings: tuple[str, ...]) -> list[str]:
    return [line for level, title in enumerate(headings, 1) for line in (f"{'#' * min(level, 6)} {title}", "")]


def _beginnings(headings: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {headings[:end] for end in range(1, len(headings) + 1)}


def _joined(source: Any) -> str:
    if isinstance(source, list):
        return "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""
