"""PPTX -> blocks: the title of a slide as a heading, its texts, tables and notes; the number of the slide is the page.

Guarantees: slide after slide, groups of shapes among them. Does not know: pictures, charts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.files.archives import require_small
from llama_index_embed_plus.documents.files.items import Item, Outline, one_line, table
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError


def read_pptx(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of slides of PowerPoint."""
    require_small(path)
    from pptx import Presentation
    from pptx.exc import PackageNotFoundError

    try:
        presentation = Presentation(str(path))
        slides = list(presentation.slides)
    except (PackageNotFoundError, KeyError, ValueError) as error:
        raise UnreadFileError("damaged", f"it is no presentation: {one_line(str(error))}") from error
    facts = {"pages": len(slides)}
    title = one_line(presentation.core_properties.title or "")
    yield {**facts, "title": title} if title else facts
    for number, slide in enumerate(slides, 1):
        yield from _slide(slide, str(number))
        yield {}


def _slide(slide: Any, page: str) -> Iterator[Block]:
    outline = Outline()
    title = slide.shapes.title
    if title is not None and (text := one_line(title.text_frame.text)):
        yield outline.heading(1, text, page)
    for shape in _shapes(slide.shapes):
        # another object for the same shape each time
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if getattr(shape, "has_table", False):
            rows = [[one_line(cell.text) for cell in row.cells] for row in shape.table.rows]
            if any(map(any, rows)):
                yield Block(table(rows), "table", outline.titles, page)
        elif shape.has_text_frame:
            lines = [one_line(paragraph.text) for paragraph in shape.text_frame.paragraphs]
            if text := "\n".join(filter(None, lines)):
                yield Block(text, "text", outline.titles, page)
    frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if frame is not None and (notes := frame.text.strip()):
        yield Block(notes, "text", outline.titles, page)


def _shapes(shapes: Any) -> Iterator[Any]:
    waiting = list(reversed(list(shapes)))
    while waiting:
        shape = waiting.pop()
        if hasattr(shape, "shapes"):
            waiting += reversed(list(shape.shapes))
        else:
            yield shape
