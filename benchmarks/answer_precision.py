"""How often is each rule for answers right, and is the weight of a label how likely it is right?

    python benchmarks/answer_precision.py --data demo [--work FOLDER] [--out FILE] [--encoder]
    python benchmarks/answer_precision.py --data FOLDER [--passages N] [--train-limit N] [--test-limit N]

Data sets: `judged_data.py`. Every train query is asked once in each of `--seeds` simulations, its answer made as
`simulated_answers.py` says; a share `--rate` of the answers gets a thumb: up, if the user is `pleased`, which is where
a relevant passage was among those shown (`context`) or where the answer was made from one (`answer`); `--noise` of the
thumbs say the opposite. Nothing is trained, so what an adapter does decides nothing here. Four tables:

- `rules`: the share of a rule's labels that are right, with a Wilson interval; with `--thresholds` also that of
  `supported` from other scores on, with `--encoder` by the similarity of the encoder;
- `alone`: the same of the passages that a rule has voted for where no other passage of the query got a vote: the
  default weights are made of these, on `demo`, as means over `pleased` and `noise`;
- `labels`: all default rules together, by the weight of the label: how many of those labels are right. `asked` says by
  how many people each query was asked: 1, or all of `--seeds`, each of whom gets an answer of their own;
- `brier`: the mean squared difference of a label's weight and the truth (1 or 0), over the same labels, next to that of
  a weight that is the same for all labels: the share of them that is right, which nobody knows beforehand.

The last line is JSON.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from judged_data import Data, arguments_of, finish, machine, opened, read_data
from simulated_answers import Users, World, searched
from simulated_rules import Log, each_rule, is_right, precision, remembered_words, rules_of, share

from qdrant_tools.collections.collection import Collection
from qdrant_tools.debias import (
    AnswerSettings,
    AnswerVote,
    encoder_support,
    labels_from_answers,
    votes_from_answers,
)
from qdrant_tools.records import Encoder, Label, Vectors

EDGES = (0.0, 0.2, 0.4, 0.5, 0.7, 0.9, 1.0)
"""Bounds of weights between which labels are counted together."""


class RememberedPassages:
    """An encoder that embeds a text once: the same answers and passages come again for every kind of users."""

    def __init__(self, base: Encoder) -> None:
        self.base, self.dimension, self.space = base, base.dimension, base.space
        self._vectors: dict[str, Any] = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.base.encode_queries(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.base.encode_passages(new)))
        return np.stack([self._vectors[text] for text in texts])


class Bench:
    """One data set: what was found for every train query, and the simulations on it."""

    def __init__(self, arguments: argparse.Namespace, data: Data, collection: Collection, encoder: Encoder) -> None:
        asked = dict(data.train.values())
        results = [collection.search(text, k=arguments.shown, exact=True) for text in asked]
        self.worlds = [
            searched(list(asked), results, asked, World(shown=arguments.shown, seed=seed))
            for seed in range(arguments.seeds)
        ]
        self.passages = {passage.id: passage.text for passage in data.passages}
        words = remembered_words(search for searches, _ in self.worlds for search in searches)
        self.settings = AnswerSettings(support=words)
        settings = each_rule(words)
        for threshold in arguments.thresholds:
            support = replace(words, threshold=threshold)
            settings[f"supported from {threshold:g}"] = AnswerSettings(rules=("supported",), support=support)
        if arguments.encoder:
            by_encoder = encoder_support(RememberedPassages(encoder))
            settings["supported, by the encoder"] = AnswerSettings(rules=("supported",), support=by_encoder)
        self.rules = rules_of(self.texts, settings)

    def texts(self, ids: Sequence[str]) -> Mapping[str, str]:
        return {name: self.passages[name] for name in ids if name in self.passages}

    def logs(self, users: Users) -> list[Log]:
        return [Log.of(searches, truth, users, seed) for seed, (searches, truth) in enumerate(self.worlds)]

    def rows(self, logs: Sequence[Log]) -> Iterator[dict[str, Any]]:
        for name, rule in self.rules.items():
            yield {"rule": name} | precision([rule(log) for log in logs], logs)

    def alone(self, logs: Sequence[Log]) -> Iterator[dict[str, Any]]:
        """Each rule where no other passage has a vote, and no stronger rule votes for this one."""
        counts: dict[str, Counter[bool]] = defaultdict(Counter)
        for log in logs:
            by_query: dict[str, dict[str, AnswerVote]] = defaultdict(dict)
            for vote in votes_from_answers(log.answers, self.texts, self.settings):
                if isinstance(vote, AnswerVote):
                    stronger = by_query[vote.query].get(vote.passage_id)
                    if stronger is None or _weight(vote) > _weight(stronger):
                        by_query[vote.query][vote.passage_id] = vote
            for votes in by_query.values():
                for vote in votes.values() if len(votes) == 1 else ():
                    counts[vote.rule][is_right(Label(vote.query, vote.passage_id), log)] += 1
        for rule, found in sorted(counts.items()):
            yield {"rule": rule, "labels": found.total()} | share(found)

    def labels(self, logs: Sequence[Log]) -> Iterator[dict[str, Any]]:
        """Weights and truth of the labels by all default rules: each log for itself, and all as one."""
        one = _together(logs)
        for asked, given in ((1, logs), (len(logs), [one])):
            found = [
                (label.weight, is_right(label, log))
                for log in given
                for label in labels_from_answers(log.answers, self.texts, self.settings)[0]
            ]
            weights, right = (np.array(column, float) for column in zip(*found))
            places = np.digitize(weights, EDGES[1:-1], right=True)
            bins = [_bin(weights[places == place], right[places == place]) for place in range(len(EDGES) - 1)]
            yield {
                "asked": asked,
                "bins": [found for found in bins if found],
                "brier": round(float(np.mean((weights - right) ** 2)), 4),
                "brier_of_the_same": round(float(right.mean() * (1 - right.mean())), 4),
            }


def _weight(vote: AnswerVote) -> float:
    return AnswerSettings().weight(vote.rule)


def _bin(weights: Any, right: Any) -> dict[str, Any]:
    if not len(weights):
        return {}
    counts = Counter({True: int(right.sum()), False: int(len(right) - right.sum())})
    return {"labels": len(weights), "weight": round(float(weights.mean()), 3)} | share(counts)


def _together(logs: Sequence[Log]) -> Log:
    """The same queries, asked by one person of each log."""
    searches = [
        replace(search, id=f"{number}-{search.id}", user=f"{number}-{search.user}", answer=_said_by(search, number))
        for number, log in enumerate(logs)
        for search in log.answers
    ]
    return Log(searches, (), logs[0].truth)


def _said_by(search: Any, number: int) -> Any:
    verdicts = tuple(replace(verdict, who=f"{number}-{verdict.who}") for verdict in search.answer.verdicts)
    return replace(search.answer, verdicts=verdicts)


def main() -> None:
    arguments = _arguments()
    data = read_data(arguments)
    rows: dict[str, list[dict[str, Any]]] = {"rules": [], "alone": [], "labels": []}
    with opened(arguments, data) as (collection, encoder):
        bench = Bench(arguments, data, collection, encoder)
        for users in (Users(arguments.rate, n, p) for p in arguments.pleased for n in arguments.noise):
            logs = bench.logs(users)
            for table, found in (
                ("rules", bench.rows(logs)),
                ("alone", bench.alone(logs)),
                ("labels", bench.labels(logs)),
            ):
                for row in found:
                    row = {"pleased": users.pleased, "noise": users.noise, **row}
                    rows[table].append(row)
                    print(table, row, flush=True)
    summary = {
        "data": arguments.data.name,
        "passages": len(data.passages),
        "train_queries": len(data.train),
        "rate": arguments.rate,
        "seeds": arguments.seeds,
        **rows,
        "alone_mean": _means(rows["alone"]),
        "machine": machine(),
    }
    finish(arguments, summary)


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean precision of each rule over all kinds of users."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[row["rule"]].append(row["precision"])
    return {rule: round(float(np.mean(each)), 3) for rule, each in found.items()}


def _arguments() -> argparse.Namespace:
    parser = arguments_of(__doc__)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--pleased", choices=("context", "answer"), nargs="+", default=["context", "answer"])
    parser.add_argument("--shown", type=int, default=World().shown, help="passages in the prompt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--thresholds", type=float, nargs="*", default=[], help="of support by words, to compare")
    parser.add_argument("--encoder", action="store_true", help="also support by the encoder, which embeds the answers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
