"""What does each way to train gain on queries nobody trained on, and what does it cost?

    python benchmarks/finetune.py --data FOLDER [--systems base,adapter,lora,...] [--train-limit N] [--epochs N]
    python benchmarks/finetune.py --data demo [--threads N] [--out FILE] [--resume]

FOLDER is a data set in BEIR's layout: `corpus.jsonl` (_id, title, text), `queries.jsonl` (_id, text), `qrels/train.tsv`
and `qrels/test.tsv`. `demo` is the docstring corpus of `embed-plus demo`. Training sees train queries only; a dev slice
is cut from them, and the test queries are searched once per system, at its very end. Train queries with a test query's
words or answers are left out, unless `--keep-leaks`: on SciFact two of three test queries have theirs. Systems:

- `base`: the model as it is;
- `adapter`: a map on query vectors, fitted on mined negatives and the stored vectors; nothing is embedded again;
- `lora`: low-rank updates of the encoder, positive-aware negatives;
- `full_random`, `full_naive`, `full_positive_aware`: the whole encoder with negatives drawn at random, the nearest
  passages that are no known positive, and the nearest ones up to 95 % of the positive's score. Nothing else differs;
- `two_rounds`: `full_positive_aware`, then everything embedded and mined again with that model, and trained once more
  (so twice the steps of one round). The first round is that system's own if it ran in the same call, and counts;
- `sentence_transformers`: its `mine_hard_negatives` with the same limits, its trainer, the same loss and schedule;
- `llama_index`: `EmbeddingAdapterFinetuneEngine` of the deprecated llama-index-finetuning, where that is installed
  (0.4.2 needs `mistralai<2` to be imported): a linear adapter on queries with its defaults, 4 epochs as in its
  tutorial, over the first answer of each query.

Every system runs in a process of its own: `peak_memory_mb` is that process's (resident, mapped files included).
`seconds` is mining + training + embedding the corpus again; libraries and models are loaded before the clock starts.
`interval` is that of the difference to `base` in nDCG@10, 95 %, paired bootstrap over test queries. Search is exact, so
no figure depends on a graph. Results are written to `--out` after every system; `--resume` goes on there. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from csv import DictReader
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SYSTEMS = (
    "base",
    "adapter",
    "lora",
    "full_random",
    "full_naive",
    "full_positive_aware",
    "two_rounds",
    "sentence_transformers",
    "llama_index",
)
WITHOUT_TITLE = ("medquad",)  # its titles name the answer
DEV_SHARE = 0.1
DEPTH, MAX_SHARE = 50, 0.95
LOSSES = {"cached": "cached_multiple_negatives", "plain": "multiple_negatives"}
"""The same value and gradients; the cached one takes less memory, and a third more time."""
ROUND = "full_positive_aware"
KEPT = ("base", ROUND)
"""Systems whose collections and models others go on with."""


Split = Mapping[str, tuple[str, tuple[str, ...]]]
"""Query id -> its text and the ids of its answers."""


@dataclass(frozen=True)
class Data:
    """Passages, and the splits train, dev and test."""

    passages: Mapping[str, str]
    splits: Mapping[str, Split]
    leaks: int
    """Train queries that would give test queries away, left out."""


def read_data(arguments: argparse.Namespace) -> Data:
    corpus, train, test = _demo() if arguments.data == Path("demo") else _beir(arguments.data)
    test = _limited(test, arguments.test_limit)
    given, train = len(train), train if arguments.keep_leaks else _without_leaks(train, test)
    leaks = given - len(train)
    train = _limited(train, arguments.train_limit)
    dev = {query: train[query] for query in list(train)[: max(1, round(DEV_SHARE * len(train)))]}
    splits = {"train": {query: row for query, row in train.items() if query not in dev}, "dev": dev, "test": test}
    answers = {answer for split in splits.values() for _, ids in split.values() for answer in ids}
    others = [key for key in corpus if key not in answers][: arguments.passages]
    kept = answers.union(others)
    return Data({key: text for key, text in corpus.items() if key in kept}, splits, leaks)


def _without_leaks(train: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:

    from llama_index_embed_plus.training.data.splits import find_leaks
    from qdrant_tools.records import Example, HeldOut, Query, ScoredText

    qrels = {query: dict.fromkeys(ids, 1) for query, (_, ids) in test.items()}
    held_out = HeldOut(tuple(Query(query, text) for query, (text, _) in test.items()), qrels)
    rows = [Example(text, tuple(ScoredText(key, "") for key in ids)) for text, ids in train.values()]
    dropped = {leak.row for leak in find_leaks(rows, held_out)}
    return {query: row for number, (query, row) in enumerate(train.items()) if number not in dropped}


def _beir(folder: Path) -> tuple[dict[str, str], Split, Split]:
    texts = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    title = folder.name not in WITHOUT_TITLE
    corpus = {
        row["_id"]: f"{row.get('title', '') if title else ''} {row['text']}".strip()
        for row in _rows(folder / "corpus.jsonl")
    }

    def split(name: str) -> Split:
        with (folder / "qrels" / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
            judged: dict[str, list[str]] = {}
            for row in DictReader(file, delimiter="\t"):
                if int(row["score"]) > 0 and row["corpus-id"] in corpus:
                    judged.setdefault(row["query-id"], []).append(row["corpus-id"])
        return {query: (texts[query], tuple(ids)) for query, ids in judged.items()}

    return corpus, split("train"), split("test")


def _demo() -> tuple[dict[str, str], Split, Split]:
    from llama_index_embed_plus.demo.corpus import load_docstrings

    corpus = load_docstrings()
    train, test = (
        {query.id: (query.text, tuple(split.qrels[query.id])) for query in split.queries}
        for split in (corpus.train, corpus.held_out)
    )
    return {passage.id: passage.text for passage in corpus.passages}, train, test


def _limited(split: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    """The first so many in an order that depends on nothing but the texts."""
    order = sorted(split, key=lambda query: hashlib.sha256(split[query][0].encode()).digest())
    return {query: split[query] for query in order[:limit]}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


class Bench:
    """One system in this process: what it needs, the clock, and the parts that systems share."""

    def __init__(self, arguments: argparse.Namespace, name: str) -> None:
        from llama_index_embed_plus.models.hub import resolve

        self.arguments, self.name = arguments, name
        self.data, self.work = read_data(arguments), arguments.work
        self.base = resolve(arguments.model)
        self.seconds = dict.fromkeys(("mining", "training", "embedding"), 0.0)
        self.notes: dict[str, Any] = {}

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start

    def run(self) -> dict[str, Any]:
        encoder, place, name = SYSTEM[self.name](self)
        with self.collection(encoder, place, name) as collection:
            dev = self.evaluate(collection, encoder, "dev")
            test = self.evaluate(collection, encoder, "test")
        return {
            "ndcg@10": float(np.mean(list(test.values()))),
            "dev_ndcg@10": float(np.mean(list(dev.values()))),
            "seconds": {part: round(value, 2) for part, value in self.seconds.items()},
            "peak_memory_mb": round(_peak(), 1),
            **self.notes,
            "per_query": test,
        }

    def evaluate(self, collection: Any, encoder: Any, split: str) -> dict[str, float]:
        from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
        from qdrant_tools.records import Query

        rows = self.data.splits[split]
        queries = [Query(query, text) for query, (text, _) in rows.items()]
        qrels = {query: dict.fromkeys(ids, 1) for query, (_, ids) in rows.items()}
        return dict(evaluate_retrieval(collection, queries, qrels, encoder, exact=True).ndcg)

    def open(self, folder: Path) -> Any:
        """An encoder that has run once: what loading costs is no part of the figures."""
        from llama_index_embed_plus.encoders.open import open_encoder

        encoder = open_encoder(folder, backend="torch")
        encoder.quiet = True
        encoder.encode_passages(["warm up"])
        return encoder

    @contextmanager
    def collection(self, encoder: Any, place: str, name: str) -> Iterator[Any]:
        from qdrant_tools.client.connect import connect
        from qdrant_tools.collections.manager import CollectionManager

        with closing(connect(self.work / place)) as client:
            yield CollectionManager(client).open(name, encoder)

    def index(self, encoder: Any, place: str, name: str) -> None:
        """Embed the corpus into a collection of its own, on the clock."""
        from qdrant_tools.client.connect import connect
        from qdrant_tools.collections.manager import CollectionManager
        from qdrant_tools.indexing import index_passages
        from qdrant_tools.records import Passage

        shutil.rmtree(self.work / place, ignore_errors=True)
        with closing(connect(self.work / place)) as client, self.clock("embedding"):
            collection = CollectionManager(client).ensure(name, encoder)
            index_passages(collection, (Passage(key, text) for key, text in self.data.passages.items()), encoder)

    def mine(self, encoder: Any, place: str, name: str, *, aware: bool = True) -> list[Any]:
        from qdrant_tools.mining import MiningSettings, mine
        from qdrant_tools.records import Label

        settings = MiningSettings(
            negatives=self.arguments.negatives,
            depth=DEPTH,
            sampling="top",
            max_share=MAX_SHARE if aware else None,
            duplicate_similarity=0.95 if aware else None,
            exact=True,
        )
        labels = [Label(text, key) for text, ids in self.data.splits["train"].values() for key in ids]
        with self.collection(encoder, place, name) as collection, self.clock("mining"):
            found = list(mine(collection, labels, encoder, settings=settings).examples)
        self.notes["negatives"] = sum(len(example.negatives) for example in found)
        return found

    def at_random(self) -> list[Any]:
        from qdrant_tools.records import Example, ScoredText

        random, keys = np.random.default_rng(self.arguments.seed), list(self.data.passages)

        def texts(ids: Sequence[str]) -> tuple[Any, ...]:
            return tuple(ScoredText(key, self.data.passages[key]) for key in ids)

        examples = []
        for text, ids in self.data.splits["train"].values():
            drawn = [keys[i] for i in random.choice(len(keys), self.arguments.negatives + len(ids), replace=False)]
            others = [key for key in drawn if key not in ids][: self.arguments.negatives]
            examples.append(Example(text, texts(ids), texts(others)))
        return examples

    def train(self, base: Path, examples: Sequence[Any], out: Path, *, method: Any = "full") -> None:
        from llama_index_embed_plus.training import train
        from llama_index_embed_plus.training.settings import TrainSettings

        asked = self.arguments
        settings = TrainSettings(
            method=method,
            loss=LOSSES[asked.loss],
            epochs=asked.epochs,
            batch_size=asked.batch_size,
            learning_rate=asked.learning_rate if method == "full" else asked.lora_learning_rate,
            negatives=asked.negatives,
            max_tokens=asked.max_tokens,
            precision=asked.precision,
            seed=asked.seed,
            checkpoint_every=0,
            device="cpu",
        )
        with self.clock("training"):
            report = train(base, examples, out, settings)
        self.notes["steps"] = self.notes.get("steps", 0) + len(report.losses)


Found = tuple[Any, str, str]
"""The encoder to measure, and the folder and name of the collection it searches."""
BASE = ("base-collection", "base")


def base(bench: Bench) -> Found:
    encoder = bench.open(bench.base)
    bench.index(encoder, *BASE)
    return encoder, *BASE


def adapter(bench: Bench) -> Found:
    from llama_index_embed_plus.encoders.adapter import AdaptedEncoder
    from llama_index_embed_plus.training.adapter.run import fit_adapter
    from llama_index_embed_plus.training.settings import AdapterSettings

    encoder = bench.open(bench.base)
    examples = bench.mine(encoder, *BASE)
    with bench.collection(encoder, *BASE) as collection, bench.clock("training"):
        fitted, report = fit_adapter(collection, examples, encoder, AdapterSettings(seed=bench.arguments.seed))
    bench.notes["chosen"] = report.chosen
    return AdaptedEncoder(encoder, fitted), *BASE


def trained(examples: Callable[[Bench], list[Any]], *, method: str = "full") -> Callable[[Bench], Found]:
    """A system that trains the encoder on such examples."""
    return lambda bench: train_and_index(bench, bench.base, examples(bench), method=method)


def train_and_index(bench: Bench, model: Path, examples: list[Any], *, method: str = "full", name: str = "") -> Found:
    name = name or bench.name
    out, place = bench.work / f"{name}-model", f"{name}-collection"
    bench.train(model, examples, out, method=method)
    tuned = bench.open(out)
    bench.index(tuned, place, name)
    return tuned, place, name


def two_rounds(bench: Bench) -> Found:
    first, earlier = bench.work / f"{ROUND}-model", bench.work / f"{ROUND}.json"
    if earlier.exists():
        row = json.loads(earlier.read_text())
        bench.seconds, bench.notes = row["seconds"], {"steps": row["steps"]}
        found = bench.open(first), f"{ROUND}-collection", ROUND
    else:
        first = bench.work / f"{bench.name}-first-model"
        found = train_and_index(bench, bench.base, mined(aware=True)(bench), name=f"{bench.name}-first")
    return train_and_index(bench, first, bench.mine(*found))


def mined(*, aware: bool) -> Callable[[Bench], list[Any]]:
    return lambda bench: bench.mine(bench.open(bench.base), *BASE, aware=aware)


def sentence_transformers(bench: Bench) -> Found:
    """The peer, as its documentation says, with our limits and schedule."""
    from sentence_transformers import SentenceTransformer

    asked, out = bench.arguments, bench.work / "sentence_transformers-model"
    model = SentenceTransformer(str(bench.base), device="cpu")
    model.encode(["warm up"])
    with bench.clock("mining"):
        dataset = _their_negatives(bench, model)
    serving, model.max_seq_length = model.max_seq_length, min(model.max_seq_length, asked.max_tokens)
    with bench.clock("training"):
        _their_trainer(bench, model, dataset).train()
    model.max_seq_length = serving
    model.save(str(out), create_model_card=False)
    tuned = bench.open(out)
    bench.index(tuned, "sentence_transformers-collection", bench.name)
    return tuned, "sentence_transformers-collection", bench.name


def _their_negatives(bench: Bench, model: Any) -> Any:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs = [(text, bench.data.passages[key]) for text, ids in bench.data.splits["train"].values() for key in ids]
    queries, positives = (list(column) for column in zip(*pairs))
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": queries, "positive": positives}),
        model,
        corpus=list(bench.data.passages.values()),
        range_max=DEPTH,
        relative_margin=1 - MAX_SHARE,
        num_negatives=bench.arguments.negatives,
        sampling_strategy="top",
        output_format="n-tuple",
        verbose=False,
    )
    bench.notes["negatives"] = len(mined) * bench.arguments.negatives
    return mined


def _their_trainer(bench: Bench, model: Any, dataset: Any) -> Any:
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    asked = bench.arguments
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(bench.work / "sentence_transformers-checkpoints"),
            num_train_epochs=asked.epochs,
            per_device_train_batch_size=asked.batch_size,
            learning_rate=asked.learning_rate,
            warmup_steps=0.1,
            batch_sampler="no_duplicates",
            bf16=asked.precision == "bfloat16",
            use_cpu=True,
            seed=asked.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=dataset,
        loss=MultipleNegativesRankingLoss(model)
        if asked.loss == "plain"
        else CachedMultipleNegativesRankingLoss(model, mini_batch_size=32),
    )


def llama_index(bench: Bench) -> Found:
    """LlamaIndex's engine: queries and answers are embedded one at a time, anew in every epoch."""
    from llama_index.finetuning import EmbeddingAdapterFinetuneEngine
    from llama_index.finetuning.embeddings.common import EmbeddingQAFinetuneDataset

    from llama_index_embed_plus import AdaptedEncoder, PlusEmbedding, QueryAdapter

    rows, encoder = bench.data.splits["train"], bench.open(bench.base)
    dataset = EmbeddingQAFinetuneDataset(
        queries={query: text for query, (text, _) in rows.items()},
        corpus=dict(bench.data.passages),
        relevant_docs={query: list(ids) for query, (_, ids) in rows.items()},
    )
    embedding = PlusEmbedding(bench.base, backend="torch", device="cpu")
    embedding.get_text_embedding("warm up")
    out = str(bench.work / "llama_index-model")
    engine = EmbeddingAdapterFinetuneEngine(
        dataset, embedding, epochs=4, dim=encoder.dimension, device="cpu", model_output_path=out
    )
    with bench.clock("training"):
        engine.finetune()
    weight = engine.model.linear.weight.detach().numpy().T
    return AdaptedEncoder(encoder, QueryAdapter(weight - np.eye(len(weight)), encoder.space)), *BASE


SYSTEM: dict[str, Callable[[Bench], Found]] = {
    "base": base,
    "adapter": adapter,
    "lora": trained(mined(aware=True), method="lora"),
    "full_random": trained(Bench.at_random),
    "full_naive": trained(mined(aware=False)),
    "full_positive_aware": trained(mined(aware=True)),
    "two_rounds": two_rounds,
    "sentence_transformers": sentence_transformers,
    "llama_index": llama_index,
}


def _peak() -> float:
    """The most this process ever held, in megabytes; of another program's start nothing counts."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def in_a_process(arguments: argparse.Namespace, system: str) -> dict[str, Any] | None:
    """Run one system in a new process. None: it failed, and has said why on stderr."""
    found = arguments.work / f"{system}.json"
    found.unlink(missing_ok=True)
    threads = {name: str(arguments.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--child", system],
        env={**os.environ, **threads, "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=sys.stderr,
        check=False,
    )
    for path in [] if system in KEPT else arguments.work.glob(f"{system}-*"):
        shutil.rmtree(path, ignore_errors=True)
    return json.loads(found.read_text()) if done.returncode == 0 and found.exists() else None


def child(arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    row = Bench(arguments, arguments.child).run()
    (arguments.work / f"{arguments.child}.json").write_text(json.dumps(row))


def summary(results: Mapping[str, Any], data: Data, settings: Mapping[str, Any]) -> dict[str, Any]:
    from qdrant_tools.metrics import paired_bootstrap

    intervals = {}
    for name, row in results.items():
        if name != "base" and "base" in results:
            gain = paired_bootstrap(results["base"]["per_query"], row["per_query"], seed=0)
            intervals[name] = [round(value, 4) for value in (gain.difference, gain.low, gain.high)]
    return {
        "ndcg@10": {name: round(row["ndcg@10"], 4) for name, row in results.items()},
        "seconds": {name: round(sum(row["seconds"].values()), 1) for name, row in results.items()},
        "interval": intervals,
        "dev_ndcg@10": {name: round(row["dev_ndcg@10"], 4) for name, row in results.items()},
        "seconds_by_part": {name: row["seconds"] for name, row in results.items()},
        "peak_memory_mb": {name: row["peak_memory_mb"] for name, row in results.items()},
        "data": {
            "passages": len(data.passages),
            **{name: len(rows) for name, rows in data.splits.items()},
            "leaks": data.leaks,
        },
        "settings": dict(settings),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in BEIR's layout, or 'demo'")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--train-limit", type=int, help="only so many train queries, the dev slice among them")
    parser.add_argument("--test-limit", type=int, help="only so many test queries: for a quick look")
    parser.add_argument("--passages", type=int, help="only so many passages besides the answers")
    parser.add_argument("--keep-leaks", action="store_true", help="train on what gives test queries away, too")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--lora-learning-rate", type=float, default=5e-4)
    parser.add_argument("--negatives", type=int, default=3)
    parser.add_argument(
        "--max-tokens", type=int, default=128, help="of a text in training; embedding has no other limit"
    )
    parser.add_argument("--loss", choices=LOSSES, default="cached", help="of LoRA and full training")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of LoRA and full training"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, help="the results, by default finetune-DATA.json")
    parser.add_argument("--resume", action="store_true", help="go on with the results that are there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out = arguments.out or Path(f"finetune-{arguments.data.name}.json")
    arguments.work = arguments.out.with_suffix(".work")
    arguments.systems = [name for name in arguments.systems.split(",") if name]
    if unknown := set(arguments.systems) - set(SYSTEMS):
        parser.error(f"unknown systems {', '.join(sorted(unknown))}: choose from {', '.join(SYSTEMS)}")
    return arguments


def _earlier(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The results to go on with. Those of other settings are refused: they would be compared."""
    if not arguments.out.exists():
        return {}
    if not arguments.resume:
        raise SystemExit(f"{arguments.out} is there: go on with it with --resume, or give another --out")
    saved = json.loads(arguments.out.read_text())
    if saved["settings"] != settings:
        raise SystemExit(f"{arguments.out} was measured with {saved['settings']}, asked for {dict(settings)}")
    return dict(saved["systems"])


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        child(arguments)
        return
    left_out = ("systems", "out", "work", "resume", "child", "threads")
    settings = {name: value for name, value in vars(arguments).items() if name not in left_out}
    settings["data"] = arguments.data.name
    results = _earlier(arguments, settings)
    arguments.work.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in SYSTEMS if name in arguments.systems and name not in results]
    if wanted and not (arguments.work / BASE[0]).exists() and "base" not in wanted:
        wanted.insert(0, "base")  # the others search or mine its collection
    if "llama_index" in wanted and not find_spec("llama_index.finetuning"):
        wanted.remove("llama_index")
        print("llama_index: llama-index-finetuning is not installed, left out", flush=True)
    for name in wanted:
        row = in_a_process(arguments, name)
        if row is None and name == "base":
            raise SystemExit("the base failed: nothing can be compared with it")
        if row is None:
            print(f"{name}: failed, left out", flush=True)
            continue
        results[name] = row
        draft = arguments.out.with_suffix(".part")
        draft.write_text(json.dumps({"settings": settings, "systems": results}))
        draft.replace(arguments.out)
        print(name, json.dumps({key: value for key, value in row.items() if key != "per_query"}), flush=True)
    shutil.rmtree(arguments.work, ignore_errors=True)
    print(json.dumps(summary(results, read_data(arguments), settings)))


if __name__ == "__main__":
    main()
