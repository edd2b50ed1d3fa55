"""A text -> another text with fewer words: for TSDAE, for the second view of SimCSE, for further queries of examples.

Guarantees: the result depends on the text, the seed and the augmentation alone, not on the texts around it; it is never
empty. Does not know: models, labels. Words are what spaces separate: a script that writes no spaces is one word.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np

from llama_index_embed_plus.training.limits import LARGEST_SEED, check_whole, is_number
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.records import Example
from qdrant_tools.same import query_key

WordChange = Literal["delete", "crop"]


class Augmentation(Protocol):
    """A text and a random generator -> another text."""

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
class QueryAugmentation:
    """Further queries for the examples of a recipe's stage.

    words: `delete` leaves each word out with probability `share`; `crop` cuts off at most that share of the words, at
    both ends together. copies: further queries of each example, at most.
    """

    words: WordChange = "delete"
    share: float = 0.2
    copies: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.words not in get_args(WordChange):
            raise UsageError(f"words is {self.words!r}, expected one of {', '.join(get_args(WordChange))}")
        if not (is_number(self.share) and 0 < self.share < 1):
            raise UsageError(f"share is {brief(self.share)}, expected a share between 0 and 1")
        check_whole("copies", self.copies, most=1000)
        check_whole("seed", self.seed, least=0, most=LARGEST_SEED)

    def apply(self, examples: Iterable[Example]) -> list[Example]:
        """Return the examples, each followed by its copies with another query, of the same weight in sum.

        A copy whose query came out unchanged, or like one before it, is left out.
        """
        # `share` is what may go, `least` is what has to stay
        augmentation = DeleteWords(self.share) if self.words == "delete" else CropWords(1 - self.share)
        augmented: list[Example] = []
        for example in examples:
            changed = [_augmented(example.query, augmentation, self.seed + copy) for copy in range(self.copies)]
            queries: dict[str, str] = {}
            for query in (example.query, *changed):
                queries.setdefault(query_key(query), query)
            weight = example.weight / len(queries)
            augmented.extend(replace(example, query=query, weight=weight) for query in queries.values())
        return augmented


def augment(texts: Iterable[str], augmentation: Augmentation, *, seed: int = 0) -> list[str]:
    """Return another text for each.

    Raises:
        InputError: the augmentation gave no text, or an empty one.
    """
    return [_augmented(text, augmentation, seed) for text in texts]


def _augmented(text: str, augmentation: Augmentation, seed: int) -> str:
    # The text's own hash seeds its generator: a text is changed alike wherever it stands.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    random = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    augmented = augmentation(text, random)
    if not isinstance(augmented, str) or not augmented.strip():
        raise InputError(f"the augmentation made {brief(augmented)} of {brief(text)}, expected a text")
    return augmented


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UsageError(f"{name} is {value}, expected a share from 0 up to, not including, 1")
