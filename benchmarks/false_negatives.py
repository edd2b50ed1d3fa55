"""How many mined negatives are answers? Answers that are known are hidden from the miner, and looked for.

    python benchmarks/false_negatives.py --data FOLDER [--work FOLDER] [--turns 5] [--out FILE]

Data sets: `judged_data.py`; the queries are those of the train split, or of the test split where there is no other. Of
every query with several answers, one is given as the known positive and the others are hidden, each in turn, for
`--turns` turns at most. 4 negatives are mined per query by each rule of `RULES`. Calibration sees other queries:
`calibrated, of the answers of other queries` has all answers of one half of the queries, and mines for the other half;
`calibrated, of one answer each` has one answer of each query, and so goes by the distribution of the scores.

- `drawn`: negatives per query, of 4. `rank`: where the last of them stands among the candidates, in the mean.
- `false_negatives`: the share of the negatives that are hidden answers: a lower bound, since nobody judged the rest.
- `hidden_rate`: the share of the hidden answers that were drawn, with its 95 % Wilson interval.

The last line is JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from judged_data import Data, arguments_of, finish, machine, opened, read_data

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.mining.calibration import calibrate
from qdrant_tools.records import Encoder, Label
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.statistics import wilson

BARE = MiningSettings(max_share=None, duplicate_similarity=None, depth=50, sampling="top", exact=True)
WITHOUT_COPIES = replace(BARE, duplicate_similarity=0.95)
AT_95 = replace(WITHOUT_COPIES, max_share=0.95)
AT_90 = replace(WITHOUT_COPIES, max_share=0.9)
DRAWN = replace(AT_95, sampling="random", depth=200)
RULES: Mapping[str, MiningSettings] = {
    "no rules, top of 50": BARE,
    "copies out, top of 50": WITHOUT_COPIES,
    "at most 95 %, top of 50": AT_95,
    "at most 95 %, top of 200": replace(AT_95, depth=200),
    "at most 95 %, random of 50": replace(AT_95, sampling="random"),
    "at most 95 %, random of 200": DRAWN,
    "at most 95 %, softmax of 200": replace(DRAWN, sampling="softmax"),
    "at most 90 %, top of 50": AT_90,
    "at most 90 %, random of 200": replace(DRAWN, max_share=0.9),
    "at most 80 %, top of 50": replace(WITHOUT_COPIES, max_share=0.8),
    "copies out, random of 200": replace(DRAWN, max_share=None),
    "by words, at most 95 %, random of 200": replace(DRAWN, source="lexical"),
    "both, at most 95 %, random of 200": replace(DRAWN, source="both"),
    "random of all passages": replace(DRAWN, max_share=None, depth=1_000_000),
}
HYBRID = CollectionSettings(lexical=Bm25())
LINE = (
    "| {name} | {drawn:.2f} | {rank:.0f} | {rate:.1%} | {hidden_found} of {hidden} | {hidden_rate:.3f} "
    "[{low:.3f}, {high:.3f}] |"
)


@dataclass(frozen=True)
class Judged:
    """Query -> all of its answers, of queries with several."""

    answers: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, data: Data) -> Judged:
        found: dict[str, dict[str, None]] = {}
        for text, ids in (data.train or data.test).values():
            found.setdefault(text, {}).update(dict.fromkeys(ids))
        several = {query: sorted(ids) for query, ids in found.items() if len(ids) > 1}
        for query, its in several.items():
            Random(query).shuffle(its)
        return cls(several)

    def turns(self, most: int) -> Iterator[list[Label]]:
        """One positive per query: in turn number i the i-th of those that have so many."""
        for turn in range(min(most, max(map(len, self.answers.values()), default=0))):
            yield [Label(query, its[turn]) for query, its in self.answers.items() if turn < len(its)]

    def part(self, number: int) -> Judged:
        """One of two halves."""
        return Judged({query: self.answers[query] for query in sorted(self.answers)[number::2]})

    @property
    def labels(self) -> list[Label]:
        return [Label(query, name) for query, ids in self.answers.items() for name in ids]


Part = tuple[Judged, MiningSettings]


CALIBRATED = ("calibrated, of one answer each", "calibrated, of the answers of other queries")


def rules(judged: Judged, collection: Collection, encoder: Encoder) -> Iterator[tuple[str, list[Part]]]:
    """By name: which settings mine for which queries."""
    for name, settings in RULES.items():
        yield name, [(judged, replace(settings, depth=min(settings.depth, collection.gateway.count())))]
    alone = calibrate(collection, next(judged.turns(1)), encoder, settings=DRAWN).settings
    yield CALIBRATED[0], [(judged, alone)]
    halves = [judged.part(0), judged.part(1)]
    found = [calibrate(collection, half.labels, encoder, settings=DRAWN).settings for half in halves]
    yield CALIBRATED[1], [(halves[1], found[0]), (halves[0], found[1])]


def measured(parts: Sequence[Part], collection: Collection, encoder: Encoder, turns: int) -> dict[str, Any]:
    queries = negatives = hits = hidden = ranks = filled = 0
    for judged, settings in parts:
        for labels in judged.turns(turns):
            known = {label.query: label.passage_id for label in labels}
            secret = {query: set(judged.answers[query]) - {passage} for query, passage in known.items()}
            hidden += sum(map(len, secret.values()))
            queries += len(known)
            result = mine(collection, labels, encoder, settings=settings)
            for example in result.examples:
                negatives += len(example.negatives)
                hits += sum(negative.id in secret[example.query] for negative in example.negatives)
            ranks += result.stats.counts["deepest_ranks"]
            filled += result.stats.counts["with_negatives"]
    low, high = wilson(hits, hidden)
    return {
        "negatives": negatives,
        "drawn": negatives / queries,
        "rank": ranks / max(filled, 1),
        "false_negatives": hits / max(negatives, 1),
        "hidden": hidden,
        "hidden_found": hits,
        "hidden_rate": hits / hidden,
        "interval": [low, high],
        "settings": [
            {key: getattr(settings, key) for key in ("max_share", "margin", "depth", "sampling", "source")}
            for _, settings in parts
        ],
    }


def main() -> None:
    parser = arguments_of(__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rules", nargs="+", choices=[*RULES, *CALIBRATED], default=[*RULES, *CALIBRATED])
    arguments = parser.parse_args()
    data = read_data(arguments)
    judged, found = Judged.of(data), {}
    with opened(arguments, data, HYBRID) as (collection, encoder):
        for name, parts in rules(judged, collection, encoder):
            if name not in arguments.rules:
                continue
            row = found[name] = measured(parts, collection, encoder, arguments.turns)
            low, high = row["interval"]
            print(LINE.format(name=name, rate=row["false_negatives"], low=low, high=high, **row), flush=True)
    several = sum(map(len, judged.answers.values())) / max(len(judged.answers), 1)
    summary = {"dataset": arguments.data.name, "queries": len(judged.answers), "answers": several, "rules": found}
    finish(arguments, summary | {"passages": len(data.passages), "machine": machine()})


if __name__ == "__main__":
    main()
