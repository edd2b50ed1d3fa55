"""What is a thumb on an answer worth? Simulated users give some, each rule makes labels of them, labels an adapter.

    python benchmarks/answer_thumbs.py --data demo [--work FOLDER] [--out FILE]
    python benchmarks/answer_thumbs.py --data FOLDER [--passages N] [--train-limit N] [--test-limit N]

Data sets: `judged_data.py`. Every train query is asked once, its answer made as `simulated_answers.py` says; a share
`--rates` of the answers gets a thumb: up, if the user is `--pleased`, which is where a relevant passage was among those
shown (`context`) or where the answer was made from one (`answer`); `--noise` of the thumbs say the opposite. Rules:
`simulated_rules.py`. How often each is right, and what labels weigh, measures `answer_precision.py`.

For each rule hard negatives are mined of the labels, an adapter is fitted, and `gain` is its difference to the base in
nDCG@10 on the test queries and their true answers, 95 %, paired bootstrap. Train queries that give test queries away
are left out before anything is simulated. `gain_where_shown` is that on the test queries for which the base ranks an
answer among the first `--shown`, as it does for every query of a log that has a label: a proof on such queries sees
this part only. `gain_elsewhere` is that on the others, about which such a log can say nothing. `--seeds` simulations
are run: counts and precisions are those of all together, gains are means over them, and the interval that of the mean
over the queries. Test queries choose nothing.

Rows are written into `--work` as they are measured, so that an interrupted run goes on; after a change of what is
measured, give another folder. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from judged_data import Data, Tested, arguments_of, finish, machine, opened, read_data, rows_of
from simulated_answers import Users, World, searched
from simulated_rules import Log, each_rule, precision, remembered_words, rules_of

from llama_index_embed_plus.evaluate.retrieval.comparison import mean_change
from qdrant_tools.collections.collection import Collection
from qdrant_tools.records import Encoder, Example, Label, ScoredText

FEW = 10
"""Examples below which nothing is fitted."""
LINE = "{pleased} | {rate:g} | {noise:.0%} | {rule} | {labels} | {precision:.3f} [{low:.3f}, {high:.3f}] | "


class Bench:
    """One data set: its collection, what was found for every train query, and adapters fitted to labels."""

    def __init__(self, arguments: argparse.Namespace, data: Data, collection: Collection, encoder: Encoder) -> None:
        self.arguments, shown = arguments, arguments.shown
        self.tested = Tested(data, collection, encoder)
        asked = dict(data.train.values())
        leaks = self.tested.leaks(
            [Example(text, tuple(ScoredText(name, "") for name in ids)) for text, ids in asked.items()]
        )
        self.asked = {text: ids for row, (text, ids) in enumerate(asked.items()) if row not in leaks}
        self.results = [collection.search(text, k=shown, exact=True) for text in self.asked]
        self.worlds = [
            searched(list(self.asked), self.results, self.asked, World(shown=shown, seed=seed))
            for seed in range(arguments.seeds)
        ]
        texts = {passage.id: passage.text for passage in data.passages}
        words = remembered_words(search for searches, _ in self.worlds for search in searches)
        self.rules = rules_of(lambda ids: {name: texts[name] for name in ids if name in texts}, each_rule(words))
        lists = [collection.search(query.text, k=shown, exact=True) for query in self.tested.queries]
        qrels = self.tested.qrels
        self.found = {q.id for q, hits in zip(self.tested.queries, lists) if any(hit.id in qrels[q.id] for hit in hits)}

    def shown(self) -> float:
        """The share of train queries with an answer on the list."""
        there = [any(hit.id in ids for hit in hits) for hits, ids in zip(self.results, self.asked.values())]
        return sum(there) / len(there)

    def logs(self, users: Users) -> list[Log]:
        return [Log.of(searches, truth, users, seed) for seed, (searches, truth) in enumerate(self.worlds)]

    def measure(self, users: Users, rule: str, logs: Sequence[Log]) -> dict[str, Any]:
        """What one rule's labels are worth, over all seeds."""
        started = time.perf_counter()
        labels = [self.rules[rule](log) for log in logs]
        row = {"rule": rule, "noise": users.noise, "rate": users.rate, "pleased": users.pleased}
        row |= precision(labels, logs) | self._gain(labels)
        return row | {"seconds": round(time.perf_counter() - started, 1)}

    def _gain(self, given: Sequence[Sequence[Label]]) -> dict[str, Any]:
        base = self.tested.base
        examples = [self.tested.mined(labels) for labels in given]
        fitted = [self.tested.fitted(each)[0] for each in examples if len(each) >= FEW]
        if not fitted:
            return {"gain": None, "interval": None}
        mean = {query: float(np.mean([after[query] for after in fitted])) for query in base}
        change = mean_change("ndcg@10", base, mean)
        gains = {query: mean[query] - base[query] for query in mean}
        elsewhere = [gain for query, gain in gains.items() if query not in self.found]
        return {
            "gain": round(change.difference, 4),
            "interval": [round(change.low, 4), round(change.high, 4)],
            "gain_where_shown": round(float(np.mean([gains[query] for query in self.found])), 4),
            "gain_elsewhere": round(float(np.mean(elsewhere)), 4),
        }


def measured(bench: Bench, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each kind of users and each rule; those that an interrupted run has measured are taken over."""
    file = arguments.work / f"{arguments.data.name}-{len(bench.asked)}-{arguments.seeds}.jsonl"
    done = {_key(row): row for row in rows_of(file)} if file.exists() else {}
    for users in (Users(r, n, p) for p in arguments.pleased for r in arguments.rates for n in arguments.noise):
        logs = bench.logs(users)
        for rule in arguments.rules or bench.rules:
            row = done.get((users.pleased, users.rate, users.noise, rule))
            if row is None:
                row = bench.measure(users, rule, logs)
                with file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")
            gain = "-" if row["gain"] is None else "{gain:+.4f} {interval}".format(**row)
            print(LINE.format(**row) + gain, flush=True)
            yield row


def _key(row: dict[str, Any]) -> tuple[str, float, float, str]:
    return row["pleased"], row["rate"], row["noise"], row["rule"]


def main() -> None:
    arguments = _arguments()
    data = read_data(arguments)
    with opened(arguments, data) as (collection, encoder):
        bench = Bench(arguments, data, collection, encoder)
        summary = {
            "data": arguments.data.name,
            "passages": len(data.passages),
            "train_queries": len(bench.asked),
            "answer_shown": round(bench.shown(), 4),
            "test_queries": len(bench.tested.queries),
            "base_ndcg@10": round(float(np.mean(list(bench.tested.base.values()))), 4),
            "seeds": arguments.seeds,
            "rows": list(measured(bench, arguments)),
            "machine": machine(),
        }
    finish(arguments, summary)


def _arguments() -> argparse.Namespace:
    parser = arguments_of(__doc__)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.2])
    parser.add_argument("--pleased", choices=("context", "answer"), nargs="+", default=["context", "answer"])
    parser.add_argument("--shown", type=int, default=World().shown, help="passages in the prompt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="*", help="only these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
