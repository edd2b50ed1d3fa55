"""Text -> sparse vectors whose dot product, times the engine's IDF, is the BM25 score.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009. A passage's vector holds
tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average_length)) for each of its words; a query's vector holds how
often each word occurs in it. The collection's sparse vector has the modifier "idf", so the engine multiplies by
ln(1 + (N - n + 0.5) / (n + 0.5)) over the points it has.

Guarantees: no model, no download, any language; the same text gives the same vector on every machine. Words are runs
of letters and digits without regard to case, and single characters where a script has no spaces. There is no stemming,
and no list of stop words: IDF gives them little weight. Does not know: collections.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.validation import checked_number

VECTOR = "bm25"
"""Name of the sparse vector in a collection."""

# Han, kana and Thai are written without spaces: each character is a word there.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# an underscore ends a word, although \w holds it
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


@dataclass(frozen=True)
class Bm25:
    """The parameters of BM25, fixed when a collection is made.

    `average_length` is the mean number of words of the passages; the function of that name measures it. A figure that
    is off by half changes rankings little.
    """

    k1: float = 1.2
    b: float = 0.75
    average_length: float = 100.0

    def __post_init__(self) -> None:
        for name in ("k1", "b", "average_length"):
            checked_number(name, getattr(self, name))
        if self.k1 < 0 or not 0 <= self.b <= 1 or self.average_length <= 0:
            raise InputError(f"{self} is impossible: expected k1 >= 0, b from 0 to 1, average_length > 0")

    def passage(self, text: str) -> models.SparseVector:
        counts = Counter(words(text))
        norm = self.k1 * (1 - self.b + self.b * counts.total() / self.average_length)
        return _sparse({word: count * (self.k1 + 1) / (count + norm) for word, count in counts.items()})

    def query(self, text: str) -> models.SparseVector:
        return _sparse({word: float(count) for word, count in Counter(words(text)).items()})

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def words(text: str) -> list[str]:
    """The words of a text, as BM25 counts them."""
    return _WORDS.findall(text.casefold())


def average_length(texts: Iterable[str]) -> float:
    """Mean number of words; of a sample, if the texts are many.

    Raises:
        InputError: there are no words.
    """
    lengths = [len(words(text)) for text in texts]
    if not sum(lengths):
        raise InputError(f"{len(lengths)} texts without a word, expected some to measure")
    return sum(lengths) / len(lengths)


def _sparse(weights: dict[str, float]) -> models.SparseVector:
    # two words may share a number; their weights add up, as their postings would
    summed: dict[int, float] = {}
    for word, weight in weights.items():
        index = _number(word)
        summed[index] = summed.get(index, 0.0) + weight
    order = sorted(summed)
    return models.SparseVector(indices=order, values=[summed[index] for index in order])


@lru_cache(maxsize=100_000)
def _number(word: str) -> int:
    # not Python's hash(), which differs from process to process; 4 bytes, because an index of a sparse vector has 32
    # bits
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big")
