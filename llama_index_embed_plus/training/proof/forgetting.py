"""Two encoders and something that neither was tuned for -> what the second one has forgotten.

The general set is one of:

- a `SimilaritySet`: pairs of texts with a score, as of STS benchmarks; measured is Spearman's correlation of the
  cosines with the scores. Both texts of a pair are embedded as the model compares texts (`encode_compared`). Encoders
  of one space differ by an adapter of queries alone, which does not touch such texts: there the first text of a pair is
  embedded as a query and the second as a passage, so that the adapter is seen.
- a `HeldOut` of another topic: nDCG over its own passages.
- by default, known items: passages of the collection (`corpus.general_passages` says which) are split after their
  first sentence (or after their title); the sentence is the query, the rest is the one passage that answers it, and it
  is looked for among the rests of all of them. This is the inverse cloze task (Lee, Chang and Toutanova 2019,
  arXiv 1906.00300). It measures whether a text still lies nearest to where it comes from. It sees collapse and drift
  of everything that was not trained on; it does not see finer skills, such as answering real questions about those
  passages: for that, give a set.

Guarantees: both encoders see the same texts; a text is at most `_MAX_CHARACTERS` long here, to bound the time.
Does not know: what loss is tolerable; see `proof`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.evaluate.retrieval.comparison import Change, mean_change
from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors
from qdrant_tools.errors import InputError
from qdrant_tools.metrics import ndcg
from qdrant_tools.records import Encoder, HeldOut, Passage, Query, Run, encode_compared
from qdrant_tools.same import respelled, spelled
from qdrant_tools.statistics import FEW, mean_half_width

Numbers = NDArray[np.float64]

_MAX_CHARACTERS = 400
_MIN_QUERY_WORDS, _MIN_REST_WORDS = 3, 5
# sentences in Chinese and Japanese end without a space
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n\s*\n|(?<=[。！？])")


@dataclass(frozen=True)
class SimilaritySet:
    """Pairs of texts and how similar people found them, on any scale: rows (first, second, score)."""

    pairs: tuple[tuple[str, str, float], ...]

    def __post_init__(self) -> None:
        scores = np.array([score for *_, score in self.pairs], np.float64)
        if len(scores) < 2 or not np.isfinite(scores).all() or len(set(scores.tolist())) < 2:
            raise InputError(f"a similarity set of {len(scores)} pairs, expected at least 2 different, finite scores")


@dataclass(frozen=True)
class KnownItems:
    """Passages to be found again by their own beginning; see `known_items`."""

    held_out: HeldOut


General = SimilaritySet | HeldOut | KnownItems


@dataclass(frozen=True)
class Forgetting:
    """What was measured on the general set: `items` pairs or queries."""

    kind: Literal["similarity", "retrieval", "known items"]
    items: int
    change: Change
    trained: int = 0
    """How many of the items are about passages that were trained on; only known for known items."""


def measure_forgetting(before: Encoder, after: Encoder, general: General, *, k: int = 10, seed: int = 0) -> Forgetting:
    """Measure both encoders on the general set.

    Raises:
        InputError: a retrieval set without passages.
    """
    if isinstance(general, SimilaritySet):
        gold = np.array([score for *_, score in general.pairs], np.float64)
        by_roles = before.space == after.space
        cosines = [_cosines(encoder, general, by_roles=by_roles) for encoder in (before, after)]
        return Forgetting("similarity", len(gold), correlation_change(gold, *cosines, seed=seed))
    is_known_items = isinstance(general, KnownItems)
    held_out = general.held_out if isinstance(general, KnownItems) else general
    if not held_out.passages:
        raise InputError("the general retrieval set has no passages: give them, both encoders embed them anew")
    names = spelled(held_out.relevant, {passage.id for passage in held_out.passages})
    qrels = respelled({query.id: held_out.qrels[query.id] for query in held_out.answerable}, names)
    first, second = (ndcg(qrels, run, k=k) for run in _runs(before, after, held_out, k=k))
    change = mean_change(f"ndcg@{k}", first, second, seed=seed)
    return Forgetting("known items" if is_known_items else "retrieval", len(qrels), change)


def correlation_change(
    gold: Numbers, before: Numbers, after: Numbers, *, seed: int = 0, resamples: int = 2000
) -> Change:
    """Compare the Spearman correlations of two score columns with `gold`: paired bootstrap over the rows.

    gold, before, after: (n,) each. A column of equal values has the correlation 0. Of few rows the ends are the farther
    of the bootstrap's and Student's, over the jackknife's pseudo-values (Tukey, "Bias and confidence in not quite large
    samples", 1958).
    """
    generator = np.random.default_rng(seed)
    # the same draws for both columns, which pairs them
    rows = np.stack([generator.integers(len(gold), size=len(gold)) for _ in range(resamples)])
    low, high = np.percentile(spearman(gold[rows], after[rows]) - spearman(gold[rows], before[rows]), [2.5, 97.5])
    first, second = float(spearman(gold, before)), float(spearman(gold, after))
    difference, half = second - first, 0.0
    if len(gold) < FEW:
        half = mean_half_width(_pseudo_values(gold, before, after, difference))
    low, high = min(float(low), difference - half), max(float(high), difference + half)
    return Change("spearman", first, second, difference, low, high)


def _pseudo_values(gold: Numbers, before: Numbers, after: Numbers, difference: float) -> Numbers:
    """(n,): what each row adds to the difference of the correlations."""
    count = len(gold)
    others = np.array([np.delete(np.arange(count), row) for row in range(count)])
    without = spearman(gold[others], after[others]) - spearman(gold[others], before[others])
    values: Numbers = count * difference - (count - 1) * without
    return values


def spearman(first: Numbers, second: Numbers) -> Numbers:
    """Spearman's rank correlation along the last axis. Ties share their mean rank; a constant side gives 0."""
    from scipy.stats import rankdata  # sentence-transformers brings it; only similarity sets need it

    a, b = (rankdata(values, axis=-1) for values in (first, second))
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    size = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    correlation: Numbers = (a * b).sum(axis=-1) / np.where(size > 0, size, 1.0)
    return correlation


def known_items(passages: Iterable[Passage], *, most: int) -> KnownItems | None:
    """Make known items of the first `most` passages that can be split; None if none can.

    A title in the metadata is the query if it has at least 3 words, else the first sentence is, else the first half of
    the words; what follows needs at least 5 words. Equal rests or equal queries are taken once.
    """
    queries: dict[str, Query] = {}
    rests: dict[str, Passage] = {}
    for passage in passages:
        split = _split(passage)
        if split is None or split[0] in queries or split[1] in rests:
            continue
        queries[split[0]], rests[split[1]] = Query(passage.id, split[0]), Passage(passage.id, split[1])
        if len(queries) == most:
            break
    if not queries:
        return None
    return KnownItems(
        HeldOut(tuple(queries.values()), {p.id: {p.id: 1} for p in rests.values()}, tuple(rests.values()))
    )


def _split(passage: Passage) -> tuple[str, str] | None:
    """(query, rest) of one passage, the query taken out of the rest."""
    text = passage.text.strip()
    title = str(passage.metadata.get("title") or "").strip()
    if len(title.split()) >= _MIN_QUERY_WORDS:
        first, rest = title, text.removeprefix(title).strip()
    else:
        # a text of one sentence has no rest
        first, rest = ([*_SENTENCE_END.split(text, maxsplit=1), ""])[:2]
    if len(first.split()) < _MIN_QUERY_WORDS or len(rest.split()) < _MIN_REST_WORDS:
        words = text.split()
        first, rest = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
    if len(first.split()) < _MIN_QUERY_WORDS or len(rest.split()) < _MIN_REST_WORDS:
        return None
    return first[:_MAX_CHARACTERS], rest[:_MAX_CHARACTERS]


def _runs(before: Encoder, after: Encoder, held_out: HeldOut, *, k: int) -> list[Run]:
    ids = [passage.id for passage in held_out.passages]
    texts = [passage.text for passage in held_out.passages]
    queries = held_out.answerable
    stored = {before.space: before.encode_passages(texts)}
    if after.space not in stored:
        stored[after.space] = after.encode_passages(texts)
    ids_of_queries, query_texts = [query.id for query in queries], [query.text for query in queries]
    return [
        PassageVectors(ids, stored[encoder.space]).search(ids_of_queries, encoder.encode_queries(query_texts), k=k)
        for encoder in (before, after)
    ]


def _cosines(encoder: Encoder, general: SimilaritySet, *, by_roles: bool) -> np.ndarray:
    left, right = [pair[0] for pair in general.pairs], [pair[1] for pair in general.pairs]
    first = encoder.encode_queries(left) if by_roles else encode_compared(encoder, left)
    second = encoder.encode_passages(right) if by_roles else encode_compared(encoder, right)
    return np.asarray((first * second).sum(axis=1), np.float64)
