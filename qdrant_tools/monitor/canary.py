"""A few queries whose answers are known, asked again and again: does the collection still find them?

File: JSONL, one canary per line, `{"query", "expected": [passage ids], "space", "adapter", "exact"}`. Canaries that a
person writes name the passages that must be found, and no space. Those of `freeze_canaries` name what was found on a
good day, the space and the query adapter ("" for none) by which it was found, and whether by exact search.

Guarantees: the file appears whole or not at all. A canary of another space or another adapter is refused, because every
answer may rightly have changed. What was frozen is asked in the same way, so that what did not change is no alarm. Of
an expected document that was cut any part counts (`sources.judged`). Does not know: schedules (cron does), encoders.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import InputError, SpaceMismatchError, brief
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.written import write_rows
from qdrant_tools.foreign import is_missing
from qdrant_tools.records import Encoder, Hit
from qdrant_tools.same import query_key, spelled
from qdrant_tools.search.adapters import adapter_of
from qdrant_tools.search.dense import search_batch
from qdrant_tools.sources.judged import documents_judged, search_judged
from qdrant_tools.unread import Unread

logger = logging.getLogger(__name__)

DEFAULT_K = 10
"""First hits among which the expected passages must be."""


@dataclass(frozen=True)
class Canary:
    """A query and the passages that belong among its first hits, in no order. `space` is "" if written by hand.

    `adapter` is the build of the query adapter that found them, None where nothing is said of one. `exact` says that
    exact search found them, and is to find them again.
    """

    query: str
    expected: tuple[str, ...]
    space: str = ""
    adapter: str | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.query.strip() or not self.expected or len(set(self.expected)) < len(self.expected):
            raise InputError(
                f"canary {brief(self.query)} expects {brief(self.expected)}: give a query and distinct passages"
            )

    def as_row(self) -> dict[str, Any]:
        row = {"query": self.query, "expected": list(self.expected), "space": self.space, "exact": self.exact}
        return row if self.adapter is None else row | {"adapter": self.adapter}


@dataclass(frozen=True)
class CanaryResult:
    """`recall` is the share of the expected passages that were found. `missing` were not found; those of them that are
    no longer in the collection are `gone`."""

    query: str
    recall: float
    missing: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True)
class CanaryReport:
    """All results, worst first. `failed` are the queries below `each_at_least`; `passed` says that there are none and
    that the mean recall reaches `mean_at_least`."""

    k: int
    mean_at_least: float
    each_at_least: float
    results: tuple[CanaryResult, ...]

    @property
    def mean(self) -> float:
        return sum(result.recall for result in self.results) / len(self.results)

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(result.query for result in self.results if result.recall < self.each_at_least)

    @property
    def passed(self) -> bool:
        return not self.failed and self.mean >= self.mean_at_least

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"mean": self.mean, "failed": list(self.failed), "passed": self.passed}


def freeze_canaries(
    collection: Collection, queries: Sequence[str], encoder: Encoder, *, k: int = DEFAULT_K, exact: bool = False
) -> list[Canary]:
    """Take what the collection finds now, as users are answered, as what it has to find from now on. Of the spellings
    of one query (`same.query_key`) the first is asked.

    With `exact` by exact search, now and whenever they are run: then they tell whether the model and the passages are
    the same, and nothing of the index.

    Raises:
        InputError: no query, an empty one, or one that finds nothing.
        SpaceMismatchError: the collection was filled by another encoder.
    """
    first: dict[str, str] = {}
    for query in queries:
        first.setdefault(query_key(query), query)
    distinct = list(first.values())
    if not distinct:
        raise InputError("no queries to freeze: give at least one")
    rankings = search_batch(collection, distinct, encoder, k=k, exact=exact, fields=(), text=False)
    adapter = adapter_of(encoder) or ""
    return [
        Canary(query, tuple(hit.id for hit in hits), collection.space, adapter, exact)
        for query, hits in zip(distinct, rankings)
    ]


def run_canaries(
    collection: Collection,
    canaries: Sequence[Canary],
    encoder: Encoder,
    *,
    k: int = DEFAULT_K,
    mean_at_least: float = 0.9,
    each_at_least: float = 0.5,
) -> CanaryReport:
    """Ask every canary as it was frozen (those written by hand as users are answered), and compare the first `k` hits
    with what is expected.

    Raises:
        InputError: no canaries, shares outside of 0 to 1, or a canary that expects more than `k` passages.
        SpaceMismatchError: a canary was frozen in another space or with another adapter than the encoder's, or the
            collection was filled by another encoder.
    """
    if not canaries or not (0 <= mean_at_least <= 1 and 0 <= each_at_least <= 1):
        raise InputError(
            f"{len(canaries)} canaries with mean_at_least {mean_at_least} and each_at_least {each_at_least}, "
            "expected at least one, and shares of 0 to 1"
        )
    for canary in canaries:
        if canary.space and canary.space != collection.space:
            raise SpaceMismatchError(
                f"canary {brief(canary.query)} was frozen in {brief(canary.space)}, collection {collection.name!r} "
                f"holds {collection.space!r}: freeze the canaries again after a promotion"
            )
        if canary.adapter is not None and canary.adapter != (adapter_of(encoder) or ""):
            raise SpaceMismatchError(
                f"canary {brief(canary.query)} was frozen with {canary.adapter or 'no adapter'}, and is asked with "
                f"{adapter_of(encoder) or 'no adapter'}: freeze the canaries again after a promotion, or ask with the "
                "model that froze them"
            )
        # such a canary could never be found in full
        if len(canary.expected) > k:
            raise InputError(f"canary {brief(canary.query)} expects {len(canary.expected)} passages in the first {k}")
    passages, documents = documents_judged(collection, {name for canary in canaries for name in canary.expected})
    rankings = _asked(collection, canaries, encoder, k=k, documents=bool(documents))
    missing = [
        tuple(passage for passage in canary.expected if not spelled([passage], {hit.id for hit in hits}))
        for canary, hits in zip(canaries, rankings)
    ]
    results = [
        CanaryResult(
            canary.query,
            recall=1 - len(names) / len(canary.expected),
            missing=names,
            gone=tuple(name for name in names if name not in passages and name not in documents),
        )
        for canary, names in zip(canaries, missing)
    ]
    return CanaryReport(k, mean_at_least, each_at_least, tuple(sorted(results, key=lambda result: result.recall)))


def _asked(
    collection: Collection, canaries: Sequence[Canary], encoder: Encoder, *, k: int, documents: bool
) -> list[list[Hit]]:
    """The hits of each canary, searched as it was frozen."""
    found: list[list[Hit]] = [[] for _ in canaries]
    for exact in (False, True):
        rows = [row for row, canary in enumerate(canaries) if canary.exact == exact]
        if rows:
            queries = [canaries[row].query for row in rows]
            hits = search_judged(collection, queries, encoder, k=k, documents=documents, exact=exact)
            for row, ranking in zip(rows, hits, strict=True):
                found[row] = list(ranking)
    return found


def write_canaries(path: str | Path, canaries: Sequence[Canary], *, overwrite: bool = True) -> None:
    """Write the file, in place of an older one if that is to be.

    Raises:
        UsageError: it cannot be written, or is there.
    """
    write_rows(path, (canary.as_row() for canary in canaries), overwrite=overwrite)


def read_canaries(path: str | Path) -> list[Canary]:
    """Read the file.

    Raises:
        InputError: it cannot be read, holds none, or a line is no canary.
    """
    unread = Unread()

    def canary(values: Mapping[str, Any]) -> Canary:
        unread.check(values, ("query", "expected", "space", "adapter", "exact"), way_out="leave it out")
        return _canary(values)

    canaries = [row.parse(canary, "a canary") for row in read_rows(path)]
    if not canaries:
        raise InputError(f"{path} holds no canaries: one per line, {{'query': ..., 'expected': [passage ids]}}")
    if unread.names:
        logger.warning("%s: fields that are not read: %s", path, unread.listed())
    return canaries


def _canary(row: Mapping[str, Any]) -> Canary:
    query, expected, space = row.get("query"), row.get("expected"), row.get("space")
    space = "" if is_missing(space) else space
    if not isinstance(query, str) or not isinstance(space, str):
        raise InputError(f"query is {brief(query)} and space {brief(space)}, expected texts")
    adapter, exact = row.get("adapter"), row.get("exact", False)
    if not isinstance(adapter, str | None) or not isinstance(exact, bool):
        raise InputError(f"adapter is {brief(adapter)} and exact {brief(exact)}, expected a text, and true or false")
    if not isinstance(expected, list) or not all(isinstance(passage, str) for passage in expected):
        raise InputError(f"expected is {brief(expected)}, expected a list of passage ids")
    return Canary(query, tuple(expected), space, adapter, exact)
