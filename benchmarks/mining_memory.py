"""A collection of so many random vectors -> the memory that mining from it takes. Used by `mining.py`."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings
from qdrant_tools.mining.file import mine_to_jsonl
from qdrant_tools.records import Label, Passage, Vectors

SETTINGS = MiningSettings(negatives=4, depth=50, sampling="top", max_share=None, duplicate_similarity=None)
MEMORY_QUERIES = 1000


class Random:
    """Random unit vectors, the same for the same text."""

    space = "random@000000000000"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        rows = [np.random.default_rng(int(text.split()[1])).standard_normal(self.dimension) for text in texts]
        return (np.stack(rows) / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    encode_queries = encode_passages


def fill(folder: Path, size: int, dimension: int) -> None:
    """Make the collection that the memory of mining is measured on. A graph of few edges will do."""
    with closing(connect(folder)) as client:
        settings = CollectionSettings(m=8, ef_construct=32, on_disk=True)
        collection = CollectionManager(client).ensure("random", Random(dimension), settings=settings)
        passages = (Passage(str(i), f"passage {i}") for i in range(size))
        index_passages(collection, passages, Random(dimension), batch_size=1024)
        build_index(collection)


def mining_memory(folder: Path, size: int, dimension: int) -> dict[str, float]:
    """Megabytes: the process's peak, and what mining added to the memory that is the process's own."""
    with closing(connect(folder)) as client:
        encoder = Random(dimension)
        collection = CollectionManager(client).open("random", encoder)
        labels = [Label(f"query {size + i}", str(i)) for i in range(MEMORY_QUERIES)]
        _mine_to_file(collection, labels[:64], encoder, folder / "warm-up.jsonl")
        before = _status("RssAnon")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        highest = [before]
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(highest, done))
        watch.start()
        _mine_to_file(collection, labels, encoder, folder / "mined.jsonl")
        done.set()
        watch.join()
        return {"peak": round(_status("VmHWM"), 1), "added": round(max(highest) - before, 1)}


def _mine_to_file(collection: Collection, labels: Sequence[Label], encoder: Random, path: Path) -> None:
    mine_to_jsonl(collection, labels, encoder, path=path, settings=SETTINGS)


def _watch(highest: list[float], done: threading.Event) -> None:
    while not done.wait(0.01):
        highest.append(_status("RssAnon"))


def _status(name: str) -> float:
    """A figure of /proc/self/status in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def in_a_process(run: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


def measure_memory(folder: Path, size: int, dimension: int) -> dict[str, Any]:
    """Fill and mine in processes of their own, so that neither counts for the other."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        started = time.perf_counter()
        in_a_process(fill, Path(name), size, dimension)
        filled = time.perf_counter() - started
        return in_a_process(mining_memory, Path(name), size, dimension) | {"fill_seconds": round(filled, 1)}
