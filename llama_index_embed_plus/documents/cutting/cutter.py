"""Blocks of a document -> pieces that an encoder reads whole.

Of all the ways to cut a document into pieces of `min_tokens` to `max_tokens`, the one is taken whose cuts are at the
best places (before a heading, a page, a paragraph, a sentence; `units` says how good each is) and whose pieces are
not short. A number that follows from the text around a place decides among equals. So the way behind an insertion soon
meets the way that was there before: only pieces near it change.

Guarantees: no piece has more tokens than the settings or the encoder allow, unless it is a single character, or
`whole`; every piece is counted as it is embedded, with its context and overlap. No letter is lost, and none is said
twice but those of context, overlap and the header of a parted table. No piece is shorter than `min_tokens` by
the sum of its parts, unless the document is. Blocks are read as a stream, in constant memory. Does not know: files,
ids, collections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from llama_index_embed_plus.documents.cutting.stretches import Front, Limits, Stretch, best_stretches
from llama_index_embed_plus.documents.cutting.tokens import TokenCounter
from llama_index_embed_plus.documents.cutting.units import halved, units_of
from llama_index_embed_plus.documents.records import Block, CutSettings, Piece
from qdrant_tools.errors import UsageError

_COUNTED = 256
"""Pieces that are counted in one call."""


@dataclass(frozen=True)
class Cutter:
    """Cuts documents by the tokens of one encoder."""

    counter: TokenCounter
    settings: CutSettings = CutSettings()

    def __post_init__(self) -> None:
        if self.settings.overlap and self.counter.late:
            raise UsageError(
                f"overlap is {self.settings.overlap}, and with late chunking a passage is read with its neighbours "
                "anyway: leave the overlap out"
            )
        if self.settings.overlap > self.room // 3:
            raise UsageError(
                f"overlap is {self.settings.overlap}, expected at most {self.room // 3}, a third of the {self.room} "
                "tokens of a passage"
            )
        if self.settings.min_tokens is not None and self.settings.min_tokens > self._most_min:
            raise UsageError(
                f"min_tokens is {self.settings.min_tokens}, expected at most {self._most_min}: passages have "
                f"{self.room} tokens, context and overlap included, and none could be cut in two"
            )

    @property
    def room(self) -> int:
        """The most tokens of a piece."""
        return min(self.counter.room, self.settings.max_tokens or self.counter.usual)

    @property
    def min_tokens(self) -> int:
        """The fewest tokens of a piece of its own text, unless the document has fewer."""
        return min(self.settings.min_tokens or max(1, self.room // 4), self._most_min)

    @property
    def _own(self) -> int:
        """How much of the room is left at least for a piece's own text."""
        return self.room - max(self.room // 3, self._most_context + self.settings.overlap)

    @property
    def _most_context(self) -> int:
        return self.room // 3 if self.settings.context == "headings" else 0

    @property
    def _most_min(self) -> int:
        return max(1, 3 * self._own // 8)

    def cut(self, blocks: Iterable[Block]) -> Iterator[Piece]:
        """Cut the blocks of one document, in their order."""
        if self.settings.whole:
            text = "\n\n".join(block.text for block in blocks)
            if text.strip():
                yield self._piece(text, self.counter.count([text])[0])
            return
        front = Front(self.counter, self._most_context, self.settings.overlap, self.room - self._own)
        # two shortest pieces and one more unit fit into a piece: so there is always a place to cut
        units = units_of(blocks, self.counter, max(1, self._own - 2 * self.min_tokens), self.room)
        stretches = best_stretches(units, front, Limits(self.min_tokens, self.room))
        while batch := list(islice(stretches, _COUNTED)):
            yield from self._fitting(batch, front)

    def _fitting(self, stretches: list[Stretch], front: Front) -> Iterator[Piece]:
        """Pieces of the stretches; of one that is longer than the sum of its units, and so does not fit, two."""
        texts = [stretch.text for stretch in stretches]
        for stretch, text, tokens in zip(stretches, texts, self.counter.count(texts), strict=True):
            smaller = self._smaller(stretch, front) if tokens > self.room else []
            if smaller:
                yield from self._fitting(smaller, front)
            else:
                yield self._piece(text, tokens, stretch.units[0].block)

    def _smaller(self, stretch: Stretch, front: Front) -> list[Stretch]:
        if len(stretch.units) > 1:
            return stretch.cut_in_two(front, self.min_tokens)
        if stretch.context or stretch.overlap or stretch.header:
            return [Stretch(stretch.units)]
        if parts := halved(stretch.units[0], self.counter):
            return [Stretch([part]) for part in parts]
        return []

    def _piece(self, text: str, tokens: int, block: Block | None = None) -> Piece:
        headings, page = (block.headings, block.page) if block is not None else ((), None)
        return Piece(text, tokens, headings, page, max(0, tokens - self.counter.room))
