"""A change of points that are stored -> the bytes it takes on the disk at most.

A changed payload is written anew as a whole, and a point of a finished segment moves with all it has: so what the
points hold counts. Reading it costs more than the change, and is done only where the disk might not have the room.

Does not know: the disk, locks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as qe

from qdrant_tools.edge.checks import VectorSchema
from qdrant_tools.edge.files import content_bytes
from qdrant_tools.edge.space import (
    INDEXED_PAYLOAD,
    MARGIN,
    PAYLOAD,
    POINT_IN_INDEX,
    Sizes,
    payload_bytes,
    vector_numbers,
)

BLOCK = 500  # points read at a time to learn their sizes
COMPRESSED = 20  # how much smaller payloads may be in their files than in the indexes


class Estimate:
    """What changes of one collection take. `free` is always the room there is on the disk, in bytes."""

    def __init__(self, files: Path, schema: VectorSchema) -> None:
        self._files = files
        self._schema = schema
        self._content: int | None = None

    def change(self, shard: qe.EdgeShard, free: int, added: int, ids: Sequence[Any]) -> int:
        """Bytes that a change takes, which adds `added` bytes of payload to each of these points; 0 for "it fits"."""
        indexes = len(shard.info().payload_schema)
        every = Sizes(1, self._schema.bytes_per_point // 4, 0, added).needed(indexes)
        if self._content is None:
            self._content = content_bytes(self._files)
        factor = INDEXED_PAYLOAD if indexes else PAYLOAD
        if free > 2 * MARGIN + added + len(ids) * every + factor * self._content:
            return 0
        held = self._held(shard, ids)
        return added + held.points * every + held.needed(indexes)

    def restructuring(self, shard: qe.EdgeShard, free: int, numbers: int, indexes: int) -> int:
        """Bytes that `numbers` more in the vectors of each point take, or `indexes` more on the payload."""
        points = shard.info().points_count
        needed = Sizes(0, points * numbers).needed(0) + points * POINT_IN_INDEX * indexes
        if indexes and free < needed + COMPRESSED * content_bytes(self._files):
            needed += self._held(shard, None).needed(indexes)
        return needed

    def wrote(self, needed: int) -> None:
        """Something was written for which so many bytes were asked."""
        if self._content is not None:
            self._content += needed

    def forget(self) -> None:
        """The files are about to be others."""
        self._content = None

    def _held(self, shard: qe.EdgeShard, ids: Sequence[Any] | None) -> Sizes:
        """The sizes of stored points, of all of them for None, read a block at a time."""
        vectors = bool(self._schema.sparse) or any(shape.multi for shape in self._schema.dense.values())
        points = numbers = sparse = payload = 0
        for block in _blocks(shard, ids, vectors=vectors):
            points += len(block)
            payload += payload_bytes([point.payload or {} for point in block])
            if vectors:
                more = vector_numbers(point.vector for point in block)
                numbers, sparse = numbers + more[0], sparse + more[1]
        return Sizes(points, numbers, sparse, payload)


def _blocks(shard: qe.EdgeShard, ids: Sequence[Any] | None, *, vectors: bool) -> Iterator[list[Any]]:
    if ids is not None:
        for start in range(0, len(ids), BLOCK):
            yield shard.retrieve(list(ids[start : start + BLOCK]), True, vectors)
        return
    offset = None
    while True:
        block, offset = shard.scroll(
            qe.ScrollRequest(offset=offset, limit=BLOCK, filter=None, with_payload=True, with_vector=vectors)
        )
        yield block
        if offset is None:
            return
