"""`embed-plus log ...`: open the retrieval log, call it, print what came back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import next_step, print_json, say, shortened, show_table
from llama_index_embed_plus.cli.logs.answers import audit_log, taught, unanswered
from llama_index_embed_plus.cli.logs.importing import import_log
from llama_index_embed_plus.cli.opened import Overwrite, check_outputs, command_of
from qdrant_tools.errors import LogError, UsageError
from qdrant_tools.log.records import Answer, LoggedSearch, dropped, hashed
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.log.stats import LogStats

app = typer.Typer(
    name="log", help="Look into a retrieval log, fill it, empty it.", no_args_is_help=True, rich_markup_mode=None
)

Log = Annotated[Path, typer.Argument(help="The log file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Days = Annotated[float | None, typer.Option(help="Only searches older than so many days.")]

WIDTH = 100
"""Characters of a query or an id that are printed."""
MOST_NAMES = 20
"""Collections and spaces that are printed."""


@app.command()
def show(
    log: Log,
    last: Annotated[
        int, typer.Option("-n", "--last", min=1, help="How many searches are printed, the latest ones.")
    ] = 10,
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


app.command("import")(import_log)
app.command("audit")(audit_log)
app.command("unanswered")(unanswered)
app.command("taught")(taught)


@app.command()
def export(
    log: Log,
    out: Annotated[Path, typer.Option(help="The .jsonl file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write a log as JSONL, one row per search."""
    check_outputs(out, overwrite=overwrite, inputs=[log])
    with open_log(log) as opened:
        say(f"wrote {opened.export_jsonl(out, overwrite=overwrite)} searches to {out}")


@app.command()
def stats(
    log: Log,
    top: Annotated[
        int, typer.Option(min=0, help="How many of the most frequent queries without a click are printed.")
    ] = 10,
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
    names = [name for name in counts.collections if name]
    if counts.feedback.get("click") and len(names) == 1:
        next_step(command_of("mine", names[0], log, "--out", "examples.jsonl"))


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
    if path.is_dir():
        raise LogError(f"{path} is a folder, expected the file of a retrieval log in it, such as {path / 'log.sqlite'}")
    if not path.is_file():
        raise LogError(f"no retrieval log {path}: give the file that a RetrievalRecorder or `log import` wrote")
    return RetrievalLog(path, read_only=not write)


def _show(search: LoggedSearch) -> None:
    by = "  (written by a language model)" if search.generated else ""
    say(f"{search.at:%Y-%m-%d %H:%M:%S}  {shortened(search.query, WIDTH)}{by}", style="bold")
    feedback: dict[str, list[str]] = {}
    for event in search.feedback:
        value = f" {event.value:g}" if event.kind in ("dwell", "rating", "judged", "reranked") else ""
        feedback.setdefault(event.id, []).append(f"{event.kind}{value}")
    for hit in search.hits:
        score = "" if hit.score is None else f"{hit.score:.3f}"
        say(f"{hit.rank:>3}  {score:>6}  {shortened(hit.id, WIDTH)}  {', '.join(feedback.pop(hit.id, []))}".rstrip())
    # what is left was about passages that are not among the hits
    for passage, events in feedback.items():
        say(f"  -          {shortened(passage, WIDTH)}  {', '.join(events)} (not shown)")
    if search.answer is not None:
        _show_answer(search.answer)


def _show_answer(answer: Answer) -> None:
    made_of = "" if answer.searches == 1 else f" (of {answer.searches} searches)"
    say(f"  =  {shortened(answer.text, WIDTH) or 'an answer whose text is not known'}{made_of}")
    for said in answer.verdicts:
        what = {0: "thumb down", 1: "thumb up"}[int(said.value)] if said.kind == "thumb" else said.kind
        value = f" {said.value:g}" if said.kind == "score" else f": {shortened(said.text, WIDTH)}" if said.text else ""
        name = f"  ({shortened(said.name, WIDTH)})" if said.name else ""
        say(f"     {what}{value} by a {said.by if said.by != 'code' else 'program'}{name}")


def _lines(stats: LogStats) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = [
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
    if stats.users:
        lines.insert(3, ("users", stats.users))
    if stats.generated:
        lines.append(("by a language model", f"{stats.generated} queries"))
    if stats.answers:
        lines += [("answers", stats.answers), ("said of answers", _counts(stats.verdicts))]
    return lines


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
