"""Judgements of a file, when all of them are read -> `TrainingData`: what the values of their column mean.

Guarantees: two judgements of one pair that differ are refused with both lines; a scale of which nobody said from where
on it is a yes stays a scale. Does not know: fields, formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.training.data.fields import as_number
from llama_index_embed_plus.training.data.records import JudgedPair, Kind, ScoredPair, TrainingData, passage_of
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.errors import listed as shortlist
from qdrant_tools.files.rows import Row
from qdrant_tools.records import Example, ScoredText
from qdrant_tools.same import SameTexts, query_key

NLI = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": -1}


@dataclass(frozen=True)
class Judged:
    """A judgement as it was read; what its value means is known when all are."""

    first: str
    second: ScoredText
    value: str | float | None
    line: int


class Judgements:
    """What is known of the judgements of one file: the fields that judge, and what the caller said of their scale."""

    def __init__(
        self, file: Path, kind: Kind | None, score_range: tuple[float, float] | None, relevant_from: float | None
    ) -> None:
        self.file, self.kind = file, kind
        self.score_range, self.relevant_from = score_range, relevant_from
        self.judged_by: dict[str, None] = {}
        self.is_premise = self.in_words = False

    def sentences(self, rows: Sequence[Judged]) -> TrainingData:
        """Pairs of sentences, when it is known whether their labels are those of inference or scores."""
        words = any(isinstance(row.value, str) and row.value in NLI and row.value != "-" for row in rows)
        if self.kind == "nli" or (self.kind is None and (self.is_premise or words)):
            labels = [self._at(row, _nli_label, row.value) for row in rows]
            numbers = {row.value for row in rows if row.value not in NLI and row.value is not None} - {"-1"}
            if self.kind is None and numbers and "2" not in numbers and not words:
                raise InputError(
                    f"{self.file}: the labels are {shortlist(sorted(map(str, numbers)))}, and none is 2: which one "
                    "says entailment cannot be told; write words, or say kind='nli' if it is 0"
                )
            return _nli_examples([(row.first, row.second.text, label) for row, label in zip(rows, labels)])
        scored = [
            ScoredPair(row.first, row.second.text, self._at(row, self._score, row.value))
            for row in rows
            if row.value is not None and row.value != "-"
        ]
        if not scored:
            raise InputError(f"{self.file}: none of the {len(rows)} rows has a score")
        return TrainingData("scored pairs", tuple(scored), left_out=len(rows) - len(scored))

    def _at(self, row: Judged, make: Callable[[Any], Any], value: Any) -> Any:
        return Row({}, self.file, row.line).parse(lambda _: make(value))

    def _score(self, value: Any) -> float:
        score = as_number(value, next(iter(self.judged_by), "score"))
        if self.score_range is None:
            return score
        low, high = self.score_range
        if not low <= score <= high:
            raise InputError(f"the score {score} is outside of {low} .. {high}")
        return (score - low) / (high - low)

    def pairs(self, rows: Sequence[Judged]) -> TrainingData:
        """Judged pairs, when their scale is known: examples, or pairs with scores."""
        pairs: SameTexts[Judged] = SameTexts()
        judged: list[Judged] = []
        for row in rows:
            if row.value is None:
                continue
            earlier = pairs.setdefault(query_key(row.first), row.second.text, row)
            if earlier is row:
                judged.append(row)
            elif earlier.value != row.value and self._differ(earlier, row):
                raise InputError(
                    f"{self.file}:{row.line}: the query {brief(row.first)} and the passage {brief(row.second.text)} "
                    f"are judged {_plain(row.value)} here and {_plain(earlier.value)} in line {earlier.line}: keep one"
                )
        self._check_ids(judged)
        name = shortlist(f"`{each}`" for each in self.judged_by)
        values = sorted({float(row.value) for row in judged if row.value is not None})
        if not values:
            raise InputError(
                f"{self.file}: none of the {len(rows)} rows is judged: {name} is empty; if that means "
                "nothing, ignore it (--ignore)"
            )
        if self.in_words and not set(values) <= {0.0, 1.0}:
            other = values[-1] if values[-1] > 1 else values[0]
            raise InputError(
                f"{self.file}: {name} says yes or no in some rows, and {_plain(other)}"
                " in others: which grade a yes is cannot be told; write numbers throughout"
            )
        threshold = self._threshold(values, name)
        judged_by = f"{name} of {self.file.name}"
        if threshold is None:
            scored = [JudgedPair(row.first, row.second, self._at(row, self._score, row.value)) for row in judged]
            return TrainingData("judged pairs", tuple(scored), len(rows) - len(scored), judged_by=judged_by)
        for row in judged:
            self._at(row, self._score, row.value)  # raises beyond the range that was told
        examples = _judged_examples(judged, threshold)
        if not examples:
            raise InputError(
                f"{self.file}: no query has a passage whose {name} is {_plain(threshold)} or more, the highest is "
                f"{_plain(values[-1])}: nothing answers anything"
            )
        used = sum(len(example.positives) + len(example.negatives) for example in examples)
        return TrainingData("judged pairs", tuple(examples), len(rows) - used, judged_by=judged_by)

    def _differ(self, one: Judged, other: Judged) -> bool:
        """Whether two judgements of one pair contradict each other; on one side of the threshold they do not."""
        threshold = self.relevant_from
        if threshold is None or one.value is None or other.value is None:
            return True
        return (float(one.value) >= threshold) != (float(other.value) >= threshold)

    def _threshold(self, values: Sequence[float], name: str) -> float | None:
        """From which value on a passage is a positive; None where nobody said it and the scale does not."""
        lowest, told = values[0], self.relevant_from
        if told is not None:
            if told <= 0 <= lowest:
                raise UsageError(
                    f"relevant_from is {_plain(told)}, and {name} of {self.file} begins at {_plain(lowest)}: a row "
                    "judged 0 would be a positive; say a number above 0"
                )
            return told
        if set(values) <= {0.0, 1.0} or set(values) <= {-1.0, 1.0}:
            return 1.0
        return None

    def _check_ids(self, rows: Iterable[Judged]) -> None:
        seen: dict[str, Judged] = {}
        for row in rows:
            earlier = seen.setdefault(row.second.id, row)
            if earlier.second.text != row.second.text and earlier.second.text.split() != row.second.text.split():
                raise InputError(
                    f"{self.file}:{row.line}: the passage id {brief(row.second.id)} has another text in line "
                    f"{earlier.line}: give every passage its own id, or name that field in ignore (--ignore)"
                )


def _judged_examples(rows: Iterable[Judged], threshold: float) -> list[Example]:
    """One example for each query that has a positive; its spelling is that of its first row."""
    by_query: dict[str, tuple[str, list[ScoredText], list[ScoredText]]] = {}
    for row in rows:
        if row.value is not None:
            _, positives, negatives = by_query.setdefault(query_key(row.first), (row.first, [], []))
            (positives if float(row.value) >= threshold else negatives).append(row.second)
    return [
        Example(query, tuple(positives), tuple(negatives))
        for query, positives, negatives in by_query.values()
        if positives
    ]


def _nli_examples(rows: Sequence[tuple[str, str, int]]) -> TrainingData:
    by_premise: dict[str, dict[int, dict[str, ScoredText]]] = {}
    for premise, hypothesis, label in rows:
        by_premise.setdefault(premise, {0: {}, 1: {}, 2: {}, -1: {}})[label][hypothesis] = passage_of(hypothesis)
    examples = tuple(
        Example(premise, tuple(by_label[0].values()), tuple(by_label[2].values()))
        for premise, by_label in by_premise.items()
        if by_label[0]
    )
    # a row that repeats another counts as left out
    used = sum(len(example.positives) + len(example.negatives) for example in examples)
    return TrainingData("nli", examples, left_out=len(rows) - used)


def _nli_label(value: Any) -> int:
    label = -1 if value is None else NLI.get(value, value)
    number = str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
    number = number.removesuffix(".0")
    if number not in ("-1", "0", "1", "2"):
        raise InputError(f"the label is {brief(value)}, expected one of {', '.join(NLI)}, or 0, 1, 2, -1")
    return int(number)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else brief(value)
