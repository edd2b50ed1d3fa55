"""Files of traces and of annotations on them -> logged searches, and a report of what became of them.

All files are read once, into a spool on disk, before the first search is made: the spans of a trace may lie anywhere in
them, and so may what was said of it.

Guarantees: memory does not grow with the files. The same spans give the same searches, from whatever file and however
often. Does not know: the retrieval log, whose `extend` takes the searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from qdrant_tools.errors import UsageError
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.records import Progress
from qdrant_tools.traces.detect import FormOfRows, check_form
from qdrant_tools.traces.files.halves import without_halves
from qdrant_tools.traces.files.rows import TraceFile
from qdrant_tools.traces.forms.all import may_be, notes_on
from qdrant_tools.traces.ids import Ids, IdsByText, WrittenIds, ids_checked
from qdrant_tools.traces.passed_on import without_echoes
from qdrant_tools.traces.records import Annotation, Span, TraceSettings
from qdrant_tools.traces.report import TraceReport
from qdrant_tools.traces.retries import without_retries
from qdrant_tools.traces.runs import is_left_out
from qdrant_tools.traces.said.annotations import said_of, spoken_of, with_annotations
from qdrant_tools.traces.said.late import Late, add_late
from qdrant_tools.traces.said.opinions import told_of
from qdrant_tools.traces.spool import Spool, SpooledTrace
from qdrant_tools.traces.tree import CIRCLE_HINT, Tree
from qdrant_tools.traces.trees import searches_in

if TYPE_CHECKING:
    from qdrant_tools.collections.collection import Collection
    from qdrant_tools.log.retrieval_log import RetrievalLog

_AT_ONCE = 1 << 20


def read_traces(
    paths: str | Path | Iterable[str | Path],
    settings: TraceSettings | None = None,
    *,
    form: str | None = None,
    collection: Collection | None = None,
    progress: Progress | None = None,
) -> Traces:
    """Read files that tracing tools exported: spans, and what people and judges said of them, in any order.

    form: the name of the form that some rows must have; every row is told by its own signs all the same.
    collection: what was searched: ids are looked up there.
    progress: is called with the number of bytes read.

    Raises:
        InputError: a file cannot be read, or a row is of no form.
        UsageError: texts are to be matched, and there is no collection.
    """
    return Traces(paths, settings or TraceSettings(), form=form, collection=collection, progress=progress)


class Traces:
    """Traces that were read. `searches` makes searches of them, and `report` is complete when all were taken.

    It keeps a temporary file: close it, or use it in `with`.
    """

    def __init__(
        self,
        paths: str | Path | Iterable[str | Path],
        settings: TraceSettings,
        *,
        form: str | None,
        collection: Collection | None,
        progress: Progress | None,
    ) -> None:
        if settings.match == "text" and collection is None:
            raise UsageError("documents are to be found by their texts: name the collection that has them")
        files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
        if not files:
            raise UsageError("no file of traces was named")
        if form is not None:
            check_form(form)
        self._settings, self._collection = settings, collection
        self._ids: Ids = WrittenIds() if settings.match == "id" or collection is None else IdsByText(collection)
        self._read = TraceReport()
        self.report = self._read
        self._spool = Spool()
        self._written: datetime | None = None
        try:
            for file in files:
                self._read_file(file, progress)
            self._check_form(form)
            if self._spool.lacks:
                for file in files:
                    self._read_again(file)
            self._read.traces, self._read.without_retrieval = self._spool.settle()
        except BaseException:
            self._spool.close()
            raise

    def searches(self) -> Iterator[LoggedSearch]:
        """Yield the searches, in the order of their traces' times; again from the first when called again."""
        self.report = report = deepcopy(self._read)
        searches: Iterator[LoggedSearch] = without_retries(self._found(report), report)
        if self._collection is not None:
            searches = ids_checked(searches, self._collection, report)
        for search in searches:
            report.searches += 1
            yield search
        for annotation in self._spool.unmatched():
            is_session = annotation.trace is None and annotation.span is None and annotation.session is not None
            report.unjoin("whole session" if is_session else "matches nothing", told_of(annotation))

    __iter__ = searches

    def add_late(self, log: RetrievalLog) -> Late:
        """Add what was said of spans that are in none of the files, where an earlier import has put them into a log."""
        return add_late(self._spool.unmatched(), log, self._settings)

    def close(self) -> None:
        self._spool.close()

    def __enter__(self) -> Traces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_file(self, path: Path, progress: Progress | None) -> None:
        file, forms, told, before = TraceFile(path), FormOfRows(), 0, self._read.retrievals
        for row in file.rows():
            self._read.rows += 1
            of = forms.of(row)
            for each in row.parse(lambda values, of=of: list(of.read(values, self._settings))):  # type: ignore[misc]
                self._keep(each)
            if progress is not None and file.position - told >= _AT_ONCE:
                progress(file.position - told)
                told = file.position
        if progress is not None:
            progress(path.stat().st_size - told)
        self._read.notes += file.notes
        fields = forms.fields if self._read.retrievals > before else ()
        self._read.notes += [f"{path}: {note}" for note in notes_on({} if file.tells_of_more else forms.seen, fields)]
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        self._written = changed if self._written is None else max(self._written, changed)
        self._read.forms[str(path)] = ", ".join(forms.seen) or "empty"

    def _check_form(self, form: str | None) -> None:
        told = ", ".join(f"{path}: {forms}" for path, forms in self._read.forms.items())
        every = [each for forms in self._read.forms.values() for each in forms.split(", ")]
        if form is not None and not any(may_be(form, each) for each in every):
            raise UsageError(f"no row is of the format {form}: {told}")

    def _keep(self, each: Span | Annotation) -> None:
        if isinstance(each, Annotation):
            self._read.annotations += 1
            self._spool.annotate(without_halves(each))
            return
        self._read.spans += 1
        self._read.retrievals += each.kind == "retrieval"
        self._spool.add(without_halves(each))

    def _read_again(self, path: Path) -> None:
        """For the spans of traces in which a retrieval came late."""
        forms = FormOfRows()
        for row in TraceFile(path).rows():
            of = forms.of(row)
            for each in row.parse(lambda values, of=of: list(of.read(values, self._settings))):  # type: ignore[misc]
                if isinstance(each, Span):
                    self._spool.add_again(without_halves(each))

    def _found(self, report: TraceReport) -> Iterator[tuple[LoggedSearch, bool | None]]:
        for trace in self._spool.traces():
            yield from self._of_trace(trace, report)

    def _of_trace(self, trace: SpooledTrace, report: TraceReport) -> list[tuple[LoggedSearch, bool | None]]:
        retrievals = sum(span.kind == "retrieval" for span in trace.spans)
        if trace.repeated:
            report.drop("duplicate", trace.repeated)
        if trace.differing:
            report.drop("differs", trace.differing)
        reason = "too large" if trace.cut else is_left_out(trace.spans, self._settings)
        if reason is not None:
            report.drop(reason, retrievals)
            for annotation in trace.annotations:
                report.unjoin("left out", told_of(annotation))
            return []
        spans = without_echoes(trace.spans)
        if echoes := retrievals - sum(span.kind == "retrieval" for span in spans):
            report.drop("inner", echoes)
        tree = Tree(spans)
        report.hint(CIRCLE_HINT if tree.circles else "")
        said = said_of(tree, trace.annotations, self._settings, report)
        found = searches_in(
            tree, self._settings, self._ids, report, spoken_of=spoken_of(tree, said), written=self._written
        )
        searches = with_annotations(tree, found, said, report)
        report.halved += sum(
            search.answer is None and tree.is_broken(one.span) for one, search in zip(found, searches, strict=True)
        )
        return list(zip(searches, [None if one.is_logged else one.root_failed for one in found], strict=True))
