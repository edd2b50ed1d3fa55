"""What a folder holds: collection names with their settings, and aliases. One JSON file, replaced atomically.

Guarantees: after a crash at any moment the file is the old one or the new one, whole; a folder of somebody else
is never written to. Does not know: the engine; what is in a collection's folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdrant_tools.errors import LocationError

MANIFEST_FILE = "manifest.json"
FORMAT = "qdrant-tools embedded engine"
VERSION = 1


@dataclass(frozen=True)
class CollectionEntry:
    """One collection: the folder with its points, and its settings as qdrant-client's `CreateCollection` row."""

    folder: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Everything the folder promises. Changing it means writing a new one with `save()`."""

    collections: Mapping[str, CollectionEntry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def save(self, root: Path) -> None:
        rows = {
            name: {"folder": entry.folder, "settings": dict(entry.settings)} for name, entry in self.collections.items()
        }
        document = {"format": FORMAT, "version": VERSION, "collections": rows, "aliases": dict(self.aliases)}
        replace_file(root / MANIFEST_FILE, json.dumps(document, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, root: Path) -> Manifest:
        """Read the folder's manifest. Raises `LocationError` if the file is not one this version can read."""
        path = root / MANIFEST_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["version"] > VERSION:
                raise LocationError(
                    f"'{path}' is format {document['format']!r} version {document['version']}, "
                    f"this release reads {FORMAT!r} up to version {VERSION}: install a newer release"
                )
            entries = {
                name: CollectionEntry(row["folder"], row["settings"]) for name, row in document["collections"].items()
            }
            return cls(entries, dict(document["aliases"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LocationError(
                f"'{path}' is damaged ({type(error).__name__}: {error}): restore it from a backup of the folder"
            ) from error
        except OSError as error:
            raise LocationError(f"'{path}' cannot be read: {error.strerror}") from error


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` so that a crash leaves the old or the new content, on the disk and not only in memory."""
    temporary = path.with_name(path.name + ".new")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LocationError(f"'{path}' cannot be written: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make renames, creations and deletions inside `folder` durable, where the system lets a folder be synced."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
