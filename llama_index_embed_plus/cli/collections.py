"""`embed-plus collection ...`: open the location, call the library, print what came back."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, ask, next_step, note, print_json, resumable, say
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    CollectionName,
    Location,
    Model,
    Yes,
    command_of,
    is_read_only,
    managed,
)
from llama_index_embed_plus.cli.words import K1, B, Stemming, StopWords, Words
from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.client.connect import MEMORY, is_url
from qdrant_tools.collections.adapters import adapter_not_kept
from qdrant_tools.collections.adopt import detect_layout
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.copying import copy_collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import CollectionMetadata, Layout
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.collections.status import CollectionDescription
from qdrant_tools.errors import CollectionError, UsageError, first_line, without_keys

app = typer.Typer(
    name="collection", help="Look at collections, copy them, adopt them.", no_args_is_help=True, rich_markup_mode=None
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """List the collections with their points, encoders and aliases."""
    described: list[CollectionDescription] = []
    # of a newer version, or of strangers on a server for all: they are named, and hide no other ones
    unreadable: dict[str, str] = {}
    with managed(location) as manager:
        for name in manager.names():
            try:
                described.append(manager.describe(name))
            except CollectionError as error:
                unreadable[name] = first_line(error)
    if as_json:
        names = ("name", "points", "status", "space", "aliases")
        rows = [{name: getattr(each, name) for name in names} for each in described]
        print_json({"collections": rows + [{"name": name, "error": reason} for name, reason in unreadable.items()]})
        return
    for each in described:
        aliases = f"  <- {', '.join(each.aliases)}" if each.aliases else ""
        say(f"{each.name:<30}{each.points:>10}  {each.status:<7}{each.space or 'no encoder'}{aliases}")
    for name, reason in unreadable.items():
        say(f"{name:<30}{reason}")
    if not described and not unreadable:
        say(f"no collections at {without_keys(location)}")


@app.command()
def describe(name: CollectionName, location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """Show everything that the engine and the metadata tell about a collection, of whatever origin."""
    with managed(location) as manager:
        described = manager.describe(name)
    if as_json:
        print_json(asdict(described))
        return
    for field in fields(described):
        value = getattr(described, field.name)
        if field.name in ("settings", "layout", "search", "fusion") and value is not None:
            say(field.name)
            for inner in fields(value):
                say(f"  {inner.name:<20}{_plain(getattr(value, inner.name), _WITHOUT.get(inner.name))}")
        else:
            say(f"{field.name:<22}{_plain(value, _WITHOUT.get(field.name))}")


@app.command()
def wait(
    name: CollectionName,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds after which to give up.")] = 3600.0,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Wait until every vector that is to be in the HNSW graph is in it; an embedded engine builds it now."""
    with managed(location) as manager:
        before = manager.describe(name)
        with (
            resumable("what is in the index stays there; run the same command again to go on"),
            ConsoleReporter().step(f"index {before.name}", before.points, "points") as advance,
        ):
            # by its real name: `name` may be an alias
            _any_collection(manager, before.name).build_index(timeout=timeout, progress=advance)
        after = manager.describe(name)
    say(f"{after.name}: {after.indexed_vectors} vectors indexed, {after.points} points, status {after.status}")
    next_step(command_of("tune", name, location=location))


@app.command()
def alias(
    alias: Annotated[str, typer.Argument(help="The alias; made if it is new.")],
    target: Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection that it is to name.")],
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Point an alias at a collection, in one atomic step. Applications open the alias."""
    with managed(location) as manager:
        manager.switch_alias(alias, target)
        say(f"{alias} -> {manager.resolve(alias)}")
    next_step(command_of("search", alias, "your question", location=location))


@app.command()
def adopt(
    name: CollectionName,
    vector: Annotated[str | None, typer.Option(help="Name of the vector that the model filled.")] = None,
    text: Annotated[str | None, typer.Option(help="Payload field with the text, if it is not to be detected.")] = None,
    id: Annotated[str | None, typer.Option(help="With --text: payload field with the passage's id.")] = None,
    metadata: Annotated[str | None, typer.Option(help="With --text: payload field with the metadata.")] = None,
    samples: Annotated[int, typer.Option(help="How many stored texts are embedded again and compared.")] = 32,
    similarity: Annotated[float, typer.Option(help="The cosine that nine of ten of them must reach.")] = 0.99,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Say that a model filled a collection of another program, after a look at stored samples."""
    if text is None and (id is not None or metadata is not None):
        raise UsageError("--id and --metadata need --text: say where the text is too, or let all be detected")
    with managed(location) as manager:
        layout = None
        if text is not None:
            layout = Layout("plain", vector or "", id or "", text, metadata or "")
        elif vector is not None:
            layout = detect_layout(manager.client, manager.resolve(name), vector)
        encoder = open_encoder(model, backend=backend)
        adopted = manager.adopt(name, encoder, layout=layout, samples=samples, similarity=similarity)
    say(f"{adopted.name}: {adopted.space}, layout {adopted.layout.name}, text in {adopted.layout.text!r}")
    next_step(command_of("search", name, "your question", location=location, model=model))


@app.command()
def snapshot(
    name: CollectionName,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; without it, a server keeps the snapshot.")
    ] = None,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Write a collection to one file, or have a server write its own snapshot."""
    with managed(location) as manager, ConsoleReporter().step(f"snapshot {name}", None):
        written, read_only = create_snapshot(manager.client, manager.resolve(name), out), is_read_only(manager)
    say(f"wrote {written.where}: {written.points} points, {written.bytes} bytes")
    if out is not None:
        place = "FOLDER" if read_only else location
        next_step(command_of("collection restore", f"{name}-restored", out, location=place))


@app.command()
def restore(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="The new collection.")],
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="What `snapshot` wrote, or the URL of a server's snapshot.")
    ],
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Restore a snapshot as a new collection. The same command begins an interrupted one again."""
    path = source if "://" in source else Path(source)
    with managed(location, create=True) as manager:
        with (
            resumable("nothing serves it yet; run the same command again to begin it anew"),
            ConsoleReporter().step(f"restore {name}", None, "points") as advance,
        ):
            points = restore_snapshot(manager.client, path, name, progress=advance)
        _build_index(manager, name)
        lost = adapter_not_kept(manager.client, name)
    say(f"{name}: {points} points restored")
    if lost is None:
        next_step(command_of("search", name, "your question", location=location))
    else:
        note(f"{name} served with {lost}, which no snapshot holds: until it is promoted again, the model serves alone")
        next_step(command_of("promote run", name, "--model", "FOLDER", location=location))


@app.command()
def copy(
    name: CollectionName,
    new_name: Annotated[
        str | None, typer.Argument(help="The new collection; with --to it may have the same name, which is taken then.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Another location: folder or server URL.")] = None,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Copy a collection as it is, also to another location. The same command begins an interrupted copy again."""
    if new_name is None:
        if to is None:
            raise UsageError(f"the copy of {name!r} needs a name of its own, or another place: NEW_NAME, or --to PLACE")
        new_name = name
    with managed(location) as manager, managed(to or location, create=True) as target:
        described = manager.describe(name)
        with (
            resumable("nothing serves the copy yet; run the same command again to begin it anew"),
            ConsoleReporter().step(f"copy {name}", described.points, "points") as advance,
        ):
            points = copy_collection(manager.client, described.name, target.client, new_name, progress=advance)
        _build_index(target, new_name)
    say(f"{new_name}: {points} points copied")
    next_step(command_of("search", new_name, "your question", location=to or location))


@app.command("add-lexical")
def add_lexical_command(
    name: CollectionName,
    stemming: Stemming = None,
    stop_words: StopWords = None,
    k1: K1 = None,
    b: B = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Count the words anew where there are some; what no option says stays as it was for them.",
        ),
    ] = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Let a collection be searched by words too, embedding nothing again; an interrupted run begins anew."""
    words = Words(stemming, stop_words, k1, b)
    with managed(location) as manager:
        collection = manager.open(name)
        before = "by vectors " if collection.lexical is not None else ""
        with (
            resumable(f"{before}it is searched as before; run the same command again to begin it anew"),
            ConsoleReporter().step(f"count words of {name}", collection.gateway.count(), "passages") as advance,
        ):
            done = collection.add_lexical(**words.given, again=again, progress=advance)
        points, now = done.gateway.count(), done.lexical
    told = "" if now is None else f", with k1 {now.k1:g} and b {now.b:g}"
    say(f"{done.name}: {points:,} passages are searched by words too{told}")
    next_step(command_of("search", name, "your question", "--mode", "hybrid", location=location))


@app.command()
def recover(
    location: Location = DEFAULT_LOCATION,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a folder's lost, damaged or old manifest again, from what the collections' own folders say."""
    from qdrant_tools.edge.storage import recover as engine

    if location == MEMORY or is_url(location):
        raise UsageError(f"recover makes the manifest of a folder, {location!r} has none: give a folder")
    report = engine.recover(Path(location), dry_run=dry_run)
    if as_json:
        collections = [{**asdict(each), "folder": str(each.folder)} for each in report.collections]
        left = {str(path): reason for path, reason in report.left.items()}
        print_json({**asdict(report), "collections": collections, "left": left, "dry_run": dry_run})
        return
    if report.reason is not None:
        say(report.reason)
    for each in report.collections:
        say(f"{each.name:<30}{each.folder.name}{f'  (another {each.formerly})' if each.formerly else ''}")
    for alias, target in sorted(report.aliases.items()):
        say(f"{alias:<30}<- {target}")
    for alias, target in sorted(report.lost_aliases.items()):
        say(f"alias {alias} is lost: there is no collection {target}")
    for path, reason in report.left.items():
        say(f"left alone: {path} {reason}")
    if not report.changed:
        say("nothing to recover")
    elif dry_run:
        say("nothing was written: a dry run")
    else:
        say(f"wrote a new manifest: {len(report.collections)} collections")


@app.command()
def drop(
    name: CollectionName,
    yes: Yes = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Delete a collection and its points. One that serves an alias is refused."""
    with managed(location) as manager:
        points = manager.describe(name).points
        if not yes and not ask(f"drop {name} with {points} points?"):
            raise UsageError(f"{name!r} holds {points} points: --yes drops it unasked")
        manager.drop(name)
    say(f"dropped {name}: {points} points")


def _build_index(manager: CollectionManager, name: str) -> None:
    with ConsoleReporter().step("build hnsw", None):
        _any_collection(manager, name).build_index()


def _any_collection(manager: CollectionManager, name: str) -> Collection:
    # `manager.open` refuses collections of other programs, and an index is built for those too
    return Collection(manager.client, name, CollectionMetadata("", 0))


def _plain(value: object, without: str | None = None) -> str:
    if isinstance(value, tuple):
        return ", ".join(repr(each) if each else UNNAMED for each in value) or "none"
    if value == "":
        return UNNAMED
    if value is None or value == {}:
        return without or "unknown"
    return str(value)


UNNAMED = "the unnamed one"
"""How a vector is called that has no name."""
_WITHOUT = {
    **dict.fromkeys(("lexical", "quantization", "strict_mode", "adapter", "payload_indexes"), "none"),
    "fusion": "dbsf, as usual",
    "payload_m": "as many as m",
    "space": "unknown: `embed-plus collection adopt` says which model filled it",
    "disk_bytes": "unknown: only a folder tells its size",
}
"""What it means where a collection has no such thing, by field."""
