"""What the embedded client costs over the engine itself, and what it gains over qdrant-client's local mode.

Clustered vectors (rank 48 in 384 dimensions, so that near neighbours exist, as with texts) go into the embedded
client and into `QdrantClient(":memory:")`, whose search is brute force in numpy. Measured in one process, ten
queries in turn, so that the ratios hold on a busy machine too:

- upserts: lists of `PointStruct`, 256 at a time, through `upsert`, index build not included;
- search: k = 10 with payload, hnsw_ef = 128, once through the client, once calling the engine directly with the
  same request and reading id, score and payload of its hits, once through local mode;
- filtered search: the same with a condition that one point in a hundred fulfils, on an indexed field;
- recall@10 against exact search.

The first queries are left out of the clock. The last line is one JSON document.

    python benchmarks/embedded_engine.py [--points 50000] [--dimension 384] [--queries 200]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import qdrant_edge as qe
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import connect
from qdrant_tools.edge.client import EmbeddedClient

NAME, RANK, CENTRES, K, EF, WARM_UP, BATCH = "bench", 48, 500, 10, 128, 20, 256
IN_A_ROW = 10
PARAMS = models.SearchParams(hnsw_ef=EF)
CONDITION = models.Filter(must=[models.FieldCondition(key="part", match=models.MatchValue(value=7))])

Search = Callable[[list[float]], Any]


def clustered(rows: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Rows around common centres in a subspace, plus noise."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(0)
    basis = shared.normal(size=(RANK, dimension))
    centres = shared.normal(size=(CENTRES, RANK))
    points = centres[rng.integers(CENTRES, size=rows)] + 0.5 * rng.normal(size=(rows, RANK))
    return (points @ basis).astype(np.float32)


def blocks(vectors: NDArray[np.float32]) -> Iterator[list[models.PointStruct]]:
    for start in range(0, len(vectors), BATCH):
        rows = enumerate(vectors[start : start + BATCH].tolist(), start)
        yield [
            models.PointStruct(id=i, vector=row, payload={"text": f"passage {i}", "part": i % 100}) for i, row in rows
        ]


def upsert_rate(client: QdrantClient, vectors: NDArray[np.float32]) -> float:
    """Points per second through `upsert`; making the points is not timed."""
    client.create_collection(
        NAME,
        models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE),
        hnsw_config=models.HnswConfigDiff(m=16, ef_construct=100),
    )
    spent = 0.0
    for block in blocks(vectors):
        start = time.perf_counter()
        client.upsert(NAME, block, wait=True)
        spent += time.perf_counter() - start
    return len(vectors) / spent


def through_client(client: QdrantClient, condition: models.Filter | None = None) -> Search:
    return lambda query: client.query_points(NAME, query, limit=K, search_params=PARAMS, query_filter=condition).points


def through_engine(client: EmbeddedClient) -> Search:
    """The engine's own call, reading what the client returns."""
    collection = client.engine.collection(NAME)
    params = qe.SearchParams(hnsw_ef=EF)

    def search(query: list[float]) -> Any:
        with collection.hold() as shard:
            hits = shard.query(
                qe.QueryRequest(limit=K, query=qe.Query.Nearest(query), params=params, with_payload=True)
            )
        return [(hit.id, hit.score, hit.payload) for hit in hits]

    return search


def median_ms(searches: dict[str, Search], queries: Sequence[list[float]]) -> dict[str, float]:
    """Median milliseconds of each search, taking turns on ten queries in a row: a search that comes right after a slow
    one finds its caches cold and, on a busy machine, its time slice used up."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    for first in range(0, len(queries), IN_A_ROW):
        for name, search in searches.items():
            for query in queries[first : first + IN_A_ROW]:
                start = time.perf_counter()
                search(query)
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(values[WARM_UP:]), 4) for name, values in times.items()}


def recall(client: QdrantClient, queries: Sequence[list[float]]) -> float:
    """Mean recall@10 of the search above against exact search."""
    exact = models.SearchParams(exact=True)
    found = 0
    for query in queries:
        best = {hit.id for hit in client.query_points(NAME, query, limit=K, search_params=exact).points}
        found += len(best & {hit.id for hit in through_client(client)(query)})
    return found / (K * len(queries))


def measure(points: int, dimension: int, queries: int) -> dict[str, Any]:
    vectors = clustered(points, dimension, seed=1)
    asked: list[list[float]] = clustered(queries + WARM_UP, dimension, seed=2).tolist()
    slow = asked[: WARM_UP + min(queries, 50)]
    with tempfile.TemporaryDirectory() as folder:
        embedded = connect(folder)
        assert isinstance(embedded, EmbeddedClient)
        local = QdrantClient(":memory:")
        rates = {"embedded": upsert_rate(embedded, vectors), "local_mode": upsert_rate(local, vectors)}
        start = time.perf_counter()
        embedded.create_payload_index(NAME, "part", models.PayloadSchemaType.INTEGER)
        embedded.build_index(NAME)
        built = time.perf_counter() - start
        search = median_ms({"embedded": through_client(embedded), "edge_direct": through_engine(embedded)}, asked)
        search |= median_ms({"local_mode": through_client(local)}, slow)
        filtered = median_ms(
            {"embedded": through_client(embedded, CONDITION), "local_mode": through_client(local, CONDITION)}, slow
        )
        result = {
            "points": points,
            "dimension": dimension,
            "indexed_vectors": embedded.get_collection(NAME).indexed_vectors_count,
            "build_index_seconds": round(built, 2),
            "search_p50_ms": search,
            "filtered_p50_ms": filtered,
            "upsert_points_per_second": {name: round(rate) for name, rate in rates.items()},
            "recall@10": round(recall(embedded, asked[:100]), 4),
            "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
        }
        embedded.close()
    return result


def report(result: dict[str, Any]) -> None:
    search, filtered, upserts = (
        result[key] for key in ("search_p50_ms", "filtered_p50_ms", "upsert_points_per_second")
    )
    print(f"{result['points']:,} x {result['dimension']}, {result['indexed_vectors']:,} indexed")
    print(f"search: {search['embedded'] / search['edge_direct']:.2f} x the engine's own time,", end=" ")
    print(f"{search['local_mode'] / search['embedded']:.0f} x faster than local mode")
    print(f"filtered search: {filtered['local_mode'] / filtered['embedded']:.0f} x faster than local mode")
    print(f"upserts: {upserts['embedded']:,} points/s, local mode {upserts['local_mode']:,}")
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # local mode says that it ignores what is measured here
    report(measure(arguments.points, arguments.dimension, arguments.queries))


if __name__ == "__main__":
    main()
