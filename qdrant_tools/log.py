"""Searches and what users did with their results, kept in one SQLite file.

Guarantees: what `record`, `feedback` and `import_jsonl` have returned from is on disk; several threads and processes
may write at once; reading never blocks a writer and holds a few hundred searches at a time; importing a file twice
changes nothing. Searches come out in the order they were written, whatever the clock said.

Does not know: what a click means (see `debias`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log_records import KINDS, Feedback, LoggedHit, LoggedSearch, as_time, check_feedback
from qdrant_tools.records import Hit

__all__ = ["KINDS", "Feedback", "LoggedHit", "LoggedSearch", "RetrievalLog"]

# Each entry brings the file from the version of its index to the next; entries are only ever added.
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
)
PAGE = 256
BUSY_SECONDS = 30.0


class RetrievalLog:
    """A log file, made when it is not there. Usable from several threads; close it, or use it in `with`.

    Raises:
        LogError: the file cannot be opened, is not a log, or was written by a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._errors("open"):
            # isolation_level=None: transactions are the explicit ones below.
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut, not only a crash
                self._db.execute("PRAGMA foreign_keys = ON")
                self._migrate()
            except BaseException:
                self._db.close()
                raise

    def record(
        self, query: str, hits: Sequence[Hit], *, collection: str, space: str, at: datetime | None = None
    ) -> str:
        """Write one search and return its id, to hang feedback on.

        Raises:
            InputError: the query is not a string, or `at` has no time zone.
            LogError: the file cannot be written.
        """
        if not isinstance(query, str):
            raise InputError(f"query is {query!r}, expected a string")
        search = LoggedSearch(
            id=uuid.uuid4().hex,
            at=as_time(at),
            query=query,
            collection=collection,
            space=space,
            hits=tuple(LoggedHit(hit.id, hit.rank, hit.score) for hit in hits),
        )
        with self._transaction():
            self._insert(search)
        return search.id

    def feedback(
        self, search_id: str, hit_id: str, kind: str, value: float = 1.0, *, at: datetime | None = None
    ) -> None:
        """Add what a user did with one hit; an event that equals a written one in everything, time included,
        counts once.

        `value` is seconds for `dwell`, the grade for `rating`, and 1 for the others. Only a hit that was shown can
        be clicked or dwelt on; a rating, a thumb or a citation may name any passage.

        Raises:
            InputError: no such kind, or a value that the kind cannot have.
            LogError: no such search, or a click on what it did not show.
        """
        event = Feedback(hit_id, kind, value, as_time(at))
        check_feedback(event)
        with self._transaction():
            row = self._db.execute("SELECT seq FROM searches WHERE id = ?", (search_id,)).fetchone()
            if row is None:
                raise LogError(f"no search {search_id!r} in {self.path}: give the id that record() returned")
            if kind in ("click", "dwell") and not self._was_shown(row[0], hit_id):
                raise LogError(f"search {search_id!r} did not show {hit_id!r}, so it cannot have a {kind}")
            self._insert_feedback(row[0], [event])

    def searches(self) -> Iterator[LoggedSearch]:
        """All searches with their hits and feedback, in the order they were written."""
        last = 0
        while page := self._page(last):
            last = page[-1][0]
            yield from (search for _, search in page)

    def export_jsonl(self, path: str | Path) -> int:
        """Write one JSON row per search; returns their number. The file appears whole or not at all."""
        target = Path(path)
        draft = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        count = 0
        try:
            with self._errors("export"), draft.open("w", encoding="utf-8") as file:
                for search in self.searches():
                    file.write(json.dumps(search.as_row(), ensure_ascii=False) + "\n")
                    count += 1
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return count

    def import_jsonl(self, path: str | Path) -> int:
        """Add the searches of a JSONL file; returns how many were new. Feedback on known ones is merged in.

        Raises:
            LogError: the file cannot be read, or a row is not a logged search; nothing of the file is kept then.
        """
        added = 0
        with self._transaction():
            for search in _rows(Path(path)):
                added += self._insert(search)
        return added

    def __len__(self) -> int:
        with self._lock, self._errors("read"):
            return int(self._db.execute("SELECT count(*) FROM searches").fetchone()[0])

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> RetrievalLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _insert(self, search: LoggedSearch) -> bool:
        """Insert a search unless its id is there, and its feedback either way."""
        cursor = self._db.execute(
            "INSERT INTO searches (id, at, query, collection, space) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (search.id, _stored_time(search.at), search.query, search.collection, search.space),
        )
        (seq,) = self._db.execute("SELECT seq FROM searches WHERE id = ?", (search.id,)).fetchone()
        if cursor.rowcount:
            self._db.executemany(
                "INSERT INTO hits VALUES (?, ?, ?, ?)", [(seq, hit.rank, hit.id, hit.score) for hit in search.hits]
            )
        self._insert_feedback(seq, search.feedback)
        return bool(cursor.rowcount)

    def _insert_feedback(self, seq: int, events: Iterable[Feedback]) -> None:
        self._db.executemany(
            "INSERT INTO feedback VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(seq, event.id, event.kind, event.value, _stored_time(event.at)) for event in events],
        )

    def _was_shown(self, seq: int, hit_id: str) -> bool:
        found = self._db.execute("SELECT 1 FROM hits WHERE seq = ? AND hit_id = ?", (seq, hit_id)).fetchone()
        return found is not None

    def _page(self, after: int) -> list[tuple[int, LoggedSearch]]:
        with self._lock, self._errors("read"):
            rows = self._db.execute(
                "SELECT seq, id, at, query, collection, space FROM searches WHERE seq > ? ORDER BY seq LIMIT ?",
                (after, PAGE),
            ).fetchall()
            if not rows:
                return []
            span = (rows[0][0], rows[-1][0])
            hits: dict[int, list[LoggedHit]] = {}
            for seq, hit_id, rank, score in self._db.execute(
                "SELECT seq, hit_id, rank, score FROM hits WHERE seq BETWEEN ? AND ? ORDER BY seq, rank", span
            ):
                hits.setdefault(seq, []).append(LoggedHit(hit_id, rank, score))
            events: dict[int, list[Feedback]] = {}
            for seq, hit_id, kind, value, at in self._db.execute(
                "SELECT seq, hit_id, kind, value, at FROM feedback WHERE seq BETWEEN ? AND ? ORDER BY seq, at", span
            ):
                events.setdefault(seq, []).append(Feedback(hit_id, kind, value, datetime.fromisoformat(at)))
        return [
            (
                seq,
                LoggedSearch(
                    search_id,
                    datetime.fromisoformat(at),
                    query,
                    collection,
                    space,
                    tuple(hits.get(seq, ())),
                    tuple(events.get(seq, ())),
                ),
            )
            for seq, search_id, at, query, collection, space in rows
        ]

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise LogError(f"{self.path} was written by a newer version (format {version}): upgrade this package")
        if version == len(MIGRATIONS):
            return
        self._db.execute("BEGIN IMMEDIATE")  # one process migrates, the others wait here and find it done
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        for script in MIGRATIONS[version:]:
            for statement in script.split(";"):
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        self._db.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._errors("write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LogError(f"cannot {doing} the retrieval log {self.path}: {error}") from error


def _rows(path: Path) -> Iterator[LoggedSearch]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield LoggedSearch.from_row(json.loads(line))
            except (InputError, json.JSONDecodeError) as error:
                raise LogError(f"{path}, line {number}: not a logged search: {error}") from error


def _stored_time(at: datetime) -> str:
    # Fixed width, so that the text sorts as the time does.
    return at.astimezone(UTC).isoformat(timespec="microseconds")
