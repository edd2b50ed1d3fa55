"""What a folder holds, in small JSON files that carry a checksum: the manifest, and a description of each collection.

`manifest.json` names the collections with their settings, and the aliases; `manifest.previous.json` is the one before.
Each collection's folder holds its own description (`collection.json`), from which a lost manifest is made again. Every
change of the manifest counts its `generation` up, and a description bears the generation of its collection's last
change: so it shows if one of them is older than the others.

Guarantees: after a crash at any moment a file is the old one or the new one, whole; one that is not what was written,
or that names what cannot be, is a `LocationError`, never taken at its word. Does not know: the engine; which file is
written when.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from qdrant_client.http import models

from qdrant_tools.errors import InputError, LocationError
from qdrant_tools.files import written_whole

MANIFEST_FILE = "manifest.json"
PREVIOUS_FILE = "manifest.previous.json"
FORMAT = "qdrant-tools embedded engine"
DESCRIPTION_FORMAT = "qdrant-tools collection"
VERSION = 2
"""Version 1 had no checksums, no generations and no descriptions."""
FOLDER_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class CollectionEntry:
    """One collection: its folder, its settings as qdrant-client's `CreateCollection` row, when it last changed."""

    folder: str
    settings: Mapping[str, Any]
    generation: int = 0


@dataclass(frozen=True)
class Description:
    """What a collection's folder says of itself. `draft`: a file elsewhere that is to go if this folder goes."""

    name: str
    generation: int
    settings: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    draft: str = ""

    def text(self) -> str:
        return sealed_text(
            {
                "format": DESCRIPTION_FORMAT,
                "version": VERSION,
                "name": self.name,
                "generation": self.generation,
                "aliases": list(self.aliases),
                "settings": dict(self.settings),
                **({"draft": self.draft} if self.draft else {}),
            }
        )

    @classmethod
    def load(cls, path: Path) -> Description:
        """Read a description. Raises `LocationError` if the file is not what was written."""
        document = _document(path, DESCRIPTION_FORMAT, "")
        try:
            return cls(
                _name(document["name"]),
                _count(document["generation"]),
                _settings(document["settings"]),
                tuple(_name(alias) for alias in document["aliases"]),
                str(document.get("draft", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LocationError(f"'{path}' is damaged ({_reason(error)})") from error


@dataclass(frozen=True)
class Manifest:
    """Everything the folder promises. Changing it means writing a new one, of the next generation, with `save()`."""

    collections: Mapping[str, CollectionEntry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0

    def save(self, root: Path, file: str = MANIFEST_FILE) -> None:
        rows = {
            name: {"folder": entry.folder, "generation": entry.generation, "settings": dict(entry.settings)}
            for name, entry in self.collections.items()
        }
        document = {"format": FORMAT, "version": VERSION, "generation": self.generation}
        replace_file(root / file, sealed_text({**document, "collections": rows, "aliases": dict(self.aliases)}))

    @classmethod
    def load(cls, root: Path, file: str = MANIFEST_FILE) -> Manifest:
        """Read the folder's manifest. Raises `LocationError` if the file is not one this version can read."""
        path = root / file
        document = _document(path, FORMAT, f"; {way_out(root)}")
        try:
            return _manifest(document)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LocationError(f"'{path}' is damaged ({_reason(error)}); {way_out(root)}") from error

    def named_folders(self) -> dict[str, str]:
        """Folder -> the collection in it."""
        return {entry.folder: name for name, entry in self.collections.items()}

    def describe(self, name: str) -> Description:
        """What the folder of this collection has to say of itself."""
        entry = self.collections[name]
        return Description(name, entry.generation, entry.settings, self.aliases_by_collection.get(name, ()))

    @cached_property
    def aliases_by_collection(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for alias, target in sorted(self.aliases.items()):
            found[target] = (*found.get(target, ()), alias)
        return found


def way_out(root: Path) -> str:
    """How to get the collections back."""
    command = f"embed-plus collection recover --location {shlex.quote(str(root))}"
    return f"nothing was changed; make it again from the collections' own folders: {command}"


def settings_row(settings: models.CreateCollection) -> dict[str, Any]:
    """A collection's settings as the files hold them. Raises `InputError` for text that no file can hold."""
    try:
        row: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True)
        # pydantic replaces what it cannot encode in keys, so the metadata is looked at as it is
        json.dumps([row, settings.metadata], ensure_ascii=False, default=str).encode()
        return row
    except ValueError as error:
        raise InputError(f"collection settings hold text that is not valid Unicode ({error})") from error


def sealed_text(content: Mapping[str, Any]) -> str:
    """A JSON document with the checksum of its content."""
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1, ensure_ascii=False)


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _document(path: Path, expected: str, advice: str) -> dict[str, Any]:
    """A file's document, with the right checksum; one of version 1 has none. Raises `LocationError`."""
    try:
        document = json.loads(path.read_bytes().decode())
        sealed = document.pop("checksum", None)
        if document["format"] != expected:
            raise ValueError(f"format {document['format']!r}, expected {expected!r}")
        version = _count(document["version"])
    except OSError as error:
        raise LocationError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LocationError(f"'{path}' is damaged ({_reason(error)}){advice}") from error
    if version > VERSION:
        raise LocationError(
            f"'{path}' is version {version} of {expected!r}, this release reads up to version {VERSION}: install a "
            f"newer release, or, if none ever wrote here, the file is damaged{advice}"
        )
    plain = version == 1 and sealed is None and expected == FORMAT
    if not plain and (version != VERSION or sealed != _checksum(document)):
        raise LocationError(f"'{path}' is damaged (its checksum is not that of its content){advice}")
    return dict(document)


def _manifest(document: Mapping[str, Any]) -> Manifest:
    first = document["version"] == 1
    entries = {
        _name(name): CollectionEntry(
            _folder(row["folder"]), _settings(row["settings"]), 0 if first else _count(row["generation"])
        )
        for name, row in document["collections"].items()
    }
    if len({entry.folder for entry in entries.values()}) < len(entries):
        raise ValueError("two collections in one folder")
    aliases = {_name(alias): target for alias, target in document["aliases"].items()}
    for alias, target in aliases.items():
        if target not in entries or alias in entries:
            raise ValueError(f"alias {alias!r} names {target!r}, which is no collection, or is one itself")
    return Manifest(entries, aliases, 0 if first else _count(document["generation"]))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no name")
    return value


def _folder(value: Any) -> str:
    if not isinstance(value, str) or not FOLDER_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no collection's folder")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _settings(value: Any) -> Mapping[str, Any]:
    models.CreateCollection.model_validate(value)
    return dict(value)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"settings: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` so that a crash leaves the old or the new content, on the disk and not only in memory."""
    try:
        # a fixed name: what a killed process leaves is overwritten by the next write
        with written_whole(path, draft=path.with_name(path.name + ".new"), durable=True) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LocationError(f"'{path}' cannot be written: {error.strerror}") from error
