"""Mined examples -> how good their negatives are.

Guarantees: streams the examples; nothing is called wrong without a source: judgements, a judge, or a person who filled
in a sample sheet. Does not know: how the examples were mined, apart from the account that the run kept.

How close to the positive may a negative score? Picked from data, because it differs from model to model.

A share of 0.95 that suits one encoder discards most candidates of another whose scores all lie close together. Two
ways to pick, told apart in the result:

- *labelled*: queries with several positives hide all but one, and the strictest share is found at which few enough of
  the hidden ones come out as negatives. It is a lower bound: unlabelled answers are not seen.
- *distribution*, when too few queries have several positives: a margin relative to how far positives stand out, that is
  a tenth of the median distance between a positive's score and those of the last candidates looked at.

Guarantees: nothing is embedded but the queries; deterministic. Does not know: how the mined examples train.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qdrant_tools.collections.collection import Collection, StoredPassage
from qdrant_tools.errors import InputError
from qdrant_tools.files import read_rows
from qdrant_tools.metrics import wilson
from qdrant_tools.mining.miner import REMOVED, Draft, Miner, Tally, judged_scores, positives_by_query
from qdrant_tools.mining.rules import Judge, MiningSettings, Positives, drawing_order, eligible
from qdrant_tools.records import Encoder, Example, Label, Progress, ScoredText

JUDGED_AT_ONCE = 256
SHEET_COLUMNS = ("query", "passage_id", "score", "positive", "passage", "relevant")


@dataclass(frozen=True)
class FalseNegatives:
    """How many of the negatives that somebody looked at are relevant, with the 95 % Wilson interval of that rate.

    `of_all` is the relevant share of all negatives, looked at or not. It is the figure to read where judgements, like
    most qrels, list little but relevant passages: a lower bound.
    """

    source: str
    looked_at: int
    relevant: int
    rate: float
    low: float
    high: float
    of_all: float


@dataclass(frozen=True)
class Audit:
    """The findings.

    `without_negatives` counts the examples that the rules left none, with a tally also those that were left out for it.
    `negatives_per_example` is number of negatives -> number of examples; `removed` and `removed_share` say what each
    rule took of all candidates; `histograms` are those of `Tally`. The last three are empty without a tally.
    """

    examples: int
    queries: int
    negatives: int
    distinct_negatives: int
    without_negatives: int
    negatives_per_example: Mapping[int, int]
    false_negatives: tuple[FalseNegatives, ...]
    removed: Mapping[str, int]
    removed_share: Mapping[str, float]
    histograms: Mapping[str, Mapping[int, int]]

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def audit(
    examples: Iterable[Example],
    *,
    judgements: Iterable[Label] | None = None,
    judge: Judge | None = None,
    sheet: str | Path | None = None,
    tally: Tally | None = None,
) -> Audit:
    """Look at mined examples.

    `judgements` are labels from elsewhere, such as qrels: a pair with a weight above 0 is relevant, another one is
    not, and pairs without a label are not counted. `judge` scores every negative. `sheet` is a file that
    `write_sheet` made and a person filled in.
    """
    known = None if judgements is None else {(label.query, label.passage_id): label.weight > 0 for label in judgements}
    per_example: Counter[int] = Counter()
    queries: set[bytes] = set()
    passages: set[bytes] = set()
    verdicts: list[bool] = []
    judged: Counter[bool] = Counter()
    stream = iter(examples)
    while batch := list(islice(stream, JUDGED_AT_ONCE)):
        for example in batch:
            per_example[len(example.negatives)] += 1
            queries.add(_digest(example.query))
            passages.update(_digest(negative.id) for negative in example.negatives)
            if known is not None:
                verdicts += [known[example.query, n.id] for n in example.negatives if (example.query, n.id) in known]
        if judge is not None:
            pairs = [(example.query, negative.text) for example in batch for negative in example.negatives]
            judged.update(score >= judge.threshold for score in judged_scores(judge, pairs))
    counts = Tally().counts if tally is None else tally.counts
    candidates = counts["known_positive"] + counts["candidates"]
    removed = {rule: counts[rule] for rule in REMOVED if counts[rule]}
    negatives = sum(number * count for number, count in per_example.items())
    return Audit(
        examples=per_example.total(),
        queries=len(queries),
        negatives=negatives,
        distinct_negatives=len(passages),
        without_negatives=per_example[0] if tally is None else counts["no_negatives"],
        negatives_per_example=dict(sorted((number, count) for number, count in per_example.items() if count)),
        false_negatives=tuple(
            _findings(None if known is None else verdicts, judged if judge else None, sheet, negatives)
        ),
        removed=removed,
        removed_share={rule: count / candidates for rule, count in removed.items()},
        histograms={} if tally is None else {name: dict(sorted(its.items())) for name, its in tally.histograms.items()},
    )


def write_sheet(examples: Iterable[Example], path: str | Path, *, size: int = 100, seed: int = 0) -> int:
    """Write a random sample of the negatives as CSV, for a person to fill in the last column (1 relevant, 0 not).

    The sample is the same for a seed, whatever the order of the examples; returns its size.
    """
    chosen = heapq.nsmallest(size, _numbered(examples, seed), key=lambda entry: entry[0])
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(SHEET_COLUMNS)
        for _, example, negative in chosen:
            positive = example.positives[0].text if example.positives else ""
            writer.writerow([example.query, negative.id, negative.score, positive, negative.text, ""])
    return len(chosen)


def read_sheet(path: str | Path) -> list[bool]:
    """What a person wrote into a sheet; empty rows are left out.

    Raises:
        InputError: not a sheet, or a verdict other than 0 and 1.
    """
    verdicts = []
    # spreadsheets leave out the empty cells at the end of a row
    for row in read_rows(path, pad=True):
        verdict = str(row.values.get("relevant", "no column")).strip()
        if verdict not in ("", "0", "1"):
            raise InputError(f"{row.where}: relevant is {row.values.get('relevant')!r}, expected 0, 1 or nothing")
        if verdict:
            verdicts.append(verdict == "1")
    return verdicts


def rate_of(verdicts: Sequence[bool] | Counter[bool], *, source: str, negatives: int) -> FalseNegatives:
    """The share of relevant ones and its Wilson interval; `negatives` is how many there are in all."""
    counts = Counter(verdicts)
    n, relevant = counts.total(), counts[True]
    if n == 0:
        return FalseNegatives(source, 0, 0, 0.0, 0.0, 1.0, 0.0)
    return FalseNegatives(source, n, relevant, relevant / n, *wilson(relevant, n), relevant / max(negatives, n))


def _findings(
    verdicts: list[bool] | None, judged: Counter[bool] | None, sheet: str | Path | None, negatives: int
) -> Iterator[FalseNegatives]:
    if verdicts is not None:
        yield rate_of(verdicts, source="judgements", negatives=negatives)
    if judged is not None:
        yield rate_of(judged, source="judge", negatives=negatives)
    if sheet is not None:
        # A sheet is a sample: its rate is the estimate, and the rest was never to be looked at.
        found = read_sheet(sheet)
        yield rate_of(found, source="sheet", negatives=len(found))


def _numbered(examples: Iterable[Example], seed: int) -> Iterator[tuple[bytes, Example, ScoredText]]:
    for example in examples:
        for negative in example.negatives:
            yield _digest(f"{seed}\0{example.query}\0{negative.id}"), example, negative


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


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
