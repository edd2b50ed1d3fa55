"""A set of names of any number, in constant memory.

Guarantees: nothing of it is left behind. Does not know: what the names are of.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory


class SeenPoints:
    """A set of point ids in a temporary SQLite file, 16 bytes each: memory stays constant, however many there are."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, points: Iterable[str]) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO seen VALUES (?)", [(uuid.UUID(point).bytes,) for point in points]
        )

    def absent(self, points: Iterable[str | int]) -> list[str | int]:
        """The points that were never added, numbers among them: an id of ours is a UUID."""
        return [point for point in points if point not in self]

    def pages(self, size: int) -> Iterator[list[str]]:
        """All of them, so many at a time, while none are added."""
        found = self._database.execute("SELECT id FROM seen")
        while rows := found.fetchmany(size):
            yield [str(uuid.UUID(bytes=row[0])) for row in rows]

    def __contains__(self, point: str | int) -> bool:
        if isinstance(point, int):
            return False
        row = self._database.execute("SELECT 1 FROM seen WHERE id = ?", (uuid.UUID(point).bytes,)).fetchone()
        return row is not None

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM seen").fetchone()
        return int(count)


@contextmanager
def seen_points() -> Iterator[SeenPoints]:
    """An empty set that is gone with the context."""
    with TemporaryDirectory(prefix="qdrant-tools-") as folder:
        database = sqlite3.connect(f"{folder}/seen.sqlite", isolation_level=None)
        try:
            # nobody reads this file after a crash
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA journal_mode = OFF")
            seen = SeenPoints(database)
            # never committed: nobody else reads it, and a transaction for each name would cost more than the name
            database.execute("BEGIN")
            yield seen
        finally:
            database.close()
