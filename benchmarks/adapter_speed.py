"""How long does a query adapter take to fit, and how much memory?

    python benchmarks/adapter_speed.py [--passages 100000] [--queries 1500] [--dimension 384] [--collection]

Vectors are drawn around 2,000 centres, queries near a passage and turned by one rotation; two answers to every tenth
query, so that both losses are fitted. `fit_seconds` are those of `fit_map` on all cores, `cpu_seconds` those of one.
With `--collection` they are first stored in a folder, and `read_seconds` are those of reading them from there. Memory
is the highest of the process, less what it had before. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.read import read_data
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.records import Example, Passage, ScoredText, Vectors
from qdrant_tools.validation import unit_rows


class Numbers:
    """Texts are numbers of vectors: `p7` is a passage, `q7` a query, and a part of a passage is near it."""

    space = "numbers@000000000000"

    def __init__(self, passages: Vectors, queries: Vectors) -> None:
        self.passages, self.queries, self.dimension = passages, queries, passages.shape[1]

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.passages[[int(text.split()[0][1:]) for text in texts]]

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        rows = [(self.queries if text[0] == "q" else self.passages)[int(text.split()[0][1:])] for text in texts]
        return np.stack(rows)


def drawn(arguments: argparse.Namespace) -> AdapterData:
    random = np.random.default_rng(0)

    def normal(rows: int) -> Any:
        return random.standard_normal((rows, arguments.dimension), np.float32)

    stored = unit_rows(normal(2000)[random.integers(2000, size=arguments.passages)] + normal(arguments.passages))
    turn, _ = np.linalg.qr(np.eye(arguments.dimension) + 0.02 * normal(arguments.dimension))
    turn = (turn * np.sign(np.diag(turn))).astype(np.float32)
    first = random.permutation(arguments.passages)[: arguments.queries]
    queries = unit_rows((stored[first] + 0.05 * normal(arguments.queries)) @ turn)
    answers = tuple(
        (int(row), int(random.integers(arguments.passages))) if n % 10 == 0 else (int(row),)
        for n, row in enumerate(first)
    )
    of = random.permutation(arguments.passages)[:1400]
    pseudo = PseudoQueries(unit_rows(stored[of] + 0.05 * normal(len(of))), of)
    return AdapterData(stored, queries, answers, np.ones(len(answers)), pseudo=pseudo)


def read_back(data: AdapterData) -> float:
    """Store the vectors in a folder, and return the seconds of reading what a fit needs."""
    encoder = Numbers(data.stored, data.queries)
    with tempfile.TemporaryDirectory() as folder, closing(connect(Path(folder) / "here")) as client:
        collection = CollectionManager(client).ensure("numbers", encoder)
        collection.index([Passage(f"p{row}", f"p{row} " + "word " * 12) for row in range(len(data.stored))])
        collection.build_index()
        examples = [
            Example(f"q{row}", tuple(ScoredText(f"p{answer}", "") for answer in own))
            for row, own in enumerate(data.answers)
        ]
        started = time.perf_counter()
        read_data(collection, examples, encoder, AdapterSettings())
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1500)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--collection", action="store_true")
    arguments = parser.parse_args()
    data = drawn(arguments)
    found: dict[str, Any] = {"cores": os.cpu_count(), **vars(arguments)}
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    fitted = fit_map(data)
    found |= {
        "fit_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "memory_mb": round(peak() - before),
        "vectors_mb": round((data.stored.nbytes + data.queries.nbytes) / 1e6),
        "chosen": fitted.chosen.name,
    }
    if arguments.collection:
        found["read_seconds"] = round(read_back(data), 1)
    print(json.dumps(found))


def peak() -> float:
    """Megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
