"""What must be true of a collection's shard when it is opened again, kept beside it.

A damaged shard can open without an error and with fewer points, down to none. The guard catches it: on open the
engine's count must not be below the number on file. The number is a lower bound, so that it never raises a false
alarm after a kill: it is exact when the collection is flushed or closed, additions need not touch it, and a
deletion lowers it *before* the engine deletes anything. To spare a file write per deletion it is lowered by a
tenth ahead.

It also remembers that nothing was written since the optimizer last ran, so that it need not run again.

Does not know: the engine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from qdrant_tools.edge.manifest import replace_file
from qdrant_tools.errors import DamagedCollectionError

GUARD_FILE = "guard.json"


@dataclass(frozen=True)
class Guarded:
    """The file. `optimized` is the fingerprint of the settings under which the optimizer left nothing to do."""

    at_least: int = 0
    optimized: str | None = None


class Guard:
    """The lower bound of one collection's number of points, and whether it is optimized."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / GUARD_FILE
        self._stored = self._read()
        self._bound = self._stored.at_least

    def check(self, collection: str, points: int) -> None:
        """Raise `DamagedCollectionError` if the engine found fewer points than must be there."""
        if points < self._stored.at_least:
            raise DamagedCollectionError(
                f"collection '{collection}' holds {points} points, at least {self._stored.at_least} were acknowledged: "
                f"its files in '{self._path.parent}' are damaged, restore them or index it again"
            )

    def flushed(self, points: int) -> None:
        """The engine has just made `points` points durable."""
        self._bound = points
        self._write(replace(self._stored, at_least=points))

    def optimized(self, settings: str) -> None:
        """The optimizer has just run under these settings."""
        self._write(replace(self._stored, optimized=settings))

    def is_optimized(self, settings: str) -> bool:
        return self._stored.optimized == settings

    def before_writing(self) -> None:
        """Something is about to change: the optimizer may find work again."""
        if self._stored.optimized is not None:
            self._write(replace(self._stored, optimized=None))

    def before_removing(self, points: int) -> None:
        """At most `points` points are about to be deleted."""
        self._bound = max(0, self._bound - points)
        if self._bound < self._stored.at_least:
            self._write(replace(self._stored, at_least=self._bound - self._bound // 10))

    def _read(self) -> Guarded:
        try:
            row = json.loads(self._path.read_text(encoding="utf-8"))
            return Guarded(int(row["at_least"]), row["optimized"])
        except FileNotFoundError:
            return Guarded()
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DamagedCollectionError(
                f"'{self._path}' is damaged ({error}): delete it to open the collection without its check"
            ) from error

    def _write(self, guarded: Guarded) -> None:
        if guarded != self._stored:
            replace_file(self._path, json.dumps(asdict(guarded)))
            self._stored = guarded
