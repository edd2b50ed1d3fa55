"""Passages in a stream -> the windows in which an encoder reads them, if it reads what stands around a passage too.

Such an encoder (`late`, see `WindowEncoder`) makes the vector of a passage from its text and from the passages of its
document that are read with it. So what decides the vector is the window, and the passage's place in it. That is kept
with the passage, as `late_window` in its metadata: a passage whose text is the same and whose window is another is
embedded again.

Passages of one document must follow each other in the stream, in their order; `document` in their metadata says which
it is. A passage without it is read alone. Guarantees: memory holds one window beyond a batch. Does not know: tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar, cast

from qdrant_tools.records import Encoder, Passage, Vectors

LATE_WINDOW = "late_window"
"""The key of a passage's metadata: a hash of the window, and the place in it."""
DOCUMENT = "document"
"""The key of a passage's metadata that says to which document it belongs."""

Item = TypeVar("Item")


class WindowEncoder(Encoder, Protocol):
    """An encoder that reads passages together with those around them. It refuses passages that come alone."""

    @property
    def late(self) -> bool: ...

    def windows(self, texts: Iterable[str]) -> Iterator[Sequence[str]]:
        """Cut the passages of one document into those that are read together, in their order."""
        ...

    def encode_windows(self, windows: Sequence[Sequence[str]]) -> Vectors:
        """Embed all passages of these windows into one unit vector each, in order."""
        ...


def window_encoder(encoder: Encoder) -> WindowEncoder | None:
    """The encoder, if it is one that reads windows."""
    return cast(WindowEncoder, encoder) if getattr(encoder, "late", False) is True else None


@dataclass(frozen=True)
class Window:
    """The texts that are read together, and which of them a passage is."""

    texts: tuple[str, ...]
    place: int

    @property
    def last(self) -> bool:
        return self.place == len(self.texts) - 1

    @property
    def key(self) -> str:
        content = json.dumps(self.texts, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return f"{hashlib.sha256(content).hexdigest()[:16]}:{self.place}"


def in_windows(
    items: Iterable[Item], passage_of: Callable[[Item], Passage | None], encoder: WindowEncoder
) -> Iterator[tuple[Item, Window | None]]:
    """Yield each item with the window of its passage; one without a passage, which is in no window, with None."""
    for _, group in groupby(items, key=_Documents(passage_of)):
        waiting: deque[Item] = deque()
        others: deque[Item] = deque()
        for window in encoder.windows(_texts(group, passage_of, waiting, others)):
            while others:
                yield others.popleft(), None
            for place in range(len(window)):
                yield waiting.popleft(), Window(tuple(window), place)
        for item in others:
            yield item, None


def _texts(
    group: Iterable[Item], passage_of: Callable[[Item], Passage | None], waiting: deque[Item], others: deque[Item]
) -> Iterator[str]:
    for item in group:
        passage = passage_of(item)
        if passage is None:
            others.append(item)
        else:
            waiting.append(item)
            yield passage.text


class _Documents:
    """Item -> a key that is the same for the passages of one document that follow each other."""

    def __init__(self, passage_of: Callable[[Item], Passage | None]) -> None:
        self._passage_of: Callable[..., Passage | None] = passage_of
        self._count = 0
        self._document: object = None

    def __call__(self, item: object) -> int:
        passage = self._passage_of(item)
        # what has no passage stays with what is around it
        document = self._document if passage is None else passage.metadata.get(DOCUMENT)
        if passage is not None and (document is None or document != self._document):
            self._count, self._document = self._count + 1, document
        return self._count


def encode_in_windows(encoder: WindowEncoder, windows: Sequence[Window]) -> Vectors:
    """Embed one passage of each of these windows; windows that are the same are read once."""
    rows: dict[tuple[str, ...], int] = {}
    count = 0
    for window in windows:
        if window.texts not in rows:
            rows[window.texts] = count
            count += len(window.texts)
    vectors = encoder.encode_windows(list(rows))
    picked: Vectors = vectors[[rows[window.texts] + window.place for window in windows]]
    return picked
