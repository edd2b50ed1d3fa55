"""A folder of collections whose manifest is lost, damaged or old -> a new manifest, made from the collections' folders.

Every folder describes itself. Aliases come from the newest readable manifest, and from the descriptions that are newer.
Of two folders that claim one name, the newer one gets it; the other one gets a free name.

Guarantees: no collection's files are changed or removed; folders that are left out are named with the reason; a second
run changes nothing. Does not know: the engine; whether a collection's points are whole, which opening it shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qdrant_tools.edge.storage.collection_folder import (
    CollectionFolder,
    Mark,
    clear_mark,
    list_folders,
    write_description,
)
from qdrant_tools.edge.storage.files import SHARD_CONFIG_FILE, SHARD_FOLDER, FolderLock
from qdrant_tools.edge.storage.location import refuse_lost_manifest, refuse_older_manifest, resolved
from qdrant_tools.edge.storage.manifest import MANIFEST_FILE, PREVIOUS_FILE, CollectionEntry, Description, Manifest
from qdrant_tools.edge.storage.tree import COLLECTIONS_FOLDER, require_plain_root
from qdrant_tools.errors import LocationError

REPLACED_FILE = "manifest.replaced.json"
"""Where the manifest that could not be used is kept."""


@dataclass(frozen=True)
class Recovered:
    """One collection of the new manifest. `formerly` is the name it had, if another folder has that name now."""

    name: str
    folder: Path
    formerly: str | None = None
    added: bool = False
    """Whether the manifest that was there does not name it, or cannot be used."""


@dataclass(frozen=True)
class Recovery:
    """The result of `recover`. `reason` says why the manifest cannot be used; None if nothing is wrong with it."""

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
    """A folder that says it is a collection of this name. A claim is `certain` unless the folder was being deleted."""

    name: str
    path: Path
    generation: int
    settings: Mapping[str, Any]
    aliases: tuple[str, ...]
    certain: bool = True


def recover(root: Path | str, *, dry_run: bool = False) -> Recovery:
    """Make a manifest from the collections' folders. With `dry_run` nothing is written.

    Raises:
        LocationError: no collections there.
        LocationBusyError: another process holds the folder.
    """
    root = resolved(root)
    if not any((root / name).exists() for name in (MANIFEST_FILE, PREVIOUS_FILE)) and not list_folders(root):
        raise LocationError(f"no collections at '{root}': check the location")
    require_plain_root(root)
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
    """The new manifest, worked out from the files of a folder.

    `current` is the manifest if it can be used, `base` the newest one that can be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = list_folders(root)
        self.reason, self.current = self._current()
        self.base = self.current or self._newest_readable()
        self.left: dict[Path, str] = {}
        self.claims: dict[str, _Claim] = {}
        self.formerly: dict[str, str] = {}
        self._assign_names(self._valid_claims())
        self.aliases, self.lost_aliases = self._aliases()

    def recovery(self) -> Recovery:
        listed = {} if self.current is None else self.current.collections
        unclaimed = {name: self._path_of(entry) for name, entry in listed.items() if name not in self.claims}
        rows = [
            *(
                Recovered(name, claim.path, self.formerly.get(name), added=name not in listed)
                for name, claim in self.claims.items()
            ),
            *(Recovered(name, path) for name, path in unclaimed.items()),
        ]
        changed = self.current is None or any(row.added for row in rows)
        rows.sort(key=lambda row: row.name)
        return Recovery(self.reason, tuple(rows), self.aliases, self.left, self.lost_aliases, changed)

    def carry_out(self, recovery: Recovery) -> None:
        manifest = self._manifest()
        # descriptions first: a crash in between leaves an old manifest, which is refused, so that all is done again
        for name, claim in self.claims.items():
            if manifest.collections[name].generation == manifest.generation:
                clear_mark(claim.path)
                write_description(claim.path, manifest.describe(name))
        if recovery.reason is not None:
            with suppress(FileNotFoundError):
                os.replace(self.root / MANIFEST_FILE, self.root / REPLACED_FILE)
        manifest.save(self.root)

    # -- the manifests that are there

    def _current(self) -> tuple[str | None, Manifest | None]:
        """Why the manifest cannot be used, and the manifest if it can."""
        try:
            if not (self.root / MANIFEST_FILE).exists():
                refuse_lost_manifest(self.root, self.folders)
                return None, Manifest()
            manifest = Manifest.load(self.root)
            refuse_older_manifest(self.root, manifest, self.folders)
            return None, manifest
        except LocationError as error:
            # without the advice at the end of the message, which is to run this very command
            return str(error).split("; nothing was changed")[0], None

    def _newest_readable(self) -> Manifest | None:
        return max(self._readable(), key=lambda manifest: manifest.generation, default=None)

    def _readable(self) -> list[Manifest]:
        manifests = []
        for file in (MANIFEST_FILE, PREVIOUS_FILE):
            with suppress(LocationError):
                manifests.append(Manifest.load(self.root, file))
        return manifests

    # -- which folder is which collection

    def _valid_claims(self) -> list[_Claim]:
        claims = []
        for folder in self.folders:
            claim, reason = self._claim(folder)
            if claim is not None and (folder.path / SHARD_FOLDER / SHARD_CONFIG_FILE).is_file():
                claims.append(claim)
            else:
                self.left[folder.path] = reason or "has lost its files"
        return claims

    def _claim(self, folder: CollectionFolder) -> tuple[_Claim | None, str]:
        """The collection that a folder claims to be; or None and the reason."""
        name_in_base = None if self.base is None else self.base.named_folders().get(folder.path.name)
        description = folder.description
        if description is None:
            if self.base is None or name_in_base is None:
                return None, folder.problem
            return _claim_of(folder.path, self.base.describe(name_in_base)), ""
        # whether the base is new enough to know how the folder's last change ended
        base_knows = self.base is not None and self.base.generation >= description.generation
        if folder.mark is Mark.REMOVING:
            return None, f"collection '{description.name}' was being removed"
        if folder.mark is Mark.CREATING and not (base_knows and name_in_base):
            return None, f"collection '{description.name}' was being created"
        if folder.mark is Mark.DELETING and base_knows and not name_in_base:
            return None, f"collection '{description.name}' was being deleted"
        if self.base is not None and name_in_base is not None:
            described_by_base = self.base.describe(name_in_base)
            if described_by_base.generation > description.generation:  # the folder is from a backup
                description = described_by_base
        # without a manifest that is new enough, nobody knows whether the deletion was finished
        certain = folder.mark is not Mark.DELETING or (base_knows and name_in_base is not None)
        return _claim_of(folder.path, description, certain=certain), ""

    def _assign_names(self, claims: list[_Claim]) -> None:
        """Give every claim a name: the newest one the name that it claims."""
        named = {} if self.current is None else self.current.named_folders()
        taken = set() if self.current is None else {*self.current.collections, *self.current.aliases}
        # the folder's name breaks ties, so that every run decides the same
        for claim in sorted(claims, key=lambda claim: (-claim.generation, claim.path.name)):
            if claim.path.name in named:
                self.claims[named[claim.path.name]] = claim
            elif claim.name not in taken and claim.certain:
                self.claims[claim.name] = claim
                taken.add(claim.name)
        placed = {claim.path for claim in self.claims.values()}
        for claim in (claim for claim in claims if claim.path not in placed):
            if not claim.certain and any(other.name == claim.name for other in claims if other is not claim):
                self.left[claim.path] = f"collection '{claim.name}' is in another folder, this one was being deleted"
                continue
            free = _free_name(claim.name, taken)
            self.claims[free] = claim
            if free != claim.name:
                self.formerly[free] = claim.name
            taken.add(free)

    # -- the new manifest

    def _aliases(self) -> tuple[dict[str, str], dict[str, str]]:
        """The aliases of collections that are there, and the aliases of others."""
        if self.current is not None:
            return dict(self.current.aliases), {}
        aliases = {} if self.base is None else dict(self.base.aliases)
        base_generation = -1 if self.base is None else self.base.generation
        # the newest last: of two that claim one alias it keeps it
        for name, claim in sorted(self.claims.items(), key=lambda item: item[1].generation):
            if claim.generation > base_generation and name not in self.formerly:
                aliases = {alias: target for alias, target in aliases.items() if target != name}
                aliases.update(dict.fromkeys(claim.aliases, name))
        kept = {
            alias: target for alias, target in aliases.items() if target in self.claims and alias not in self.claims
        }
        return kept, {alias: target for alias, target in aliases.items() if alias not in kept}

    def _manifest(self) -> Manifest:
        """The new manifest, of a newer generation than everything that is there."""
        generations = [folder.description.generation for folder in self.folders if folder.description is not None]
        generations += [manifest.generation for manifest in self._readable()]
        if self.base is not None:
            generations.append(self.base.generation)
        generation = max(generations, default=0) + 1
        entries: dict[str, CollectionEntry] = {} if self.current is None else dict(self.current.collections)
        for name, claim in self.claims.items():
            if name not in entries:
                entries[name] = CollectionEntry(claim.path.name, claim.settings, generation)
        return replace(Manifest(entries, self.aliases), generation=generation)

    def _path_of(self, entry: CollectionEntry) -> Path:
        return self.root / COLLECTIONS_FOLDER / entry.folder


def _claim_of(path: Path, description: Description, *, certain: bool = True) -> _Claim:
    return _Claim(description.name, path, description.generation, description.settings, description.aliases, certain)


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        # a name has at most 255 characters
        free = f"{name[:230]}-recovered" if number == 1 else f"{name[:230]}-recovered-{number}"
        number += 1
    return free
