"""Queries, and the passages that have their ids -> the queries that are passages themselves, and must not find them.

In Quora, ArguAna and their like every query is one of the passages, under the same id. It is its own best answer, which
nobody asked for: BEIR takes every passage that has its query's id out of the results, and mteb does so where a task
sets `ignore_identical_ids`. In other data ids are plain numbers, and passage 7 has nothing to do with query 7.

Guarantees: `auto` takes out only what is the query's own text and not judged relevant. Does not know: searches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from qdrant_tools.errors import UsageError
from qdrant_tools.records import Qrels, Run
from qdrant_tools.same import query_key

IdenticalIds = Literal["auto", "ignore", "keep"]
"""What becomes of a passage that has the id of the query: `ignore` takes it out of the results, as BEIR does; `keep`
leaves it; `auto` takes it out if its text is the query's, and it is not judged relevant."""


def own_passages(
    queries: Mapping[str, str], passages: Mapping[str, str | None], qrels: Qrels, rule: IdenticalIds
) -> frozenset[str]:
    """The ids that leave the results of the query that they name.

    passages: the texts of passages that have the id of a query; None where the text is not known.
    Raises:
        UsageError: no such rule.
    """
    if rule not in get_args(IdenticalIds):
        raise UsageError(f"identical_ids is {rule!r}, expected one of {', '.join(get_args(IdenticalIds))}")
    if rule == "keep":
        return frozenset()
    same = queries.keys() & passages.keys()
    if rule == "ignore":
        return frozenset(same)
    return frozenset(
        name for name in same if not is_relevant(qrels, name) and _is_text_of(queries[name], passages[name])
    )


def without_own(run: Run, own: Iterable[str], *, k: int | None) -> Run:
    """The first k results of each query (None: all) as they are given, without its own passage if that is in `own`."""
    ignored = frozenset(own)
    if not ignored:
        return run
    trimmed: dict[str, dict[str, float]] = {}
    for query, scores in run.items():
        others = [found for found in scores.items() if found[0] != query or query not in ignored]
        trimmed[query] = dict(others[:k])
    return trimmed


def is_relevant(qrels: Qrels, name: str) -> bool:
    """Whether the passage of this id is judged relevant for the query of this id."""
    return qrels.get(name, {}).get(name, 0) > 0


def _is_text_of(query: str, passage: str | None) -> bool:
    """Whether a passage is this query, perhaps behind a title that is no longer than it."""
    if passage is None:
        return False
    asked, found = query_key(query), query_key(passage)
    return found == asked or (found.endswith(f" {asked}") and len(found) <= 2 * len(asked) + 1)
