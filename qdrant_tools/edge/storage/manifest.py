"""What a folder of collections holds, in small JSON files with a checksum: the manifest, and one description each.

`manifest.json` names the collections with their settings, and the aliases. `manifest.previous.json` is the one before.
Each collection's folder holds its own description (`collection.json`), from which a lost manifest is made again.
Every change counts the manifest's `generation` up by one. A description carries the generation of its collection's
last change, so that a file that is older than the others is noticed.

Guarantees: a file whose content is not what was written, or that names something impossible, is a `LocationError`.
Does not know: the engine; which file is written when.
"""

from __future__ import annotations

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

from qdrant_tools.edge.convert.checks import check_vector_name
from qdrant_tools.edge.convert.config import vector_params
from qdrant_tools.edge.storage.files import checksummed_json, json_checksum, replace_file
from qdrant_tools.errors import InputError, LocationError
from qdrant_tools.files.json_files import read_json
from qdrant_tools.validation import brief, is_unicode

MANIFEST_FILE = "manifest.json"
PREVIOUS_FILE = "manifest.previous.json"
FORMAT = "qdrant-tools embedded engine"
DESCRIPTION_FORMAT = "qdrant-tools collection"
VERSION = 2
"""Version 1 had no checksums, no generations and no descriptions."""
MOST_BYTES = 1 << 23
"""Of a manifest or a description. A collection takes about a kilobyte of the manifest."""
MOST_VALUES = 600_000
MOST_VECTORS = 1_000
"""Named vectors of a collection: the engine keeps several files of 32 MB for each."""
LONGEST_NAME = 255  # of a collection or an alias
LONGEST_REASON = 200
FOLDER_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class CollectionEntry:
    """One collection of the manifest: its folder, its settings, and the generation of its last change."""

    folder: str
    settings: Mapping[str, Any]
    """qdrant-client's `CreateCollection` as JSON values."""
    generation: int = 0


@dataclass(frozen=True)
class Description:
    """One collection as its own folder describes it. `draft` is a file elsewhere that is made from it."""

    name: str
    generation: int
    settings: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    draft: str = ""

    def text(self) -> str:
        return checksummed_json(
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
    """All collections and aliases. A change is a new manifest of the next generation, written with `save()`."""

    collections: Mapping[str, CollectionEntry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0

    def save(self, root: Path, file: str = MANIFEST_FILE) -> None:
        rows = {
            name: {"folder": entry.folder, "generation": entry.generation, "settings": dict(entry.settings)}
            for name, entry in self.collections.items()
        }
        document = {"format": FORMAT, "version": VERSION, "generation": self.generation}
        replace_file(root / file, checksummed_json({**document, "collections": rows, "aliases": dict(self.aliases)}))

    @classmethod
    def load(cls, root: Path, file: str = MANIFEST_FILE) -> Manifest:
        """Read the folder's manifest. Raises `LocationError` if the file is not one this version can read."""
        path = root / file
        document = _document(path, FORMAT, f"; {recovery_advice(root)}")
        try:
            return _manifest(document)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LocationError(f"'{path}' is damaged ({_reason(error)}); {recovery_advice(root)}") from error

    def named_folders(self) -> dict[str, str]:
        """Folder -> the collection in it."""
        return {entry.folder: name for name, entry in self.collections.items()}

    def describe(self, name: str) -> Description:
        """The description that belongs into this collection's folder."""
        entry = self.collections[name]
        return Description(name, entry.generation, entry.settings, self.aliases_by_collection.get(name, ()))

    @cached_property
    def aliases_by_collection(self) -> dict[str, tuple[str, ...]]:
        aliases: dict[str, tuple[str, ...]] = {}
        # sorted, because descriptions are compared: the order must not count
        for alias, target in sorted(self.aliases.items()):
            aliases[target] = (*aliases.get(target, ()), alias)
        return aliases


def recovery_advice(root: Path) -> str:
    """For error messages: how to get the collections back."""
    command = f"embed-plus collection recover --location {shlex.quote(str(root))}"
    return f"nothing was changed; make it again from the collections' own folders: {command}"


def settings_row(settings: models.CreateCollection) -> dict[str, Any]:
    """A collection's settings as JSON values. Raises `InputError` for text that is not valid Unicode."""
    try:
        row: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True)
        # pydantic replaces what it cannot encode in keys, so the metadata is encoded as it is
        json.dumps([row, settings.metadata], ensure_ascii=False, default=str).encode()
        return row
    except ValueError as error:
        raise InputError(f"collection settings hold text that is not valid Unicode ({error})") from error


def _document(path: Path, expected: str, advice: str) -> dict[str, Any]:
    """The content of a file whose checksum is right; version 1 has none. Raises `LocationError`."""
    try:
        document = read_json(path, most=MOST_BYTES, most_values=MOST_VALUES, error=LocationError)
        checksum = document.pop("checksum", None)
        if document["format"] != expected:
            raise ValueError(f"format {brief(document['format'])}, expected {expected!r}")
        version = _count(document["version"])
    except FileNotFoundError as error:
        raise LocationError(f"'{path}' cannot be read: {error.strerror}") from error
    except LocationError as error:
        raise LocationError(f"'{path}' is damaged ({error}){advice}") from error
    # a damaged file may hold anything: no JSON, no object, lists nested without end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LocationError(f"'{path}' is damaged ({_reason(error)}){advice}") from error
    # before the checksum, which a newer release may compute in another way
    if version > VERSION:
        raise LocationError(
            f"'{path}' is version {brief(version)} of {expected!r}, this release reads up to {VERSION}: install a "
            f"newer release, or, if none ever wrote here, the file is damaged{advice}"
        )
    first_release = version == 1 and checksum is None and expected == FORMAT
    if not first_release and (version != VERSION or checksum != json_checksum(document)):
        raise LocationError(f"'{path}' is damaged (its checksum is not that of its content){advice}")
    return dict(document)


def _manifest(document: Mapping[str, Any]) -> Manifest:
    first_release = document["version"] == 1
    entries = {
        _name(name): CollectionEntry(
            _folder(row["folder"]), _settings(row["settings"]), 0 if first_release else _count(row["generation"])
        )
        for name, row in document["collections"].items()
    }
    if len({entry.folder for entry in entries.values()}) < len(entries):
        raise ValueError("two collections in one folder")
    aliases = {_name(alias): target for alias, target in document["aliases"].items()}
    for alias, target in aliases.items():
        if target not in entries or alias in entries:
            raise ValueError(f"alias {brief(alias)} names {brief(target)}, which is no collection, or is one itself")
    return Manifest(entries, aliases, 0 if first_release else _count(document["generation"]))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not is_unicode(value):
        raise ValueError(f"{brief(value)} is no name")
    return value


def _folder(value: Any) -> str:
    if not isinstance(value, str) or not FOLDER_NAME.fullmatch(value):
        raise ValueError(f"{brief(value)} is no collection's folder")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:  # True is an int too
        raise ValueError(f"{brief(value)} is no count")
    return value


def _settings(value: Any) -> Mapping[str, Any]:
    for name in ("vectors", "sparse_vectors"):
        # before each one becomes an object
        if isinstance(value, dict) and isinstance(value.get(name), dict) and len(value[name]) > MOST_VECTORS:
            raise ValueError(f"{len(value[name])} {name}, expected at most {MOST_VECTORS}")
    # validated, but kept as it is: the checksum is that of the stored values
    settings = models.CreateCollection.model_validate(value)
    # they are parts of the names of the engine's files
    for name in (*vector_params(settings), *(settings.sparse_vectors or {})):
        check_vector_name(name)
    return dict(value)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"settings: {'.'.join(map(str, first['loc']))}: {first['msg']}"[:LONGEST_REASON]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_REASON]
