"""The same queries under two systems -> which is better, by how much, how surely, and on which queries.

`Change` is one metric before and after with its interval, and `paired_test` adds the p-value and the counts. Proofs of
training and comparisons of reports both use these, so they print the same numbers.

Guarantees: everything is paired by query, and the same seed gives the same figures; systems that were measured on other
queries or cutoffs are refused. Does not know: what the systems are, how a metric is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.evaluate.retrieval.report import RetrievalReport
from qdrant_tools.errors import InputError, brief
from qdrant_tools.metrics import Interval, mean, paired_interval

SAME = 1e-12
"""Two values nearer than this are the same: the arithmetic of a metric is not exact."""
# signs drawn at once: 32 MB as float64
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Change:
    """One metric before and after, the difference (after - before) and its 95 % interval."""

    metric: str
    before: float
    after: float
    difference: float
    low: float
    high: float

    def excludes_loss_of(self, margin: float) -> bool:
        """Whether the whole interval lies above `-margin`, so that a loss as large as that is excluded.

        With margin 0 that is proof of a gain. With a margin above 0 it is a test of non-inferiority (Piaggio et al.,
        "Reporting of noninferiority and equivalence randomized trials", JAMA 2012).
        """
        return self.low > -margin

    def __str__(self) -> str:
        return f"{self.metric} {self.difference:+.4f} ({self.low:+.4f} to {self.high:+.4f})"

    @property
    def figures(self) -> str:
        """Both means, the difference and its interval, in one line."""
        interval = f"{self.difference:+.4f} ({self.low:+.4f} to {self.high:+.4f})"
        return f"{self.metric} {self.before:.4f} -> {self.after:.4f}, {interval}"


@dataclass(frozen=True)
class PairedTest(Change):
    """A change of means, the p-value of the randomisation test, and how many queries are better, worse, the same."""

    p_value: float
    better: int
    worse: int
    same: int


@dataclass(frozen=True)
class QueryChange:
    """One query before and after, by one metric. `text` is "" where only the id is known."""

    id: str
    text: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        return self.after - self.before


def mean_change(
    metric: str, before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> Change:
    """Compare the means of two mappings of query id -> value, with the interval of `paired_interval`.

    Raises:
        InputError: the two hold different queries, or none, or resamples is below 1.
    """
    interval = paired_interval(before, after, seed=seed, resamples=resamples)
    return Change(metric, mean(before), mean(after), interval.difference, interval.low, interval.high)


def paired_test(
    metric: str, before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> PairedTest:
    """Do as `mean_change`, add the p-value of `paired_randomisation`, and count the queries that changed.

    Raises:
        InputError: as `mean_change`.
    """
    change = mean_change(metric, before, after, seed=seed, resamples=resamples)
    differences = _differences(before, after)
    return PairedTest(
        **asdict(change),
        p_value=paired_randomisation(before, after, seed=seed, resamples=resamples),
        better=int((differences > SAME).sum()),
        worse=int((differences < -SAME).sum()),
        same=int((np.abs(differences) <= SAME).sum()),
    )


def query_changes(
    before: Mapping[str, float], after: Mapping[str, float], *, texts: Mapping[str, str]
) -> tuple[QueryChange, ...]:
    """Return every query, the most improved first; equal ones stand in the order of their ids."""
    changes = [QueryChange(query, texts.get(query, ""), before[query], after[query]) for query in sorted(before)]
    return tuple(sorted(changes, key=lambda change: -change.difference))


def improved(changes: Sequence[QueryChange]) -> tuple[QueryChange, ...]:
    """Of what `query_changes` returned, the queries that got better, the most improved first."""
    return tuple(change for change in changes if change.difference > SAME)


def worsened(changes: Sequence[QueryChange]) -> tuple[QueryChange, ...]:
    """Of what `query_changes` returned, the queries that got worse, the worst first."""
    return tuple(change for change in reversed(changes) if change.difference < -SAME)


@dataclass(frozen=True)
class Comparison:
    """The second system minus the first. `tests` has every metric, `metric` names the one that decides."""

    metric: str
    tests: Mapping[str, PairedTest]
    changes: tuple[QueryChange, ...]
    """Every query, the most improved first; equal ones in the order of their ids."""
    names: tuple[str, str] = ("", "")

    @property
    def deciding(self) -> PairedTest:
        return self.tests[self.metric]

    @property
    def difference(self) -> Interval:
        """The mean difference of the deciding metric and its 95 % interval."""
        return Interval(self.deciding.difference, self.deciding.low, self.deciding.high)

    @property
    def better(self) -> int:
        return self.deciding.better

    @property
    def worse(self) -> int:
        return self.deciding.worse

    @property
    def same(self) -> int:
        return self.deciding.same

    @property
    def proves_better(self) -> bool:
        """Whether the interval lies above zero: better, and not by luck of the queries."""
        return self.difference.low > 0

    @property
    def proves_worse(self) -> bool:
        """Whether the interval lies below zero."""
        return self.difference.high < 0

    def improved(self, count: int | None = None) -> tuple[QueryChange, ...]:
        """Return the queries that got better, the most improved first."""
        return improved(self.changes)[:count]

    def worsened(self, count: int | None = None) -> tuple[QueryChange, ...]:
        """Return the queries that got worse, the worst first."""
        return worsened(self.changes)[:count]

    def verdict(self) -> str:
        """What the deciding metric's interval allows to say: "better", "worse" or "not decided"."""
        return "better" if self.proves_better else "worse" if self.proves_worse else "not decided"

    def as_row(self, *, queries: int = 10) -> dict[str, Any]:
        """The comparison, JSON-ready, with at most so many improved and worsened queries."""
        listed = {"improved": self.improved(queries), "worsened": self.worsened(queries)}
        return {
            "before": self.names[0],
            "after": self.names[1],
            "metric": self.metric,
            "verdict": self.verdict(),
            "tests": {name: asdict(test) for name, test in self.tests.items()},
            **{key: [asdict(c) | {"difference": c.difference} for c in changes] for key, changes in listed.items()},
        }


def compare(
    before: RetrievalReport,
    after: RetrievalReport,
    *,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> Comparison:
    """Compare two reports over the same queries, metric by metric.

    metrics: names as in `RetrievalReport.values`; the first one decides. None: all of them, and nDCG decides. The
        others do not decide: among many metrics some differ by luck.
    Raises:
        InputError: the reports cover other queries or cutoffs, or do not know a metric.
    """
    if before.ndcg.keys() != after.ndcg.keys() or before.cutoffs != after.cutoffs:
        raise InputError(
            f"the two reports cover {len(before.ndcg)} and {len(after.ndcg)} queries at k {_ks(before)} and "
            f"{_ks(after)}: compare systems on the same queries and the same k"
        )
    names = list(before.values) if metrics is None else list(metrics)
    unknown = [name for name in names if name not in before.values]
    if unknown or not names:
        raise InputError(f"metrics {unknown} are not in the reports, which have {', '.join(before.values)}")
    tests = {
        name: paired_test(name, before.values[name], after.values[name], seed=seed, resamples=resamples)
        for name in names
    }
    changes = query_changes(before.values[names[0]], after.values[names[0]], texts={**after.texts, **before.texts})
    return Comparison(names[0], tests, changes, (before.name, after.name))


def paired_randomisation(
    before: Mapping[str, float], after: Mapping[str, float], *, seed: int = 0, resamples: int = 10_000
) -> float:
    """Two-sided p-value of Fisher's randomisation test on the mean difference.

    If the systems were the same, each query's two values could as well stand the other way round: the p-value is the
    share of such exchanges whose mean difference is at least as large as the real one (Smucker, Allan and Carterette,
    "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007). All exchanges
    are looked at if they are no more than `resamples`; else so many are drawn, and the real one counts as one of
    them (Phipson and Smyth, "Permutation p-values should never be zero", 2010).

    Raises:
        InputError: the two hold different queries, or none, or resamples is below 1.
    """
    differences = _differences(before, after)
    if resamples < 1:
        raise InputError(f"resamples is {resamples}, expected at least 1")
    changed = differences[np.abs(differences) > SAME]  # the others add nothing, whichever way round
    if not len(changed):
        return 1.0
    # the same exchange, summed in another order, may come out smaller by rounding
    least = abs(float(changed.sum())) - SAME * len(changed)
    # the minimum keeps thousands of queries from making a number of thousands of digits
    if 2 ** min(len(changed), 62) <= resamples:
        # the bits of a number are one exchange: 0 keeps a query's values, 1 swaps them
        every = 1 - 2 * ((np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed))) & 1)
        return float((np.abs(every @ changed) >= least).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    rows = max(1, _NUMBERS_AT_ONCE // len(changed))
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), len(changed))
        signs = 1.0 - 2.0 * generator.integers(2, size=size, dtype=np.int8)
        extreme += int((np.abs(signs @ changed) >= least).sum())
    # the arrangement that was measured is one of them, so that no p-value is 0
    return (extreme + 1) / (resamples + 1)


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> NDArray[np.float64]:
    if before.keys() != after.keys() or not before:
        odd = sorted(before.keys() ^ after.keys())
        what = (
            f"{len(odd)} queries are in only one of the two, such as {brief(odd[0])}" if odd else "there are no queries"
        )
        raise InputError(f"{what}: compare two systems on the same queries")
    # sorted: the same seed gives the same figures, whatever the order of the mappings
    return np.array([after[query] - before[query] for query in sorted(before)])


def _ks(report: RetrievalReport) -> str:
    return ", ".join(map(str, report.cutoffs))
