"""Text, Markdown, reStructuredText and source code -> blocks, as a stream.

Code is parted where a stretch begins at the margin after a blank line; its lines stay as they are, and its heading is
the first class, function or type that it defines.

Guarantees: constant memory, whatever the size of the file and of its lines. Does not know: files that are no text, any
programming language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from llama_index_embed_plus.documents.blocks import markdown_blocks, rst_blocks, text_blocks
from llama_index_embed_plus.documents.files.encodings import Encoding, encoding_of, lines_of
from llama_index_embed_plus.documents.records import Block

MOST_CHARACTERS = 8000
"""Of a block of code."""
_DEFINITION = re.compile(
    r"((?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\([a-z]+\))?|unsafe|sealed"
    r"|data|case|open|override|inline|extern|partial)[ \t]+)*(?:def|class|function|func|fn|fun|impl|interface|struct"
    r"|enum|trait|module|namespace|record|object|protocol|sub|proc|package|type)[ \t]+[^\n]{1,200})"
)


def plain_blocks(reader: str, stream: BinaryIO, given: str | None = None) -> tuple[Encoding, Iterator[Block]]:
    """The encoding of a file and its blocks, which are read when they are asked for.

    Raises:
        UnreadFileError: it is binary, or in no known encoding.
    """
    encoding = encoding_of(stream, given)
    return encoding, PLAIN[reader](lines_of(stream, encoding))


def code_blocks(lines: Iterable[str]) -> Iterator[Block]:
    """The blocks of code."""
    part: list[str] = []
    size = 0
    for line in lines:
        after_blank = bool(part) and not part[-1].strip()
        # a closing brace belongs to what it closes
        begins = after_blank and line[:1] not in ("", " ", "\t", "}", ")", "]")
        if begins or size + len(line) > MOST_CHARACTERS:
            yield from _block(part)
            part, size = [], 0
        if part or line.strip():
            part.append(line.rstrip())
            size += len(line) + 1
    yield from _block(part)


def _block(lines: list[str]) -> Iterator[Block]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        defined = next((found[1] for line in lines if (found := _DEFINITION.match(line))), None)
        yield Block(text, "code", (defined.rstrip(" \t{:="),) if defined else ())


PLAIN: dict[str, Callable[[Iterable[str]], Iterator[Block]]] = {
    "text": text_blocks,
    "markdown": markdown_blocks,
    "rst": rst_blocks,
    "code": code_blocks,
}
