"""How fast are hard negatives mined from a collection that is there, and how much memory does it take?

    python benchmarks/mining.py --data FOLDER [--int8] [--readers 2] [--slice 1000] [--work FOLDER]
        [--parts ours faiss raw memory]

FOLDER holds one folder per data set in BEIR's layout: `corpus.jsonl` (_id, title, text), `queries.jsonl` (_id, text),
`qrels/train.tsv`. For every query of the train split, 4 negatives out of 50 candidates, none above 95 % of the
positive's score. Parts:

- `ours`: `mine` over a collection of the embedded engine that holds all passages; it embeds the queries, with `--int8`
  by the int8 build. `ours_given_embeddings` is the same with the query vectors given, to compare with FAISS.
  `agreement_with_exact` is the share of our negatives that an exact search gives too, by the same rules. The index is
  a better one than the default, searched as it is; `defaults` are the same figures for the default index, in which
  mining by default looks further instead. With `--readers N` the folder is opened with so many, and ready.
- `faiss`: sentence-transformers' `mine_hard_negatives` over FAISS, given the same embeddings; null without faiss.
- `raw`: the same from raw texts, which it embeds. With `--slice N` from N passages only (positives first, and the
  queries that have theirs among them): `sentence_transformers` is then extrapolated by the characters to embed, and
  `extrapolated` says so; `measured_seconds` is what the slice took.
- `memory`: `peak_memory_mb` is what a process holds at its peak (resident, the engine's mapped files included) while it
  mines for 1,000 queries from a collection of so many random vectors; `mining_memory_mb` is how much of its own (not
  mapped) memory mining added to what the open collection held before.

Models are loaded, and have run once, before the clock starts; what takes seconds at most is the best of 3. Every part
leaves its figures in the work folder, and is not run again when they are there: an interrupted run goes on, and parts
can be run one by one. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from mining_memory import measure_memory

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningResult, MiningSettings, mine
from qdrant_tools.records import Encoder, Label, Passage, Vectors

SETTINGS = MiningSettings(
    negatives=4, depth=50, sampling="top", max_share=0.95, duplicate_similarity=None, hnsw_ef=None
)
"""What both sides can do: sentence-transformers knows copies by their exact text only."""
DEFAULT_EF = MiningSettings().hnsw_ef
INDEX = CollectionSettings(ef_construct=256, quantization=Quantization("int8"))
"""A better graph than the default, because texts that come in families, as medquad's do, are hard to tell apart; and
vectors compressed for the walk through it, with exact scores for what it finds."""
WITHOUT_TITLE = ("medquad",)  # its titles name the answer
PARTS = ("ours", "faiss", "raw", "memory")


@dataclass(frozen=True)
class Data:
    name: str
    passages: dict[str, str]
    labels: list[Label]

    @property
    def queries(self) -> list[str]:
        return list(dict.fromkeys(label.query for label in self.labels))

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys(self.passages.values()))

    @property
    def positives(self) -> dict[str, list[str]]:
        """Query -> its relevant passages."""
        found: dict[str, list[str]] = {}
        for label in self.labels:
            found.setdefault(label.query, []).append(label.passage_id)
        return found

    def sliced(self, passages: int) -> Data:
        """So many passages, positives first, and the labels whose passages are among them."""
        positive = {label.passage_id for label in self.labels}
        chosen = dict(sorted(self.passages.items(), key=lambda pair: pair[0] not in positive)[:passages])
        return Data(self.name, chosen, [label for label in self.labels if label.passage_id in chosen])


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
    return Data(folder.name, corpus, [label for label in labels if label.passage_id in corpus])


class Work:
    """The folder in which figures, vectors and collections are kept from one call to the next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def figures(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What an earlier call measured, or measure."""
        place = self.folder / f"{name}.json"
        if not place.exists():
            found = measure()
            place.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
            place.with_suffix(".part").replace(place)
        figures: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        print(name, json.dumps(figures), flush=True)
        return figures

    def vectors(self, name: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]) -> dict[str, Any]:
        """Text -> vector, embedded once."""
        place = self.folder / f"{name}.npy"
        if not place.exists():
            np.save(self.folder / f"{name}.part.npy", encode(texts))
            (self.folder / f"{name}.part.npy").replace(place)
        return dict(zip(texts, np.load(place), strict=True))


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


def timed(run: Callable[[], Any], *, times: int = 1) -> tuple[float, Any]:
    """The shortest of several runs in seconds, and what the last one returned."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return round(min(seconds), 3), result


@dataclass
class Bench:
    """One data set with our encoder, and both ways of mining it."""

    data: Data
    work: Work
    encoder: Encoder
    readers: int = 0

    @cached_property
    def passages(self) -> dict[str, Any]:
        return self.work.vectors(f"{self.data.name}.passages", self.data.texts, self.encoder.encode_passages)

    @cached_property
    def queries(self) -> dict[str, Any]:
        return self.work.vectors(f"{self.data.name}.queries", self.data.queries, self.encoder.encode_queries)

    def ours(self) -> dict[str, Any]:
        its, exact = Given(self.encoder, self.passages), replace(SETTINGS, exact=True)
        with self._indexed("qdrant", INDEX) as collection:
            self.encoder.encode_queries(self.data.queries[:8])
            seconds, found = timed(lambda: mine(collection, self.data.labels, its, settings=SETTINGS))
            given_seconds, same = self._given(collection, SETTINGS)
            exact_seconds, truth = self._given(collection, exact, times=1)
        with self._indexed("default.qdrant", CollectionSettings()) as collection:
            default_seconds, default = self._given(collection, replace(SETTINGS, hnsw_ef=DEFAULT_EF))
        mined = {query: sorted(texts) for query, texts in _texts(same).items()}
        (self.work.folder / f"{self.data.name}.mined.json").write_text(json.dumps(mined), encoding="utf-8")
        return {
            "queries": len(self.data.queries),
            "passages": len(self.data.passages),
            "ours": seconds,
            "ours_given_embeddings": given_seconds,
            "exact": exact_seconds,
            "negatives": sum(len(example.negatives) for example in found.examples),
            "agreement_with_exact": _agreement(_texts(same), _texts(truth)),
            "defaults": {
                "ours_given_embeddings": default_seconds,
                "agreement_with_exact": _agreement(_texts(default), _texts(truth)),
            },
            "discarded": dict(found.discarded),
        }

    @contextmanager
    def _indexed(self, kind: str, settings: CollectionSettings) -> Iterator[Collection]:
        its = Given(self.encoder, self.passages)
        with closing(connect(self.work.folder / f"{self.data.name}.{kind}", readers=self.readers)) as client:
            collection = CollectionManager(client).ensure(self.data.name, its, settings=settings)
            index_passages(collection, (Passage(key, text) for key, text in self.data.passages.items()), its)
            build_index(collection)
            end = time.monotonic() + 120
            while self.readers and not client.readers_ready(self.data.name) and time.monotonic() < end:  # type: ignore[attr-defined]
                time.sleep(0.02)
            yield collection

    def _given(self, collection: Collection, settings: MiningSettings, *, times: int = 3) -> tuple[float, MiningResult]:
        """Mining with the query vectors given."""
        its = Given(self.encoder, self.passages, self.queries)
        return timed(lambda: mine(collection, self.data.labels, its, settings=settings), times=times)

    def faiss(self) -> dict[str, Any]:
        if not find_spec("faiss"):
            return {"seconds": None}
        model = _given_model(self.passages, self.queries)
        seconds, rows = timed(lambda: mine_theirs(self.data, model, faiss=True), times=3)
        theirs: dict[str, set[str]] = {}
        for row in rows:
            theirs.setdefault(row["query"], set()).add(row["negative"])
        mined = self.work.folder / f"{self.data.name}.mined.json"
        ours = json.loads(mined.read_text(encoding="utf-8")) if mined.exists() else None
        agreed = None if ours is None else _agreement({query: set(texts) for query, texts in ours.items()}, theirs)
        return {"seconds": seconds, "agreement_with_ours": agreed}


def raw(data: Data, model: Any, passages: int | None) -> dict[str, Any]:
    """From raw texts, or from a slice of them."""
    part = data if passages is None else data.sliced(passages)
    seconds, _ = timed(lambda: mine_theirs(part, model, faiss=False))
    share = sum(map(len, part.texts)) / sum(map(len, data.texts))
    return {
        "seconds": round(seconds / share, 1),
        "measured_seconds": seconds,
        "extrapolated": share < 1,
        "share": share,
    }


def mine_theirs(data: Data, model: Any, *, faiss: bool) -> Any:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    columns = {
        "query": [label.query for label in data.labels],
        "positive": [data.passages[label.passage_id] for label in data.labels],
    }
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
        verbose=False,
    )


def _given_model(passages: Mapping[str, Any], queries: Mapping[str, Any]) -> Any:
    """A model of sentence-transformers that knows its vectors: what its `cache_folder` comes to."""
    import torch
    from sentence_transformers import SentenceTransformer

    class Known(SentenceTransformer):
        def get_embedding_dimension(self) -> int:
            return len(next(iter(passages.values())))

        def encode_query(self, sentences: Sequence[str], **_: Any) -> Any:
            return np.stack([queries[text] for text in sentences])

        def encode_document(self, sentences: Sequence[str], **_: Any) -> Any:
            return np.stack([passages[text] for text in sentences])

    return Known(modules=[torch.nn.Identity()], device="cpu")


def _texts(result: MiningResult) -> dict[str, set[str]]:
    return {example.query: {negative.text for negative in example.negatives} for example in result.examples}


def _agreement(ours: Mapping[str, set[str]], theirs: Mapping[str, set[str]]) -> float:
    """The share of negatives that both have, of all that the fuller of the two has."""
    both = sum(len(negatives & theirs.get(query, set())) for query, negatives in ours.items())
    most = sum(max(len(ours.get(query, ())), len(theirs.get(query, ()))) for query in {*ours, *theirs})
    return round(both / max(most, 1), 4)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def summary(
    found: Mapping[str, Mapping[str, Any]], memory: Mapping[int, Mapping[str, float]], readers: int
) -> dict[str, Any]:
    """The totals over all data sets; null for what was not measured on each of them."""

    def total(part: str, key: str) -> float | None:
        values = [its.get(part, {}).get(key) for its in found.values()]
        return None if not values or None in values else round(sum(values), 3)

    ours = [its["ours"] for its in found.values() if "ours" in its]
    negatives = sum(its["negatives"] for its in ours)
    agreed = sum(its["agreement_with_exact"] * its["negatives"] for its in ours)
    seconds = {
        "ours": total("ours", "ours"),
        "ours_given_embeddings": total("ours", "ours_given_embeddings"),
        "sentence_transformers": total("raw", "seconds"),
        "sentence_transformers_faiss": total("faiss", "seconds"),
    }
    return {
        "seconds": seconds,
        "extrapolated": any(its["raw"]["extrapolated"] for its in found.values() if "raw" in its),
        "agreement_with_exact": round(agreed / negatives, 4) if negatives else None,
        "peak_memory_mb": {str(size): its["peak"] for size, its in memory.items()},
        "mining_memory_mb": {str(size): its["added"] for size, its in memory.items()},
        "datasets": found,
        "readers": readers,
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }


def measure(arguments: argparse.Namespace, work: Work) -> dict[str, dict[str, Any]]:
    """The parts that were asked for, by data set."""
    from sentence_transformers import SentenceTransformer

    from llama_index_embed_plus import open_encoder
    from llama_index_embed_plus.models.hub import resolve

    encoder = open_encoder(int8_build(arguments.model, work.folder) if arguments.int8 else arguments.model)
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.datasets:
        data = read_data(arguments.data / name, queries=arguments.queries, passages=arguments.passages)
        bench = Bench(data, work, encoder, arguments.readers)
        its = found[name] = {}
        if "ours" in arguments.parts:
            part = f"{name}.ours" + (f".readers{arguments.readers}" if arguments.readers else "")
            its["ours"] = work.figures(part, bench.ours)
        if "faiss" in arguments.parts:
            its["faiss"] = work.figures(f"{name}.faiss", bench.faiss)
        if "raw" in arguments.parts:

            def from_raw(data: Data = data) -> dict[str, Any]:
                model = SentenceTransformer(str(resolve(arguments.model)), device="cpu")
                model.encode(["warm up"])
                return raw(data, model, arguments.slice)

            its["raw"] = work.figures(f"{name}.raw.{arguments.slice or 'all'}", from_raw)
    return found


def int8_build(model: str, folder: Path) -> str:
    """The int8 build of a model, made once."""
    from llama_index_embed_plus.export.export import export_onnx

    target = folder / "int8"
    if not target.exists():
        export_onnx(model, target, precision="int8")
    return str(target)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--datasets", nargs="*", default=["scifact", "medquad"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--int8", action="store_true", help="embed with the int8 build, which is made first")
    parser.add_argument("--readers", type=int, default=0, help="processes that our mining searches with")
    parser.add_argument("--slice", type=int, help="passages for sentence-transformers from raw texts; extrapolated")
    parser.add_argument("--work", type=Path, help="where figures, vectors and collections are kept, to go on with")
    parser.add_argument("--queries", type=int, help="only so many train queries per data set: for a quick look")
    parser.add_argument("--passages", type=int, help="only so many passages, besides the positives")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dimension", type=int, default=384, help="of the random vectors")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        work = Work(arguments.work or Path(temporary))
        found: dict[str, dict[str, Any]] = {}
        if arguments.datasets and set(arguments.parts) - {"memory"}:
            found = measure(arguments, work)
        memory: dict[int, dict[str, Any]] = {}
        for size in arguments.sizes if "memory" in arguments.parts else ():

            def of_size(size: int = size) -> dict[str, Any]:
                return measure_memory(work.folder, size, arguments.dimension)

            memory[size] = work.figures(f"memory.{arguments.dimension}.{size}", of_size)
    print(json.dumps(summary(found, memory, arguments.readers)))


if __name__ == "__main__":
    main()
