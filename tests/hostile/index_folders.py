"""Index folders that lead out of themselves, or hold what no engine wrote, made from one that it did."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qdrant_tools.edge.integrity.acknowledged import ROW, SIZE, SLOT
from qdrant_tools.edge.storage.files import checksummed_json, copy_folder

LEFT = "0" * 32
"""A folder of the right form that no manifest names."""


def copied(template: Path, target: Path) -> Path:
    copy_folder(template, target)
    return target


def collection_of(root: Path) -> Path:
    return next(path for path in (root / "collections").iterdir() if path.name != LEFT)


def segment_of(root: Path) -> Path:
    return next((collection_of(root) / "shard" / "segments").iterdir())


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file; its checksum is made right again."""
    document = json.loads(path.read_text())
    document.pop("checksum", None)
    changed = change(document)
    path.write_text(checksummed_json(document if changed is None else changed))


def edit_settings(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The same change in the manifest and in the description, so that nothing contradicts it."""
    edit_json(root / "manifest.json", lambda manifest: change(manifest["collections"]["docs"]["settings"]))
    edit_json(collection_of(root) / "collection.json", lambda description: change(description["settings"]))


def forget_checksums(root: Path) -> None:
    """As an early release left a closed collection: nothing is compared when it is opened."""
    (collection_of(root) / "seal.json").write_text("{}")


def replaced_by_link(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def places(root: Path) -> list[str]:
    """Every name below a location at which something is opened, written, renamed, removed or listed."""
    collection = collection_of(root).relative_to(root).as_posix()
    own = ["collection.json", "collection.creating.json", "collection.deleting.json", "collection.removing.json"]
    notes = ["seal.json", "guard.json", "progress.bin", "touched.bin"]
    drafts = [f"{name}.new" for name in (*own, *notes[:2])]
    root_names = [".lock", ".reserve", ".readers", ".readers/REMOVE_ME", "collections", "manifest.json"]
    root_names += [
        "manifest.json.new",
        "manifest.previous.json",
        "manifest.previous.json.new",
        "manifest.replaced.json",
    ]
    shard = [path.relative_to(root).as_posix() for path in sorted((root / collection / "shard").rglob("*"))]
    return [
        *root_names,
        collection,
        f"collections/{LEFT}",
        *(f"{collection}/{name}" for name in (*own, *notes, *drafts, "shard")),
        *shard,
        f"{collection}/shard/segments/{'0' * 8}-0000-0000-0000-{'0' * 12}",
    ]


def acknowledged(*, dirty: int = 0, closed: int = 0, overwritten: int = 0) -> bytes:
    """The file of acknowledged writes with any numbers in it, and a checksum that is right."""
    row = ROW.pack(0, 1, bytes(16), dirty, 0, 0, -1, 0, *(0,) * 8, closed, overwritten)
    row = struct.pack("<I", zlib.crc32(row[4:])) + row[4:]
    return (row.ljust(SLOT, b"\0")).ljust(SIZE, b"\0")


def sparse(path: Path, size: int) -> None:
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.truncate(size)


def deep(path: Path, levels: int) -> None:
    """Folders inside one another, more than a path may name."""
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a folder that is too deep for Python."""
    subprocess.run(["rm", "-rf", str(path)], check=True)
