"""How close to the positive may a negative score? Picked from data, because it differs from model to model.

A share of 0.95 that suits one encoder discards most candidates of another whose scores all lie close together. Two
ways to pick, told apart in the result:

- *labelled*: queries with several positives hide all but one, and the strictest share is found at which few enough of
  the hidden ones come out as negatives. It is a lower bound: unlabelled answers are not seen.
- *distribution*, when too few queries have several positives: a margin relative to how far positives stand out, that is
  a tenth of the median distance between a positive's score and those of the last candidates looked at.

Guarantees: nothing is embedded but the queries; deterministic. Does not know: how the mined examples train.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np

from qdrant_tools.errors import InputError
from qdrant_tools.handle import Collection, StoredPassage
from qdrant_tools.mine.miner import Draft, Miner, positives_by_query
from qdrant_tools.mine.rules import Positives, drawing_order, eligible
from qdrant_tools.mine.settings import MiningSettings
from qdrant_tools.records import Encoder, Label, Progress

SHARES = (1.0, 0.98, 0.95, 0.92, 0.9, 0.87, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
ENOUGH_QUERIES = 30
STANDING_OUT = 0.1


@dataclass(frozen=True)
class Trial:
    """What a share would do: `false_negatives` is the share of drawn negatives that are hidden positives, `discarded`
    that of candidates removed as too close, `filled` that of examples with all their negatives."""

    max_share: float
    false_negatives: float
    discarded: float
    filled: float


@dataclass(frozen=True)
class Calibration:
    """The settings to mine with, and what they rest on. `trials` are only there for the labelled way."""

    settings: MiningSettings
    method: Literal["labelled", "distribution"]
    queries: int
    trials: tuple[Trial, ...] = ()

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"settings": self.settings.as_row()}


def calibrate(
    collection: Collection,
    labels: Iterable[Label],
    encoder: Encoder,
    *,
    settings: MiningSettings | None = None,
    target: float = 0.05,
    queries: int = 500,
    progress: Progress | None = None,
) -> Calibration:
    """Pick `max_share` or `margin` for this collection and encoder; the other settings stay as they are.

    Labelled: the largest of `SHARES` at which at most `target` of the drawn negatives are hidden positives, or the
    smallest of them if none is that good. At most `queries` queries are looked at, those with several positives first.

    Raises:
        InputError: no query has a positive in the collection, or `target` is not a share.
    """
    if not 0 <= target <= 1 or queries < 1:
        raise InputError(f"target is {target} and queries {queries}, expected a share and at least 1")
    settings = replace(settings or MiningSettings(), max_share=None, margin=None, several="min")
    positives = positives_by_query(labels)
    several = {query: weights for query, weights in positives.items() if len(weights) > 1}
    labelled = len(several) >= ENOUGH_QUERIES
    chosen = dict(islice((several if labelled else positives).items(), queries))
    cases = list(_cases(Miner(collection, encoder, settings), chosen, progress))
    if not cases:
        raise InputError(f"none of the {len(positives)} labelled queries has a positive in {collection.name!r}")
    if not labelled:
        return Calibration(_by_distribution(cases, settings), "distribution", len(cases))
    trials = tuple(_trial(cases, replace(settings, max_share=share)) for share in SHARES)
    good = [trial for trial in trials if trial.false_negatives <= target]
    best = max(good, key=lambda trial: trial.max_share) if good else min(trials, key=lambda trial: trial.max_share)
    return Calibration(replace(settings, max_share=best.max_share), "labelled", len(cases), trials)


def _cases(miner: Miner, positives: Mapping[str, Mapping[str, float]], progress: Progress | None) -> Iterator[Draft]:
    queries = iter(positives.items())
    while batch := dict(islice(queries, miner.settings.batch_size)):
        yield from miner.drafts(batch)
        if progress is not None:
            progress(len(batch))


def _trial(cases: Sequence[Draft], settings: MiningSettings) -> Trial:
    drawn = hidden_drawn = candidates = discarded = filled = examples = 0
    for case in cases:
        for index, passage in enumerate(case.positives):
            if len(case.positives) < 2:
                continue
            known = _alone(case, index)
            left, removed = eligible(case.candidates, known, known, settings)
            taken = drawing_order(case.candidates, left, settings, case.query)[: settings.negatives]
            hidden = {other.point_id for other in case.positives} - {passage.point_id}
            hidden_drawn += sum(case.candidates.points[each] in hidden for each in taken)
            drawn += len(taken)
            examples += 1
            filled += len(taken) == settings.negatives
            candidates += removed["candidates"]
            discarded += removed["close_to_positive"]
    return Trial(
        settings.max_share or 1.0,
        hidden_drawn / max(drawn, 1),
        discarded / max(candidates, 1),
        filled / max(examples, 1),
    )


def _alone(case: Draft, index: int) -> Positives:
    passage: StoredPassage = case.positives[index]
    return Positives([passage.point_id], np.array([case.positive_scores[index]], dtype=np.float32))


def _by_distribution(cases: Sequence[Draft], settings: MiningSettings) -> MiningSettings:
    """A margin of a tenth of how far positives typically stand out from the last candidates."""
    distances = [
        score - float(np.median(case.candidates.scores[len(case.candidates.scores) // 2 :]))
        for case in cases
        for score in case.positive_scores
        if len(case.candidates.scores)
    ]
    return replace(settings, margin=round(max(0.0, STANDING_OUT * float(np.median(distances or [0.0]))), 4))
