"""What was built to replace something that serves -> checks, each with what was measured and what was expected.

Guarantees: reads only. The same collections give the same samples only where the engine's sampling does.
Does not know: aliases, promotion.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import random_passages
from qdrant_tools.errors import UsageError
from qdrant_tools.metrics import mean, ndcg, paired_interval, weighted_gain
from qdrant_tools.promotion.in_place import changed_texts, count_missing
from qdrant_tools.promotion.sync import differences
from qdrant_tools.records import Encoder, HeldOut, Vectors
from qdrant_tools.same import respelled
from qdrant_tools.search.neighbours import QueryVectors, Truth
from qdrant_tools.sources.judged import documents_judged, search_judged
from qdrant_tools.validation import checked_count, checked_number, checked_unit_vectors, unit_rows


@dataclass(frozen=True)
class Gates:
    """What must be reached before an alias is switched."""

    samples: int = 100
    """Stored passages that are embedded again, and whose vectors serve as queries."""
    similarity: float = 0.99
    """Cosine of every sampled vector to its text's vector, at least."""
    recall: float = 0.95
    """Share of the exact neighbours of the samples that the graph finds, at least; of equally near ones any counts."""
    k: int = 10
    max_drop: float = 0.0
    """How much worse mean nDCG@k may be on the held-out queries."""

    def __post_init__(self) -> None:
        checked_count("samples", self.samples)
        checked_count("k", self.k)
        checked_number("similarity", self.similarity, above=0, most=1)
        checked_number("recall", self.recall, least=0, most=1)
        checked_number("max_drop", self.max_drop)


@dataclass(frozen=True)
class Check:
    """One figure: its measured `value`, and what was expected in words."""

    name: str
    passed: bool
    value: float
    expected: str


@dataclass(frozen=True)
class Verification:
    """All checks of one collection, when it held `points` points."""

    collection: str
    points: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[str]:
        return [
            f"{check.name} is {check.value:.4g}, expected {check.expected}" for check in self.checks if not check.passed
        ]

    def as_row(self) -> dict[str, Any]:
        return {**asdict(self), "checks": [asdict(check) for check in self.checks], "passed": self.passed}


def verify_copy(
    source: Collection,
    target: Collection,
    encoder: Encoder,
    gates: Gates,
    held_out: HeldOut | None = None,
    before: Encoder | None = None,
) -> Verification:
    """Check that `target` holds what `source` holds, in `encoder`'s vectors, and finds it.

    `before` is the encoder that serves now: without it the metric on `held_out` is reported and decides nothing.
    """
    expected, points = source.gateway.count(), target.gateway.count()
    differing = differences(source, target).differences
    checks = [
        Check("points", points == expected, points, f"{expected}, as in {source.name!r}"),
        Check("differing points", differing == 0, differing, "0"),
        *_check_samples(target, encoder, gates),
    ]
    if held_out is not None:
        checks.append(_check_metric(source, target, encoder, gates, held_out, before))
    return Verification(target.name, points, tuple(checks))


def verify_in_place(
    source: Collection,
    target: Collection,
    encoder: Encoder,
    gates: Gates,
    held_out: HeldOut | None = None,
    before: Encoder | None = None,
) -> Verification:
    """Check that every point of a collection has the vector that `target` names, by `encoder`, and is found by it."""
    points, missing = source.gateway.count(), count_missing(target)
    checks = [Check("points without the new vector", missing == 0, missing, "0")]
    changed = sum(map(len, changed_texts(target)))
    if changed:
        checks.append(Check("points whose text has changed since", False, changed, "0"))
    if missing < points:  # there is something to sample
        checks += _check_samples(target, encoder, gates)
    if held_out is not None:
        checks.append(_check_metric(source, target, encoder, gates, held_out, before))
    return Verification(f"{target.name} (vector {target.layout.vector!r})", points, tuple(checks))


def verify_queries(
    collection: Collection,
    encoder: Encoder,
    gates: Gates,
    held_out: HeldOut | None = None,
    before: Encoder | None = None,
) -> Verification:
    """Check an encoder that differs from the one that serves only in how it embeds queries.

    Raises:
        UsageError: no held-out queries, or no encoder to compare with; nothing else could tell.
    """
    if held_out is None or before is None:
        raise UsageError(
            "a query adapter is verified on held-out queries: give held_out=HeldOut(queries, qrels) and "
            "before=encoder; on the command line --queries and --qrels, or train it with --heldout-share"
        )
    metric = _check_metric(collection, collection, encoder, gates, held_out, before)
    return Verification(collection.name, collection.gateway.count(), (metric,))


def accepted_proof(collection: Collection) -> Verification:
    """What stands for a check of an adapter that its training proved on synthetic queries, where that is accepted."""
    proof = Check("the proof of its training, on synthetic queries", True, 1.0, "to be accepted, and it was")
    return Verification(collection.name, collection.gateway.count(), (proof,))


def only_if_accepted(verification: Verification, held_out: HeldOut | None, *, accept_synthetic: bool) -> Verification:
    """With a check that fails if the queries are synthetic and nobody accepted that; the others stay."""
    if held_out is None or not held_out.synthetic:
        return verification
    asked = Check(
        "real queries", accept_synthetic, 0, "some: these are synthetic (accept_synthetic, --accept-synthetic)"
    )
    return replace(verification, checks=(*verification.checks, asked))


def _check_samples(target: Collection, encoder: Encoder, gates: Gates) -> list[Check]:
    """Two checks on random stored passages; none if the collection has no vectors."""
    passages = random_passages(target, gates.samples)
    if not passages:
        return []
    texts = [passage.text for passage in passages]
    # an engine with float16 vectors gives them back with other lengths
    stored = unit_rows(np.array([passage.vector for passage in passages]))
    return [_check_cosine(texts, stored, encoder, gates), _check_recall(target, stored, gates)]


def _check_cosine(texts: list[str], stored: Vectors, encoder: Encoder, gates: Gates) -> Check:
    again = checked_unit_vectors(
        encoder.encode_passages(texts), dimension=stored.shape[1], count=len(texts), what="samples encoded again"
    )
    # the worst and not the mean: one vector of another encoder is one wrong point
    worst = float((stored * again).sum(axis=1).min())
    return Check("cosine of sampled vectors", worst >= gates.similarity, worst, f"at least {gates.similarity}")


def _check_recall(target: Collection, stored: Vectors, gates: Gates) -> Check:
    queries = QueryVectors(stored)
    hits = target.gateway.query_batch(queries.requests(target, target.search_params(), gates.k))
    truth = Truth.of(target, queries, gates.k)
    recall = truth.recall([[plain_id(point.id) for point in points] for points in hits])
    return Check(f"recall@{gates.k} against exact", recall >= gates.recall, recall, f"at least {gates.recall}")


def _check_metric(
    source: Collection,
    target: Collection,
    encoder: Encoder,
    gates: Gates,
    held_out: HeldOut,
    before: Encoder | None,
) -> Check:
    after = _values(target, encoder, gates.k, held_out)
    metric = f"gain@{gates.k} of weighed answers" if held_out.weights else f"nDCG@{gates.k}"
    name = f"{metric} on {len(after)} {'synthetic ' if held_out.synthetic else ''}held-out queries"
    if before is None:
        return Check(name, True, mean(after), "anything: there is no encoder to compare with")
    served = _values(source, before, gates.k, held_out)
    interval = paired_interval(served, after)
    expected = (
        f"at least {mean(served) - gates.max_drop:.4f} (difference {interval.difference:+.4f}, "
        f"95 % interval {interval.low:+.4f} to {interval.high:+.4f})"
    )
    # the mean alone decides; the interval is for whoever reads the report
    return Check(name, interval.difference >= -gates.max_drop, mean(after), expected)


def _values(collection: Collection, encoder: Encoder, k: int, held_out: HeldOut) -> dict[str, float]:
    """nDCG@k of every query that has a relevant passage; the gain of weighed answers, where they have weights."""
    queries = held_out.measured
    judged = {name for query in queries for name in held_out.qrels.get(query.id, {})}
    passages, documents = documents_judged(collection, judged)
    # ids alone: a passage that answers every query comes once per query
    ranked = search_judged(collection, [query.text for query in queries], encoder, k=k, documents=bool(documents))
    run = {query.id: {hit.id: hit.score for hit in hits} for query, hits in zip(queries, ranked, strict=True)}
    names = passages | documents
    if held_out.weights:
        weights = {
            query.id: {
                names.get(name, name): weight
                for name, weight in held_out.weights.get(query.id, {}).items()
                if held_out.qrels.get(query.id, {}).get(name, 0) > 0
            }
            for query in queries
        }
        return weighted_gain(weights, run, k=k)
    qrels = respelled({query.id: held_out.qrels[query.id] for query in queries}, names)
    return ndcg(qrels, run, k=k)
