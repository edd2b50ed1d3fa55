"""Damaged files: one file of a folder is flipped, cut, zeroed or removed. It must be refused, or read as if whole."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from damage.children import Reader, Reading, read
from damage.counts import Counts
from damage.kills import Folder
from damage.state import first_difference
from qdrant_tools import connect
from qdrant_tools.edge.storage.files import copy_folder

DAMAGES = ("flip", "flip a zero", "cut", "cut a little", "zero a block", "remove")


@dataclass(frozen=True)
class Case:
    """One damage to one file, relative to the folder."""

    file: Path
    damage: str


def run(folder: Path, rng: random.Random, *, closed: bool, most: int | None = None) -> Counts:
    """Damage each file of a folder, or `most` of them. `closed` in order; otherwise its writer was killed."""
    counts = Counts()
    victim = Folder(folder / "damaged", rng.randrange(1 << 30))
    for _ in range(3):
        victim.write_and_kill(rng, most=80, counts=Counts())
    if closed:
        connect_and_close(victim.path)
    whole = copy_of(victim.path, folder / "whole")
    reading = read(whole)
    assert reading.state is not None and not reading.state["refused"], reading
    folders = collection_folders(whole)  # without what the kill left half made
    shutil.rmtree(whole)
    reader = Reader()
    for case in cases(victim.path, rng, most):
        copy = copy_of(victim.path, folder / "copy")
        if damage(copy / case.file, case.damage, rng):
            counts.cases += 1
            judge(case, reader.read(copy), reading.state, counts)
            if gone := folders - collection_folders(copy):
                counts.failed("lost", f"{case}: opening removed {sorted(gone)}")
        shutil.rmtree(copy)
    reader.close()
    return counts


def connect_and_close(folder: Path) -> None:
    """Open every collection once and close in order."""
    client = connect(folder, create=False)
    for collection in client.get_collections().collections:
        client.count(collection.name)
    client.close()


def cases(folder: Path, rng: random.Random, most: int | None) -> Iterator[Case]:
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for file in files if most is None else rng.sample(files, min(most, len(files))):
        yield Case(file, rng.choice(DAMAGES))


def copy_of(folder: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    copy_folder(folder, target)
    return target


def damage(path: Path, kind: str, rng: random.Random) -> bool:
    """Damage one file; False if that would change nothing."""
    if kind == "remove":
        path.unlink()
        return True
    content = bytearray(path.read_bytes())
    places = [i for i, byte in enumerate(content) if byte] if kind == "flip" else range(len(content))
    if not places:
        return False
    place = rng.choice(places)
    if kind in ("flip", "flip a zero"):
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "zero a block":
        size = min(rng.choice((8, 512, 4096)), len(content) - place)
        if not any(content[place : place + size]):
            return False
        content[place : place + size] = bytes(size)
    else:
        del content[place if kind == "cut" else -rng.randrange(1, min(64, len(content)) + 1) :]
    path.write_bytes(content)
    return True


def judge(case: Case, reading: Reading, undamaged: dict, counts: Counts) -> None:
    """A damaged folder must be read as if it were whole, or be refused by an error of the project."""
    if reading.kind == "refused":
        counts.refused += 1
    elif reading.state is None:
        counts.failed(reading.kind, f"{case}: {reading.error}")
    else:
        refused = reading.state["refused"]
        expected = {name: state for name, state in undamaged["collections"].items() if name not in refused}
        difference = first_difference(reading.state["collections"], expected)
        if difference or reading.state["aliases"] != undamaged["aliases"]:
            counts.failed("silent", f"{case}: {difference or reading.state['aliases']}")
        counts.refused += bool(refused)


def collection_folders(folder: Path) -> set[str]:
    return {path.name for path in (folder / "collections").iterdir()}
