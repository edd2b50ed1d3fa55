"""A log, a collection and its encoder -> one report: what has changed, and which of the changes are alarms.

Guarantees: without any change, the probability that the tests of one report raise an alarm is `alpha` at most (Holm's
correction over exact and permutation tests). Failed canaries are always an alarm. `notes` says what could not be
tested, and what was left out. Does not know: files, schedules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch
from qdrant_tools.debias.click_rules import clicks, fit_click_model, shown
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.monitor.canary import CanaryReport
from qdrant_tools.monitor.counterfactual import Estimate, estimate_candidate
from qdrant_tools.monitor.signals import (
    FEWEST,
    DriftTest,
    RankClicks,
    Share,
    Signal,
    click_through,
    energy_test,
    signals,
)
from qdrant_tools.monitor.windows import SAMPLE, Span, Window, Windows, read_windows
from qdrant_tools.records import Encoder, Vectors
from qdrant_tools.statistics import holm
from qdrant_tools.validation import checked_unit_vectors

BATCH_SIZE = 64
"""Queries embedded, and passages fetched, at a time."""


@dataclass(frozen=True)
class MonitorSettings:
    """How many searches to look at, and how sure an alarm must be."""

    alpha: float = 0.01
    """Probability of a false alarm per report."""
    quantile: float = 0.05
    """Share of the reference's searches whose best score counts as low."""
    queries: int = 500
    """Queries of each window that are embedded for the drift test."""
    permutations: int = 999
    sample: int = SAMPLE
    """Searches of each window that the click model and the estimate of a candidate look at."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.quantile < 1):
            raise InputError(f"alpha is {self.alpha} and quantile {self.quantile}, expected shares between 0 and 1")
        for name, least in (("queries", FEWEST), ("permutations", 1), ("sample", FEWEST)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}")
        # the smallest p-value of so many permutations, and what Holm's correction asks of the smallest of four tests
        if 1 / (1 + self.permutations) > self.alpha / 4:
            raise InputError(
                f"{self.permutations} permutations cannot show what alpha {self.alpha} asks of one of four tests: "
                f"give at least {int(np.ceil(4 / self.alpha)) - 1}"
            )


@dataclass(frozen=True)
class MonitorReport:
    """The findings.

    `alarms` names the tests that fired: `drift`, `low_score`, `without_hits`, `without_click`, `canaries`. `counts` are
    those of the two windows. `unknown_hits` is the share of the hits shown in the current window that are no longer in
    the collection. What was not tested, or not asked for, is None.
    """

    collection: str
    space: str
    reference: Span
    current: Span
    counts: dict[str, dict[str, int]]
    alpha: float
    drift: DriftTest | None
    signals: tuple[Signal, ...]
    click_through: tuple[RankClicks, ...]
    unknown_hits: Share
    estimate: Estimate | None
    canaries: CanaryReport | None
    alarms: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def tests(self) -> int:
        """How many p-values the alarms were decided by."""
        return (self.drift is not None) + sum(signal.p_value is not None for signal in self.signals)

    @property
    def rule(self) -> str:
        """When a p-value is an alarm, in words: alone it says nothing, because several are looked at."""
        most = f"the smallest p of {self.tests} tests must be at most {self.alpha / self.tests:.4g}"
        if self.tests == 1:
            return f"an alarm needs p of at most {self.alpha:g}: so rare is a false alarm"
        return (
            f"by Holm's correction {most}, and the next {self.alpha / (self.tests - 1):.4g}: with several tests, the "
            f"probability of any false alarm stays {self.alpha:g}"
        )

    def as_row(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {
            "tests": self.tests,
            "reference": self.reference.as_row(),
            "current": self.current.as_row(),
            "estimate": None if self.estimate is None else self.estimate.as_row(),
            "canaries": None if self.canaries is None else self.canaries.as_row(),
            "alarms": list(self.alarms),
            "notes": list(self.notes),
        }


def monitor(
    searches: Iterable[LoggedSearch],
    collection: Collection,
    encoder: Encoder,
    *,
    reference: Span,
    current: Span,
    candidate: Encoder | None = None,
    canaries: CanaryReport | None = None,
    settings: MonitorSettings | None = None,
) -> MonitorReport:
    """Compare the current window of a log with a reference window; `candidate` is estimated from the current clicks.

    Raises:
        SpaceMismatchError: the encoder is not the collection's.
        LogError: a window has no searches.
    """
    settings = settings or MonitorSettings()
    collection.check(encoder)
    windows = read_windows(
        searches, reference, current, space=collection.space, sample=settings.sample, seed=settings.seed
    )
    notes = list(_left_out(windows))
    drift = _drift(windows, encoder, settings, notes)
    shares = signals(windows, quantile=settings.quantile)
    # what could not be tested does not count as a test: Holm's correction is over those that were made
    p_values = {signal.name: signal.p_value for signal in shares if signal.p_value is not None}
    notes += [
        f"{signal.name} was not compared: a window has nothing to compare"
        for signal in shares
        if signal.p_value is None
    ]
    alarms = holm(p_values | ({} if drift is None else {"drift": drift.p_value}), settings.alpha)
    if canaries is not None and not canaries.passed:
        # outside of the correction, because a failed canary is not a matter of chance
        alarms.add("canaries")
    estimate = None if candidate is None else _estimate(windows, candidate, collection, settings, notes)
    order = ("canaries", "drift", *(signal.name for signal in shares))
    return MonitorReport(
        collection=collection.name,
        space=collection.space,
        reference=reference,
        current=current,
        counts={"reference": dict(windows.reference.counts), "current": dict(windows.current.counts)},
        alpha=settings.alpha,
        drift=drift,
        signals=tuple(shares),
        click_through=tuple(click_through(windows)),
        unknown_hits=_unknown_hits(windows.current, collection, settings),
        estimate=estimate,
        canaries=canaries,
        alarms=tuple(name for name in order if name in alarms),
        notes=tuple(notes),
    )


def _left_out(windows: Windows) -> Iterable[str]:
    if windows.elsewhere:
        yield f"{windows.elsewhere} searches of the log are in neither window"
    for title, window in (("reference", windows.reference), ("current", windows.current)):
        for name, reason in (
            ("redacted", "queries are redacted: no vectors of them"),
            ("empty", "queries are empty: no vectors of them"),
            ("other_space", "searches were in another vector space: their scores are left out"),
            ("without_score", "searches have hits without scores"),
        ):
            if window.counts[name]:
                yield f"{title}: {window.counts[name]} of {window.counts['searches']} {reason}"
        if window.counts["tested"] < window.counts["searches"]:
            yield (
                f"{title}: {window.counts['tested']} of {window.counts['searches']} searches are tested, one of each "
                "session"
            )


def _drift(windows: Windows, encoder: Encoder, settings: MonitorSettings, notes: list[str]) -> DriftTest | None:
    before, after = (
        # a sample comes in the order of its hashes, so its beginning is a random sample too
        [search.query for search in window.independent[: settings.queries]]
        for window in (windows.reference, windows.current)
    )
    if min(len(before), len(after)) < FEWEST:
        counts = f"{len(before)} and {len(after)}"
        notes.append(f"drift was not tested: {counts} readable queries, expected at least {FEWEST} in each window")
        return None
    vectors = _encoded(before, encoder), _encoded(after, encoder)
    return energy_test(*vectors, permutations=settings.permutations, seed=settings.seed)


def _encoded(queries: Sequence[str], encoder: Encoder) -> Vectors:
    """Vectors (n, dimension); a query that comes often is embedded once."""
    distinct = list(dict.fromkeys(queries))
    parts = [
        checked_unit_vectors(
            encoder.encode_queries(batch),
            dimension=encoder.dimension,
            count=len(batch),
            what=f"queries encoded by {encoder.space!r}",
        )
        for batch in (distinct[start : start + BATCH_SIZE] for start in range(0, len(distinct), BATCH_SIZE))
    ]
    row = {query: number for number, query in enumerate(distinct)}
    vectors: Vectors = np.concatenate(parts)[[row[query] for query in queries]]
    return vectors


def _unknown_hits(window: Window, collection: Collection, settings: MonitorSettings) -> Share:
    passages = [passage for search in window.sample[: settings.queries] for passage in shown(search)]
    distinct = list(dict.fromkeys(passages))
    stored: set[str] = set()
    for start in range(0, len(distinct), BATCH_SIZE):
        stored.update(fetch(collection, distinct[start : start + BATCH_SIZE]))
    # every showing counts, although each passage is read once
    return Share.from_counts(sum(passage not in stored for passage in passages), len(passages))


def _estimate(
    windows: Windows, candidate: Encoder, collection: Collection, settings: MonitorSettings, notes: list[str]
) -> Estimate | None:
    """Propensities come from both windows; the clicks that are counted come from the current one."""
    both = [*windows.reference.sample, *windows.current.sample]
    if not any(map(clicks, both)):
        notes.append("the candidate was not estimated: no clicks on shown hits")
        return None
    model = fit_click_model(both)  # of both windows: it needs passages that were shown at several ranks
    if not model.repeated:
        notes.append(
            "no passage was shown at two ranks for one query: the propensities are mere click rates, and an estimate "
            "that rests on them prefers rankings unlike the logged one"
        )
    try:
        return estimate_candidate(windows.current.sample, model, candidate, collection, seed=settings.seed)
    except LogError as error:
        notes.append(f"the candidate was not estimated: {error}")
        return None
