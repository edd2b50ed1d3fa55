"""Training data and the name of a loss -> the columns that this loss reads, as sentence-transformers wants them.

Guarantees: data of a shape that the loss cannot use is refused with the shape that it wants, and so are weights that
the loss would not see and negatives that it would not use. Every (query, positive) of an example is one row, with as
many negatives as the example has, at most `negatives`. Rows with different numbers of negatives land in different data
sets: a column cannot be empty, and filling it at random would train on made-up judgements.
Does not know: models, files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from datasets import Dataset, DatasetDict

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.training.data import unsupervised
from llama_index_embed_plus.training.data.records import Distilled, JudgedPair, LabelledText, ScoredPair, TrainingData
from llama_index_embed_plus.training.losses.catalogue import LossSpec, loss_spec
from llama_index_embed_plus.training.trainer.batches import are_all_alike, rows_of
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Example
from qdrant_tools.same import query_key

Teacher = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""(query, passage) pairs -> their scores, such as `cross_encoder_judge(...).score`."""

_EXAMPLES_AT_ONCE = 64
_COMPARED = {"scored pairs": "similarity", "labelled pairs": "pair_classification", "labelled texts": "classification"}
"""Shapes of rows whose texts are compared with their like -> the task."""


@dataclass(frozen=True)
class ColumnSettings:
    """negatives: at most so many per row. teacher: scores examples for margin_mse. noise: how raw texts are damaged."""

    negatives: int = 3
    teacher: Teacher | None = None
    noise: unsupervised.NoiseSettings = unsupervised.NoiseSettings()

    def __post_init__(self) -> None:
        if self.negatives < 0:
            raise UsageError(f"negatives is {self.negatives}, expected 0 or more")


def datasets_for(loss: str, data: TrainingData, settings: ColumnSettings | None = None) -> DatasetDict:
    """Return the data sets that the loss `loss` is trained on: text columns in order, and `label` if it has one.

    Weights of examples, if they differ, are the column `label` of the losses that take them.

    Raises:
        UsageError: the loss wants another shape, takes no weights, or would not use some of what is there.
        TrainingError: nothing to train on, or nothing that the loss could tell apart.
    """
    spec, settings = loss_spec(loss), settings or ColumnSettings()
    if not len(data):
        raise TrainingError("there are no rows to train on")
    datasets = _MAKERS[spec.shape](spec, data, settings)
    if not any(map(len, datasets.values())):
        raise TrainingError(f"none of the {len(data)} examples has a positive: nothing to train on")
    if spec.in_batch:
        _check_contrast(loss, datasets, data)
    return datasets


def column_prompt(loss: str, column: str, spec: EncoderSpec) -> str:
    """Return what inference puts before the texts of a column, so that training puts the same before them.

    Texts that are compared with their like, such as both sides of a scored pair, get the prompt that the model has for
    that; see `EncoderSpec.compared`.
    """
    task = _COMPARED.get(loss_spec(loss).shape)
    if task is not None:
        return spec.compared_prompt(task)
    return spec.query_prompt if column == "anchor" else spec.passage_prompt


def _ranking(spec: LossSpec, data: TrainingData, settings: ColumnSettings) -> DatasetDict:
    examples = _examples(spec, data, "examples, pairs, triplets or nli")
    # these two losses refuse further columns themselves, but only when training has begun
    allowed = {"ntxent": 0, "guided": 1}.get(spec.name, settings.negatives)
    # what the examples have counts: asking for three is no harm where there are none
    used = min(settings.negatives, max((len(example.negatives) for example in examples), default=0))
    if used > allowed:
        instead = "or use cached_guided" if spec.name == "guided" else "or use multiple_negatives"
        raise UsageError(f"the loss {spec.name!r} takes at most {allowed} negatives per row: set negatives, {instead}")
    return _by_negatives(examples, negatives=settings.negatives, weights=_differ(examples))


def _by_negatives(examples: Iterable[Example], *, negatives: int, weights: bool) -> DatasetDict:
    """Data sets `negatives_N`: one row per (query, positive) with the first N negatives of its example.

    weights: also a column `label` with the examples' weights, which the ranking losses of `losses` read as such.
    """
    columns: dict[int, dict[str, list[str | float]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        chosen = example.negatives[:negatives]
        rows = columns[len(chosen)]
        for positive in example.positives:
            rows["anchor"].append(example.query)
            rows["positive"].append(positive.text)
            for i, negative in enumerate(chosen, start=1):
                rows[f"negative_{i}"].append(negative.text)
            if weights:
                rows["label"].append(example.weight)
    return DatasetDict({f"negatives_{n}": Dataset.from_dict(dict(rows)) for n, rows in sorted(columns.items())})


def _triplets(spec: LossSpec, data: TrainingData, settings: ColumnSettings) -> DatasetDict:
    examples = _all_with_negatives(spec, _examples(spec, data, "triplets, nli, or examples with negatives"))
    rows = [
        (example.query, positive.text, negative.text, example.weight)
        for example in examples
        for positive in example.positives
        for negative in example.negatives[: settings.negatives]
    ]
    names = ("anchor", "positive", "negative", *(("label",) if _differ(examples) else ()))
    return _one("triplets", names, rows)


def _labelled_pairs(spec: LossSpec, data: TrainingData, settings: ColumnSettings) -> DatasetDict:
    if data.kind == "scored pairs":
        pairs = _of(ScoredPair, data)
        if {pair.score for pair in pairs} <= {0.0, 1.0}:
            return _pairs(pairs)
        raise UsageError(f"the loss {spec.name!r} wants labels 0 or 1, the scores are others: use cosent")
    examples = _examples(spec, data, "scored pairs labelled 0 or 1, or examples")
    if data.kind == "judged pairs":
        return _judged(data)
    return _labelled(_all_with_negatives(spec, examples), negatives=settings.negatives)


def _judged(data: TrainingData) -> DatasetDict:
    """Every judgement of the file: its grade or score, or 1 and 0 where it is known which are answers."""
    if any(isinstance(row, JudgedPair) for row in data.rows):
        rows = [(pair.query, pair.passage.text, pair.score) for pair in _of(JudgedPair, data)]
        return _one("labelled_pairs", _LABELLED_PAIRS, rows)
    return _labelled(data.examples, negatives=None)


# other names than those of a scored pair: here the second text is a passage and not a query
_LABELLED_PAIRS = ("anchor", "passage", "label")


def _labelled(examples: Iterable[Example], *, negatives: int | None) -> DatasetDict:
    rows = [
        (example.query, text.text, label)
        for example in examples
        for texts, label in ((example.positives, 1.0), (example.negatives[:negatives], 0.0))
        for text in texts
    ]
    return _one("labelled_pairs", _LABELLED_PAIRS, rows)


def _scored_pairs(spec: LossSpec, data: TrainingData, settings: ColumnSettings) -> DatasetDict:
    if data.kind not in ("scored pairs", "judged pairs"):
        raise _another_shape(spec, data, "scored pairs or judged pairs")
    pairs = _of(ScoredPair, data)
    scores = [row.score for row in data.rows if isinstance(row, (ScoredPair, JudgedPair))] or [0.0, 1.0]
    if spec.name == "cosine_similarity" and not -1 <= min(scores) <= max(scores) <= 1:
        raise UsageError(
            f"cosine_similarity wants scores from -1 to 1, these are from {min(scores)} to {max(scores)}: read them "
            "with a score_range, or use cosent"
        )
    return _judged(data) if data.kind == "judged pairs" else _pairs(pairs)


def _distillation(spec: LossSpec, data: TrainingData, settings: ColumnSettings) -> DatasetDict:
    if data.kind == "distillation":
        rows = _of(Distilled, data)
    elif any(isinstance(row, JudgedPair) for row in data.rows):
        rows = _margins(_of(JudgedPair, data), negatives=settings.negatives)
    else:
        examples = _examples(spec, data, "distillation, or examples with negatives and a teacher")
        if settings.teacher is None:
            raise UsageError(
                f"the loss {spec.name!r} learns a teacher's scores, and these examples have none: name one"
            )
        rows = list(distil(_all_with_negatives(spec, examples), settings.teacher, negatives=settings.negatives))
    by_count: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_count.setdefault(len(row.negatives), []).append((row.query, row.positive, *row.negatives, list(row.margins)))
    return DatasetDict(
        {
            f"negatives_{n}": _columns(
                ("anchor", "positive", *(f"negative_{i}" for i in range(1, n + 1)), "label"), by_count[n]
            )
            for n in sorted(by_count)
        }
    )


def _margins(pairs: Iterable[JudgedPair], *, negatives: int) -> list[Distilled]:
    """For each query, the passages of the highest score before some of those below them, the nearest first."""
    by_query: dict[str, list[JudgedPair]] = {}
    for pair in pairs:
        by_query.setdefault(query_key(pair.query), []).append(pair)
    rows = []
    for judged in by_query.values():
        judged.sort(key=lambda pair: -pair.score)  # stable: equal scores stay in the order of the file
        best = judged[0].score
        below = [pair for pair in judged if pair.score < best][:negatives]
        texts, margins = tuple(pair.passage.text for pair in below), tuple(best - pair.score for pair in below)
        if below:
            rows += [Distilled(pair.query, pair.passage.text, texts, margins) for pair in judged if pair.score == best]
    if not rows:
        raise TrainingError("no query has passages of different scores: there is no margin to learn")
    return rows


def distil(examples: Sequence[Example], teacher: Teacher, *, negatives: int) -> Iterator[Distilled]:
    """Let the teacher score each (query, passage): one row per positive, with the margins of its negatives.

    Raises:
        TrainingError: the teacher gave another number of scores than there are pairs, or one that is no number.
    """
    for start in range(0, len(examples), _EXAMPLES_AT_ONCE):
        batch = [(example, example.negatives[:negatives]) for example in examples[start : start + _EXAMPLES_AT_ONCE]]
        pairs = [(e.query, text.text) for e, negatives_of_row in batch for text in (*e.positives, *negatives_of_row)]
        teacher_scores = [float(score) for score in teacher(pairs)]
        if len(teacher_scores) != len(pairs) or not all(map(math.isfinite, teacher_scores)):
            raise TrainingError(
                f"the teacher gave {len(teacher_scores)} scores for {len(pairs)} pairs, or some that are no numbers"
            )
        # taken in the order in which `pairs` was made
        scores = iter(teacher_scores)
        for example, negatives_of_row in batch:
            best = list(islice(scores, len(example.positives)))
            others = list(islice(scores, len(negatives_of_row)))
            for positive, score in zip(example.positives, best, strict=True):
                texts = tuple(negative.text for negative in negatives_of_row)
                yield Distilled(example.query, positive.text, texts, tuple(score - other for other in others))


def _labelled_texts(spec: LossSpec, data: TrainingData, settings: ColumnSettings) -> DatasetDict:
    if data.kind != "labelled texts":
        raise _another_shape(spec, data, "labelled texts")
    return _one("texts", ("text", "label"), [(row.text, row.label) for row in _of(LabelledText, data)])


def _texts(spec: LossSpec, data: TrainingData, settings: ColumnSettings) -> DatasetDict:
    if data.kind != "texts":
        raise _another_shape(spec, data, "texts")
    return DatasetDict({"texts": unsupervised.unsupervised_rows(spec.name, _of(str, data), settings.noise)})


_MAKERS: dict[str, Callable[[LossSpec, TrainingData, ColumnSettings], DatasetDict]] = {
    "ranking": _ranking,
    "triplets": _triplets,
    "labelled pairs": _labelled_pairs,
    "scored pairs": _scored_pairs,
    "distillation": _distillation,
    "labelled texts": _labelled_texts,
    "texts": _texts,
}


_KNOWN = "--examples EXAMPLES.jsonl --method lora --loss multiple_negatives"
"""Takes weights, and examples without negatives."""


def _examples(spec: LossSpec, data: TrainingData, wanted: str) -> Sequence[Example]:
    try:
        examples = data.examples
    except UsageError as error:
        if data.kind == "judged pairs":
            raise  # these are examples as soon as their grades are understood
        raise _another_shape(spec, data, wanted) from error
    if _differ(examples) and not spec.weighted:
        raise UsageError(f"the loss {spec.name!r} takes no weights, and these examples have some").with_way_out(
            python="use data.unweighted()", command=f"train COLLECTION {_KNOWN} --out OUT"
        )
    return examples


def _all_with_negatives(spec: LossSpec, examples: Sequence[Example]) -> Sequence[Example]:
    without = sum(not example.negatives for example in examples)
    if without:
        raise UsageError(
            f"{without} of {len(examples)} examples have no negatives, and the loss {spec.name!r} needs them"
        ).with_way_out(
            python="mine some, leave those out with data.with_negatives(), or use multiple_negatives",
            command=f"mine COLLECTION LOG --out EXAMPLES.jsonl, or embed-plus train COLLECTION {_KNOWN} --out OUT",
        )
    return examples


def _another_shape(spec: LossSpec, data: TrainingData, wanted: str) -> UsageError:
    return UsageError(f"the loss {spec.name!r} wants {wanted}, the data is {data.kind}")


def _check_contrast(loss: str, datasets: DatasetDict, data: TrainingData) -> None:
    """A batch of one row without negatives has the loss 0: refuse data that gives only such batches."""
    known, ids = data.positives_by_query(), data.passage_ids()
    for dataset in datasets.values():
        has_negatives = any(name.startswith("negative") for name in dataset.column_names)
        if has_negatives or not are_all_alike(rows_of(dataset, known=known, ids=ids)):
            return
    raise TrainingError(
        f"no two of the {sum(map(len, datasets.values()))} rows may share a batch, because all have one query or one "
        f"positive, and they have no negatives: the loss {loss!r} has nothing to tell apart; give others, or negatives"
    )


def _differ(examples: Iterable[Example]) -> bool:
    return len({example.weight for example in examples}) > 1


def _of(kind: type[Any], data: TrainingData) -> list[Any]:
    return [row for row in data.rows if isinstance(row, kind)]


def _pairs(pairs: Iterable[ScoredPair]) -> DatasetDict:
    rows = [(pair.first, pair.second, pair.score) for pair in pairs]
    return _one("scored_pairs", ("sentence_1", "sentence_2", "label"), rows)


def _one(name: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> DatasetDict:
    return DatasetDict({name: _columns(columns, rows)})


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Dataset:
    return Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(names)})
