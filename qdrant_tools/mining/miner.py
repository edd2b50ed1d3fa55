"""Labels and a collection -> training examples with hard negatives, from the vectors that are already stored.

For every labelled query the nearest passages are taken from the collection. What is or may be an answer is taken out
again: known positives, copies of them, what says the same as one of them or as the query, other parts of their
documents, and what scores too close to them (positive-aware mining, Moreira et al., "NV-Retriever", 2024). Negatives
are sampled from the rest.

Guarantees: nothing is embedded but the queries; memory is O(batch x depth), whatever the size of the collection; the
same seed gives the same examples, in whatever order the queries come; a query with too few candidates gets fewer
negatives, never random ones; every removed candidate is counted under the rule that removed it.

Does not know: where labels come from. A label of weight 0 or less makes no positive and is not used otherwise.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import StoredPassage, fetch, fetch_points, mismatch, stored_ids
from qdrant_tools.errors import InputError
from qdrant_tools.log.records import is_redacted
from qdrant_tools.mining.candidates import document_of, find_candidates
from qdrant_tools.mining.origins import Origin, origins_by_query
from qdrant_tools.mining.rules import Candidates, Judge, MiningSettings, Positives, eligible, is_copy, sampling_order
from qdrant_tools.records import SYNTHETIC, Encoder, Example, Label, Progress, ScoredText, Vectors
from qdrant_tools.same import id_key, query_key
from qdrant_tools.validation import brief, checked_number, checked_unit_vectors

logger = logging.getLogger(__name__)

PREFETCHED_BATCHES = 2
"""Batches whose search runs while an earlier one is worked on: enough to keep several processes busy."""

MOST_NAMED = 1000
"""Ids that are looked up before a run begins, and unknown ones that are kept for its message."""

BINS_PER_UNIT = 50
"""Histogram bins of scores are 0.02 wide."""
RULES = (
    "known_positive",
    "skipped",
    "same_document",
    "close_to_positive",
    "near_duplicate",
    "same_text",
    "judged_relevant",
)
"""Rules that remove candidates, in their order."""
OTHER_LOSSES = ("unknown_positive", "without_text", "redacted", "no_positive", "too_few", "below_minimum")
SCORES = ("positives", "candidates", "negatives")

WeightsByQuery = Mapping[str, Mapping[str, float]]
"""Query -> positive passage -> weight."""
WeightedPassage = tuple[StoredPassage, float]
Sampled = dict[int, StoredPassage]
"""Index of the candidate -> its passage."""


@dataclass
class MiningStats:
    """What a run has counted, of constant size. `from_row(as_row())` is equal, so that a run can be resumed.

    `counts` are by name. `histograms` are those of the scores of positives, candidates and negatives: bin -> count,
    where bin b holds the scores from b / 50 up to (b + 1) / 50.
    """

    counts: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in SCORES})

    def add_scores(self, name: str, scores: ArrayLike) -> None:
        """Count scores, of any shape."""
        # floor before the conversion, which cuts towards 0 and would give scores around 0 one bin of double width
        bins = np.floor(np.asarray(scores, dtype=np.float64).ravel() * BINS_PER_UNIT).astype(np.int64)
        distinct, counts = np.unique(bins, return_counts=True)
        self.histograms[name].update(dict(zip(distinct.tolist(), counts.tolist())))

    def discarded(self) -> dict[str, int]:
        """What each rule removed, and what else was lost; only what is not 0."""
        return {name: self.counts[name] for name in (*RULES, *OTHER_LOSSES) if self.counts[name]}

    def as_row(self) -> dict[str, Any]:
        return {
            "counts": {name: int(count) for name, count in sorted(self.counts.items())},
            "histograms": {
                name: {str(bin_): count for bin_, count in sorted(histogram.items())}
                for name, histogram in self.histograms.items()
            },
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> MiningStats:
        histograms = {
            name: Counter({int(bin_): count for bin_, count in row["histograms"][name].items()}) for name in SCORES
        }
        return cls(Counter(row["counts"]), histograms)


@dataclass(frozen=True)
class MiningResult:
    """The examples, in the order in which the queries first occur in the labels, and what was left out.

    `discarded` holds the counts that are not 0. Candidates: `known_positive`, `skipped`, `same_document`,
    `close_to_positive`; of those sampled: `without_text`, `near_duplicate`, `same_text` (as that of a positive or of
    the query), `judged_relevant`. Labels:
    `unknown_positive`, whose passage is not in the collection or has no text. Queries, which give no example:
    `redacted`, and `no_positive`, left without any. Examples: `too_few`, with fewer negatives than asked for, and
    `below_minimum`, left out for that. `stats` has all counts.
    """

    examples: list[Example] = field(default_factory=list)
    discarded: Mapping[str, int] = field(default_factory=dict)
    stats: MiningStats = field(default_factory=MiningStats, compare=False)
    notes: tuple[str, ...] = ()
    """What a person should know: of unknown positives an example, and what the collection has in its place."""


def mine(
    collection: Collection,
    labels: Iterable[Label],
    encoder: Encoder,
    *,
    settings: MiningSettings | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> MiningResult:
    """Mine hard negatives for every query that has a positive label. `progress` receives the number of queries done.

    Raises:
        SpaceMismatchError: the collection was filled by another encoder, so its scores would mean nothing.
        InputError: none of the positives is in the collection: the labels are of other ids.
    """
    listed = list(labels) if isinstance(labels, Iterator) else labels
    positives = positives_by_query(listed)
    synthetic, origins = synthetic_queries(listed), origins_by_query(listed)
    miner = Miner(collection, encoder, settings or MiningSettings(), judge, synthetic, origins)
    miner.check_ids(positives)
    examples = list(miner.examples(positives, progress=progress))
    return MiningResult(examples, miner.stats.discarded(), miner.stats, miner.notes())


def positives_by_query(labels: Iterable[Label]) -> dict[str, dict[str, float]]:
    """Query -> positive passage -> its largest weight, in the order of the labels.

    A pair that any label calls relevant is a positive: the worse mistake is to train against an answer. Spellings of
    one query (`same.query_key`) have their positives together, under the first of them that has any; of the
    spellings of one id (`same.id_key`) the first stays.

    Raises:
        InputError: something is no `Label`, or its weight is no finite number.
    """
    if not isinstance(labels, Iterable):
        raise InputError(f"labels are {brief(labels)}, expected several Label")
    positives: dict[str, dict[str, float]] = {}
    spelling: dict[str, str] = {}
    names: dict[tuple[str, str], str] = {}
    for label in labels:
        if not isinstance(label, Label):
            raise InputError(f"a label is {brief(label)}, expected a Label")
        checked_number(f"the weight of the label for {brief(label.query)}", label.weight)
        if label.weight > 0:
            query = spelling.setdefault(query_key(label.query), label.query)
            weights = positives.setdefault(query, {})
            passage_id = names.setdefault((query, id_key(label.passage_id)), label.passage_id)
            weights[passage_id] = max(label.weight, weights.get(passage_id, 0.0))
    return positives


def synthetic_queries(labels: Iterable[Label]) -> frozenset[str]:
    """The keys (`same.query_key`) of the queries whose positives have no other evidence than `SYNTHETIC`."""
    synthetic: set[str] = set()
    real: set[str] = set()
    for label in labels:
        if label.weight > 0:
            (synthetic if label.evidence == SYNTHETIC else real).add(query_key(label.query))
    return frozenset(synthetic - real)


@dataclass(frozen=True)
class MinedQuery:
    """A query, its positives, and the candidates that may be sampled as its negatives, in sampling order.

    `positive_scores` are those of `positives`. With `several="each"` a query gives one of these per positive;
    `positive_vectors` (n, dimension) and `positive_points` are always those of all positives of the query, and
    `answers` are the keys of their texts and of the query.
    """

    query: str
    weight: float
    positives: list[StoredPassage]
    positive_scores: Sequence[float]
    positive_vectors: Vectors
    positive_points: frozenset[str | int]
    answers: frozenset[str]
    candidates: Candidates
    order: list[int]


@dataclass(frozen=True)
class PendingBatch:
    """Queries whose search is running: `candidates()` waits for the answer.

    `stored` are the positives that are in the collection, by query, with their weights; `vectors` (n, dimension) are
    those of these queries, None if there are none; `counts` says what was left out.
    """

    queries: WeightsByQuery
    stored: dict[str, list[WeightedPassage]]
    counts: Counter[str]
    vectors: Vectors | None
    candidates: Callable[[], list[Candidates]]


class Miner:
    """Mines batch by batch, and counts in `stats`."""

    def __init__(
        self,
        collection: Collection,
        encoder: Encoder,
        settings: MiningSettings,
        judge: Judge | None = None,
        synthetic: Container[str] = (),
        origins: Mapping[str, Origin] | None = None,
    ) -> None:
        """`synthetic` are the keys of queries whose examples are marked as that, `origins` those of queries of a
        log."""
        collection.check(encoder)
        self.synthetic, self.origins = synthetic, origins or {}
        self.collection, self.encoder, self.settings, self.judge = collection, encoder, settings, judge
        self.stats = MiningStats()
        self.unknown: list[str] = []
        """Some ids of positives that are not in the collection."""

    def examples(self, positives: WeightsByQuery, *, progress: Progress | None = None) -> Iterator[Example]:
        """Yield the examples of each query."""
        for batch, examples in self.batches(positives.items()):
            yield from examples
            if progress is not None:
                progress(len(batch))

    def batches(
        self, positives: Iterable[tuple[str, Mapping[str, float]]]
    ) -> Iterator[tuple[WeightsByQuery, list[Example]]]:
        """Yield some queries and their examples at a time.

        The search of the next batches runs meanwhile; `stats` does not count them yet.
        """
        queries = iter(positives)
        with ThreadPoolExecutor(PREFETCHED_BATCHES, "mining") as threads:
            pending = deque[PendingBatch]()
            while batch := dict(islice(queries, self.settings.batch_size)):
                try:
                    pending.append(self._start(batch, threads))
                except Exception:
                    # an error of this batch must not cost those before it: a resumed run would do them again
                    yield from map(self._finish, pending)
                    raise
                if len(pending) > PREFETCHED_BATCHES:
                    yield self._finish(pending.popleft())
            yield from map(self._finish, pending)

    def check_ids(self, positives: WeightsByQuery) -> None:
        """Look some ids of positives up, and say at once if most are not in the collection.

        Raises:
            InputError: none is; the message has one of them, and what the collection has in its place.
        """
        readable = (weights for query, weights in positives.items() if query.strip() and not is_redacted(query))
        ids = list(islice(dict.fromkeys(name for weights in readable for name in weights), MOST_NAMED))
        found = stored_ids(self.collection, ids)
        missing = [name for name in ids if name not in found]
        if 2 * len(missing) <= len(ids):
            return
        several = f"{len(missing)} of the first {len(ids)}" if len(missing) < len(ids) else f"none of the {len(ids)}"
        example = mismatch(self.collection, missing)
        if not found:
            raise InputError(
                f"{several} positives of the labels is in the collection: {example}; index these passages, or write "
                "the ids as the collection does"
            )
        logger.warning("%s positives of the labels are not in the collection: %s", several, example)

    def notes(self) -> tuple[str, ...]:
        """What a person should know of the run so far."""
        if not self.unknown:
            return ()
        count = self.stats.counts["unknown_positive"]
        return (
            f"{count} positives are not in the collection, or have no text: {mismatch(self.collection, self.unknown)}",
        )

    def mined_queries(self, positives: WeightsByQuery) -> list[MinedQuery]:
        """What may be sampled for some queries, before anything is."""
        return self._apply_rules(self._start(positives))

    def _start(self, queries: WeightsByQuery, threads: ThreadPoolExecutor | None = None) -> PendingBatch:
        """Read the positives, embed the queries and begin the search, in another thread if there are any."""
        stored, counts = self._stored_positives(queries)
        counts["queries"] = len(queries)
        if not stored:
            # `list()` is the empty answer
            return PendingBatch(queries, stored, counts, None, list)
        vectors = checked_unit_vectors(
            self.encoder.encode_queries(list(stored)),
            dimension=self.collection.dimension,
            count=len(stored),
            what=f"queries encoded by {self.encoder.space!r}",
        )
        arguments = (self.collection, list(stored), vectors, list(map(len, stored.values())), self.settings)
        if threads is None:
            return PendingBatch(queries, stored, counts, vectors, lambda: find_candidates(*arguments))
        return PendingBatch(queries, stored, counts, vectors, threads.submit(find_candidates, *arguments).result)

    def _finish(self, batch: PendingBatch) -> tuple[WeightsByQuery, list[Example]]:
        mined = self._apply_rules(batch)
        sampled = self._sample(mined)
        examples = [
            example
            for query, (negatives, promoted) in zip(mined, sampled, strict=True)
            if (example := self._example(query, negatives, promoted)) is not None
        ]
        self.stats.add_scores("negatives", [n.score or 0.0 for example in examples for n in example.negatives])
        return batch.queries, examples

    def _stored_positives(self, queries: WeightsByQuery) -> tuple[dict[str, list[WeightedPassage]], Counter[str]]:
        """The positives that are in the collection, of the queries that have any; and what was left out."""
        readable = {query: weights for query, weights in queries.items() if query.strip() and not is_redacted(query)}
        # sorted: a set of strings has another order in every process
        ids = sorted({passage_id for weights in readable.values() for passage_id in weights})
        fetched = fetch(self.collection, ids, with_vectors=True)
        # a point may lack the serving vector: after a forced way back from a promotion in place, for instance
        usable = {name: passage for name, passage in fetched.items() if passage.text and passage.vector is not None}
        self.unknown += [name for name in ids if name not in fetched][: MOST_NAMED - len(self.unknown)]
        stored: dict[str, list[WeightedPassage]] = {}
        for query, weights in readable.items():
            found: dict[str, WeightedPassage] = {}
            for name, weight in weights.items():
                if (passage := usable.get(name)) is not None:
                    # two ids may be two ways of writing one
                    found[passage.id] = passage, max(weight, found.get(passage.id, (passage, weight))[1])
            stored[query] = list(found.values())
        counts = Counter(
            redacted=len(queries) - len(readable),
            unknown_positive=sum(p not in usable for weights in readable.values() for p in weights),
            no_positive=sum(not passages for passages in stored.values()),
        )
        return {query: passages for query, passages in stored.items() if passages}, counts

    def _apply_rules(self, batch: PendingBatch) -> list[MinedQuery]:
        candidates = batch.candidates()
        # counted here and not in `_start`: the state of a resumed run must not know batches that are only searched for
        self.stats.counts.update(batch.counts)
        if batch.vectors is None:
            return []
        self.stats.add_scores("candidates", np.concatenate([ranking.scores for ranking in candidates]))
        mined: list[MinedQuery] = []
        for (query, passages), vector, ranking in zip(batch.stored.items(), batch.vectors, candidates, strict=True):
            mined += self._mined_query(query, passages, vector, ranking)
        self.stats.add_scores("positives", np.concatenate([query.positive_scores for query in mined]))
        return mined

    def _mined_query(
        self,
        query: str,
        weighted: list[WeightedPassage],
        vector: Vectors,
        candidates: Candidates,
    ) -> Iterator[MinedQuery]:
        """One for all positives, or with `several="each"` one per positive. `vector` (dimension,) is the query's."""
        passages = [passage for passage, _ in weighted]
        vectors = np.stack([passage.vector for passage in passages if passage.vector is not None])
        scores = vectors @ vector
        known = Positives([passage.point_id for passage in passages], scores)
        answers = frozenset(map(query_key, (query, *(passage.text for passage in passages))))
        documents = [document_of(passage.metadata, self.settings) for passage in passages]
        indices = list(range(len(passages)))
        for group in [[index] for index in indices] if self.settings.several == "each" else [indices]:
            positives = [passages[index] for index in group]
            # documents of all positives, with "each" too: another part of any of these is no safe negative
            compared = Positives([passage.point_id for passage in positives], scores[group], documents)
            remaining, removed = eligible(candidates, known, compared, self.settings)
            self.stats.counts.update(removed)
            yield MinedQuery(
                query=query,
                weight=fmean(weighted[index][1] for index in group),
                positives=positives,
                positive_scores=scores[group].tolist(),
                positive_vectors=vectors,
                positive_points=frozenset(known.points),
                answers=answers,
                candidates=candidates,
                order=sampling_order(candidates, remaining, self.settings, query),
            )

    def _sample(self, mined: Sequence[MinedQuery]) -> list[tuple[Sampled, Sampled]]:
        """Sample until every query has its negatives or no candidates left; returns (negatives, promoted) of each.

        Only what is sampled is looked at closely: a copy of a positive, or what the judge finds relevant, makes room
        for the next in line.
        """
        negatives: list[Sampled] = [{} for _ in mined]
        promoted: list[Sampled] = [{} for _ in mined]
        queues = [list(query.order) for query in mined]
        while True:
            missing = [self.settings.negatives - len(sampled) for sampled in negatives]
            turn = [(row, index) for row, queue in enumerate(queues) for index in queue[: missing[row]]]
            if not turn:
                return list(zip(negatives, promoted))
            queues = [queue[count:] for queue, count in zip(queues, missing)]
            passages = self._without_copies(mined, turn)
            for (row, index, passage), relevant in zip(passages, self._relevant(mined, passages), strict=True):
                if not relevant:
                    negatives[row][index] = passage
                elif self.judge is not None and self.judge.promote:
                    promoted[row][index] = passage

    def _without_copies(
        self, mined: Sequence[MinedQuery], turn: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, StoredPassage]]:
        """The sampled candidates (query, index) with their passages, without what says the same as a positive."""
        similarity = self.settings.duplicate_similarity
        points = [(row, index, mined[row].candidates.points[index]) for row, index in turn]
        # by id: scores of compressed vectors can hide a known positive from `eligible`
        unknown = [(row, index, point) for row, index, point in points if point not in mined[row].positive_points]
        self.stats.counts["known_positive"] += len(points) - len(unknown)
        distinct = list(dict.fromkeys(point for _, _, point in unknown))
        stored = fetch_points(self.collection, distinct, with_vectors=similarity is not None)
        found = [(row, index, stored.get(point)) for row, index, point in unknown]
        with_text = [(row, index, passage) for row, index, passage in found if passage and passage.text]
        self.stats.counts["without_text"] += len(unknown) - len(with_text)
        others = with_text
        if similarity is not None:
            others = [
                (row, index, passage)
                for row, index, passage in with_text
                if passage.vector is not None and not is_copy(passage.vector, mined[row].positive_vectors, similarity)
            ]
        self.stats.counts["near_duplicate"] += len(with_text) - len(others)
        safe = [entry for entry in others if query_key(entry[2].text) not in mined[entry[0]].answers]
        self.stats.counts["same_text"] += len(others) - len(safe)
        return safe

    def _relevant(self, mined: Sequence[MinedQuery], passages: Sequence[tuple[int, int, StoredPassage]]) -> list[bool]:
        if self.judge is None:
            return [False] * len(passages)
        verdicts = self.judge.verdicts([(mined[row].query, passage.text) for row, _, passage in passages])
        self.stats.counts["judged"] += len(verdicts)
        self.stats.counts["judged_relevant"] += sum(verdicts)
        return verdicts

    def _example(self, mined: MinedQuery, sampled: Sampled, promoted: Sampled) -> Example | None:
        def scored(passages: Sampled) -> tuple[ScoredText, ...]:
            return tuple(
                ScoredText(passage.id, passage.text, float(mined.candidates.scores[index]))
                for index, passage in sorted(passages.items())  # candidates are numbered best first
            )

        key = query_key(mined.query)
        origin = self.origins.get(key, Origin())
        positives = tuple(
            ScoredText(passage.id, passage.text, score, origin.debiased.get(id_key(passage.id)))
            for passage, score in zip(mined.positives, mined.positive_scores, strict=True)
        )
        negatives = scored(sampled)
        # counted also for an example that is left out below: `no_negatives` is what an audit reports
        self.stats.counts["too_few"] += len(negatives) < self.settings.negatives
        self.stats.counts["no_negatives"] += not negatives
        if len(negatives) < self.settings.minimum:
            self.stats.counts["below_minimum"] += 1
            return None
        self.stats.counts["examples"] += 1
        self.stats.counts["negatives"] += len(negatives)
        # a sum: over the examples that have a negative its mean says how deep was drawn
        self.stats.counts["deepest_ranks"] += max(sampled, default=-1) + 1
        self.stats.counts["with_negatives"] += bool(negatives)
        # what a judge makes an answer was never clicked
        evidence = "" if promoted else origin.evidence
        answers = positives + scored(promoted)
        return Example(mined.query, answers, negatives, mined.weight, key in self.synthetic, evidence)
