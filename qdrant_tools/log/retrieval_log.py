"""Searches and what users did with their results, kept in one SQLite file.

Guarantees: what `record`, `feedback`, `extend` and `import_jsonl` have returned from is on disk; several threads and
processes may write at once; reading never blocks a writer and holds a few hundred searches at a time; importing a
file twice changes nothing. Searches come out in the order they were written, whatever the clock said.

Does not know: what a click means (see `debias`), and how other systems write their logs (see `log.readers`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from qdrant_tools.errors import InputError, LogError, UsageError
from qdrant_tools.files import read_rows, write_rows
from qdrant_tools.log.records import Feedback, LoggedHit, LoggedSearch, as_time, check_feedback
from qdrant_tools.log.store import LogStats, LogStore, stats_of
from qdrant_tools.records import Hit

PAGE = 256
WAIT_SECONDS = 30.0
_AFTER_ALL_TIMES = ":"
"""Sorts behind every stored time, which begins with a digit."""


class RetrievalLog:
    """A log file, made when it is not there. Usable from several threads; close it, or use it in `with`.

    `redact` is applied to every query before it is written, so that the text never reaches the disk; `dropped` and
    `hashed` are such rules. A writer waits up to `wait` seconds for other processes that write.

    Raises:
        LogError: the file cannot be opened, is not a log, or was written by a newer version.
    """

    def __init__(
        self, path: str | Path, *, redact: Callable[[str], str] | None = None, wait: float = WAIT_SECONDS
    ) -> None:
        self.path = Path(path)
        self._redact = redact
        self._store = LogStore(self.path, wait=wait)

    def record(
        self, query: str, hits: Sequence[Hit], *, collection: str, space: str, at: datetime | None = None
    ) -> str:
        """Write one search and return its id, which `feedback` takes.

        Raises:
            InputError: the query is not a string, or `at` has no time zone.
            LogError: the file cannot be written.
        """
        if not isinstance(query, str):
            raise InputError(f"query is {query!r}, expected a string")
        shown = tuple(LoggedHit(hit.id, hit.rank, hit.score) for hit in hits)
        search = LoggedSearch(uuid.uuid4().hex, as_time(at), query, collection, space, shown)
        with self._store.transaction():
            self._insert(search)
        return search.id

    def feedback(
        self, search_id: str, hit_id: str, kind: str, value: float = 1.0, *, at: datetime | None = None
    ) -> None:
        """Add what a user did with one hit; an event that equals a written one, time included, counts once.

        `value` is seconds for `dwell`, the grade for `rating`, and 1 for the others. Only a hit that was shown can
        be clicked or dwelt on; a rating, a thumb or a citation may name any passage.

        Raises:
            InputError: no such kind, or a value that the kind cannot have.
            LogError: no such search, or a click on what it did not show.
        """
        event = Feedback(hit_id, kind, value, as_time(at))
        check_feedback(event)
        with self._store.transaction():
            rows = self._store.read("SELECT seq FROM searches WHERE id = ?", [search_id])
            if not rows:
                raise LogError(f"no search {search_id!r} in {self.path}: give the id that record() returned")
            seq = rows[0][0]
            is_shown = self._store.read("SELECT 1 FROM hits WHERE seq = ? AND hit_id = ? LIMIT 1", [seq, hit_id])
            if kind in ("click", "dwell") and not is_shown:
                raise LogError(f"search {search_id!r} did not show {hit_id!r}, so it cannot have a {kind}")
            self._insert_feedback(seq, [event])

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write everything in the block at once: much faster, durable when the block ends, nothing if it fails.

        Other threads and processes that write wait meanwhile.
        """
        with self._store.transaction():
            yield

    def extend(self, searches: Iterable[LoggedSearch]) -> int:
        """Add searches from elsewhere, all or none; returns how many were new.

        A search that is there already only gets the feedback that it lacks.
        """
        with self._store.transaction():
            return sum(self._insert(search) for search in searches)

    def searches(self, *, collection: str | None = None, last: int | None = None) -> Iterator[LoggedSearch]:
        """Yield searches with their hits and feedback, in the order they were written.

        collection: only the searches in it. last: only so many, the last ones.
        """
        # a page is read whole: an open read would keep the write-ahead log from being emptied while the caller works
        after = 0 if last is None else self._before_last(last, collection)
        while page := self._page(after, collection):
            after = page[-1][0]
            yield from (search for _, search in page)

    def export_jsonl(self, path: str | Path) -> int:
        """Write one JSON row per search; returns their number. The file appears whole or not at all."""
        try:
            return write_rows(path, (search.as_row() for search in self.searches()))
        except UsageError as error:
            raise LogError(f"cannot export the retrieval log {self._store.path}: {error}") from error

    def import_jsonl(self, path: str | Path) -> int:
        """Add the searches of an exported file, as `extend` does.

        Raises:
            LogError: the file cannot be read, or a row is not a logged search; nothing of the file is kept then.
        """
        with self._store.errors("import into"):
            return self.extend(_rows(path))

    def stats(self, *, top: int = 10) -> LogStats:
        """What is in the log: counts, clicks by rank, and the `top` most frequent queries that nobody clicked on."""
        return stats_of(self._store, top=top)

    def forget(self, *, before: datetime) -> int:
        """Delete all searches of an earlier time, with their hits and feedback; returns how many."""
        with self._store.transaction():
            # hits and feedback go with their search: ON DELETE CASCADE
            deleted = self._store.write("DELETE FROM searches WHERE at < ?", [_stored_time(as_time(before))])
        self._store.checkpoint()  # until then the deleted text is still in the write-ahead log
        return deleted

    def redact(self, rule: Callable[[str], str], *, before: datetime | None = None) -> int:
        """Replace the query of every search by what the rule makes of it; returns how many changed.

        before: only searches of an earlier time. The old text is overwritten in the file; in the write-ahead log it
        may stay until other processes have finished reading.
        """
        changed = 0
        limit = _AFTER_ALL_TIMES if before is None else _stored_time(as_time(before))
        with self._store.transaction():
            last = 0
            sql = "SELECT seq, query FROM searches WHERE seq > ? AND at < ? ORDER BY seq LIMIT ?"
            while rows := self._store.read(sql, [last, limit, PAGE]):
                last = rows[-1][0]
                redacted = [(rule(query), seq, query) for seq, query in rows]
                updates = [(text, seq) for text, seq, query in redacted if text != query]
                self._store.write_many("UPDATE searches SET query = ? WHERE seq = ?", updates)
                changed += len(updates)
        self._store.checkpoint()
        return changed

    def __len__(self) -> int:
        return int(self._store.read("SELECT count(*) FROM searches")[0][0])

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> RetrievalLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _insert(self, search: LoggedSearch) -> bool:
        """Insert a search unless its id is there, and its feedback either way."""
        if self._redact is not None:
            search = replace(search, query=self._redact(search.query))
        # DO NOTHING: a search that is there already stays as it is, so that importing twice changes nothing
        is_new = self._store.write(
            "INSERT INTO searches (id, at, query, collection, space) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (search.id, _stored_time(search.at), search.query, search.collection, search.space),
        )
        ((seq,),) = self._store.read("SELECT seq FROM searches WHERE id = ?", [search.id])
        if is_new:
            shown = {hit.rank: (seq, hit.rank, hit.id, hit.score) for hit in search.hits}
            if len(shown) < len(search.hits):
                raise InputError(f"search {search.id!r} has two hits of one rank: number them from 1")
            self._store.write_many("INSERT INTO hits VALUES (?, ?, ?, ?)", shown.values())
        self._insert_feedback(seq, search.feedback)
        return bool(is_new)

    def _insert_feedback(self, seq: int, events: Iterable[Feedback]) -> None:
        self._store.write_many(
            "INSERT INTO feedback (seq, hit_id, kind, value, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(seq, event.id, event.kind, event.value, _stored_time(event.at)) for event in events],
        )

    def _before_last(self, last: int, collection: str | None) -> int:
        """The number of the search before the last so many ones; 0 if there are no more."""
        sql = "SELECT seq FROM searches WHERE ?1 IS NULL OR collection = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2"
        rows = self._store.read(sql, [collection, last])
        return int(rows[0][0]) if rows else 0

    def _page(self, after: int, collection: str | None) -> list[tuple[int, LoggedSearch]]:
        """Up to `PAGE` searches after a number, with their numbers: the order of writing."""
        sql = "SELECT * FROM searches WHERE seq > ?1 AND (?2 IS NULL OR collection = ?2) ORDER BY seq LIMIT ?3"
        rows = self._store.read(sql, [after, collection, PAGE])
        if not rows:
            return []
        # by range instead of by join: one row per search and one per hit, not their product
        span = (rows[0][0], rows[-1][0])
        hits: dict[int, list[LoggedHit]] = {}
        sql = "SELECT seq, hit_id, rank, score FROM hits WHERE seq BETWEEN ? AND ? ORDER BY seq, rank"
        for seq, hit_id, rank, score in self._store.read(sql, span):
            hits.setdefault(seq, []).append(LoggedHit(hit_id, rank, score))
        events: dict[int, list[Feedback]] = {}
        sql = "SELECT seq, hit_id, kind, value, at FROM feedback WHERE seq BETWEEN ? AND ? ORDER BY seq, at, number"
        for seq, hit_id, kind, value, at in self._store.read(sql, span):
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


def _rows(path: str | Path) -> Iterator[LoggedSearch]:
    try:
        for row in read_rows(path):
            yield row.parse(LoggedSearch.from_row, "a logged search")
    except InputError as error:
        raise LogError(str(error)) from error


def _stored_time(at: datetime) -> str:
    # Fixed width, so that the text sorts as the time does.
    return at.astimezone(UTC).isoformat(timespec="microseconds")
