"""Raw texts -> the columns that the unsupervised losses read.

`simcse`: each text beside itself, two views by dropout, or beside a changed copy. `contrastive_tension`: pairs of
different texts, and one in `ratio` of a text and itself, with the label 1. `contrastive_tension_in_batch`: the texts.
`tsdae`: a damaged text and the text to be rebuilt from its vector, `copies` times with other damage.

Guarantees: the rows are a function of the texts and the seed. Does not know: models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.data.augmentation import Augmentation, DeleteWords, augment
from qdrant_tools.errors import UsageError

Columns = Mapping[str, Sequence[str] | Sequence[float]]


@dataclass(frozen=True)
class NoiseSettings:
    """How raw texts become rows.

    damage: what TSDAE rebuilds from. views: what makes the second view of SimCSE; None: dropout alone, as published.
    copies: of each text for TSDAE, each with other damage, so that several epochs do not see the same one. ratio: one
    pair in so many of Contrastive Tension is a text and itself (8, as published).
    """

    damage: Augmentation = DeleteWords(0.6)
    views: Augmentation | None = None
    copies: int = 1
    ratio: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.copies < 1 or self.ratio < 2:
            raise UsageError(f"copies is {self.copies} and ratio {self.ratio}, expected at least 1 and at least 2")


def unsupervised_rows(loss: str, texts: Sequence[str], settings: NoiseSettings | None = None) -> Dataset:
    """Return the rows of an unsupervised loss. Raises UsageError for another one, TrainingError for too few texts."""
    if loss not in _ROWS:
        raise UsageError(f"loss is {loss!r}, expected one that learns from raw texts: {', '.join(_ROWS)}")
    if not texts:
        raise TrainingError("there are no texts to train on")
    return Dataset.from_dict(dict(_ROWS[loss](texts, settings or NoiseSettings())))


def _views(texts: Sequence[str], settings: NoiseSettings) -> Columns:
    second = list(texts) if settings.views is None else augment(texts, settings.views, seed=settings.seed)
    return {"text": list(texts), "other_view": second}


def _tension(texts: Sequence[str], settings: NoiseSettings) -> Columns:
    """Every text is used once: one pair in `ratio` is a text and itself, the others are two texts."""
    order = np.random.default_rng(settings.seed).permutation(len(texts))
    shuffled = [texts[int(i)] for i in order]
    first: list[str] = []
    second: list[str] = []
    labels: list[float] = []
    place = 0
    while place < len(shuffled):
        # the last text may have no partner left
        alone = len(labels) % settings.ratio == 0 or place + 1 == len(shuffled)
        one, other = shuffled[place], shuffled[place if alone else place + 1]
        first.append(one)
        second.append(other)
        labels.append(float(one == other))  # a text that occurs twice may meet itself
        place += 1 if alone else 2
    if not 0 < sum(labels) < len(labels):
        raise TrainingError(f"{len(texts)} texts make no pair of different ones: contrastive_tension needs at least 3")
    return {"text_1": first, "text_2": second, "label": labels}


def _damaged(texts: Sequence[str], settings: NoiseSettings) -> Columns:
    damaged = [
        text for copy in range(settings.copies) for text in augment(texts, settings.damage, seed=settings.seed + copy)
    ]
    return {"damaged": damaged, "text": list(texts) * settings.copies}


_ROWS: dict[str, Callable[[Sequence[str], NoiseSettings], Columns]] = {
    "simcse": _views,
    "contrastive_tension": _tension,
    "contrastive_tension_in_batch": lambda texts, settings: {"text": list(texts)},
    "tsdae": _damaged,
}
