"""Hits -> what stands before and after them in their documents.

A passage that was cut out of a document says in its metadata which one (`document`, its id) and where in it (`part`,
from 0). Passages without these are documents of their own.

Guarantees: passages come in the order of their document, each once, the hits among them; where a part is missing or
not certain, because the document is being indexed again, there are fewer. Does not know: files, how documents are cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from qdrant_client import models

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch
from qdrant_tools.errors import InputError, brief
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search.options import equal
from qdrant_tools.validation import checked_count

DOCUMENT, PART, HEADINGS = "document", "part", "header_path"
STRETCHES_AT_ONCE = 64
"""Stretches of documents that one request asks for."""
GAP = "[...]"
"""What stands in a stretch's text for parts that are missing."""

# a sentence ends at a mark and a space, in Chinese and Japanese at a mark alone; lines end too
_BORDER = re.compile(r"(?<=[.!?\u2026])\s+|(?<=[\u3002\uff01\uff1f])\s*|\s*\n\s*")


@dataclass(frozen=True)
class Stretch:
    """Passages of one document that follow each other, at least one of them a hit."""

    hits: tuple[Hit, ...]
    """Best first."""
    passages: tuple[Passage, ...]
    """In the order of the document, those of the hits included."""

    @property
    def text(self) -> str:
        """Its passages as one text: what two of them share at their border stands there once."""
        return "\n\n".join(text for _, text in texts_of(self.passages))

    def is_hit(self, passage: Passage) -> bool:
        return any(hit.id == passage.id for hit in self.hits)


def around(collection: Collection, hits: Hit | Sequence[Hit], n: int = 1) -> list[Stretch]:
    """Read the `n` passages before and after each hit. Hits whose surroundings meet share a stretch.

    Stretches come in the order of their best hits. A passage that is no part of a document is a stretch of its own.

    Raises:
        InputError: something else than hits, or `n` below 1.
    """
    found = [hits] if isinstance(hits, Hit) else hits
    if not isinstance(found, Sequence) or not all(isinstance(hit, Hit) for hit in found):
        raise InputError(f"hits is {brief(hits)}, expected a hit of a search, or a list of them")
    checked_count("n", n)
    places = _places(collection, found)
    windows = _windows(found, places, n)
    stored = _parts(collection, [window for window in windows if window.document])
    return [_stretch(window, stored.get(window.document, {}), places) for window in windows]


def texts_of(passages: Sequence[Passage]) -> Iterator[tuple[Passage | None, str]]:
    """The passages of a stretch with what each adds to the one before it; None and `GAP` where parts are missing."""
    before: Passage | None = None
    for passage in passages:
        if before is None:
            yield passage, passage.text
        elif passage.metadata.get(PART) != before.metadata.get(PART, 0) + 1:
            yield None, GAP
            yield passage, passage.text
        else:
            rest = _without_repetition(before, passage)
            if rest:
                yield passage, rest
        before = passage


@dataclass(frozen=True)
class _Window:
    """The parts of a document from `first` to `last` and the hits in it; a hit without a place has no document."""

    document: str
    first: int
    last: int
    hits: tuple[Hit, ...]

    @property
    def rank(self) -> int:
        return min(hit.rank for hit in self.hits)


def _places(collection: Collection, hits: Sequence[Hit]) -> dict[str, tuple[str, int]]:
    """Document and part of the hits that have them, by passage id; read again for hits of a search without fields."""
    places = {hit.id: _place(hit.metadata) for hit in hits}
    unknown = [passage_id for passage_id, place in places.items() if place is None]
    for passage_id, passage in fetch(collection, unknown).items():
        places[passage_id] = _place(passage.metadata)
    return {passage_id: place for passage_id, place in places.items() if place is not None}


def _place(metadata: Mapping[str, Any]) -> tuple[str, int] | None:
    document, part = metadata.get(DOCUMENT), metadata.get(PART)
    if not isinstance(document, str) or not document or not isinstance(part, int) or isinstance(part, bool):
        return None
    return document, part


def _windows(hits: Sequence[Hit], places: Mapping[str, tuple[str, int]], n: int) -> list[_Window]:
    alone = [_Window("", 0, 0, (hit,)) for hit in hits if hit.id not in places]
    placed = sorted((hit for hit in hits if hit.id in places), key=lambda hit: places[hit.id])
    joined: list[_Window] = []
    for hit in placed:
        document, part = places[hit.id]
        last = joined[-1] if joined else None
        if last is not None and last.document == document and part - n <= last.last + 1:
            joined[-1] = _Window(document, last.first, part + n, (*last.hits, hit))
        else:
            joined.append(_Window(document, max(0, part - n), part + n, (hit,)))
    ranked = [_Window(w.document, w.first, w.last, tuple(sorted(w.hits, key=lambda hit: hit.rank))) for w in joined]
    return sorted([*ranked, *alone], key=lambda window: window.rank)


def _parts(collection: Collection, windows: Sequence[_Window]) -> dict[str, dict[int, list[Passage]]]:
    """Document -> part -> what is stored there: one passage, or several while the document is indexed again."""
    stored: dict[str, dict[int, list[Passage]]] = {}
    layout = collection.layout
    remaining = iter(windows)
    while block := list(islice(remaining, STRETCHES_AT_ONCE)):
        pages = collection.gateway.pages(
            batch_size=256, scroll_filter=models.Filter(should=[_inside(collection, window) for window in block])
        )
        for record in (record for page in pages for record in page):
            passage = layout.passage(record.payload, point_id=plain_id(record.id))
            place = _place(passage.metadata)
            if place is not None:
                stored.setdefault(place[0], {}).setdefault(place[1], []).append(passage)
    return stored


def _inside(collection: Collection, window: _Window) -> models.Filter:
    layout = collection.layout
    parts = models.Range(gte=window.first, lte=window.last)
    return models.Filter(
        must=[
            equal(layout.metadata_field(DOCUMENT), window.document, DOCUMENT),
            models.FieldCondition(key=layout.metadata_field(PART), range=parts),
        ]
    )


def _stretch(
    window: _Window, stored: Mapping[int, Sequence[Passage]], places: Mapping[str, tuple[str, int]]
) -> Stretch:
    # what a search found is there, whatever has become of it since
    own = {places[hit.id][1] if hit.id in places else 0: _passage(hit) for hit in window.hits}
    passages = []
    for part in range(window.first, window.last + 1):
        there = stored.get(part, ())
        if part in own:
            passages.append(next((passage for passage in there if passage.id == own[part].id), own[part]))
        elif len(there) == 1 and there[0].id not in {hit.id for hit in window.hits}:
            passages += there
    return Stretch(window.hits, tuple(passages))


def _passage(hit: Hit) -> Passage:
    return Passage(hit.id, hit.text, hit.metadata)


def _without_repetition(before: Passage, passage: Passage) -> str:
    """The text of a passage without the headings and the last sentences of the one before it."""
    text = passage.text
    headings = passage.metadata.get(HEADINGS)
    if isinstance(headings, str) and headings == before.metadata.get(HEADINGS) and text.startswith(f"{headings}\n"):
        text = text.removeprefix(headings).lstrip()
    ends, starts = _sentences(before.text), _sentences(text)
    shared = next((n for n in range(min(len(ends), len(starts)), 0, -1) if _same(ends[-n:], starts[:n])), 0)
    if not shared:
        return text
    return text[starts[shared][0] :] if shared < len(starts) else ""


def _same(ends: Iterable[tuple[int, str]], starts: Iterable[tuple[int, str]]) -> bool:
    return [sentence for _, sentence in ends] == [sentence for _, sentence in starts]


def _sentences(text: str) -> list[tuple[int, str]]:
    """The sentences and lines of a text with the place where each begins."""
    borders = [0, *(match.end() for match in _BORDER.finditer(text)), len(text)]
    return [(start, text[start:end].strip()) for start, end in pairwise(borders) if text[start:end].strip()]
