"""Is a collection's shard what was acknowledged? Seal, progress and log, taken together.

On opening: compare, as far as the way the last process ended allows. While open: keep the notes that the next opening
compares. The order of steps matters: notes never promise more than the files hold at any moment.

Does not know: the engine's process; the manifest.

What must be true of a collection's shard when it is opened again, kept beside it.

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
import logging
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qdrant_tools.edge.integrity.checksums import SEAL_FILE, Extent, Seal, check_seal, read_seal, taken_seal, write_seal
from qdrant_tools.edge.integrity.oplog import LogEnd, first_needed
from qdrant_tools.edge.integrity.progress import Progress, ProgressFile, State, boot_id
from qdrant_tools.edge.storage.files import LOG_FOLDER
from qdrant_tools.edge.storage.manifest import replace_file
from qdrant_tools.errors import DamagedCollectionError

logger = logging.getLogger(__name__)


class Integrity:
    """The notes of one collection. Raises `DamagedCollectionError` if its files are not what was acknowledged."""

    def __init__(self, collection: str, folder: Path, files: Path) -> None:
        self._collection = collection
        self._folder = folder
        self._files = files
        self._progress = ProgressFile(folder)
        self._seal: Seal | None = None
        self._log: LogEnd | None = None
        self.closed_in_order = False

    # -- opening

    def check(self) -> None:
        """Compare the files with the notes of the last process."""
        seal = read_seal(self._collection, self._folder)
        self.closed_in_order = seal is not None and seal.closed
        further = False
        if not self.closed_in_order:
            further = self._progress.check_log(self._collection, self._files / LOG_FOLDER)
        if seal is not None:
            extent, touched = self._extent(further), self._progress.touched_ids()
            if extent is Extent.WRITTEN and touched is None:
                extent = Extent.REWRITTEN
            check_seal(self._collection, self._files, seal, extent, touched or frozenset())
        self._seal = seal

    def _extent(self, further: bool) -> Extent:
        """How much of the seal holds. `further` says that the log goes on behind the last acknowledged operation."""
        row = self._progress.row
        if self.closed_in_order:
            return Extent.ALL
        if not self._progress.known or not self._progress.same_boot or row.state is State.UNSETTLED:
            return Extent.FIXED
        if further or row.rewrites:
            return Extent.REWRITTEN
        return Extent.ALL if row.state is State.SETTLED else Extent.WRITTEN

    def opening(self) -> None:
        """The engine is about to open the files, which changes them."""
        if self._progress.known:
            self.unsettle()
        if self._seal is not None and self._seal.closed:
            self._seal = replace(self._seal, closed=False)
            write_seal(self._folder, self._seal)

    # -- while it is open

    def settle(self, *, unchanged: bool = False) -> None:
        """The engine has flushed: seal the files. `unchanged` says that no points were written since the last seal."""
        self._seal = taken_seal(self._files, self._seal, closed=False, unchanged=unchanged)
        write_seal(self._folder, self._seal)
        if os.name == "nt":  # an open file cannot be renamed there, which the engine does with its log
            return
        if self._log is None:
            row = self._progress.row
            known = row.end if self._progress.known else None
            self._log = LogEnd(self._files / LOG_FOLDER, known, self._progress.closed)
        log = self._log
        log.dropped()
        needed = first_needed(self._files / LOG_FOLDER)
        row = Progress(
            boot_id(),
            State.SETTLED,
            False,
            log.operations,
            -1 if needed is None else needed,
            log.start,
            log.end,
            log.end,
        )
        self._progress.note(row, log.closed)
        self._progress.sync()

    @property
    def settled(self) -> bool:
        """Whether nothing was written since the seal was taken."""
        return self._progress.known and self._progress.row.state is State.SETTLED

    def unsettle(self) -> None:
        """More than point operations is about to change the files: a flush, an index, a vector, another opening."""
        if self._progress.row.state is not State.UNSETTLED:
            self._progress.note(replace(self._progress.row, state=State.UNSETTLED))

    def forget(self) -> None:
        """The optimizer is about to exchange segments in place."""
        self.unsettle()
        self._seal = None
        (self._folder / SEAL_FILE).unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The engine applies one operation on points."""
        if self._progress.row.state is State.SETTLED:
            self._progress.note(replace(self._progress.row, state=State.WRITING))
        if self._log is None:
            yield
            return
        try:
            yield
        except BaseException:
            self._follow(self._log, failed=True)
            raise
        self._follow(self._log, failed=False)

    def rewrites(self, ids: Sequence[Any]) -> None:
        """An operation overwrites vectors of these points, or may have done so."""
        self._progress.touch(ids)

    def _follow(self, log: LogEnd, *, failed: bool) -> None:
        """Note where the log ends after an operation; nothing from now on if it is not what was expected."""
        try:
            if failed:
                log.advance_perhaps()
            else:
                log.advance()
        except (OSError, struct.error, IndexError) as error:
            logger.warning("collection '%s': its log cannot be followed (%s)", self._collection, error)
            log.close()
            self._log = None
            self._progress.give_up()
            return
        row = self._progress.row
        closed = log.closed if len(log.closed) != row.closed else None
        # by position, because every write comes here: `replace` takes several times as long
        end = Progress(
            row.boot,
            row.state,
            row.rewrites,
            log.operations,
            row.needed,
            log.start,
            log.end,
            row.flushed,
            row.closed,
            row.touched,
        )
        self._progress.note(end, closed)

    # -- closing

    def close(self, *, sealed: bool) -> None:
        """The engine has closed the files; `sealed` says in order, after a flush."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if sealed:
            write_seal(self._folder, taken_seal(self._files, self._seal, closed=True, unchanged=self.settled))
        self._progress.close()


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
