"""What does recording cost a retrieval? The same retrievals with and without a recorder, in turns.

    python benchmarks/recorder.py [--blocks 12] [--size 200]

A retriever that takes 5 ms, one way or the other: `waiting` sleeps, as one does that waits for a server; `busy`
computes in Python all the time, as one does that shares the interpreter with the recorder's writing thread. Blocks of
`--size` retrievals run with the recorder and without, in random order, with a pause between them, so that what the
writing thread does falls into the blocks that caused it. `overhead` is the median with, less the median without, as a
share of the latter; `low` and `high` are the ends of its 95 % bootstrap interval over pairs of blocks; `mean_overhead`
is the same of means, which the writing thread's bursts are in too. `call_us` is what a recorded retrieval of an instant
retriever costs the caller more than one that is not recorded, in microseconds: the same without the noise of 5 ms. The
log is on disk. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher

from llama_index_embed_plus.integrations.recorder import RetrievalRecorder

SECONDS = 0.005
HITS = 10
PAUSE = 0.4
"""Seconds in which the writing thread catches up."""


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compute(work: int) -> int:
    """So much work in Python, however long it takes."""
    return sum(number * number for number in range(work))


def work_of(seconds: float) -> int:
    """The work that takes so long when nothing disturbs."""
    best = min(timed(lambda: compute(100_000)) for _ in range(20))
    return int(100_000 * seconds / best)


class Timed(BaseRetriever):
    """Ten hits after 5 ms, or at once."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.work = work_of(SECONDS) if kind == "busy" else 0
        self.nodes = [TextNode(id_=f"n{i}", text=f"passage {i}") for i in range(HITS)]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self.kind == "waiting":
            time.sleep(SECONDS)
        if self.kind == "busy":
            compute(self.work)
        return [NodeWithScore(node=node, score=1.0 / (rank + 1)) for rank, node in enumerate(self.nodes)]


def block(retriever: Timed, size: int) -> list[float]:
    """Seconds of each of so many retrievals."""
    return [timed(lambda n=number: retriever.retrieve(f"what is number {n}?")) for number in range(size)]


class Switch:
    """Turns the recording of an open recorder on and off."""

    def __init__(self, recorder: RetrievalRecorder) -> None:
        self.dispatcher = get_dispatcher()
        self.off = list(self.dispatcher.span_handlers)
        recorder.start()
        self.on = list(self.dispatcher.span_handlers)

    def turn(self, recording: bool) -> None:
        self.dispatcher.span_handlers = list(self.on if recording else self.off)


def measure(retriever: Timed, switch: Switch, *, blocks: int, size: int) -> dict[str, float]:
    luck = random.Random(0)
    pairs: list[dict[bool, list[float]]] = []
    for _ in range(blocks):
        pair: dict[bool, list[float]] = {}
        for recording in luck.sample([True, False], 2):
            switch.turn(recording)
            pair[recording] = block(retriever, size)
            time.sleep(PAUSE)
        pairs.append(pair)

    def overhead(chosen: list[dict[bool, list[float]]], middle: Callable[[list[float]], float]) -> float:
        with_, without = (middle([each for pair in chosen for each in pair[side]]) for side in (True, False))
        return with_ / without - 1

    resampled = sorted(overhead(luck.choices(pairs, k=blocks), statistics.median) for _ in range(400))
    return {
        "median_ms": round(statistics.median([each for pair in pairs for each in pair[False]]) * 1e3, 3),
        "overhead": round(overhead(pairs, statistics.median), 5),
        "low": round(resampled[10], 5),
        "high": round(resampled[389], 5),
        "mean_overhead": round(overhead(pairs, statistics.fmean), 5),
    }


def call_microseconds(switch: Switch, *, size: int) -> float:
    """Of one recorded retrieval, beyond one that is not recorded."""
    seconds = {}
    for recording in (True, False):
        switch.turn(recording)
        block(Timed("instant"), 50)
        seconds[recording] = statistics.median(block(Timed("instant"), size))
        time.sleep(PAUSE)
    return round((seconds[True] - seconds[False]) * 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12, help="with the recorder, and as many without")
    parser.add_argument("--size", type=int, default=200, help="retrievals per block")
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recorder = RetrievalRecorder(Path(folder) / "log.sqlite")
        switch = Switch(recorder)
        for kind in ("waiting", "busy"):
            found[kind] = measure(Timed(kind), switch, blocks=arguments.blocks, size=arguments.size)
            print(kind, found[kind], flush=True)
        call = call_microseconds(switch, size=max(arguments.size, 1000))
        switch.turn(recording=True)
        recorder.stop()
        lost, recorded = recorder.failed, recorder.recorded
    machine = f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"
    print(json.dumps({**found, "call_us": call, "recorded": recorded, "lost": lost, "machine": machine}))


if __name__ == "__main__":
    main()
