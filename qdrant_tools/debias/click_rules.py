"""Logged searches -> labels, by rules that know how clicks mislead.

Each rule is a pure function over searches, named after what it believes. It gives one vote per (search, passage):
weight above 0 is a vote for relevance, 0 is a vote against it, and what a rule has no opinion on gets none. `aggregate`
makes one label per (query, passage) of the votes of all searches.

`inverse_propensity` looks at all searches at once. It needs a position-based click model (`fit_click_model`), which
says P(click) = P(rank is looked at) * P(passage attracts for this query): Chuklin, Markov, de Rijke, "Click Models for
Web Search", 2015, section 3.3. Attractions are drawn from one distribution, a histogram that is estimated along with
the propensities by expectation maximisation of the marginal likelihood. The book fits one free attraction to each pair
instead; a log has few impressions of most pairs, so that this would explain their clicks by themselves and flatten the
propensities. Clicks are then weighed by the inverse propensity of their rank: Joachims, Swaminathan, Schnabel,
"Unbiased learning to rank with biased feedback", WSDM 2017.

Guarantees: deterministic; votes come in the order of the searches and of the hits in them; feedback on passages that
were not shown counts only where a position is not needed (ratings, thumbs, citations); the same feedback twice counts
once. The most looked-at rank has propensity 1. Does not know: texts of passages, collections.

Limit: only a passage that was shown at several ranks for one query can tell a good hit from a looked-at rank. A log of
nothing else gives the click rates of the ranks, which is too steep where the ranking was good. `ClickModel.repeated`
says how many such pairs there were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.errors import InputError, brief
from qdrant_tools.log.records import Feedback, LoggedSearch
from qdrant_tools.records import Label
from qdrant_tools.same import id_key, query_key, spelled

__all__ = [
    "ClickModel",
    "aggregate",
    "click_over_no_click_next",
    "click_over_skip_above",
    "clicked_as_positive",
    "clicks",
    "fit_click_model",
    "inverse_propensity",
    "last_click_over_skip_above",
    "long_dwell_as_positive",
    "rated",
    "shown",
    "unclicked_as_negative",
]


Numbers = NDArray[np.float64]
Pair = tuple[str, str]

# middles, never 0 or 1: both log(p) and log(1 - p) must be finite
ATTRACTIONS: Numbers = (np.arange(20) + 0.5) / 20
"""The middles of the histogram's bins."""


def clicked_as_positive(searches: Iterable[LoggedSearch]) -> list[Label]:
    """The naive rule for positives: whatever was clicked answers the query; the rest has no vote.

    Clicks follow the position as much as the relevance (Joachims et al., "Accurately interpreting clickthrough data
    as implicit feedback", SIGIR 2005), so these labels are noisy, above all at the first ranks. It is the only rule
    for clicks in a search without hits, of which nobody knows what it showed.
    """
    return [_vote(search, passage, 1.0, "click") for search in searches for passage in _clicked(search)]


def unclicked_as_negative(searches: Iterable[LoggedSearch]) -> list[Label]:
    """The naive rule in full: clicked is relevant, shown and not clicked is not.

    It is here to compare with: most of what nobody clicked was never looked at.
    """
    return [
        _vote(search, passage, float(passage in clicked), "click" if passage in clicked else "no click")
        for search in searches
        for clicked in [set(clicks(search))]
        for passage in shown(search)
    ]


def click_over_skip_above(searches: Iterable[LoggedSearch]) -> list[Label]:
    """A clicked hit is better than every hit above it that was passed over. Joachims et al. 2005, strategy 1.

    Only clicks that passed something over vote: a click on the first hit prefers it to nothing.
    """
    return list(chain.from_iterable(_skip_above(search, clicks(search)) for search in searches))


def last_click_over_skip_above(searches: Iterable[LoggedSearch]) -> list[Label]:
    """`click_over_skip_above` for the last click alone, which ended the search. Joachims et al. 2005, strategy 2."""
    return list(chain.from_iterable(_skip_above(search, clicks(search)[-1:]) for search in searches))


def click_over_no_click_next(searches: Iterable[LoggedSearch]) -> list[Label]:
    """A clicked hit is better than the next one if that was not clicked. Joachims et al. 2005, strategy 5.

    Eye tracking shows that the hit below a click is usually looked at too.
    """
    return list(chain.from_iterable(_no_click_next(search) for search in searches))


def long_dwell_as_positive(
    searches: Iterable[LoggedSearch], *, seconds: float = 30.0, bounce: float | None = None
) -> list[Label]:
    """A hit that was read for at least `seconds` is relevant; one left within `bounce` seconds is not.

    30 s is the usual bound of a satisfied click (Fox et al., "Evaluating implicit measures to improve web search",
    TOIS 2005). Several visits add up. Without `bounce` short visits have no vote.
    """
    if bounce is not None and not 0 <= bounce <= seconds:
        raise InputError(f"bounce is {bounce} s, expected between 0 and the {seconds} s of a long visit")
    votes = []
    for search in searches:
        for passage, time in _totals(search, "dwell").items():
            if time >= seconds:
                votes.append(_vote(search, passage, 1.0, "long dwell"))
            elif bounce is not None and time <= bounce:
                votes.append(_vote(search, passage, 0.0, "bounce"))
    return votes


def rated(searches: Iterable[LoggedSearch], *, top: float = 1.0, relevant_from: float | None = None) -> list[Label]:
    """What users said outright: ratings, thumbs and citations.

    A rating of at least `relevant_from` (default: anything above 0) weighs its share of `top`; a lower one is a vote
    against. A thumb up or a citation weighs 1, a thumb down 0. If one search has several of these on one hit, a rating
    goes before a thumb, a thumb before a citation, and a later one before an earlier one.

    Raises:
        InputError: a grade is above `top`, or the grades are those of stars, as none of them is below 1 (one star
            means bad), and nobody says which are relevant.
    """
    if not top > 0 or not math.isfinite(top):
        raise InputError(f"top is {top}, expected the highest grade of the scale")
    if relevant_from is not None and not 0 < relevant_from <= top:
        raise InputError(f"relevant_from is {relevant_from}, expected a grade above 0 and at most the top, {top:g}")
    votes = []
    lowest = math.inf
    for search in searches:
        cited = {event.id: 1.0 for event in search.feedback if event.kind == "cited"}
        thumbs = {event.id: float(event.kind == "up") for event in search.feedback if event.kind in ("up", "down")}
        grades = {event.id: event.value for event in search.feedback if event.kind == "rating"}
        for event in search.feedback:
            if event.kind == "rating":
                lowest = min(lowest, event.value)
                _require_within(event, top, search)
        # what stands further right wins
        weights = cited | thumbs | {passage: _weight(grade, top, relevant_from) for passage, grade in grades.items()}
        for passage, weight in weights.items():
            evidence = "rating" if passage in grades else "thumb" if passage in thumbs else "citation"
            votes.append(_vote(search, passage, weight, evidence))
    if relevant_from is None and top >= 4 and 1 <= lowest < top:
        raise InputError(
            f"the ratings go from {lowest:g} to {top:g}, and none is 0: as 1 seems to be the worst, give relevant_from "
            "(--relevant-from), the lowest grade of a relevant passage"
        )
    return votes


def aggregate(votes: Iterable[Label], *, minimum: int = 1, min_share: float = 0.0) -> list[Label]:
    """Merge the votes of repeated queries into one label per (query, passage).

    Spellings of one query (`same.query_key`), or of one id (`same.id_key`), are one; the first stays. The weight is the
    mean of the votes. Pairs with fewer than `minimum` votes give no label. Pairs whose mean is above 0 but below
    `min_share` give none either, since the users disagree. `evidence` says which votes: "click x3, no click x1".
    """
    if minimum < 1 or not 0 <= min_share <= 1:
        raise InputError(f"minimum is {minimum} and min_share {min_share}, expected at least 1 and a share of 0 to 1")
    pairs: dict[tuple[str, str], list[Label]] = {}
    for vote in votes:
        pairs.setdefault((query_key(vote.query), id_key(vote.passage_id)), []).append(vote)
    spelling: dict[str, str] = {}
    labels = []
    for (key, _), group in pairs.items():
        query, passage = spelling.setdefault(key, group[0].query), group[0].passage_id
        weight = sum(vote.weight for vote in group) / len(group)
        if len(group) >= minimum and not 0 < weight < min_share:
            labels.append(Label(query, passage, weight, _evidence(group)))
    return labels


def shown(search: LoggedSearch) -> list[str]:
    """Passages as shown, best rank first, each once."""
    return list(dict.fromkeys(hit.id for hit in sorted(search.hits, key=lambda hit: hit.rank)))


def clicks(search: LoggedSearch) -> list[str]:
    """Shown passages that were clicked, in the order of the last click on each."""
    events = [event.id for event in search.feedback if event.kind == "click"]
    shown_as = spelled(events, {hit.id for hit in search.hits})
    clicked = [shown_as[passage] for passage in events if passage in shown_as]
    # `dict.fromkeys` keeps the first of equal ones: of the reversed list that is the last click
    return list(dict.fromkeys(reversed(clicked)))[::-1]


def _clicked(search: LoggedSearch) -> list[str]:
    """`clicks`; in a search without hits, whose log does not say what was shown, all that was clicked."""
    if search.hits:
        return clicks(search)
    events = [event.id for event in search.feedback if event.kind == "click"]
    return list(dict.fromkeys(reversed(events)))[::-1]


@dataclass(frozen=True)
class ClickModel:
    """`propensities[r - 1]` is how likely rank r is looked at, relative to the most looked-at rank; `attraction` is by
    (query key, id key of the passage); `repeated` is the number of pairs that were shown at several ranks."""

    propensities: tuple[float, ...]
    attraction: Mapping[Pair, float] = field(repr=False)
    iterations: int
    repeated: int

    def propensity(self, rank: int) -> float:
        """Ranks below those of the log are looked at as little as its last one."""
        return self.propensities[min(rank, len(self.propensities)) - 1]


def fit_click_model(searches: Iterable[LoggedSearch], *, iterations: int = 500, tolerance: float = 1e-4) -> ClickModel:
    """Fit propensities and attractions, until no propensity moves by more than `tolerance`.

    Raises:
        InputError: no search with a click on a hit that it showed.
    """
    counts = _count(searches)
    if not counts.clicks.sum():
        raise InputError("no clicks on shown hits in this log: a click model needs some")
    propensity = np.linspace(1.0, 0.5, int(counts.position.max()) + 1)
    histogram = np.full(len(ATTRACTIONS), 1 / len(ATTRACTIONS))
    posterior = np.empty((0, len(ATTRACTIONS)))
    steps, change = 0, np.inf
    while steps < iterations and change > tolerance:
        before = propensity
        propensity, histogram, posterior = _em_step(counts, propensity, histogram)
        steps, change = steps + 1, float(np.abs(propensity - before).max())
    # Only the product of look and attraction is observed: the scale is fixed by the most looked-at rank.
    scale = propensity.max()
    attraction = posterior @ ATTRACTIONS * scale
    repeated = int((np.bincount(counts.pair) > 1).sum())
    return ClickModel(
        tuple((propensity / scale).tolist()), dict(zip(counts.pairs, attraction.tolist())), steps, repeated
    )


def inverse_propensity(
    searches: Iterable[LoggedSearch], model: ClickModel, *, clip: float = 10.0, examined: float = 0.9
) -> list[Label]:
    """One label per (query, passage): clicks weighed by how unlikely their rank was looked at.

    The weight is the mean over impressions of click / propensity, each at most `clip` (which trades some bias for
    less variance). A pair without clicks is a label against once it was probably looked at: when the propensities of
    its impressions add up to `examined` or more. Other pairs without clicks give no label.
    """
    if clip < 1 or examined <= 0:
        raise InputError(f"clip is {clip} and examined {examined}, expected at least 1 and above 0")
    weights: dict[Pair, list[float]] = {}
    looked_at: dict[Pair, float] = {}
    queries: dict[str, str] = {}
    passages: dict[str, str] = {}
    for search in searches:
        clicked, key = set(clicks(search)), query_key(search.query)
        queries.setdefault(key, search.query)
        for rank, passage in enumerate(shown(search), start=1):
            pair = key, id_key(passage)
            passages.setdefault(pair[1], passage)
            propensity = model.propensity(rank)
            weights.setdefault(pair, []).append(min(1 / propensity, clip) if passage in clicked else 0.0)
            looked_at[pair] = looked_at.get(pair, 0.0) + propensity
    return [
        Label(
            queries[query],
            passages[passage],
            sum(values) / len(values),
            "click / propensity" if any(values) else "examined",
        )
        for (query, passage), values in weights.items()
        if any(values) or looked_at[query, passage] >= examined
    ]


def _skip_above(search: LoggedSearch, winners: list[str]) -> Iterator[Label]:
    order, clicked = shown(search), set(clicks(search))
    skipped: set[str] = set()
    preferred = set()
    for winner in winners:
        above = [passage for passage in order[: order.index(winner)] if passage not in clicked]
        skipped.update(above)
        if above:
            preferred.add(winner)
    for passage in order:
        if passage in preferred:
            yield _vote(search, passage, 1.0, "click")
        elif passage in skipped:
            yield _vote(search, passage, 0.0, "skipped")


def _no_click_next(search: LoggedSearch) -> Iterator[Label]:
    order, clicked = shown(search), set(clicks(search))
    for passage, following in zip(order, order[1:]):
        if passage in clicked and following not in clicked:
            yield _vote(search, passage, 1.0, "click")
            yield _vote(search, following, 0.0, "no click next")


def _totals(search: LoggedSearch, kind: str) -> dict[str, float]:
    totals: dict[str, float] = {}
    for event in dict.fromkeys(search.feedback):  # an event that was recorded twice counts once
        if event.kind == kind:
            totals[event.id] = totals.get(event.id, 0.0) + event.value
    return totals


def _weight(grade: float, top: float, relevant_from: float | None) -> float:
    relevant = grade > 0 if relevant_from is None else grade >= relevant_from
    return grade / top if relevant else 0.0


def _require_within(event: Feedback, top: float, search: LoggedSearch) -> None:
    if event.value > top:
        raise InputError(
            f"{brief(event.id)} has the rating {event.value:g} in search {brief(search.id)}, above the top of the "
            f"scale, {top:g}: give the highest grade there is as top (--top)"
        )


def _vote(search: LoggedSearch, passage: str, weight: float, evidence: str) -> Label:
    return Label(search.query, passage, weight, evidence)


def _evidence(votes: list[Label]) -> str:
    counts: dict[str, int] = {}
    for vote in votes:
        counts[vote.evidence] = counts.get(vote.evidence, 0) + 1
    if len(votes) == 1:
        return votes[0].evidence
    return ", ".join(f"{evidence} x{count}" for evidence, count in counts.items())


@dataclass(frozen=True)
class _Counts:
    """Impressions and clicks per distinct (pair, position); `pair` and `position` are indices."""

    pairs: list[Pair]
    pair: NDArray[np.int64]
    position: NDArray[np.int64]
    impressions: Numbers
    clicks: Numbers


def _count(searches: Iterable[LoggedSearch]) -> _Counts:
    numbers: dict[Pair, int] = {}
    totals: dict[tuple[int, int], list[int]] = {}
    for search in searches:
        clicked, key = set(clicks(search)), query_key(search.query)
        for position, passage in enumerate(shown(search)):
            pair = numbers.setdefault((key, id_key(passage)), len(numbers))
            total = totals.setdefault((pair, position), [0, 0])
            total[0] += 1
            total[1] += passage in clicked
    table = np.array([(pair, position, *total) for (pair, position), total in totals.items()]).reshape(-1, 4)
    numbers_of = table.astype(np.float64)
    return _Counts(list(numbers), table[:, 0], table[:, 1], numbers_of[:, 2], numbers_of[:, 3])


def _em_step(counts: _Counts, propensity: Numbers, histogram: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """One step of expectation maximisation. Returns propensities (ranks,), the histogram of attractions (bins,), and
    the posterior of each pair's attraction (pairs, bins)."""
    clicked = propensity[counts.position][:, None] * ATTRACTIONS
    unclicked = (counts.impressions - counts.clicks)[:, None]
    evidence = counts.clicks[:, None] * np.log(clicked) + unclicked * np.log1p(-clicked)
    posterior = np.tile(np.log(histogram), (len(counts.pairs), 1))
    # a pair has one row per position it was shown at: `+=` with repeated indices would keep the last one only
    np.add.at(posterior, counts.pair, evidence)
    # less the maximum of each row, which cancels: exp of a sum of many logarithms alone would be 0
    posterior = np.exp(posterior - posterior.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    # A hit without a click may have been looked at all the same: the less, the more it attracts.
    looked = unclicked * (propensity[counts.position][:, None] * (1 - ATTRACTIONS)) / (1 - clicked)
    looks = counts.clicks + (looked * posterior[counts.pair]).sum(axis=1)
    shown_at = np.bincount(counts.position, counts.impressions)
    updated = np.bincount(counts.position, looks) / np.maximum(shown_at, 1e-12)
    # bounds, because what is once 0 stays 0 in every later step
    return np.clip(updated, 1e-4, 1.0), np.maximum(posterior.mean(axis=0), 1e-12), posterior
