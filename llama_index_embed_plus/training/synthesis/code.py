"""Source code in any of the usual languages -> what is written about its definitions.

Guarantees: time grows with the length of the code: it is looked at line by line. Does not know: passages, queries.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

_QUOTES = regex.compile(r"\s*[rRuU]?(\"\"\"|''')")
_COMMENT = regex.compile(r"\s*(?:///?!?|#!?|--|\*(?!/))(?:\s|$)")
_DECORATOR = regex.compile(r"\s*(?:@\w|#\[|\[\w)")
_DEFINITION = regex.compile(
    r"\s*(?:(?:export|default|public|private|protected|internal|static|final|async|abstract|inline|pub(?:\(\w+\))?|unsafe"
    r"|const|override|virtual|open|data|sealed)\s+){0,4}"
    r"(?:(?:def|class|function|func|fn|fun|struct|interface|enum|trait|impl|type|module|package|CREATE|create)\b"
    r"|[A-Za-z_][\w<>\[\],*&:.]{0,80}\s+[*&]?\w{1,80}\s*\()"
)
_LONGEST = 60
"""Lines of a docstring or comment that are read."""


def described(code: str, *, is_code: bool = True) -> Iterator[str]:
    """The docstrings and the comments above definitions, without their marks. Comments only where it is sure to be
    code: a `#` elsewhere begins a heading."""
    lines = code.splitlines()
    yield from _docstrings(lines)
    if is_code:
        yield from _comments(lines)


def _docstrings(lines: list[str]) -> Iterator[str]:
    """Python's: behind a line that ends in a colon, or at the beginning of a file."""
    before = ":"
    for number, line in enumerate(lines):
        opened = _QUOTES.match(line)
        if opened is not None and before.endswith(":"):
            text = [line[opened.end() :], *lines[number + 1 : number + _LONGEST]]
            doc = "\n".join(text).partition(opened[1])[0]
            yield "\n".join(part.strip() for part in doc.splitlines()).strip()
        if line.strip() and not line.lstrip().startswith("#"):
            before = line.rstrip()


def _comments(lines: list[str]) -> Iterator[str]:
    """Runs of comments that a definition follows, decorators between them or not."""
    comment: list[str] = []
    inside = False
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("/*"):
            comment, inside = [], "*/" not in stripped
            stripped = stripped.lstrip("/*!").partition("*/")[0]
            comment.append(stripped.strip())
        elif inside:
            inside = "*/" not in stripped
            comment.append(stripped.partition("*/")[0].lstrip("*").strip())
        elif _COMMENT.match(line):
            comment.append(_COMMENT.sub("", line, 1).strip())
        elif comment and _DEFINITION.match(line):
            # a small letter goes on with something else
            if not comment[0][:1].islower():
                yield "\n".join(comment[:_LONGEST]).strip()
            comment = []
        elif not _DECORATOR.match(line):
            comment = []
