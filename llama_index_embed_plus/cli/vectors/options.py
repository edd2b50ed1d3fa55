"""The options that the commands on stored vectors share, and how those that write end. Does not know: what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import next_step, say
from llama_index_embed_plus.cli.opened import command_of

Conditions = Annotated[
    list[str] | None,
    typer.Option("--filter", help="Only where metadata are like this: author=Ann, year>=2020; may be given again."),
]
Write = Annotated[
    str | None, typer.Option("--write", metavar="FIELD", help="Write it into this metadata field of every passage.")
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a row of every passage to this JSONL file.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of what is drawn: the same seed gives the same result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

TEXT = 160
"""Characters of a passage on one line."""


def show_written(collection: str, out: Path | None, field: str | None, count: int, what: str) -> None:
    """Say what a command has written: a file, and a metadata field of so many passages."""
    if out is not None:
        say(f"wrote {out}")
    if field is not None:
        say(f"{collection}: {count:,} passages have their {what} in the metadata field {field!r}")


def next_search(collection: str, field: str, value: str, location: str) -> None:
    """Name the command that searches only what was given this value."""
    next_step(command_of("search", collection, value, "--filter", f"{field}={value}", location=location))
