"""What does a query adapter gain from queries that nobody asked, next to real ones, on real queries kept aside?

    python benchmarks/synthetic.py --data demo [--work FOLDER] [--out FILE]
    python benchmarks/synthetic.py --data FOLDER [--passages N] [--train-limit N] [--test-limit N]
    python benchmarks/synthetic.py --data FOLDER --dev --weights 1 0.5 0.25 0.1

FOLDER is a data set in BEIR's layout (`corpus.jsonl`, `queries.jsonl`, `qrels/train.tsv`, `qrels/test.tsv`); `demo` is
the docstring corpus of `embed-plus demo`. `embed-plus synthesize` makes queries of the passages by its rules, without
a language model. Real ones are the train queries, whose judgements stand for clicks; those that give test queries away
are left out. Systems, all of them an adapter with the default settings:

- `real`: the train queries;
- `synthetic_same`: as many synthetic ones as there are real ones, drawn by a hash of their words;
- `synthetic`: all of them but those about passages that answer a test query, which `train` leaves out too;
- `synthetic_everywhere`: all of them, as somebody without held-out queries has it;
- `few_real`: a tenth of the train queries, as after the first days of a log; `few_mixed`: those and `synthetic`;
- `mixed`: all train queries and `synthetic`. Both mixtures with the default weight, or with each of `--weights`.

Test queries choose nothing. `--dev` measures on a fifth of the train queries instead, which are then not trained on:
that is how a default is chosen. Search is exact; `interval` is that of the difference to the base in nDCG@10, 95 %,
paired bootstrap over the queries. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from csv import DictReader
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.comparison import mean_change
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter import fit_adapter
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.data.splits import find_leaks
from llama_index_embed_plus.training.data.synthetic import mixed
from llama_index_embed_plus.training.settings import AdapterSettings, TrainSettings
from llama_index_embed_plus.training.synthesis.records import SynthesisSettings
from llama_index_embed_plus.training.synthesis.run import synthesize
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.records import Example, HeldOut, Label, Passage, Query

WITHOUT_TITLE = ("medquad",)  # its titles name the answer
DEV_SHARE, FEW = 0.2, 0.1

Split = Mapping[str, tuple[str, tuple[str, ...]]]
"""Query id -> (text, ids of its answers)."""


@dataclass(frozen=True)
class Data:
    passages: Sequence[Passage]
    train: Split
    test: Split


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _limited(split: Split, limit: int | None) -> Split:
    """The first so many in an order that depends on nothing but the texts."""
    return {query: split[query] for query in sorted(split, key=lambda query: _hash(split[query][0]))[:limit]}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _beir(folder: Path) -> Data:
    texts = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    titled = folder.name not in WITHOUT_TITLE
    passages: dict[str, Passage] = {}
    for row in _rows(folder / "corpus.jsonl"):
        title = row.get("title", "") if titled else ""
        # as `index` keeps what a row has beside its text
        passages[row["_id"]] = Passage(row["_id"], f"{title} {row['text']}".strip(), {"title": title} if title else {})
    splits = []
    for name in ("train", "test"):
        judged: dict[str, list[str]] = {}
        with (folder / "qrels" / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
            for row in DictReader(file, delimiter="\t"):
                if int(row["score"]) > 0 and row["corpus-id"] in passages:
                    judged.setdefault(row["query-id"], []).append(row["corpus-id"])
        splits.append({query: (texts[query], tuple(ids)) for query, ids in judged.items()})
    return Data(tuple(passages.values()), *splits)


def _demo() -> Data:
    corpus = load_docstrings()
    splits = [
        {query.id: (query.text, tuple(split.qrels[query.id])) for query in split.queries}
        for split in (corpus.train, corpus.held_out)
    ]
    return Data(corpus.passages, *splits)


def read_data(arguments: argparse.Namespace) -> Data:
    data = _demo() if arguments.data == Path("demo") else _beir(arguments.data)
    test = _limited(data.test, arguments.test_limit)
    train = _limited(data.train, arguments.train_limit)
    if arguments.dev:
        names = list(_limited(train, None))
        dev = names[: round(DEV_SHARE * len(names))]
        train, test = {name: train[name] for name in names if name not in dev}, {name: train[name] for name in dev}
    answers = {answer for split in (train, test) for _, ids in split.values() for answer in ids}
    others = sorted((p.id for p in data.passages if p.id not in answers), key=_hash)
    kept = answers.union(others if arguments.passages is None else others[: max(0, arguments.passages - len(answers))])
    return Data([passage for passage in data.passages if passage.id in kept], train, test)


class Bench:
    """One data set: its collection, the examples, and adapters fitted to them."""

    def __init__(self, arguments: argparse.Namespace, data: Data, collection: Any, encoder: Any) -> None:
        self.arguments, self.data, self.collection, self.encoder = arguments, data, collection, encoder
        self.queries = [Query(name, text) for name, (text, _) in data.test.items()]
        self.qrels = {name: dict.fromkeys(ids, 1) for name, (_, ids) in data.test.items()}
        self.held_out = HeldOut(tuple(self.queries), self.qrels)
        self.base = self.ndcg(encoder)
        self.made = self.synthetic()
        self.real = self.without_leaks(self.mined())
        self.apart = self.without_leaks(self.made)

    def ndcg(self, encoder: Any) -> Mapping[str, float]:
        return evaluate_retrieval(self.collection, self.queries, self.qrels, encoder, exact=True).ndcg

    def synthetic(self) -> list[Example]:
        """Made once and kept, with what was counted."""
        name = hashlib.sha256(json.dumps([p.id for p in self.data.passages]).encode()).hexdigest()[:12]
        file = self.arguments.work / f"synthetic-{name}.jsonl"
        if not file.exists():
            result = synthesize(self.collection, self.encoder, settings=SynthesisSettings())
            print(json.dumps(result.report.as_row()))
            file.write_text("".join(json.dumps(example.as_row()) + "\n" for example in result.examples))
        return [Example.from_row(row) for row in _rows(file)]

    def mined(self) -> list[Example]:
        labels = [Label(text, key) for text, ids in self.data.train.values() for key in ids]
        return list(mine(self.collection, labels, self.encoder, settings=MiningSettings(exact=True)).examples)

    def without_leaks(self, examples: Sequence[Example]) -> list[Example]:
        dropped = {leak.row for leak in find_leaks(examples, self.held_out, encoder=self.encoder)}
        return [example for row, example in enumerate(examples) if row not in dropped]

    def systems(self) -> Iterator[tuple[str, list[Example], float]]:
        order = sorted(self.apart, key=lambda example: _hash(example.query))
        few = sorted(self.real, key=lambda example: _hash(example.query))[: max(2, round(FEW * len(self.real)))]
        yield "real", self.real, 1.0
        yield "synthetic_same", order[: len(self.real)], 1.0
        yield "synthetic", self.apart, 1.0
        yield "synthetic_everywhere", self.made, 1.0
        yield "few_real", few, 1.0
        for weight in self.arguments.weights:
            yield f"few_mixed, weight {weight:g}", [*few, *self.apart], weight
            yield f"mixed, weight {weight:g}", [*self.real, *self.apart], weight

    def measure(self, name: str, examples: list[Example], weight: float) -> dict[str, Any]:
        started = time.perf_counter()
        data = mixed(TrainingData.of(examples), weight, weighted=True)
        settings = AdapterSettings(seed=self.arguments.seed)
        adapter, fitted = fit_adapter(self.collection, data.examples, self.encoder, settings)
        after = self.ndcg(AdaptedEncoder(self.encoder, adapter))
        change = mean_change("ndcg@10", self.base, after)
        found = {
            "examples": len(data),
            "ndcg@10": round(change.after, 4),
            "gain": round(change.difference, 4),
            "interval": [round(change.low, 4), round(change.high, 4)],
            "best_epoch": fitted.best_epoch,
            "seconds": round(time.perf_counter() - started, 1),
        }
        print(f"{name:<28}{len(data):>7}  {change}", flush=True)
        return found


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work = arguments.work or Path(temporary)
        if not (arguments.work / "int8").exists():
            export_onnx(arguments.model, arguments.work / "int8", precision="int8")
        encoder = open_encoder(arguments.work / "int8")
        encoder.quiet = True
        data = read_data(arguments)
        name = f"{arguments.data.name}-{len(data.passages)}"
        with closing(connect(arguments.work / "collections")) as client:
            collection = CollectionManager(client).ensure(name, encoder)
            index_passages(collection, data.passages, encoder, delete_missing=True)
            bench = Bench(arguments, data, collection, encoder)
            summary = {
                "data": arguments.data.name,
                "split": "dev" if arguments.dev else "test",
                "passages": len(data.passages),
                "queries": len(bench.queries),
                "base_ndcg@10": round(sum(bench.base.values()) / len(bench.base), 4),
                "real": len(bench.real),
                "made": len(bench.made),
                "systems": {each: bench.measure(each, *given) for each, *given in bench.systems()},
                "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
            }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="its int8 build is made and used")
    parser.add_argument("--work", type=Path, help="where the build, vectors and queries are kept, to go on with")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--passages", type=int, help="only so many: the answers, and others drawn by their ids")
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--test-limit", type=int)
    parser.add_argument("--dev", action="store_true", help="measure on a fifth of the train queries")
    parser.add_argument("--weights", type=float, nargs="+", default=[TrainSettings().synthetic_weight])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
