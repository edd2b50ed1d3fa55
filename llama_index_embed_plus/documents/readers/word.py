"""DOCX -> blocks: headings, paragraphs, items of lists, tables.

Guarantees: text in content controls, text boxes, links and accepted insertions is read; what was deleted in a tracked
change is not. Does not know: pages, which Word makes when it prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.files.archives import require_small
from llama_index_embed_plus.documents.files.items import Item, Outline, one_line, table
from llama_index_embed_plus.documents.records import Block

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"


def read_docx(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a document of Word."""
    require_small(path)
    from docx import Document
    from docx.opc.exceptions import PackageNotFoundError

    from llama_index_embed_plus.errors import UnreadFileError

    try:
        document = Document(str(path))
    except (PackageNotFoundError, KeyError, ValueError) as error:
        raise UnreadFileError("damaged", f"it is no document of Word: {one_line(str(error))}") from error
    if title := one_line(document.core_properties.title or ""):
        yield {"title": title}
    levels = _levels(document)
    outline = Outline()
    for element in _content(document.element.body):
        if element.tag == f"{_W}tbl":
            if text := _table(element):
                yield Block(text, "table", outline.titles)
        elif text := _text(element).strip():
            yield from _paragraph(element, text, levels, outline)


def _paragraph(element: Any, text: str, levels: dict[str, int], outline: Outline) -> Iterator[Block]:
    properties = element.find(f"{_W}pPr")
    style = _value(properties, "pStyle") or ""
    level = levels.get(style)
    if properties is not None and (own := _value(properties, "outlineLvl")) and own.isdigit() and int(own) < 9:
        level = int(own) + 1
    if level is not None:
        yield outline.heading(level, one_line(text))
    elif style.lower().startswith("list") or (properties is not None and properties.find(f"{_W}numPr") is not None):
        yield Block(f"- {text}", "item", outline.titles)
    else:
        yield Block(text, "text", outline.titles)


def _levels(document: Any) -> dict[str, int]:
    """Id of a style -> the level of headings that it makes. The names of styles are English in every language."""
    levels = {}
    for style in document.styles.element.iterfind(f"{_W}style"):
        name = (_value(style, "name") or "").lower()
        own = _value(style.find(f"{_W}pPr"), "outlineLvl")
        if match := re.fullmatch(r"heading (\d)", name):
            levels[style.get(f"{_W}styleId")] = int(match[1])
        elif name == "title":
            levels[style.get(f"{_W}styleId")] = 0
        elif own and own.isdigit() and int(own) < 9:
            levels[style.get(f"{_W}styleId")] = int(own) + 1
    return levels


def _value(element: Any, name: str) -> str | None:
    found = element.find(f"{_W}{name}") if element is not None else None
    return found.get(f"{_W}val") if found is not None else None


def _content(body: Any) -> Iterator[Any]:
    """The paragraphs and tables of a body, those in content controls and insertions among them."""
    waiting = list(reversed(body))
    while waiting:
        element = waiting.pop()
        if element.tag in (f"{_W}p", f"{_W}tbl"):
            yield element
        elif element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml", f"{_W}smartTag"):
            waiting += list(reversed(element))


def _text(element: Any) -> str:
    words: list[str] = []
    waiting = [element]
    while waiting:
        each = waiting.pop()
        if each.tag == f"{_W}t":
            words.append(each.text or "")
        elif each.tag in (f"{_W}tab", f"{_W}ptab"):
            words.append("\t")
        elif each.tag in (f"{_W}br", f"{_W}cr"):
            words.append("\n")
        elif each.tag not in (f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr", f"{_W}instrText", _FALLBACK):
            if each.tag == f"{_W}p" and words:
                words.append("\n")
            waiting += list(reversed(each))
    return "".join(words)


def _table(element: Any) -> str:
    rows = []
    for row in element.iterchildren(f"{_W}tr"):
        cells = [one_line(_text(cell)) for cell in row.iterchildren(f"{_W}tc")]
        if any(cells):
            rows.append(cells)
    return table(rows)
