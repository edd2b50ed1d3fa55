"""Raw texts -> the columns that the unsupervised losses read.

`simcse`: each text beside itself, two views by dropout, or beside a changed copy. `contrastive_tension`: pairs of
different texts, and one in `ratio` of a text and itself, with the label 1. `contrastive_tension_in_batch`: the texts.
`tsdae`: a damaged text and the text to be rebuilt from its vector, `copies` times with other damage.

Guarantees: the rows are a function of the texts and the seed. Does not know: models.

A text -> another text that should mean the same, or the same with less: word deletion, replacement, cropping, or any
callable, such as a back-translation or a paraphrase model.

Guarantees: the result of a text depends on the text, the seed and the augmentation alone, not on the texts around it;
it is never empty. Does not know: models, labels. Words are what spaces separate; a script that writes none is one word.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from datasets import Dataset

from llama_index_embed_plus.errors import TrainingError
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Example


class Augmentation(Protocol):
    """A text and a source of chance -> another text."""

    def __call__(self, text: str, random: np.random.Generator, /) -> str: ...


@dataclass(frozen=True)
class DeleteWords:
    """Leave each word out with probability `share`; at least one stays. TSDAE (arXiv 2104.06979) takes 0.6."""

    share: float = 0.6

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    def __call__(self, text: str, random: np.random.Generator, /) -> str:
        words = text.split()
        if len(words) < 2:
            return text
        kept = [word for word, draw in zip(words, random.random(len(words)), strict=True) if draw >= self.share]
        return " ".join(kept or [words[int(random.integers(len(words)))]])


@dataclass(frozen=True)
class ReplaceWords:
    """Replace each word that has a choice with probability `share` (EDA, Wei and Zou 2019, arXiv 1901.11196).

    choices: word in lower case -> what may stand for it, such as synonyms; what is around the letters stays.
    """

    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    share: float = 0.1

    def __post_init__(self) -> None:
        _check_share("share", self.share)
        if not self.choices or not all(self.choices.values()):
            raise UsageError("choices of ReplaceWords is empty, or has a word without a choice: give word -> words")

    def __call__(self, text: str, random: np.random.Generator, /) -> str:
        return " ".join(self._replaced(word, random) for word in text.split()) or text

    def _replaced(self, word: str, random: np.random.Generator) -> str:
        bare = word.strip(".,;:!?()[]\"'")
        choices = self.choices.get(bare.lower(), ())
        if not choices or random.random() >= self.share:
            return word
        chosen = choices[int(random.integers(len(choices)))]
        return word.replace(bare, chosen.capitalize() if bare[:1].isupper() else chosen, 1)


@dataclass(frozen=True)
class CropWords:
    """Keep one run of words, of at least `least` and at most all of them (Contriever, arXiv 2112.09118)."""

    least: float = 0.5

    def __post_init__(self) -> None:
        _check_share("least", self.least)

    def __call__(self, text: str, random: np.random.Generator, /) -> str:
        words = text.split()
        fewest = max(1, math.ceil(self.least * len(words)))
        if fewest >= len(words):
            return text
        length = int(random.integers(fewest, len(words) + 1))
        start = int(random.integers(0, len(words) - length + 1))
        return " ".join(words[start : start + length])


@dataclass(frozen=True)
class Rewrite:
    """Let a callable rewrite the text: a back-translation, a paraphrase model. It gets no seed of ours."""

    rewrite: Callable[[str], str]

    def __call__(self, text: str, random: np.random.Generator, /) -> str:
        return self.rewrite(text)


def augment(texts: Iterable[str], augmentation: Augmentation, *, seed: int = 0) -> list[str]:
    """Return another text for each.

    Raises:
        InputError: the augmentation gave no text, or an empty one.
    """
    return [_augmented(text, augmentation, seed) for text in texts]


def augment_queries(
    examples: Iterable[Example], augmentation: Augmentation, *, copies: int = 1, seed: int = 0
) -> list[Example]:
    """Return the examples, each followed by up to `copies` with another query, of the same weight in sum.

    A copy whose query came out unchanged, or like one before it, is left out.
    """
    found: list[Example] = []
    for example in examples:
        other = [_augmented(example.query, augmentation, seed + copy) for copy in range(copies)]
        queries = list(dict.fromkeys((example.query, *other)))
        weight = example.weight / len(queries)
        found.extend(Example(query, example.positives, example.negatives, weight) for query in queries)
    return found


def _augmented(text: str, augmentation: Augmentation, seed: int) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    random = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    found = augmentation(text, random)
    if not isinstance(found, str) or not found.strip():
        raise InputError(f"the augmentation made {found!r} of {text!r:.60}, expected a text")
    return found


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UsageError(f"{name} is {value}, expected a share from 0 up to, not including, 1")


@dataclass(frozen=True)
class NoiseSettings:
    """How raw texts become rows.

    damage: what TSDAE rebuilds from. views: what makes the second view of SimCSE; None: dropout alone, as published.
    copies: of each text for TSDAE, with other damage each; so many epochs see no damage twice. ratio: one pair in so
    many of Contrastive Tension is a text and itself (8, as published).
    """

    damage: Augmentation = DeleteWords(0.6)
    views: Augmentation | None = None
    copies: int = 1
    ratio: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.copies < 1 or self.ratio < 2:
            raise UsageError(f"copies is {self.copies} and ratio {self.ratio}, expected at least 1 and at least 2")


def to_dataset(loss: str, texts: Sequence[str], settings: NoiseSettings | None = None) -> Dataset:
    """Return the rows of an unsupervised loss. Raises UsageError for another one, TrainingError for too few texts."""
    if loss not in _ROWS:
        raise UsageError(f"loss is {loss!r}, expected one that learns from raw texts: {', '.join(_ROWS)}")
    if not texts:
        raise TrainingError("there are no texts to train on")
    return Dataset.from_dict(_ROWS[loss](texts, settings or NoiseSettings()))


def _views(texts: Sequence[str], settings: NoiseSettings) -> dict[str, list[str]]:
    second = list(texts) if settings.views is None else augment(texts, settings.views, seed=settings.seed)
    return {"text": list(texts), "other_view": second}


def _tension(texts: Sequence[str], settings: NoiseSettings) -> dict[str, list[str] | list[float]]:
    """Every text is used once: one pair in `ratio` is a text and itself, the others are two texts."""
    order = np.random.default_rng(settings.seed).permutation(len(texts))
    shuffled = [texts[int(i)] for i in order]
    first: list[str] = []
    second: list[str] = []
    labels: list[float] = []
    place = 0
    while place < len(shuffled):
        alone = len(labels) % settings.ratio == 0 or place + 1 == len(shuffled)
        one, other = shuffled[place], shuffled[place if alone else place + 1]
        first.append(one)
        second.append(other)
        labels.append(float(one == other))
        place += 1 if alone else 2
    if not 0 < sum(labels) < len(labels):
        raise TrainingError(f"{len(texts)} texts make no pair of different ones: contrastive_tension needs at least 3")
    return {"text_1": first, "text_2": second, "label": labels}


def _damaged(texts: Sequence[str], settings: NoiseSettings) -> dict[str, list[str]]:
    damaged = [
        text for copy in range(settings.copies) for text in augment(texts, settings.damage, seed=settings.seed + copy)
    ]
    return {"damaged": damaged, "text": list(texts) * settings.copies}


_ROWS: dict[
    str, Callable[[Sequence[str], NoiseSettings], dict[str, list[str]] | dict[str, list[str] | list[float]]]
] = {
    "simcse": _views,
    "contrastive_tension": _tension,
    "contrastive_tension_in_batch": lambda texts, settings: {"text": list(texts)},
    "tsdae": _damaged,
}
