"""A file of training rows -> `TrainingData`. JSONL, JSON, CSV and TSV with a header, or one text per line (.txt).

The fields of the first row say what a file holds::

    examples         query, positives, negatives, weight                    as mining writes them
    pairs            query, positive                                        also weight
    triplets         query, positive, negative (or negative_1, ...)         also weight
    distillation     the same with positive_score, negative_score (or negative_score_1, ...), or margin (margin_1, ...)
    nli              premise, hypothesis, label                             entailment, neutral, contradiction; 0, 1, 2
    scored pairs     sentence1, sentence2, score (or label)
    labelled texts   text, label
    texts            text

`query` may be called anchor or question, `positive` passage or answer, the two texts of a pair sentence_1 and
sentence_2, or text1 and text2. NLI: an entailment is a positive of its premise, a contradiction a hard negative; rows
without a gold label ("-", -1), neutral ones, and premises without an entailment are left out and counted. A JSON file
is a list of such rows, or LlamaIndex's `EmbeddingQAFinetuneDataset`. A TSV file knows no quotes.

Guarantees: every row is read or the file is refused, with its name and the line, before anything is trained; a refusal
takes little memory, whatever the file holds. Does not know: losses, models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from llama_index_embed_plus.training.data.formats import Asked, Format, format_of
from llama_index_embed_plus.training.data.records import (
    Distilled,
    Kind,
    LabelledText,
    ScoredPair,
    TrainingData,
    TrainingRow,
    passage_of,
)
from llama_index_embed_plus.training.data.sources import rows_of
from llama_index_embed_plus.training.limits import is_number
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.files import Row
from qdrant_tools.files import listed as shortlist
from qdrant_tools.records import Example, ScoredText
from qdrant_tools.validation import checked_text, number_in

Fields = Mapping[str, Any]

LONGEST_TEXT = 1_000_000
"""Characters of one text: a tokenizer takes some hundred bytes for each of its tokens, before it cuts."""


def value_of(fields: Fields, aliases: Sequence[str]) -> Any:
    """Return the value of the first of `aliases` that is there."""
    for name in aliases:
        if fields.get(name) is not None:
            return fields[name]
    raise InputError(f"has no field {aliases[0]!r}, only {listed(fields)}")


def text_of(fields: Fields, aliases: Sequence[str]) -> str:
    """Return the text of the first of `aliases` that is there."""
    return as_text(value_of(fields, aliases), aliases[0])


def numbered(fields: Fields, name: str, check: Callable[[Any, str], Any]) -> Iterator[Any]:
    """Yield `name`, or `name_1`, `name_2`, ... as long as there is a next one, each through `check`."""
    if fields.get(name) is not None:
        yield check(fields[name], name)
        return
    place = 1
    while fields.get(f"{name}_{place}") is not None:
        yield check(fields[f"{name}_{place}"], f"{name}_{place}")
        place += 1


def as_text(value: Any, name: str) -> str:
    """Return `value` if it is a text that says something, and that a tokenizer can read in moderate memory."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"the field {brief(name)} is {brief(value)}, expected a text")
    if len(value) > LONGEST_TEXT:
        raise InputError(f"the field {brief(name)} has {len(value):,} characters, expected at most {LONGEST_TEXT:,}")
    return checked_text(f"the field {brief(name)}", value)


def as_number(value: Any, name: str) -> float:
    """Return `value`, a number or the text of one, as a finite number."""
    number = number_in(value) if isinstance(value, str) else value
    if not is_number(number):
        raise InputError(f"the field {brief(name)} is {brief(value)}, expected a number")
    return float(number)


def as_weight(value: Any) -> float:
    """Return `value` as a number above 0."""
    weight = as_number(value, "weight")
    if weight <= 0:
        raise InputError(f"the weight is {weight}, expected a number above 0")
    return weight


def listed(fields: Fields) -> str:
    """Return the names of the fields, for a message."""
    return shortlist(map(str, fields)) if isinstance(fields, Mapping) else brief(fields)


_QUERY, _POSITIVE = ("query", "anchor", "question"), ("positive", "passage", "answer")
_FIRST = ("sentence1", "sentence_1", "text1", "text_1", "premise")
_SECOND = ("sentence2", "sentence_2", "text2", "text_2", "hypothesis")
_LABEL = ("label", "gold_label")
_NLI = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": -1}


def read_training_data(
    path: str | Path, *, kind: Kind | None = None, score_range: tuple[float, float] | None = None
) -> TrainingData:
    """Read the file `path`.

    kind: what it holds, where its fields do not tell. score_range: the lowest and highest score of scored pairs, which
    are then brought to 0 .. 1 (`(0, 5)` for STS).

    Raises:
        InputError: the file cannot be read, or a row is not what the first one promised.
        UsageError: an ending or a kind that is unknown.
    """
    file = Path(path)
    if kind is not None and kind not in get_args(Kind):
        raise UsageError(f"kind is {kind!r}, expected one of {', '.join(get_args(Kind))}")
    if score_range is not None and not (all(map(is_number, score_range)) and score_range[0] < score_range[1]):
        raise UsageError(f"score_range is {score_range}, expected the lowest and the highest score")
    return _Reader(file, kind, score_range).read(rows_of(file))


class _Reader:
    """Turns rows of fields into rows of one kind; every error names the line."""

    def __init__(self, file: Path, kind: Kind | None, score_range: tuple[float, float] | None) -> None:
        self.file, self.kind, self.score_range = file, kind, score_range
        self.classes: dict[str, int] = {}
        self.format: Format | None = None
        self.is_first = True

    def read(self, rows: Iterator[Row]) -> TrainingData:
        training_rows: list[Any] = [found for row in rows for found in row.parse(self._rows)]
        # the second half is for the type checker: the first row sets the kind
        if not training_rows or self.kind is None:
            raise InputError(f"{self.file} holds no rows")
        if self.kind == "nli":
            return _nli_examples(training_rows)
        return TrainingData(self.kind, tuple(training_rows))

    def _rows(self, fields: Fields) -> list[TrainingRow | tuple[str, str, int]]:
        """One row of the file: one of ours, or what its format makes of it."""
        form = format_of(fields) if isinstance(fields, Mapping) else None
        if self.is_first:
            self.format, self.is_first = form, False
        if form is not self.format:
            names = [found.name if found else "rows of our own names" for found in (form, self.format)]
            raise InputError(
                f"is of the format {names[0]}, the first row is of {names[1]}: give each a file of its own"
            )
        return [self._row(fields)] if form is None else [self._row(ours) for ours in form.rows(fields, Asked())]

    def _row(self, fields: Fields) -> TrainingRow | tuple[str, str, int]:
        self.kind = self.kind or kind_of(fields)  # the first row decides for all
        match self.kind:
            case "examples":
                return _example(fields)
            case "pairs" | "triplets":
                return self._ranked(fields)
            case "nli":
                return text_of(fields, _FIRST), text_of(fields, _SECOND), _nli_label(fields)
            case "scored pairs":
                return ScoredPair(text_of(fields, _FIRST), text_of(fields, _SECOND), self._score(fields))
            case "distillation":
                return _distilled(fields)
            case "labelled texts":
                # labels are words or numbers: their texts are numbered in the order in which they come
                label = self.classes.setdefault(str(_label(fields)), len(self.classes))
                return LabelledText(text_of(fields, ("text",)), label)
            case _:
                return text_of(fields, ("text",))

    def _ranked(self, fields: Fields) -> Example:
        negatives = tuple(passage_of(text) for text in numbered(fields, "negative", as_text))
        if self.kind == "triplets" and not negatives:
            raise InputError(f"has no field 'negative', only {listed(fields)}")
        positive = passage_of(text_of(fields, _POSITIVE))
        return Example(text_of(fields, _QUERY), (positive,), negatives, as_weight(fields.get("weight", 1.0)))

    def _score(self, fields: Fields) -> float:
        score = as_number(value_of(fields, ("score", *_LABEL)), "score")
        if self.score_range is None:
            return score
        low, high = self.score_range
        if not low <= score <= high:
            raise InputError(f"the score {score} is outside of {low} .. {high}")
        return (score - low) / (high - low)


def kind_of(fields: Fields) -> Kind:
    """Return what a row with these fields is. Raises InputError if nothing is made of them."""
    if not isinstance(fields, Mapping):
        raise InputError(f"is {brief(fields)}, expected an object with fields")
    has = {name for name in fields if fields[name] not in (None, "")}
    if "positives" in has:
        return "examples"
    if has & set(_QUERY) and has & set(_POSITIVE):
        if not any(name.startswith("negative") for name in has):
            return "pairs"
        taught = any(name.startswith(("margin", "negative_score")) for name in has)
        return "distillation" if taught else "triplets"
    if has & set(_FIRST) and has & set(_SECOND):
        named = next((str(_label(fields)).lower() for name in _LABEL if name in has), "")
        # a label 0, 1 or 2 is one of inference only beside a premise; else it is a score
        is_nli = named and ("premise" in has or named in _NLI)
        return "nli" if is_nli else "scored pairs"
    if "text" in has:
        return "labelled texts" if has & set(_LABEL) else "texts"
    raise InputError(f"has the fields {listed(fields)}: no kind of training row has these")


def _example(fields: Fields) -> Example:
    example = _checked(Example.from_row(fields))
    return replace(example, weight=as_weight(example.weight))


def _checked(example: Example) -> Example:
    as_text(example.query, "query")
    for passage in (*example.positives, *example.negatives):
        as_text(passage.text, "text")
        checked_text("the field 'id'", passage.id)
    return example


def _distilled(fields: Fields) -> Distilled:
    negatives = tuple(numbered(fields, "negative", as_text))
    margins = tuple(numbered(fields, "margin", as_number))
    if not margins:
        best = as_number(value_of(fields, ("positive_score",)), "positive_score")
        # a difference of two finite numbers may be none
        margins = tuple(as_number(best - score, "margin") for score in numbered(fields, "negative_score", as_number))
    if not negatives or len(margins) != len(negatives):
        raise InputError(f"has {len(negatives)} negatives and {len(margins)} scores of them")
    return Distilled(text_of(fields, _QUERY), text_of(fields, _POSITIVE), negatives, margins)


def _nli_label(fields: Fields) -> int:
    value = str(_label(fields)).strip().lower()
    label = _NLI.get(value, value)
    if label not in (-1, 0, 1, 2) and label not in ("-1", "0", "1", "2"):
        raise InputError(f"the label is {brief(value)}, expected one of {', '.join(_NLI)}, or 0, 1, 2, -1")
    return int(label)


def _label(fields: Fields) -> str | int | float:
    value = value_of(fields, _LABEL)
    if not isinstance(value, (str, int, float)):
        raise InputError(f"the label is {brief(value)}, expected a word or a number")
    return value


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
