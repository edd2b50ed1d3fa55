"""`embed-plus collection ...` and `embed-plus tune`: their options.

The bodies of `embed-plus collection ...`: open the location, call the library, print what came back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from llama_index_embed_plus.cli.console import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    ConsoleReporter,
    Location,
    Model,
    err,
    say,
)
from llama_index_embed_plus.cli.opened import Where
from qdrant_tools.client.connect import MEMORY, connect, is_url
from qdrant_tools.collections.adopt import detect_layout
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import CollectionMetadata, Layout
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import UsageError

app = typer.Typer(
    name="collection", help="Look at collections, copy them, adopt them.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="A collection or alias.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """List the collections with their points, encoders and aliases."""

    list_collections(location, as_json=as_json)


@app.command()
def describe(name: Name, location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """Show everything that the engine and the metadata tell about a collection, of whatever origin."""

    describe_collection(name, location, as_json=as_json)


@app.command()
def wait(
    name: Name,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds after which to give up.")] = 3600.0,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Wait until every vector that is to be in the HNSW graph is in it; an embedded engine builds it now."""

    wait_for_index(name, location, timeout=timeout)


@app.command()
def alias(
    alias: Annotated[str, typer.Argument(help="The alias; made if it is new.")],
    target: Annotated[str, typer.Argument(help="The collection that it is to name.")],
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Point an alias at a collection, in one atomic step. Applications open the alias."""

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
    from llama_index_embed_plus.cli.opened import Where

    fields = Fields(vector, text, id, metadata)
    adopt_collection(name, Where(location, model, backend), fields, samples=samples, similarity=similarity)


@app.command()
def snapshot(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="The file to write; a server keeps its snapshots itself.")] = None,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Write a collection to one file, or have a server write its own snapshot."""

    write_snapshot(name, file, location)


@app.command()
def restore(
    source: Annotated[str, typer.Argument(help="A file that `snapshot` wrote, or the URL of a server's snapshot.")],
    name: Annotated[str, typer.Argument(help="The new collection.")],
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Restore a snapshot as a new collection. The same command begins an interrupted one again."""

    restore_from(source, name, location)


@app.command()
def copy(
    name: Name,
    new_name: Annotated[str, typer.Argument(help="The new collection.")],
    to: Annotated[str | None, typer.Option(help="Another location: folder or server URL.")] = None,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Copy a collection as it is, also to another location. The same command begins an interrupted copy again."""

    copy_to(name, new_name, location, to or location)


@app.command()
def recover(
    location: Location = DEFAULT_LOCATION,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a folder's lost, damaged or old manifest again, from what the collections' own folders say."""

    recover_location(location, dry_run=dry_run, as_json=as_json)


@app.command()
def drop(
    name: Name,
    force: Annotated[bool, typer.Option(help="Do not ask.")] = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Delete a collection and its points. One that serves an alias is refused."""

    drop_collection(name, location, force=force)


@contextmanager
def managed(location: str, *, create: bool = False) -> Iterator[CollectionManager]:
    """The collections of a location that must be there, unless they are to be made."""
    with closing(connect(location, create=create)) as client:
        yield CollectionManager(client)


@contextmanager
def resumable(message: str) -> Iterator[None]:
    """Ctrl-C inside the block prints one line that says how to go on, and ends with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"interrupted: {message}", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None


def list_collections(location: str, *, as_json: bool) -> None:
    """One line per collection; one JSON object with all of them."""
    with managed(location) as manager:
        found = [manager.describe(name) for name in manager.names()]
    rows = [
        {"name": each.name, "points": each.points, "status": each.status, "space": each.space, "aliases": each.aliases}
        for each in found
    ]
    if as_json:
        print_json({"collections": rows})
        return
    for each in found:
        named = f"  <- {', '.join(each.aliases)}" if each.aliases else ""
        say(f"{each.name:<30}{each.points:>10}  {each.status:<7}{each.space or 'no encoder'}{named}")
    if not found:
        say(f"no collections at {location}")


def describe_collection(name: str, location: str, *, as_json: bool) -> None:
    """Every field of the description, one per line."""
    with managed(location) as manager:
        found = manager.describe(name)
    if as_json:
        print_json(asdict(found))
        return
    for field in fields(found):
        value = getattr(found, field.name)
        if field.name in ("settings", "layout") and value is not None:
            say(field.name)
            for inner in fields(value):
                say(f"  {inner.name:<20}{_shown(getattr(value, inner.name))}")
        else:
            say(f"{field.name:<22}{_shown(value)}")


def wait_for_index(name: str, location: str, *, timeout: float) -> None:
    """Build or wait, then say how much is in the graph."""
    with managed(location) as manager:
        described = manager.describe(name)
        handle = Collection(
            manager.client, described.name, CollectionMetadata(described.space or "", described.dimension or 0)
        )
        with (
            resumable("what is in the index stays there; run the same command again to go on"),
            ConsoleReporter().step(f"index {described.name}", described.points) as advance,
        ):
            build_index(handle, timeout=timeout, progress=advance)
        found = manager.describe(name)
    say(f"{found.name}: {found.indexed_vectors} vectors indexed, {found.points} points, status {found.status}")


def set_alias(alias: str, target: str, location: str) -> None:
    with managed(location) as manager:
        manager.switch_alias(alias, target)
        say(f"{alias} -> {manager.resolve(alias)}")


@dataclass(frozen=True)
class Fields:
    """Where a person says that things are; None is for what is to be detected."""

    vector: str | None
    text: str | None
    id: str | None
    metadata: str | None


def adopt_collection(name: str, where: Where, given: Fields, *, samples: int, similarity: float) -> None:
    """Adopt and say what was found."""
    from llama_index_embed_plus.encoders.open import open_encoder

    if given.text is None and (given.id is not None or given.metadata is not None):
        raise UsageError("--id and --metadata need --text: say where the text is too, or let all be detected")
    with managed(where.location) as manager:
        layout = None
        if given.text is not None:
            layout = Layout("plain", given.vector or "", given.id or "", given.text, given.metadata or "")
        elif given.vector is not None:
            layout = detect_layout(manager.client, manager.resolve(name), given.vector)
        encoder = open_encoder(where.model, backend=where.backend)
        found = manager.adopt(name, encoder, layout=layout, samples=samples, similarity=similarity)
    say(f"{found.name}: {found.space}, layout {found.layout.name}, text in {found.layout.text!r}")


def write_snapshot(name: str, file: Path | None, location: str) -> None:
    with managed(location) as manager, ConsoleReporter().step(f"snapshot {name}", None):
        made = create_snapshot(manager.client, manager.resolve(name), file)
    say(f"wrote {made.where}: {made.points} points, {made.bytes} bytes")


def restore_from(source: str, name: str, location: str) -> None:
    path = source if "://" in source else Path(source)
    with managed(location, create=True) as manager:
        with (
            resumable("nothing serves it yet; run the same command again to begin it anew"),
            ConsoleReporter().step(f"restore {name}", None) as advance,
        ):
            points = restore_snapshot(manager.client, path, name, progress=advance)
        _build(manager, name)
    say(f"{name}: {points} points restored")


def copy_to(name: str, new_name: str, location: str, to: str) -> None:
    with managed(location) as manager, managed(to, create=True) as target:
        described = manager.describe(name)
        with (
            resumable("nothing serves the copy yet; run the same command again to begin it anew"),
            ConsoleReporter().step(f"copy {name}", described.points) as advance,
        ):
            points = copy_collection(manager.client, described.name, target.client, new_name, progress=advance)
        _build(target, new_name)
    say(f"{new_name}: {points} points copied")


def drop_collection(name: str, location: str, *, force: bool) -> None:
    """Delete, after a yes of the person in front of it or with --force."""
    with managed(location) as manager:
        points = manager.describe(name).points
        if not force and not (sys.stdin.isatty() and typer.confirm(f"drop {name} with {points} points?", err=True)):
            raise UsageError(f"{name!r} holds {points} points: say --force to drop it unasked")
        manager.drop(name)
    say(f"dropped {name}: {points} points")


def recover_location(location: str, *, dry_run: bool, as_json: bool) -> None:
    """One line per collection and alias, one per folder that is left alone, and what was written."""
    from qdrant_tools.edge.storage.recover import recover

    if location == MEMORY or is_url(location):
        raise UsageError(f"recover makes the manifest of a folder, {location!r} has none: give a folder")
    found = recover(Path(location), dry_run=dry_run)
    if as_json:
        collections = [{**asdict(each), "folder": str(each.folder)} for each in found.collections]
        left = {str(path): reason for path, reason in found.left.items()}
        print_json({**asdict(found), "collections": collections, "left": left, "dry_run": dry_run})
        return
    if found.reason is not None:
        say(found.reason)
    for each in found.collections:
        say(f"{each.name:<30}{each.folder.name}{f'  (another {each.formerly})' if each.formerly else ''}")
    for alias, target in sorted(found.aliases.items()):
        say(f"{alias:<30}<- {target}")
    for alias, target in sorted(found.lost_aliases.items()):
        say(f"alias {alias} is lost: there is no collection {target}")
    for path, reason in found.left.items():
        say(f"left alone: {path} {reason}")
    if not found.changed:
        say("nothing to recover")
    else:
        say(
            "nothing was written: a dry run"
            if dry_run
            else f"wrote a new manifest: {len(found.collections)} collections"
        )


def print_json(row: object) -> None:
    """One JSON object on stdout."""
    print(json.dumps(row, ensure_ascii=False, default=_plain))


def _build(manager: CollectionManager, name: str) -> None:
    with ConsoleReporter().step("build hnsw", None):
        build_index(Collection(manager.client, name, CollectionMetadata("", 0)))


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, value)) or "none"
    return "unknown" if value is None else str(value)
