"""Hostile calls: random values from a zoo in one, two or three arguments of random methods at once.

`test_edge_hostile.py` tries every value in every single argument; combinations are too many for that.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from zoo import METHODS, NAMED, TARGET, ZOO, fill, leak, state

from damage.children import start
from damage.counts import Counts

CHILD_SECONDS = 300


def run(folder: Path, rng: random.Random, calls: int) -> Counts:
    """Make the calls in a child process, which a panic of the engine could end."""
    counts = Counts(cases=1)
    seed = rng.randrange(1 << 30)
    process = start("call", folder / "calls", seed, calls)
    output, errors = process.communicate(timeout=CHILD_SECONDS)
    if process.returncode < 0:
        counts.failed("died", f"seed {seed}: signal {-process.returncode} after {output.splitlines()[-1:]}")
    elif process.returncode:
        counts.failed("foreign", f"seed {seed}: {errors[-500:]}")
    else:
        result = json.loads(output.splitlines()[-1])
        counts.operations = calls
        for failure in result["leaks"]:
            counts.failed("foreign", failure)
        if not result["same"]:
            counts.failed("lost", f"seed {seed}: the collection differs when it is opened again")
    return counts


def child(folder: str, seed: str, calls: str) -> None:
    """Runs in a child process; prints what leaked and whether the collection is the same, opened again."""
    from qdrant_tools import connect

    rng = random.Random(int(seed))
    client = connect(folder)
    fill(client)
    leaks = []
    for _ in range(int(calls)):
        method, arguments = draw(rng)
        leaked = leak(lambda method=method, arguments=arguments: getattr(client, method)(**arguments))
        if leaked is not None:
            leaks.append(f"{method}({', '.join(arguments)}): {leaked}")
    before = json.dumps(state(client), default=str)
    client.close()
    again = connect(folder)
    same = json.dumps(state(again), default=str) == before
    again.close()
    print(json.dumps({"leaks": leaks, "same": same}))


def draw(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A method, and its arguments with some of them replaced."""
    method = rng.choice(list(METHODS))
    arguments = dict(METHODS[method])
    if method in NAMED:
        arguments["collection_name"] = TARGET.get(method, "c")
    for name in rng.sample(list(arguments), min(len(arguments), rng.randrange(1, 4))):
        if name != "collection_name" or rng.random() < 0.2:
            arguments[name] = ZOO[rng.choice(list(ZOO))]
    return method, arguments
