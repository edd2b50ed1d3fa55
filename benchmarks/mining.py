"""How fast are hard negatives mined from a collection that is there, and how much memory does it take?

    python benchmarks/mining.py --data FOLDER [--datasets scifact medquad] [--sizes 10000 100000 1000000]

FOLDER holds one folder per data set in BEIR's layout: `corpus.jsonl` (_id, title, text), `queries.jsonl` (_id, text),
`qrels/train.tsv`. For every query of the train split, 4 negatives out of 50 candidates, none above 95 % of the
positive's score:

- `sentence_transformers`: `mine_hard_negatives` from raw texts, which it embeds;
- `sentence_transformers_faiss`: the same call over FAISS with all embeddings given (those of the first call, through
  its `cache_folder`); null where faiss is not installed;
- `ours`: `mine` over a collection of the embedded engine, which holds the first call's vectors; it embeds the queries;
- `ours_given_embeddings`: the same with the query vectors given, to compare with FAISS.

Models are loaded, and have run once, before the clock starts. `agreement_with_exact` is the share of our negatives that
an exact search gives too, by the same rules. `peak_memory_mb` is what a process holds at its peak (resident, the
engine's mapped files included) while it mines for 1,000 queries from a collection of so many random vectors;
`mining_memory_mb` is how much of its own (not mapped) memory mining added to what the open collection held before.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from qdrant_tools.collection import Collection, CollectionManager, CollectionSettings, build_index
from qdrant_tools.connect import connect
from qdrant_tools.index import index_passages
from qdrant_tools.mine import MiningResult, MiningSettings, mine
from qdrant_tools.mine.file import mine_to_jsonl
from qdrant_tools.records import Encoder, Label, Passage, Vectors

SETTINGS = MiningSettings(negatives=4, depth=50, max_share=0.95, duplicate_similarity=None)
"""What both sides can do: sentence-transformers knows copies by their exact text only."""
WITHOUT_TITLE = ("medquad",)  # its titles name the answer
MEMORY_QUERIES = 1000


@dataclass(frozen=True)
class Data:
    name: str
    passages: dict[str, str]
    labels: list[Label]

    @property
    def queries(self) -> list[str]:
        return list(dict.fromkeys(label.query for label in self.labels))


def read_data(folder: Path, *, queries: int | None, passages: int | None) -> Data:
    """Read a data set, or the first so many of its train queries, and passages besides their positives."""
    texts = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    with (folder / "qrels" / "train.tsv").open(encoding="utf-8", newline="") as file:
        judged = list(csv.DictReader(file, delimiter="\t"))
    pairs = [(texts[row["query-id"]], row["corpus-id"]) for row in judged if int(row["score"]) > 0]
    chosen = set(list(dict.fromkeys(query for query, _ in pairs))[:queries])
    labels = [Label(query, passage) for query, passage in pairs if query in chosen]
    wanted = {label.passage_id for label in labels}
    corpus: dict[str, str] = {}
    for number, row in enumerate(_rows(folder / "corpus.jsonl")):
        if passages is None or number < passages or row["_id"] in wanted:
            title = "" if folder.name in WITHOUT_TITLE else row.get("title", "")
            corpus[row["_id"]] = f"{title} {row['text']}".strip()
    return Data(folder.name, corpus, labels)


class Given:
    """An encoder some of whose vectors are known already."""

    def __init__(self, encoder: Encoder, passages: Mapping[str, Any], queries: Mapping[str, Any] | None = None) -> None:
        self.dimension, self.space = encoder.dimension, encoder.space
        self._encoder, self._passages, self._queries = encoder, passages, queries

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._passages[text] for text in texts])

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        if self._queries is None:
            return self._encoder.encode_queries(texts)
        return np.stack([self._queries[text] for text in texts])


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def measure(data: Data, model: Any, encoder: Encoder, folder: Path) -> dict[str, Any]:
    cache = folder / "cache"
    seconds: dict[str, float | None] = {}
    seconds["sentence_transformers"], triplets = timed(lambda: _theirs(data, model, cache, faiss=False))
    seconds["sentence_transformers_faiss"] = None
    if find_spec("faiss"):
        seconds["sentence_transformers_faiss"], _ = timed(lambda: _theirs(data, model, cache, faiss=True))
    passages, queries = _cached(data, cache)
    with closing(connect(folder / "qdrant")) as client:
        filling = Given(encoder, passages)
        collection = CollectionManager(client).ensure(data.name, filling)
        index_passages(collection, (Passage(key, text) for key, text in data.passages.items()), filling)
        build_index(collection)

        def ours(its: Encoder, settings: MiningSettings) -> MiningResult:
            return mine(collection, data.labels, its, settings=settings)

        encoder.encode_queries(data.queries[:8])
        seconds["ours"], found = timed(lambda: ours(filling, SETTINGS))
        given = Given(encoder, passages, queries)
        seconds["ours_given_embeddings"], same = timed(lambda: ours(given, SETTINGS))
        exact_seconds, exact = timed(lambda: ours(given, replace(SETTINGS, exact=True)))
    theirs: dict[str, set[str]] = {}
    for row in triplets:
        theirs.setdefault(row["query"], set()).add(row["negative"])
    return {
        "queries": len(data.queries),
        "passages": len(data.passages),
        "seconds": {name: None if value is None else round(value, 3) for name, value in seconds.items()},
        "seconds_exact": round(exact_seconds, 3),
        "negatives": sum(len(example.negatives) for example in found.examples),
        "agreement_with_exact": _agreement(_texts(same), _texts(exact)),
        "agreement_with_sentence_transformers": _agreement(_texts(same), theirs),
        "discarded": dict(found.discarded),
    }


def _theirs(data: Data, model: Any, cache: Path, *, faiss: bool) -> Any:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs = [label for label in data.labels if label.passage_id in data.passages]
    columns = {"query": [p.query for p in pairs], "positive": [data.passages[p.passage_id] for p in pairs]}
    return mine_hard_negatives(
        Dataset.from_dict(columns),
        model,
        corpus=list(data.passages.values()),
        range_max=SETTINGS.depth,
        relative_margin=0.05,
        num_negatives=SETTINGS.negatives,
        sampling_strategy="top",
        output_format="triplet",
        use_faiss=faiss,
        cache_folder=str(cache),
        verbose=False,
    )


def _cached(data: Data, cache: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Text -> vector of passages and of queries, as the first call left them, in the order in which it took them."""
    vectors = {kind: np.load(next(cache.glob(f"{kind}_embeddings_*.npy"))) for kind in ("corpus", "query")}
    texts = list(dict.fromkeys(data.passages.values()))
    return dict(zip(texts, vectors["corpus"])), dict(zip(data.queries, vectors["query"]))


def _texts(result: MiningResult) -> dict[str, set[str]]:
    return {example.query: {negative.text for negative in example.negatives} for example in result.examples}


def _agreement(ours: Mapping[str, set[str]], theirs: Mapping[str, set[str]]) -> float:
    """The share of negatives that both have, of all that the fuller of the two has."""
    both = sum(len(negatives & theirs.get(query, set())) for query, negatives in ours.items())
    most = sum(max(len(ours.get(query, ())), len(theirs.get(query, ()))) for query in {*ours, *theirs})
    return round(both / max(most, 1), 4)


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


def _mine_to_file(collection: Collection, labels: Sequence[Label], encoder: Encoder, path: Path) -> None:
    mine_to_jsonl(collection, labels, encoder, path=path, settings=replace(SETTINGS, max_share=None))


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


def memory_by_size(sizes: Sequence[int], dimension: int) -> Iterator[tuple[int, dict[str, float]]]:
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            in_a_process(fill, folder, size, dimension)
            yield size, in_a_process(mining_memory, folder, size, dimension)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _total(found: Mapping[str, Mapping[str, Any]], side: str) -> float | None:
    values = [its["seconds"][side] for its in found.values()]
    return None if not values or None in values else round(sum(values), 3)


def summary(found: Mapping[str, Mapping[str, Any]], memory: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    sides = ("ours", "ours_given_embeddings", "sentence_transformers", "sentence_transformers_faiss")
    negatives = sum(its["negatives"] for its in found.values())
    agreed = sum(its["agreement_with_exact"] * its["negatives"] for its in found.values())
    return {
        "seconds": {side: _total(found, side) for side in sides},
        "agreement_with_exact": round(agreed / negatives, 4) if negatives else None,
        "peak_memory_mb": {str(size): its["peak"] for size, its in memory.items()},
        "mining_memory_mb": {str(size): its["added"] for size, its in memory.items()},
        "datasets": found,
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--datasets", nargs="*", default=["scifact", "medquad"])
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--queries", type=int, help="only so many train queries per data set: for a quick look")
    parser.add_argument("--passages", type=int, help="only so many passages, besides the positives")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dimension", type=int, default=64, help="of the random vectors")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("TQDM_DISABLE", "1")
    found: dict[str, dict[str, Any]] = {}
    if arguments.datasets:
        from sentence_transformers import SentenceTransformer

        from llama_index_embed_plus import open_encoder
        from llama_index_embed_plus.checkpoints import resolve

        model = SentenceTransformer(str(resolve(arguments.model)), device="cpu")
        model.encode(["warm up"])
        encoder = open_encoder(arguments.model)
        for name in arguments.datasets:
            data = read_data(arguments.data / name, queries=arguments.queries, passages=arguments.passages)
            with tempfile.TemporaryDirectory() as folder:
                found[name] = measure(data, model, encoder, Path(folder))
            print(name, json.dumps(found[name]), flush=True)
    memory = {}
    for size, its in memory_by_size(arguments.sizes, arguments.dimension):
        memory[size] = its
        print(f"{size:,} points: {its}", flush=True)
    print(json.dumps(summary(found, memory)))


if __name__ == "__main__":
    main()
