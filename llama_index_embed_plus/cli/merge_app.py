"""`embed-plus merge` and `embed-plus prove`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, Location

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def merge(
    base: Annotated[str, typer.Argument(help="The model that training started from, a name or a folder.")],
    tuned: Annotated[str, typer.Argument(help="What came of it, a folder.")],
    out: Annotated[Path, typer.Option(help="The folder to write the model between them to.")],
    coefficient: Annotated[
        float | None, typer.Option(help="0 is the base, 1 the tuned model. Without it, chosen on --queries.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="Dev queries to choose by, .jsonl; needs --qrels.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgements; needs --queries.")] = None,
    collection: Annotated[str | None, typer.Option(help="Its passages are searched for the dev queries.")] = None,
    location: Location = DEFAULT_LOCATION,
    as_json: AsJson = False,
) -> None:
    """Average a model with the one it was trained from: old skills come back, most of the new ones stay."""
    from llama_index_embed_plus.cli.merge_commands import Asked, merge_models

    merge_models(base, tuned, out, coefficient, Asked(queries, qrels, collection, location), as_json=as_json)


@app.command()
def prove(
    model: Annotated[Path, typer.Argument(help="The trained model, a folder; the proof is written into it.")],
    base: Annotated[str, typer.Option(help="The model that it is to be better than: what it was trained from.")],
    queries: Annotated[Path, typer.Option(help="Queries that neither training nor a choice has seen, .jsonl.")],
    qrels: Annotated[Path, typer.Option(help="Their judgements, BEIR's TSV or TREC's.")],
    collection: Annotated[str, typer.Option(help="Its passages are searched.")],
    examples: Annotated[
        Path | None, typer.Option(help="What it was trained on: refused if that gives a query away.")
    ] = None,
    location: Location = DEFAULT_LOCATION,
    as_json: AsJson = False,
) -> None:
    """Measure a trained model on held-out queries, and write into it whether it may be promoted."""
    from llama_index_embed_plus.cli.merge_commands import Asked, prove_model

    prove_model(model, base, Asked(queries, qrels, collection, location), examples, as_json=as_json)
