"""ODT, ODS and ODP -> blocks: headings, paragraphs, items of lists, tables; sheets and slides are pages.

Guarantees: what was deleted in a tracked change, and comments, are not read. Does not know: styles.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from llama_index_embed_plus.documents.files.archives import open_zip, parsed_xml, require_small
from llama_index_embed_plus.documents.files.items import Item, Outline, one_line, table
from llama_index_embed_plus.documents.readers.sheets import table_items
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError

_NAMES = "{urn:oasis:names:tc:opendocument:xmlns:"
_TEXT, _TABLE, _OFFICE = f"{_NAMES}text:1.0}}", f"{_NAMES}table:1.0}}", f"{_NAMES}office:1.0}}"
_DRAW, _SPACES = f"{_NAMES}drawing:1.0}}", {f"{_TEXT}tab", f"{_TEXT}s"}
_DROPPED = {f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_TEXT}sequence-decls", f"{_OFFICE}forms"}
MOST_REPEATS = 100
"""Empty cells at the end of a row are written as one that is repeated a million times."""


def read_opendocument(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a document of OpenOffice or LibreOffice."""
    require_small(path)
    with open_zip(path) as archive:
        try:
            manifest = archive.read("META-INF/manifest.xml") if "META-INF/manifest.xml" in archive.namelist() else b""
            content = archive.read("content.xml")
        except KeyError as error:
            raise UnreadFileError("damaged", "it has no content") from error
    if b"encryption-data" in manifest:
        raise UnreadFileError("encrypted", "it is protected by a password: save it without one")
    body = parsed_xml(content).find(f"{_OFFICE}body")
    if body is not None:
        yield from _items(body)


def _items(body: Element) -> Iterator[Item]:
    outline = Outline()
    is_sheets = body.find(f"{_OFFICE}spreadsheet") is not None
    page: str | None = None
    slides = 0
    waiting: list[tuple[Element, bool]] = [(body, False)]
    while waiting:
        element, in_list = waiting.pop()
        if element.tag in _DROPPED:
            continue
        if element.tag == f"{_DRAW}page":
            slides += 1
            page, outline = str(slides), Outline()
        if element.tag == f"{_TABLE}table":
            rows = list(_rows(element))
            if is_sheets:
                yield from table_items(rows, element.get(f"{_TABLE}name"))
            elif any(map(any, rows)):
                yield Block(table(rows), "table", outline.titles, page)
        elif element.tag in (f"{_TEXT}h", f"{_TEXT}p"):
            if text := _text(element).strip():
                yield from _paragraph(element, text, outline, page, in_list=in_list)
        else:
            inside = in_list or element.tag == f"{_TEXT}list-item"
            waiting += [(child, inside) for child in reversed(element)]


def _paragraph(element: Element, text: str, outline: Outline, page: str | None, *, in_list: bool) -> Iterator[Block]:
    if element.tag == f"{_TEXT}h":
        level = element.get(f"{_TEXT}outline-level", "1")
        yield outline.heading(int(level) if level.isdigit() else 1, one_line(text), page)
    elif in_list:
        yield Block(f"- {text}", "item", outline.titles, page)
    else:
        yield Block(text, "text", outline.titles, page)


def _rows(element: Element) -> Iterator[list[str]]:
    for row in element.iter(f"{_TABLE}table-row"):
        cells: list[str] = []
        for cell in row:
            if cell.tag in (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
                times = cell.get(f"{_TABLE}number-columns-repeated", "1")
                text = one_line(" ".join(_text(part) for part in cell.iter(f"{_TEXT}p")))
                cells += [text] * min(int(times) if times.isdigit() else 1, MOST_REPEATS)
        yield cells


def _text(element: Element) -> str:
    words = []
    waiting: list[Element | str] = [element]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            words.append(each)
            continue
        if each.tag in _DROPPED:
            continue
        words.append(" " if each.tag in _SPACES else "\n" if each.tag == f"{_TEXT}line-break" else "")
        for child in reversed(each):
            waiting += [child.tail or "", child]
        words.append(each.text or "")
    return "".join(words)
