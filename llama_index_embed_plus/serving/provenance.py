"""A vector -> the embeddings of this process that made it.

`PlusEmbedding` remembers what it hands out, so that a vector store can tell at once whose vector it is given. A vector
is known by a hash of its numbers.

Guarantees: bounded memory; the vector of an embedding of ours is known for the next `MOST` vectors; a vector that two
embeddings make is known to be of both. Does not know: texts, collections.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

MOST = 50_000


class Maker(NamedTuple):
    """The space of a vector, and for that of a query the build of the adapter that mapped it ("" for none)."""

    space: str
    adapter: str


# no lock: a child that is forked would inherit it locked, and each step is one call to a dictionary
_makers: dict[bytes, tuple[Maker, ...]] = {}


def remember(vectors: Iterable[Sequence[float]], maker: Maker) -> None:
    """Keep who made these vectors. The oldest are forgotten."""
    for vector in vectors:
        key = _key(vector)
        known = _makers.pop(key, ())
        _makers[key] = known if maker in known else (*known, maker)
    while len(_makers) > MOST:
        with suppress(StopIteration, RuntimeError):  # another thread forgets too
            _makers.pop(next(iter(_makers)), None)


def makers_of(vector: Sequence[float]) -> tuple[Maker, ...]:
    """Who made this vector; nobody that is known, for a vector of another program or process."""
    return _makers.get(_key(vector), ())


def _key(vector: Sequence[float]) -> bytes:
    return hashlib.blake2b(array("f", vector), digest_size=16).digest()
