"""Data sets with judged queries, a collection of their passages, and what an adapter gains on their test queries.

What the benchmarks of adapters share. A data set is a folder in BEIR's layout (`corpus.jsonl`, `queries.jsonl`,
`qrels/test.tsv`, and `qrels/train.tsv` if there is a train split), or `demo`, the docstring corpus of `embed-plus
demo`.

Guarantees: a limit takes the same queries and passages every time; search is exact. Does not know: where labels and
examples come from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from csv import DictReader
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder
from llama_index_embed_plus.encoders.cached import CachedQueries
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.run import AdapterReport, fit_adapter
from llama_index_embed_plus.training.data.splits import find_leaks
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.records import Encoder, Example, HeldOut, Label, Passage, Query

WITHOUT_TITLE = ("medquad",)  # its titles name the answer
DEV_SHARE = 0.2

Split = Mapping[str, tuple[str, tuple[str, ...]]]
"""Query id -> (text, ids of its answers)."""


@dataclass(frozen=True)
class Data:
    passages: Sequence[Passage]
    train: Split
    test: Split


def hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _limited(split: Split, limit: int | None) -> Split:
    """The first so many in an order that depends on nothing but the texts."""
    return {query: split[query] for query in sorted(split, key=lambda query: hash_of(split[query][0]))[:limit]}


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _beir(folder: Path) -> Data:
    texts = {row["_id"]: row["text"] for row in rows_of(folder / "queries.jsonl")}
    titled = folder.name not in WITHOUT_TITLE
    passages: dict[str, Passage] = {}
    for row in rows_of(folder / "corpus.jsonl"):
        title = row.get("title", "") if titled else ""
        # as `index` keeps what a row has beside its text
        passages[row["_id"]] = Passage(row["_id"], f"{title} {row['text']}".strip(), {"title": title} if title else {})
    splits = []
    for name in ("train", "test"):
        judged: dict[str, list[str]] = {}
        if (place := folder / "qrels" / f"{name}.tsv").exists() or name == "test":
            with place.open(encoding="utf-8", newline="") as file:
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
    others = sorted((p.id for p in data.passages if p.id not in answers), key=hash_of)
    kept = answers.union(others if arguments.passages is None else others[: max(0, arguments.passages - len(answers))])
    return Data([passage for passage in data.passages if passage.id in kept], train, test)


def arguments_of(documentation: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all of these benchmarks have."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="its int8 build is made and used")
    parser.add_argument("--work", type=Path, help="where the build and vectors are kept, to go on with")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--passages", type=int, help="only so many: the answers, and others drawn by their ids")
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--test-limit", type=int)
    parser.set_defaults(dev=False)
    return parser


@contextmanager
def opened(
    arguments: argparse.Namespace, data: Data, settings: CollectionSettings | None = None
) -> Iterator[tuple[Collection, CachedQueries]]:
    """The collection that holds the passages, and the encoder; a folder for both if none is given in `work`."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work = arguments.work or Path(temporary)
        if not (arguments.work / "int8").exists():
            export_onnx(arguments.model, arguments.work / "int8", precision="int8")
        encoder = open_encoder(arguments.work / "int8")
        encoder.quiet = True
        cached = CachedQueries(encoder)
        with closing(connect(arguments.work / "collections")) as client:
            name = f"{arguments.data.name}-{len(data.passages)}"
            collection = CollectionManager(client).ensure(name, cached, settings=settings)
            index_passages(collection, data.passages, cached, delete_missing=True)
            yield collection, cached


class Tested:
    """The test queries of a data set, what the encoder finds for them, and what an adapter does."""

    def __init__(self, data: Data, collection: Collection, encoder: Encoder) -> None:
        self.data, self.collection, self.encoder = data, collection, encoder
        self.queries = [Query(name, text) for name, (text, _) in data.test.items()]
        self.qrels = {name: dict.fromkeys(ids, 1) for name, (_, ids) in data.test.items()}
        self.held_out = HeldOut(tuple(self.queries), self.qrels)
        self.base = self.ndcg(encoder)

    def ndcg(self, encoder: Encoder) -> Mapping[str, float]:
        return evaluate_retrieval(self.collection, self.queries, self.qrels, encoder, exact=True).ndcg

    def leaks(self, examples: Sequence[Example]) -> set[int]:
        """The places of the examples that give test queries away."""
        return {leak.row for leak in find_leaks(examples, self.held_out, encoder=self.encoder)}

    def mined(self, labels: Sequence[Label]) -> list[Example]:
        return list(mine(self.collection, labels, self.encoder, settings=MiningSettings(exact=True)).examples)

    def fitted(self, examples: Sequence[Example], *, seed: int = 0) -> tuple[Mapping[str, float], AdapterReport]:
        """nDCG of each test query with an adapter of the examples, and the report of its fit."""
        adapter, report = fit_adapter(self.collection, examples, self.encoder, AdapterSettings(seed=seed))
        return self.ndcg(AdaptedEncoder(self.encoder, adapter)), report


def machine() -> str:
    return f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"


def finish(arguments: argparse.Namespace, summary: Mapping[str, Any]) -> None:
    """Write the summary where it is asked for, and print it as the last line."""
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))
