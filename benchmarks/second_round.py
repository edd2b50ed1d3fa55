"""Does a second round help a query adapter: mine again in the space that the first one made, and fit again?

    python benchmarks/second_round.py --data FOLDER [--data demo ...] [--vectors FOLDER] [--out FILE]

`judged_texts.py` says which collections, and which of their queries test. No test query has a part in any choice: as
in the product every candidate is judged out of fold by the other queries. Here their least loss chooses, without the
benefit of the doubt that `training.adapter.choice` gives to the map that needs no labels: so a second round is chosen
whenever it looks better.

- `one round`: the candidates of `training.adapter.fit`;
- `two rounds`: then the nearest passages of each query under the best fitted map of its fold are the negatives, and
  both losses go on from that map for up to 8 steps. The candidates of the first round remain, so that none of the
  second need be chosen;
- `anew`, with `--anew`: the same negatives, but a fit from the start.

Columns: the gain in nDCG@10 over the base, and over one round, each with its 95 % interval. Exact search; the last line
is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from judged_texts import Judged, change, figures, parser, read
from threadpoolctl import threadpool_limits

from llama_index_embed_plus.training.adapter.arrays import AdapterData, Rows
from llama_index_embed_plus.training.adapter.descent import Objective, descend
from llama_index_embed_plus.training.adapter.folds import fold_queries, hidden_answers, seen
from llama_index_embed_plus.training.adapter.ranking import Judged as Ranked
from llama_index_embed_plus.training.adapter.ranking import judge, nearest
from llama_index_embed_plus.training.adapter.unlabelled import by_pseudo_queries, fill, whitening
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.records import Vectors
from qdrant_tools.validation import unit_rows

_OF_QUERY = 50
SECOND = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, eq=False)
class Family:
    """Maps by their names, of every fold one list; `ends` are the numbers of those that the others lie between."""

    names: tuple[str, ...]
    maps: Sequence[Sequence[Vectors]]
    ends: tuple[int, ...]

    def __add__(self, other: Family) -> Family:
        maps = [[*one, *two] for one, two in zip(self.maps, other.maps, strict=True)]
        ends = (*self.ends, *(len(self.names) + end for end in other.ends))
        return Family(self.names + other.names, maps, ends)


@dataclass(frozen=True, eq=False)
class Chosen:
    name: str
    maps: Sequence[Vectors]

    @property
    def matrix(self) -> Vectors:
        return np.asarray(np.mean(self.maps, axis=0), np.float32)


class Fits:
    """All queries but those left out, in folds, and maps that are fitted without each."""

    def __init__(
        self, data: AdapterData, left_out: Rows, settings: AdapterSettings, plain: Mapping[str, Vectors]
    ) -> None:
        self.data, self.settings, self.plain = data, settings, plain
        self.start = plain["pseudo"]
        self.hidden = hidden_answers(data.answers, left_out, apart=True)
        queries, answers = seen(data.answers, np.setdiff1d(data.everything, left_out), self.hidden)
        of = dict(zip(queries.tolist(), answers, strict=True))
        self.queries, self.answers = queries, [of.get(query, []) for query in range(len(data.answers))]
        self.folds = fold_queries(self.answers, queries, folds=settings.folds, seed=settings.seed)
        several = any(len(own) > 1 for own in answers)
        self.losses = settings.losses if several else settings.losses[:1]

    def round(self, name: str, starts: Sequence[Vectors], mined: Sequence[Vectors], steps: Sequence[int]) -> Family:
        """Maps that go on from that of each fold, among negatives that are near under `mined`."""
        maps: list[list[Vectors]] = []
        for fold, start, finder in zip(self.folds, starts, mined, strict=True):
            others = np.setdiff1d(self.queries, fold)
            near = nearest(self.mapped(others, finder), self.data.stored, _OF_QUERY, hidden=self.hidden)
            maps.append(self.fitted(fold, start, others, near, steps))
        names = tuple(f"{name} {loss} {step}" for loss in self.losses for step in steps)
        return Family(names, maps, tuple(range(len(steps) - 1, len(names), len(steps))))

    def best(self, family: Family, *, fitted: bool = False) -> Chosen:
        """The map of least loss out of fold. All are judged together: over the same passages their losses compare."""
        parts = [self.judged(*each, family.ends) for each in zip(self.folds, family.maps, strict=True)]
        losses = Ranked.joined(parts).losses[-1].mean(axis=2).min(axis=0)
        first = len(self.plain) if fitted else 0
        row = first + int(np.argmin(losses[first:]))
        return Chosen(family.names[row], [maps[row] for maps in family.maps])

    def mapped(self, queries: Rows, matrix: Vectors) -> Vectors:
        return np.asarray(unit_rows(self.data.queries[queries] @ matrix), np.float32)

    def fitted(self, fold: Rows, start: Vectors, others: Rows, near: Rows, steps: Sequence[int]) -> list[Vectors]:
        data, settings = self.data, self.settings
        hidden = np.union1d(self.hidden, hidden_answers(self.answers, fold, apart=True))
        queries, answers = seen(self.answers, others, hidden)
        if not len(queries):
            return [start] * (len(steps) * len(self.losses))
        own = np.array(sorted({row for rows in answers for row in rows}), np.int64)
        found = near[np.searchsorted(others, queries)].T.ravel()
        rows = fill([own, found], len(data.stored), most=settings.negatives, seed=settings.seed, hidden=hidden)
        vectors, weights = self.mapped(queries, start), data.weights[queries]
        same = settings.same_passage_similarity
        objective = Objective.of(vectors, data.stored, answers, weights, rows, same=same)
        made: list[Vectors] = []
        for loss in self.losses:
            each, _ = descend(
                objective, loss, steps=steps, rate=settings.learning_rate, temperature=settings.temperature
            )
            made += [start + start @ weight for weight in each]
        return made

    def judged(self, fold: Rows, maps: Sequence[Vectors], ends: Sequence[int]) -> Ranked:
        answers = [self.answers[query] for query in fold.tolist()]
        return judge(self.data.queries[fold], self.data.stored, answers, maps, ends, hidden=self.hidden)


def plain_maps(data: AdapterData, settings: AdapterSettings) -> dict[str, Vectors]:
    """Those that need no labels: the same whatever is left out."""
    assert data.pseudo is not None
    white = whitening(data.stored, strength=settings.whitening, floor=settings.whitening_floor)
    label_free = by_pseudo_queries(data.stored, data.pseudo, white, settings)
    return {"identity": np.eye(len(white), dtype=np.float32), "whitened": white, "pseudo": label_free}


def systems(fits: Fits, *, anew: bool) -> dict[str, Chosen]:
    plain, folds = fits.plain, len(fits.folds)
    starts = [fits.start] * folds
    one = Family(tuple(plain), [list(plain.values())] * folds, (len(plain) - 1,))
    one += fits.round("fit", starts, starts, fits.settings.steps)
    mined = fits.best(one, fitted=True).maps
    found = {"one round": fits.best(one), "two rounds": fits.best(one + fits.round("further", mined, mined, SECOND))}
    if anew:
        found["anew"] = fits.best(one + fits.round("anew", starts, mined, fits.settings.steps))
    return found


def measured(judged: Judged, settings: AdapterSettings, *, anew: bool) -> dict[str, object]:
    base: dict[str, float] = {}
    values: dict[str, dict[str, float]] = {}
    chosen: dict[str, list[str]] = {}
    plain = plain_maps(judged.data, settings)
    for part in judged.parts:
        base |= judged.ndcg(plain["identity"], part)
        for name, candidate in systems(Fits(judged.data, part, settings, plain), anew=anew).items():
            values.setdefault(name, {}).update(judged.ndcg(candidate.matrix, part))
            chosen.setdefault(name, []).append(candidate.name)
    one: Mapping[str, float] = values["one round"]
    return {
        "queries": len(base),
        "base": round(float(np.mean(list(base.values()))), 4),
        **{
            name: {
                "over base": figures(change(base, each)),
                "over one round": figures(change(one, each)),
                "chosen": chosen[name],
            }
            for name, each in values.items()
        },
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--anew", action="store_true")
    made.add_argument("--out", type=Path)
    arguments = made.parse_args()
    found: dict[str, object] = {}
    for judged in read(arguments):
        started = time.process_time()
        with threadpool_limits(limits=1, user_api="blas"):
            found[judged.name] = measured(judged, AdapterSettings(), anew=arguments.anew)
        print(judged.name, json.dumps(found[judged.name]), f"{time.process_time() - started:.0f} s", file=sys.stderr)
        if arguments.out:
            arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
