"""`embed-plus log import`: a file of searches -> a retrieval log, once a person has seen how it is understood.

Guarantees: the whole file is read before anything is written; where it is refused, no log is made. Does not know: how a
cell is read.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, ask, next_step, note, say, shortened
from llama_index_embed_plus.integrations.qa_dataset import read_qa_dataset
from qdrant_tools.errors import InputError, LogError, UsageError
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.written import is_same_file
from qdrant_tools.log import columns as foreign_columns
from qdrant_tools.log.naming import why_unknown, written_columns
from qdrant_tools.log.readers import LogReader, modified, read_log
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog, exported_searches
from qdrant_tools.log.rows import is_list_of_rows

# what it warns of is said by the command
logging.getLogger(foreign_columns.__name__).addHandler(logging.NullHandler())

PREVIEWED = 3
SHOWN_HITS = 5
WIDTH = 80
_OURS = frozenset({"id", "at", "query", "hits"})


@dataclass
class _Looked:
    """What a first reading of a file found."""

    searches: int = 0
    first: list[LoggedSearch] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    collections: Counter[str] = field(default_factory=Counter)
    earliest: datetime | None = None
    latest: datetime | None = None

    def see(self, search: LoggedSearch) -> None:
        self.searches += 1
        if len(self.first) < PREVIEWED:
            self.first.append(search)
        self.events.update(event.kind for event in search.feedback)
        self.collections[search.collection] += 1
        self.earliest = min(self.earliest or search.at, search.at)
        self.latest = max(self.latest or search.at, search.at)


def import_log(
    log: Annotated[Path, typer.Argument(help="The log to add to, which is made if it is not there.")],
    source: Annotated[
        Path, typer.Argument(help="An exported .jsonl, a .json data set, or another system's .csv, .tsv or .jsonl.")
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            help="Which column of another system's log is what: 'query=term at=time ...' with the keys above, or the "
            "same as JSON, or a file of JSON."
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="The zone of times that name none: UTC, +02:00, Europe/Berlin."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show how the file is understood; write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is understood rightly.")] = False,
) -> None:
    """Add searches to a log. Importing a file twice adds nothing.

    The log of another system needs --columns: a key and its column for each thing that the log knows. The whole file is
    read first, and its first three searches are shown as they were understood.

    \b
    query        the query; no other key has to be given
    at           the time of the search; at_format=seconds (or milliseconds, microseconds, nanoseconds) since 1970;
                 at_format=day-first or month-first for 03.04.2026 10:00 or 3/4/2026 10:00 AM
    session      whose searches belong together
    hits         the list of results in the row of a search: a|b|c, a,b,c, JSON, or what Python prints
    separator    the sign between the values of a list in a cell, where that is not certain
    hit          the id of a result: of the row, where each row is one result, or in the objects of the list
    search       the id of the search that a row belongs to, where each row is one result or event
    rank, score  of a result; rank_from=0 if the file counts from 0
    click, dwell, cited, rating, up, down
                 what the user did: yes or no in the row of a result; a list of ids in the row of a search
                 (feedback_by=rank if it lists ranks); or column=word where a column names the kind of event
    events       the list of what the user did, of objects; event_at is the time of each
    dwell_unit   seconds or milliseconds
    collection, space
                 not columns, but the names that the searches get

    \b
    One row per search:  --columns 'query=term session=visit at=time hits=shown click=clicked' --timezone UTC
    One row per result:  --columns 'query=q search=search_id hit=doc rank=pos click=clicked dwell=seconds'
    One row per event:   --columns 'query=q search=query_id hit=object_id event_at=time click=action=click'
    """
    if not source.is_file():
        raise LogError(f"cannot read {source}: there is no such file")
    if is_same_file(source, log):
        raise UsageError(f"{log} is to be read and to be written: give the log another name")
    read = _reader(log, source, columns, timezone)
    looked = _Looked()
    with ConsoleReporter().step(f"read {source}", None):
        searches = read()
        for search in searches:
            looked.see(search)
    notes = searches.notes if isinstance(searches, LogReader) else ()
    is_foreign = isinstance(searches, LogReader)
    if is_foreign or dry_run:
        _preview(source, looked)
    if dry_run:
        say(f"{source}: {looked.searches} searches; nothing was written: a dry run")
        _say_all(source, notes)
        named = "" if columns is None else f" --columns {shlex.quote(columns)}"
        zone = "" if timezone is None else f" --timezone {shlex.quote(timezone)}"
        next_step(f"log import {shlex.quote(str(log))} {shlex.quote(str(source))}{named}{zone}")
        return
    if is_foreign and not yes and not _agreed():
        say("nothing was written: name the columns otherwise, or say --yes")
        raise typer.Exit(1)
    with RetrievalLog(log) as opened, ConsoleReporter().step(f"import {source}", None):
        added = opened.extend(read())
        total = len(opened)
    say(f"{log}: {added} searches added, {total} in all")
    _say_all(source, notes)
    names = [name for name in looked.collections if name]
    if looked.events["click"] and len(names) <= 1:
        # a log of another system hardly ever knows what the collection is called here
        collection = shlex.quote(names[0]) if names else "COLLECTION"
        next_step(f"mine {collection} {shlex.quote(str(log))} --out examples.jsonl")
    else:
        next_step(f"log stats {shlex.quote(str(log))}")


def _reader(log: Path, source: Path, columns: str | None, timezone: str | None) -> Callable[[], Iterator[LoggedSearch]]:
    """What reads the searches of a file, as often as it is called. Raises `UsageError` if nobody knows how."""
    suffix = source.suffix.lower()
    if columns is not None:
        named = written_columns(columns, zone=timezone)
        return lambda: read_log(source, named)
    if timezone is not None:
        raise UsageError("--timezone is for the log of another system: say with --columns which column is what")
    if suffix == ".json" and not is_list_of_rows(source):
        # a data set knows no times: that of the file stands for all its searches
        return lambda: _searches_of_data_set(source)
    if suffix == ".jsonl" and _is_ours(source):
        return lambda: exported_searches(source)
    if suffix not in (".jsonl", ".json", ".csv", ".tsv"):
        raise UsageError(
            f"{source} ends in {suffix or 'nothing'}, expected .jsonl, .json, .csv or .tsv: export it so, "
            "for example psql --csv -c 'SELECT ...' > log.csv"
        )
    problem, likely = why_unknown(source)
    command = (
        f"embed-plus log import {shlex.quote(str(log))} {shlex.quote(str(source))} --columns {shlex.quote(likely)}"
    )
    zone = ", if its times are of UTC" if " zone=UTC" in likely else ""
    raise UsageError(f"{problem} (log import --help explains them). Perhaps{zone}: {command} --dry-run")


def _searches_of_data_set(source: Path) -> Iterator[LoggedSearch]:
    try:
        return iter(read_qa_dataset(source).searches(modified(source)))
    except InputError as error:
        raise InputError(
            f"{error}; a log is a list of rows: jq .KEY {shlex.quote(str(source))} > rows.json takes one out"
        ) from error


def _is_ours(source: Path) -> bool:
    try:
        row = next(iter(read_rows(source)), None)
    except InputError as error:
        raise LogError(str(error)) from error
    return row is None or row.values.keys() >= _OURS


def _agreed() -> bool:
    # a script has nobody to ask, and has named the columns
    return sys.stdin is None or not sys.stdin.isatty() or ask("is this what the file says?")


def _preview(source: Path, looked: _Looked) -> None:
    """On stderr, as a question is: results are the lines of the import."""
    note(f"{source}, as understood:")
    for search in looked.first:
        session = f"  session {shortened(search.session, 40)}" if search.session else ""
        note(f"  {search.at:%Y-%m-%d %H:%M:%S} UTC{session}  {shortened(search.query, WIDTH)}")
        shown = ", ".join(shortened(hit.id, 40) for hit in islice(search.hits, SHOWN_HITS))
        more = f", and {len(search.hits) - SHOWN_HITS} more" if len(search.hits) > SHOWN_HITS else ""
        note(f"    {len(search.hits)} hits: {shown or 'none'}{more}")
        done = [f"{event.kind} {shortened(event.id, 40)}" for event in search.feedback[:SHOWN_HITS]]
        note(f"    {', '.join(done) or 'nothing was clicked or judged'}")
    told = ", ".join(f"{count} {kind}" for kind, count in looked.events.items()) or "no feedback"
    span = f", {looked.earliest:%Y-%m-%d %H:%M} to {looked.latest:%Y-%m-%d %H:%M} UTC" if looked.earliest else ""
    note(f"  {looked.searches} searches in all: {told}{span}")


def _say_all(source: Path, notes: tuple[str, ...]) -> None:
    for each in notes:
        say(f"{source}: {each}")
