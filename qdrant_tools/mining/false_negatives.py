"""Mined examples -> how many of their negatives are answers after all.

Three sources may say so: judgements from elsewhere, a judge, or a person who filled in a sample sheet.

Guarantees: streams the examples; without a source, nothing is called wrong; every rate has a 95 % interval.
Does not know: how the examples were mined, apart from what the run has counted.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError, brief
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.written import errors_of_writing, written_whole
from qdrant_tools.mining.miner import RULES, MiningStats
from qdrant_tools.mining.rules import Judge
from qdrant_tools.records import Example, Label, ScoredText
from qdrant_tools.same import id_key, query_key
from qdrant_tools.statistics import wilson

JUDGED_AT_ONCE = 256
SHEET_COLUMNS = ("query", "passage_id", "score", "positive", "passage", "relevant")


@dataclass(frozen=True)
class FalseNegatives:
    """How many of the negatives that a source looked at are relevant, with the 95 % Wilson interval of that rate.

    `of_all` is the relevant share of all `negatives`, looked at or not. With `only_positives` the judgements name no
    passage that is irrelevant, like most qrels: all that they looked at is relevant by definition. Then `rate` is
    `of_all`, a lower bound, and the true rate may be anything from there (`low`) to 1 (`high`).
    """

    source: str
    looked_at: int
    relevant: int
    rate: float
    low: float
    high: float
    of_all: float
    negatives: int = 0
    only_positives: bool = False

    @property
    def sentence(self) -> str:
        """The finding in words."""
        interval = f"95 % interval {self.low:.1%} to {self.high:.1%}"
        if self.only_positives:
            return (
                f"at least {self.relevant:,} of {self.negatives:,} negatives ({self.of_all:.1%}) are answers by "
                f"{self.source}, which name relevant passages only"
            )
        if not self.looked_at:
            return f"none of the {self.negatives:,} negatives was looked at by {self.source}"
        return (
            f"{self.relevant:,} of {self.looked_at:,} negatives are answers by {self.source} ({self.rate:.1%}, "
            f"{interval})"
        )


@dataclass(frozen=True)
class Audit:
    """The findings.

    `without_negatives` counts the examples that the rules left none; with `stats`, also those that were left out for
    it. `negatives_per_example` is number of negatives -> number of examples. `removed` and `removed_share` say what
    each rule took of all candidates; `histograms` are those of `MiningStats`. These three are empty without `stats`.
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
    stats: MiningStats | None = None,
) -> Audit:
    """Look at mined examples.

    `judgements` are labels from elsewhere, such as qrels: a pair with a weight above 0 is relevant, another one is
    not, and pairs without a label are not counted. `judge` scores every negative. `sheet` is a file that
    `write_sheet` made and a person filled in. `stats` are those of the run that mined the examples.
    """
    judged: dict[tuple[str, str], bool] = {}
    for label in judgements or ():
        pair = query_key(label.query), id_key(label.passage_id)
        # of two judgements under two spellings the one that finds an answer holds, as in `positives_by_query`
        judged[pair] = judged.get(pair, False) or label.weight > 0
    per_example: Counter[int] = Counter()
    queries: set[bytes] = set()
    passages: set[bytes] = set()
    by_judgements: Counter[bool] = Counter()
    by_judge: Counter[bool] = Counter()
    stream = iter(examples)
    while batch := list(islice(stream, JUDGED_AT_ONCE)):
        for example in batch:
            per_example[len(example.negatives)] += 1
            # digests, so that memory does not grow with the texts
            queries.add(_digest(query_key(example.query)))
            passages.update(_digest(negative.id) for negative in example.negatives)
        pairs = [(example.query, negative) for example in batch for negative in example.negatives]
        if judged:
            keys = ((query_key(query), id_key(negative.id)) for query, negative in pairs)
            by_judgements.update(judged[key] for key in keys if key in judged)
        if judge is not None:
            by_judge.update(judge.verdicts([(query, negative.text) for query, negative in pairs]))
    negatives = sum(number * count for number, count in per_example.items())
    findings = []
    if judgements is not None:
        finding = false_negative_rate(by_judgements, source="judgements", negatives=negatives)
        # of all judgements, not of those that were met: ten irrelevant passages elsewhere say that pairs were judged
        findings.append(_lower_bound(finding) if judged and all(judged.values()) else finding)
    if judge is not None:
        findings.append(false_negative_rate(by_judge, source="judge", negatives=negatives))
    if sheet is not None:
        # A sheet is a sample: its rate is the estimate, and the rest was never to be looked at.
        verdicts = read_sheet(sheet)
        findings.append(false_negative_rate(verdicts, source="sheet", negatives=len(verdicts)))
    counts = Counter[str]() if stats is None else stats.counts
    candidates = counts["known_positive"] + counts["candidates"]
    removed = {rule: counts[rule] for rule in RULES if counts[rule]}
    histograms = {} if stats is None else stats.histograms
    return Audit(
        examples=per_example.total(),
        queries=len(queries),
        negatives=negatives,
        distinct_negatives=len(passages),
        without_negatives=per_example[0] if stats is None else counts["no_negatives"],
        negatives_per_example=dict(sorted((number, count) for number, count in per_example.items() if count)),
        false_negatives=tuple(findings),
        removed=removed,
        removed_share={rule: count / candidates for rule, count in removed.items()},
        histograms={name: dict(sorted(histogram.items())) for name, histogram in histograms.items()},
    )


def false_negative_rate(verdicts: Sequence[bool] | Counter[bool], *, source: str, negatives: int) -> FalseNegatives:
    """The share of relevant ones and its Wilson interval; `negatives` is how many there are in all."""
    counts = Counter(verdicts)
    looked_at, relevant = counts.total(), counts[True]
    if looked_at == 0:
        return FalseNegatives(source, 0, 0, 0.0, 0.0, 1.0, 0.0, negatives)
    low, high = wilson(relevant, looked_at)
    of_all = relevant / max(negatives, looked_at)
    return FalseNegatives(source, looked_at, relevant, relevant / looked_at, low, high, of_all, negatives)


def _lower_bound(finding: FalseNegatives) -> FalseNegatives:
    """The finding of judgements that name relevant passages only."""
    return replace(finding, rate=finding.of_all, low=finding.of_all, high=1.0, only_positives=True)


def write_sheet(
    examples: Iterable[Example], path: str | Path, *, size: int = 100, seed: int = 0, overwrite: bool = True
) -> int:
    """Write a random sample of the negatives as CSV, for a person to fill in the last column (1 relevant, 0 not).

    The sample is the same for a seed, whatever the order of the examples; returns its size. A text that a spreadsheet
    would compute begins with an apostrophe, see `inert`.

    Raises:
        UsageError: it cannot be written, or is there and not to be replaced.
    """
    # by the hash alone: examples cannot be compared with each other where two hashes are equal
    sample = heapq.nsmallest(size, _hashed_negatives(examples, seed), key=lambda entry: entry[0])
    with errors_of_writing(path), written_whole(path, overwrite=overwrite) as draft, draft.open("wb") as file:
        file.write(f"{','.join(SHEET_COLUMNS)}\r\n".encode())
        for _, example, negative in sample:
            positive = example.positives[0].text if example.positives else ""
            query, name, positive, text = map(cell, (example.query, negative.id, positive, negative.text))
            line = f"{query},{name},{negative.score},{positive},{text},\r\n"
            file.write(line.encode("utf-8", "backslashreplace"))  # what is no Unicode as escapes
    return len(sample)


def cell(text: str) -> str:
    """A text as the cell of a sheet for people."""
    # always in quotes: where columns are separated by semicolons, none may be found in a text; no table holds a NUL
    return '"' + inert(text.replace("\0", "\u2400")).replace('"', '""') + '"'


def inert(text: str) -> str:
    """A text that no spreadsheet computes: one that begins like a formula gets an apostrophe, which shows it as text.

    No two texts become the same cell: where a cell begins with an apostrophe and is a formula behind it, the text is
    what stands behind it.
    """
    return f"'{text}" if _FORMULA.match(text) else text


# tabs and line ends begin new cells where a sheet is pasted; the other signs are those of full width
_FORMULA = re.compile(r"[\s'\"\x00-\x1f\u200b-\u200f\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\u2212\t\r\n|%]")


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
            raise InputError(f"{row.where}: relevant is {brief(row.values.get('relevant'))}, expected 0, 1 or nothing")
        if verdict:
            verdicts.append(verdict == "1")
    return verdicts


def _hashed_negatives(examples: Iterable[Example], seed: int) -> Iterator[tuple[bytes, Example, ScoredText]]:
    """Every negative with a hash of its query and its id: the smallest hashes are a random sample, in any order."""
    for example in examples:
        for negative in example.negatives:
            yield _digest(f"{seed}\0{example.query}\0{negative.id}"), example, negative


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
