"""What a reader gives: blocks, facts about the whole file, and the small helpers that several readers share.

Does not know: any format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError

Item = Block | dict[str, Any]
"""A block, or facts for the metadata; without any, it says that the work goes on."""
MOST_BYTES = 1 << 26
"""Of a file that must be in memory as a whole."""


def require_size(path: Path, most: int = MOST_BYTES) -> None:
    """Raise `UnreadFileError` if a file is larger."""
    if (size := path.stat().st_size) > most:
        raise UnreadFileError("too large", f"it has {size:,} bytes, and {most:,} are read at most: split it")


@dataclass
class Outline:
    """The headings above the place where a reader is."""

    path: list[tuple[int, str]] = field(default_factory=list)

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(title for _, title in self.path)

    def heading(self, level: int, title: str, page: str | None = None) -> Block:
        """Go below a heading; its block."""
        self.path = [each for each in self.path if each[0] < level] + [(level, title)]
        return Block(title, "heading", self.titles, page)


def one_line(text: str) -> str:
    """A text without line ends and repeated spaces."""
    return re.sub(r"\s+", " ", text).strip()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with pipes, as in Markdown; the first row is the head."""
    width = max(map(len, rows), default=0)
    lines = ["| " + " | ".join([*map(_cell, row), *[""] * (width - len(row))]) + " |" for row in rows]
    return "\n".join([*lines[:1], "|" + " --- |" * width, *lines[1:]] if len(lines) > 1 else lines)


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
