"""The plain values of reading and cutting: documents, their blocks, the pieces they are cut into, and what was skipped.

Guarantees: frozen. A document's blocks may be a stream that is read once, so that a file of any size needs constant
memory. Does not know: file formats, tokens, collections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qdrant_tools.errors import UsageError

Kind = Literal["text", "heading", "item", "table", "code"]
Context = Literal["none", "headings"]
Reason = Literal[
    "no reader",
    "needs an extra",
    "empty",
    "no text",
    "encrypted",
    "damaged",
    "encoding",
    "too large",
    "too slow",
    "changed",
    "unreadable",
    "link",
    "name",
    "no field",
    "bad row",
    "empty row",
]


@dataclass(frozen=True)
class Block:
    """A stretch of a document that stands for itself: a paragraph, a heading, a list item, a table, a block of code."""

    text: str
    """Without blank lines around it. A heading is its text alone; a table has a row per line; code keeps its lines."""
    kind: Kind = "text"
    headings: tuple[str, ...] = ()
    """The headings above it, outermost first. A heading itself is the last of its own."""
    page: str | None = None
    """The label of the page, slide or sheet it begins on."""


@dataclass(frozen=True)
class Document:
    """A file, a row, or what a program gave, before it is cut into passages."""

    id: str
    """`source/path` of a file; a row's or a program's own id."""
    blocks: Iterable[Block]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What holds for all of it: `source`, `file_path`, `file_type`, ...; or a row's other fields."""
    keeps_id: bool = False
    """True: if it fits into one passage, that passage has the document's own id (rows, and what programs give)."""
    file: str = ""
    """The file that holds it, as a path below the source, whatever the metadata of a row says; "" if none does."""
    text: str | None = None
    """All of it as it was given, where that is known: what is embedded if it fits into one passage."""


@dataclass(frozen=True)
class Piece:
    """What one passage says, and where it stands in its document."""

    text: str
    """What is embedded, the context in front of it included."""
    tokens: int
    """Of `text`, without the prompt and what the model puts around every text."""
    headings: tuple[str, ...] = ()
    page: str | None = None
    truncated: int = 0
    """How many of its tokens the encoder will not read."""


@dataclass(frozen=True)
class SkippedFile:
    """A file or row that was not read, and why."""

    path: str
    """As it was reached from the source; for a row with its line."""
    reason: Reason
    detail: str = ""
    """One line with the way out."""


@dataclass(frozen=True)
class ReadSettings:
    """Which files of a source are read, and how."""

    name: str | None = None
    """The name of the source, which its ids begin with; None: the name of the folder (of a file: of its folder)."""
    include: tuple[str, ...] = ()
    """Patterns as in .gitignore (`*.md`, `docs/**`), of paths below the source; none: everything."""
    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    encoding: str | None = None
    """Of text files; None: found out for each file."""
    id_field: str | None = None
    """Of rows (JSONL, CSV, Parquet); None: `id` or `_id`."""
    text_field: str | None = None
    """Of rows; None: `text` (with a `title`)."""
    readers: Mapping[str, Any] = field(default_factory=dict)
    """Ending (`.log`) -> what reads such files: a reader of LlamaIndex, or a callable that takes the path and gives a
    text, texts, blocks or LlamaIndex's documents. They run in this process, without bounds."""
    patience: float = 60.0
    """Seconds that a file may take until its next page or part is read."""


@dataclass(frozen=True)
class CutSettings:
    """How documents become passages. Lengths are tokens of the encoder, its prompt and special tokens not counted."""

    max_tokens: int | None = None
    """None: all that the encoder reads."""
    min_tokens: int | None = None
    """A shorter piece is joined with a neighbour, unless it is the whole document. None: a quarter of `max_tokens`."""
    overlap: int = 0
    """At most so many tokens of whole sentences stand at the end of a passage and at the start of the next."""
    context: Context = "none"
    """`headings`: the path of headings stands in front of the text, and is embedded with it."""
    whole: bool = False
    """Nothing is cut: one passage per document, of which the encoder reads the beginning."""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "min_tokens"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(f"{name} is {value!r}, expected a whole number of at least 1")
        if not isinstance(self.overlap, int) or isinstance(self.overlap, bool) or self.overlap < 0:
            raise UsageError(f"overlap is {self.overlap!r}, expected a whole number of at least 0")
        if self.context not in get_args(Context):
            raise UsageError(f"context is {self.context!r}, expected one of {', '.join(get_args(Context))}")
        if self.whole and (self.max_tokens or self.min_tokens or self.overlap or self.context != "none"):
            raise UsageError("whole says that nothing is cut, and another setting how: leave one of them out")
