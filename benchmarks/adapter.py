"""What does a query adapter gain, by how many queries are judged, and by how many clicks are wrong?

    python benchmarks/adapter.py --data demo [--queries 10,30,100,300,1000] [--noise 0,0.2,0.4,0.6] [--repeats 3]
    python benchmarks/adapter.py --data FOLDER [--vectors FILE] [--out FILE]

FOLDER and `demo` as in `finetune.py`, and so is which train queries are left out for what they know of test queries.
Each row is a fit with the default settings:

- `label-free`: from the passages alone, with as many seeds as there are repeats;
- `judged N`: with the true answers of N train queries, drawn anew in each repeat;
- `clicks X`: with simulated clicks on what the base shows, ten passages of which rank r is looked at with probability
  1 / r. An answer that is looked at is clicked, and the share X of the clicks lies on another of the ten instead. The
  clicks have no weights: the fit is not told that high ranks are looked at more often.

`gain` is that in nDCG@10 over test queries, by exact search, as a mean over the repeats, and its 95 % interval is a
paired bootstrap over test queries of these means. `chosen` names the maps. With `--vectors` what was embedded is kept
in that file. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from finetune import read_data

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.comparison import mean_change
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.pseudo import text_of
from llama_index_embed_plus.training.adapter.ranking import judge
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.collections.points import draw_rank
from qdrant_tools.records import Passage

SHOWN = 10


@dataclass(frozen=True, eq=False)
class Bench:
    """Vectors and answers of one data set; `pseudo` by seed."""

    stored: np.ndarray
    train: np.ndarray
    train_answers: tuple[tuple[int, ...], ...]
    test: np.ndarray
    test_answers: tuple[tuple[int, ...], ...]
    pseudo: tuple[PseudoQueries, ...]

    def ndcg(self, matrix: np.ndarray) -> np.ndarray:
        found = judge(self.test, self.stored, self.test_answers, [matrix], (0,), hidden=np.empty(0, np.int64))
        return np.asarray(found.ndcg[0])

    def fit(self, rows: Sequence[int], answers: Sequence[tuple[int, ...]], seed: int) -> tuple[np.ndarray, str]:
        queries = self.train[list(rows)]
        data = AdapterData(self.stored, queries, tuple(answers), np.ones(len(queries)), pseudo=self.pseudo[seed])
        fitted = fit_map(data, AdapterSettings(seed=seed))
        return self.ndcg(fitted.matrix), fitted.chosen.name


def read(arguments: argparse.Namespace) -> Bench:
    data = read_data(arguments)
    place = {key: row for row, key in enumerate(data.passages)}
    texts = [Passage(key, text) for key, text in data.passages.items()]
    train = {**data.splits["train"], **data.splits["dev"]}
    answers = [tuple(tuple(place[key] for key in ids) for _, ids in s.values()) for s in (train, data.splits["test"])]
    made = [_pseudo(texts, place, seed) for seed in range(arguments.repeats)]
    groups = {
        "train": [text for text, _ in train.values()],
        "test": [text for text, _ in data.splits["test"].values()],
        **{f"pseudo{seed}": [text for _, text in rows] for seed, rows in enumerate(made)},
    }
    vectors = _vectors(arguments, [passage.text for passage in texts], groups)
    pseudo = tuple(
        PseudoQueries(vectors[f"pseudo{seed}"], np.array([row for row, _ in rows])) for seed, rows in enumerate(made)
    )
    return Bench(vectors["stored"], vectors["train"], answers[0], vectors["test"], answers[1], pseudo)


def _pseudo(passages: Sequence[Passage], place: dict[str, int], seed: int) -> list[tuple[int, str]]:
    """As `training.adapter.pseudo` makes them from a collection."""
    made: list[tuple[int, str]] = []
    for passage in sorted(passages, key=lambda passage: draw_rank(passage.id, seed)):
        text = text_of(passage, span=bool(len(made) % 2), seed=seed)
        if text:
            made.append((place[passage.id], text))
        if len(made) == AdapterSettings().pseudo_queries:
            break
    return made


def _vectors(arguments: argparse.Namespace, passages: list[str], groups: dict[str, list[str]]) -> dict[str, Any]:
    if arguments.vectors and arguments.vectors.exists():
        return dict(np.load(arguments.vectors))
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(arguments.model, Path(folder) / "int8", precision="int8")
        encoder = open_encoder(Path(folder) / "int8")
        encoder.quiet = True
        found = {"stored": encoder.encode_passages(passages)}
        found |= {name: encoder.encode_queries(texts) for name, texts in groups.items()}
    if arguments.vectors:
        np.savez(arguments.vectors, **found)  # type: ignore[arg-type]
    return found


def clicked(bench: Bench, noise: float, seed: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The train queries with a click, and the passages that were clicked."""
    random = np.random.default_rng(seed)
    for query, vector in enumerate(bench.train):
        shown = np.argsort(-(bench.stored @ vector))[:SHOWN].tolist()
        clicks = [
            row for rank, row in enumerate(shown, 1) if row in bench.train_answers[query] and random.random() < 1 / rank
        ]
        clicks = [int(random.choice(shown)) if random.random() < noise else row for row in clicks]
        if clicks:
            yield query, tuple(dict.fromkeys(clicks))


def fits(bench: Bench, arguments: argparse.Namespace, seed: int) -> Iterator[tuple[str, np.ndarray, str]]:
    yield "label-free", *bench.fit([], [], seed)
    order = np.random.default_rng(seed).permutation(len(bench.train)).tolist()
    for count in arguments.queries:
        if count <= len(order):
            rows = order[:count]
            yield f"judged {count}", *bench.fit(rows, [bench.train_answers[row] for row in rows], seed)
    for noise in arguments.noise:
        rows, answers = zip(*clicked(bench, noise, seed))
        yield f"clicks {noise:g}", *bench.fit(rows, answers, seed)


def main() -> None:
    arguments = _arguments()
    bench = read(arguments)
    base = bench.ndcg(np.eye(bench.stored.shape[1], dtype=np.float32))
    gains: dict[str, list[np.ndarray]] = {}
    chosen: dict[str, list[str]] = {}
    started = time.perf_counter()
    for seed in range(arguments.repeats):
        for name, values, which in fits(bench, arguments, seed):
            gains.setdefault(name, []).append(values)
            chosen.setdefault(name, []).append(which)
            print(f"{seed} {name:<14} {values.mean() - base.mean():+.4f}  {which}", file=sys.stderr, flush=True)
    rows = {}
    for name, of_repeats in gains.items():
        after = np.mean(of_repeats, axis=0)
        change = mean_change("ndcg@10", *({str(q): float(v) for q, v in enumerate(each)} for each in (base, after)))
        rows[name] = {
            "gain": round(change.difference, 4),
            "interval": [round(change.low, 4), round(change.high, 4)],
            "repeats": [round(float(each.mean() - base.mean()), 4) for each in of_repeats],
            "chosen": chosen[name],
        }
        print(f"{name:<14} {change}")
    found = {
        "data": arguments.data.name,
        "passages": len(bench.stored),
        "train_queries": len(bench.train),
        "test_queries": len(bench.test),
        "base": round(float(base.mean()), 4),
        "rows": rows,
        "seconds": round(time.perf_counter() - started, 1),
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument(
        "--queries", type=lambda given: [int(n) for n in given.split(",")], default=[10, 30, 100, 300, 1000]
    )
    parser.add_argument("--noise", type=lambda given: [float(n) for n in given.split(",")], default=[0, 0.2, 0.4, 0.6])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--passages", type=int)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--test-limit", type=int)
    parser.add_argument("--keep-leaks", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
