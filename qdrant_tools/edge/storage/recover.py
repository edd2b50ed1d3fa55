"""A folder of collections whose manifest is lost, damaged or old -> a new manifest, made from the collections' folders.

Every folder describes itself; aliases come from the newest manifest that can be read, and from the descriptions that
are newer. Of two folders that claim one name the newer gets it, the other comes back under a free one.

Guarantees: no collection's files are changed or removed; what is left out is named with the reason; a second run
changes nothing. Does not know: the engine; whether the points of a collection are whole, which opening it tells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qdrant_tools.edge.storage.files import FolderLock
from qdrant_tools.edge.storage.location import (
    COLLECTIONS_FOLDER,
    REPLACED_FILE,
    FoundFolder,
    State,
    describe,
    refuse_lost_manifest,
    refuse_older,
    resolved,
    settle,
    survey,
)
from qdrant_tools.edge.storage.manifest import MANIFEST_FILE, PREVIOUS_FILE, CollectionEntry, Description, Manifest
from qdrant_tools.errors import LocationError

SHARD_MARK = Path("shard", "edge_config.json")
"""A file that every shard has."""


@dataclass(frozen=True)
class Recovered:
    """One collection that the new manifest names. `formerly`: the name it had, if another folder has that now."""

    name: str
    folder: Path
    formerly: str | None = None
    added: bool = False
    """Whether the manifest that was there does not name it, or cannot be used."""


@dataclass(frozen=True)
class Recovery:
    """What `recover` found. `reason`: why the manifest cannot be used; None if nothing is wrong with it."""

    reason: str | None
    collections: tuple[Recovered, ...]
    aliases: Mapping[str, str]
    left: Mapping[Path, str]
    """Folder -> why it is left alone."""
    lost_aliases: Mapping[str, str]
    """Aliases whose collection is not there any more."""
    changed: bool


@dataclass(frozen=True)
class _Claim:
    """A folder that says it is a collection of this name. `surely`: it was not being deleted."""

    name: str
    path: Path
    generation: int
    settings: Mapping[str, Any]
    aliases: tuple[str, ...]
    surely: bool = True


def recover(root: Path | str, *, dry_run: bool = False) -> Recovery:
    """Make a manifest from the collections' folders. With `dry_run` nothing is written.

    Raises:
        LocationError: no collections there.
        LocationBusyError: another process holds the folder.
    """
    root = resolved(root)
    if not any((root / name).exists() for name in (MANIFEST_FILE, PREVIOUS_FILE)) and not survey(root):
        raise LocationError(f"no collections at '{root}': check the location")
    lock = FolderLock(root)
    try:
        plan = _Plan(root)
        recovery = plan.recovery()
        if recovery.changed and not dry_run:
            plan.carry_out(recovery)
        return recovery
    finally:
        lock.release()


class _Plan:
    """The manifest that the files of a folder amount to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found = survey(root)
        self.reason, self.current = self._current()
        self.base = self.current or self._newest_readable()
        self.left: dict[Path, str] = {}
        self.names: dict[str, _Claim] = {}
        self.formerly: dict[str, str] = {}
        self._assign(self._claims())
        self.aliases, self.lost_aliases = self._aliases()

    def recovery(self) -> Recovery:
        known = {} if self.current is None else self.current.collections
        kept = {name: self._folder_of(entry) for name, entry in known.items() if name not in self.names}
        rows = [
            *(
                Recovered(name, claim.path, self.formerly.get(name), added=name not in known)
                for name, claim in self.names.items()
            ),
            *(Recovered(name, folder) for name, folder in kept.items()),
        ]
        changed = self.current is None or any(row.added for row in rows)
        rows.sort(key=lambda row: row.name)
        return Recovery(self.reason, tuple(rows), self.aliases, self.left, self.lost_aliases, changed)

    def carry_out(self, recovery: Recovery) -> None:
        """Write the descriptions first: a crash in between leaves a manifest that is refused, and all to do again."""
        manifest = self._manifest()
        for name, claim in self.names.items():
            if manifest.collections[name].generation == manifest.generation:
                settle(claim.path)
                describe(claim.path, manifest.describe(name))
        if recovery.reason is not None:
            with suppress(FileNotFoundError):
                os.replace(self.root / MANIFEST_FILE, self.root / REPLACED_FILE)
        manifest.save(self.root)

    def _current(self) -> tuple[str | None, Manifest | None]:
        """Why the manifest cannot be used, and the manifest if it can."""
        try:
            if not (self.root / MANIFEST_FILE).exists():
                refuse_lost_manifest(self.root, self.found)
                return None, Manifest()
            manifest = Manifest.load(self.root)
            refuse_older(self.root, manifest, self.found)
            return None, manifest
        except LocationError as error:
            return str(error).split("; nothing was changed")[0], None

    def _newest_readable(self) -> Manifest | None:
        readable = []
        for file in (MANIFEST_FILE, PREVIOUS_FILE):
            with suppress(LocationError):
                readable.append(Manifest.load(self.root, file))
        return max(readable, key=lambda manifest: manifest.generation, default=None)

    def _claims(self) -> list[_Claim]:
        claims = []
        for each in self.found:
            claim, reason = self._claim(each)
            if claim is not None and (each.path / SHARD_MARK).is_file():
                claims.append(claim)
            else:
                self.left[each.path] = reason or "has lost its files"
        return claims

    def _claim(self, found: FoundFolder) -> tuple[_Claim | None, str]:
        """What a folder claims to be, or why nothing."""
        named = None if self.base is None else self.base.named_folders().get(found.path.name)
        description = found.description
        if description is None:
            if self.base is None or named is None:
                return None, found.problem
            return _claim_of(found.path, self.base.describe(named)), ""
        since = self.base is not None and self.base.generation >= description.generation
        if found.state is State.REMOVING:
            return None, f"collection '{description.name}' was being removed"
        if found.state is State.CREATING and not (since and named):
            return None, f"collection '{description.name}' was being created"
        if found.state is State.DELETING and since and not named:
            return None, f"collection '{description.name}' was being deleted"
        if self.base is not None and named is not None:
            by_manifest = self.base.describe(named)
            if by_manifest.generation > description.generation:  # the folder is from a backup
                description = by_manifest
        surely = found.state is not State.DELETING or (since and named is not None)
        return _claim_of(found.path, description, surely=surely), ""

    def _assign(self, claims: list[_Claim]) -> None:
        """Give every claim a name: the newest one the name that it claims."""
        named = {} if self.current is None else self.current.named_folders()
        taken = set() if self.current is None else {*self.current.collections, *self.current.aliases}
        for claim in sorted(claims, key=lambda claim: (-claim.generation, claim.path.name)):
            if claim.path.name in named:
                self.names[named[claim.path.name]] = claim
            elif claim.name not in taken and claim.surely:
                self.names[claim.name] = claim
                taken.add(claim.name)
        placed = {claim.path for claim in self.names.values()}
        for claim in (claim for claim in claims if claim.path not in placed):
            if not claim.surely and any(each.name == claim.name for each in claims if each is not claim):
                self.left[claim.path] = f"collection '{claim.name}' is in another folder, this one was being deleted"
                continue
            free = _free_name(claim.name, taken)
            self.names[free] = claim
            if free != claim.name:
                self.formerly[free] = claim.name
            taken.add(free)

    def _aliases(self) -> tuple[dict[str, str], dict[str, str]]:
        """The aliases that name a collection that is there, and those that do not."""
        if self.current is not None:
            return dict(self.current.aliases), {}
        aliases = {} if self.base is None else dict(self.base.aliases)
        since = -1 if self.base is None else self.base.generation
        for name, claim in sorted(self.names.items(), key=lambda item: item[1].generation):
            if claim.generation > since and name not in self.formerly:
                aliases = {alias: target for alias, target in aliases.items() if target != name}
                aliases.update(dict.fromkeys(claim.aliases, name))
        held = {alias: target for alias, target in aliases.items() if target in self.names and alias not in self.names}
        return held, {alias: target for alias, target in aliases.items() if alias not in held}

    def _manifest(self) -> Manifest:
        """The new manifest, newer than everything that is there."""
        seen = [each.description.generation for each in self.found if each.description is not None]
        seen += [self.base.generation] if self.base is not None else []
        for file in (MANIFEST_FILE, PREVIOUS_FILE):
            with suppress(LocationError):
                seen.append(Manifest.load(self.root, file).generation)
        generation = max(seen, default=0) + 1
        entries: dict[str, CollectionEntry] = {} if self.current is None else dict(self.current.collections)
        for name, claim in self.names.items():
            if name not in entries:
                entries[name] = CollectionEntry(claim.path.name, claim.settings, generation)
        return replace(Manifest(entries, self.aliases), generation=generation)

    def _folder_of(self, entry: CollectionEntry) -> Path:
        return self.root / COLLECTIONS_FOLDER / entry.folder


def _claim_of(path: Path, description: Description, *, surely: bool = True) -> _Claim:
    return _Claim(description.name, path, description.generation, description.settings, description.aliases, surely)


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        free = f"{name[:230]}-recovered" if number == 1 else f"{name[:230]}-recovered-{number}"
        number += 1
    return free
