"""The ids of a stream of passages -> the points of a collection that were not in it, removed.

The ids are kept in a temporary SQLite file, 16 bytes each, so that memory stays constant however long the stream.

Guarantees: nothing is removed before `remove` is called, and that is for after the stream's end: an interrupted run
removes nothing. `remove` may be interrupted and run again. Does not know: passages, encoders.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.handle import Collection, plain_id
from qdrant_tools.retry import Retry
from qdrant_tools.translate import engine_errors

PAGE = 1000
"""Points per look at the collection and per removal."""


class SeenPoints:
    """A set of point ids, on the disk."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, points: Iterable[str]) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO seen VALUES (?)", [(uuid.UUID(each).bytes,) for each in points]
        )

    def absent(self, points: Iterable[str | int]) -> list[str | int]:
        """Those of the points that were never added; a number is no id of ours."""
        return [each for each in points if isinstance(each, int) or not self._has(each)]

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM seen").fetchone()
        return int(count)

    def _has(self, point: str) -> bool:
        row = self._database.execute("SELECT 1 FROM seen WHERE id = ?", (uuid.UUID(point).bytes,)).fetchone()
        return row is not None


@contextmanager
def seen_points() -> Iterator[SeenPoints]:
    """An empty set that is gone with the context."""
    with TemporaryDirectory(prefix="qdrant-tools-") as folder:
        database = sqlite3.connect(f"{folder}/seen.sqlite", isolation_level=None)
        try:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA journal_mode = OFF")
            yield SeenPoints(database)
        finally:
            database.close()


def remove_missing(collection: Collection, seen: SeenPoints, *, retry: Retry) -> int:
    """Delete every point of the collection that is not in `seen`; how many.

    Raises:
        InputError: nothing was seen; an empty stream is taken for a mistake, not for a wish to lose everything.
    """
    if not len(seen):
        raise InputError(
            f"no passages to index and delete_missing: this would empty collection {collection.name!r}; drop it instead"
        )
    removed, offset = 0, None
    while True:
        points, offset = retry(lambda at=offset: _page(collection, at))  # type: ignore[misc]
        missing = seen.absent(points)
        if missing:
            retry(lambda ids=missing: _delete(collection, ids))  # type: ignore[misc]
            removed += len(missing)
        if offset is None:
            return removed


def _page(collection: Collection, offset: Any) -> tuple[list[str | int], Any]:
    with engine_errors(f"read from collection {collection.name!r}"):
        records, following = collection.client.scroll(
            collection.name,
            limit=PAGE,
            offset=offset,
            with_payload=False,
            with_vectors=False,
        )
    return [plain_id(record.id) for record in records], following


def _delete(collection: Collection, points: list[str | int]) -> None:
    with engine_errors(f"delete from collection {collection.name!r}"):
        collection.client.delete(collection.name, models.PointIdsList(points=list(points)), wait=True)
