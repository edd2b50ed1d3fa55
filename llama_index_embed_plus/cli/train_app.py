"""`embed-plus train`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, Location

app = typer.Typer()

_WITH_A_RECIPE = ("out", "base", "recipe", "page", "as_json")


@app.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder to write the model to.")],
    base: Annotated[
        str | None, typer.Argument(help="The model to start from, a name or a folder; a recipe may name it.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="What to train on: the file that `mine` wrote, or pairs, triplets, NLI, ...")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Stages to train in order, .toml, instead of the options on training.")
    ] = None,
    method: Annotated[
        Literal["adapter", "lora", "full"],
        typer.Option(help="A map on query vectors, low-rank updates of the encoder, or all of its weights."),
    ] = "adapter",
    collection: Annotated[str | None, typer.Option(help="Fits the adapter; is searched for held-out queries.")] = None,
    location: Location = DEFAULT_LOCATION,
    queries: Annotated[Path | None, typer.Option(help="Held-out queries, .jsonl; needs --qrels.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgements, BEIR's TSV; needs --queries.")] = None,
    heldout_share: Annotated[
        float, typer.Option(help="Or hold this share of the examples out, near-duplicate queries together.")
    ] = 0.0,
    shared_passages: Annotated[
        bool, typer.Option(help="Let held-out queries ask for passages that are trained on.")
    ] = False,
    kind: Annotated[
        Literal["full", "low_rank", "orthogonal", "mlp"], typer.Option(help="Of the adapter; see docs/training.md.")
    ] = "full",
    width: Annotated[int, typer.Option(help="Rank of a low_rank adapter, hidden units of an mlp.")] = 32,
    loss: Annotated[str | None, typer.Option(help="Of lora and full, by name; see docs/training.md.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the examples; of an adapter, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows whose passages are each other's negatives.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="By default what suits the method.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Mined negatives per row, at most (lora, full).")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Training texts are cut there (lora, full).")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between two checkpoints (lora, full).")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    page: Annotated[bool, typer.Option(help="Draw OUT.png; needs the extra 'plot'.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a query adapter, LoRA or the whole encoder, and say whether it is better. Can be interrupted."""
    from llama_index_embed_plus.cli.train_commands import Job, Question, run_training, train_by_recipe

    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "negatives": negatives,
        "max_tokens": max_tokens,
        "checkpoint_every": checkpoint_every,
        "loss": loss,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    adapter = {"kind": kind, "width": width}
    if recipe is not None:
        said = [name for name in context.params if _was_said(context, name) and name not in _WITH_A_RECIPE]
        train_by_recipe(recipe, out, base, said, page=page, as_json=as_json)
        return
    job = Job(
        base=base,
        examples=examples,
        out=out,
        method=method,
        given={**given, "seed": seed},
        adapter=adapter,
        collection=collection,
        location=location,
        question=Question(queries, qrels, heldout_share, shared_passages),
    )
    run_training(job, page=page, as_json=as_json)


def _was_said(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line, be it its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
