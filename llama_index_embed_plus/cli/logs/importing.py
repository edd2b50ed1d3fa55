"""`embed-plus log import`: files of searches -> a retrieval log, once a person has seen how they are understood.

Guarantees: all files are read whole before anything is written; where one is refused, no log is made. Does not know:
how a cell is read, what a trace is.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, ask, next_step, note, say, shortened
from llama_index_embed_plus.cli.grouped import with_groups
from llama_index_embed_plus.cli.logs.reading import ReadingOptions
from llama_index_embed_plus.cli.logs.sources import Asked, Source, named_files, source_of
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, Location
from qdrant_tools.errors import LogError, UsageError
from qdrant_tools.files.written import is_same_file
from qdrant_tools.log import columns as foreign_columns
from qdrant_tools.log.records import LoggedSearch, Verdict, dropped, hashed
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.traces.said.late import Late

# what it warns of is said by the command
logging.getLogger(foreign_columns.__name__).addHandler(logging.NullHandler())

PREVIEWED = 3
SHOWN_HITS = 5
WIDTH = 80


@dataclass
class _Looked:
    """What a first reading of the files found."""

    searches: int = 0
    first: list[LoggedSearch] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    collections: Counter[str] = field(default_factory=Counter)
    earliest: datetime | None = None
    latest: datetime | None = None

    def see(self, search: LoggedSearch) -> None:
        self.searches += 1
        if len(self.first) < PREVIEWED:
            self.first.append(search)
        self.events.update(event.kind for event in search.feedback)
        if search.answer is not None:
            self.verdicts.update(said.kind for said in search.answer.verdicts)
        self.collections[search.collection] += 1
        self.earliest = min(self.earliest or search.at, search.at)
        self.latest = max(self.latest or search.at, search.at)


@with_groups
def import_log(
    log: Annotated[Path, typer.Argument(help="The log to add to, which is made if it is not there.")],
    files: Annotated[
        list[Path],
        typer.Argument(
            help="What a tracing tool, a search engine or `log export` wrote: .jsonl, .json, .csv, .tsv or .parquet, "
            "also packed (.gz); with files of annotations, scores or events beside them."
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            help="Which column of another system's log is what: 'query=term at=time ...' with the keys above, or the "
            "same as JSON, or a file of JSON."
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="What was searched: ids are looked up there, and those not found are told.")
    ] = None,
    location: Location = DEFAULT_LOCATION,
    reading: ReadingOptions = ReadingOptions(),
    redact: Annotated[
        bool,
        typer.Option("--redact", help="Take the text out of queries, answers and comments before they are written."),
    ] = False,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="EMBED_PLUS_LOG_SECRET",
            help="For --redact: replace texts by a hash under this secret; without it, by nothing.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how the files are understood; write nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether they are understood rightly.")] = False,
) -> None:
    """Add searches to a log. Importing a file twice adds nothing.

    Traces of a RAG application, with what was said of its answers, and click logs are known by their rows. All files
    are read first, and the first three searches are shown as they were understood. An answer's thumb is kept as that of
    the answer: it is no label of its passages.

    \b
    embed-plus log import log.sqlite spans.parquet annotations.csv --thumb user_feedback
    embed-plus log import log.sqlite ubi_queries.jsonl ubi_events.jsonl

    The log of another system needs --columns: a key and its column for each thing that the log knows.

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
    judged, reranked
                 a language model's grade of a result, and the score that a reranker gave it
    events       the list of what the user did, of objects; event_at is the time of each
    dwell_unit   seconds or milliseconds
    collection, space
                 not columns, but the names that the searches get

    \b
    One row per search:  --columns 'query=term session=visit at=time hits=shown click=clicked' --timezone UTC
    One row per result:  --columns 'query=q search=search_id hit=doc rank=pos click=clicked dwell=seconds'
    One row per event:   --columns 'query=q search=query_id hit=object_id event_at=time click=action=click'
    """
    asked = Asked.of(log, files, reading, columns=columns, collection=collection, location=location)
    _check(asked)
    with ExitStack() as stack:
        source = source_of(asked, stack)
        looked = _Looked()
        with ConsoleReporter().step(f"look at {named_files(files)}", None):
            for search in source.searches():
                looked.see(search)
        _write(asked, source, looked, _rule(redact, secret), dry_run=dry_run, yes=yes)


def _rule(redact: bool, secret: str | None) -> Callable[[str], str] | None:
    """What takes the text out, as in `log redact`."""
    if not redact:
        return None
    return dropped if secret is None else hashed(secret)


def _write(
    asked: Asked, source: Source, looked: _Looked, rule: Callable[[str], str] | None, *, dry_run: bool, yes: bool
) -> None:
    notes, log, named = source.notes(), asked.log, named_files(asked.files)
    if source.is_foreign or dry_run:
        for told in source.told:
            note(told)
        _preview(named, looked)
    if dry_run:
        say(f"{named}: {_searches(looked.searches)}; nothing was written: a dry run")
        _say_all(named, notes)
        next_step(_command_again())
        return
    if not looked.searches and not (source.add_late and log.exists()) and (why := source.why_nothing()):
        raise LogError(f"{named} gives no search: {why}")
    if source.is_foreign and not yes and not _agreed():
        say("nothing was written: name the columns otherwise, or say --yes")
        raise typer.Exit(1)
    with RetrievalLog(log, redact=rule) as opened, ConsoleReporter().step(f"import {named}", None):
        added = opened.add(source.searches())
        late = source.add_late(opened) if source.add_late is not None else Late()
        total = len(opened)
    if not looked.searches and not late.joined and (why := source.why_nothing()):
        raise LogError(f"{named} gives no search: {why}")
    say(f"{log}: {_searches(added.searches)} added, {total} in all")
    if added.to_known:
        say(f"{log}: new of searches that were there: {', '.join(added.to_known)}")
    if late.joined:
        said = "1 annotation without its span" if late.joined == 1 else f"{late.joined} annotations without their spans"
        say(f"{log}: {said} here found the searches of an earlier import")
    _say_all(named, notes)
    next_step(_next(asked, looked))


def _searches(count: int) -> str:
    return "1 search" if count == 1 else f"{count} searches"


def _next(asked: Asked, looked: _Looked) -> str:
    """What to do with the log: labels are mined from it where it has what they are made of."""
    log = shlex.quote(str(asked.log))
    names = [name for name in looked.collections if name]
    # a log of another system hardly ever knows what the collection is called here
    name = asked.collection or (names[0] if names else "")
    collection = shlex.quote(name) if name else "COLLECTION"
    if asked.collection is None and len(names) > 1:
        return f"log stats {log}"
    if looked.events["click"]:
        return f"mine {collection} {log} --out examples.jsonl"
    if looked.verdicts["thumb"] or looked.events["judged"]:
        return f"mine {collection} {log} --rule answers --out examples.jsonl"
    return f"log stats {log}"


def _check(asked: Asked) -> None:
    for source in asked.files:
        if not source.is_file():
            why = "is no file, but a folder or a device: name the files" if source.exists() else "there is no such file"
            raise LogError(f"cannot read {source}: {'it ' if source.exists() else ''}{why}")
        if is_same_file(source, asked.log):
            raise UsageError(f"{asked.log} is to be read and to be written: give the log another name")
    if len({path.resolve() for path in asked.files}) < len(asked.files):
        raise UsageError("a file is named twice")


def _command_again() -> str:
    """The command as it was typed, without what made it a dry run."""
    words = [word for word in sys.argv[1:] if word != "--dry-run"]
    return shlex.join(words)


def _agreed() -> bool:
    # a script has nobody to ask, and has named the columns
    return sys.stdin is None or not sys.stdin.isatty() or ask("is this what the file says?")


def _preview(named: str, looked: _Looked) -> None:
    """On stderr, as a question is: results are the lines of the import."""
    note(f"{named}, as understood:")
    for search in looked.first:
        session = f"  session {shortened(search.session, 40)}" if search.session else ""
        note(f"  {search.at:%Y-%m-%d %H:%M:%S} UTC{session}  {shortened(search.query, WIDTH)}")
        shown = ", ".join(shortened(hit.id, 40) for hit in islice(search.hits, SHOWN_HITS))
        more = f", and {len(search.hits) - SHOWN_HITS} more" if len(search.hits) > SHOWN_HITS else ""
        is_unknown = not search.hits and search.feedback
        note(f"    {len(search.hits)} hits: {'what was shown is not known' if is_unknown else shown or 'none'}{more}")
        done = [f"{event.kind} {shortened(event.id, 40)}" for event in search.feedback[:SHOWN_HITS]]
        note(f"    {', '.join(done) or 'nothing was clicked or judged'}")
        if search.generated:
            note("    a language model wrote this query")
        if search.answer is not None:
            said = [_said(verdict) for verdict in search.answer.verdicts[:SHOWN_HITS]]
            note(f"    answer: {shortened(search.answer.text, WIDTH) or 'not known'}")
            note(f"    {', '.join(said) or 'nothing was said of it'}")
    counts = [*looked.events.items(), *((f"{kind} on answers", count) for kind, count in looked.verdicts.items())]
    told = ", ".join(f"{count} {kind}" for kind, count in counts) or "no feedback"
    span = f", {looked.earliest:%Y-%m-%d %H:%M} to {looked.latest:%Y-%m-%d %H:%M} UTC" if looked.earliest else ""
    note(f"  {_searches(looked.searches)} in all: {told}{span}")


def _said(verdict: Verdict) -> str:
    if verdict.kind == "comment":
        return f"comment {shortened(verdict.text, 40)}"
    return {"thumb": "thumb down" if verdict.value == 0 else "thumb up"}.get(verdict.kind, f"score {verdict.value:g}")


def _say_all(named: str, notes: Sequence[str]) -> None:
    for each in notes:
        say(f"{named}: {each}")
