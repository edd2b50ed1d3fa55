"""The bodies of `embed-plus collection ...`: open the location, call the library, print what came back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from llama_index_embed_plus.cli.commands import Where
from llama_index_embed_plus.cli.console import ConsoleReporter, err, say
from llama_index_embed_plus.errors import UsageError
from qdrant_tools.adopt import detect_layout
from qdrant_tools.collection import Collection, CollectionManager, build_index
from qdrant_tools.connect import MEMORY, connect, is_url
from qdrant_tools.copying import copy_collection
from qdrant_tools.layout import Layout
from qdrant_tools.snapshots import create_snapshot, restore_snapshot


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
        handle = Collection(manager.client, described.name, described.space or "", described.dimension or 0)
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
    from llama_index_embed_plus.encoders import open_encoder

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
    from qdrant_tools.edge.recover import recover

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
        build_index(Collection(manager.client, name, "", 0))


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, value)) or "none"
    return "unknown" if value is None else str(value)
