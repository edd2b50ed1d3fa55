"""`embed-plus promote ...`: the options of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, Backend, Location

app = typer.Typer(
    help="Change the encoder of an alias without downtime: all at once (run), or step by step.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Alias = Annotated[str, typer.Argument(help="The alias that applications open (in place: also a collection's name).")]
NewModel = Annotated[str, typer.Option("--model", help="The model that is to serve: a name or folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
InPlace = Annotated[bool, typer.Option("--in-place", help="New vectors beside the old ones in the same collection.")]
Force = Annotated[bool, typer.Option("--force", help="Do it although a check or the model's training says no.")]
Queries = Annotated[
    Path | None, typer.Option(help="Held-out queries: .jsonl rows with id (or _id) and text; needs --qrels.")
]
QrelsFile = Annotated[Path | None, typer.Option("--qrels", help="Their judgements, BEIR's TSV.")]
Before = Annotated[str | None, typer.Option(help="The model that serves now, to compare with on held-out queries.")]
Samples = Annotated[int, typer.Option(help="Stored passages that are embedded again and searched for.")]
Recall = Annotated[float, typer.Option(help="Share of the exact neighbours that the index must find.")]
MaxDrop = Annotated[float, typer.Option(help="How much worse nDCG may be on the held-out queries.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Passages embedded and stored at a time.")]


@app.command()
def plan(
    alias: Alias,
    model: NewModel,
    in_place: InPlace = False,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what would be done and what it takes; change nothing."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.promote_commands import show_plan

    show_plan(alias, Where(location, model, backend), in_place=in_place, as_json=as_json)


@app.command()
def build(
    alias: Alias,
    model: NewModel,
    in_place: InPlace = False,
    force: Force = False,
    batch_size: BatchSize = 256,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Embed the stored texts by the new model while the old one serves. Can be interrupted and run again."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.promote_commands import build_next

    where = Where(location, model, backend)
    build_next(alias, where, in_place=in_place, force=force, batch_size=batch_size, as_json=as_json)


@app.command()
def verify(
    alias: Alias,
    model: NewModel,
    queries: Queries = None,
    qrels: QrelsFile = None,
    before: Before = None,
    samples: Samples = 100,
    recall: Recall = 0.95,
    max_drop: MaxDrop = 0.0,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Check what was built. Exit code 1 if it does not pass."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.promote_commands import Judged, verify_next
    from qdrant_tools.verify import Gates

    gates = Gates(samples=samples, recall=recall, max_drop=max_drop)
    verify_next(alias, Where(location, model, backend), gates, Judged(queries, qrels, before), as_json=as_json)


@app.command()
def switch(
    alias: Alias,
    model: NewModel,
    force: Force = False,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Let the alias serve the new model, in one atomic step."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.promote_commands import switch_to

    switch_to(alias, Where(location, model, backend), force=force, as_json=as_json)


@app.command()
def run(
    alias: Alias,
    model: NewModel,
    in_place: InPlace = False,
    force: Force = False,
    queries: Queries = None,
    qrels: QrelsFile = None,
    before: Before = None,
    samples: Samples = 100,
    recall: Recall = 0.95,
    max_drop: MaxDrop = 0.0,
    batch_size: BatchSize = 256,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Build, verify, and switch if every check passes. Can be interrupted and run again."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.promote_commands import Judged, promote
    from qdrant_tools.verify import Gates

    gates, judged = Gates(samples=samples, recall=recall, max_drop=max_drop), Judged(queries, qrels, before)
    where = Where(location, model, backend)
    promote(alias, where, gates, judged, in_place=in_place, force=force, batch_size=batch_size, as_json=as_json)


@app.command()
def bridge(
    alias: Alias,
    model: NewModel,
    queries: Annotated[Path, typer.Option(help="Real queries: text lines, or .jsonl rows with a text.")],
    sample: Annotated[int, typer.Option(min=4, help="Stored texts that are embedded by the new model.")] = 2000,
    k: Annotated[int, typer.Option("-k", min=1, help="Among how many hits.")] = 10,
    before: Before = None,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure what the new model's queries find among the old vectors through a map, before anything is embedded."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.promote_commands import measure_bridge

    where = Where(location, model, backend)
    measure_bridge(alias, where, queries, sample=sample, k=k, before=before, as_json=as_json)


@app.command()
def rollback(
    alias: Alias,
    model: Annotated[
        str | None, typer.Option("--model", help="The model that served before, to carry back what was written since.")
    ] = None,
    force: Force = False,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Let the alias serve again what it served before the last switch."""
    from llama_index_embed_plus.cli.promote_commands import roll_back

    roll_back(alias, location, model, backend, force=force, as_json=as_json)


@app.command()
def cleanup(alias: Alias, location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """Drop what does not serve any more: after a switch the old vectors, before one the new ones."""
    from llama_index_embed_plus.cli.promote_commands import clean_up

    clean_up(alias, location, as_json=as_json)
