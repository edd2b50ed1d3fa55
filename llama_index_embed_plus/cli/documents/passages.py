"""`embed-plus passages ...`: look at what a collection holds of a source, a document or a file, and delete it."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ask, next_step, note, print_json, say, shortened
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, CollectionName, Location, Yes, command_of, managed
from qdrant_tools.collections.points import StoredPassage, fetch
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.sources.origin import Origin
from qdrant_tools.sources.stored import count_passages, delete_ids, delete_passages, stored_passages
from qdrant_tools.validation import brief

app = typer.Typer(
    name="passages", help="Look at the passages of a collection, and delete them.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip

WIDTH = 160
"""Characters of a line of the list."""

OfSource = Annotated[str | None, typer.Option("--source", help="Only passages of this source.")]
OfDocument = Annotated[
    str | None,
    typer.Option("--document", help="Only passages of this document: its path, as in 'docs/guide.md', or a row's id."),
]
OfFile = Annotated[str | None, typer.Option("--file", help="Only passages of this file: its path below the source.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with every field.")]


@app.command("list")
def list_(
    name: CollectionName,
    source: OfSource = None,
    document: OfDocument = None,
    file: OfFile = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="The most passages to print.")] = 20,
    location: Location = DEFAULT_LOCATION,
    as_json: AsJson = False,
) -> None:
    """List passages: those of a document in its order, others in that of the engine. JSON is one object a line."""
    with managed(location) as manager:
        collection = manager.open(name)
        total = count_passages(collection, source=source, document=document, file=file)
        found = stored_passages(collection, source=source, document=document, file=file)
        # a document is short enough to be put in order
        ordered = found if document is None and file is None else iter(sorted(found, key=_place))
        for passage, origin in islice(ordered, limit):
            if as_json:
                print_json(_row(passage, origin))
            else:
                say(shortened(f"{passage.id}  {passage.text}", WIDTH))
    if total > limit and not as_json:
        note(f"{limit:,} of {total:,} passages: -k prints more")
    if not total:
        note("no such passages")
        _lead_to_some(name, file, location)


@app.command()
def get(
    name: CollectionName,
    passage_id: Annotated[str, typer.Argument(help="The passage's id.")],
    location: Location = DEFAULT_LOCATION,
    as_json: AsJson = False,
) -> None:
    """Show one passage: its whole text, and its metadata."""
    with managed(location) as manager:
        collection = manager.open(name)
        passage = fetch(collection, [passage_id]).get(passage_id)
    if passage is None:
        raise InputError(
            f"passage {brief(passage_id)} is not in {collection.name!r}: embed-plus passages list {collection.name} "
            "shows ids"
        )
    if as_json:
        print_json(_row(passage, None))
        return
    say(passage.id)
    for field, value in passage.metadata.items():
        say(f"  {field:<20}{value}")
    say()
    for line in passage.text.splitlines():
        say(line)


@app.command()
def delete(
    name: CollectionName,
    passage_ids: Annotated[list[str] | None, typer.Argument(metavar="PASSAGE_ID", help="The ids of passages.")] = None,
    source: OfSource = None,
    document: OfDocument = None,
    file: OfFile = None,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many; delete nothing.")] = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Delete passages by their ids, or all of a source, a document or a file."""
    of_some = {"source": source, "document": document, "file": file}
    by_field = any(value is not None for value in of_some.values())
    if bool(passage_ids) == by_field:
        raise UsageError("say which passages: either ids, or --source, --document or --file")
    with managed(location) as manager:
        collection = manager.open(name)
        if passage_ids:
            found = fetch(collection, passage_ids)
            missing = [passage_id for passage_id in passage_ids if passage_id not in found]
            if missing:
                raise InputError(
                    f"passage {brief(missing[0])} is not in {collection.name!r}, nothing was deleted: "
                    f"embed-plus passages list {collection.name} shows ids"
                )
            count = len(found)
        else:
            count = count_passages(collection, **of_some)
        if dry_run or not count:
            say(f"{collection.name}: {count:,} passages {'would be' if count else ''} deleted".replace("  ", " "))
            if not count:
                _lead_to_some(name, file, location)
            return
        if not yes and not ask(f"delete {count:,} passages of {collection.name}?"):
            raise UsageError(f"{count:,} passages of {collection.name!r} would be deleted: --yes does it unasked")
        deleted = delete_ids(collection, passage_ids) if passage_ids else delete_passages(collection, **of_some)
        collection.build_index()
    say(f"{collection.name}: {deleted:,} passages deleted")


def _lead_to_some(name: str, file: str | None, location: str) -> None:
    """Where nothing was found: the command that shows what there is. What `search` prints is a document's path."""
    document = ["--document", file] if file is not None else []
    next_step(command_of("passages list", name, *document, location=location))


def _place(found: tuple[StoredPassage, Origin | None]) -> tuple[str, float, str]:
    passage, origin = found
    part = passage.metadata.get("part")
    document = origin.document if origin is not None else str(passage.metadata.get("document", ""))
    return document, part if isinstance(part, int | float) else 0, passage.id


def _row(passage: StoredPassage, origin: Origin | None) -> dict[str, Any]:
    row = passage.as_row() | {"point_id": passage.point_id}
    return row if origin is None else row | {"origin": origin.as_payload()}
