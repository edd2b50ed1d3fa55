"""Logged searches -> two windows of time that can be compared: a reference, and the present.

Searches of one session are not independent, which every test takes them to be. So one search of each session is tested,
as if drawn by lot; a search whose session nobody knows is tested itself.

Guarantees: one pass over the log; memory does not grow with it, but for one score per search or session; the sample of
a window, and the searches that are tested, depend on the seed and the searches alone, not on their order; whatever is
left out is counted. Does not know: encoders.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.debias.click_rules import clicks, shown
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log.records import BY_MACHINES, LoggedSearch, as_time

SAMPLE = 10_000
"""Searches of each window that are kept."""
LONGEST_QUERY = 8192
"""Characters of a query that a sample keeps: some logs hold megabytes, and no encoder looks that far."""
COUNTS = (
    "searches",
    "tested",
    "redacted",
    "empty",
    "without_hits",
    "shown",
    "without_click",
    "feedback",
    "other_space",
    "without_score",
)


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

    `counts` has: all `searches`; those that are `tested`; those whose queries cannot be embedded, `redacted` and
    `empty`; those `without_hits`, and those with hits, `shown`; of the latter, those `without_click`; those with any
    `feedback`. `tested` has the same counts of what is tested. `top_scores` (n,) holds the best score of each tested
    search with hits, but for two kinds: `other_space`, whose scores are of other vectors, and `without_score`.
    `shown_at` and `clicked_at` count hits by rank. `sample` holds random searches.
    """

    span: Span
    counts: Mapping[str, int]
    tested: Mapping[str, int]
    shown_at: Mapping[int, int]
    clicked_at: Mapping[int, int]
    top_scores: NDArray[np.float64] = field(repr=False)
    sample: tuple[LoggedSearch, ...] = field(repr=False)

    @property
    def readable(self) -> list[LoggedSearch]:
        """The searches of the sample whose query is a text."""
        return [search for search in self.sample if search.query.strip() and not search.redacted]

    @property
    def independent(self) -> list[LoggedSearch]:
        """Of those, one of each session."""
        first: dict[str | int, LoggedSearch] = {}
        for number, search in enumerate(self.readable):
            first.setdefault(search.session or number, search)
        return list(first.values())


@dataclass(frozen=True)
class Windows:
    """Both windows. `elsewhere` searches are in neither span: between them, before, or (by a wrong clock) after."""

    reference: Window
    current: Window
    elsewhere: int


def recent_spans(*, days: float, reference_days: float, until: datetime | None = None) -> tuple[Span, Span]:
    """The reference: `reference_days` that end when the last `days` begin; and those last days, up to `until` (now)."""
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
    # two spans may touch: neither holds its own end
    if reference.end > current.start and current.end > reference.start:
        raise InputError(f"the reference ends {reference.end.isoformat()}, after the current window begins")
    first, second = _WindowReader(reference, space, sample, seed), _WindowReader(current, space, sample, seed)
    elsewhere = 0
    latest: datetime | None = None
    for search in searches:
        at = search.at.astimezone(UTC)
        latest = at if latest is None else max(latest, at)
        if at in reference:
            first.add(search)
        elif at in current:
            second.add(search)
        else:
            elsewhere += 1
    for name, window in (("reference", first), ("current", second)):
        if not window.counts["searches"]:
            span = window.span
            raise LogError(
                f"the log has no searches in the {name} window {span.start.isoformat()} to {span.end.isoformat()} "
                f"({first.counts['searches'] + second.counts['searches'] + elsewhere} in all)"
            ).with_way_out(python="choose another window", command=_with_searches(latest, current))
    return Windows(first.window(), second.window(), elsewhere)


def _with_searches(latest: datetime | None, current: Span) -> str:
    """The command whose windows the log fills: they end with its last search, or are shorter."""
    if latest is None:
        return "log import LOG SEARCHES.csv"
    if latest in current:
        return f"monitor COLLECTION LOG --days {max(1, (current.end - current.start).days // 4)}"
    return f"monitor COLLECTION LOG --until {(latest + timedelta(days=1)).date().isoformat()}"


@dataclass(frozen=True)
class _Outcome:
    """What is tested of a search."""

    without_hits: bool
    shown: bool
    without_click: bool
    score: float | None


class _WindowReader:
    """A window while the log is being read."""

    def __init__(self, span: Span, space: str, sample: int, seed: int) -> None:
        self.span, self.space, self.size, self.seed = span, space, sample, seed
        self.counts: Counter[str] = Counter()
        self.shown_at: Counter[int] = Counter()
        self.clicked_at: Counter[int] = Counter()
        self.tested: Counter[str] = Counter()
        self.scores: list[float] = []
        self.sessions: dict[str, tuple[int, _Outcome]] = {}
        self.heap: list[tuple[int, str, LoggedSearch]] = []

    def add(self, search: LoggedSearch) -> None:
        self.counts["searches"] += 1
        self.counts["redacted"] += search.redacted
        self.counts["empty"] += not search.query.strip()
        self.counts["feedback"] += any(event.kind not in BY_MACHINES for event in search.feedback)
        # of a log that does not say what was shown, a click says that something was
        nothing = not search.hits and not search.feedback
        self.counts["without_hits"] += nothing
        clicked = set(clicks(search))
        score = self._score(search) if search.hits else None
        if search.hits:
            self.counts["shown"] += 1
            self.counts["without_click"] += not clicked
            for rank, passage in enumerate(shown(search), start=1):
                self.shown_at[rank] += 1
                self.clicked_at[rank] += passage in clicked
        key = self._lot(search)
        self._test(search, key, _Outcome(nothing, bool(search.hits), bool(search.hits) and not clicked, score))
        self._sample(search, key)

    def _test(self, search: LoggedSearch, key: int, outcome: _Outcome) -> None:
        """Count what happened, of each session in its search with the smallest lot only."""
        if not search.session:
            self._count(outcome)
        elif search.session not in self.sessions or key > self.sessions[search.session][0]:
            self.sessions[search.session] = key, outcome

    def _count(self, outcome: _Outcome) -> None:
        self.tested["searches"] += 1
        self.tested["without_hits"] += outcome.without_hits
        self.tested["shown"] += outcome.shown
        self.tested["without_click"] += outcome.without_click
        if outcome.score is not None:
            self.scores.append(outcome.score)

    def _score(self, search: LoggedSearch) -> float | None:
        scores = [hit.score for hit in search.hits if hit.score is not None and np.isfinite(hit.score)]
        if search.scored_by not in ("", "retriever"):  # of a fusion or a reranker, which compare with no similarity
            scores = []
        if search.space and search.space != self.space:  # logs of other systems name no space: their scores count
            self.counts["other_space"] += 1
            return None
        self.counts["without_score"] += not scores
        return max(scores, default=None)

    def _lot(self, search: LoggedSearch) -> int:
        """A random number of the search, the same in every run; the greatest is the first."""
        digest = hashlib.blake2b(f"{self.seed}\0{search.id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return -int.from_bytes(digest, "big")  # negative: heapq keeps the smallest in front, which is the one to drop

    def _sample(self, search: LoggedSearch, key: int) -> None:
        """Keep the searches with the smallest hashes of their ids: a random sample, whatever their order."""
        if len(self.heap) < self.size or key > self.heap[0][0]:
            entry = (key, search.id, replace(search, query=search.query[:LONGEST_QUERY]))
            (heapq.heappush if len(self.heap) < self.size else heapq.heapreplace)(self.heap, entry)

    def window(self) -> Window:
        # smallest hash first, so that the first n of a sample are a random sample too
        sample = sorted(self.heap, key=lambda entry: (-entry[0], entry[1]))
        for _, outcome in self.sessions.values():
            self._count(outcome)
        self.counts["tested"] = self.tested["searches"]
        return Window(
            span=self.span,
            counts={name: self.counts[name] for name in COUNTS},
            tested=dict(self.tested),
            shown_at=dict(sorted(self.shown_at.items())),
            clicked_at={rank: self.clicked_at[rank] for rank in sorted(self.shown_at)},
            top_scores=np.array(self.scores, dtype=np.float64),
            sample=tuple(search for _, _, search in sample),
        )
