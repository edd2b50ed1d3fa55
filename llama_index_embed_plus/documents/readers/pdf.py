"""PDF -> blocks: paragraphs, with the label of their page and the titles of the outline above them.

Words that were parted at a line's end are joined; lines that stand at the top or the bottom of most pages are left out.

Guarantees: page after page; a page that cannot be read is counted, and the others are read. Does not know: pictures, so
a scanned page has no text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.files.items import Item, Outline, one_line
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import first_line

_MANY_PAGES = 4
"""From here on, a line that most pages have is no text of theirs."""
_EDGE = 2
"""Lines at the top and at the bottom that may be one."""
_LEADERS = re.compile(r"(?:\s?[.·…]){4,}\s?")
"""The dots between a title and its page in a table of contents."""
_LONGEST = 100
"""Characters of one."""


def read_pdf(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a PDF.

    Raises:
        UnreadFileError: it is protected by a password, has no text, or is damaged.
    """
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, LimitReachedError, PdfReadError, PdfStreamError

    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadFileError("encrypted", "it is protected by a password: save it without one")
        yield from _items(reader)
    except DependencyError as error:
        raise UnreadFileError(
            "needs an extra", "encrypted PDFs need pip install 'llama-index-embed-plus[files]'"
        ) from error
    except LimitReachedError as error:
        raise UnreadFileError("too large", f"it unpacks to more than is read: {first_line(error)}") from error
    except (PdfReadError, PdfStreamError) as error:
        raise UnreadFileError("damaged", f"it is cut off or damaged: {first_line(error)}") from error


def _items(reader: Any) -> Iterator[Item]:
    labels = _labels(reader)
    pages: list[list[str]] = []
    unread = 0
    for page in reader.pages:
        try:
            pages.append(_lines(page.extract_text() or ""))
        except (UnreadFileError, MemoryError):
            raise
        except Exception:  # a damaged page makes the library raise anything
            unread += 1
            pages.append([])
        yield {}
    if not any(pages):
        if unread:
            raise UnreadFileError("damaged", "none of its pages can be read")
        raise UnreadFileError("no text", "its pages are pictures: it needs OCR")
    yield _facts(reader, pages, unread)
    titles = _titles(reader)
    running = _running(pages, labels)
    outline = Outline()
    for number, lines in enumerate(pages):
        here = titles.get(number, [])
        own = _without_running(
            lines, running, _numbers(number, labels, len(pages)), {_letters(title) for _, title in here}
        )
        yield from _page_blocks(own, here, outline, _label(number, labels))


def _facts(reader: Any, pages: Sequence[Sequence[str]], unread: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"pages": len(pages)}
    if empty := sum(not lines for lines in pages) - unread:
        facts["pages_without_text"] = empty
    if unread:
        facts["damaged_pages"] = unread
    try:
        title = one_line(str(reader.metadata.title or "")) if reader.metadata else ""
    except Exception:  # as above
        title = ""
    return {**facts, "title": title} if title else facts


def _labels(reader: Any) -> list[str]:
    try:
        return [str(label) for label in reader.page_labels]
    except Exception:  # as above
        return []


def _titles(reader: Any) -> dict[int, list[tuple[int, str]]]:
    """Number of a page -> the titles of the outline that begin on it, each with its level."""
    titles: dict[int, list[tuple[int, str]]] = {}
    try:
        waiting = [(1, entry) for entry in reversed(reader.outline)]
        while waiting:
            level, entry = waiting.pop()
            if isinstance(entry, list):
                waiting += [(level + 1, each) for each in reversed(entry)]
            elif (number := reader.get_destination_page_number(entry)) is not None and entry.title:
                titles.setdefault(number, []).append((level, one_line(str(entry.title))))
    except Exception:  # as above; a PDF without an outline is a PDF
        return titles
    return titles


def _lines(text: str) -> list[str]:
    lines = [_LEADERS.sub(" … ", line).strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def _running(pages: Sequence[Sequence[str]], labels: Sequence[str]) -> set[str]:
    """The lines that stand at the top or at the bottom of more than half of the pages, whatever their number."""
    written = [(page, _numbers(number, labels, len(pages))) for number, page in enumerate(pages) if page]
    if len(written) < _MANY_PAGES:
        return set()
    counts = Counter(
        shape
        for page, numbers in written
        for shape in {_shape(line, numbers) for line in (*page[:_EDGE], *page[-_EDGE:])}
    )
    return {shape for shape, count in counts.items() if count * 2 > len(written)}


def _numbers(number: int, labels: Sequence[str], pages: int) -> set[str]:
    """What may stand on a page as its number, or that of all pages."""
    return {str(number + 1), _label(number, labels).lower(), str(pages)}


def _label(number: int, labels: Sequence[str]) -> str:
    return labels[number] if number < len(labels) else str(number + 1)


def _shape(line: str, numbers: set[str]) -> str:
    """A line with a sign in place of the page's number, and of a number that stands alone."""
    if len(line) > _LONGEST:
        return line
    words = line.lower().split()
    alone = len(words) == 1 and re.fullmatch(r"\W*(\d+|[ivxlc]+)\W*", words[0])
    return "#" if alone else " ".join("#" if word.strip(".,|-–·[]()") in numbers else word for word in words)


def _without_running(lines: list[str], running: set[str], numbers: set[str], titles: set[str]) -> list[str]:
    kept = list(lines)
    for end in (0, -1):
        for _ in range(_EDGE):
            # a title of the outline is a heading, even on a page of nothing else
            if kept and _shape(kept[end], numbers) in running and _letters(kept[end]) not in titles:
                kept.pop(end)
    return kept or [line for line in lines if _shape(line, numbers) != "#"]


def _page_blocks(
    lines: Sequence[str], titles: Sequence[tuple[int, str]], outline: Outline, page: str
) -> Iterator[Block]:
    expected: Mapping[str, tuple[int, str]] = {_letters(title): (level, title) for level, title in titles}
    # titles that stand on no line of their own begin with their page
    own_lines = {_letters(line) for line in lines}
    for level, title in titles:
        if _letters(title) not in own_lines:
            outline.heading(level, title, page)
    paragraph: list[str] = []
    width = max(map(len, lines), default=0)
    for line in lines:
        if found := expected.get(_letters(line)):
            yield from _paragraph(paragraph, outline, page)
            paragraph = []
            yield outline.heading(*found, page)
            continue
        if line:
            paragraph.append(line)
        if not line or (len(line) < 0.75 * width and line.endswith((".", "!", "?", "。", "！", "？", ":", "”", '."'))):
            yield from _paragraph(paragraph, outline, page)
            paragraph = []
    yield from _paragraph(paragraph, outline, page)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _paragraph(lines: Sequence[str], outline: Outline, page: str) -> Iterator[Block]:
    if text := joined(lines):
        yield Block(text, "text", outline.titles, page)


def joined(lines: Sequence[str]) -> str:
    """Lines of one paragraph as one, with the words that were parted at their ends put together."""
    text = ""
    for line in lines:
        if not text:
            text = line
        elif text.endswith("\xad") or (re.search(r"[^\W\d_]-$", text) and line[:1].islower()):
            text = text[:-1] + line
        elif _is_ideographic(text[-1]) and _is_ideographic(line[:1]):
            text += line
        else:
            text += f" {line}"
    return text


def _is_ideographic(character: str) -> bool:
    return "\u3000" <= character < "\ua000" or "\uff00" <= character < "\ufff0"
