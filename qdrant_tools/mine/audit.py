"""Mined examples -> how good their negatives are.

Guarantees: streams the examples; nothing is called wrong without a source: judgements, a judge, or a person who filled
in a sample sheet. Does not know: how the examples were mined, apart from the account that the run kept.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError
from qdrant_tools.mine.miner import judged_scores
from qdrant_tools.mine.settings import Judge
from qdrant_tools.mine.tally import REMOVED, Tally
from qdrant_tools.proportions import wilson
from qdrant_tools.records import Example, Label, ScoredText

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
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the sheet {path}: {error}") from error
    verdicts = []
    for number, row in enumerate(rows, start=1):
        verdict = (row.get("relevant") or "").strip()
        if "relevant" not in row or verdict not in ("", "0", "1"):
            raise InputError(f"{path}, row {number}: relevant is {row.get('relevant')!r}, expected 0, 1 or nothing")
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
