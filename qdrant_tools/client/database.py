"""A SQLite file -> one connection for the threads of a process, which its forked children open anew.

SQLite forbids a child to use a connection of its parent, and to close it. And a child that opens a file which its
parent has open holds the locks on it on paper only: whoever closes the file then deletes the write-ahead log under the
child, and what it writes is lost. So the connection is closed before a fork, unless it is in use; then the child is
told so.

Guarantees: a block of `_used` or `_whole` has the connection for itself; of a `_whole` block all is written, or
nothing. Does not know: what is in the file, and which errors its readers raise.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

from qdrant_tools.client.forks import abandon, renew_in_children, undivided

__all__ = ["SharedDatabase"]


class SharedDatabase:
    """The base of what keeps rows in a SQLite file. It is opened at once, so what `_open` reads must be there before.

    Raises: whatever `_open` raises.
    """

    _cut: ClassVar[set[Path]] = set()
    """Files that were in use when this process was forked: SQLite takes its parent's locks on them for its own."""

    def __init__(self, path: Path) -> None:
        # absolute: a forked child, which opens the file for itself, may work in another folder
        self._file = path.absolute()
        # re-entrant, because a transaction reads inside its own lock
        self._lock = threading.RLock()
        self._depth, self._uses = 0, 0
        self._closed = False
        self._opened: sqlite3.Connection | None = None
        with undivided():
            self._opened = self._open()
            renew_in_children(self, SharedDatabase._renew, SharedDatabase._release)

    def _open(self) -> sqlite3.Connection:
        """Open the file, without an isolation level and for all threads."""
        raise NotImplementedError

    def _cut_off(self) -> Exception:
        """The error in a child that was forked while the file was in use."""
        raise NotImplementedError

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            if self._closed:
                raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
            if self._file in self._cut:
                raise self._cut_off()
            self._opened = self._open()
        return self._opened

    @contextmanager
    def _used(self, *, forks_wait: bool = True) -> Iterator[None]:
        """forks_wait: not for code of a caller, which may wait for another process itself."""
        with self._lock, undivided() if forks_wait else nullcontext():
            self._uses += 1
            try:
                yield
            finally:
                # not in a child that was forked in the block: it counts from nothing
                self._uses -= bool(self._uses)

    @contextmanager
    def _whole(self, *, forks_wait: bool = True) -> Iterator[None]:
        """All writes of the block, or none. Blocks may nest; the outermost commits."""
        with self._used(forks_wait=forks_wait):
            database = self._db
            if self._depth == 0:
                # IMMEDIATE takes the lock of writers now: a later upgrade of a read lock would fail, not wait
                database.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if self._depth == 1 and database is self._opened:
                    database.execute("COMMIT")
            except BaseException:  # Ctrl-C too: an open transaction would lock out every other writer
                # SQLite itself rolls back after some errors, such as a full disk
                if self._depth == 1 and database is self._opened and database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            finally:
                # in a child that was forked in the block, the transaction is its parent's alone
                if database is self._opened:
                    self._depth -= 1

    def close(self) -> None:
        """Close the file. It cannot be used afterwards."""
        with self._used():
            self._closed = True
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _release(self) -> None:
        """Before a fork."""
        if not self._uses:
            self._close()

    def _renew(self) -> None:
        """In a forked child."""
        self._lock, self._depth, self._uses = threading.RLock(), 0, 0
        if self._opened is not None:
            self._cut.add(self._file)
            abandon(self._opened)
            self._opened = None
