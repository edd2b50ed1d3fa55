"""Files of click logs -> logged searches; which form they have is told by their rows.

Guarantees: the files may come in any order and their rows too; a file none of whose rows is understood is an error;
what is left out is said by reason when all searches were taken. Memory does not grow with the files. Does not know: the
retrieval log, whose `extend` takes the searches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_tools.clicks.cells import documents_in
from qdrant_tools.clicks.engines import Azure, Elastic, Ubi
from qdrant_tools.clicks.joining import Joiner, judged_search
from qdrant_tools.clicks.judgments import Judgments
from qdrant_tools.clicks.records import Asked, ClickForm, ClickSettings, Done, Judged
from qdrant_tools.clicks.services import Algolia, GoogleAnalytics, Meilisearch, Typesense
from qdrant_tools.errors import InputError, LogError, UsageError, brief
from qdrant_tools.files.rows import Row
from qdrant_tools.log.readers import modified
from qdrant_tools.log.records import LoggedSearch, check_search
from qdrant_tools.traces.files.rows import TraceFile

FORMS: Mapping[str, ClickForm] = {
    form.name: form
    for form in (Ubi(), Elastic(), Algolia(), Azure(), GoogleAnalytics(), Meilisearch(), Typesense(), Judgments())
}
"""By the name in `--format`."""

_LOOKED_AT = 200
"""Rows of each file that tell its form."""


def form_of(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The name of the form that claims any of the rows; None if none does, or two do."""
    each = (fields for row in rows for fields in documents_in(row))
    found = {form.name for fields in each for form in FORMS.values() if form.recognises(fields)}
    return found.pop() if len(found) == 1 else None


def read_clicks(
    paths: str | Path | Sequence[str | Path],
    *,
    form: str | None = None,
    settings: ClickSettings | None = None,
) -> ClickReader:
    """The searches of click logs, one after the other in the order of time.

    paths: all files of one log: of UBI the queries and the events, of Algolia the events and the searches.
    form: one of `FORMS`; what the rows are, if None.

    Raises:
        UsageError: no such form.
        LogError: a file cannot be read, or no row of it is of the form; the rows of the files are of several forms.
    """
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [Path(path) for path in named]
    if not files:
        raise UsageError("no files: name those of the click log")
    if form is not None and form not in FORMS:
        raise UsageError(f"form is {brief(form)}, expected one of {', '.join(FORMS)}")
    return ClickReader(files, FORMS[form] if form else _detected(files), settings or ClickSettings())


def _detected(files: Sequence[Path]) -> ClickForm:
    by_file = {}
    for path in files:
        with_row = list(islice(_rows(TraceFile(path)), _LOOKED_AT))
        found = form_of(row.values for row in with_row)
        if found is None:
            raise LogError(f"{path}: its first rows are of no click log that is known: say form ({', '.join(FORMS)})")
        by_file[found] = path
    if len(by_file) > 1:
        told = ", ".join(f"{path} ({form})" for form, path in by_file.items())
        raise LogError(f"these are click logs of several forms: {told}: read them one after the other")
    return FORMS[next(iter(by_file))]


def _rows(file: TraceFile) -> Iterator[Row]:
    try:
        for row in file.rows():
            yield from (Row(fields, row.path, row.line) for fields in documents_in(row.values))
    except InputError as error:
        raise LogError(str(error)) from error


class ClickReader(Iterator[LoggedSearch]):
    """The searches of click logs, one after the other. `form` is the name of theirs.

    When all were taken, `dropped` counts what was left out by reason, and `notes` says that and whatever else was odd.
    """

    def __init__(self, files: Sequence[Path], form: ClickForm, settings: ClickSettings) -> None:
        self._files, self._form, self._settings = files, form, settings
        self._odd: list[str] = []
        self.form = form.name
        self._joiner: Joiner | None = None
        self._other: Counter[str] = Counter()
        self._found = 0
        self._searches = self._read()

    def __next__(self) -> LoggedSearch:
        return next(self._searches)

    @property
    def dropped(self) -> Mapping[str, int]:
        joined = Counter() if self._joiner is None else self._joiner.dropped
        return {reason: count for reason, count in (self._other + joined).most_common() if count}

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes())

    def _read(self) -> Iterator[LoggedSearch]:
        # not the time of the import: the same files must give equal searches when they are read again
        default = max(map(modified, self._files))
        self._joiner = joiner = Joiner(self._form, self._settings, default)
        for path in self._files:
            yield from self._read_file(path, joiner, default)
        for search in joiner.searches():
            check_search(search)
            self._found += 1
            yield search
        if not self._found:
            raise LogError(f"{self._named()}: {self._why_nothing()}")

    def _named(self) -> str:
        return ", ".join(map(str, self._files[:3])) + (", ..." if len(self._files) > 3 else "")

    def _why_nothing(self) -> str:
        reasons = "; ".join(f"{count:,} × {reason}" for reason, count in islice(self.dropped.items(), 3))
        return f"no search can be read out of this log of {self.form}: {reasons or 'it has no rows'}"

    def _read_file(self, path: Path, joiner: Joiner, default: datetime) -> Iterator[LoggedSearch]:
        understood = 0
        file = TraceFile(path)
        for row in _rows(file):
            if not self._form.recognises(row.values):
                self._other[f"rows that are none of {self.form}"] += 1
                continue
            understood += 1
            try:
                for entry in self._form.read(row.values, self._settings):
                    if isinstance(entry, Asked | Done):
                        joiner.add(entry)
                    elif isinstance(entry, Judged):
                        search = judged_search(entry, self.form, default)
                        check_search(search)
                        self._found += 1
                        yield search
                    else:
                        few = len(self._other) < 1000 or entry.reason in self._other
                        self._other[entry.reason if few else "others"] += 1
            except InputError as error:
                raise LogError(f"{row.where}: {error}") from error
        self._odd += file.notes
        if not understood:
            raise LogError(f"{path}: no row of it is of {self.form}: leave the file out, or say another form")

    def _notes(self) -> Iterator[str]:
        yield from self._odd
        yield from (f"left out: {count:,} × {reason}" for reason, count in self.dropped.items())
        joiner = self._joiner
        if joiner is None:
            return
        if joiner.actions:
            told = ", ".join(f"{brief(action)} ({count:,})" for action, count in joiner.actions.most_common(10))
            yield (
                f"actions that are no feedback: {told}; name those that are a click as such (--click NAME), and those "
                "that say that a hit was right, such as a purchase, as a thumb up (--up NAME), or that it was wrong, "
                "such as a dislike, as a thumb down (--down NAME)"
            )
        yield from (f"no row has the action {brief(action)} that was named" for action in sorted(joiner.told))
        if len(joiner.indexes) > 1:
            told = ", ".join(f"{brief(index)} ({count:,})" for index, count in joiner.indexes.most_common(5))
            yield f"the searches are of several indexes: {told}; leave out those that the collection does not hold"
        counts = joiner.counts
        if unlisted := counts["searches whose list no file has"]:
            yield (
                f"{unlisted:,} searches have clicks, and no file says what they showed: the clicks count, and neither "
                "positions nor what was passed over can be judged"
            )
        if turned := counts["lists in another order than the positions of the clicks"]:
            yield f"{turned:,} lists are in another order than the positions of the clicks say: they were left out"
        for what in ("ids of several lists or queries", "actions on hits that the list does not have",
                     "searches without a time"):  # fmt: skip
            if counts[what]:
                yield f"{counts[what]:,} {what}"
