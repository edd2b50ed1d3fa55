"""Logged searches -> two windows of time that can be compared: a reference, and the present.

Guarantees: one pass; memory does not grow with the log, but for one score per search; the sample of a window depends
on the seed and the searches alone, not on their order; whatever is left out is counted. Does not know: encoders.

Two windows of a log -> what share of searches goes badly now and went badly then, and click-through by rank.

Guarantees: every share has its count and a 95 % interval; every p-value is exact, and of growth: that fewer searches
go badly is no alarm. Does not know: time, texts.

Two sets of query vectors -> do they come from one distribution?

Guarantees: a permutation test, so that without drift the p-value is at most `a` with probability `a` at most, whatever
the distribution and however small the sets. It takes the searches as independent: those of one user in one sitting are
not quite, and make the test fire more often. Does not know: texts.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.debias import clicks, shown
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log.records import LoggedSearch, as_time, is_redacted
from qdrant_tools.metrics import growth_p_value, order_statistic_p_value, wilson
from qdrant_tools.records import Vectors
from qdrant_tools.validation import checked_vectors

SAMPLE = 10_000
LONGEST = 8192
"""Characters of a query that a sample keeps: some logs hold megabytes, no encoder looks that far."""


@dataclass(frozen=True)
class Span:
    """From `start` up to, and without, `end`."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if not as_time(self.start) < as_time(self.end):
            raise InputError(f"a window starts {self.start.isoformat()} and ends {self.end.isoformat()}, not after it")

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end

    def as_row(self) -> dict[str, str]:
        return {"start": self.start.isoformat(), "end": self.end.isoformat()}


@dataclass(frozen=True)
class Window:
    """The searches of a span.

    `counts`: `searches`; of those `redacted` and `empty`, whose queries cannot be embedded; `without_hits`; `shown`,
    with hits, and of those `without_click`; `feedback`, with any; `other_space`, whose scores are of other vectors, and
    `without_score`: both have no place in `top_scores` (n,), the best score of each other search that had hits.
    `shown_at` and `clicked_at` count hits by rank. `sample` is a random one of at most so many searches.
    """

    span: Span
    counts: Mapping[str, int]
    shown_at: Mapping[int, int]
    clicked_at: Mapping[int, int]
    top_scores: NDArray[np.float64] = field(repr=False)
    sample: tuple[LoggedSearch, ...] = field(repr=False)

    @property
    def readable(self) -> list[LoggedSearch]:
        """Those of the sample whose query is a text."""
        return [search for search in self.sample if search.query.strip() and not is_redacted(search.query)]


@dataclass(frozen=True)
class Windows:
    """`elsewhere` searches are in neither span: between them, before, or, by a clock that was wrong, after."""

    reference: Window
    current: Window
    elsewhere: int


def recent_spans(*, days: float, reference_days: float, until: datetime | None = None) -> tuple[Span, Span]:
    """The `reference_days` before the last `days`, and those; `until` is now."""
    if not (days > 0 and reference_days > 0):
        raise InputError(f"days is {days:g} and reference_days {reference_days:g}, expected both above 0")
    end = as_time(until)
    try:
        start = end - timedelta(days=days)
        return Span(start - timedelta(days=reference_days), start), Span(start, end)
    except OverflowError as error:
        raise InputError(f"{days:g} and {reference_days:g} days reach beyond the calendar: give fewer") from error


def read_windows(
    searches: Iterable[LoggedSearch],
    reference: Span,
    current: Span,
    *,
    space: str,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Windows:
    """Read the log once. `space` is that of the collection now: scores of another one cannot be compared.

    Raises:
        LogError: there is no search in a span.
        InputError: the spans overlap.
    """
    if reference.end > current.start and current.end > reference.start:
        raise InputError(f"the reference ends {reference.end.isoformat()}, after the current window begins")
    first, second = _Gathering(reference, space, sample, seed), _Gathering(current, space, sample, seed)
    elsewhere = 0
    for search in searches:
        at = search.at.astimezone(UTC)
        if at in reference:
            first.add(search)
        elif at in current:
            second.add(search)
        else:
            elsewhere += 1
    for name, gathered in (("reference", first), ("current", second)):
        if not gathered.counts["searches"]:
            span = gathered.span
            raise LogError(
                f"the log has no searches in the {name} window {span.start.isoformat()} to {span.end.isoformat()} "
                f"({first.counts['searches'] + second.counts['searches'] + elsewhere} in all): choose another window"
            )
    return Windows(first.window(), second.window(), elsewhere)


class _Gathering:
    """A window while it is being read."""

    def __init__(self, span: Span, space: str, sample: int, seed: int) -> None:
        self.span, self.space, self.size, self.seed = span, space, sample, seed
        self.counts: Counter[str] = Counter()
        self.shown_at: Counter[int] = Counter()
        self.clicked_at: Counter[int] = Counter()
        self.scores: list[float] = []
        self.heap: list[tuple[int, str, LoggedSearch]] = []

    def add(self, search: LoggedSearch) -> None:
        self.counts["searches"] += 1
        self.counts["redacted"] += is_redacted(search.query)
        self.counts["empty"] += not search.query.strip()
        self.counts["feedback"] += bool(search.feedback)
        self.counts["without_hits"] += not search.hits
        if search.hits:
            clicked = set(clicks(search))
            self.counts["shown"] += 1
            self.counts["without_click"] += not clicked
            for rank, passage in enumerate(shown(search), start=1):
                self.shown_at[rank] += 1
                self.clicked_at[rank] += passage in clicked
            self._add_score(search)
        self._sample(search)

    def _add_score(self, search: LoggedSearch) -> None:
        scores = [hit.score for hit in search.hits if hit.score is not None and np.isfinite(hit.score)]
        if search.space and search.space != self.space:
            self.counts["other_space"] += 1
        elif scores:
            self.scores.append(max(scores))
        else:
            self.counts["without_score"] += 1

    def _sample(self, search: LoggedSearch) -> None:
        """Keep those with the smallest hashes of their ids."""
        digest = hashlib.blake2b(f"{self.seed}\0{search.id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        luck = -int.from_bytes(digest, "big")
        if len(self.heap) < self.size or luck > self.heap[0][0]:
            entry = (luck, search.id, replace(search, query=search.query[:LONGEST]))
            (heapq.heappush if len(self.heap) < self.size else heapq.heapreplace)(self.heap, entry)

    def window(self) -> Window:
        chosen = tuple(search for _, _, search in sorted(self.heap, key=lambda entry: (-entry[0], entry[1])))
        names = ("searches", "redacted", "empty", "without_hits", "shown", "without_click", "feedback", "other_space")
        counts = {name: self.counts[name] for name in (*names, "without_score")}
        return Window(
            self.span,
            counts,
            dict(sorted(self.shown_at.items())),
            {rank: self.clicked_at[rank] for rank in sorted(self.shown_at)},
            np.array(self.scores, dtype=np.float64),
            chosen,
        )


@dataclass(frozen=True)
class Share:
    """`count` of `of`, and the ends of the 95 % Wilson interval of the share."""

    count: int
    of: int
    share: float
    low: float
    high: float

    @classmethod
    def from_counts(cls, count: int, of: int) -> Share:
        return cls(count, of, count / of if of else 0.0, *wilson(count, of))


@dataclass(frozen=True)
class Signal:
    """One share, then and now. `p_value` is None where there is nothing to compare; `bound` is the score of a low
    score."""

    name: str
    reference: Share
    current: Share
    p_value: float | None
    bound: float | None = None

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RankClicks:
    """How often the hits of one rank were clicked, then and now."""

    rank: int
    reference: Share
    current: Share

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def signals(windows: Windows, *, quantile: float = 0.05) -> list[Signal]:
    """Searches with a low best score, without hits, and without a click."""
    return [low_scores(windows, quantile=quantile), _without_hits(windows), _without_click(windows)]


def low_scores(windows: Windows, *, quantile: float = 0.05) -> Signal:
    """The share of searches whose best score is below what only `quantile` of the reference window's were below.

    The bound is the reference's order statistic of rank quantile x n, and the test is exact for whatever distribution
    of scores: see `proportions.order_statistic_p_value`.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile is {quantile}, expected a share between 0 and 1")
    reference, current = np.sort(windows.reference.top_scores), windows.current.top_scores
    if not len(reference) or not len(current):
        nothing = Share.from_counts(0, len(reference)), Share.from_counts(0, len(current))
        return Signal("low_score", *nothing, None)
    rank = max(1, round(quantile * len(reference)))
    bound = float(reference[rank - 1])
    below = int((current < bound).sum())
    return Signal(
        "low_score",
        Share.from_counts(int((reference < bound).sum()), len(reference)),
        Share.from_counts(below, len(current)),
        order_statistic_p_value(rank, len(reference), below, len(current)),
        bound,
    )


def click_through(windows: Windows, *, ranks: int = 10) -> Iterator[RankClicks]:
    """Click-through of the first so many ranks."""
    for rank in range(1, ranks + 1):
        of = [each.shown_at.get(rank, 0) for each in (windows.reference, windows.current)]
        if any(of):
            clicked = [each.clicked_at.get(rank, 0) for each in (windows.reference, windows.current)]
            yield RankClicks(rank, *(Share.from_counts(*pair) for pair in zip(clicked, of)))


def _without_hits(windows: Windows) -> Signal:
    return _signal("without_hits", windows, of="searches")


def _without_click(windows: Windows) -> Signal:
    """Nothing to compare where a window has no feedback at all: then nobody recorded any."""
    found = _signal("without_click", windows, of="shown")
    recorded = all(each.counts["feedback"] for each in (windows.reference, windows.current))
    return found if recorded else Signal(found.name, found.reference, found.current, None)


def _signal(name: str, windows: Windows, *, of: str) -> Signal:
    def counts(window: Window) -> tuple[int, int]:
        return window.counts[name], window.counts[of]

    before, after = counts(windows.reference), counts(windows.current)
    p_value = growth_p_value(before, after) if before[1] and after[1] else None
    return Signal(name, Share.from_counts(*before), Share.from_counts(*after), p_value)


FEWEST = 8
"""Vectors per side: with fewer, hardly any drift can show."""


@dataclass(frozen=True)
class DriftTest:
    """`share` is the size of the difference: 0 for one distribution, 1 for two points; however small, it becomes
    significant in a log that is large enough, so look at both. `p_value` is that of the energy distance `distance`."""

    distance: float
    share: float
    p_value: float
    reference: int
    current: int
    permutations: int

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def energy_test(reference: Vectors, current: Vectors, *, permutations: int = 999, seed: int = 0) -> DriftTest:
    """Test whether two sets of vectors, (n, dimension) and (m, dimension), come from one distribution.

    The statistic is the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo, "Energy statistics",
    Journal of Statistical Planning and Inference 2013), which is the squared maximum mean discrepancy of the kernel
    -|x - y| (Sejdinovic et al., Annals of Statistics 2013): it is 0 for equal distributions only, and has no bandwidth
    to choose. The p-value is (1 + permutations at least as far apart) / (1 + permutations): Phipson and Smyth,
    "Permutation p-values should never be zero", 2010. Memory is O((n + m) x (n + m + permutations)).

    Raises:
        InputError: fewer than 8 vectors on a side, fewer than 1 permutation.
        VectorError: other dimensions, NaN.
    """
    n, m = len(reference), len(current)
    if min(n, m) < FEWEST or permutations < 1:
        raise InputError(f"{n} and {m} vectors and {permutations} permutations, expected at least {FEWEST} and 1")
    first = checked_vectors(reference, dimension=np.shape(reference)[1], what="reference vectors")
    second = checked_vectors(current, dimension=first.shape[1], what="current vectors")
    distances = _distances(np.concatenate([first, second]).astype(np.float64))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    luck = np.random.default_rng(seed)
    shuffled = np.stack([weights, *(luck.permutation(weights) for _ in range(permutations))], axis=1)
    # With w = 1/n on one side and -1/m on the other, the energy distance is -w'Dw.
    energies = -np.einsum("ij,ij->j", shuffled, distances @ shuffled)
    observed = energies[0]
    # A permutation that restores the sides gives the observed value but for rounding.
    beyond = int((energies[1:] >= observed - 1e-12).sum())
    between = float(distances[:n, n:].mean())
    share = float(observed) / (2 * between) if between > 0 else 0.0
    return DriftTest(float(observed), share, (1 + beyond) / (1 + permutations), n, m, permutations)


def _distances(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean, (n, n)."""
    squares = (vectors**2).sum(axis=1)
    distances: NDArray[np.float64] = np.sqrt(
        np.maximum(squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T, 0.0)
    )
    return distances
