"""Judged queries and a collection -> which BM25 and which fusion rank them best, and whether that is proved.

Every combination ranks the same queries over the same passages, all of them computed here: BM25 from counts of words,
the dense ranking by exact search, the fusion by Qdrant's formulas. So nothing is stored or embedded again. What is best
on the queries that chose it flatters itself; therefore the gain is told out of fold: each fifth of the queries is
ranked by what is best on the others.

Guarantees: the collection is only read; the same queries, passages and seed give the same report; of equally good
combinations the earlier one of the grid is taken, and what the collection has now comes first. Does not know: how the
engine rounds its scores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, sample_vectors
from qdrant_tools.errors import InputError
from qdrant_tools.metrics import Interval, ndcg, paired_interval
from qdrant_tools.records import Encoder, HeldOut, Vectors
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.fusion import USUAL, Fusion
from qdrant_tools.search.hybrid import lexical_of
from qdrant_tools.sources.judged import documents_judged, parts_in
from qdrant_tools.validation import checked_count

__all__ = ["WordGrid", "WordTrial", "WordTuning", "tune_words"]

Scores = NDArray[np.float64]
Ranking = tuple[NDArray[np.int64], Scores]
"""Rows, best first, and their scores."""

LEAST = 20
"""Judged queries, below which nothing is chosen."""
_FOLDS = 5
_AT_ONCE = 256


@dataclass(frozen=True)
class WordGrid:
    """What to try; each with each. What the collection has now, k1, b and fusion, is always among them."""

    k1: tuple[float, ...] = (0.6, 0.9, 1.2, 1.6, 2.0)
    b: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.75)
    fusion: tuple[Fusion, ...] = (
        Fusion(),
        Fusion(lexical_weight=0.5),
        Fusion(lexical_weight=2.0),
        Fusion(method="dbsf"),
    )

    def __post_init__(self) -> None:
        if not (self.k1 and self.b and self.fusion):
            raise InputError(f"{self}: every axis needs at least one value")


@dataclass(frozen=True)
class WordTrial:
    """One combination and its mean nDCG; `fusion` None ranks by words alone."""

    k1: float
    b: float
    fusion: Fusion | None
    ndcg: float

    @property
    def setting(self) -> str:
        """The combination as Python writes it."""
        words = f"Bm25(k1={self.k1:g}, b={self.b:g})"
        if self.fusion is None:
            return words
        others = {name: value for name, value in asdict(self.fusion).items() if value != getattr(Fusion(), name)}
        said = [repr(self.fusion.method), *(f"{name}={value!r}" for name, value in others.items() if name != "method")]
        return f"{words}, Fusion({', '.join(said)})"


@dataclass(frozen=True)
class WordTuning:
    """Every trial, the best first. `now` is what a hybrid search of the collection does, `dense` and `words` are the
    nDCG of either side alone, with the words as they are. `gain` is that of choosing, told out of fold."""

    collection: str
    passages: int
    queries: int
    k: int
    dense: float
    words: float
    now: WordTrial
    chosen: WordTrial
    gain: Interval
    trials: tuple[WordTrial, ...]

    @property
    def proved(self) -> bool:
        """Whether choosing by such queries is better than what there is, beyond the luck of the queries."""
        return self.gain.low > 0

    @property
    def reason(self) -> str:
        """What follows, in a sentence."""
        figures = f"{self.gain.difference:+.4f} ({self.gain.low:+.4f} to {self.gain.high:+.4f}) out of fold"
        if self.proved:
            return f"{self.chosen.setting} is better than {self.now.setting}: {figures}"
        return f"stay with {self.now.setting}: the best, {self.chosen.setting}, is not proved better, {figures}"

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "proved": self.proved, "reason": self.reason}


def tune_words(
    collection: Collection,
    held_out: HeldOut,
    encoder: Encoder | None = None,
    *,
    grid: WordGrid | None = None,
    k: int = 10,
    most: int = 50_000,
    seed: int = 0,
) -> WordTuning:
    """Rank the judged queries by every combination. Beyond `most` passages a sample stands for all.

    Raises:
        NotSupportedError: the collection has no lexical vectors.
        InputError: fewer than 20 queries have a relevant passage, or none of these is in the collection.
        SpaceMismatchError: the encoder is of another space.
    """
    grid, k, lexical = grid or WordGrid(), checked_count("k", k), lexical_of(collection)
    encoder = encoder or collection.required_encoder()
    collection.check(encoder)
    queries = held_out.answerable
    if len(queries) < LEAST:
        raise InputError(f"{len(queries)} judged queries choose nothing: expected at least {LEAST}")
    stored = _Stored.of(collection, held_out, most=most, seed=seed)
    texts = [query.text for query in queries]
    counted = WordCounts(lexical, stored.texts, texts)
    fusions_tried = list(dict.fromkeys([collection.fusion or USUAL, *grid.fusion]))
    depth = max(fusion.depth for fusion in fusions_tried)
    dense = _best((stored.vectors @ row for row in encoder.encode_queries(texts)), depth)
    rank = _Ranker(stored.names, {query.id: stored.qrels[query.id] for query in queries}, k)

    values: dict[tuple[float, float, Fusion | None], dict[str, float]] = {}
    now = (lexical.k1, lexical.b, collection.fusion or USUAL)
    for k1, b in dict.fromkeys([now[:2], *product(grid.k1, grid.b)]):
        words = counted.rankings(k1, b, depth)
        values[k1, b, None] = rank(words)
        for fusion in fusions_tried:
            values[k1, b, fusion] = rank([fused(one, two, fusion) for one, two in zip(dense, words, strict=True)])
    fusions = {key: value for key, value in values.items() if key[2] is not None}
    trials = sorted(
        (WordTrial(*key, float(np.mean(list(value.values())))) for key, value in values.items()),
        key=lambda trial: -trial.ndcg,
    )
    best = max(fusions, key=lambda key: sum(fusions[key].values()))
    found = {(trial.k1, trial.b, trial.fusion): trial for trial in trials}
    return WordTuning(
        collection.name,
        len(stored.names),
        len(queries),
        k,
        float(np.mean(list(rank(dense).values()))),
        found[lexical.k1, lexical.b, None].ndcg,
        found[now],
        found[best],
        paired_interval(fusions[now], _out_of_fold(fusions, seed), seed=seed),
        tuple(trials),
    )


class WordCounts:
    """How often the words of some queries stand in some texts: BM25 for any k1 and b, without counting again."""

    def __init__(self, bm25: Bm25, texts: Sequence[str], queries: Sequence[str]) -> None:
        self._asked = [bm25.asked(query) for query in queries]
        wanted = {word for asked in self._asked for word in asked}
        places: dict[str, list[tuple[int, int]]] = {}
        lengths = np.zeros(len(texts))
        for row, text in enumerate(texts):
            counts, lengths[row] = bm25.counts(text)
            for word in wanted & counts.keys():
                places.setdefault(word, []).append((row, counts[word]))
        self._places = {word: np.array(rows, np.int64).T for word, rows in places.items()}
        self._lengths = lengths / bm25.average_length
        self._texts = len(texts)

    def scores(self, k1: float, b: float) -> Iterator[Scores]:
        """The BM25 score of every text (texts,), for each query."""
        norm = k1 * (1 - b + b * self._lengths)
        for asked in self._asked:
            scores = np.zeros(self._texts)
            for word, times in asked.items():
                if word in self._places:
                    rows, counts = self._places[word]
                    idf = math.log1p((self._texts - len(rows) + 0.5) / (len(rows) + 0.5))
                    scores[rows] += times * idf * counts * (k1 + 1) / (counts + norm[rows])
            yield scores

    def rankings(self, k1: float, b: float, depth: int = Fusion.depth) -> list[Ranking]:
        """The best texts of each query; those without one of its words are none."""
        return [(rows[scores > 0], scores[scores > 0]) for rows, scores in _best(self.scores(k1, b), depth)]


def fused(dense: Ranking, words: Ranking, fusion: Fusion) -> Ranking:
    """Two rankings as one, by the formulas of the engine."""
    total: Counter[int] = Counter()
    weights = (fusion.dense_weight, fusion.lexical_weight)
    for (rows, scores), weight in zip((dense, words), weights, strict=True):
        rows, scores = rows[: fusion.depth], scores[: fusion.depth]
        if fusion.method == "rrf":
            parts = 1 / (fusion.rank_constant + np.arange(1, len(rows) + 1) / weight)
        else:
            deviation = scores.std(ddof=1) if len(scores) > 1 else 0.0
            parts = np.full(len(scores), 0.5)
            if deviation > 0:
                parts = 0.5 + (scores - scores.mean()) / (6 * deviation)
        for row, part in zip(rows.tolist(), parts.tolist(), strict=True):
            total[row] += part
    order = sorted(total, key=lambda row: -total[row])
    return np.array(order, np.int64), np.array([total[row] for row in order])


@dataclass(frozen=True)
class _Stored:
    """What is ranked: under its passage id, or its document where the judgements name documents."""

    names: Sequence[str]
    texts: Sequence[str]
    vectors: Vectors
    qrels: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, collection: Collection, held_out: HeldOut, *, most: int, seed: int) -> _Stored:
        judged = {name for grades in held_out.qrels.values() for name in grades}
        passages, documents = documents_judged(collection, judged)
        parts = dict(parts_in(collection)) if documents else {}
        answers = {*passages.values(), *(part for part, name in parts.items() if name in documents.values())}
        sample = sample_vectors(collection, most, seed=seed, always=answers)
        if not answers:
            raise InputError(f"none of the {len(judged)} judged passages is in collection {collection.name!r}")
        texts: list[str] = []
        for start in range(0, len(sample.ids), _AT_ONCE):
            ids = sample.ids[start : start + _AT_ONCE]
            found = fetch(collection, ids)
            texts += (found[name].text for name in ids)
        spelled = passages | documents
        qrels = {
            query: {spelled.get(name, name): grade for name, grade in grades.items()}
            for query, grades in held_out.qrels.items()
        }
        return cls([parts.get(name, name) for name in sample.ids], texts, sample.vectors, qrels)


@dataclass(frozen=True)
class _Ranker:
    """Rankings -> nDCG of each query."""

    names: Sequence[str]
    qrels: Mapping[str, Mapping[str, int]]
    k: int

    def __call__(self, rankings: Sequence[Ranking]) -> dict[str, float]:
        run = {}
        for query, (rows, _) in zip(self.qrels, rankings, strict=True):
            # the best part stands for its document
            names = dict.fromkeys(self.names[row] for row in rows.tolist())
            run[query] = {name: -float(place) for place, name in enumerate(names)}
        return ndcg(self.qrels, run, k=self.k)


def _best(scores: Iterator[Any] | Iterator[Scores], depth: int) -> list[Ranking]:
    """The `depth` best rows of each, equal ones in their order."""
    found = []
    for each in scores:
        rows = np.argsort(-each, kind="stable")[:depth]
        found.append((rows, np.asarray(each, np.float64)[rows]))
    return found


def _out_of_fold(values: Mapping[Any, Mapping[str, float]], seed: int) -> dict[str, float]:
    """Of every query the value of the combination that is best on the other folds."""
    queries = sorted(next(iter(values.values())))
    order = np.random.default_rng(seed).permutation(len(queries))
    found: dict[str, float] = {}
    for fold in range(_FOLDS):
        left_out = {queries[place] for place in order[fold::_FOLDS]}
        rest = [query for query in queries if query not in left_out]
        best = max(values, key=lambda key: sum(values[key][query] for query in rest))
        found |= {query: values[best][query] for query in left_out}
    return found
