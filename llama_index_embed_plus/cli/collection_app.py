"""`embed-plus collection ...` and `embed-plus tune`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, DEFAULT_MODEL, Backend, Location, Model

app = typer.Typer(help="Look at collections, copy them, adopt them.", no_args_is_help=True, rich_markup_mode=None)
tune_app = typer.Typer()

Name = Annotated[str, typer.Argument(help="A collection or alias.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Numbers = Annotated[str | None, typer.Option(help="Values to try, with commas.")]


@app.command("list")
def list_(location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """List the collections with their points, encoders and aliases."""
    from llama_index_embed_plus.cli.collection_commands import list_collections

    list_collections(location, as_json=as_json)


@app.command()
def describe(name: Name, location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """Show everything that the engine and the metadata tell about a collection, of whatever origin."""
    from llama_index_embed_plus.cli.collection_commands import describe_collection

    describe_collection(name, location, as_json=as_json)


@app.command()
def wait(
    name: Name,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds after which to give up.")] = 3600.0,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Wait until every vector that is to be in the HNSW graph is in it; an embedded engine builds it now."""
    from llama_index_embed_plus.cli.collection_commands import wait_for_index

    wait_for_index(name, location, timeout=timeout)


@app.command()
def alias(
    alias: Annotated[str, typer.Argument(help="The alias; made if it is new.")],
    target: Annotated[str, typer.Argument(help="The collection that it is to name.")],
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Point an alias at a collection, in one atomic step. Applications open the alias."""
    from llama_index_embed_plus.cli.collection_commands import set_alias

    set_alias(alias, target, location)


@app.command()
def adopt(
    name: Name,
    vector: Annotated[str | None, typer.Option(help="Name of the vector that the model filled.")] = None,
    text: Annotated[str | None, typer.Option(help="Payload field with the text, if it is not to be detected.")] = None,
    id: Annotated[str | None, typer.Option(help="With --text: payload field with the passage's id.")] = None,
    metadata: Annotated[str | None, typer.Option(help="With --text: payload field with the metadata.")] = None,
    samples: Annotated[int, typer.Option(help="Stored texts to embed again and compare.")] = 32,
    similarity: Annotated[float, typer.Option(help="Cosine that nine of ten must reach.")] = 0.99,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Say that a model filled a collection of another program, after a look at stored samples."""
    from llama_index_embed_plus.cli.collection_commands import Fields, adopt_collection
    from llama_index_embed_plus.cli.commands import Where

    fields = Fields(vector, text, id, metadata)
    adopt_collection(name, Where(location, model, backend), fields, samples=samples, similarity=similarity)


@app.command()
def snapshot(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="The file to write; a server keeps its snapshots itself.")] = None,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Write a collection to one file, or have a server write its own snapshot."""
    from llama_index_embed_plus.cli.collection_commands import write_snapshot

    write_snapshot(name, file, location)


@app.command()
def restore(
    source: Annotated[str, typer.Argument(help="A file that `snapshot` wrote, or the URL of a server's snapshot.")],
    name: Annotated[str, typer.Argument(help="The new collection.")],
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Restore a snapshot as a new collection. The same command begins an interrupted one again."""
    from llama_index_embed_plus.cli.collection_commands import restore_from

    restore_from(source, name, location)


@app.command()
def copy(
    name: Name,
    new_name: Annotated[str, typer.Argument(help="The new collection.")],
    to: Annotated[str | None, typer.Option(help="Another location: folder or server URL.")] = None,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Copy a collection as it is, also to another location. The same command begins an interrupted copy again."""
    from llama_index_embed_plus.cli.collection_commands import copy_to

    copy_to(name, new_name, location, to or location)


@app.command()
def recover(
    location: Location = DEFAULT_LOCATION,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a folder's lost, damaged or old manifest again, from what the collections' own folders say."""
    from llama_index_embed_plus.cli.collection_commands import recover_location

    recover_location(location, dry_run=dry_run, as_json=as_json)


@app.command()
def drop(
    name: Name,
    force: Annotated[bool, typer.Option(help="Do not ask.")] = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Delete a collection and its points. One that serves an alias is refused."""
    from llama_index_embed_plus.cli.collection_commands import drop_collection

    drop_collection(name, location, force=force)


@tune_app.command()
def tune(
    collection: Name,
    target_recall: Annotated[float, typer.Option(help="Share of the exact neighbours to be found.")] = 0.95,
    k: Annotated[int, typer.Option("-k", help="Among how many hits.")] = 10,
    queries: Annotated[
        Path | None, typer.Option(help="Real queries (text lines, or .jsonl with a text); else stored vectors ask.")
    ] = None,
    held_out: Annotated[int, typer.Option(help="How many stored vectors ask.")] = 200,
    hnsw_ef: Numbers = None,
    m: Numbers = None,
    quantization: Annotated[str | None, typer.Option(help="int8, binary, product, turbo; with commas.")] = None,
    oversampling: Numbers = None,
    apply: Annotated[bool, typer.Option(help="Keep the chosen setting with the collection.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw recall against latency; needs the extra 'plot'.")] = None,
    as_json: AsJson = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Measure recall and latency of index settings against exact search, and name the cheapest that finds enough."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.tune_commands import Asked, grid_of, tune_collection

    grid = grid_of(hnsw_ef, m, quantization, oversampling)
    asked = Asked(target_recall, k, queries, held_out)
    tune_collection(collection, asked, grid, Where(location, model, backend), keep=apply, plot=plot, as_json=as_json)
