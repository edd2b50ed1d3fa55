"""An answer and the passages that a language model saw -> how far each passage supports the answer.

A passage that supports an answer answers the question too, whether the language model read it there or knew it before;
a citation alone is no proof (in the engines of 2023, 74.5 % of the citations supported their sentence: Liu, Zhang,
Liang, "Evaluating verifiability in generative search engines", arXiv 2304.09848). What counts is what tells the
passages apart: words that all of them have, such as a header or the words of the question, support nothing.

Guarantees: scores come in the order of the passages, are finite and depend on the texts alone. Does not know: whether
the answer is right, which only a person's thumb or label says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Encoder
from qdrant_tools.same import query_key
from qdrant_tools.search.words import split
from qdrant_tools.validation import brief

__all__ = ["NGRAMS", "Support", "encoder_support", "ngram_support"]

FEW_WORDS = 3
"""An answer with fewer words of its own is supported by the one passage that has them all, or by none."""

_YES_AND_NO = (
    "yes yeah yep no not nope true false correct incorrect right wrong none never always maybe perhaps okay sure both "
    "neither ja nein doch oui non sim não nao sí evet hayır да нет 是的 不是 没有 可以 はい いいえ 아니 니요"
)
"""Words that any passage may be said to support."""
_MARKS = re.compile(r"\[\d{1,3}(?:[,;\-\u2013] ?\d{1,3})*\]|\u3010[^\u3011]{0,40}\u3011")
"""Citations: [1], [2, 3], and those in the brackets of East Asia."""

Judge = Callable[[str, Sequence[str]], Sequence[float]]
"""(answer, passages) -> a score of each passage."""


@dataclass(frozen=True)
class Support:
    """A check of support: who judges, and which scores count.

    threshold: a passage of at least this score supports the answer. margin: and only if it is at most so far below the
    best one. most: if more passages than this are left, the check does not tell them apart, and none counts.
    """

    judge: Judge
    threshold: float
    margin: float
    most: int = 2
    name: str = "support"

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold) or not self.margin >= 0 or self.most < 1:
            raise UsageError(f"{self}: expected a finite threshold, a margin of at least 0, and at least one passage")

    def supporting(self, answer: str, passages: Sequence[str]) -> list[int]:
        """The places of the passages that support the answer.

        Raises:
            InputError: the judge does not give one finite score for each passage.
        """
        scores = [float(score) for score in self.judge(answer, passages)]
        if len(scores) != len(passages) or not all(map(math.isfinite, scores)):
            raise InputError(f"the judge of support gave {brief(scores)} for {len(passages)} passages")
        if not scores:
            return []
        best = max(scores)
        # copies of one text are one passage
        texts = {query_key(passages[at]) for at, score in enumerate(scores) if self._counts(score, best)}
        if len(texts) > self.most:
            return []
        return [at for at, score in enumerate(scores) if self._counts(score, best)]

    def _counts(self, score: float, best: float) -> bool:
        return score >= self.threshold and best - score <= self.margin


def ngram_support(answer: str, passages: Sequence[str], *, query: str = "") -> list[float]:
    """The share of the answer's own words, and pairs of neighbours, that each passage has and others have not.

    A word that k of n different passages have weighs log(n / k) / log(n): 1 if one alone has it, 0 if all have. Words
    of the query are left out, as all passages were found by them. A pair that no passage has is a way of writing, a
    word that none has is something that nothing here supports. Of a single passage all words weigh 1. Words are those
    of search (`search.words`): of what is written without spaces, neighbouring characters.

    An answer of one or two words of its own ("Owls.") has the score 1 where a single passage has them, as in the
    distant supervision of question answering (Karpukhin et al., "Dense passage retrieval", arXiv 2004.04906); "yes" has
    none anywhere.
    """
    asked = set(_words(query))
    words = _telling(answer)
    own = {(word,) for word in _own(words, asked)}
    if not own:
        return [0.0] * len(passages)
    pairs = {pair for pair in pairwise(words) if not asked.issuperset(pair)}
    grams = [_grams(text) for text in passages]
    different = {query_key(text): found for text, found in zip(passages, grams)}
    if len(own) < FEW_WORDS:
        alone = sum(own <= found for found in different.values()) == 1
        return [float(alone and own <= found) for found in grams]
    seen = Counter(gram for found in different.values() for gram in found & (own | pairs))
    count = len(different)
    weights = {gram: math.log(count / times) / math.log(count) if count > 1 else 1.0 for gram, times in seen.items()}
    weights |= dict.fromkeys(own - seen.keys(), 1.0)
    # in the order of the words, so that the last digit of a sum is always the same
    ordered = sorted(weights)
    whole = sum(weights[gram] for gram in ordered)
    if whole == 0:
        return [0.0] * len(passages)
    return [sum(weights[gram] for gram in ordered if gram in found) / whole for found in grams]


def encoder_support(encoder: Encoder, *, threshold: float = 0.5, margin: float = 0.03) -> Support:
    """A check by the similarity of the answer and the passage as an encoder sees them.

    It finds answers in other words than those of the passage, and is swayed by the topic, which all passages of a list
    share. The right threshold is another one for each model: audit it.
    """

    def judge(answer: str, passages: Sequence[str]) -> list[float]:
        vectors = encoder.encode_passages([answer, *passages])
        return [float(score) for score in vectors[1:] @ vectors[0]]

    return Support(judge, threshold, margin, name="similarity")


def _words(text: str) -> list[str]:
    return split(text).asked


def _telling(text: str) -> list[str]:
    return [word for word in _words(_MARKS.sub(" ", text)) if _says_something(word)]


def _own(words: Iterable[str], asked: set[str]) -> set[str]:
    """The words of an answer that are not those of the query; none if they say no more than yes or no."""
    own = set(words) - asked
    return set() if own <= _yes_and_no() else own


@cache
def _yes_and_no() -> frozenset[str]:
    return frozenset(_words(_YES_AND_NO))


def _grams(text: str) -> frozenset[tuple[str, ...]]:
    # the passages that answer much come again and again
    return _remembered(text) if len(text) <= _SHORT else _read_grams(text)


def _read_grams(text: str) -> frozenset[tuple[str, ...]]:
    words = _telling(text)
    return frozenset((word,) for word in words) | frozenset(pairwise(words))


_SHORT = 8192
_remembered = lru_cache(maxsize=1024)(_read_grams)


def _says_something(word: str) -> bool:
    """Not the short words of alphabets, which are mostly grammar; a number says something, and so do two characters of
    a script without spaces."""
    return len(word) > 2 or not word.isascii() or word.isdigit()


NGRAMS = Support(ngram_support, threshold=0.3, margin=0.1, name="n-grams")
"""The check by words, without a model."""


def score_of(support: Support, query: str, answer: str, passages: Sequence[str]) -> list[int]:
    """The places of the passages that support an answer to a query; only the check by words looks at the query."""
    if support.judge is ngram_support:

        def judge(text: str, texts: Sequence[str]) -> list[float]:
            return ngram_support(text, texts, query=query)

        support = Support(judge, support.threshold, support.margin, support.most, support.name)
    return support.supporting(answer, passages)


def says_nothing(query: str, answer: str) -> bool:
    """Whether an answer has no words of its own, beside those of the query, yes and no."""
    return not _own(_telling(answer), set(_words(query)))
