"""Logged clicks -> how well another encoder would have ranked what was shown.

The candidate ranks the hits of each clicked search again. The clicks followed the old ranking, so each is weighed by
how unlikely its rank was looked at: Joachims, Swaminathan, Schnabel, "Unbiased learning to rank with biased feedback",
WSDM 2017. Weights are clipped and normalised by their sum (Swaminathan and Joachims, "The self-normalized estimator for
counterfactual learning", NeurIPS 2015). The figure is then the mean gain of a relevant hit, 1 if all of them come
first.

Assumptions: a click needs a look and a relevant hit; looks depend on the rank alone; the propensities are right.
Propensities that were fitted to clicks on a good ranking are too steep, and flatter whatever differs from that ranking:
then compare candidates with each other rather than with what was logged. A passage that the candidate would have found
and nobody saw counts neither for it nor against it. So this is a reason to try a candidate, or not to. The proof is an
evaluation with judgements.

Guarantees: deterministic for a seed; memory is O(searches x hits); hits that are gone are left out of both rankings
and counted. Does not know: where propensities come from (`debias.fit_click_model`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch
from qdrant_tools.debias.click_rules import ClickModel, clicks, shown
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.statistics import FEW, mean_half_width
from qdrant_tools.validation import checked_unit_vectors

Numbers = NDArray[np.float64]
Gain = Literal["dcg", "mrr"]
GAINS: Mapping[Gain, Callable[[int], float]] = {
    "dcg": lambda rank: float(1 / np.log2(1 + rank)),
    "mrr": lambda rank: 1 / rank,
}
"""The gain of a relevant hit, by its rank. The names are those of the metrics that add such gains up."""
BATCH_SIZE = 256
"""Queries and texts embedded, and passages fetched, at a time."""


@dataclass(frozen=True)
class Estimate:
    """`logged` and `candidate` are the mean gain of a relevant hit under either ranking. `low` and `high` are the ends
    of the 95 % interval of their `difference`, from a bootstrap over `independent` parts of the log: its sessions, and
    the searches whose session nobody knows.

    `effective` is how many equally weighted clicks the weighted ones are worth (Kish); the weights of `clipped` clicks
    were cut. `left_out` counts searches: those with `redacted` or `empty` queries, those `without_click`, and those
    with fewer than two hits that are still there (`too_few_hits`). It also counts hits that are gone from the
    collection: `gone_hits`, of which `gone_clicked`.
    """

    gain: Gain
    logged: float
    candidate: float
    difference: float
    low: float
    high: float
    searches: int
    independent: int
    clicks: int
    effective: float
    clipped: int
    left_out: Mapping[str, int]

    @property
    def verdict(self) -> Literal["better", "worse", "undecided"]:
        return "better" if self.low > 0 else "worse" if self.high < 0 else "undecided"

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True)
class _Ranked:
    """One search: the weight of each click, and its rank in both rankings, among the hits that are still there."""

    session: str
    weights: Sequence[float]
    logged: Sequence[int]
    candidate: Sequence[int]


def estimate_candidate(
    searches: Iterable[LoggedSearch],
    model: ClickModel,
    candidate: Encoder,
    collection: Collection,
    *,
    gain: Gain = "dcg",
    clip: float = 10.0,
    seed: int = 0,
) -> Estimate:
    """Estimate what `candidate` would have made of the hits of these searches.

    Their vectors come from the collection if the candidate shares its space (a query adapter does); otherwise their
    texts are embedded, each once. No weight is above `clip`.

    Raises:
        LogError: no search has a click on one of several hits that are still there.
        InputError: no such gain, or a clip below 1.
        VectorError: the candidate shares the space by name, but not the dimension.
    """
    if gain not in GAINS or clip < 1:
        raise InputError(f"gain is {gain!r} and clip {clip}, expected one of {', '.join(GAINS)} and at least 1")
    left_out: Counter[str] = Counter()
    usable = [search for search in searches if _is_usable(search, left_out)]
    vectors = _hit_vectors(usable, candidate, collection)
    ranked = list(_rank_again(usable, vectors, candidate, left_out, lambda r: min(1 / model.propensity(r), clip)))
    if not ranked:
        raise LogError(
            f"none of these searches has a click on one of several hits that are still in {collection.name!r}: "
            f"{dict(left_out)}"
        )
    gain_at = np.vectorize(GAINS[gain], otypes=[np.float64])
    # per search (n,): the sum of the weights, and the weighted gains of its clicks under either ranking
    weight_sums = np.array([np.sum(search.weights) for search in ranked])
    logged_gains = np.array([np.dot(search.weights, gain_at(search.logged)) for search in ranked])
    candidate_gains = np.array([np.dot(search.weights, gain_at(search.candidate)) for search in ranked])
    weights = np.concatenate([search.weights for search in ranked])
    total = weight_sums.sum()
    part = _parts([search.session for search in ranked])
    # the searches of one session depend on each other, so they are drawn together
    low, high = _interval(_summed(weight_sums, part), _summed(candidate_gains - logged_gains, part), seed)
    return Estimate(
        gain=gain,
        logged=float(logged_gains.sum() / total),
        candidate=float(candidate_gains.sum() / total),
        difference=float((candidate_gains.sum() - logged_gains.sum()) / total),
        low=low,
        high=high,
        searches=len(ranked),
        independent=int(part.max()) + 1,
        clicks=len(weights),
        effective=float(weights.sum() ** 2 / (weights**2).sum()),
        clipped=int((weights >= clip).sum()),
        left_out=dict(left_out),
    )


def _is_usable(search: LoggedSearch, left_out: Counter[str]) -> bool:
    if search.redacted:
        left_out["redacted"] += 1
    elif not search.query.strip():
        left_out["empty"] += 1
    elif not clicks(search):
        left_out["without_click"] += 1
    else:
        return True
    return False


def _hit_vectors(searches: Sequence[LoggedSearch], candidate: Encoder, collection: Collection) -> dict[str, Any]:
    """Passage -> its vector (dimension,) in the candidate's space, for all that are in the collection."""
    same_space = candidate.space == collection.space
    if same_space:
        collection.check(candidate)
    ids = list(dict.fromkeys(passage for search in searches for passage in shown(search)))
    vectors: dict[str, Any] = {}
    for start in range(0, len(ids), BATCH_SIZE):
        stored = fetch(collection, ids[start : start + BATCH_SIZE], with_vectors=same_space)
        if same_space:
            vectors.update((name, passage.vector) for name, passage in stored.items() if passage.vector is not None)
            continue
        texts = {name: passage.text for name, passage in stored.items() if passage.text}
        if texts:
            vectors.update(zip(texts, _checked(candidate.encode_passages(list(texts.values())), candidate, len(texts))))
    return vectors


def _rank_again(
    searches: Sequence[LoggedSearch],
    vectors: Mapping[str, Any],
    candidate: Encoder,
    left_out: Counter[str],
    weight: Callable[[int], float],
) -> Iterable[_Ranked]:
    for start in range(0, len(searches), BATCH_SIZE):
        batch = searches[start : start + BATCH_SIZE]
        queries = _checked(candidate.encode_queries([search.query for search in batch]), candidate, len(batch))
        for search, query in zip(batch, queries):
            clicked, order = set(clicks(search)), shown(search)
            present = [passage for passage in order if passage in vectors]
            left_out["gone_hits"] += len(order) - len(present)
            left_out["gone_clicked"] += len(clicked - set(present))
            clicked_rows = [row for row, passage in enumerate(present) if passage in clicked]
            # a single hit has the same rank in every ranking
            if len(present) < 2 or not clicked_rows:
                left_out["too_few_hits"] += 1
                continue
            scores = np.stack([vectors[passage] for passage in present]) @ query
            ranks = np.empty(len(present), dtype=np.int64)
            # stable: equal scores keep the order in which they were shown
            ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(present) + 1)
            yield _Ranked(
                search.session,
                # the rank at which users saw it, hits that are gone by now included
                weights=[weight(order.index(present[row]) + 1) for row in clicked_rows],
                logged=[row + 1 for row in clicked_rows],
                candidate=[int(ranks[row]) for row in clicked_rows],
            )


def _checked(vectors: Vectors, encoder: Encoder, count: int) -> Vectors:
    return checked_unit_vectors(
        vectors, dimension=encoder.dimension, count=count, what=f"texts encoded by {encoder.space!r}"
    )


def _parts(sessions: Sequence[str]) -> NDArray[np.int64]:
    """The number of the session of each search (n,); one without a session is a part of its own."""
    numbers: dict[str | int, int] = {}
    parts = [numbers.setdefault(session or row, len(numbers)) for row, session in enumerate(sessions)]
    return np.array(parts, dtype=np.int64)


def _summed(numbers: Numbers, part: NDArray[np.int64]) -> Numbers:
    """The sum of each part (parts,)."""
    return np.bincount(part, numbers).astype(np.float64)


def _interval(weights: Numbers, differences: Numbers, seed: int, *, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) of sum(differences) / sum(weights) over sessions or searches (n,); of few the
    farther ends of it and of Student's interval of the ratio, linearised (Cochran, "Sampling Techniques", 1977, 6.3).
    """
    rng = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    for number in range(resamples):
        # never single clicks: those of one search depend on each other
        rows = rng.integers(0, len(weights), len(weights))
        ratios[number] = differences[rows].sum() / weights[rows].sum()
    low, high = (float(end) for end in np.quantile(ratios, [0.025, 0.975]))
    if len(weights) >= FEW:
        return low, high
    ratio = differences.sum() / weights.sum()
    # one session alone tells nothing of the others
    spread = differences if len(weights) == 1 else differences - ratio * weights
    half = mean_half_width(spread / weights.mean())
    return min(low, float(ratio) - half), max(high, float(ratio) + half)
