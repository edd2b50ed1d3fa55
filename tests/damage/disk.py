"""A disk that fills up: a small file system that is written to until there is no room, and beyond.

Every write must be refused by an error of the project before the system ends the process; deleting, reading, closing
and opening must still work; and what was acknowledged must be there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from damage.children import start
from damage.counts import Counts
from damage.state import first_difference, state_of
from qdrant_tools import connect
from qdrant_tools.errors import LocationError, PlusError

MEGABYTE = 1 << 20
CHILD_SECONDS = 180
SIZE = 8


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size, in memory. Raises `PermissionError` where none can be mounted."""
    folder.mkdir(parents=True)
    options = f"size={megabytes}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a file system."""
    try:
        with small_disk(folder / "probe", 1):
            return True
    except (OSError, subprocess.SubprocessError):
        return False


def run(folder: Path, rng: random.Random, rounds: int) -> Counts:
    """Fill `rounds` small disks, each by another draw of writes, and two more by the two that once ended a process."""
    counts = Counts()
    plans = ["one large payload", "large payloads set"] + ["any writes"] * rounds
    for number, plan in enumerate(plans):
        with small_disk(folder / f"disk-{number}", rng.choice((150, 200, 300))) as disk:
            seed = rng.randrange(1 << 30)
            process = start("fill", disk, seed, plan)
            try:
                output, errors = process.communicate(timeout=CHILD_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
                counts.failed("hung", f"{plan}, seed {seed}: {output[-200:]}")
                continue
            judge(f"{plan}, seed {seed}", process.returncode, output, errors, counts)
    return counts


def judge(name: str, code: int, output: str, errors: str, counts: Counts) -> None:
    counts.cases += 1
    if code < 0:
        counts.failed("died", f"{name}: signal {-code} after {output.splitlines()[-1:]}")
    elif code or not output:
        counts.failed("foreign", f"{name}: {errors[-500:]}")
    else:
        result = json.loads(output.splitlines()[-1])
        counts.operations += result["operations"]
        counts.acknowledged += result["acknowledged"]
        counts.refused += result["refused"]
        if result["difference"]:
            counts.failed("lost", f"{name}: {result['difference']}")
        if not result["refused"]:
            counts.failed("silent", f"{name}: the disk never filled up")


def child(folder: str, seed: str, plan: str) -> None:
    """Runs in a child process: fill the disk, go on, delete, open again; prints the counts as JSON."""
    filler = Filler(Path(folder), random.Random(int(seed)))
    filler.fill(plan)
    filler.delete_on_a_full_disk()
    filler.open_again()
    print(json.dumps(filler.result()))


class Filler:
    """Writes to a folder on a small disk, and the same to a `:memory:` client whenever it was acknowledged."""

    def __init__(self, disk: Path, rng: random.Random) -> None:
        self.disk, self.rng = disk, rng
        self.reference = QdrantClient(":memory:")
        self.client: Any = connect(disk / "data")
        self.operations = self.acknowledged = self.refused = 0
        for client in (self.client, self.reference):
            client.create_collection("docs", models.VectorParams(size=SIZE, distance=models.Distance.DOT))
            client.upsert("docs", [self.point(i, 10) for i in range(50)])

    def point(self, point_id: int, size: int) -> models.PointStruct:
        return models.PointStruct(id=point_id, vector=[point_id % 7 + 1.0] * SIZE, payload={"text": "x" * size})

    def write(self, method: str, *arguments: Any, **options: Any) -> bool:
        """Make one call; False if there is no room for it."""
        self.operations += 1
        try:
            getattr(self.client, method)(*arguments, **options)
        except LocationError:
            self.refused += 1
            return False
        self.acknowledged += 1
        getattr(self.reference, method)(*arguments, **options)
        return True

    def leave(self, megabytes: float) -> None:
        """Fill the disk from outside until only so much is left."""
        free = shutil.disk_usage(self.disk).free - int(megabytes * MEGABYTE)
        with open(self.disk / "foreign", "ab") as file:
            while free > 0:
                file.write(bytes(min(free, MEGABYTE)))
                free -= MEGABYTE
            file.flush()
            os.fsync(file.fileno())

    def fill(self, plan: str) -> None:
        if plan == "one large payload":
            self.leave(30)
            self.write("upsert", "docs", [self.point(1000, 25 * MEGABYTE)])
        elif plan == "large payloads set":
            self.leave(20)
            self.write("set_payload", "docs", {"more": "y" * (3 * MEGABYTE)}, list(range(10)))
        else:
            self.leave(self.rng.randrange(30, 120))
            while self.refused < 20:
                self.any_write()
        self.leave(0.01)
        for size in (10, 10_000):
            self.write("upsert", "docs", [self.point(2000 + size, size)])

    def any_write(self) -> None:
        size = self.rng.choice((100, 5_000, 200_000, MEGABYTE, 4 * MEGABYTE))
        ids = [self.rng.randrange(50, 3000) for _ in range(self.rng.choice((1, 5, 200) if size < 200_000 else (1, 3)))]
        stored = [record.id for record in self.reference.scroll("docs", limit=5, offset=self.rng.randrange(50))[0]]
        draw = self.rng.random()
        if draw < 0.5:
            self.write("upsert", "docs", [self.point(i, size) for i in set(ids)])
        elif draw < 0.8:
            self.write("set_payload", "docs", {"more": "y" * size}, stored)
        elif draw < 0.9:
            self.write("overwrite_payload", "docs", {"text": "z" * size}, stored)
        else:
            self.write("delete", "docs", ids)

    def delete_on_a_full_disk(self) -> None:
        """Deletions and reads must succeed although nothing else does."""
        for point_id in range(40, 50):
            if not self.write("delete", "docs", [point_id]):
                raise AssertionError("a deletion was refused on a full disk")

    def open_again(self) -> None:
        self.client.close()
        try:
            self.client = connect(self.disk / "data")
            self.client.count("docs")
        except PlusError as error:
            raise AssertionError(f"a full disk cannot be opened to read: {error}") from error

    def result(self) -> dict[str, Any]:
        difference = first_difference(state_of(self.client), state_of(self.reference))
        return {
            "operations": self.operations,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "difference": difference,
        }
