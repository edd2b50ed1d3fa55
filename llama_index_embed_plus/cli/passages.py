"""`embed-plus index` and `embed-plus search`: files -> a collection, a question -> hits."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    ConsoleReporter,
    Location,
    Model,
    err,
    out,
    show_hits,
)
from llama_index_embed_plus.cli.opened import Where
from llama_index_embed_plus.documents import read_passages
from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.status import build_index
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Hit
from qdrant_tools.search.dense import search as search_collection

app = typer.Typer()


@app.command()
def index(
    source: Annotated[Path, typer.Argument(help="A folder of text files, a text file, or a .jsonl file.")],
    collection: Annotated[str, typer.Option(help="The collection to fill; made if it is not there.")],
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Embed passages and add them to a collection. Unchanged passages are skipped."""
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
    hits = find(collection, question, Where(location, model, backend), k=k, exact=exact)
    if not as_json:
        show_hits(question, hits)
        return
    for hit in hits:
        row = {"rank": hit.rank, "score": hit.score, "id": hit.id, "text": hit.text, "metadata": dict(hit.metadata)}
        print(json.dumps(row, ensure_ascii=False))


def index_source(source: Path, collection: str, where: Where) -> None:
    """Index a folder or file. Ctrl-C keeps everything that was counted; the same command goes on from there."""
    passages = read_passages(source)
    encoder = open_encoder(where.model, backend=where.backend)
    reporter = ConsoleReporter()
    safe = 0
    with closing(connect(where.location)) as client:
        target = CollectionManager(client).ensure(collection, encoder)

        try:
            with reporter.step(f"index {source}", None) as advance:

                def progress(done: int) -> None:
                    nonlocal safe
                    safe += done
                    advance(done)

                report = index_passages(target, passages, encoder, progress=progress)
        except KeyboardInterrupt:
            err.print(f"interrupted: {safe} passages are indexed; run the same command again to go on")
            raise typer.Exit(130) from None
        with reporter.step("build hnsw", None):
            build_index(target)
    out.print(f"{collection}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged")
    if not report.added and not report.updated:
        out.print("nothing to do: every passage was already indexed")


def find(collection: str, question: str, where: Where, *, k: int, exact: bool) -> list[Hit]:
    """Search one collection that must already be there."""
    with closing(connect(where.location, create=False)) as client:
        encoder = open_encoder(where.model, backend=where.backend)
        return search_collection(
            CollectionManager(client).open(collection, encoder), question, encoder, k=k, exact=exact
        )
