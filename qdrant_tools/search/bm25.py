"""Text -> sparse vectors whose dot product, times the engine's IDF, is the BM25 score.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009. A passage's vector holds
tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average_length)) for each of its words; a query's vector holds how
often each word occurs in it. The collection's sparse vector has the modifier "idf", so the engine multiplies by
ln(1 + (N - n + 0.5) / (n + 0.5)) over the points it has.

Guarantees: no model, no download, any script; the same text gives the same vector on every machine. A vector is made by
the words that the collection was filled with, whatever this version's own are. Stems and stop words of a language are
left alone unless they are asked for: IDF gives frequent words little weight. Does not know: collections; what a word is
(`words`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import Any

from qdrant_client import models

from qdrant_tools.errors import CollectionError, InputError, NotSupportedError, brief
from qdrant_tools.search.words import Words, letters, split
from qdrant_tools.validation import checked_number, checked_text

VECTOR = "bm25"
"""Name of the sparse vector in a collection."""
TOKENIZER = "unicode-1"
"""The words of this version; see `words`. Any change to what a text's words are gets another number."""
EARLIER = "letters-1"
"""The words of collections that do not say which: runs of letters and digits, and single Han, kana and Thai."""
_LONGEST_CACHED = 64


class _Unnamed(str):
    """The words of this version, where the caller has named none."""


_UNNAMED = _Unnamed(TOKENIZER)
_STEMMING = Lock()


@dataclass(frozen=True)
class Bm25:
    """The parameters of BM25, and what counts as a word: fixed when a collection is made.

    `average_length` is the mean number of words of the passages; the function of that name measures it. A figure that
    is off by half changes rankings little.
    """

    k1: float = 1.2
    b: float = 0.75
    average_length: float = 100.0
    tokenizer: str = _UNNAMED
    """Which rules find the words: "unicode-1", or "letters-1", those of collections made before there was a choice. A
    collection that is there keeps its own, unless they are named here."""
    stemming: str | None = None
    """Language whose endings make no difference ("english": runs finds running). Needs the package snowballstemmer."""
    stop_words: str | None = None
    """Language whose most frequent words a query does not ask for, unless it has no others. Passages keep them."""
    stemmed_by: str | None = field(default=None, compare=False)
    """The version of Snowball's algorithms that made the stems; set when a collection is made."""

    def __post_init__(self) -> None:
        for name in ("k1", "b", "average_length"):
            checked_number(name, getattr(self, name))
        if self.k1 < 0 or not 0 <= self.b <= 1 or self.average_length <= 0:
            raise InputError(f"{self} is impossible: expected k1 >= 0, b from 0 to 1, average_length > 0")
        if self.tokenizer not in (TOKENIZER, EARLIER):
            raise InputError(f"tokenizer is {brief(self.tokenizer)}, expected {TOKENIZER!r} or {EARLIER!r}")
        for name in ("stemming", "stop_words", "stemmed_by"):
            if getattr(self, name) is not None:
                checked_text(name, getattr(self, name))
        if self.tokenizer == EARLIER and (self.stemming or self.stop_words):
            raise InputError(f"stemming and stop_words need the tokenizer {TOKENIZER!r}, not {EARLIER!r}")
        if self.stop_words is not None:
            _stop_words(self.stop_words)
        # a collection of stems can be opened without the package too; its words cannot be searched
        if self.stemming is not None and (installed := _snowball()) is not None:
            _stemmer(self.stemming)
            if self.stemmed_by is None:
                object.__setattr__(self, "stemmed_by", installed)

    def passage(self, text: str) -> models.SparseVector:
        counts, length = self.counts(text)
        norm = self.k1 * (1 - self.b + self.b * length / self.average_length)
        return _sparse({word: count * (self.k1 + 1) / (count + norm) for word, count in counts.items()})

    def query(self, text: str) -> models.SparseVector:
        return _sparse({word: float(count) for word, count in self.asked(text).items()})

    def counts(self, text: str) -> tuple[Counter[str], int]:
        """How often each word stands in a passage, and how long the passage is in words."""
        words = self._words(text)
        return Counter(map(self._stem, words.asked + words.parts)), words.length

    def asked(self, text: str) -> Counter[str]:
        """How often a query asks for each word."""
        words = self._words(text).asked
        if self.stop_words is not None:
            unasked = _stop_words_in(text, self.stop_words)
            words = [word for word in words if word not in unasked] or words
        return Counter(map(self._stem, words))

    def as_row(self) -> dict[str, Any]:
        """As JSON. What earlier versions can search stays readable for them, and nothing else does."""
        row = {name: value for name, value in asdict(self).items() if value is not None}
        row["tokenizer"] = str(self.tokenizer)
        if self.tokenizer == EARLIER:
            del row["tokenizer"]
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Bm25:
        """Read what `as_row` wrote, or an earlier version, which named no tokenizer.

        Raises:
            CollectionError: its words are those of a newer version, of this package or of the libraries.
            InputError: it was written by neither.
        """
        tokenizer = row.get("tokenizer", EARLIER)
        if isinstance(tokenizer, str) and tokenizer not in (TOKENIZER, EARLIER):
            raise CollectionError(
                f"the collection's words are those of {brief(tokenizer)}, this version has {TOKENIZER!r} and "
                f"{EARLIER!r}: upgrade"
            )
        stemming, stop_words = row.get("stemming"), row.get("stop_words")
        try:
            if isinstance(stemming, str) and _snowball() is not None:
                _stemmer(stemming)
            if isinstance(stop_words, str):
                _stop_words(stop_words)
        except InputError as error:
            raise CollectionError(f"the collection's words need another version of the libraries: {error}") from error
        return cls(**(row | {"tokenizer": tokenizer}))

    def or_earlier(self, present: Bm25) -> Bm25:
        """`present`, the words of a collection, if they differ from these by what an earlier version did otherwise.

        That is the tokenizer, if the caller has named none, and the average length, which counts its words.
        """
        if not isinstance(self.tokenizer, _Unnamed) or present.tokenizer == self.tokenizer:
            return self
        same = all(getattr(self, name) == getattr(present, name) for name in ("k1", "b", "stemming", "stop_words"))
        return present if same else self

    @property
    def caution(self) -> str | None:
        """What somebody who searches should know: a collection of earlier words, or of another version's stems."""
        if self.tokenizer == EARLIER:
            return (
                f"has the words of an earlier version ({EARLIER}): marks and combined characters end a word, and "
                f"Chinese, Japanese and Thai are single characters; index its passages into a new collection for "
                f"{TOKENIZER}"
            )
        installed = _snowball()
        if self.stemming is not None and installed != self.stemmed_by:
            return (
                f"has stems of Snowball {brief(self.stemmed_by)}, and {installed} is installed: words whose stem has "
                "changed are not found; install that version, or index into a new collection"
            )
        return None

    def _words(self, text: str) -> Words:
        if self.tokenizer == EARLIER:
            found = letters(text)
            return Words(found, length=len(found))
        return split(text)

    def _stem(self, word: str) -> str:
        return word if self.stemming is None else _stemmer(self.stemming)(word)


def average_length(texts: Iterable[str]) -> float:
    """Mean number of words; of a sample, if the texts are many.

    Raises:
        InputError: there are no words.
    """
    lengths = [split(text).length for text in texts]
    if not sum(lengths):
        raise InputError(f"{len(lengths)} texts without a word, expected some to measure")
    return sum(lengths) / len(lengths)


def _sparse(weights: dict[str, float]) -> models.SparseVector:
    # two words may share a number; their weights add up, as their postings would
    summed: dict[int, float] = {}
    for word, weight in weights.items():
        index = _cached_number(word) if len(word) <= _LONGEST_CACHED else _number(word)
        summed[index] = summed.get(index, 0.0) + weight
    order = sorted(summed)
    return models.SparseVector(indices=order, values=[summed[index] for index in order])


def _number(word: str) -> int:
    # not Python's hash(), which differs from process to process; 4 bytes, because an index of a sparse vector has 32
    # bits
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big")


_cached_number = lru_cache(maxsize=100_000)(_number)


@cache
def _snowball() -> str | None:
    """The version of Snowball that makes the stems; None if it is not installed. Its two packages count alike."""
    for package in ("PyStemmer", "snowballstemmer"):
        try:
            return ".".join(version(package).split(".")[:2])
        except PackageNotFoundError:
            continue
    return None


@cache
def _stemmer(language: str) -> Callable[[str], str]:
    """Raises `InputError` for a language without a stemmer, `NotSupportedError` if the package is not installed."""
    try:
        snowball = import_module("snowballstemmer")
    except ImportError as error:
        raise NotSupportedError(
            f"stems of {brief(language)} need Snowball: pip install 'llama-index-embed-plus[words]'"
        ) from error
    known = sorted(snowball.algorithms())
    if language not in known:
        raise InputError(f"stemming is {brief(language)}, expected one of {', '.join(known)}")
    stem_word = snowball.stemmer(language).stemWord

    @lru_cache(maxsize=100_000)
    def stem(word: str) -> str:
        # a stemmer keeps its word in itself
        with _STEMMING:
            return str(stem_word(word))

    return lambda word: stem(word) if len(word) <= _LONGEST_CACHED else word


def _stop_words_in(text: str, language: str) -> set[str]:
    """The stop words of a text, as `split` spells them."""
    is_stop_word, lower = _stop_words(language), text.casefold()
    # the lists are in the spelling of the language, with the marks that `split` leaves out
    spelled = {*lower.split(), *letters(lower), *split(text).asked}
    return {word for each in spelled if is_stop_word(each) for word in split(each).asked}


@cache
def _stop_words(language: str) -> Callable[[str], bool]:
    """Raises `InputError` for a language without a list."""
    from qdrant_tools.edge.queries import stop_words

    return stop_words(language)
