"""`embed-plus evaluate`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, DEFAULT_MODEL, Backend, Location, Model

app = typer.Typer()


@app.command()
def evaluate(
    queries: Annotated[Path, typer.Option(help="JSONL rows with id (or _id) and text.")],
    qrels: Annotated[Path, typer.Option(help="Judgements: BEIR's TSV or TREC's qrels.")],
    collection: Annotated[str | None, typer.Argument(help="The collection or alias to search.")] = None,
    passages: Annotated[
        Path | None, typer.Option(help="Search these (folder, text or JSONL) exactly instead of a collection.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Measure this TREC run instead of searching.")] = None,
    mode: Annotated[Literal["dense", "hybrid", "lexical"], typer.Option(help="How a collection is searched.")] = (
        "dense"
    ),
    exact: Annotated[bool, typer.Option(help="Compare with every vector instead of HNSW.")] = False,
    hnsw_ef: Annotated[int | None, typer.Option(help="Beam width in the graph; else the collection's.")] = None,
    filter: Annotated[str | None, typer.Option(help="On metadata, as JSON: '{\"field\": value}'.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Compare with the same system but for this; may be repeated. Keys: collection, passages, run, "
            "location, model, backend, mode, exact (yes or no), hnsw-ef, filter.",
        ),
    ] = None,
    k: Annotated[list[int] | None, typer.Option("-k", help="Cutoff; may be repeated, the first decides. [10]")] = None,
    seed: Annotated[int, typer.Option(help="Of the paired tests.")] = 0,
    show: Annotated[int, typer.Option(min=0, help="How many improved and worsened queries to list.")] = 5,
    write_run: Annotated[
        Path | None, typer.Option(help="Write what was found as a TREC run; the other system's as NAME.against.")
    ] = None,
    per_query: Annotated[Path | None, typer.Option(help="Write every metric of every query as JSONL.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a PNG: differences per query, or scores of one system.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Measure retrieval on judged queries, and whether another system is better than this one."""
    from llama_index_embed_plus.cli.evaluate_commands import Output, evaluate_systems
    from llama_index_embed_plus.cli.evaluate_system import System, changed, filter_of

    system = System(
        collection, passages, run, location, model, backend, mode, exact, hnsw_ef, filter_of(filter, "--filter")
    )
    other = changed(system, against) if against else None
    output = Output(tuple(k or [10]), seed, show, write_run, per_query, plot, as_json)
    evaluate_systems((queries, qrels), system, other, output)
