"""Logged clicks -> how well would another encoder have ranked what was shown?

The hits of each clicked search are ranked again by the candidate, and the clicks, which followed the old ranking, are
weighed by how unlikely their rank was looked at: Joachims, Swaminathan, Schnabel, "Unbiased learning to rank with
biased feedback", WSDM 2017. Weights are clipped and normalised by their sum (Swaminathan and Joachims, "The
self-normalized estimator for counterfactual learning", NeurIPS 2015), which makes the figure the mean gain of a
relevant hit, 1 where all of them come first.

It assumes that a click needs a look and a relevant hit, that looks depend on the rank alone, and that the propensities
are right. Those that were fitted to clicks on a good ranking are too steep, and flatter whatever differs from that
ranking: candidates are then better compared with each other than with what was logged. It knows only what was shown: a
passage that the candidate would have found and nobody saw counts neither for it nor against it. So this is a reason to
try a candidate, or not to; the proof is an evaluation with judgements.

Guarantees: deterministic for a seed; memory is O(searches x hits); hits that are gone are left out of both rankings
and counted. Does not know: where propensities come from (`debias.click_model`).
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
from qdrant_tools.debias import ClickModel, clicks, shown
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log.records import LoggedSearch, is_redacted
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.validation import checked_unit_vectors

Numbers = NDArray[np.float64]
Gain = Literal["dcg", "mrr"]
GAINS: Mapping[Gain, Callable[[int], float]] = {
    "dcg": lambda rank: float(1 / np.log2(1 + rank)),
    "mrr": lambda rank: 1 / rank,
}
"""Of a relevant hit, by its rank; the names are those of the metrics that add such gains up."""
AT_ONCE = 256


@dataclass(frozen=True)
class Estimate:
    """`logged` and `candidate` are the mean gain of a relevant hit under either ranking; `low` and `high` are the ends
    of the 95 % interval of their `difference`, from a bootstrap over searches.

    `effective` is how many equally weighted clicks the weighted ones are worth (Kish); `clipped` of them were. Left out
    are searches: `redacted` or `empty` queries, those `without_click`, and those with fewer than two hits that are
    still there (`too_few_hits`); and hits that are gone from the collection: `gone_hits`, of which `gone_clicked`.
    """

    gain: Gain
    logged: float
    candidate: float
    difference: float
    low: float
    high: float
    searches: int
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
    """One search: of each click its weight, and its rank then and with the candidate, among the hits that are left."""

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
    worth = np.vectorize(GAINS[gain], otypes=[np.float64])
    sums = np.array(
        [
            (w.sum(), w @ worth(each.logged), w @ worth(each.candidate))
            for each in ranked
            for w in [np.asarray(each.weights)]
        ]
    )
    weights = np.concatenate([each.weights for each in ranked])
    total, logged, again = sums.sum(axis=0)
    low, high = _interval(sums[:, 0], sums[:, 2] - sums[:, 1], seed)
    return Estimate(
        gain,
        float(logged / total),
        float(again / total),
        float((again - logged) / total),
        low,
        high,
        len(ranked),
        len(weights),
        float(weights.sum() ** 2 / (weights**2).sum()),
        int((weights >= clip).sum()),
        dict(left_out),
    )


def _is_usable(search: LoggedSearch, left_out: Counter[str]) -> bool:
    reason = (
        "redacted"
        if is_redacted(search.query)
        else "empty"
        if not search.query.strip()
        else "without_click"
        if not clicks(search)
        else None
    )
    left_out.update([reason] if reason else [])
    return reason is None


def _hit_vectors(searches: Sequence[LoggedSearch], candidate: Encoder, collection: Collection) -> dict[str, Any]:
    """Passage -> its vector (dimension,) in the candidate's space, of all that are in the collection."""
    stored_ones = candidate.space == collection.space
    if stored_ones:
        collection.check(candidate)
    wanted = list(dict.fromkeys(passage for search in searches for passage in shown(search)))
    vectors: dict[str, Any] = {}
    for start in range(0, len(wanted), AT_ONCE):
        found = fetch(collection, wanted[start : start + AT_ONCE], with_vectors=stored_ones)
        if stored_ones:
            vectors.update((name, passage.vector) for name, passage in found.items() if passage.vector is not None)
            continue
        texts = {name: passage.text for name, passage in found.items() if passage.text}
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
    for start in range(0, len(searches), AT_ONCE):
        batch = searches[start : start + AT_ONCE]
        queries = _checked(candidate.encode_queries([search.query for search in batch]), candidate, len(batch))
        for search, query in zip(batch, queries):
            clicked, order = set(clicks(search)), shown(search)
            left = [passage for passage in order if passage in vectors]
            left_out["gone_hits"] += len(order) - len(left)
            left_out["gone_clicked"] += len(clicked - set(left))
            chosen = [index for index, passage in enumerate(left) if passage in clicked]
            if len(left) < 2 or not chosen:
                left_out["too_few_hits"] += 1
                continue
            scores = np.stack([vectors[passage] for passage in left]) @ query
            ranks = np.empty(len(left), dtype=np.int64)
            ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(left) + 1)
            yield _Ranked(
                [weight(order.index(left[index]) + 1) for index in chosen],
                [index + 1 for index in chosen],
                [int(ranks[index]) for index in chosen],
            )


def _checked(vectors: Vectors, encoder: Encoder, count: int) -> Vectors:
    return checked_unit_vectors(
        vectors, dimension=encoder.dimension, count=count, what=f"texts encoded by {encoder.space!r}"
    )


def _interval(weights: Numbers, differences: Numbers, seed: int, *, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) of sum(differences) / sum(weights) over searches (n,)."""
    luck = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    for number in range(resamples):
        chosen = luck.integers(0, len(weights), len(weights))
        ratios[number] = differences[chosen].sum() / weights[chosen].sum()
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
