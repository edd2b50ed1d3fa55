"""How many points a collection must at least hold, kept beside its shard.

A damaged shard can open without an error and with fewer points, down to none. The guard catches it: on open the
engine's count must not be below the number on file.

The number is a lower bound, so that it never raises a false alarm after a kill: it is exact when the collection
is flushed or closed, additions need not touch it, and a deletion lowers it *before* the engine deletes anything.
To spare a file write per deletion it is lowered by a tenth ahead.

Does not know: the engine.
"""

from __future__ import annotations

import json
from pathlib import Path

from qdrant_tools.edge.manifest import replace_file
from qdrant_tools.errors import DamagedCollectionError

GUARD_FILE = "points.json"


class PointGuard:
    """The lower bound of one collection's number of points."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / GUARD_FILE
        self._stored = self._read()
        self._bound = self._stored

    def check(self, collection: str, points: int) -> None:
        """Raise `DamagedCollectionError` if the engine found fewer points than must be there."""
        if points < self._stored:
            raise DamagedCollectionError(
                f"collection '{collection}' holds {points} points, at least {self._stored} were acknowledged: "
                f"its files in '{self._path.parent}' are damaged, restore them or index it again"
            )

    def seal(self, points: int) -> None:
        """The engine has just made `points` points durable."""
        self._bound = points
        if self._stored != points:
            self._write(points)

    def before_removing(self, points: int) -> None:
        """At most `points` points are about to be deleted."""
        self._bound = max(0, self._bound - points)
        if self._bound < self._stored:
            self._write(self._bound - self._bound // 10)

    def _read(self) -> int:
        try:
            points = json.loads(self._path.read_text(encoding="utf-8"))["at_least"]
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DamagedCollectionError(f"'{self._path}' cannot be read: {error}") from error
        return int(points)

    def _write(self, points: int) -> None:
        replace_file(self._path, json.dumps({"at_least": points}))
        self._stored = points
