"""`python -m damage --minutes 10`: every part of the harness in turn, until the time is up, and a table of counts."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from damage import calls, disk, files, foreign, kills, threads
from damage.counts import FAILURES, Counts

Part = Callable[[Path, random.Random], Counts]
PARTS: dict[str, Part] = {
    "kills": lambda folder, rng: kills.run(folder, rng, 12),
    "damaged files, closed in order": lambda folder, rng: files.run(folder, rng, closed=True),
    "damaged files, after a kill": lambda folder, rng: files.run(folder, rng, closed=False),
    "hostile calls": lambda folder, rng: calls.run(folder, rng, 3000),
    "foreign rows": lambda folder, rng: foreign.run(folder, rng, 4000),
    "full disk": lambda folder, rng: disk.run(folder, rng, 3),
    "threads": lambda folder, rng: threads.run(folder, rng, threads=20, steps=100),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="damage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--part", choices=list(PARTS), action="append")
    options = parser.parse_args()
    parts = options.part or list(PARTS)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        if "full disk" in parts and not disk.can_mount(Path(folder)):
            print("full disk: left out, no small file system can be mounted here (it takes root)")
            parts.remove("full disk")
        totals = {part: Counts() for part in parts}
        soak(Path(folder), totals, options.minutes * 60, random.Random(options.seed))
    report(totals)
    return int(any(getattr(counts, kind) for counts in totals.values() for kind in FAILURES))


def soak(folder: Path, totals: dict[str, Counts], seconds: float, rng: random.Random) -> None:
    """Run the parts in turn until the time is up, each at least once."""
    end, number = time.monotonic() + seconds, 0
    while number == 0 or time.monotonic() < end:
        number += 1
        for part, total in totals.items():
            if number > 1 and time.monotonic() > end:
                return
            with tempfile.TemporaryDirectory(dir=folder) as part_folder:
                counts = PARTS[part](Path(part_folder), rng)
            total.add(counts)
            print(f"{part:32} {counts.line()}", flush=True)
            for failure in counts.failures:
                print(f"  {failure}", flush=True)


def report(totals: dict[str, Counts]) -> None:
    total = Counts()
    print()
    for part, counts in totals.items():
        print(f"{part:32} {counts.line()}")
        total.add(counts)
    print(f"{'all':32} {total.line()}")


if __name__ == "__main__":
    sys.exit(main())
