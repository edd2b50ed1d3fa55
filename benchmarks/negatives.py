"""What do the negatives that a rule draws do to training?

    python benchmarks/negatives.py --data FOLDER [--labels one] [--queries 300] [--seeds 2] [--work FOLDER] [--out FILE]
    python benchmarks/negatives.py --data demo --labels clicks

Data sets: `judged_data.py`; up to `--queries` judged queries of any split, in 5 folds. The queries of four folds are
trained on, those of the fifth judged with all their answers, over all passages. Queries that share an answer are in one
fold, or the answers of the fifth are positives for nobody. What is known of a train query:

- `one`: one answer, drawn at random; the others are in the collection, and nobody says so;
- `clicks`: what was clicked of the ten passages that the base shows. Rank r is looked at with probability 1 / r; an
  answer that is looked at is clicked, and a fifth of the clicks lies on another of the ten instead.

4 negatives per query are mined by the rules of `false_negatives.py`; for clicks there are besides those that the log
itself names: shown and not clicked, skipped above a click, looked at by the click model and not clicked. What trains is
a linear map of query vectors by InfoNCE (temperature 0.05), with full steps down the gradient (rate 0.3), and no other
negatives than

- `own`: the query's own, so that all depends on them;
- `batch`: those of all train queries and their positives, as in a batch of the loss that trains encoders.

Of 1 to 16 steps that number is taken which gains most in the other four folds. `gain` is that in nDCG@10 over no
map, the mean over seeds; the interval is a paired bootstrap over queries; `over_first` is the difference to the first
rule; `of_steps` is nDCG@10 after each number of steps. `false_negatives` is the share of the negatives that are answers
after all. The last line is JSON.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from false_negatives import DRAWN, HYBRID, RULES
from judged_data import Data, arguments_of, finish, hash_of, machine, opened, read_data

from llama_index_embed_plus.evaluate.retrieval.comparison import mean_change
from llama_index_embed_plus.training.adapter.descent import Objective, descend
from llama_index_embed_plus.training.adapter.folds import fold_queries, hidden_answers, seen
from llama_index_embed_plus.training.adapter.ranking import judge, nearest
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import sample_vectors
from qdrant_tools.debias import (
    click_over_skip_above,
    fit_click_model,
    inverse_propensity,
    unclicked_as_negative,
)
from qdrant_tools.log.records import Feedback, LoggedHit, LoggedSearch
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.mining.calibration import calibrate
from qdrant_tools.records import Encoder, Label

STEPS = (1, 2, 4, 8, 16)
SCHEMES = ("own", "batch")
SHOWN, NOISE, NEGATIVES = 10, 0.2, 4
DEFAULT_RULES = (
    "at most 95 %, top of 50",
    "copies out, top of 50",
    "at most 95 %, top of 200",
    "at most 95 %, random of 50",
    "at most 95 %, random of 200",
    "at most 95 %, softmax of 200",
    "at most 90 %, random of 200",
    "both, at most 95 %, random of 200",
    "random of all passages",
    "calibrated",
)
OF_LOG = ("shown, not clicked", "skipped above a click", "looked at by the click model")
NOW = datetime(2026, 1, 1, tzinfo=UTC)

Answers = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Bench:
    """Judged queries as arrays; `ids` are those of the rows of `stored`, and `place` is the row of an id."""

    collection: Collection
    encoder: Encoder
    stored: np.ndarray
    ids: Sequence[str]
    place: Mapping[str, int]
    texts: Sequence[str]
    queries: np.ndarray
    answers: Answers

    @classmethod
    def of(cls, data: Data, most: int, collection: Collection, encoder: Encoder) -> Bench:
        sample = sample_vectors(collection, len(data.passages))
        place = {name: row for row, name in enumerate(sample.ids)}
        judged = {text: ids for split in (data.train, data.test) for text, ids in split.values()}
        texts = sorted(judged, key=hash_of)[:most]
        answers = tuple(tuple(place[name] for name in judged[text]) for text in texts)
        vectors = np.ascontiguousarray(encoder.encode_queries(texts), np.float32)
        return cls(collection, encoder, sample.vectors, sample.ids, place, texts, vectors, answers)

    def ndcg(self, queries: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
        """(maps, queries)"""
        answers = [self.answers[query] for query in queries]
        ends = range(len(maps))
        found = judge(self.queries[queries], self.stored, answers, maps, ends, hidden=np.empty(0, np.int64))
        return np.asarray(found.ndcg)

    def names(self, rows: Sequence[int]) -> list[str]:
        return [self.ids[row] for row in rows]


@dataclass(frozen=True, eq=False)
class Known:
    """What training knows: numbers of queries, rows of their positives, and searches if these were clicked."""

    queries: np.ndarray
    positives: Sequence[Sequence[int]]
    searches: Sequence[LoggedSearch] = ()

    def labels(self, bench: Bench) -> list[Label]:
        pairs = zip(self.queries, self.positives, strict=True)
        return [Label(bench.texts[query], name) for query, rows in pairs for name in bench.names(rows)]


def one_answer(bench: Bench, left: np.ndarray, hidden: np.ndarray, seed: int) -> Known:
    queries, answers = seen(bench.answers, left, hidden)
    random = np.random.default_rng(seed)
    return Known(queries, [[int(random.choice(rows))] for rows in answers])


def clicked(bench: Bench, left: np.ndarray, hidden: np.ndarray, seed: int) -> Known:
    random, gone = np.random.default_rng(seed), set(hidden.tolist())
    shown = nearest(bench.queries[left], bench.stored, SHOWN).tolist()
    queries, positives, searches = [], [], []
    for query, rows in zip(left.tolist(), shown, strict=True):
        looked = [row for rank, row in enumerate(rows, 1) if random.random() < 1 / rank]
        clicks = [row for row in looked if row in bench.answers[query]]
        clicks = list(dict.fromkeys(int(random.choice(rows)) if random.random() < NOISE else row for row in clicks))
        hits = tuple(LoggedHit(name, rank) for rank, name in enumerate(bench.names(rows), 1))
        events = tuple(Feedback(name, "click", 1.0, NOW) for name in bench.names(clicks))
        searches.append(LoggedSearch(str(query), NOW, bench.texts[query], hits=hits, feedback=events))
        if kept := [row for row in clicks if row not in gone]:
            queries.append(query)
            positives.append(kept)
    return Known(np.array(queries, np.int64), positives, searches)


KNOWN = {"one": one_answer, "clicks": clicked}


def of_log(rule: str, known: Known, bench: Bench) -> list[list[int]]:
    """The negatives that a log names, those shown first before others."""
    searches = known.searches
    if rule == OF_LOG[0]:
        labels = unclicked_as_negative(searches)
    elif rule == OF_LOG[1]:
        labels = click_over_skip_above(searches)
    else:
        labels = inverse_propensity(searches, fit_click_model(searches))
    against: dict[str, list[int]] = {}
    for label in labels:
        if label.weight == 0:
            against.setdefault(label.query, []).append(bench.place[label.passage_id])
    return [against.get(bench.texts[query], [])[:NEGATIVES] for query in known.queries]


def mined(settings: MiningSettings, known: Known, bench: Bench) -> list[list[int]]:
    depth = min(settings.depth, len(bench.stored))
    result = mine(bench.collection, known.labels(bench), bench.encoder, settings=replace(settings, depth=depth))
    found = {example.query: [bench.place[each.id] for each in example.negatives] for example in result.examples}
    return [found.get(bench.texts[query], []) for query in known.queries]


def drawn(rule: str, known: Known, bench: Bench) -> list[list[int]]:
    if rule in OF_LOG:
        return of_log(rule, known, bench)
    if rule == "calibrated":
        found = calibrate(bench.collection, known.labels(bench), bench.encoder, settings=DRAWN)
        return mined(found.settings, known, bench)
    return mined(RULES[rule], known, bench)


def maps_of(scheme: str, known: Known, negatives: Sequence[Sequence[int]], bench: Bench) -> list[np.ndarray]:
    """A map after each number of steps."""
    rows = np.array(sorted({row for each in (*known.positives, *negatives) for row in each}), np.int64)
    queries, weights = bench.queries[known.queries], np.ones(len(known.queries))
    objective = Objective.of(queries, bench.stored, known.positives, weights, rows, same=0.95)
    if scheme == "own":
        place = {row: number for number, row in enumerate(rows.tolist())}
        everything = np.arange(len(rows))
        hidden = [np.setdiff1d(everything, [place[row] for row in each]).tolist() for each in negatives]
        objective = replace(objective, hidden=type(objective.hidden).of(hidden))
    found, _ = descend(objective, "each", steps=STEPS, rate=0.3, temperature=0.05)
    return [np.eye(len(weight), dtype=np.float32) + weight for weight in found]


class Tally:
    """What was drawn by one rule, over folds and seeds."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, known: Known, negatives: Sequence[Sequence[int]], bench: Bench) -> None:
        for query, rows in zip(known.queries, negatives, strict=True):
            self.counts["queries"] += 1
            self.counts["drawn"] += len(rows)
            self.counts["answers"] += len(set(rows) & set(bench.answers[query]))

    @property
    def row(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "drawn": counts["drawn"] / max(counts["queries"], 1),
            "false_negatives": counts["answers"] / max(counts["drawn"], 1),
        }


def run(bench: Bench, arguments: argparse.Namespace) -> Iterator[tuple[str, str, np.ndarray, dict[str, Any]]]:
    """Per rule and scheme the nDCG of every query, by the number of steps that suits the other folds."""
    everything = np.arange(len(bench.texts))
    folds = fold_queries(bench.answers, everything, folds=5, seed=0)
    for rule in arguments.rules:
        tally = Tally()
        ndcg = {scheme: np.zeros((arguments.seeds, len(STEPS), len(everything))) for scheme in SCHEMES}
        for seed in range(arguments.seeds):
            for fold in folds:
                hidden = hidden_answers(bench.answers, fold, apart=True)
                known = KNOWN[arguments.labels](bench, np.setdiff1d(everything, fold), hidden, seed)
                negatives = drawn(rule, known, bench)
                tally.add(known, negatives, bench)
                for scheme in SCHEMES:
                    maps = maps_of(scheme, known, negatives, bench)
                    ndcg[scheme][seed][:, fold] = bench.ndcg(fold, maps)
        for scheme, values in ndcg.items():
            of_steps = values.mean(axis=0)
            chosen = np.empty(len(everything))
            for fold in folds:
                others = np.setdiff1d(everything, fold)
                chosen[fold] = of_steps[of_steps[:, others].mean(axis=1).argmax(), fold]
            yield rule, scheme, chosen, tally.row | {"of_steps": of_steps.mean(axis=1).round(4).tolist()}


def change(before: np.ndarray, after: np.ndarray) -> list[float]:
    found = mean_change("ndcg@10", *({str(q): float(v) for q, v in enumerate(each)} for each in (before, after)))
    return [round(value, 4) for value in (found.difference, found.low, found.high)]


def main() -> None:
    parser = arguments_of(__doc__)
    parser.add_argument("--labels", choices=tuple(KNOWN), default="one")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rules", nargs="+", choices=[*RULES, "calibrated", *OF_LOG])
    arguments = parser.parse_args()
    arguments.rules = arguments.rules or [*DEFAULT_RULES, *(OF_LOG if arguments.labels == "clicks" else ())]
    data = read_data(arguments)
    found: dict[str, dict[str, Any]] = {scheme: {} for scheme in SCHEMES}
    first: dict[str, np.ndarray] = {}
    with opened(arguments, data, HYBRID) as (collection, encoder):
        bench = Bench.of(data, arguments.queries, collection, encoder)
        identity = np.eye(bench.stored.shape[1], dtype=np.float32)
        base = bench.ndcg(np.arange(len(bench.texts)), [identity])[0]
        for rule, scheme, ndcg, tally in run(bench, arguments):
            row = {"gain": change(base, ndcg), "over_first": change(first.setdefault(scheme, ndcg), ndcg), **tally}
            found[scheme][rule] = row
            print(f"{scheme:<6}{rule:<42}{row}", flush=True)
    summary = {
        "data": arguments.data.name,
        "labels": arguments.labels,
        "queries": len(bench.texts),
        "passages": len(bench.stored),
        "base": round(float(base.mean()), 4),
        "schemes": found,
        "machine": machine(),
    }
    finish(arguments, summary)


if __name__ == "__main__":
    main()
