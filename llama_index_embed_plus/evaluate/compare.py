"""Two reports over the same queries -> which system is better, by how much, how surely, and on which queries.

Guarantees: paired; the same for a seed; nothing is compared that was measured on other queries or cutoffs.
Does not know: what the systems are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.report import RetrievalReport
from llama_index_embed_plus.evaluate.significance import SAME, PairedTest, paired_test
from qdrant_tools.metrics import Interval


@dataclass(frozen=True)
class QueryChange:
    """One query under two systems, by the comparison's metric. `text` is "" where only the id is known."""

    query: str
    text: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        return self.after - self.before


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
        return tuple(change for change in self.changes if change.difference > SAME)[:count]

    def worsened(self, count: int | None = None) -> tuple[QueryChange, ...]:
        """Return the queries that got worse, the worst first."""
        return tuple(change for change in reversed(self.changes) if change.difference < -SAME)[:count]

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

    def verdict(self) -> str:
        """What the deciding metric's interval allows to say: "better", "worse" or "not decided"."""
        return "better" if self.proves_better else "worse" if self.proves_worse else "not decided"


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
        others are not further chances to win: with many metrics some differ by luck.
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
        name: paired_test(before.values[name], after.values[name], metric=name, seed=seed, resamples=resamples)
        for name in names
    }
    first, second = before.values[names[0]], after.values[names[0]]
    texts = {**after.texts, **before.texts}
    changes = [QueryChange(query, texts.get(query, ""), first[query], second[query]) for query in sorted(first)]
    changes.sort(key=lambda change: -change.difference)
    return Comparison(names[0], tests, tuple(changes), (before.name, after.name))


def _ks(report: RetrievalReport) -> str:
    return ", ".join(map(str, report.cutoffs))
