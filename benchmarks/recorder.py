"""What does recording cost a retrieval? The same retrievals without a recorder, with one, and with spans too.

    python benchmarks/recorder.py [--blocks 12] [--size 200]

A retriever that takes 5 ms, one way or the other: `waiting` sleeps, as one does that waits for a server; `busy`
computes in Python all the time, as one does that shares the interpreter with the recorder's writing thread. Blocks of
`--size` retrievals run in random order `off`, with a `recorder`, and with `spans` too (`SearchSpans`, into a file by
OpenTelemetry's batch processor; all run below a root span), with a pause between them, so that what the writing thread
does falls into the blocks that caused it. `overhead` is the median with, less the median without, as a share of the
latter; `low` and `high` are the ends of its 95 % bootstrap interval over rounds of blocks; `mean_overhead` is the same
of means, which the writing thread's bursts are in too. `call_us` is what a recorded retrieval of an instant retriever
costs the caller more than one that is not recorded, in microseconds: the same without the noise of 5 ms. The log is on
disk. The last line is JSON.
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
from functools import partial
from pathlib import Path

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from llama_index_embed_plus.integrations.recorder import RetrievalRecorder
from llama_index_embed_plus.integrations.spans import SearchSpans

OFF = "off"
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
    return [timed(partial(retriever.retrieve, f"what is number {number}?")) for number in range(size)]


class Switch:
    """Turns the recording of open recorders on and off, one at a time."""

    def __init__(self, **recorders: RetrievalRecorder) -> None:
        self.dispatcher = get_dispatcher()
        self.off = list(self.dispatcher.span_handlers)
        self.handlers = {OFF: self.off}
        for name, recorder in recorders.items():
            self.dispatcher.span_handlers = list(self.off)
            recorder.start()
            self.handlers[name] = list(self.dispatcher.span_handlers)

    def turn(self, name: str) -> None:
        self.dispatcher.span_handlers = list(self.handlers[name])


def measure(retriever: Timed, switch: Switch, *, blocks: int, size: int) -> dict[str, dict[str, float]]:
    luck = random.Random(0)
    rounds: list[dict[str, list[float]]] = []
    for _ in range(blocks):
        one: dict[str, list[float]] = {}
        for name in luck.sample(list(switch.handlers), len(switch.handlers)):
            switch.turn(name)
            one[name] = block(retriever, size)
            time.sleep(PAUSE)
        rounds.append(one)

    def overhead(name: str, chosen: list[dict[str, list[float]]], middle: Callable[[list[float]], float]) -> float:
        with_, without = (middle([each for one in chosen for each in one[side]]) for side in (name, OFF))
        return with_ / without - 1

    found = {OFF: {"median_ms": round(statistics.median([each for one in rounds for each in one[OFF]]) * 1e3, 3)}}
    for name in switch.handlers:
        if name == OFF:
            continue
        resampled = sorted(overhead(name, luck.choices(rounds, k=blocks), statistics.median) for _ in range(400))
        found[name] = {
            "overhead": round(overhead(name, rounds, statistics.median), 5),
            "low": round(resampled[10], 5),
            "high": round(resampled[389], 5),
            "mean_overhead": round(overhead(name, rounds, statistics.fmean), 5),
        }
    return found


def call_microseconds(switch: Switch, *, size: int) -> dict[str, float]:
    """Of one recorded retrieval, beyond one that is not recorded; blocks in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in switch.handlers}
    for _ in range(5):
        for name in switch.handlers:
            switch.turn(name)
            block(Timed("instant"), 50)
            seconds[name].append(statistics.median(block(Timed("instant"), size // 5)))
            time.sleep(PAUSE)
    off = statistics.median(seconds[OFF])
    return {name: round((statistics.median(each) - off) * 1e6, 1) for name, each in seconds.items() if name != OFF}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12, help="of each kind")
    parser.add_argument("--size", type=int, default=200, help="retrievals per block")
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "spans.jsonl").open("w") as file:
        provider = TracerProvider()
        exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        recorders = {
            "recorder": RetrievalRecorder(Path(folder) / "log.sqlite"),
            "spans": RetrievalRecorder(Path(folder) / "spans.sqlite", spans=SearchSpans(provider)),
        }
        switch = Switch(**recorders)
        with provider.get_tracer("benchmark").start_as_current_span("application"):
            for kind in ("waiting", "busy"):
                found[kind] = measure(Timed(kind), switch, blocks=arguments.blocks, size=arguments.size)
                print(kind, found[kind], flush=True)
            call = call_microseconds(switch, size=max(arguments.size, 1000))
        for recorder in recorders.values():
            recorder.stop()
        provider.shutdown()
        lost = sum(recorder.failed for recorder in recorders.values())
        recorded = sum(recorder.recorded for recorder in recorders.values())
    machine = f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"
    print(json.dumps({**found, "call_us": call, "recorded": recorded, "lost": lost, "machine": machine}))


if __name__ == "__main__":
    main()
