"""What is a thumb on an answer worth? Simulated users give some, each rule makes labels of them, labels an adapter.

    python benchmarks/answer_thumbs.py --data demo [--work FOLDER] [--out FILE]
    python benchmarks/answer_thumbs.py --data FOLDER [--passages N] [--train-limit N] [--test-limit N]

FOLDER is a data set in BEIR's layout (`corpus.jsonl`, `queries.jsonl`, `qrels/train.tsv`, `qrels/test.tsv`); `demo` is
the docstring corpus of `embed-plus demo`. Every train query is asked once, its answer made as `simulated_answers.py`
says; a share `--rates` of the answers gets a thumb: up, if the user is `--pleased`, which is where a relevant passage
was among those shown (`context`) or where the answer was made from one (`answer`); `--noise` of the thumbs say the
opposite. Rules:

- `relevant`: the relevant passages that were shown under those answers: what a person would have marked, no rule;
- `copy to all`: thumb up, every passage that was shown. This is what people do;
- `copy to first`: thumb up, the first passage; `copy to cited`: thumb up, the passages that are cited, unchecked;
- `clicks`: the same people see the same lists without answers and click, `--noise` of them on something else;
- the rules of `qdrant_tools.debias` for answers, each by itself, and `answers`, all that are on by default.

`precision` is the share of a rule's positives that are relevant, with a Wilson interval; `coverage` the share of the
thumbed queries with a relevant passage on the list that it labels rightly. For each rule hard negatives are mined of
the labels, an adapter is fitted, and `gain` is its difference to the base in nDCG@10 on the test queries and their true
answers, 95 %, paired bootstrap. Train queries that give test queries away are left out before anything is simulated.
`gain_where_shown` is that on the test queries for which the base
ranks an answer among the first `--shown`, as it does for every query of a log that has a label: a proof on such queries
sees this part only. `gain_elsewhere` is that on the others, about which such a log can say nothing. `--seeds`
simulations are run: counts and precisions are those of all together, gains are means over them, and the
interval that of the mean over the queries. Test queries choose nothing. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from simulated_answers import Truth, Users, World, clicked, searched, thumbed
from synthetic import Data, read_data

from llama_index_embed_plus.demo.pipeline import CachedQueries
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.comparison import mean_change
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter import fit_adapter
from llama_index_embed_plus.training.data.splits import find_leaks
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.debias import AnswerSettings, aggregate, clicked_as_positive, encoder_support, labels_from_answers
from qdrant_tools.debias.support import NGRAMS
from qdrant_tools.indexing import index_passages
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.mining.false_negatives import false_negative_rate
from qdrant_tools.records import Example, HeldOut, Label, Query, ScoredText

Logged = Sequence[LoggedSearch]
Rule = Callable[[Logged], list[Label]]

LINE = "| {rule} | {noise:.0%} | {labels} | {precision:.3f} [{low:.3f}, {high:.3f}] | {coverage:.2f} | {gain} |"


def ups(searches: Logged) -> Iterator[LoggedSearch]:
    """The searches whose answer got a thumb up."""
    return (s for s in searches if s.answer and any(v.kind == "thumb" and v.value > 0 for v in s.answer.verdicts))


def copied(searches: Logged, passages: Callable[[LoggedSearch], Sequence[str]], evidence: str) -> list[Label]:
    return [Label(search.query, name, 1.0, evidence) for search in ups(searches) for name in passages(search)]


NAIVE: dict[str, Rule] = {
    "copy to all": lambda searches: copied(searches, lambda s: [hit.id for hit in s.hits], "copy to all"),
    "copy to first": lambda searches: copied(searches, lambda s: [hit.id for hit in s.hits[:1]], "copy to first"),
    "copy to cited": lambda searches: copied(searches, lambda s: s.answer.cited if s.answer else (), "copy to cited"),
}


class Bench:
    """One data set: its collection, what was found for every train query, and the measurements of labels."""

    def __init__(
        self, arguments: argparse.Namespace, data: Data, collection: Collection, encoder: CachedQueries
    ) -> None:
        self.arguments, self.data, self.collection, self.encoder = arguments, data, collection, encoder
        self.queries = [Query(name, text) for name, (text, _) in data.test.items()]
        self.qrels = {name: dict.fromkeys(ids, 1) for name, (_, ids) in data.test.items()}
        held_out = HeldOut(tuple(self.queries), self.qrels)
        asked = dict(data.train.values())
        examples = [Example(text, tuple(ScoredText(name, "") for name in ids)) for text, ids in asked.items()]
        leaks = {leak.row for leak in find_leaks(examples, held_out, encoder=encoder)}
        self.asked = {text: ids for row, (text, ids) in enumerate(asked.items()) if row not in leaks}
        self.results = [collection.search(text, k=arguments.shown, exact=True) for text in self.asked]
        self.texts = {passage.id: passage.text for passage in data.passages}
        self.base = self.ndcg(encoder)
        lists = [collection.search(query.text, k=arguments.shown, exact=True) for query in self.queries]
        self.found = {q.id for q, hits in zip(self.queries, lists) if any(hit.id in self.qrels[q.id] for hit in hits)}

    def ndcg(self, encoder: Any) -> Mapping[str, float]:
        return evaluate_retrieval(self.collection, self.queries, self.qrels, encoder, exact=True).ndcg

    def simulate(self, seed: int) -> tuple[list[LoggedSearch], dict[str, Truth]]:
        return searched(list(self.asked), self.results, self.asked, World(shown=self.arguments.shown, seed=seed))

    def gained(self, labels: Sequence[Label]) -> Mapping[str, float] | None:
        """nDCG of the test queries with an adapter of these labels; None if they are too few."""
        examples = mine(self.collection, labels, self.encoder, settings=MiningSettings(exact=True)).examples
        if len(examples) < 10:
            return None
        adapter, _ = fit_adapter(self.collection, examples, self.encoder, AdapterSettings())
        return self.ndcg(AdaptedEncoder(self.encoder, adapter))

    def rules(self) -> dict[str, Rule]:
        """The naive rules, and those for answers: each by itself, with either check of support, and the defaults."""
        one = {name: AnswerSettings(rules=(name,)) for name in ("one-passage", "supported", "cited")}
        by_encoder = encoder_support(self.encoder)
        one["supported, by the encoder"] = AnswerSettings(rules=("supported",), support=by_encoder)
        for threshold in self.arguments.thresholds:
            support = replace(NGRAMS, threshold=threshold)
            one[f"supported from {threshold:g}"] = AnswerSettings(rules=("supported",), support=support)
        one["answers"] = AnswerSettings()
        return NAIVE | {
            name: (lambda searches, its=its: labels_from_answers(searches, self.texts_of, its)[0])
            for name, its in one.items()
        }

    def texts_of(self, ids: Sequence[str]) -> Mapping[str, str]:
        return {name: self.texts[name] for name in ids if name in self.texts}

    def measure(self, users: Users) -> Iterator[dict[str, Any]]:
        """One row per rule, over all seeds."""
        worlds = []
        for seed in range(self.arguments.seeds):
            searches, truth = self.simulate(seed)
            worlds.append((thumbed(searches, truth, users, seed), clicked(searches, truth, users, seed), truth))
        rules: dict[str, Callable[[Logged, Logged, Mapping[str, Truth]], list[Label]]] = {
            "relevant": lambda answers, _, truth: [
                Label(search.query, hit.id, 1.0, "relevant")
                for search in answers
                for hit in search.hits
                if hit.id in truth[search.query].relevant
            ],
            "clicks": lambda _, lists, __: clicked_as_positive(lists),
        }
        rules |= {name: (lambda answers, _, __, of=rule: of(answers)) for name, rule in self.rules().items()}
        for name, rule in rules.items():
            if not self.arguments.rules or name in self.arguments.rules:
                started = time.perf_counter()
                given = [(aggregate(rule(*world)), world[0], world[2]) for world in worlds]
                row = {"rule": name, "noise": users.noise, "rate": users.rate, "pleased": users.pleased}
                row |= _precision(given) | self._gain([labels for labels, *_ in given])
                yield row | {"seconds": round(time.perf_counter() - started, 1)}

    def _gain(self, given: Sequence[Sequence[Label]]) -> dict[str, Any]:
        if self.arguments.no_fit:
            return {"gain": None, "interval": None}
        fitted = [after for after in map(self.gained, given) if after is not None]
        if not fitted:
            return {"gain": None, "interval": None}
        mean = {query: float(np.mean([after[query] for after in fitted])) for query in self.base}
        change = mean_change("ndcg@10", self.base, mean)
        gains = {query: mean[query] - self.base[query] for query in mean}
        elsewhere = [gain for query, gain in gains.items() if query not in self.found]
        return {
            "gain": round(change.difference, 4),
            "interval": [round(change.low, 4), round(change.high, 4)],
            "gain_where_shown": round(float(np.mean([gains[query] for query in self.found])), 4),
            "gain_elsewhere": round(float(np.mean(elsewhere)), 4),
        }


def _precision(given: Sequence[tuple[Sequence[Label], Logged, Mapping[str, Truth]]]) -> dict[str, Any]:
    counts: Counter[bool] = Counter()
    of, found = 0, 0
    for labels, searches, truth in given:
        right = set()
        for label in labels:
            if label.weight > 0:
                counts[label.passage_id in truth[label.query].relevant] += 1
                right |= {label.query} if label.passage_id in truth[label.query].relevant else set()
        there = [s.query for s in searches if any(hit.id in truth[s.query].relevant for hit in s.hits)]
        of, found = of + len(there), found + len(right & set(there))
    rate = false_negative_rate(counts, source="rule", negatives=counts.total())
    return {
        "labels": round(counts.total() / len(given)),
        "precision": round(rate.rate, 4),
        "low": round(rate.low, 4),
        "high": round(rate.high, 4),
        "coverage": round(found / max(1, of), 4),
    }


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work = arguments.work or Path(temporary)
        if not (arguments.work / "int8").exists():
            export_onnx(arguments.model, arguments.work / "int8", precision="int8")
        opened = open_encoder(arguments.work / "int8")
        opened.quiet = True
        encoder = CachedQueries(opened)
        data = read_data(arguments)
        with closing(connect(arguments.work / "collections")) as client:
            collection = CollectionManager(client).ensure(f"{arguments.data.name}-{len(data.passages)}", encoder)
            index_passages(collection, data.passages, encoder, delete_missing=True)
            bench = Bench(arguments, data, collection, encoder)
            rows = []
            for users in (Users(r, n, p) for p in arguments.pleased for r in arguments.rates for n in arguments.noise):
                for row in bench.measure(users):
                    rows.append(row)
                    gain = "-" if row["gain"] is None else "{gain:+.4f} {interval}".format(**row)
                    print(f"{row['pleased']} {row['rate']:g}", LINE.format(**{**row, "gain": gain}), flush=True)
            shown = sum(any(hit.id in ids for hit in hits) for hits, ids in zip(bench.results, bench.asked.values()))
            summary = {
                "data": arguments.data.name,
                "passages": len(data.passages),
                "train_queries": len(bench.asked),
                "answer_shown": round(shown / len(bench.asked), 4),
                "test_queries": len(bench.queries),
                "base_ndcg@10": round(sum(bench.base.values()) / len(bench.base), 4),
                "seeds": arguments.seeds,
                "rows": rows,
                "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
            }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="its int8 build is made and used")
    parser.add_argument("--work", type=Path, help="where the build and vectors are kept, to go on with")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--passages", type=int, help="only so many: the answers, and others drawn by their ids")
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--test-limit", type=int)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.2])
    parser.add_argument("--pleased", choices=("context", "answer"), nargs="+", default=["context"])
    parser.add_argument("--shown", type=int, default=World().shown, help="passages in the prompt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--thresholds", type=float, nargs="*", default=[], help="of support by n-grams, to compare")
    parser.add_argument("--rules", nargs="*", help="only these")
    parser.add_argument("--no-fit", action="store_true", help="only precisions")
    parser.set_defaults(dev=False)
    return parser.parse_args()


if __name__ == "__main__":
    main()
