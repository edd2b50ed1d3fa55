"""Commands and their options; each calls one function of the library and prints what it returns.

Heavy modules are imported inside the commands: `embed-plus --help` must not wait for torch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli import (
    benchmark_app,
    collection_app,
    evaluate_app,
    log_app,
    merge_app,
    mine_app,
    monitor_app,
    promote_app,
    train_app,
)
from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, DEFAULT_MODEL, Backend, Location, Model
from llama_index_embed_plus.errors import PlusError, UsageError

app = typer.Typer(
    help="Index, search and improve text retrieval with LlamaIndex and Qdrant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # usage errors as plain lines
)

app.add_typer(mine_app.app)
app.add_typer(train_app.app)
app.add_typer(merge_app.app)
app.add_typer(monitor_app.app)
app.add_typer(monitor_app.canary_app, name="canary")
app.add_typer(benchmark_app.app)
app.add_typer(evaluate_app.app)
app.add_typer(collection_app.app, name="collection")
app.add_typer(collection_app.tune_app)
app.add_typer(promote_app.app, name="promote")
app.add_typer(log_app.app, name="log")

Precision = Annotated[Literal["fp32", "int8"], typer.Option(help="Of the ONNX build.")]


def main() -> None:
    """Run the command line. Exit code 0, 1 for an error, 2 for wrong usage."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars a person sees are ours, one per step
    try:
        app()
    except UsageError as error:
        _fail(error, 2)
    except (PlusError, OSError) as error:
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(code)


@app.command()
def index(
    source: Annotated[Path, typer.Argument(help="A folder of text files, a text file, or a .jsonl file.")],
    collection: Annotated[str, typer.Option(help="The collection to fill; made if it is not there.")],
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Embed passages and add them to a collection. Unchanged passages are skipped."""
    from llama_index_embed_plus.cli.commands import Where, index_source

    index_source(source, collection, Where(location, model, backend))


@app.command()
def search(
    collection: Annotated[str, typer.Argument(help="The collection or alias to search.")],
    question: Annotated[str, typer.Argument(help="What to look for.")],
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 5,
    exact: Annotated[bool, typer.Option(help="Search every vector instead of HNSW.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON lines.")] = False,
) -> None:
    """Search a collection and print the hits."""
    from llama_index_embed_plus.cli.commands import Where, find
    from llama_index_embed_plus.cli.console import show_hits

    hits = find(collection, question, Where(location, model, backend), k=k, exact=exact)
    if not as_json:
        show_hits(question, hits)
        return
    for hit in hits:
        row = {"rank": hit.rank, "score": hit.score, "id": hit.id, "text": hit.text, "metadata": dict(hit.metadata)}
        print(json.dumps(row, ensure_ascii=False))


@app.command()
def describe(
    model: Annotated[str, typer.Argument(help="A model name or folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show everything that decides a model's vectors, and where each fact comes from."""
    from llama_index_embed_plus.cli.show_model import show_model

    show_model(model, as_json=as_json)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model name or folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not exist.")],
    precision: Precision = "fp32",
    force: Annotated[bool, typer.Option(help="Write the model even if it does not agree with its original.")] = False,
) -> None:
    """Write a model folder with an ONNX build, which serves without torch, and print how well it agrees."""
    from llama_index_embed_plus.cli.commands import export_model

    export_model(model, out, precision=precision, force=force)


@app.command()
def demo(
    full: Annotated[
        bool, typer.Option(help="Also fine-tune the whole encoder, re-embed and switch the alias.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where collection, log, runs and model go.")] = Path("demo"),
    model: Model = DEFAULT_MODEL,
    limit: Annotated[int | None, typer.Option(help="Use only so many passages: for a quick look.")] = None,
) -> None:
    """Run the whole loop on Python's own documentation and write demo-report.json and demo-report.png."""
    from llama_index_embed_plus.cli.show_demo import run_demo

    run_demo(folder, model=model, full=full, limit=limit)
