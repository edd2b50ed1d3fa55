"""Text, Markdown or reStructuredText -> blocks: paragraphs, headings, list items, tables, code.

Guarantees: a stream of lines gives a stream of blocks, in constant memory: a paragraph, a table or a block of code that
does not end is given in parts. No letter is lost but those of the markup: marks of headings, fences, quotations and
rules, comments, front matter, tags that stand alone, and data in addresses. Does not know: files, tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from textwrap import dedent

from llama_index_embed_plus.documents.cutting.sentences import parts_of, spread
from llama_index_embed_plus.documents.records import Block, Kind

__all__ = ["bounded", "markdown_blocks", "rst_blocks", "text_blocks"]

_MOST_LINE = 1 << 14
_MOST_BLOCK = 1 << 14
"""Characters after which a block is given in parts, at a line that its letters choose."""
_MOST_HIDDEN = 1 << 16
"""Characters of a comment or front matter whose end is waited for."""

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_CLOSING = re.compile(r"(?:^|(?<=[ \t]))#+$")
_UNDERLINE = re.compile(r" {0,3}(?:(=+)|(-{2,}))[ \t]*$")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})([^`]*)$")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:[ \t]+|$)")
_TABLE_BORDER = re.compile(r"\s*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_QUOTED = re.compile(r"^ {0,3}(?:> ?)+")
_HTML = (
    "h[1-6]|abbr|a|br|b|center|code|dd|details|div|dl|dt|em|figcaption|figure|font|hr|iframe|img|i|kbd|li|nav|ol|picture|"
    "pre|p|section|small|source|span|strong|sub|summary|sup|table|tbody|td|tfoot|thead|th|tr|ul|u|video"
)
_TAG = re.compile(rf"</?(?:{_HTML})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAGS = re.compile(rf"\s*(?:</?(?:{_HTML})(?:\s[^<>]*)?/?>\s*)+$", re.IGNORECASE)
_HTML_HEADING = re.compile(r"\s*<h([1-6])\b[^<>]*>(.+)</h\1>\s*$", re.IGNORECASE)
_ATTRIBUTES = re.compile(r"\s*\{[#.][^{}]*\}$")
_DATA = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]+")
_COMMENT = re.compile(r"<!--.*?-->")
_TITLE = re.compile(r"title\s*[:=]\s*(.+)", re.IGNORECASE)


def bounded(lines: Iterable[str]) -> Iterator[str]:
    """Lines without their ends; a very long one in parts."""
    for line in lines:
        line = line.rstrip("\r\n")
        if len(line) <= _MOST_LINE:
            yield line
        else:
            yield from (part for part, _ in parts_of(line, _MOST_LINE))


@dataclass
class _Draft:
    """A block that is being read."""

    page: str | None = None
    kind: Kind = "text"
    lines: list[str] = field(default_factory=list)
    path: list[tuple[int, str]] = field(default_factory=list)
    in_list: bool = False
    """The block before belongs to a list: an indented paragraph is its continuation, and no code."""
    _size: int = 0

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(title for _, title in self.path)

    def add(self, line: str) -> Iterator[Block]:
        """Go on by a line; yields the block if it has become long."""
        self.lines.append(line.rstrip())
        self._size += len(line) + 1
        if self._size > _MOST_BLOCK and (spread(line) < 1 / 32 or self._size > 4 * _MOST_BLOCK):
            kind = self.kind
            yield from self.end()
            self.kind = kind

    def end(self) -> Iterator[Block]:
        """Yield the block, if it says anything."""
        text = "\n".join(self.lines)
        if text.strip():
            self.in_list = self.kind == "item" or (self.in_list and self.lines[0].startswith("  "))
            text = dedent(text).strip("\n") if self.kind == "code" else text.strip()
            yield Block(text, self.kind, self.headings, self.page)
        self.lines, self.kind, self._size = [], "text", 0

    def begin(self, kind: Kind, line: str) -> Iterator[Block]:
        """End the block before and begin one of a kind."""
        yield from self.end()
        self.kind = kind
        yield from self.add(line)

    def heading(self, level: int, title: str) -> Iterator[Block]:
        yield from self.end()
        title = " ".join(_TAG.sub("", _ATTRIBUTES.sub("", title)).split())
        if title:
            self.path[:] = [*((above, text) for above, text in self.path if above < level), (level, title)]
            yield Block(title, "heading", self.headings, self.page)


def text_blocks(lines: Iterable[str], *, page: str | None = None) -> Iterator[Block]:
    """The paragraphs of plain text: what lies between blank lines."""
    draft = _Draft(page)
    for line in bounded(lines):
        yield from draft.add(line) if line.strip() else draft.end()
    yield from draft.end()


def markdown_blocks(lines: Iterable[str], *, page: str | None = None) -> Iterator[Block]:
    """The blocks of Markdown, each with the headings above it.

    Front matter is left out; its `title` is the first heading if the text does not begin with one.
    """
    title, rest = _front_matter(bounded(lines))
    draft = _Draft(page)
    blocks = _markdown(_without_comments(rest), draft)
    first = next(blocks, None)
    if title and first is not None and first.kind != "heading":
        draft.path[:] = [(0, title), *draft.path]
        yield Block(title, "heading", (title,), page)
        first = Block(first.text, first.kind, (title, *first.headings), page)
    if first is not None:
        yield first
    yield from blocks


def _front_matter(lines: Iterator[str]) -> tuple[str | None, Iterator[str]]:
    """The title that the front matter gives, and the lines behind it."""
    first = next(lines, "")
    if (mark := first.lstrip("\ufeff").rstrip()) not in ("---", "+++"):
        return None, chain([first], lines)
    kept, size, title = [first], 0, None
    for line in lines:
        kept.append(line)
        size += len(line)
        if line.rstrip() == mark or (mark == "---" and line.rstrip() == "..."):
            return title, lines
        if found := _TITLE.match(line):
            title = found[1].strip().strip("\"'").strip() or None
        if size > _MOST_HIDDEN or not line.strip():
            break
    return None, chain(kept, lines)


def _without_comments(lines: Iterator[str]) -> Iterator[str]:
    """Lines without HTML comments outside of fences, and without data in addresses."""
    fence = ""
    for line in lines:
        if found := _FENCE.match(line):
            fence = "" if fence and found[1].startswith(fence) else fence or found[1]
        if fence or ("<!--" not in line and "base64," not in line):
            yield line
            continue
        line = _DATA.sub("", _COMMENT.sub("", line) if "-->" in line else line)
        start = line.find("<!--")
        if start < 0:
            yield line
            continue
        hidden, size = [line], len(line)
        for more in lines:
            hidden.append(more)
            size += len(more)
            if (end := more.find("-->")) >= 0:
                yield line[:start] + more[end + 3 :]
                break
            if size > _MOST_HIDDEN:
                yield from hidden
                break
        else:
            yield from hidden


def _markdown(lines: Iterable[str], draft: _Draft) -> Iterator[Block]:
    fence = ""
    blank = True
    for line in lines:
        if fence:
            closing = _FENCE.match(line)
            if closing and closing[1].startswith(fence) and not closing[2].strip():
                fence = ""
                yield from draft.end()
            else:
                yield from draft.add(line)
            continue
        if not line.strip():
            if draft.kind == "code":
                yield from draft.add("")
            else:
                yield from draft.end()
            blank = True
            continue
        if draft.kind == "code":
            if _indented(line):
                yield from draft.add(line)
                continue
            yield from draft.end()
        if (opening := _FENCE.match(line)) is not None:
            fence = opening[1]
            yield from draft.end()
            draft.kind = "code"
        else:
            yield from _line(line, draft, blank=blank)
        blank = False
    yield from draft.end()


def _line(line: str, draft: _Draft, *, blank: bool) -> Iterator[Block]:
    """Go on by a line of Markdown outside of code."""
    if found := _HEADING.match(line):
        yield from draft.heading(len(found[1]), _CLOSING.sub("", (found[2] or "").rstrip()))
    elif found := _HTML_HEADING.match(line):
        yield from draft.heading(int(found[1]), found[2])
    elif draft.kind == "text" and 0 < len(draft.lines) <= 3 and (found := _UNDERLINE.match(line)):
        title = " ".join(draft.lines)
        draft.lines = []
        yield from draft.heading(1 if found[1] else 2, title)
    elif draft.kind == "text" and draft.lines and "|" in line and _TABLE_BORDER.match(line) and "|" in draft.lines[-1]:
        header = draft.lines.pop()
        yield from draft.begin("table", header)
        yield from draft.add(line)
    elif _RULE.match(line) or _TAGS.match(line):
        yield from draft.end()
    elif _ITEM.match(line):
        yield from draft.begin("item", line)
    elif draft.kind == "table" and "|" not in line:
        yield from draft.begin("text", line)
    elif blank and not draft.lines and _indented(line) and not draft.in_list:
        yield from draft.begin("code", line)
    else:
        yield from draft.add(_QUOTED.sub("", line, count=1))


def _indented(line: str) -> bool:
    return line.startswith(("    ", "\t"))


_RST_UNDERLINE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_RST_TABLE = re.compile(r"\s*(?:\+[-=+]{3,}|={2,}[ \t]+=[= \t]*$)")
_RST_DIRECTIVE = re.compile(
    r"\s*\.\. +(code|code-block|sourcecode|parsed-literal|literalinclude|prompt)::", re.IGNORECASE
)
_RST_ITEM = re.compile(r"\s*(?:[-*+\u2022]|#\.|\d{1,9}[.)]|\(\d{1,9}\))(?:[ \t]+|$)")


def rst_blocks(lines: Iterable[str], *, page: str | None = None) -> Iterator[Block]:
    """The blocks of reStructuredText, each with the headings above it.

    A heading is a line with a rule below it that is at least as long, and perhaps one above; the order in which kinds
    of rules come first is that of their levels.
    """
    draft, levels = _Draft(page), list[str]()
    literal = over = ""
    for line in bounded(lines):
        bare = line.rstrip()
        if literal == "open" and bare and not line[0].isspace():
            yield from draft.end()
            literal = ""
        if not bare:
            if literal == "open":
                yield from draft.add("")
            else:
                yield from draft.end()
                literal = literal and "soon"
            continue
        if literal == "soon":
            literal = "open" if line[0].isspace() else ""
            draft.kind = "code" if literal else "text"
        if literal == "open":
            yield from draft.add(line)
            continue
        rule = _RST_UNDERLINE.match(bare)
        if rule and not draft.lines:
            over = bare
        elif rule and len(draft.lines) == 1 and draft.kind == "text" and len(bare) >= len(draft.lines[0].strip()) > 0:
            title, style = draft.lines.pop(), rule[1] * (2 if over else 1)
            over = ""
            if style not in levels:
                levels.append(style)
            yield from draft.heading(levels.index(style) + 1, title)
        elif draft.kind == "text" and not draft.lines and _RST_TABLE.match(bare):
            yield from draft.begin("table", line)
        else:
            over = over if not draft.lines else ""
            if draft.kind != "table" and _RST_ITEM.match(line):
                yield from draft.begin("item", line)
            elif _RST_DIRECTIVE.match(line):
                yield from draft.end()
                literal = "soon"
            else:
                yield from draft.add(line)
        if bare.endswith("::") and not bare.lstrip().startswith(".. "):
            literal = "soon"
    yield from draft.end()
