"""Kills: a writer is ended by SIGKILL at any moment, again and again, and every acknowledged write must be there."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from qdrant_client import QdrantClient

from damage.children import read, start
from damage.counts import Counts
from damage.operations import apply, begin
from damage.state import first_difference, state_of
from qdrant_tools import connect


class Folder:
    """A folder that is written to and killed, and a `:memory:` client to which the same operations are applied."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.reference = QdrantClient(":memory:")
        self.applied = 0
        """How many operations were acknowledged."""
        self._in_reference = 0
        client = connect(path)
        begin(client)
        begin(self.reference)
        client.close()

    def write_and_kill(self, rng: random.Random, most: int, counts: Counts) -> None:
        """Let a child write, and kill it in some operation, or while it opens the folder."""
        with start("write", self.path, self.seed, self.applied) as writer:
            assert writer.stdout is not None and writer.stderr is not None
            operations, last = rng.randrange(most), ""
            if operations == 0:
                time.sleep(rng.random())  # whatever it is doing then: opening, replaying, or already writing
            else:
                for _ in range(operations + 1):
                    last = writer.stdout.readline() or last
                time.sleep(rng.choice((0.0, rng.random() / 50)))
            writer.kill()
            # not communicate(): it would pass over what readline has read ahead
            rest, errors = writer.stdout.read(), writer.stderr.read()
        if "Error" in errors:
            counts.failed("foreign", f"writer: {errors[-400:]}")
        numbers = [int(line) for line in (last + rest).splitlines() if line.isdigit()]
        acknowledged = (numbers[-1] + 1 if numbers else self.applied) - self.applied
        self.applied += acknowledged
        counts.cases += 1
        counts.acknowledged += acknowledged
        counts.operations += acknowledged + 1

    def expected(self) -> list[dict]:
        """The two right states: without and with the operation during which the writer was killed."""
        for number in range(self._in_reference, self.applied):
            apply(self.reference, self.seed, number)
        self._in_reference = self.applied
        before = state_of(self.reference)
        apply(self.reference, self.seed, self.applied)  # applied again by the next writer
        return [before, state_of(self.reference)]

    def check(self, counts: Counts) -> None:
        """Read the folder and compare it with what was acknowledged."""
        reading, states = read(self.path), self.expected()
        if reading.state is None:
            counts.failed("lost" if reading.kind == "refused" else reading.kind, reading.error)
            return
        if reading.state["refused"]:
            counts.failed("lost", str(reading.state["refused"]))
            return
        del reading.state["refused"]
        differences = [first_difference(reading.state, plain(state)) for state in states]
        if all(differences):
            counts.failed("lost", f"after operation {self.applied}: {differences}")


def plain(state: dict) -> dict:
    """As JSON gives it back."""
    return json.loads(json.dumps(state))


def run(folder: Path, rng: random.Random, rounds: int) -> Counts:
    """`rounds` kills; every other time the folder is read and compared, else it is killed once more as it is."""
    counts = Counts()
    victim = Folder(folder / "kills", rng.randrange(1 << 30))
    for number in range(rounds):
        victim.write_and_kill(rng, most=60, counts=counts)
        if number % 2 or number == rounds - 1:
            victim.check(counts)
    return counts
