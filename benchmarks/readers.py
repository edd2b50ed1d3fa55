"""How many searches do threads get from a folder with reader processes, against one process alone?

    python benchmarks/readers.py [--points 50000] [--dimension 384] [--readers 2] [--threads 1 8] [--seconds 3]

Clustered vectors (as in `embedded_engine.py`) in two folders that are copies of each other, one opened with readers.
Both take turns, round after round, in one process:

- queries per second: k = 10 with payload, hnsw_ef 128, through the client, from so many threads at once; the median of
  the rounds, and the smallest and largest ratio of a round, which is the noise;
- milliseconds of CPU for a query, of this process and of its readers: what a busy machine does not distort as much.
  `possible` is how many times the queries per second could be if two cores did nothing else;
- batches of 256 queries for ids and scores alone, as mining asks for them;
- a search beside a writer that upserts 64 points at a time: median and 99th percentile of the latency, once with
  pauses of 20 ms between the writes, once without.

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from embedded_engine import NAME, PARAMS, blocks, clustered
from qdrant_client import models

from qdrant_tools.client.connect import connect
from qdrant_tools.edge.client import EmbeddedClient

K, BATCH, DEPTH, WRITTEN = 10, 256, 50, 64
CORES = 2  # for `possible`

Search = Callable[[list[float]], Any]


def build(folder: Path, points: int, dimension: int) -> None:
    with closing(opened(folder, 0)) as client:
        client.create_collection(NAME, models.VectorParams(size=dimension, distance=models.Distance.COSINE))
        for block in blocks(clustered(points, dimension, seed=1)):
            client.upsert(NAME, block)
        client.build_index(NAME)


def opened(folder: Path, readers: int) -> EmbeddedClient:
    client = connect(folder, readers=readers)
    assert isinstance(client, EmbeddedClient)
    return client


def until_ready(client: EmbeddedClient) -> None:
    end = time.monotonic() + 120
    while not client.readers_ready(NAME):
        if time.monotonic() > end:
            raise SystemExit("the readers are not ready within two minutes")
        time.sleep(0.02)


def seconds_of_cpu(client: EmbeddedClient) -> float:
    """CPU seconds of this process and of the client's readers, all their threads."""
    pool = client.engine.readers
    spent = time.process_time()
    for pid in [] if pool is None else pool.process_ids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            spent += int((task / "schedstat").read_text().split()[0]) / 1e9
    return spent


def searches(client: EmbeddedClient) -> Search:
    return lambda query: client.query_points(NAME, query, limit=K, search_params=PARAMS).points


def rate(client: EmbeddedClient, queries: list[list[float]], threads: int, seconds: float) -> dict[str, float]:
    """Queries per second from so many threads, and milliseconds of CPU for each."""
    search, done = searches(client), [0] * threads
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        place = number
        while time.monotonic() < end:
            search(queries[place % len(queries)])
            place += threads
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    start, cpu = time.monotonic(), seconds_of_cpu(client)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    spent, cpu = time.monotonic() - start, seconds_of_cpu(client) - cpu
    return {"per_second": sum(done) / spent, "cpu_ms": 1000 * cpu / sum(done)}


def batch_rate(client: EmbeddedClient, queries: list[list[float]]) -> dict[str, float]:
    vectors = np.array((queries * (1 + BATCH // len(queries)))[:BATCH], dtype=np.float32)
    start, cpu = time.monotonic(), seconds_of_cpu(client)
    client.rankings(NAME, vectors, [DEPTH] * BATCH, params=PARAMS)
    spent, cpu = time.monotonic() - start, seconds_of_cpu(client) - cpu
    return {"per_second": BATCH / spent, "cpu_ms": 1000 * cpu / BATCH}


@contextmanager
def written(client: EmbeddedClient, pause: float, dimension: int) -> Iterator[list[int]]:
    """A thread that upserts; yields the count of its writes."""
    stop, count = threading.Event(), [0]
    rows = [point for block in blocks(clustered(1024, dimension, seed=3)) for point in block]

    def work() -> None:
        while not stop.is_set():
            first = count[0] * WRITTEN % len(rows)
            client.upsert(NAME, rows[first : first + WRITTEN])
            count[0] += 1
            if pause:
                stop.wait(pause)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        yield count
    finally:
        stop.set()
        writer.join()


def latency(client: EmbeddedClient, queries: list[list[float]], seconds: float, pause: float) -> dict[str, float]:
    search, times = searches(client), list[float]()
    end = time.monotonic() + seconds
    with written(client, pause, len(queries[0])) as writes:
        while time.monotonic() < end:
            start = time.perf_counter()
            search(queries[len(times) % len(queries)])
            times.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.percentile(times, [50, 99]).tolist()
    return {"p50_ms": p50, "p99_ms": p99, "writes_per_second": writes[0] / seconds}


def compared(alone: list[dict[str, float]], with_readers: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of both, and the ratio of each round."""
    ratios = [there["per_second"] / here["per_second"] for here, there in zip(alone, with_readers, strict=True)]

    def middle(rounds: list[dict[str, float]], key: str) -> float:
        return statistics.median(each[key] for each in rounds)

    return {
        "alone": {key: round(middle(alone, key), 4) for key in alone[0]},
        "readers": {key: round(middle(with_readers, key), 4) for key in alone[0]},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
        "possible": round(CORES * middle(alone, "cpu_ms") / middle(with_readers, "cpu_ms"), 3),
    }


def measure(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    build(root / "alone", arguments.points, arguments.dimension)
    shutil.copytree(root / "alone", root / "readers")
    queries: list[list[float]] = clustered(1000, arguments.dimension, seed=2).tolist()
    result: dict[str, Any] = {"points": arguments.points, "readers": arguments.readers, "threads": {}, "writing": {}}
    with (
        closing(opened(root / "alone", 0)) as alone,
        closing(opened(root / "readers", arguments.readers)) as readers,
    ):
        until_ready(readers)
        for query in queries[:100]:
            searches(alone)(query), searches(readers)(query)
        for threads in arguments.threads:
            rounds = [
                (rate(alone, queries, threads, arguments.seconds), rate(readers, queries, threads, arguments.seconds))
                for _ in range(arguments.rounds)
            ]
            result["threads"][str(threads)] = compared([a for a, _ in rounds], [b for _, b in rounds])
        rounds = [(batch_rate(alone, queries), batch_rate(readers, queries)) for _ in range(2 * arguments.rounds)]
        result["batches"] = compared([a for a, _ in rounds], [b for _, b in rounds])
        for name, pause in (("with pauses", 0.02), ("without pauses", 0.0)):
            until_ready(readers)
            result["writing"][name] = {
                kind: {
                    key: round(value, 3) for key, value in latency(client, queries, arguments.seconds, pause).items()
                }
                for kind, client in (("alone", alone), ("readers", readers))
            }
        result["resident_mb"] = resident(readers)
    result["load"] = round(os.getloadavg()[0], 1)
    result["machine"] = f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"
    return result


def resident(client: EmbeddedClient) -> list[float]:
    """Megabytes of each reader that are its own, mapped files not counted."""
    pool = client.engine.readers
    sizes = []
    for pid in [] if pool is None else pool.process_ids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")]
    return [round(size, 1) for size in sizes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        result = measure(arguments, Path(root))
    for threads, found in result["threads"].items():
        print(f"{threads} threads: {found['ratio']} times one process ({found['possible']} by CPU seconds)")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
