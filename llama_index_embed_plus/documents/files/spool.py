"""Blocks that come once -> blocks that can be read again, in constant memory.

Guarantees: above `IN_MEMORY` characters they lie in a temporary file, which ends with the spool. Does not know: where
they come from.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import IO

from llama_index_embed_plus.documents.records import Block

IN_MEMORY = 1 << 22


class Spool:
    """The blocks of one document."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._size = 0
        self._file: IO[str] | None = None

    def append(self, block: Block) -> None:
        """Add a block at the end."""
        self._blocks.append(block)
        self._size += len(block.text)
        if self._size > IN_MEMORY:
            if self._file is None:
                self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed with the spool
            for each in self._blocks:
                self._file.write(json.dumps([each.text, each.kind, each.headings, each.page]) + "\n")
            self._blocks, self._size = [], 0

    def __bool__(self) -> bool:
        return bool(self._blocks) or self._file is not None

    def __iter__(self) -> Iterator[Block]:
        if self._file is not None:
            place = 0
            while True:
                # others may read it at the same time
                self._file.seek(place)
                if not (line := self._file.readline()):
                    break
                place = self._file.tell()
                text, kind, headings, page = json.loads(line)
                yield Block(text, kind, tuple(headings), page)
        yield from self._blocks
