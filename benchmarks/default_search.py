"""Does a search that says nothing find what exact search finds, and at what latency?

    python benchmarks/default_search.py --passages FOLDER/corpus.jsonl --queries FOLDER/queries.jsonl [--model DIR]
    python benchmarks/default_search.py --vectors passages.npy --query-vectors queries.npy [--around 100000]

A collection is filled and its index built with the defaults of `embed-plus index`, which also choose how it is searched
from then on. recall@10 against exact search, and the latency of single searches, are measured on queries that chose
nothing: first as the choice says, then exactly, then through the graph with several `hnsw_ef`. With `--first N` the
collection begins with N passages and grows: the choice is made twice. `--around N` makes N vectors of those that are
given, each a mixture of two of them with noise: no text has them, but they lie as texts do. `--location` may be a
server; the collection is dropped at the end. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import models

from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.files.rows import read_rows
from qdrant_tools.records import Vectors
from qdrant_tools.search.neighbours import QueryVectors, Truth
from qdrant_tools.tuning import measure

WIDTHS = (64, 128, 256, 512)
BATCH = 512


class Given:
    """An encoder of vectors that are there: it is never asked for one."""

    space = "given-vectors@000000000000"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def encode_queries(self, texts: Any) -> Vectors:
        raise AssertionError("vectors are given")

    encode_passages = encode_queries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--query-vectors", type=Path)
    parser.add_argument("--around", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=500, help="queries")
    parser.add_argument("--location")
    arguments = parser.parse_args()
    vectors, queries = given(arguments)
    with tempfile.TemporaryDirectory() as folder, closing(connect(arguments.location or folder)) as client:
        manager, name = CollectionManager(client), f"default-search-{uuid.uuid4().hex[:8]}"
        collection = manager.ensure(name, Given(vectors.shape[1]))
        try:
            rows = []
            for end in (arguments.first, len(vectors)) if arguments.first else (len(vectors),):
                rows.append(indexed(collection, vectors, end))
                print(rows[-1]["choice"], flush=True)
            rows[-1]["searches"] = searches(manager.open(name), queries)
        finally:
            manager.drop(name)
    print(json.dumps({"location": "server" if arguments.location else "folder", "rows": rows}))


def given(arguments: argparse.Namespace) -> tuple[Vectors, Vectors]:
    """The vectors of the passages and of some queries."""
    if arguments.vectors is not None:
        vectors, queries = np.load(arguments.vectors), np.load(arguments.query_vectors)
    else:
        encoder = open_encoder(arguments.model)
        vectors = encoder.encode_passages([row.values["text"] for row in read_rows(arguments.passages)])
        queries = encoder.encode_queries([row.values["text"] for row in read_rows(arguments.queries)])
    rng = np.random.default_rng(0)
    queries = queries[rng.permutation(len(queries))[: arguments.count]]
    return (around(vectors, arguments.around) if arguments.around else vectors), queries


def around(vectors: Vectors, count: int) -> Vectors:
    """Unit vectors between two of the given ones, nearer to the first, with a fifth of noise."""
    rng = np.random.default_rng(1)
    first, second = (vectors[rng.integers(len(vectors), size=count)] for _ in range(2))
    noise = rng.normal(size=first.shape).astype(np.float32)
    mixed = first + 0.5 * rng.random((count, 1)) * second + 0.2 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)


def indexed(collection: Collection, vectors: Vectors, end: int) -> dict[str, Any]:
    """Store the vectors up to `end` that are not there yet, build the index and let it choose."""
    begin, started = collection.gateway.count(), time.perf_counter()
    for start in range(begin, end, BATCH):
        rows = enumerate(vectors[start : min(start + BATCH, end)].tolist(), start)
        points = [
            models.PointStruct(id=i, vector=row, payload={"passage_id": str(i), "text": f"p{i}"}) for i, row in rows
        ]
        collection.gateway.upsert(points)
    collection.build_index(choose=False)
    built = time.perf_counter()
    report = collection.choose_search()
    assert report is not None
    return {
        "points": end,
        "seconds_to_build": round(built - started, 1),
        "seconds_to_choose": round(time.perf_counter() - built, 1),
        "choice": report.sentence,
        **report.as_row(),
    }


def searches(collection: Collection, queries: Vectors) -> dict[str, Any]:
    truth = Truth.of(collection, QueryVectors(queries), 10)
    ways: dict[str, dict[str, Any]] = {"default": {}, "exact": {"exact": True}}
    ways |= {f"hnsw_ef={width}": {"hnsw_ef": width, "exact": False} for width in WIDTHS}
    rows = {}
    for name, way in ways.items():
        measured = measure(collection, truth, params=collection.search_params(**way))
        p50, p99 = np.percentile(measured.latencies_ms, [50, 99])
        rows[name] = {
            "recall": round(measured.recall, 4),
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
        }
        print(name, rows[name], flush=True)
    return rows


if __name__ == "__main__":
    main()
