"""Labels and a collection -> training examples with hard negatives, from the vectors that are already stored.

For every labelled query the nearest passages are taken from the collection, and what is or may be an answer is taken
out again, in this order: known positives; near-duplicates of a positive; what scores too close to the positive
(positive-aware mining, Moreira et al., "NV-Retriever", 2024, TopK-PercPos). From the rest negatives are drawn.

Guarantees: nothing is embedded but the queries; memory is O(batch x depth), whatever the size of the collection; the
same seed gives the same examples, in whatever order the queries come; a query with too few candidates gets fewer
negatives, never random ones; every removed candidate is counted under the rule that removed it.

Does not know: where labels come from. A label of weight 0 or less makes no positive and is not used otherwise.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.handle import Collection, StoredPassage, fetch, plain_id
from qdrant_tools.records import Encoder, Example, Label, Progress, ScoredText, Vectors
from qdrant_tools.translate import engine_errors
from qdrant_tools.vectors import checked_unit_vectors

Sampling = Literal["top", "random", "softmax"]


@dataclass(frozen=True)
class MiningSettings:
    """Which candidates are looked at, which are removed, and how negatives are drawn from the rest."""

    negatives: int = 4
    """Per query, at most."""
    depth: int = 50
    """Candidates looked at per query, not counting its known positives."""
    skip: int = 0
    """Candidates passed over at the top of the ranking."""
    max_share: float | None = 0.95
    """Share of the positive's score that a negative may reach; see `score_limit`. None switches the rule off."""
    duplicate_similarity: float | None = 0.95
    """Similarity to a positive from which on a candidate counts as its copy. None switches the rule off."""
    sampling: Sampling = "top"
    temperature: float = 0.05
    """Of softmax sampling over scores: small is close to top, large is close to random."""
    seed: int = 0
    hnsw_ef: int | None = None
    exact: bool = False
    batch_size: int = 64
    """Queries at a time."""

    def __post_init__(self) -> None:
        for name, least in (("negatives", 1), ("depth", 1), ("skip", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.skip >= self.depth:
            raise InputError(f"skip is {self.skip} of depth {self.depth}: no candidate is left")
        if self.max_share is not None and not 0 < self.max_share <= 1:
            raise InputError(f"max_share is {self.max_share}, expected a share above 0 and up to 1, or None")
        if self.duplicate_similarity is not None and not -1 <= self.duplicate_similarity <= 1:
            raise InputError(f"duplicate_similarity is {self.duplicate_similarity}, expected -1 to 1, or None")
        if self.sampling not in ("top", "random", "softmax"):
            raise InputError(f"sampling is {self.sampling!r}, expected 'top', 'random' or 'softmax'")
        if self.temperature <= 0:
            raise InputError(f"temperature is {self.temperature}, expected above 0")


@dataclass(frozen=True)
class MiningResult:
    """The examples, in the order in which the queries first occur in the labels, and what was left out.

    `discarded` holds the counts that are not 0. Candidates: `known_positive`, `near_duplicate`, `close_to_positive`,
    `skipped`. Labels: `unknown_positive`, whose passage is not in the collection. Queries: `no_positive`, left without
    any, which give no example, and `too_few`, with fewer negatives than asked for.
    """

    examples: list[Example] = field(default_factory=list)
    discarded: Mapping[str, int] = field(default_factory=dict)


def mine(
    collection: Collection,
    labels: Iterable[Label],
    encoder: Encoder,
    *,
    settings: MiningSettings | None = None,
    progress: Progress | None = None,
) -> MiningResult:
    """Mine hard negatives for every query that has a positive label. `progress` receives the number of queries done.

    Raises:
        SpaceMismatchError: the collection was filled by another encoder, so its scores would mean nothing.
    """
    discarded: Counter[str] = Counter()
    examples = list(
        iter_examples(collection, labels, encoder, settings or MiningSettings(), discarded, progress=progress)
    )
    return MiningResult(examples, {rule: count for rule, count in discarded.items() if count})


def score_limit(positive_scores: NDArray[np.float32], max_share: float) -> float:
    """The score up to which a candidate is a safe negative.

    With several positives the lowest counts: a candidate must stay clear of every one. For a positive score p the
    limit is p - (1 - max_share) * |p|, which is max_share * p for p >= 0 and lies below p for negative scores too.
    """
    lowest = float(positive_scores.min())
    return lowest - (1.0 - max_share) * abs(lowest)


def iter_examples(
    collection: Collection,
    labels: Iterable[Label],
    encoder: Encoder,
    settings: MiningSettings,
    discarded: Counter[str],
    *,
    progress: Progress | None = None,
) -> Iterator[Example]:
    """As `mine`, one batch of queries at a time; `discarded` is counted up on the way."""
    collection.check(encoder)
    queries = iter(positives_by_query(labels).items())
    while batch := dict(islice(queries, settings.batch_size)):
        yield from _mine_batch(collection, batch, encoder, settings, discarded)
        if progress is not None:
            progress(len(batch))


def positives_by_query(labels: Iterable[Label]) -> dict[str, dict[str, float]]:
    """Query -> positive passage -> its largest weight, in the order of the labels.

    A pair that any label calls relevant is a positive: the worse mistake is to train against an answer.
    """
    positives: dict[str, dict[str, float]] = {}
    for label in labels:
        if label.weight > 0:
            weights = positives.setdefault(label.query, {})
            weights[label.passage_id] = max(label.weight, weights.get(label.passage_id, 0.0))
    return positives


@dataclass(frozen=True)
class _Candidates:
    """The neighbours of one query, nearest first."""

    ids: list[str]
    vectors: Vectors


def _mine_batch(
    collection: Collection,
    batch: Mapping[str, Mapping[str, float]],
    encoder: Encoder,
    settings: MiningSettings,
    discarded: Counter[str],
) -> Iterator[Example]:
    stored = fetch(collection, sorted({p for weights in batch.values() for p in weights}), with_vectors=True)
    discarded["unknown_positive"] += sum(p not in stored for weights in batch.values() for p in weights)
    known = {query: [stored[p] for p in weights if p in stored] for query, weights in batch.items()}
    discarded["no_positive"] += sum(not positives for positives in known.values())
    known = {query: positives for query, positives in known.items() if positives}
    if not known:
        return
    vectors = checked_unit_vectors(
        encoder.encode_queries(list(known)),
        dimension=collection.dimension,
        count=len(known),
        what=f"queries encoded by {encoder.space!r}",
    )
    limit = settings.depth + max(map(len, known.values()))
    chosen = [
        _choose(query, vector, positives, candidates, settings, discarded)
        for (query, positives), vector, candidates in zip(
            known.items(), vectors, _nearest(collection, vectors, limit, settings), strict=True
        )
    ]
    texts = fetch(collection, sorted({passage_id for negatives in chosen for passage_id, _ in negatives}))
    for (query, positives), negatives in zip(known.items(), chosen, strict=True):
        discarded["too_few"] += len(negatives) < settings.negatives
        yield Example(
            query,
            tuple(ScoredText(positive.id, positive.text) for positive in positives),
            tuple(ScoredText(passage_id, texts[passage_id].text, score) for passage_id, score in negatives),
            float(np.mean([batch[query][positive.id] for positive in positives])),
        )


def _nearest(collection: Collection, vectors: Vectors, limit: int, settings: MiningSettings) -> Iterator[_Candidates]:
    template = models.QueryRequest(
        using=collection.layout.vector or None,
        params=collection.search_params(hnsw_ef=settings.hnsw_ef, exact=settings.exact),
        limit=limit,
        with_payload=[collection.layout.id],
        with_vector=True,
    )
    requests = [template.model_copy(update={"query": row}) for row in vectors.tolist()]
    with engine_errors(f"search collection {collection.name!r}"):
        responses = collection.client.query_batch_points(collection.name, requests)
    for response in responses:
        ids = [collection.layout.passage(p.payload, point_id=plain_id(p.id)).id for p in response.points]
        rows = [collection.layout.dense(point.vector) for point in response.points]
        yield _Candidates(ids, np.asarray(rows, dtype=np.float32).reshape(len(ids), collection.dimension))


def _ordered(candidates: _Candidates, query_vector: NDArray[np.float32]) -> tuple[_Candidates, NDArray[np.float32]]:
    """Candidates by score, best first, and the scores. Scores that differ by rounding only go by passage id."""
    scores = candidates.vectors @ query_vector
    order = sorted(range(len(scores)), key=lambda index: (-round(float(scores[index]), 5), candidates.ids[index]))
    return _Candidates([candidates.ids[index] for index in order], candidates.vectors[order]), scores[order]


def _choose(
    query: str,
    query_vector: NDArray[np.float32],
    positives: Sequence[StoredPassage],
    candidates: _Candidates,
    settings: MiningSettings,
    discarded: Counter[str],
) -> list[tuple[str, float]]:
    """Apply the rules in their order, then draw. Returns (passage id, score) of the negatives, best first."""
    positive_vectors = np.stack([positive.vector for positive in positives if positive.vector is not None])
    positive_ids = {positive.id for positive in positives}
    candidates, scores = _ordered(candidates, query_vector)
    rules = {
        "known_positive": np.array([passage_id in positive_ids for passage_id in candidates.ids], dtype=bool),
        "near_duplicate": _near_duplicates(candidates.vectors, positive_vectors, settings.duplicate_similarity),
        "close_to_positive": _too_close(scores, positive_vectors @ query_vector, settings.max_share),
    }
    eligible = np.flatnonzero(~rules["known_positive"])[: settings.depth]
    discarded["known_positive"] += int(rules["known_positive"].sum())
    discarded["skipped"] += len(eligible[: settings.skip])
    eligible = eligible[settings.skip :]
    for rule in ("near_duplicate", "close_to_positive"):
        hit = rules[rule][eligible]
        discarded[rule] += int(hit.sum())
        eligible = eligible[~hit]
    ids = [candidates.ids[index] for index in eligible]
    return [
        (ids[index], float(scores[eligible][index])) for index in draw(ids, scores[eligible], settings, query=query)
    ]


def _near_duplicates(vectors: Vectors, positives: Vectors, similarity: float | None) -> NDArray[np.bool_]:
    if similarity is None or not len(vectors):
        return np.zeros(len(vectors), dtype=bool)
    nearest: NDArray[np.float32] = (vectors @ positives.T).max(axis=1)
    return nearest >= similarity


def _too_close(
    scores: NDArray[np.float32], positive_scores: NDArray[np.float32], max_share: float | None
) -> NDArray[np.bool_]:
    if max_share is None:
        return np.zeros(len(scores), dtype=bool)
    return scores > score_limit(positive_scores, max_share)


def draw(ids: Sequence[str], scores: NDArray[np.float32], settings: MiningSettings, *, query: str) -> NDArray[np.int64]:
    """Indices of the drawn candidates, in their order (which is best first).

    Random and softmax draw without replacement (softmax by the Gumbel top-k trick, Kool et al., "Stochastic beams
    and where to find them", ICML 2019). A candidate's luck is a hash of seed, query and its id, so it does not
    depend on the other candidates.
    """
    keys: NDArray[np.float64] = scores.astype(np.float64)
    if settings.sampling != "top":
        luck = _uniform(ids, settings.seed, query)
        keys = luck if settings.sampling == "random" else keys / settings.temperature - np.log(-np.log(luck))
    return np.sort(np.argsort(-keys, kind="stable")[: settings.negatives])


def _uniform(ids: Sequence[str], seed: int, query: str) -> NDArray[np.float64]:
    """One number in (0, 1) per id."""
    start = hashlib.blake2b(f"{seed}\0{query}\0".encode(), digest_size=8)
    numbers = np.empty(len(ids))
    for index, passage_id in enumerate(ids):
        digest = start.copy()
        digest.update(passage_id.encode())
        numbers[index] = (int.from_bytes(digest.digest(), "big") + 0.5) / 2.0**64
    return numbers
