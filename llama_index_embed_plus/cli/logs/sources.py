"""The files of `log import` -> what reads their searches: traces, click logs, our own rows, a data set, or columns.

Guarantees: what a file is, is told by its rows. Does not know: what is asked, shown and written.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from llama_index_embed_plus.cli.console import ConsoleReporter
from llama_index_embed_plus.cli.logs.reading import ReadingOptions
from llama_index_embed_plus.cli.opened import managed
from llama_index_embed_plus.integrations.qa_dataset import read_qa_dataset
from qdrant_tools.clicks import reading as clicks
from qdrant_tools.clicks.records import ClickSettings
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError, LogError, UsageError, brief
from qdrant_tools.files.rows import ending, read_rows
from qdrant_tools.log.naming import why_unknown, written_columns
from qdrant_tools.log.readers import LogReader, modified, read_log
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog, exported_searches
from qdrant_tools.log.rows import is_list_of_rows
from qdrant_tools.traces.detect import form_names, form_of
from qdrant_tools.traces.files.rows import TraceFile
from qdrant_tools.traces.forms.unread import why_unread, without_retrieval
from qdrant_tools.traces.ids import ids_checked
from qdrant_tools.traces.importer import Traces, read_traces
from qdrant_tools.traces.records import TraceSettings
from qdrant_tools.traces.report import TraceReport
from qdrant_tools.traces.said.late import Late

ROWS_LOOKED_AT = 50
"""Of each file, to tell what it is."""
_OURS = frozenset({"id", "at", "query", "hits"})
_PLAIN = (".jsonl", ".json", ".csv", ".tsv")
_EXPORTED = "so, for example: psql --csv -c 'SELECT ...' > log.csv"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Asked:
    """What the command was told of its files."""

    log: Path
    files: Sequence[Path]
    form: str = "auto"
    columns: str | None = None
    timezone: str | None = None
    collection: str | None = None
    location: str = ""
    traces: TraceSettings = field(default_factory=TraceSettings)
    clicks: ClickSettings = field(default_factory=ClickSettings)

    @classmethod
    def of(
        cls,
        log: Path,
        files: Sequence[Path],
        reading: ReadingOptions,
        *,
        columns: str | None = None,
        collection: str | None = None,
        location: str = "",
    ) -> Asked:
        """What the options say; they are checked."""
        # the zone of columns is checked with them
        zone = None if columns else reading.zone
        traces, click_logs = reading.of_traces(zone), reading.of_clicks(zone)
        return cls(log, files, reading.form, columns, reading.timezone, collection, location, traces, click_logs)

    @property
    def of_traces(self) -> list[str]:
        """The options that were given and say something of traces alone."""
        plain = TraceSettings()
        options = {"id_field": "--id", "match": "--match", "query": "--query", "thumb": "--thumb", "judge": "--judge"}
        options |= {"left_out": "--leave-out"}
        return [name for key, name in options.items() if getattr(self.traces, key) != getattr(plain, key)]


@dataclass
class Source:
    """Searches that can be read as often as `searches` is called. `told` says what each file is."""

    searches: Callable[[], Iterator[LoggedSearch]]
    told: Sequence[str] = ()
    notes: Callable[[], Sequence[str]] = tuple
    is_foreign: bool = True
    """Whether a person should see how it is understood before anything is written."""
    why_nothing: Callable[[], str] = str
    add_late: Callable[[RetrievalLog], Late] | None = None
    """What adds that which was said of searches of an earlier import; None where nothing was."""


def source_of(asked: Asked, stack: ExitStack) -> Source:
    """What reads the files. What has to be closed afterwards is put on the stack.

    Raises:
        UsageError: nobody knows how, or the options are for other files.
        InputError, LogError: a file cannot be read.
    """
    collection = None
    if asked.collection is not None:
        collection = stack.enter_context(managed(asked.location)).open(asked.collection)
    kinds = dict.fromkeys(asked.files, "columns") if asked.columns else {p: _kind(p) for p in asked.files}
    named = _named_kind(asked.form)
    kind = named or _one_kind(kinds)
    if kind == "traces":
        return _traces(asked, collection, stack)
    if asked.of_traces:
        raise UsageError(
            f"{', '.join(asked.of_traces)}: such options are for traces, and {named_files(asked.files)} has none"
        )
    source = {"clicks": _clicks, "columns": _columns, "ours": _ours, "data set": _data_set}[kind](asked)
    return source if collection is None else _checked(source, collection)


def formats() -> list[str]:
    """What `--format` may be."""
    return ["auto", *form_names(), *clicks.FORMS, "csv", "jsonl"]


def _named_kind(form: str) -> str | None:
    if form not in formats():
        raise UsageError(f"--format is {brief(form)}, expected one of {', '.join(formats())}")
    if form == "auto":
        return None
    return {"csv": "columns", "jsonl": "ours"}.get(form) or ("clicks" if form in clicks.FORMS else "traces")


def _kind(path: Path) -> str:
    """What a file is, by its first rows; "columns" for what nothing claims."""
    try:
        rows = [row.values for row in islice(TraceFile(path).rows(), ROWS_LOOKED_AT)]
    except (InputError, UsageError) as error:
        # what reads tables and our own rows has errors of its own
        suffix = path.suffix.lower()
        if suffix in _PLAIN:
            return _kind_by_name(path)
        if suffix in (*SUFFIXES, ".gz"):
            raise
        raise InputError(f"{error}; of a database, export a table {_EXPORTED}") from error
    if not rows and path.suffix.lower() != ".jsonl":
        return "nothing"
    if rows and rows[0].keys() >= _OURS:
        return "ours"
    if form_of(rows) is not None:
        return "traces"
    if clicks.form_of(rows) is not None:
        return "clicks"
    if form_of(rows, known=False) is not None:
        return "traces"
    if (why := why_unread(rows)) is not None:
        raise UsageError(f"{path}: {why}")
    return _kind_by_name(path)


def _kind_by_name(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".json" and not is_list_of_rows(path):
        return "data set"
    if suffix == ".jsonl" and _is_empty(path):
        return "ours"
    return "columns"


def _is_empty(path: Path) -> bool:
    try:
        return next(iter(read_rows(path)), None) is None
    except InputError as error:
        raise LogError(str(error)) from error


def _one_kind(kinds: Mapping[Path, str]) -> str:
    # of annotations there may be none yet, and the file is exported all the same
    empty = [path for path, kind in kinds.items() if kind == "nothing"]
    kinds = {path: kind for path, kind in kinds.items() if kind != "nothing"}
    if not kinds:
        raise LogError(
            f"{empty[0]} has no rows, expected searches; without any: embed-plus synthesize COLLECTION "
            "--out examples.jsonl"
        )
    if empty and "traces" not in kinds.values():
        raise UsageError(f"{empty[0]} has no rows: leave it out")
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{path} ({'another log' if kind == 'columns' else kind})" for path, kind in kinds.items())
        raise UsageError(f"these are files of several kinds: {told}: import each kind by itself")
    return next(iter(kinds.values()))


def _traces(asked: Asked, collection: Collection | None, stack: ExitStack) -> Source:
    if asked.columns is not None:
        raise UsageError(f"--columns is for logs in tables, and {named_files(asked.files)} has traces: leave it out")
    form = None if asked.form == "auto" else asked.form
    size = sum(path.stat().st_size for path in asked.files)
    with ConsoleReporter().step(f"read {named_files(asked.files)}", size, "bytes") as advance:
        traces = stack.enter_context(
            read_traces(asked.files, asked.traces, form=form, collection=collection, progress=advance)
        )
    return Source(
        traces.searches,
        [f"{path}: {forms}" for path, forms in traces.report.forms.items()],
        lambda: traces.report.lines(),
        why_nothing=lambda: _why_no_search(traces),
        add_late=traces.add_late if traces.report.annotations else None,
    )


def _why_no_search(traces: Traces) -> str:
    report = traces.report
    if report.annotations and not report.spans:
        return (
            f"these are {report.annotations:,} annotations without the spans that they are about, and the log has none "
            "that they name by trace and span: name the files of those spans beside them; a span that is in the log "
            "already is not doubled"
        )
    if not report.retrievals:
        instead = without_retrieval(report.forms.values())
        return (
            f"none of {report.spans:,} spans is a retrieval: these are not the traces of one, or its retriever is not "
            f"instrumented{instead and f'; {instead}'}"
        )
    return "; ".join(line.removeprefix("left out: ") for line in report.lines()[1:5])


def _clicks(asked: Asked) -> Source:
    form = None if asked.form == "auto" else asked.form
    readers: list[clicks.ClickReader] = []

    def searches() -> Iterator[LoggedSearch]:
        readers.append(clicks.read_clicks(asked.files, form=form, settings=asked.clicks))
        return readers[-1]

    searches()
    return Source(searches, [f"{path}: {readers[0].form}" for path in asked.files], lambda: readers[-1].notes)


def _ours(asked: Asked) -> Source:
    _refuse_zone(asked)
    return Source(lambda: (search for path in asked.files for search in exported_searches(path)), is_foreign=False)


def _data_set(asked: Asked) -> Source:
    _refuse_zone(asked)
    # a data set knows no times: that of the file stands for all its searches
    return Source(lambda: (one for path in asked.files for one in _searches_of_data_set(path)), is_foreign=False)


def _refuse_zone(asked: Asked) -> None:
    if asked.timezone is not None:
        raise UsageError("--timezone is for the log of another system: say with --columns which column is what")


def _columns(asked: Asked) -> Source:
    if asked.columns is None:
        raise _unknown(asked)
    named = written_columns(asked.columns, zone=asked.timezone)
    readers: list[LogReader] = []

    def searches() -> Iterator[LoggedSearch]:
        readers[:] = [read_log(path, named) for path in asked.files]
        return (search for reader in readers for search in reader)

    return Source(searches, notes=lambda: [note for reader in readers for note in reader.notes])


def _unknown(asked: Asked) -> UsageError:
    source = asked.files[0]
    if asked.timezone is not None:
        return UsageError("--timezone is for the log of another system: say with --columns which column is what")
    if ending(source) not in (*_PLAIN, ".parquet"):
        return UsageError(
            f"{source} ends in {source.suffix.lower() or 'nothing'}, expected .jsonl, .json, .csv, .tsv or .parquet: "
            f"export it {_EXPORTED}"
        )
    problem, likely = why_unknown(source)
    command = shlex.join(["embed-plus", "log", "import", str(asked.log), str(source), "--columns", likely])
    zone = ", if its times are of UTC" if " zone=UTC" in likely else ""
    return UsageError(f"{problem} (log import --help explains them). Perhaps{zone}: {command} --dry-run")


def _searches_of_data_set(source: Path) -> Iterator[LoggedSearch]:
    try:
        return iter(read_qa_dataset(source).searches(modified(source)))
    except InputError as error:
        raise InputError(
            f"{error}; a log is a list of rows: jq .KEY {shlex.quote(str(source))} > rows.json takes one out"
        ) from error


def _checked(source: Source, collection: Collection) -> Source:
    """The same with ids looked up in the collection."""
    report = [TraceReport()]

    def searches() -> Iterator[LoggedSearch]:
        report[0] = TraceReport()
        return ids_checked(source.searches(), collection, report[0])

    return Source(
        searches, source.told, lambda: [*source.notes(), *report[0].of_ids()], source.is_foreign, source.why_nothing
    )


def named_files(files: Sequence[Path]) -> str:
    """The files, for a line about them."""
    more = len(files) - 1
    return f"{files[0]} and {more} more" if more else str(files[0])
