"""The SQLite file under the retrieval log: its tables, its connection, its transactions, and counts of what is in it.

Guarantees: a committed transaction survives a crash and a power cut; writers of several threads and processes wait
for each other instead of failing; deleted text is overwritten in the file; counting is done by the database, so memory
does not grow with the log. Does not know: what the rows and the numbers mean.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qdrant_tools.errors import LogError

# Entry n brings a file from version n to version n + 1. Add entries; never change one that was released.
MIGRATIONS = (
    """
    CREATE TABLE searches (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        at TEXT NOT NULL,
        query TEXT NOT NULL,
        collection TEXT NOT NULL,
        space TEXT NOT NULL
    );
    CREATE TABLE hits (
        seq INTEGER NOT NULL REFERENCES searches (seq) ON DELETE CASCADE,
        rank INTEGER NOT NULL,
        hit_id TEXT NOT NULL,
        score REAL,
        PRIMARY KEY (seq, rank)
    ) WITHOUT ROWID;
    CREATE TABLE feedback (
        seq INTEGER NOT NULL REFERENCES searches (seq) ON DELETE CASCADE,
        hit_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        value REAL NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (seq, hit_id, kind, at, value)
    ) WITHOUT ROWID;
    """,
    # Feedback of one time, which is what logs of other systems have, keeps the order in which it was written.
    """
    CREATE TABLE feedback_in_order (
        number INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL REFERENCES searches (seq) ON DELETE CASCADE,
        hit_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        value REAL NOT NULL,
        at TEXT NOT NULL,
        UNIQUE (seq, hit_id, kind, at, value)
    );
    INSERT INTO feedback_in_order (seq, hit_id, kind, value, at)
        SELECT seq, hit_id, kind, value, at FROM feedback ORDER BY seq, at;
    DROP TABLE feedback;
    ALTER TABLE feedback_in_order RENAME TO feedback;
    """,
)

Row = tuple[Any, ...]

_CLICKED = "SELECT 1 FROM feedback f WHERE f.seq = s.seq AND f.kind = 'click'"
"""SQL: the search `s` has a click."""


@dataclass(frozen=True)
class LogStats:
    """What is in a log. `first` and `last` are ISO times. `shown_by_rank` and `clicks_by_rank` count hits; a hit that
    was clicked twice counts once."""

    searches: int
    distinct_queries: int
    without_feedback: int
    without_click: int
    first: str | None
    last: str | None
    feedback: Mapping[str, int]
    not_shown: int
    """Feedback on passages that the search did not show: the right answer that somebody named, or a mistake."""
    collections: Mapping[str, int]
    spaces: Mapping[str, int]
    shown_by_rank: Mapping[int, int]
    clicks_by_rank: Mapping[int, int]
    unclicked_queries: Mapping[str, int]
    """The most frequent queries without a click in any search, and how often they came."""

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


class LogStore:
    """One connection, shared by the threads of a process behind a lock. A writer waits up to `wait` seconds for others.

    Raises:
        LogError: the file cannot be opened, is not a log, or was written by a newer version.
    """

    def __init__(self, path: Path, *, wait: float) -> None:
        self.path = path
        # re-entrant, because a transaction reads inside its own lock
        self._lock = threading.RLock()
        self._depth = 0
        with self.errors("open"):
            # isolation_level=None: transactions are the explicit ones below.
            self._db = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
            try:
                # WAL: readers and writers do not wait for each other. FULL: a commit is on the disk.
                for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
                    self._db.execute(f"PRAGMA {pragma}")
                self._migrate()
            except BaseException:
                self._db.close()
                raise

    def read(self, sql: str, values: Iterable[Any] = ()) -> list[Row]:
        with self._lock, self.errors("read"):
            return self._db.execute(sql, tuple(values)).fetchall()

    def write(self, sql: str, values: Iterable[Any] = ()) -> int:
        """Run one statement inside a `transaction`; returns the number of rows it changed."""
        return self._db.execute(sql, tuple(values)).rowcount

    def write_many(self, sql: str, rows: Iterable[Row]) -> None:
        self._db.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes of the block, or none. Blocks may nest; the outermost commits."""
        with self._lock, self.errors("write"):
            if self._depth == 0:
                # IMMEDIATE takes the lock of writers now: a later upgrade of a read lock would fail, not wait
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._db.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back after some errors, such as a full disk
                if self._depth == 1 and self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def checkpoint(self) -> None:
        """Move everything into the main file and empty the write-ahead log, as far as readers let it."""
        with self._lock, self.errors("write"):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Translate what SQLite and the file system raise."""
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeEncodeError) as error:
            raise LogError(f"cannot {doing} the retrieval log {self.path}: {_reason(error)}") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise LogError(f"{self.path} was written by a newer version (format {version}): upgrade this package")
        if version == len(MIGRATIONS):
            return
        self._db.execute("BEGIN IMMEDIATE")  # one process migrates, the others wait here and find it done
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        for script in MIGRATIONS[version:]:
            # not executescript, which commits the open transaction first
            for statement in script.split(";"):
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        self._db.execute("COMMIT")


def stats_of(store: LogStore, *, top: int) -> LogStats:
    """Count what is in the log, with the `top` most frequent queries that nobody clicked on."""

    def number(sql: str) -> int:
        return int(store.read(sql)[0][0])

    def table(sql: str) -> dict[Any, int]:
        return dict(store.read(sql))

    first, last = store.read("SELECT min(at), max(at) FROM searches")[0]
    unclicked = store.read(
        f"""SELECT query, count(*) AS times FROM searches s GROUP BY query
            HAVING sum(EXISTS ({_CLICKED})) = 0 ORDER BY times DESC, query LIMIT ?""",
        [top],
    )
    return LogStats(
        searches=number("SELECT count(*) FROM searches"),
        distinct_queries=number("SELECT count(DISTINCT query) FROM searches"),
        without_feedback=number(
            "SELECT count(*) FROM searches s WHERE NOT EXISTS (SELECT 1 FROM feedback f WHERE f.seq = s.seq)"
        ),
        without_click=number(f"SELECT count(*) FROM searches s WHERE NOT EXISTS ({_CLICKED})"),
        first=first,
        last=last,
        feedback=table("SELECT kind, count(*) FROM feedback GROUP BY kind ORDER BY kind"),
        not_shown=number(
            """SELECT count(*) FROM feedback f WHERE NOT EXISTS
               (SELECT 1 FROM hits h WHERE h.seq = f.seq AND h.hit_id = f.hit_id)"""
        ),
        collections=table("SELECT collection, count(*) FROM searches GROUP BY collection ORDER BY collection"),
        spaces=table("SELECT space, count(*) FROM searches GROUP BY space ORDER BY space"),
        shown_by_rank=table("SELECT rank, count(*) FROM hits GROUP BY rank ORDER BY rank"),
        clicks_by_rank=table(
            """SELECT rank, count(*) FROM hits h WHERE EXISTS (SELECT 1 FROM feedback f
               WHERE f.seq = h.seq AND f.hit_id = h.hit_id AND f.kind = 'click') GROUP BY rank ORDER BY rank"""
        ),
        unclicked_queries=dict(unclicked),
    )


def _reason(error: Exception) -> str:
    # an extended code has the basic one in its low byte
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{error}: another process has been writing all the time, try again"
    if code == sqlite3.SQLITE_FULL:
        return f"{error}: make room and try again, nothing of this was written"
    return str(error)
