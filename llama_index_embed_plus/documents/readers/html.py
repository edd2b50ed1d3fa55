"""HTML -> blocks: headings, paragraphs, items of lists, tables, code; and the title.

What is not the text of the page is left out: scripts, styles, menus, and, where a page says what its main part is,
everything else. The words of links stay.

Guarantees: any bytes are read, however the tags are nested or left open; no recursion. Does not know: what CSS hides,
what scripts write.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

from llama_index_embed_plus.documents.files.encodings import encoding_of
from llama_index_embed_plus.documents.files.items import Item, Outline, one_line, require_size, table
from llama_index_embed_plus.documents.records import Block, Kind


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


DROPPED = _tags("script style noscript template svg iframe object canvas select button nav head")
PARAGRAPHS = _tags(
    "p div section article aside header footer main blockquote figure figcaption address dl dt dd ul ol li form "
    "fieldset details summary body html center hr h1 h2 h3 h4 h5 h6 table caption pre title"
)
LEAST_OF_ARTICLES = 0.5
"""Share of a page's text that its articles must have, or they are not its main part."""
_CELLS = ("td", "th")
_BREAK = "\x1e"
"""A line that ends where the author wanted it: those of the file mean nothing."""
_VOID = _tags("area base br col embed hr img input link meta source track wbr")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)


def read_html(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of an HTML file."""
    require_size(path)
    content = path.read_bytes()
    text, name = decoded(content, encoding)
    if name:
        yield {"encoding": name}
    yield from html_items(text)


def decoded(content: bytes, given: str | None = None) -> tuple[str, str | None]:
    """The text of a page, and its encoding where that is worth saying; what the page says of itself counts.

    Raises:
        UnreadFileError: it is binary, or no encoding fits.
    """
    declared = _CHARSET.search(content[:4096])
    if given is None and declared and not content.startswith((codecs.BOM_UTF8, b"\xff\xfe", b"\xfe\xff")):
        try:
            name = codecs.lookup(declared[1].decode("ascii")).name
            # what browsers do: pages that say Latin-1 are written in its extension
            name = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}.get(name, name)
            return content.decode(name), None if name == "utf-8" else name
        except (LookupError, UnicodeError):
            pass
    found = encoding_of(BytesIO(content), given)
    return content.decode(found.name, "replace" if found.replaces else "strict"), found.note


def html_items(text: str, outline: Outline | None = None, page: str | None = None) -> Iterator[Item]:
    """The items of a page; `outline` goes on from an earlier one, as the chapters of a book do."""
    reader = _read(text, outline, page, only_main=bool(re.search(r"<(main|article)\b", text, re.IGNORECASE)))
    if re.search(r"<article\b", text, re.IGNORECASE) and not re.search(r"<main\b", text, re.IGNORECASE):
        # articles may be the cards beside the text, or a beginning with all else below it
        whole = _read(text, outline, page, only_main=False)
        if _length(reader) < LEAST_OF_ARTICLES * _length(whole):
            reader = whole
    if not any(block.kind != "heading" for block in reader.blocks):
        # a page whose menu is never closed, or whose main part is empty
        reader = _read(text, outline, page, only_main=False, dropped=frozenset({"script", "style", "head"}))
    title = one_line(reader.title)
    if title:
        yield {"title": title}
    if title and outline is None and not any(block.kind == "heading" for block in reader.blocks):
        yield Block(title, "heading", (title,), page)
        yield from (Block(block.text, block.kind, (title,), page) for block in reader.blocks)
    else:
        yield from reader.blocks


def _length(page: _Page) -> int:
    return sum(len(block.text) for block in page.blocks)


def _read(
    text: str,
    outline: Outline | None,
    page: str | None,
    *,
    only_main: bool,
    dropped: frozenset[str] = DROPPED,
) -> _Page:
    reader = _Page(only_main, dropped, page)
    if outline is not None:
        reader.outline = Outline(list(outline.path))
    reader.feed(text)
    reader.close()
    reader.end_all()
    if outline is not None:
        outline.path = reader.outline.path
    return reader


@dataclass
class _Table:
    rows: list[list[str]] = field(default_factory=list)
    cell: list[str] | None = None


class _Page(HTMLParser):
    """Collects blocks while a page is read."""

    def __init__(self, only_main: bool, dropped: frozenset[str], page: str | None) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.title = ""
        self.outline = Outline()
        self._dropped, self._page, self._only_main = dropped, page, only_main
        self._words: list[str] = []
        self._kind: Kind = "text"
        self._level = 0
        self._dropping: list[str] = []
        self._main = 0
        self._tables: list[_Table] = []
        self._pre = 0
        self._lists: list[int | None] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropping:
            if tag == self._dropping[-1]:
                self._dropping.append(tag)
            elif tag == "title":
                self._in_title = True
            elif self._dropping[0] == "head" and tag == "body":
                self._dropping.clear()
            return
        attributes = dict(attrs)
        if tag in self._dropped or _is_hidden(tag, attributes):
            if tag not in _VOID:
                self._dropping.append(tag)
            return
        if tag in ("main", "article"):
            self.end()
            self._main += 1
        if tag == "title":
            self._in_title = True
        elif tag == "br":
            (self._words_of_cell() if self._tables else self._words).append(_BREAK)
        elif tag == "table":
            self.end()
            self._tables.append(_Table())
        elif tag == "tr" and self._tables:
            self._end_cell()
            self._tables[-1].rows.append([])
        elif tag in _CELLS and self._tables:
            self._end_cell()
            self._tables[-1].cell = []
        elif self._tables:
            self._words_of_cell().append(" " if tag in PARAGRAPHS else "")
        elif tag in PARAGRAPHS:
            self.end()
            self._begin(tag, attributes)

    def _begin(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag in ("ul", "ol"):
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._kind = "item"
            number = self._lists[-1] if self._lists else None
            self._words.append(f"{number}. " if number else "- ")
            if number:
                self._lists[-1] = number + 1
        elif tag == "pre":
            self._pre += 1
            self._kind = "code"
        elif len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            self._kind, self._level = "heading", int(tag[1])

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if self._dropping:
            if tag == self._dropping[-1]:
                self._dropping.pop()
            return
        if tag == "table" and self._tables:
            self._end_table()
        elif tag in (*_CELLS, "tr") and self._tables:
            self._end_cell()
        elif tag in PARAGRAPHS and not self._tables:
            self.end()
            if tag == "pre":
                self._pre = max(0, self._pre - 1)
            elif tag in ("ul", "ol") and self._lists:
                self._lists.pop()
        if tag in ("main", "article"):
            self.end()
            self._main = max(0, self._main - 1)

    def handle_data(self, data: str) -> None:
        if self._in_title and not self.title.strip():
            self.title += data
        elif not self._dropping and not self._in_title:
            (self._words_of_cell() if self._tables else self._words).append(data.replace(_BREAK, " "))

    def end_all(self) -> None:
        """The page ends here, with everything that it left open."""
        while self._tables:
            self._end_table()
        self.end()

    def end(self) -> None:
        """A block ends here."""
        text = "".join(self._words)
        self._words = []
        kind, self._kind = self._kind, "code" if self._pre else "text"
        if kind == "code":
            text = text.replace(_BREAK, "\n").strip("\n").rstrip()
        else:
            text = "\n".join(filter(None, map(one_line, text.split(_BREAK))))
        if not text or text in ("-", "*") or (self._only_main and not self._main):
            return
        if kind == "heading":
            # the signs that generators of pages make links of
            if title := one_line(text).strip("¶§# "):
                self.blocks.append(self.outline.heading(self._level, title, self._page))
        else:
            self.blocks.append(Block(text, kind, self.outline.titles, self._page))

    def _words_of_cell(self) -> list[str]:
        if self._tables[-1].cell is None:
            # words between the rows, which browsers put in front of the table
            return self._words
        return self._tables[-1].cell

    def _end_cell(self) -> None:
        current = self._tables[-1]
        if current.cell is not None:
            if not current.rows:
                current.rows.append([])
            current.rows[-1].append(one_line("".join(current.cell).replace(_BREAK, " ")))
            current.cell = None

    def _end_table(self) -> None:
        self._end_cell()
        rows = [row for row in self._tables.pop().rows if any(row)]
        if self._tables:
            # a table in a cell: pages that are laid out in tables
            self._words_of_cell().append("\n".join("; ".join(filter(None, row)) for row in rows))
            return
        self.end()
        if self._only_main and not self._main:
            return
        if max(map(len, rows), default=0) > 1:
            self.blocks.append(Block(table(rows), "table", self.outline.titles, self._page))
        else:
            self.blocks += [Block(row[0], "text", self.outline.titles, self._page) for row in rows]


def _is_hidden(tag: str, attributes: dict[str, str | None]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in ("navigation", "search", "banner")
    )
