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
import time
from collections.abc import Iterator, Sequence
from typing import Any

from judged_data import Data, Tested, arguments_of, finish, hash_of, machine, opened, read_data, rows_of

from llama_index_embed_plus.evaluate.retrieval.comparison import mean_change
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.data.synthetic import mixed
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.synthesis.records import SynthesisSettings
from llama_index_embed_plus.training.synthesis.run import synthesize
from qdrant_tools.collections.collection import Collection
from qdrant_tools.records import Encoder, Example, Label

FEW = 0.1


class Bench:
    """One data set: its collection, the examples, and adapters fitted to them."""

    def __init__(self, arguments: argparse.Namespace, data: Data, collection: Collection, encoder: Encoder) -> None:
        self.arguments, self.data, self.collection, self.encoder = arguments, data, collection, encoder
        self.tested = Tested(data, collection, encoder)
        self.made = self.synthetic()
        labels = [Label(text, key) for text, ids in data.train.values() for key in ids]
        self.real = self.without_leaks(self.tested.mined(labels))
        self.apart = self.without_leaks(self.made)

    def synthetic(self) -> list[Example]:
        """Made once and kept, with what was counted."""
        name = hashlib.sha256(json.dumps([p.id for p in self.data.passages]).encode()).hexdigest()[:12]
        file = self.arguments.work / f"synthetic-{name}.jsonl"
        if not file.exists():
            result = synthesize(self.collection, self.encoder, settings=SynthesisSettings())
            print(json.dumps(result.report.as_row()))
            file.write_text("".join(json.dumps(example.as_row()) + "\n" for example in result.examples))
        return [Example.from_row(row) for row in rows_of(file)]

    def without_leaks(self, examples: Sequence[Example]) -> list[Example]:
        dropped = self.tested.leaks(examples)
        return [example for row, example in enumerate(examples) if row not in dropped]

    def systems(self) -> Iterator[tuple[str, list[Example], float]]:
        order = sorted(self.apart, key=lambda example: hash_of(example.query))
        few = sorted(self.real, key=lambda example: hash_of(example.query))[: max(2, round(FEW * len(self.real)))]
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
        after, fitted = self.tested.fitted(data.examples, seed=self.arguments.seed)
        change = mean_change("ndcg@10", self.tested.base, after)
        found = {
            "examples": len(data),
            "ndcg@10": round(change.after, 4),
            "gain": round(change.difference, 4),
            "interval": [round(change.low, 4), round(change.high, 4)],
            "chosen": fitted.chosen,
            "seconds": round(time.perf_counter() - started, 1),
        }
        print(f"{name:<28}{len(data):>7}  {change}", flush=True)
        return found


def main() -> None:
    arguments = _arguments()
    data = read_data(arguments)
    with opened(arguments, data) as (collection, encoder):
        bench = Bench(arguments, data, collection, encoder)
        summary = {
            "data": arguments.data.name,
            "split": "dev" if arguments.dev else "test",
            "passages": len(data.passages),
            "queries": len(bench.tested.queries),
            "base_ndcg@10": round(sum(bench.tested.base.values()) / len(bench.tested.base), 4),
            "real": len(bench.real),
            "made": len(bench.made),
            "systems": {each: bench.measure(each, *given) for each, *given in bench.systems()},
            "machine": machine(),
        }
    finish(arguments, summary)


def _arguments() -> argparse.Namespace:
    parser = arguments_of(__doc__)
    parser.add_argument("--dev", action="store_true", help="measure on a fifth of the train queries")
    parser.add_argument("--weights", type=float, nargs="+", default=[TrainSettings().synthetic_weight])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
