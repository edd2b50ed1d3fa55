"""The connection to the SQLite file under the retrieval log: its transactions, its checks, and how texts leave it.

Guarantees: a committed transaction survives a crash and a power cut; writers of several threads and processes wait
for each other instead of failing; after `purge` nothing that was deleted or replaced is in the file or beside it;
a damaged file is an error, and no statement runs longer than a file of its size can ask for. Does not know: what the
rows and the numbers mean.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qdrant_tools.client.database import SharedDatabase
from qdrant_tools.errors import LogError, UsageError
from qdrant_tools.log.door import open_to_read, open_to_write
from qdrant_tools.log.records import JUDGES, KINDS, LONGEST_COMMENT, VERDICTS
from qdrant_tools.log.schema import LOOKS_REDACTED
from qdrant_tools.log.values import LONGEST_NAME, MOST_RANK
from qdrant_tools.same import query_key

Row = tuple[Any, ...]

PATIENCE = 5.0
"""Seconds that `purge` waits for readers of other processes: ours read for milliseconds."""
_STEPS = 1_000_000
"""Of SQLite's virtual machine, between two looks at how many there were."""
_MOST_PAGES = 1 << 28  # a terabyte
_STEPS_PER_BYTE = 40
"""A row is some 60 bytes at least, and the costliest count of ours takes some hundred steps for it."""

_TWO = "[0-9]" * 2
_MOMENT = f"{_TWO * 2}-{_TWO}-{_TWO}T{_TWO}:{_TWO}:{_TWO}.{_TWO * 3}+00:00"
_TIME = f"typeof(at) = 'text' AND length(CAST(at AS BLOB)) = 32 AND at GLOB '{_MOMENT}'"


def _name(column: str) -> str:
    # of the bytes, because a text is not measured beyond a NUL
    return f"typeof({column}) = 'text' AND length(CAST({column} AS BLOB)) <= {4 * LONGEST_NAME}"


def _one_of(column: str, words: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(repr, words))})"


_SOUND = {
    "searches": f"{_name('id')} AND typeof(query) = 'text' AND {_TIME} AND {_name('collection')} AND {_name('space')}",
    "hits": (
        f"typeof(rank) = 'integer' AND rank BETWEEN 1 AND {MOST_RANK} AND {_name('hit_id')} "
        "AND typeof(score) IN ('real', 'null')"
    ),
    "feedback": (
        f"{_name('hit_id')} AND {_one_of('kind', KINDS)} AND typeof(value) = 'real' AND abs(value) < 9e999 AND {_TIME}"
    ),
    "answers": (
        f"{_name('id')} AND typeof(text) = 'text' AND typeof(searches) = 'integer' "
        f"AND searches BETWEEN 1 AND {MOST_RANK} AND typeof(context) = 'text' AND typeof(cited) = 'text'"
    ),
    "verdicts": (
        f"{_one_of('kind', VERDICTS)} AND {_one_of('said_by', JUDGES)} AND {_name('name')} AND {_name('who')} "
        f"AND typeof(value) = 'real' AND abs(value) < 9e999 AND (kind = 'comment' OR value BETWEEN 0 AND 1) "
        f"AND {_TIME} AND typeof(text) = 'text' "
        f"AND length(CAST(text AS BLOB)) <= {4 * LONGEST_COMMENT}"
    ),
    "sqlite_sequence": "name = 'searches' AND typeof(seq) = 'integer'",
}
"""SQL: what holds of every row that we have written, by table."""

_SOUND_SINCE = {
    4: _name("session"),
    5: (
        f"{_name('user')} AND {_name('scored_by')} AND generated IN (0, 1) AND (answer IS NULL OR EXISTS "
        "(SELECT 1 FROM answers a WHERE a.seq = answer))"
    ),
}
"""SQL: what holds of searches besides, from a version on."""


class LogStore(SharedDatabase):
    """The file of a retrieval log. A writer waits up to `wait` seconds for others.

    Raises:
        LogError: the file cannot be opened, is not a log, or was written by a newer version.
    """

    def __init__(self, path: Path, *, wait: float, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        self._wait = wait
        self._steps, self._most_steps = 0, 0
        super().__init__(path)
        with self._used(), self.errors("open"):
            ((self.version,),) = self._db.execute("PRAGMA user_version")
        self.redacted = "redacted" if self.version > 2 else LOOKS_REDACTED
        """SQL: whether the query of a search is redacted."""
        self.session = "session" if self.version > 3 else "''"
        """SQL: the session of a search."""
        self.has_answers = self.version > 4
        """Whether there are tables for them; and columns for users, generated queries and owners of scores."""

    def _open(self) -> sqlite3.Connection:
        with self.errors("open"):
            database = (open_to_read if self.read_only else open_to_write)(self._file, wait=self._wait)
        database.set_progress_handler(self._is_too_long, _STEPS)
        database.create_function("key_of", 1, _key_of, deterministic=True)
        return database

    def _cut_off(self) -> LogError:
        return LogError(
            f"this process was forked while its parent used the retrieval log {self.path}, whose locks SQLite takes "
            "for its own: fork outside of batch() and extend(), or open the log after the fork"
        )

    def read(self, sql: str, values: Iterable[Any] = ()) -> list[Row]:
        with self._used(), self.errors("read"):
            return self._execute(sql, values).fetchall()

    def rows(self, sql: str, values: Iterable[Any] = ()) -> Generator[Row, None, None]:
        """The rows one at a time. The caller may stop, and other threads wait until it has."""
        with self._used(), self.errors("read"):
            cursor = self._execute(sql, values)
            try:
                yield from cursor
            finally:
                cursor.close()

    def write(self, sql: str, values: Iterable[Any] = ()) -> int:
        """Run one statement inside a `transaction`; returns the number of rows it changed."""
        return self._execute(sql, values).rowcount

    def write_many(self, sql: str, rows: Iterable[Row]) -> int:
        """Run one statement for each row inside a `transaction`; returns the number of rows that were changed."""
        self._steps = 0
        return max(0, self._db.executemany(sql, rows).rowcount)

    @contextmanager
    def transaction(self, *, forks_wait: bool = True) -> Iterator[None]:
        """All writes of the block, or none. Blocks may nest; the outermost commits.

        forks_wait: not for code of a caller, which may wait for another process itself.
        """
        if self.read_only:
            raise LogError(f"the retrieval log {self.path} was opened to be read only: open it without read_only")
        with self.errors("write"), self._used(forks_wait=forks_wait):
            self._allow_steps()
            with self._whole(forks_wait=forks_wait):
                yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What the block reads is of one moment."""
        with self._used():
            if self._db.in_transaction:
                yield
                return
            self._allow_steps()
            with self.errors("read"):
                self._db.execute("BEGIN")
            try:
                yield
            finally:
                with suppress(sqlite3.Error):  # after some errors the transaction has ended
                    self._db.execute("COMMIT")

    def require_sound(self) -> None:
        """Raise `LogError` if the file is damaged, or holds a row that we have not written.

        Counts and deletions of the database itself rely on this; searches that are read are checked one by one.
        """
        with self._used(), self.errors("read"):
            # the check has a bit for every page, and a file can have holes where it has no pages
            ((pages,),) = self._execute("PRAGMA page_count")
            if pages > _MOST_PAGES:
                raise LogError(f"the retrieval log {self.path} is damaged: it claims to have {pages:,} pages")
            # of the table `feedback` of version 1, SQLite's quick check takes one column for another
            check = "quick_check" if self.version > 1 else "integrity_check"
            ((found,),) = self._execute(f"PRAGMA {check}(1)")
            if found != "ok":
                raise LogError(
                    f"the retrieval log {self.path} is damaged ({_short(found)}): restore a copy, or export what can "
                    "still be read"
                )
            for table, sound in _SOUND.items():
                if table in ("answers", "verdicts") and not self.has_answers:
                    continue
                if table == "searches":
                    sound = " AND ".join(
                        [sound] + [more for since, more in _SOUND_SINCE.items() if self.version >= since]
                    )
                # IS NOT: unknown, as of NULL, is not sound either
                for (number,) in self._execute(f"SELECT seq FROM {table} WHERE ({sound}) IS NOT 1 LIMIT 1"):
                    raise self.damaged(table, number)

    def damaged(self, table: str, number: object, reason: object = "no such row was ever written") -> LogError:
        """The error for a row that was read."""
        return LogError(f"the retrieval log {self.path} is damaged in {table}, seq {_short(number)}: {_short(reason)}")

    def purge(self) -> None:
        """Rewrite the file, so that no deleted or replaced text is left in it, in its free pages or beside it.

        Raises:
            LogError: another process still reads what was there before, or the disk is full; the next call can do it.
            UsageError: inside of a transaction.
        """
        if self._depth:
            raise UsageError("texts leave the file when a transaction has ended: call this outside of batch()")
        with self._used(), self.errors("write"):
            self._execute("VACUUM")
            self._db.execute(f"PRAGMA busy_timeout = {int(1000 * min(self._wait, PATIENCE))}")
            try:
                # moves all pages into the file and makes the write-ahead log empty, if nobody reads from it
                ((busy, _, _),) = self._execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {int(1000 * self._wait)}")
            if busy:
                raise LogError(
                    f"old texts are still in {self.path}, because another process reads it: call this again when it "
                    "is done"
                )

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Translate what SQLite and the file system raise."""
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeEncodeError, OverflowError) as error:
            raise LogError(f"cannot {doing} the retrieval log {self.path}: {self._reason(error)}") from error
        except LogError as error:
            if doing != "open":
                raise
            # what the door says is about the file and does not name it
            raise LogError(f"cannot open the retrieval log {self.path}: {error}") from error

    def _execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        self._allow_steps()
        return self._db.execute(sql, tuple(values))

    def _allow_steps(self) -> None:
        self._steps = 0
        # not for every statement of a transaction: looking takes as long as a statement
        if self._db.in_transaction:
            return
        size = 0
        for path in (self._file, f"{self._file}-wal"):
            with suppress(OSError):
                size += os.stat(path).st_size
        self._most_steps = 20 * _STEPS + size * _STEPS_PER_BYTE

    def _is_too_long(self) -> bool:
        self._steps += _STEPS
        return self._steps > self._most_steps

    def _reason(self, error: Exception) -> str:
        # an extended code has the basic one in its low byte
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{error}: another process has been writing all the time, try again"
        if code == sqlite3.SQLITE_FULL:
            return f"{error}: make room and try again, nothing of this was written"
        if code == sqlite3.SQLITE_INTERRUPT:
            return "it takes longer than a log of its size can: it is damaged"
        if code == sqlite3.SQLITE_TOOBIG:
            return "a text in it is longer than the 16 MiB of a query"
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return _short(error)


def _key_of(query: object) -> bytes:
    """SQL: `key_of(CAST(query AS BLOB))` is equal for spellings of one query. A digest, as queries may be megabytes."""
    text = query if isinstance(query, bytes) else str(query).encode("utf-8", "surrogatepass")
    with suppress(UnicodeDecodeError):  # what is no text is no spelling of another
        text = query_key(text.decode()).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _short(value: object) -> str:
    line = " ".join(str(value).split())
    return line if len(line) <= 200 else f"{line[:197]}..."
