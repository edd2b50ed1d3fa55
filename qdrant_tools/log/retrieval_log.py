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
from datetime import datetime
from pathlib import Path
from types import TracebackType

from qdrant_tools.errors import InputError, LogError, UsageError
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.written import is_same_file, refuse_existing, write_rows
from qdrant_tools.log.answers import (
    add_answer,
    add_verdicts,
    drop_answers_of_no_search,
    redact_answers,
    stored_time,
)
from qdrant_tools.log.pages import page_of
from qdrant_tools.log.records import (
    REDACTED,
    Answer,
    Feedback,
    LoggedHit,
    LoggedSearch,
    Verdict,
    answer_redacted_by,
    as_time,
    check_answer,
    check_feedback,
    check_search,
    check_verdict,
    redacted_by,
    search_redacted_by,
    session_redacted_by,
    verdict_redacted_by,
)
from qdrant_tools.log.stats import Added, LogStats, stats_of
from qdrant_tools.log.store import LogStore
from qdrant_tools.log.values import finite
from qdrant_tools.records import Hit
from qdrant_tools.same import query_key
from qdrant_tools.validation import brief

WAIT_SECONDS = 30.0
_AFTER_ALL_TIMES = ":"
"""Sorts behind every stored time, which begins with a digit."""


class RetrievalLog:
    """A log file, made when it is not there. Usable from several threads; close it, or use it in `with`.

    `redact` is applied to every query and session before it is written, so that the text never reaches the disk;
    `dropped` and `hashed` are such rules. A writer waits up to `wait` seconds for other processes that write. With
    `read_only` the file must be there and stays as it is; an older one is not brought up to date.

    Raises:
        LogError: the file cannot be opened, is not a log, or was written by a newer version.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        redact: Callable[[str], str] | None = None,
        wait: float = WAIT_SECONDS,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self._redact = redact
        self._store = LogStore(self.path, wait=wait, read_only=read_only)

    def record(
        self,
        query: str,
        hits: Sequence[Hit],
        *,
        collection: str,
        space: str,
        at: datetime | None = None,
        session: str = "",
        user: str = "",
    ) -> str:
        """Write one search and return its id, which `feedback` takes.

        session: names the searches that belong together, best by something that is no person's name; so does `user`
        those of one person.

        Raises:
            InputError: the query is not a string, or `at` has no time zone.
            LogError: the file cannot be written.
        """
        if not isinstance(query, str):
            raise InputError(f"query is {brief(query)}, expected a string")
        # a score that is no number says nothing, and is no reason to lose the search
        shown = tuple(LoggedHit(hit.id, hit.rank, finite(hit.score)) for hit in hits)
        search = LoggedSearch(
            uuid.uuid4().hex, as_time(at), query, collection, space, shown, session=session, user=user
        )
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
            seq = self._number_of(search_id)
            is_shown = self._store.read("SELECT 1 FROM hits WHERE seq = ? AND hit_id = ? LIMIT 1", [seq, hit_id])
            if kind in ("click", "dwell") and not is_shown:
                # one of its ids says of what kind they are: often another is given, such as that of the document
                shown = self._store.read("SELECT hit_id FROM hits WHERE seq = ? LIMIT 1", [seq])
                what = f"its hits have ids such as {brief(shown[0][0])}" if shown else "it had no hits"
                raise LogError(
                    f"search {brief(search_id)} did not show {brief(hit_id)}, so it cannot have a {kind}: {what}"
                )
            self._insert_feedback(seq, [event])

    def answered(
        self, search_ids: Sequence[str], text: str, *, context: Sequence[str] = (), cited: Sequence[str] = ()
    ) -> str:
        """Write the answer that an application made of what these searches found; returns its id.

        context: the ids of the passages that the language model saw, in that order. cited: of those that the answer
        refers to. Neither is a label of a passage: the rules of `debias` ask for more.

        Raises:
            InputError: no search, or an id that is none.
            LogError: no such search, or one that has another answer; or the file cannot be written.
        """
        if isinstance(search_ids, str) or not search_ids:
            raise InputError(f"searches are {brief(search_ids)}, expected a list of the ids that record() returned")
        answer = Answer(uuid.uuid4().hex, text, len(search_ids), tuple(context), tuple(cited))
        check_answer(answer)
        if self._redact is not None:
            answer = replace(answer, text=answer_redacted_by(self._redact, text))
        with self._store.transaction():
            for search_id in search_ids:
                answer = replace(answer, id=self._insert_answer(self._number_of(search_id), answer)[0])
                ((written,),) = self._store.read("SELECT text FROM answers WHERE id = ?", [answer.id])
                # of a redacted search no text is written
                if written and written != answer.text:
                    raise LogError(f"search {brief(search_id)} has another answer already: record one search for each")
        return answer.id

    def answer_feedback(
        self,
        search_id: str,
        kind: str = "thumb",
        value: float = 1.0,
        *,
        at: datetime | None = None,
        by: str = "person",
        name: str = "",
        who: str = "",
        text: str = "",
    ) -> None:
        """Add what somebody said of the whole answer that was made of a search: a thumb is no label of its hits.

        `kind` is one of `VERDICTS`, `by` one of `JUDGES`. A later verdict of one kind, name and person (`who`) replaces
        an earlier one. Searches that share the answer (`answered`) share what is said of it.

        Raises:
            InputError: no such kind, or a value that the kind cannot have.
            LogError: no such search.
        """
        verdict = Verdict(kind, value, as_time(at), by, name, who, text)
        check_verdict(verdict)
        if self._redact is not None:
            verdict = verdict_redacted_by(self._redact, verdict)
        with self._store.transaction():
            self._insert_answer(self._number_of(search_id), Answer(search_id, verdicts=(verdict,)))

    def add_verdicts(self, answer_id: str, verdicts: Iterable[Verdict]) -> bool:
        """Add what was said of an answer, as `answer_feedback` does; returns whether there is such an answer.

        Raises:
            InputError: a verdict is none.
        """
        said = list(verdicts)
        for verdict in said:
            check_verdict(verdict)
        if self._redact is not None:
            rule = self._redact
            said = [verdict_redacted_by(rule, verdict) for verdict in said]
        with self._store.transaction():
            rows = self._store.read("SELECT seq FROM answers WHERE id = ?", [answer_id])
            for (seq,) in rows:
                add_verdicts(self._store, seq, said)
        return bool(rows)

    @contextmanager
    def batch(self, *, forks_wait: bool = False) -> Iterator[None]:
        """Write everything in the block at once: much faster, durable when the block ends, nothing if it fails.

        Other threads and processes that write wait meanwhile. A process that is forked meanwhile cannot use this log,
        and is told so. With `forks_wait`, other threads fork only when the block has ended: it must not wait for them.
        """
        with self._store.transaction(forks_wait=forks_wait):
            yield

    def extend(self, searches: Iterable[LoggedSearch]) -> int:
        """Add searches from elsewhere, all or none; returns how many were new.

        A search that is there already only gets the feedback and the verdicts that it lacks, and an answer if it has
        none.

        Raises:
            InputError: a search is there already with another query: the ids are those of two logs.
        """
        return self.add(searches).searches

    def add(self, searches: Iterable[LoggedSearch]) -> Added:
        """As `extend`; returns what was new, also of searches that are there already."""
        with self._store.transaction(forks_wait=False):
            counts = [0, 0, 0, 0]
            for search in searches:
                counts = [sum(pair) for pair in zip(counts, self._insert(search), strict=True)]
            return Added(*counts)

    def searches(self, *, collection: str | None = None, last: int | None = None) -> Iterator[LoggedSearch]:
        """Yield searches with their hits and feedback, in the order they were written.

        collection: only the searches in it. last: only so many, the last ones.
        """
        # a page is read whole: an open read would keep the write-ahead log from being emptied while the caller works
        after = 0 if last is None else self._before_last(last, collection)
        while page := page_of(self._store, after, collection):
            after = page[-1][0]
            yield from (search for _, search in page)

    def export_jsonl(self, path: str | Path, *, overwrite: bool = False) -> int:
        """Write one JSON row per search; returns their number. The file appears whole or not at all.

        Raises:
            LogError: it cannot be written.
            UsageError: it exists, and may not be replaced, or is this log.
        """
        if not overwrite:
            refuse_existing(path)
        if is_same_file(path, self.path):
            raise UsageError(f"{path} is the retrieval log itself: give the export another name")
        try:
            return write_rows(path, (search.as_row() for search in self.searches()), overwrite=overwrite)
        except UsageError as error:
            raise LogError(f"cannot export the retrieval log {self._store.path}: {error}") from error

    def import_jsonl(self, path: str | Path) -> int:
        """Add the searches of an exported file, as `extend` does.

        Raises:
            LogError: the file cannot be read, or a row is not a logged search; nothing of the file is kept then.
        """
        with self._store.errors("import into"):
            return self.extend(exported_searches(path))

    def redacted(self, search: LoggedSearch) -> LoggedSearch:
        """What the rule of this log leaves of a search; all of it without a rule."""
        if self._redact is None:
            return search
        return search_redacted_by(self._redact, search)

    def stats(self, *, top: int = 10) -> LogStats:
        """What is in the log: counts, clicks by rank, and the `top` most frequent queries that nobody clicked on."""
        return stats_of(self._store, top=top)

    def forget(self, *, before: datetime) -> int:
        """Delete all searches of an earlier time, with their hits and feedback; returns how many are gone.

        Nothing of them is left in the file: it is rewritten, and writers wait meanwhile.

        Raises:
            LogError: they are deleted, but another process still reads what was there before, or the disk is full:
                the next call takes their texts out of the file. Or the file is damaged, and nothing was deleted.
            UsageError: called inside of `batch`.
        """
        self._store.require_sound()
        with self._store.transaction():
            # hits and feedback go with their search: ON DELETE CASCADE
            deleted = self._store.write("DELETE FROM searches WHERE at < ?", [stored_time(as_time(before))])
            drop_answers_of_no_search(self._store)
        self._purge(f"{deleted} searches are deleted")
        return deleted

    def redact(self, rule: Callable[[str], str], *, before: datetime | None = None) -> int:
        """Replace the query of every search by what the rule makes of it; returns how many searches have changed.

        So are the names of its session and its user, which may be a person's: `dropped` takes them out, and equal
        hashes stay equal. Of its answer, the text and the comments that a hash would replace are taken out.

        Nothing of them is left in the file, nor of any text that was deleted earlier: the file is rewritten, and
        writers wait meanwhile. Raises as `forget`.

        before: only searches of an earlier time.
        """
        changed = 0
        limit = _AFTER_ALL_TIMES if before is None else stored_time(as_time(before))
        self._store.require_sound()
        with self._store.transaction(forks_wait=False):
            last = 0
            # few at a time, because some queries are megabytes long
            sql = (
                "SELECT seq, query, redacted, session, user, answer FROM searches WHERE seq > ? AND at < ? "
                "ORDER BY seq LIMIT 16"
            )
            while rows := self._store.read(sql, [last, limit]):
                last = rows[-1][0]
                updates = []
                for seq, query, redacted, session, user, _ in rows:
                    if not all(isinstance(text, str) for text in (query, session, user)):
                        raise self._store.damaged("searches", seq, "the query is not UTF-8")
                    people = session_redacted_by(rule, session), session_redacted_by(rule, user)
                    result = (*redacted_by(rule, query, bool(redacted)), *people)
                    if result != (query, bool(redacted), session, user):
                        updates.append((*result, seq))
                self._store.write_many(
                    "UPDATE searches SET query = ?, redacted = ?, session = ?, user = ? WHERE seq = ?", updates
                )
                # an answer of several searches stands once
                redact_answers(self._store, sorted({row[-1] for row in rows} - {None}), rule)
                changed += len(updates)
            drop_answers_of_no_search(self._store)
        self._purge(f"{changed} queries are redacted")
        return changed

    def has(self, search_id: str) -> bool:
        """Whether a search is there."""
        return bool(self._store.read("SELECT 1 FROM searches WHERE id = ?", [search_id]))

    def shown_at(self, search_id: str, rank: int) -> str | None:
        """The id of the hit of that rank; None if there is no such search or hit."""
        sql = "SELECT hit_id FROM hits WHERE seq = (SELECT seq FROM searches WHERE id = ?) AND rank = ?"
        rows = self._store.read(sql, [search_id, rank])
        return str(rows[0][0]) if rows else None

    def __len__(self) -> int:
        # not `count(*)`, which SQLite answers without looking at how long it takes: a damaged file can be endless
        return int(self._store.read("SELECT total(1) FROM searches")[0][0])

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> RetrievalLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _purge(self, done: str) -> None:
        try:
            self._store.purge()
        except LogError as error:
            raise LogError(f"{done}, but not yet gone: {error}") from error

    def _insert(self, search: LoggedSearch) -> Added:
        """Insert a search unless its id is there, and its feedback and answer either way."""
        check_search(search)
        if self._redact is not None:
            search = search_redacted_by(self._redact, search)
        # DO NOTHING: a search that is there already stays as it is, so that importing twice changes nothing
        is_new = self._store.write(
            "INSERT INTO searches (id, at, query, collection, space, redacted, session, user, generated, scored_by) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (search.id, stored_time(search.at), search.query, search.collection, search.space, search.redacted)
            + (search.session, search.user, search.generated, search.scored_by),
        )
        if is_new:
            ((seq,),) = self._store.read("SELECT seq FROM searches WHERE id = ?", [search.id])
        else:
            seq = self._known_as(search.id, search.query, search.redacted)
        if is_new:
            shown = {hit.rank: (seq, int(hit.rank), hit.id, finite(hit.score)) for hit in search.hits}
            if len(shown) < len(search.hits):
                raise InputError(f"search {brief(search.id)} has two hits of one rank: number them from 1")
            self._store.write_many("INSERT INTO hits VALUES (?, ?, ?, ?)", shown.values())
        events = self._insert_feedback(seq, search.feedback)
        is_answer, verdicts = False, 0
        if search.answer is not None:
            _, is_answer, verdicts = self._insert_answer(seq, search.answer)
        return Added(1) if is_new else Added(0, int(is_answer), verdicts, events)

    def _number_of(self, search_id: str) -> int:
        rows = self._store.read("SELECT seq FROM searches WHERE id = ?", [search_id])
        if not rows:
            raise LogError(f"no search {brief(search_id)} in {self.path}: give the id that record() returned")
        return int(rows[0][0])

    def _insert_answer(self, seq: int, answer: Answer) -> tuple[str, bool, int]:
        """Give a search its answer; a search that has one keeps it, under its id, and gets what that lacks.

        Returns the id of the answer, whether the search had none, and how many verdicts are new.
        """
        ((redacted, known),) = self._store.read(
            "SELECT redacted, (SELECT a.id FROM answers a WHERE a.seq = answer) FROM searches WHERE seq = ?", [seq]
        )
        # no text comes back to a search whose query has been taken out
        if redacted:
            verdicts = tuple(replace(verdict, text="") for verdict in answer.verdicts)
            answer = replace(answer, text="", verdicts=verdicts)
        number, said = add_answer(self._store, answer if known is None else replace(answer, id=known))
        if known is None:
            self._store.write("UPDATE searches SET answer = ? WHERE seq = ?", [number, seq])
        return (answer.id if known is None else str(known)), known is None, said

    def _known_as(self, search_id: str, query: str, redacted: bool) -> int:
        """The number of a search that is there already. Raises `InputError` if it has another query."""
        ((seq, known, hidden),) = self._store.read(
            "SELECT seq, query, redacted FROM searches WHERE id = ?", [search_id]
        )
        # two hashes of one secret can be compared, a hash and a text cannot
        comparable = bool(hidden) == redacted and REDACTED not in (known, query)
        if comparable and isinstance(known, str) and query_key(known) != query_key(query):
            raise InputError(
                f"search {brief(search_id)} is in {self.path} already, with another query: ids that count from 1 in "
                "every file are of no use here, leave the column out or join it with the file's name"
            )
        return int(seq)

    def _insert_feedback(self, seq: int, events: Iterable[Feedback]) -> int:
        return self._store.write_many(
            "INSERT INTO feedback (seq, hit_id, kind, value, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(seq, event.id, event.kind, float(event.value), stored_time(event.at)) for event in events],
        )

    def _before_last(self, last: int, collection: str | None) -> int:
        """The number of the search before the last so many ones; 0 if there are no more."""
        sql = "SELECT seq FROM searches WHERE ?1 IS NULL OR collection = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2"
        rows = self._store.read(sql, [collection, last])
        return int(rows[0][0]) if rows else 0


def exported_searches(path: str | Path) -> Iterator[LoggedSearch]:
    """The searches of a file that `export_jsonl` wrote. Raises `LogError` for a row that is none."""
    try:
        for row in read_rows(path):
            yield row.parse(LoggedSearch.from_row, "a logged search")
    except InputError as error:
        raise LogError(str(error)) from error
