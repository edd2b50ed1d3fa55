"""Documents -> passages with ids that follow from their content.

A passage's id is `document#hash`: the hash is that of its text, so that an edit elsewhere in the document changes
neither. A second passage of the same text in one document is `document#hash-2`. Where a passage stands is metadata:
`document`, `part` (from 0), and where they are known `page_label` and `header_path` (as LlamaIndex names them).

Guarantees: equal documents give equal passages; constant memory but for the hashes of the document that is being cut.
Does not know: files, collections.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from llama_index_embed_plus.documents.blocks import markdown_blocks, text_blocks
from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.stretches import PATH_SEPARATOR
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.records import CutSettings, Document, Piece
from qdrant_tools.records import Encoder, Passage

__all__ = ["CutReport", "passage_cutter", "passages_of"]

LONGEST_TOKENS = 100
"""Characters of a token, more than the words of any text have."""
_EXACT_UP_TO = 10_000


@dataclass
class CutReport:
    """What was cut so far: how much, and how much of it no encoder reads. Its size does not grow with what was cut."""

    documents: int = 0
    passages: int = 0
    truncated: int = 0
    """Passages longer than the encoder reads."""
    total: int = 0
    """Tokens of all passages."""
    lost: int = 0
    """Tokens that are not read."""
    longest: int = 0
    """Tokens of the longest passage."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Tokens of a passage -> how many have so many; above 10,000 rounded to a hundredth."""

    def add(self, piece: Piece) -> None:
        """Count a passage."""
        self.passages += 1
        self.truncated += piece.truncated > 0
        self.total += piece.tokens
        self.lost += piece.truncated
        self.longest = max(self.longest, piece.tokens)
        self.lengths[_rounded(piece.tokens)] += 1

    def quantile(self, share: float) -> int:
        """The tokens that this share of the passages does not exceed: 0.5 is the median. 0 without passages."""
        rest = share * self.passages
        for tokens, passages in sorted(self.lengths.items()):
            rest -= passages
            if rest <= 0:
                return tokens
        return self.longest

    @property
    def lost_share(self) -> float:
        """The share of all tokens that is not read."""
        return self.lost / self.total if self.total else 0.0


def passages_of(documents: Iterable[Document], cutter: Cutter, report: CutReport | None = None) -> Iterator[Passage]:
    """Cut documents into passages, counting into `report`."""
    report = CutReport() if report is None else report
    for document in documents:
        report.documents += 1
        for passage, piece in _cut(document, cutter):
            report.add(piece)
            yield passage


def passage_cutter(encoder: Encoder, settings: CutSettings | None = None) -> Callable[[Passage], Iterator[Passage]]:
    """What cuts a passage into itself, if the encoder reads all of it, or into parts; for `Collection.index(cutter=)`.

    Parts are named `id#hash` after their text, and say their `document` and `part` in their metadata.

    Raises:
        UsageError: an encoder of another kind than those of `open_encoder`.
    """
    cutter = Cutter(token_counter(encoder), settings or CutSettings())

    def cut(passage: Passage) -> Iterator[Passage]:
        yield from passages_of([replace(document_of_text(passage), keeps_id=True)], cutter)

    return cut


def document_of_text(passage: Passage) -> Document:
    """A text that a program gave, as a document: of Markdown, where its metadata names such a file."""
    blocks = markdown_blocks if _is_markdown(passage) else text_blocks
    return Document(passage.id, blocks(passage.text.splitlines()), passage.metadata, text=passage.text)


def _is_markdown(passage: Passage) -> bool:
    names = (passage.metadata.get(name) for name in ("file_name", "file_path", "source"))
    return any(isinstance(name, str) and name.lower().endswith((".md", ".markdown")) for name in names)


def _cut(document: Document, cutter: Cutter) -> Iterator[tuple[Passage, Piece]]:
    pieces = _pieces(document, cutter)
    first, second = next(pieces, None), next(pieces, None)
    if first is None:
        return
    if second is None and document.keeps_id:
        yield Passage(document.id, first.text, {**document.metadata, **_place(first)}), first
        return
    seen: Counter[str] = Counter()
    for part, piece in enumerate(chain([first], [] if second is None else [second], pieces)):
        yield _part(document, part, piece, seen), piece


def _pieces(document: Document, cutter: Cutter) -> Iterator[Piece]:
    text = document.text
    # a longer one cannot fit, and is not tokenised to learn that
    if text is not None and (cutter.settings.whole or len(text) <= LONGEST_TOKENS * cutter.room):
        tokens = cutter.counter.count([text])[0]
        if cutter.settings.whole or tokens <= cutter.room:
            yield Piece(text, tokens, truncated=max(0, tokens - cutter.counter.room))
            return
    yield from cutter.cut(document.blocks)


def _part(document: Document, part: int, piece: Piece, seen: Counter[str]) -> Passage:
    digest = hashlib.sha256(piece.text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    seen[digest] += 1
    name = f"{document.id}#{digest}" + (f"-{seen[digest]}" if seen[digest] > 1 else "")
    metadata = {**document.metadata, "document": document.id, "part": part, **_place(piece)}
    return Passage(name, piece.text, metadata)


def _place(piece: Piece) -> dict[str, Any]:
    place: dict[str, Any] = {}
    if piece.page is not None:
        place["page_label"] = piece.page
    if piece.headings:
        place["header_path"] = PATH_SEPARATOR.join(piece.headings)
    return place


def _rounded(tokens: int) -> int:
    if tokens <= _EXACT_UP_TO:
        return tokens
    step: int = 10 ** (len(str(tokens)) - 3)
    return tokens // step * step
