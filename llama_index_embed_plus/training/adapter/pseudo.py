"""Passages -> texts that people might type to find them: titles, first words and spans of ten words.

Nothing is judged here as `training.synthesis` does, which makes fewer and better queries: these are many and rough, for
a map that shall bring short texts near long ones. Guarantees: the same passages and seed give the same texts, whatever
else the collection holds. Does not know: vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import regex

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import IDS_AT_ONCE, draw_rank, fetch
from qdrant_tools.records import Passage

SPAN = 10
_SHORTEST = 8
_LONGEST_TITLE = 200
_MOST_READ = 20_000
# of scripts without spaces a character is a word
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def pseudo_queries(collection: Collection, ids: Sequence[str], *, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Up to `count` (passage id, text), of passages that `seed` draws from `ids`."""
    drawn = sorted(ids, key=lambda name: draw_rank(name, seed))
    made = 0
    for start in range(0, len(drawn), IDS_AT_ONCE):
        block = drawn[start : start + IDS_AT_ONCE]
        stored = fetch(collection, block)
        for name in block:
            text = text_of(stored[name], span=bool(made % 2), seed=seed) if name in stored else ""
            if not text:
                continue
            yield name, text
            made += 1
            if made == count:
                return


def text_of(passage: Passage, *, span: bool, seed: int) -> str:
    """A title or the first words of a passage; with `span`, words that follow each other from anywhere. "" if it is
    too short."""
    words = list(_WORD.finditer(passage.text[:_MOST_READ]))
    if len(words) <= _SHORTEST:
        return ""
    if not span:
        title = passage.metadata.get("title")
        if isinstance(title, str) and len(_WORD.findall(title)) >= 3:
            return title.strip()[:_LONGEST_TITLE]
        first, last = 0, SPAN
    elif len(words) <= SPAN + 4:
        first, last = 0, len(words) // 2
    else:
        random = np.random.default_rng(int.from_bytes(draw_rank(passage.id, seed)[:8]))
        first = int(random.integers(len(words) - SPAN + 1))
        last = first + SPAN
    return passage.text[words[first].start() : words[min(last, len(words)) - 1].end()]
