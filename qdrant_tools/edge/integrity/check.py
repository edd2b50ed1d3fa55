"""Is a collection's shard what was acknowledged? Number of points, checksums and write-ahead log, taken together.

A damaged shard can open without an error and with fewer points, down to none, or with other content. So notes are kept
beside it while it is open. They are compared when it is opened again; after a kill not everything can be compared.

Guarantees: at no moment do the notes promise more than the files hold, so that a kill raises no false alarm. Each
method says what is about to happen, or has just happened; `shard.py` calls them in that order.

Does not know: the engine's process; the manifest.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qdrant_tools.edge.integrity.acknowledged import Acknowledged, AcknowledgedFile, Dirty, boot_id
from qdrant_tools.edge.integrity.checksums import (
    CHECKSUMS_FILE,
    UNREADABLE,
    Checksums,
    WrittenSince,
    read_checksums,
    take_checksums,
    verify_checksums,
    write_checksums,
)
from qdrant_tools.edge.integrity.wal import SegmentEnd, WalEnd, first_unflushed
from qdrant_tools.edge.storage.files import WAL_FOLDER, checksummed_json, json_checksum, replace_file
from qdrant_tools.errors import DamagedCollectionError, first_line
from qdrant_tools.files.json_files import read_json
from qdrant_tools.validation import brief

POINT_COUNT_FILE = "guard.json"
LARGEST_COUNT = 1 << 12  # bytes of that file

logger = logging.getLogger(__name__)


class Integrity:
    """Checksums and log of one collection. `closed_cleanly` says whether the last process closed it after a flush.

    `closed_here` says that this was on this disk, in this folder: the files are not a copy that somebody has made.
    """

    def __init__(self, collection: str, folder: Path, files: Path) -> None:
        self._collection = collection
        self._folder = folder
        self._files = files
        self._acknowledged = AcknowledgedFile(folder)
        self._checksums: Checksums | None = None
        self._log: WalEnd | None = None
        self.closed_cleanly = self.closed_here = False

    # -- opening

    def verify(self) -> None:
        """Compare the files with the notes of the last process.

        Raises `DamagedCollectionError` if they are not what was acknowledged.
        """
        checksums = read_checksums(self._collection, self._folder)
        self.closed_cleanly = checksums is not None and checksums.closed
        self.closed_here = checksums is not None and checksums.closed_here
        further_operations = False
        if not self.closed_cleanly:
            further_operations = self._acknowledged.verify_log(self._collection, self._files / WAL_FOLDER)
        if checksums is not None:
            written, overwritten = self._written_since(further_operations), self._acknowledged.overwritten_ids()
            if written is WrittenSince.POINTS and overwritten is None:
                written = WrittenSince.VECTORS  # the ids cannot be read: it may be any of them
            verify_checksums(self._collection, self._files, checksums, written, overwritten or frozenset())
        self._checksums = checksums

    def _written_since(self, further_operations: bool) -> WrittenSince:
        """What was written since the checksums were taken. Operations behind the acknowledged ones may be any."""
        row = self._acknowledged.row
        if self.closed_cleanly:
            return WrittenSince.NOTHING
        # in another boot a power failure may have kept an older or a newer state of any file
        if not self._acknowledged.exists or not self._acknowledged.same_boot or row.dirty is Dirty.ANYTHING:
            return WrittenSince.ANYTHING
        if further_operations or row.vectors_overwritten:
            return WrittenSince.VECTORS
        return WrittenSince.NOTHING if row.dirty is Dirty.CLEAN else WrittenSince.POINTS

    def before_opening(self) -> None:
        """The engine is about to open the files, which changes them."""
        # both notes before the engine touches a file
        if self._acknowledged.exists:
            self.before_any_change()
        if self._checksums is not None and self._checksums.closed:
            self._checksums = replace(self._checksums, closed=False)
            write_checksums(self._folder, self._checksums)

    # -- while it is open

    def flushed(self, *, unchanged: bool = False) -> None:
        """The engine has flushed: take checksums. `unchanged` says that no points were written since the last ones."""
        # the checksums before the clean row: after a kill in between only what never changes is compared with them
        self._checksums = self._taken(closed=False, unchanged=unchanged)
        write_checksums(self._folder, self._checksums)
        if os.name == "nt":  # an open file cannot be renamed there, which the engine does with its log
            return
        if self._log is None:
            noted = self._acknowledged.row.end if self._acknowledged.exists else None
            self._log = self._log_end(noted)
        log = self._log
        log.drop_removed()
        try:
            first = first_unflushed(self._files / WAL_FOLDER)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        row = Acknowledged(
            boot_id(),
            Dirty.CLEAN,
            False,
            log.operations,
            -1 if first is None else first,
            log.start,
            log.end,
            log.end,
        )
        self._acknowledged.note(row, log.closed)
        self._acknowledged.sync()

    def _taken(self, *, closed: bool, unchanged: bool) -> Checksums:
        try:
            return take_checksums(self._files, self._checksums, closed=closed, unchanged=unchanged)
        except UNREADABLE as error:
            raise self._unreadable(error) from error

    def _log_end(self, noted: SegmentEnd | None) -> WalEnd:
        try:
            return WalEnd(self._files / WAL_FOLDER, noted, self._acknowledged.closed)
        except (*UNREADABLE, struct.error) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DamagedCollectionError:
        return DamagedCollectionError(
            f"collection '{self._collection}' has files in '{self._files}' that cannot be read ({first_line(error)}): "
            "restore its folder or index it again"
        )

    @property
    def clean(self) -> bool:
        """Whether nothing was written since the checksums were taken."""
        return self._acknowledged.exists and self._acknowledged.row.dirty is Dirty.CLEAN

    def before_any_change(self) -> None:
        """More than point operations is about to change the files: a flush, an index, a vector, another opening."""
        if self._acknowledged.row.dirty is not Dirty.ANYTHING:
            self._acknowledged.note(replace(self._acknowledged.row, dirty=Dirty.ANYTHING))

    def before_optimizing(self) -> None:
        """The optimizer is about to exchange segments in place: no checksum will hold."""
        self.before_any_change()
        self._checksums = None
        (self._folder / CHECKSUMS_FILE).unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside the context the engine applies one operation on points."""
        if self._acknowledged.row.dirty is Dirty.CLEAN:
            self._acknowledged.note(replace(self._acknowledged.row, dirty=Dirty.POINTS))
        if self._log is None:
            yield
            return
        try:
            yield
        except BaseException:
            self._note_log_end(self._log, failed=True)
            raise
        self._note_log_end(self._log, failed=False)

    def overwrites_vectors(self, ids: Sequence[Any]) -> None:
        """An operation overwrites vectors of these points, or may have done so."""
        self._acknowledged.note_overwritten(ids)

    def _note_log_end(self, log: WalEnd, *, failed: bool) -> None:
        """Note where the log ends after an operation. If it is not what was expected, note nothing from now on."""
        try:
            if failed:
                log.advance_if_written()
            else:
                log.advance()
        except (OSError, struct.error, IndexError) as error:
            logger.warning("collection %r: its log cannot be followed (%s)", self._collection, error)
            log.close()
            self._log = None
            self._acknowledged.give_up()
            return
        row = self._acknowledged.row
        closed = log.closed if len(log.closed) != row.closed else None
        # by position, because every write comes here: `replace` takes several times as long
        after = Acknowledged(
            row.boot,
            row.dirty,
            row.vectors_overwritten,
            log.operations,
            row.first_unflushed,
            log.start,
            log.end,
            row.flushed,
            row.closed,
            row.overwritten,
        )
        self._acknowledged.note(after, closed)

    # -- closing

    def close(self, *, clean: bool) -> None:
        """The engine has closed the files; `clean` says that it flushed them before."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if clean:
            # what is clean is what the last flush read: files that writes change need not be read again
            write_checksums(self._folder, self._taken(closed=True, unchanged=self.clean))
        self._acknowledged.close()


@dataclass(frozen=True)
class _StoredCount:
    """The file of a `PointCount`."""

    at_least: int = 0
    optimized: str | None = None
    """Fingerprint of the settings under which the optimizer left nothing to do."""


class PointCount:
    """A lower bound of one collection's number of points, and whether the collection is optimized.

    The bound is exact when the collection is flushed or closed. Additions need not touch it. A deletion lowers it
    before the engine deletes anything, and by a tenth more than it must, so that few deletions write a file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / POINT_COUNT_FILE
        self._stored = self._read()
        self._bound = self._stored.at_least

    def verify(self, collection: str, points: int) -> None:
        """Raise `DamagedCollectionError` if the engine found fewer points than there must be."""
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
        """The optimizer has just run under the settings with this fingerprint."""
        self._write(replace(self._stored, optimized=settings))

    def is_optimized(self, settings: str) -> bool:
        return self._stored.optimized == settings

    def before_writing(self) -> None:
        """Something is about to change: the optimizer may find work again."""
        if self._stored.optimized is not None:
            self._write(replace(self._stored, optimized=None))

    def before_deleting(self, points: int) -> None:
        """At most `points` points are about to be deleted."""
        self._bound = max(0, self._bound - points)
        if self._bound < self._stored.at_least:
            self._write(replace(self._stored, at_least=self._bound - self._bound // 10))

    def _read(self) -> _StoredCount:
        try:
            row = read_json(self._path, most=LARGEST_COUNT)
            checksum = row.pop("checksum", None)  # files of earlier releases have none
            if checksum is not None and checksum != json_checksum(row):
                raise ValueError("its checksum is not that of its content")
            at_least, optimized = row["at_least"], row["optimized"]
            if type(at_least) is not int or at_least < 0 or not isinstance(optimized, (str, type(None))):
                raise ValueError(f"{brief(at_least)} is no number of points, or {brief(optimized)} no fingerprint")
            return _StoredCount(at_least, optimized)
        except FileNotFoundError:
            return _StoredCount()
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise DamagedCollectionError(
                f"'{self._path}' is damaged ({error}): delete it to open the collection without its check"
            ) from error

    def _write(self, stored: _StoredCount) -> None:
        if stored != self._stored:
            replace_file(self._path, checksummed_json(asdict(stored)))
            self._stored = stored
