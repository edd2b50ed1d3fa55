"""Held-out passages or a collection -> what an encoder is measured on: ids, and the vectors of each encoder.

Guarantees: every passage that answers a held-out query is among those searched; a collection's stored vectors are used
for encoders of its space, so that nothing is embedded for a query adapter; two encoders of one space share one matrix.
Beyond `most` passages the others are a seeded sample: a search among fewer is easier, for both encoders alike.
Does not know: queries, metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection as Container
from collections.abc import Iterator

import numpy as np

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.train.heldout import Heldout
from qdrant_tools.handle import Collection, fetch, stored_vectors
from qdrant_tools.records import Encoder, Passage, Vectors

_AT_ONCE = 256


class Searched:
    """The passages that are searched. `total` is how many there are in all, `ids` those that are taken."""

    def __init__(self, heldout: Heldout, collection: Collection | None, *, most: int, seed: int) -> None:
        self._texts = {passage.id: passage for passage in heldout.passages}
        self._collection = None if self._texts else collection
        self._by_space: dict[str, Vectors] = {}
        if self._collection is not None:
            self.ids, vectors, self.total = _stored(self._collection, heldout.relevant, most, seed)
            self._by_space[self._collection.space] = vectors
        else:
            self.total = len(self._texts)
            self.ids = _picked(list(self._texts), heldout.relevant, most, seed)
        if not heldout.relevant & set(self.ids):
            where = f"collection {collection.name!r}" if collection is not None else f"{self.total} passages"
            raise InputError(
                f"none of the {len(heldout.relevant)} passages that answer held-out queries is in the {where}: "
                "give the passages that the judgements are about, by the same ids"
            )

    def vectors(self, encoder: Encoder) -> Vectors:
        """(len(ids), dimension), computed once per space."""
        if encoder.space not in self._by_space:
            self._by_space[encoder.space] = encoder.encode_passages([p.text for p in self.passages(self.ids)])
        return self._by_space[encoder.space]

    def passages(self, ids: list[str]) -> Iterator[Passage]:
        """Read passages with their texts, in the order of the ids, a few at a time."""
        if self._collection is None:
            yield from (self._texts[each] for each in ids)
            return
        for start in range(0, len(ids), _AT_ONCE):
            found = fetch(self._collection, ids[start : start + _AT_ONCE])
            yield from (found[each] for each in ids[start : start + _AT_ONCE])


def general_passages(searched: Searched, heldout: Heldout, trained: Container[str], *, seed: int) -> Iterator[Passage]:
    """The passages for known items, in a seeded order: first those that are neither trained on nor answer a held-out
    query, then those trained on, then the rest. In a small collection there may be none of the first kind.
    """
    relevant = heldout.relevant
    return searched.passages(
        sorted(searched.ids, key=lambda each: (each in relevant, each in trained, _draw(each, seed)))
    )


def _stored(collection: Collection, wanted: Container[str], most: int, seed: int) -> tuple[list[str], Vectors, int]:
    """Sweep a collection once; holds at most twice `most` vectors beside the wanted ones."""
    kept: dict[str, np.ndarray] = {}
    total = 0
    for ids, vectors in stored_vectors(collection):
        total += len(ids)
        kept.update(zip(ids, vectors))
        if len(kept) > 2 * most:
            kept = {each: kept[each] for each in _picked(list(kept), wanted, most, seed)}
    taken = _picked(list(kept), wanted, most, seed)
    rows = np.stack([kept[each] for each in taken]) if taken else np.zeros((0, collection.dimension))
    return taken, rows.astype(np.float32, copy=False), total


def _picked(ids: list[str], wanted: Container[str], most: int, seed: int) -> list[str]:
    """The wanted ids, and of the others as many as fit into `most`: those that a seeded draw puts first."""
    if len(ids) <= most:
        return ids
    others = sorted((each for each in ids if each not in wanted), key=lambda each: _draw(each, seed))
    chosen = set(others[: max(0, most - (len(ids) - len(others)))])
    return [each for each in ids if each in wanted or each in chosen]


def _draw(passage_id: str, seed: int) -> bytes:
    """Where a passage stands in the draw: by its id alone, whatever else there is."""
    return hashlib.sha256(f"{seed}\0{passage_id}".encode(errors="surrogatepass")).digest()
