"""`embed-plus search`: a question -> the hits of a collection, with where each comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import note, print_json, say
from llama_index_embed_plus.cli.documents.hits import (
    Shown,
    are_repeated,
    by_document,
    by_field,
    row_of,
    show_hits,
    show_stretches,
    why_nothing,
)
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    managed,
    opened,
)
from llama_index_embed_plus.cli.words import FusionOption, fusion_of
from llama_index_embed_plus.evaluate.retrieval.retrieval import Mode
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Hit
from qdrant_tools.search.written import read_field, written_filter
from qdrant_tools.sources.stored import with_origins

app = typer.Typer()


@app.command("search")
def search_command(
    collection: Annotated[str, typer.Argument(help="The collection or alias to search.")],
    question: Annotated[str, typer.Argument(help="What to look for.")],
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits, or documents, are printed.")] = 5,
    mode: Annotated[
        Mode, typer.Option(help="How to search: by meaning (dense), by words (lexical), or by both (hybrid).")
    ] = "dense",
    exact: Annotated[
        bool | None,
        typer.Option(help="Compare with every vector, or walk the HNSW graph; without it, as the collection does."),
    ] = None,
    fusion: FusionOption = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Only where metadata are like this: author=Ann, year>=2020; may be given again."),
    ] = None,
    grouped: Annotated[bool, typer.Option("--by-document", help="Each document once, by its best passage.")] = False,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Show each value of this metadata field once, by its best passage: author, ('author', 'id')."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print the whole text of each hit.")] = False,
    around: Annotated[int, typer.Option(min=0, help="Print so many passages before and after each hit too.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON lines.")] = False,
) -> None:
    """Search a collection and print where each hit comes from, and the sentences nearest to the question."""
    if exact is not None and mode != "dense":
        raise UsageError(f"--exact and --no-exact are for --mode dense, not for {mode!r}")
    if fusion is not None and mode != "hybrid":
        raise UsageError(f"--fusion is for --mode hybrid, not for {mode!r}")
    fuse = fusion_of(fusion)
    if grouped and group_by is not None:
        raise UsageError("--by-document and --group-by say two ways to group: give one of them")
    # words need no model
    with managed(location) if mode == "lexical" else opened(collection, location, model, backend) as door:
        docs = door.open(collection) if isinstance(door, CollectionManager) else door[0]
        wanted = written_filter(conditions or (), docs)

        def find(depth: int) -> list[Hit]:
            if mode == "dense":
                return with_origins(docs, docs.search(question, k=depth, exact=exact, filter=wanted))
            if mode == "lexical":
                return with_origins(docs, docs.search_lexical([question], k=depth, filter=wanted)[0])
            return with_origins(docs, docs.search_hybrid([question], k=depth, fusion=fuse, filter=wanted)[0])

        if group_by is not None:
            shown = by_field(find, k, read_field(group_by))
        else:
            shown = by_document(find, k) if grouped else [Shown(hit) for hit in find(k)]
        stretches = docs.around([item.hit for item in shown], around) if around and shown else []
        nothing = "" if shown else why_nothing(docs, conditions or (), wanted)
    if nothing:
        (note if as_json else say)(nothing)
    elif as_json:
        stretch_of = {hit.id: stretch for stretch in stretches for hit in stretch.hits}
        for rank, item in enumerate(shown, start=1):
            print_json(row_of(rank, item, question, stretch_of.get(item.hit.id), around))
    elif stretches:
        show_stretches(question, stretches, shown)
    else:
        show_hits(question, shown, full=full)
        if not grouped and group_by is None and are_repeated([item.hit for item in shown]):
            say("a document stands here more than once: --by-document shows each once")
