"""`embed-plus log ...`: open the retrieval log, call it, print what came back."""

from __future__ import annotations

import logging
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, print_json, say, shortened, show_table
from llama_index_embed_plus.cli.opened import Overwrite, check_outputs
from llama_index_embed_plus.integrations.qa_dataset import read_qa_dataset
from qdrant_tools.errors import LogError, UsageError, first_line
from qdrant_tools.json_files import parse_json, read_json
from qdrant_tools.log import columns as foreign_columns
from qdrant_tools.log.columns import LogColumns
from qdrant_tools.log.readers import modified, read_log
from qdrant_tools.log.records import LoggedSearch, dropped, hashed
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.log.stats import LogStats
from qdrant_tools.validation import brief

app = typer.Typer(
    name="log", help="Look into a retrieval log, fill it, empty it.", no_args_is_help=True, rich_markup_mode=None
)

Log = Annotated[Path, typer.Argument(help="The log file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Days = Annotated[float | None, typer.Option(help="Only searches older than so many days.")]

# what it warns of is said by the command
logging.getLogger(foreign_columns.__name__).addHandler(logging.NullHandler())

WIDTH = 100
"""Characters of a query or an id that are printed."""
MOST_NAMES = 20
"""Collections and spaces that are printed."""


@app.command()
def show(
    log: Log,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="How many searches, the latest ones.")] = 10,
    collection: Annotated[str | None, typer.Option(help="Only searches in this collection.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the latest searches: hits as they were shown, and what the user did with them."""
    with open_log(log) as opened:
        for search in opened.searches(collection=collection, last=last):
            if as_json:
                print_json(search.as_row())
            else:
                _show(search)


@app.command("import")
def import_(
    log: Log,
    source: Annotated[Path, typer.Argument(help="An exported .jsonl, a .json data set, or another system's log.")],
    columns: Annotated[
        str | None,
        typer.Option(help="Of another system's .jsonl, .csv or .tsv: which column is what, as JSON or a file of JSON."),
    ] = None,
) -> None:
    """Add searches to a log, which is made if it is not there. Importing a file twice adds nothing."""
    log_columns = None if columns is None else read_columns(columns)
    if not source.is_file():
        raise LogError(f"cannot read {source}: there is no such file")
    with RetrievalLog(log) as opened:
        with ConsoleReporter().step(f"import {source}", None):
            notes: tuple[str, ...] = ()
            if log_columns is not None:
                reader = read_log(source, log_columns)
                added = opened.extend(reader)
                notes = reader.notes
            elif source.suffix == ".json":
                # a data set knows no times: that of the file stands for all its searches
                added = opened.extend(read_qa_dataset(source).searches(modified(source)))
            elif source.suffix == ".jsonl":
                added = opened.import_jsonl(source)
            else:
                raise UsageError(f"{source} is another system's log: say with --columns which column is what")
        say(f"{log}: {added} searches added, {len(opened)} in all")
        for note in notes:
            say(f"{source}: {note}")


@app.command()
def export(
    log: Log,
    target: Annotated[Path, typer.Argument(help="The .jsonl file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a log as JSONL, one row per search."""
    check_outputs(target, overwrite=overwrite, inputs=[log])
    with open_log(log) as opened:
        say(f"wrote {opened.export_jsonl(target, overwrite=overwrite)} searches to {target}")


@app.command()
def stats(
    log: Log,
    top: Annotated[int, typer.Option(min=0, help="How many of the most frequent queries without a click.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Count what is in a log: feedback, clicks by rank, queries that nobody clicked on."""
    with open_log(log) as opened:
        counts = opened.stats(top=top)
    if as_json:
        print_json(counts.as_row())
        return
    for name, value in _lines(counts):
        say(f"{name:<24}{value}")
    if counts.shown_by_rank:
        _show_ranks(counts)
    if counts.unclicked_queries:
        say("most frequent queries without a click")
        for query, times in counts.unclicked_queries.items():
            say(f"{times:>7}  {shortened(query, WIDTH)}")


@app.command()
def forget(log: Log, days: Annotated[float, typer.Option(min=0, help="Searches older than so many days.")]) -> None:
    """Delete old searches with all that hangs on them, for good. Writers wait while the file is rewritten."""
    with open_log(log, write=True) as opened:
        say(f"{opened.forget(before=_before(days))} searches deleted, {len(opened)} left")


@app.command()
def redact(
    log: Log,
    days: Days = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="EMBED_PLUS_LOG_SECRET", help="Replace texts by a hash under this secret; without it, by nothing."
        ),
    ] = None,
) -> None:
    """Take the text out of the queries, for good. Equal queries stay equal under a secret.

    The file is rewritten, so that texts which were deleted earlier go too; writers wait meanwhile.
    """
    rule = dropped if secret is None else hashed(secret)
    with open_log(log, write=True) as opened:
        changed = opened.redact(rule, before=None if days is None else _before(days))
    say(f"{changed} queries redacted")


def open_log(path: Path, *, write: bool = False) -> RetrievalLog:
    """Open a log that is there, to be read unless `write`.

    Raises:
        LogError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise LogError(f"no retrieval log {path}: give the file that a RetrievalRecorder or `log import` wrote")
    return RetrievalLog(path, read_only=not write)


def read_columns(text: str) -> LogColumns:
    """Read the names of columns from JSON, or from a file of JSON.

    Raises:
        UsageError: neither, or a field that `LogColumns` does not have.
    """
    try:
        row = parse_json(text, "it") if text.lstrip().startswith("{") else read_json(Path(text))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--columns is {shortened(text, WIDTH)!r}, expected JSON or a file of JSON: {first_line(error)}"
        ) from error
    names = {field.name for field in fields(LogColumns)}
    if not isinstance(row, dict) or row.keys() - names:
        found = brief(sorted(row) if isinstance(row, dict) else row)
        raise UsageError(f"--columns has {found}, expected an object with some of {sorted(names)}")
    return LogColumns(**row)


def _show(search: LoggedSearch) -> None:
    say(f"{search.at:%Y-%m-%d %H:%M:%S}  {shortened(search.query, WIDTH)}", style="bold")
    feedback: dict[str, list[str]] = {}
    for event in search.feedback:
        value = f" {event.value:g}" if event.kind in ("dwell", "rating") else ""
        feedback.setdefault(event.id, []).append(f"{event.kind}{value}")
    for hit in search.hits:
        score = "" if hit.score is None else f"{hit.score:.3f}"
        say(f"{hit.rank:>3}  {score:>6}  {shortened(hit.id, WIDTH)}  {', '.join(feedback.pop(hit.id, []))}".rstrip())
    # what is left was about passages that are not among the hits
    for passage, events in feedback.items():
        say(f"  -          {shortened(passage, WIDTH)}  {', '.join(events)} (not shown)")


def _lines(stats: LogStats) -> list[tuple[str, object]]:
    return [
        ("searches", stats.searches),
        ("distinct queries", stats.distinct_queries),
        ("sessions", stats.sessions),
        ("redacted", stats.redacted),
        ("first", stats.first or "-"),
        ("last", stats.last or "-"),
        ("without feedback", stats.without_feedback),
        ("without a click", stats.without_click),
        ("feedback", _counts(stats.feedback)),
        ("of that, on not shown", stats.not_shown),
        ("collections", _counts(stats.collections)),
        ("spaces", _counts(stats.spaces)),
    ]


def _counts(counts: Any) -> str:
    shown = [f"{shortened(name, WIDTH) or '(none)'} {count}" for name, count in islice(counts.items(), MOST_NAMES)]
    more = ["..."] if len(counts) > MOST_NAMES else []
    return ", ".join(shown + more) or "-"


def _show_ranks(stats: LogStats) -> None:
    clicks = {rank: stats.clicks_by_rank.get(rank, 0) for rank in stats.shown_by_rank}
    rows = [
        [str(rank), str(shown), str(clicks[rank]), f"{clicks[rank] / shown:.1%}"]
        for rank, shown in stats.shown_by_rank.items()
    ]
    show_table(["rank", "shown", "clicked", "share"], rows, title="clicks by rank", numbers=range(4))


def _before(days: float) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(days=days)
    # `datetime` has no time before the year 1
    except OverflowError as error:
        raise UsageError(f"--days is {days:g}, expected a number of days that the calendar has") from error
