"""Labels, a collection and its encoder -> how close to the positive a negative may score.

The right limit differs from model to model: a share of 0.95 that suits one encoder discards most candidates of another
whose scores all lie close together. There are two ways to pick it from data, and the result says which was taken:

- *labelled*: queries with several positives hide all but one, and the largest share is taken at which few enough of
  the hidden ones come out as negatives, and enough negatives are left: a share that draws nothing spares every answer.
  Where the depth and the sampling of the settings reach neither, sampling at random and looking four times as deep are
  tried too. The rate is a lower bound: answers without a label are not seen.
- *distribution*, when too few queries have several positives: a margin relative to how far positives stand out. It is
  a tenth of the median distance between a positive's score and those of the last candidates looked at.

Guarantees: nothing is embedded but the queries; deterministic. Does not know: how the mined examples train.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import mismatch
from qdrant_tools.errors import InputError
from qdrant_tools.mining.miner import MinedQuery, Miner, positives_by_query
from qdrant_tools.mining.rules import MiningSettings, Positives, Sampling, eligible, sampling_order
from qdrant_tools.records import Encoder, Label, Progress

SHARES = (1.0, 0.98, 0.95, 0.92, 0.9, 0.87, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
"""The values of `max_share` that are tried."""
ENOUGH_QUERIES = 30
"""With at least so many queries that have several positives, the labels decide."""
STANDING_OUT = 0.1
"""The margin, as a share of how far positives stand out."""
LEAST_DRAWN = 0.5
"""The share of the negatives asked for that an example must get in the mean."""
DEEPER = 4


@dataclass(frozen=True)
class ShareTrial:
    """What a value of `max_share` would do, at a depth and with a sampling. Shares: `false_negatives` of the sampled
    negatives, those that are hidden positives; `discarded` of the candidates, those removed as too close; `filled` of
    the examples, those with all their negatives. `negatives` are drawn per example in the mean."""

    max_share: float
    false_negatives: float
    discarded: float
    filled: float
    negatives: float
    depth: int
    sampling: Sampling


@dataclass(frozen=True)
class Calibration:
    """The settings to mine with, and what they rest on. There are `trials`, one of them `chosen`, with the method
    "labelled" only; `reaches` says whether the chosen one spares and draws as much as was asked for."""

    settings: MiningSettings
    method: Literal["labelled", "distribution"]
    queries: int
    trials: tuple[ShareTrial, ...] = ()
    chosen: ShareTrial | None = None
    reaches: bool = True

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

    Labelled: the largest of `SHARES` at which at most `target` of the sampled negatives are hidden positives, and at
    least half of the negatives asked for are drawn. If there is none, sampling at random is tried, then `DEEPER` times
    the depth, then both; if there is none even so, the one that hides fewest answers among those that draw enough, or
    the one that draws most if none does. At most `queries` queries are looked at, those with several positives first.

    Raises:
        InputError: no query has a positive in the collection, or `target` is not a share.
    """
    if not 0 <= target <= 1 or queries < 1:
        raise InputError(f"target is {target} and queries {queries}, expected a share and at least 1")
    # neither limit of the caller: what is picked is measured alone, and holds alone
    settings = replace(settings or MiningSettings(), max_share=None, margin=None, several="min")
    positives = positives_by_query(labels)
    several = {query: weights for query, weights in positives.items() if len(weights) > 1}
    labelled = len(several) >= ENOUGH_QUERIES
    chosen = dict(islice((several if labelled else positives).items(), queries))
    # found once; each trial looks at as many of the candidates as its depth says
    miner = Miner(collection, encoder, replace(settings, depth=DEEPER * settings.depth) if labelled else settings)
    mined = list(_mined_queries(miner, chosen, progress))
    if not mined:
        where = f"none of the {len(positives)} labelled queries has a positive in {collection.name!r}"
        raise InputError(f"{where}: {mismatch(collection, miner.unknown)}" if miner.unknown else where)
    if not labelled:
        return Calibration(_by_distribution(mined, settings), "distribution", len(mined))
    trials: list[ShareTrial] = []
    for one in _ways(settings):
        trials += (_trial(mined, replace(one, max_share=share)) for share in SHARES)
        if good := [trial for trial in trials if _spares(trial, settings, target)]:
            break
    best = good[0] if good else min(trials, key=partial(_shortcomings, settings=settings))
    found = replace(settings, max_share=best.max_share, depth=best.depth, sampling=best.sampling)
    return Calibration(found, "labelled", len(mined), tuple(trials), best, bool(good))


def _ways(settings: MiningSettings) -> list[MiningSettings]:
    """The settings as they are, then drawn at random, then from deeper, then both: what is changed last costs most."""
    sampled = dict.fromkeys((settings.sampling, "random"))
    return [
        replace(settings, depth=depth, sampling=sampling)
        for depth in (settings.depth, DEEPER * settings.depth)
        for sampling in sampled
    ]


def _draws(trial: ShareTrial, settings: MiningSettings) -> bool:
    return trial.negatives >= LEAST_DRAWN * settings.negatives


def _shortcomings(trial: ShareTrial, settings: MiningSettings) -> tuple[float, float]:
    """Less of these is better: negatives that lack of those that an example must get, answers among the others."""
    return max(0.0, LEAST_DRAWN * settings.negatives - trial.negatives), trial.false_negatives


def _spares(trial: ShareTrial, settings: MiningSettings, target: float) -> bool:
    return trial.false_negatives <= target and _draws(trial, settings)


def _mined_queries(
    miner: Miner, positives: Mapping[str, Mapping[str, float]], progress: Progress | None
) -> Iterator[MinedQuery]:
    queries = iter(positives.items())
    while batch := dict(islice(queries, miner.settings.batch_size)):
        yield from miner.mined_queries(batch)
        if progress is not None:
            progress(len(batch))


def _trial(mined: Sequence[MinedQuery], settings: MiningSettings) -> ShareTrial:
    """Take each positive of each query in turn as the only known one."""
    sampled = hidden = candidates = discarded = filled = examples = 0
    for query in mined:
        if len(query.positives) < 2:
            continue
        for passage, score in zip(query.positives, query.positive_scores, strict=True):
            # the other positives count as unlabelled: a rule that keeps them out would keep out unknown answers too
            known = Positives([passage.point_id], np.array([score], dtype=np.float32))
            remaining, removed = eligible(query.candidates, known, known, settings)
            order = sampling_order(query.candidates, remaining, settings, query.query)
            negatives = [query.candidates.points[index] for index in order[: settings.negatives]]
            others = {other.point_id for other in query.positives} - {passage.point_id}
            hidden += sum(point in others for point in negatives)
            sampled += len(negatives)
            examples += 1
            filled += len(negatives) == settings.negatives
            candidates += removed["candidates"]
            discarded += removed["close_to_positive"]
    return ShareTrial(
        max_share=settings.max_share or 1.0,
        false_negatives=hidden / max(sampled, 1),
        discarded=discarded / max(candidates, 1),
        filled=filled / max(examples, 1),
        negatives=sampled / max(examples, 1),
        depth=settings.depth,
        sampling=settings.sampling,
    )


def _by_distribution(mined: Sequence[MinedQuery], settings: MiningSettings) -> MiningSettings:
    # the second half of the candidates stands for passages that are no answers
    distances = [
        score - float(np.median(query.candidates.scores[len(query.candidates.scores) // 2 :]))
        for query in mined
        for score in query.positive_scores
        if len(query.candidates.scores)
    ]
    return replace(settings, margin=round(max(0.0, STANDING_OUT * float(np.median(distances or [0.0]))), 4))
