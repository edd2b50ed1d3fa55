"""A few labelled passages -> the label of every passage, and how often it is right.

Guarantees: the accuracy is that on passages which the model that judged them had not seen, strength of the model
included. Nothing is embedded; only `Classification.write` writes; memory holds the labelled passages and a page. Does
not know: encoders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qdrant_tools.client.gateway import PointId
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, mismatch, vector_pages
from qdrant_tools.errors import InputError, brief
from qdrant_tools.files.rows import read_rows
from qdrant_tools.records import Progress, Vectors
from qdrant_tools.statistics import wilson
from qdrant_tools.validation import checked_text, unit_rows
from qdrant_tools.vectors.logistic import Floats, Integers, Logistic, fit, folds_of, log_loss
from qdrant_tools.vectors.written import write_field

LEAST = 3
"""Labelled passages of each label."""
MOST_LABELS = 1000
FOLDS = 5
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
_AT_ONCE = 256


@dataclass(frozen=True)
class LabelScore:
    """Of one label: how many passages were given, and how its predictions did in cross-validation."""

    label: str
    given: int
    recall: float
    precision: float | None
    """None where it was never predicted."""


@dataclass(frozen=True)
class Predicted:
    """A page of passages with their labels, and how likely these are."""

    points: list[PointId]
    ids: list[str]
    labels: list[str]
    probabilities: list[float]


@dataclass(frozen=True)
class Classification:
    """What `classify` learned, and how good it is."""

    collection: Collection = field(repr=False)
    labels: tuple[LabelScore, ...]
    right: int
    """Labelled passages that were predicted right when they were held out, of `of`."""
    of: int
    interval: tuple[float, float]
    """95 %, of the accuracy (Wilson)."""
    majority: str
    """The most frequent label: saying it always is right in `majority_share` of the cases."""
    majority_share: float
    folds: int
    strength: float
    given: Mapping[str, str] = field(repr=False)
    model: Logistic = field(repr=False, compare=False)

    @property
    def accuracy(self) -> float:
        return self.right / self.of

    @property
    def is_better(self) -> bool:
        """Whether the interval lies above what the most frequent label alone is right in."""
        return self.interval[0] > self.majority_share

    def predicted(self, *, progress: Progress | None = None) -> Iterator[Predicted]:
        """Every passage with its most likely label, page by page. One that was labelled keeps its own."""
        names = [score.label for score in self.labels]
        for page in vector_pages(self.collection):
            probabilities = self.model.probabilities(unit_rows(page.vectors))
            best = probabilities.argmax(axis=1)
            own = [self.given.get(name) for name in page.ids]
            labels = [names[number] if given is None else given for number, given in zip(best.tolist(), own)]
            likely = [
                1.0 if given is not None else float(row[number])
                for row, number, given in zip(probabilities, best.tolist(), own)
            ]
            yield Predicted(page.points, page.ids, labels, likely)
            if progress is not None:
                progress(len(page.ids))

    def write(self, field: str, *, progress: Progress | None = None) -> int:
        """Write the label of every passage into a metadata field; see `written.write_field`."""
        pages = self.predicted(progress=progress)
        return write_field(self.collection, field, ((page.points, page.labels) for page in pages))

    def as_row(self) -> dict[str, object]:
        rows = [
            {"label": each.label, "given": each.given, "recall": each.recall, "precision": each.precision}
            for each in self.labels
        ]
        return {
            "collection": self.collection.name,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "right": self.right,
            "of": self.of,
            "folds": self.folds,
            "majority": self.majority,
            "majority_share": self.majority_share,
            "better_than_majority": self.is_better,
            "strength": self.strength,
            "labels": rows,
        }


def read_labels(path: str | Path) -> dict[str, str]:
    """Read rows `{"id", "label"}` (JSONL, or CSV and TSV with such a header): id -> label.

    Raises:
        InputError: the file cannot be read, a row lacks one of the two, or an id has two labels.
    """
    labels: dict[str, str] = {}
    for row in read_rows(path):
        name, label = row.text("id"), str(row.label("label"))
        if labels.setdefault(name, label) != label:
            raise InputError(
                f"{row.where}: passage {brief(name)} has the labels {brief(labels[name])} and {brief(label)}: give one"
            )
    if not labels:
        raise InputError(f'{path} holds no labels, expected rows {{"id", "label"}}')
    return labels


def classify(collection: Collection, labels: Mapping[str, str], *, seed: int = 0) -> Classification:
    """Learn labels of passages (id -> label) from their stored vectors, by logistic regression.

    The accuracy is measured by stratified cross-validation in five parts, or as many as the rarest label has passages.
    How strongly the model follows single passages is chosen by the likelihood of held-out ones, inside each part anew.

    Raises:
        InputError: fewer than two labels, fewer than 3 passages of a label, or an id that is not in the collection.
    """
    if not isinstance(labels, Mapping):
        raise InputError(f"labels are {brief(labels)}, expected a dict of passage ids and their labels")
    given = {checked_text("passage id", name): checked_text("label", label) for name, label in labels.items()}
    counts = Counter(given.values())
    if len(counts) < 2:
        only = f"the only label is {brief(next(iter(counts)))}" if counts else "there are no labels"
        raise InputError(f"{only}, expected at least 2 different ones: label passages that are something else too")
    if len(counts) > MOST_LABELS:
        raise InputError(f"there are {len(counts):,} different labels, expected at most {MOST_LABELS:,}")
    few = sorted((count, label) for label, count in counts.items() if count < LEAST)
    if few:
        count, label = few[0]
        raise InputError(
            f"label {brief(label)} has {count} passage{'s' * (count > 1)}, expected at least {LEAST} of each "
            f"({len(few)} labels have fewer): label more, or leave it out"
        )
    names = sorted(counts)
    given, rows = _vectors(collection, given)
    ids = list(given)
    classes = np.array([names.index(given[name]) for name in ids], np.int64)
    folds = min(FOLDS, min(counts.values()))
    fold_of = folds_of(classes, folds, seed=seed)
    predicted = np.empty(len(ids), np.int64)
    for fold in range(folds):
        held_out = fold_of == fold
        strength = _strength(rows[~held_out], classes[~held_out], len(names), seed)
        model = fit(rows[~held_out], classes[~held_out], len(names), strength=strength)
        predicted[held_out] = model.probabilities(rows[held_out]).argmax(axis=1)
    strength = _strength(rows, classes, len(names), seed)
    right = int((predicted == classes).sum())
    majority, most = min(counts.items(), key=lambda each: (-each[1], each[0]))
    return Classification(
        collection,
        tuple(_score(name, number, classes, predicted) for number, name in enumerate(names)),
        right,
        len(ids),
        wilson(right, len(ids)),
        majority,
        most / len(ids),
        folds,
        strength,
        given,
        fit(rows, classes, len(names), strength=strength),
    )


def _vectors(collection: Collection, given: Mapping[str, str]) -> tuple[dict[str, str], Vectors]:
    """The labels by the ids as the collection spells them, in their order, and the vectors of these passages."""
    ids, found, missing = sorted(given), list[tuple[str, str, Vectors]](), []
    for start in range(0, len(ids), _AT_ONCE):
        block = ids[start : start + _AT_ONCE]
        stored = fetch(collection, block, with_vectors=True, with_text=False)
        for name in block:
            passage = stored.get(name)
            if passage is None or passage.vector is None:
                missing.append(name)
            else:
                found.append((passage.id, given[name], passage.vector))
    if missing:
        more = f" ({len(missing):,} of {len(ids):,} labelled ids are not there)" if len(missing) > 1 else ""
        raise InputError(f"labelled passage {mismatch(collection, missing)}{more}")
    return {name: label for name, label, _ in found}, unit_rows(np.array([vector for _, _, vector in found]))


def _strength(rows: Vectors, classes: Integers, count: int, seed: int) -> float:
    """The strength under which some held-out passages are likeliest; the middle one where there are too few."""
    fold_of = folds_of(classes, 3, seed=seed + 1)
    losses = []
    for strength in STRENGTHS:
        judged: list[Floats] = []
        for fold in range(3):
            held_out = fold_of == fold
            if not held_out.any() or held_out.all():
                continue
            model = fit(rows[~held_out], classes[~held_out], count, strength=strength)
            judged.append(np.array([log_loss(model.probabilities(rows[held_out]), classes[held_out]), held_out.sum()]))
        losses.append(float(np.average([row[0] for row in judged], weights=[row[1] for row in judged])))
    return STRENGTHS[int(np.argmin(losses))]


def _score(label: str, number: int, classes: Integers, predicted: Integers) -> LabelScore:
    own, said = classes == number, predicted == number
    right = int((own & said).sum())
    return LabelScore(label, int(own.sum()), right / int(own.sum()), right / int(said.sum()) if said.any() else None)
