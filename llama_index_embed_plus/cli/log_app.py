"""`embed-plus log ...`: the commands on a retrieval log and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look into a retrieval log, fill it, empty it.", no_args_is_help=True, rich_markup_mode=None)

Log = Annotated[Path, typer.Argument(help="The log file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Days = Annotated[float | None, typer.Option(help="Only searches older than so many days.")]


@app.command()
def show(
    log: Log,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="How many searches, the latest ones.")] = 10,
    collection: Annotated[str | None, typer.Option(help="Only searches in this collection.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the latest searches: hits as they were shown, and what the user did with them."""
    from llama_index_embed_plus.cli.log_commands import show_searches

    show_searches(log, last=last, collection=collection, as_json=as_json)


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
    from llama_index_embed_plus.cli.log_commands import import_searches

    import_searches(log, source, columns=columns)


@app.command()
def export(log: Log, target: Annotated[Path, typer.Argument(help="The .jsonl file to write.")]) -> None:
    """Write a log as JSONL, one row per search."""
    from llama_index_embed_plus.cli.log_commands import export_searches

    export_searches(log, target)


@app.command()
def stats(
    log: Log,
    top: Annotated[int, typer.Option(min=0, help="How many of the most frequent queries without a click.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Count what is in a log: feedback, clicks by rank, queries that nobody clicked on."""
    from llama_index_embed_plus.cli.log_commands import show_stats

    show_stats(log, top=top, as_json=as_json)


@app.command()
def forget(log: Log, days: Annotated[float, typer.Option(min=0, help="Searches older than so many days.")]) -> None:
    """Delete old searches with all that hangs on them."""
    from llama_index_embed_plus.cli.log_commands import forget_searches

    forget_searches(log, days=days)


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
    """Take the text out of the queries, for good. Equal queries stay equal under a secret."""
    from llama_index_embed_plus.cli.log_commands import redact_searches

    redact_searches(log, days=days, secret=secret)
