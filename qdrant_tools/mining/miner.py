"""Labels and a collection -> training examples with hard negatives, from the vectors that are already stored.

For every labelled query the nearest passages are taken from the collection, and what is or may be an answer is taken
out again: known positives, copies of them, other parts of their documents, and what scores too close to them
(positive-aware mining, Moreira et al., "NV-Retriever", 2024). From the rest negatives are drawn.

Guarantees: nothing is embedded but the queries; memory is O(batch x depth), whatever the size of the collection; the
same seed gives the same examples, in whatever order the queries come; a query with too few candidates gets fewer
negatives, never random ones; every removed candidate is counted under the rule that removed it.

Does not know: where labels come from. A label of weight 0 or less makes no positive and is not used otherwise.

The account of a mining run: how many of what, and how the scores are distributed.

Guarantees: constant size, whatever the run; goes to JSON and back, so that a run can be resumed. Does not know:
collections, examples.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qdrant_tools.collections.collection import Collection, StoredPassage, fetch, fetch_points
from qdrant_tools.errors import InputError
from qdrant_tools.log.records import is_redacted
from qdrant_tools.mining.candidates import document_of, find_candidates
from qdrant_tools.mining.rules import Candidates, Judge, MiningSettings, Positives, drawing_order, eligible, is_copy
from qdrant_tools.records import Encoder, Example, Label, Progress, ScoredText, Vectors
from qdrant_tools.validation import checked_unit_vectors

BINS_PER_UNIT = 50
"""Histogram bins are 0.02 wide."""

REMOVED = ("known_positive", "skipped", "same_document", "close_to_positive", "near_duplicate", "judged_relevant")
"""Rules that remove candidates, in their order."""
OTHER_LOSSES = ("unknown_positive", "without_text", "redacted", "no_positive", "too_few", "below_minimum")
SCORES = ("positives", "candidates", "negatives")


@dataclass
class Tally:
    """`counts` by name; `histograms` of the scores of positives, candidates and negatives, as bin -> count, where bin b
    holds scores from b / 50 up to (b + 1) / 50."""

    counts: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in SCORES})

    def add_scores(self, name: str, scores: ArrayLike) -> None:
        """Count scores, of any shape."""
        bins = np.floor(np.asarray(scores, dtype=np.float64).ravel() * BINS_PER_UNIT).astype(np.int64)
        found, counts = np.unique(bins, return_counts=True)
        self.histograms[name].update(dict(zip(found.tolist(), counts.tolist())))

    def discarded(self) -> dict[str, int]:
        """What each rule removed, and what else was lost; only what is not 0."""
        return {name: self.counts[name] for name in (*REMOVED, *OTHER_LOSSES) if self.counts[name]}

    def as_row(self) -> dict[str, Any]:
        return {
            "counts": {name: int(count) for name, count in sorted(self.counts.items())},
            "histograms": {name: {str(b): n for b, n in sorted(its.items())} for name, its in self.histograms.items()},
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Tally:
        histograms = {name: Counter({int(b): n for b, n in row["histograms"][name].items()}) for name in SCORES}
        return cls(Counter(row["counts"]), histograms)


AHEAD = 2
"""Batches that are searched for while one is worked on: enough to keep several processes busy."""

Drawn = dict[int, StoredPassage]
"""Number of the candidate -> its passage."""


@dataclass(frozen=True)
class MiningResult:
    """The examples, in the order in which the queries first occur in the labels, and what was left out.

    `discarded` holds the counts that are not 0. Candidates: `known_positive`, `skipped`, `same_document`,
    `close_to_positive`; of those drawn: `without_text`, `near_duplicate`, `judged_relevant`. Labels:
    `unknown_positive`, whose passage is not in the collection or has no text. Queries, which give no example:
    `redacted`, and `no_positive`, left without any. Examples: `too_few`, with fewer negatives than asked for, and
    `below_minimum`, left out for that. `tally` is the whole account.
    """

    examples: list[Example] = field(default_factory=list)
    discarded: Mapping[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally, compare=False)


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
    """
    miner = Miner(collection, encoder, settings or MiningSettings(), judge)
    examples = list(miner.examples(positives_by_query(labels), progress=progress))
    return MiningResult(examples, miner.tally.discarded(), miner.tally)


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
class Draft:
    """An example on its way: its query, its positives, the vectors (n, dimension) and ids of all positives of the
    query, and the candidates that may be drawn, in drawing order."""

    query: str
    weight: float
    positives: list[StoredPassage]
    positive_scores: Sequence[float]
    vectors: Vectors
    known: frozenset[str | int]
    candidates: Candidates
    order: list[int]


@dataclass(frozen=True)
class Asked:
    """Queries on their way: their positives that are in the collection, what was left out, the vectors (n, dimension)
    of the queries, and their candidates, for which one may have to wait."""

    batch: Mapping[str, Mapping[str, float]]
    known: dict[str, list[StoredPassage]]
    counts: Counter[str]
    vectors: Vectors | None
    candidates: Callable[[], list[Candidates]]


class Miner:
    """Mines batch by batch, and keeps the account in `tally`."""

    def __init__(
        self, collection: Collection, encoder: Encoder, settings: MiningSettings, judge: Judge | None = None
    ) -> None:
        collection.check(encoder)
        self.collection, self.encoder, self.settings, self.judge = collection, encoder, settings, judge
        self.tally = Tally()

    def examples(
        self, positives: Mapping[str, Mapping[str, float]], *, progress: Progress | None = None
    ) -> Iterator[Example]:
        """Yield the examples of each query (query -> positive passage -> weight)."""
        for batch, examples in self.batches(positives.items()):
            yield from examples
            if progress is not None:
                progress(len(batch))

    def batches(
        self, positives: Iterable[tuple[str, Mapping[str, float]]]
    ) -> Iterator[tuple[Mapping[str, Mapping[str, float]], list[Example]]]:
        """Yield some queries and their examples at a time. The next ones are searched for meanwhile, and not in the
        account yet."""
        queries = iter(positives)
        with ThreadPoolExecutor(AHEAD, "mining") as searching:
            ahead = deque[Asked]()
            while batch := dict(islice(queries, self.settings.batch_size)):
                try:
                    asked = self._ask(batch, searching)
                except Exception:
                    while ahead:  # an error of the next ones must not cost these
                        yield self._done(ahead.popleft())
                    raise
                ahead.append(asked)
                if len(ahead) > AHEAD:
                    yield self._done(ahead.popleft())
            while ahead:
                yield self._done(ahead.popleft())

    def _done(self, asked: Asked) -> tuple[Mapping[str, Mapping[str, float]], list[Example]]:
        return asked.batch, self._finished(asked)

    def batch(self, positives: Mapping[str, Mapping[str, float]]) -> list[Example]:
        """The examples of some queries."""
        return self._finished(self._ask(positives))

    def _finished(self, asked: Asked) -> list[Example]:
        drafts = self._drafts(asked)
        finished = [self._example(draft, *drawn) for draft, drawn in zip(drafts, self._draw(drafts), strict=True)]
        examples = [example for example in finished if example is not None]
        self.tally.add_scores("negatives", [n.score or 0.0 for example in examples for n in example.negatives])
        return examples

    def drafts(self, positives: Mapping[str, Mapping[str, float]]) -> list[Draft]:
        """What may be drawn for some queries, and from what it must keep away."""
        return self._drafts(self._ask(positives))

    def _ask(self, positives: Mapping[str, Mapping[str, float]], searching: ThreadPoolExecutor | None = None) -> Asked:
        """Read the positives, embed the queries and begin the search, in another thread if there is one for it."""
        known, counts = self._known(positives)
        counts["queries"] = len(positives)
        if not known:
            return Asked(positives, known, counts, None, list)
        vectors = checked_unit_vectors(
            self.encoder.encode_queries(list(known)),
            dimension=self.collection.dimension,
            count=len(known),
            what=f"queries encoded by {self.encoder.space!r}",
        )
        arguments = (self.collection, list(known), vectors, list(map(len, known.values())), self.settings)
        if searching is None:
            return Asked(positives, known, counts, vectors, lambda: find_candidates(*arguments))
        return Asked(positives, known, counts, vectors, searching.submit(find_candidates, *arguments).result)

    def _known(
        self, positives: Mapping[str, Mapping[str, float]]
    ) -> tuple[dict[str, list[StoredPassage]], Counter[str]]:
        """The positives that are in the collection, of the queries that have any; and what was left out."""
        usable = {query: weights for query, weights in positives.items() if query.strip() and not is_redacted(query)}
        wanted = sorted({passage for weights in usable.values() for passage in weights})
        stored = fetch(self.collection, wanted, with_vectors=True)
        stored = {passage: its for passage, its in stored.items() if its.text}
        known = {query: [stored[p] for p in weights if p in stored] for query, weights in usable.items()}
        counts = Counter(
            redacted=len(positives) - len(usable),
            unknown_positive=sum(p not in stored for w in usable.values() for p in w),
            no_positive=sum(not passages for passages in known.values()),
        )
        return {query: passages for query, passages in known.items() if passages}, counts

    def _drafts(self, asked: Asked) -> list[Draft]:
        found, known = asked.candidates(), asked.known
        self.tally.counts.update(asked.counts)
        if asked.vectors is None:
            return []
        self.tally.add_scores("candidates", np.concatenate([each.scores for each in found]))
        drafts, positives = [], []
        for (query, passages), vector, candidates in zip(known.items(), asked.vectors, found, strict=True):
            stored = np.stack([passage.vector for passage in passages if passage.vector is not None])
            scores = stored @ vector
            positives.append(scores)
            all_known = Positives([passage.point_id for passage in passages], scores)
            each = self.settings.several == "each"
            for chosen in [[index] for index in range(len(passages))] if each else [list(range(len(passages)))]:
                its = [passages[index] for index in chosen]
                against = Positives(
                    [passage.point_id for passage in its],
                    scores[chosen],
                    [document_of(passage.metadata, self.settings) for passage in passages],
                )
                left, removed = eligible(candidates, all_known, against, self.settings)
                self.tally.counts.update(removed)
                weight = fmean(asked.batch[query][passage.id] for passage in its)
                order = drawing_order(candidates, left, self.settings, query)
                ids = frozenset(all_known.points)
                drafts.append(Draft(query, weight, its, scores[chosen].tolist(), stored, ids, candidates, order))
        self.tally.add_scores("positives", np.concatenate(positives))
        return drafts

    def _draw(self, drafts: Sequence[Draft]) -> list[tuple[Drawn, Drawn]]:
        """Draw until every draft has its negatives or no candidates left; returns (negatives, promoted) of each.

        Only what is drawn is looked at closely: a copy of a positive, or what the judge finds relevant, makes room for
        the next in line.
        """
        negatives: list[Drawn] = [{} for _ in drafts]
        promoted: list[Drawn] = [{} for _ in drafts]
        queues = [list(draft.order) for draft in drafts]
        while True:
            missing = [self.settings.negatives - len(its) for its in negatives]
            turn = [(number, index) for number, queue in enumerate(queues) for index in queue[: missing[number]]]
            if not turn:
                return list(zip(negatives, promoted))
            queues = [queue[count:] for queue, count in zip(queues, missing)]
            drawn = self._not_copies(drafts, turn)
            for (number, index, passage), relevant in zip(drawn, self._relevant(drafts, drawn), strict=True):
                if not relevant:
                    negatives[number][index] = passage
                elif self.judge is not None and self.judge.promote:
                    promoted[number][index] = passage

    def _not_copies(
        self, drafts: Sequence[Draft], turn: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int, StoredPassage]]:
        """The drawn candidates (draft, index) with their passages, without copies of a positive of the query."""
        similarity = self.settings.duplicate_similarity
        unknown = [(n, i) for n, i in turn if drafts[n].candidates.points[i] not in drafts[n].known]
        self.tally.counts["known_positive"] += len(turn) - len(unknown)
        turn = unknown
        points = list(dict.fromkeys(drafts[number].candidates.points[index] for number, index in turn))
        stored = fetch_points(self.collection, points, with_vectors=similarity is not None)
        passages = [(number, index, stored.get(drafts[number].candidates.points[index])) for number, index in turn]
        present = [(number, index, passage) for number, index, passage in passages if passage and passage.text]
        self.tally.counts["without_text"] += len(turn) - len(present)
        if similarity is None:
            return present
        new = [
            (number, index, passage)
            for number, index, passage in present
            if passage.vector is not None and not is_copy(passage.vector, drafts[number].vectors, similarity)
        ]
        self.tally.counts["near_duplicate"] += len(present) - len(new)
        return new

    def _relevant(self, drafts: Sequence[Draft], drawn: Sequence[tuple[int, int, StoredPassage]]) -> list[bool]:
        if self.judge is None:
            return [False] * len(drawn)
        threshold = self.judge.threshold
        pairs = [(drafts[number].query, passage.text) for number, _, passage in drawn]
        verdicts = [score >= threshold for score in judged_scores(self.judge, pairs)]
        self.tally.counts["judged"] += len(verdicts)
        self.tally.counts["judged_relevant"] += sum(verdicts)
        return verdicts

    def _example(self, draft: Draft, drawn: Drawn, promoted: Drawn) -> Example | None:
        def scored(passages: Drawn) -> tuple[ScoredText, ...]:
            its = sorted(passages.items())  # candidates are numbered best first
            return tuple(ScoredText(p.id, p.text, float(draft.candidates.scores[index])) for index, p in its)

        positives = tuple(
            ScoredText(passage.id, passage.text, score)
            for passage, score in zip(draft.positives, draft.positive_scores, strict=True)
        )
        negatives = scored(drawn)
        self.tally.counts["too_few"] += len(negatives) < self.settings.negatives
        self.tally.counts["no_negatives"] += not negatives
        if len(negatives) < self.settings.minimum:
            self.tally.counts["below_minimum"] += 1
            return None
        self.tally.counts["examples"] += 1
        self.tally.counts["negatives"] += len(negatives)
        return Example(draft.query, positives + scored(promoted), negatives, draft.weight)


def judged_scores(judge: Judge, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """What the judge says, one finite number per pair.

    Raises:
        InputError: the judge returned something else.
    """
    if not pairs:
        return []
    scores = np.asarray(judge.score(pairs), dtype=np.float64)
    if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
        raise InputError(f"the judge returned shape {scores.shape}, expected {len(pairs)} finite scores, one per pair")
    values: list[float] = scores.tolist()
    return values
