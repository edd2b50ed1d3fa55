"""`embed-plus similar`: passages that one likes, and some that one does not -> others like the former."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import heading, next_step, note, paragraph, print_json
from llama_index_embed_plus.cli.documents.hits import EXCERPT_CHARACTERS, EXCERPT_LINES, MARGIN, Shown, excerpt, row_of
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, CollectionName, Location, command_of, managed
from llama_index_embed_plus.cli.vectors.options import Conditions
from qdrant_tools.search.written import written_filter
from qdrant_tools.vectors.liked import Strategy

app = typer.Typer()


@app.command("similar")
def similar_command(
    collection: CollectionName,
    liked: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID...", help="Ids of passages that are liked; `search --json` has them."),
    ] = None,
    disliked: Annotated[
        list[str] | None, typer.Option("--not", metavar="ID", help="A passage that is not liked; may be given again.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages to find.")] = 5,
    strategy: Annotated[
        Strategy,
        typer.Option(help="Search once for the mean of the liked ones, or compare every passage with every example."),
    ] = "average_vector",
    exact: Annotated[bool, typer.Option(help="Compare with every vector instead of using HNSW.")] = False,
    conditions: Conditions = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the passages as JSON lines.")] = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Find passages that are like some stored ones, and unlike others. No model is needed."""
    with managed(location) as manager:
        docs = manager.open(collection)
        wanted = written_filter(conditions or (), docs)
        hits = docs.similar(liked or (), disliked or (), k=k, strategy=strategy, filter=wanted, exact=exact)
    for rank, hit in enumerate(hits, start=1):
        if as_json:
            print_json(row_of(rank, Shown(hit), "", None, 0))
            continue
        heading(f"{rank:>3}  {hit.score:.3f}  ", hit.id)
        paragraph(excerpt(hit.text, "", EXCERPT_CHARACTERS), margin=MARGIN, most=EXCERPT_LINES)
    if not hits:
        note("no other passages" + (" match the filter" if conditions else f" are in {collection}"))
    elif not as_json:
        next_step(command_of("passages", "get", collection, hits[0].id, location=location))
