"""Logged searches, in the order of time -> those that train, and those of later sessions, that decide.

The line is a moment: who served yesterday is asked about tomorrow. A session lies on one side of it, whole: what
somebody asks again in other words is no new question. So does a user, where the log tells them apart: with one person's
questions and taste on both sides a gain looks larger than it is for others. Only where one user is most of the log, so
that nothing could be parted, sessions alone are parted, and the users on both sides are counted.

Which searches lie behind the line depends on times, sessions and users alone, on nothing that was said of them, beyond
how many of them have a label: no rule chooses what it is measured by.

Guarantees: deterministic; what began last decides. Does not know: labels, models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from llama_index_embed_plus.training.data.groups import Groups
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.mining.origins import origins_by_query
from qdrant_tools.records import FEEDBACK, HeldOut, Label, Query
from qdrant_tools.same import query_key

LEAST_OF_WANTED = 0.5
"""Of the labelled queries that either side should have: with fewer, users are not kept apart."""


@dataclass(frozen=True)
class Apart:
    """The searches that train, those that decide, and the moment from which on they do.

    `users` are those that the log tells apart, `on_both_sides` those of them that have searches in both parts.
    """

    train: tuple[LoggedSearch, ...]
    decide: tuple[LoggedSearch, ...]
    since: datetime | None = None

    @property
    def users(self) -> int:
        return len(_users(self.train) | _users(self.decide))

    @property
    def on_both_sides(self) -> int:
        return len(_users(self.train) & _users(self.decide))


def by_time(searches: Sequence[LoggedSearch], share: float, *, counts: Callable[[LoggedSearch], bool]) -> Apart:
    """Split so that the later part has about `share` of the searches that count, in whole sessions and users.

    What had begun before the line and goes on behind it is on the side of its beginning.
    """
    sessions = [_session(search) for search in searches]
    apart = _parted(searches, sessions, share, counts)
    if not apart.on_both_sides:
        return apart
    whole = _parted(searches, _connected(searches, sessions), share, counts)
    have = [sum(map(counts, part)) for part in (whole.train, whole.decide)]
    total = sum(have)
    wanted = total - round(share * total), round(share * total)
    enough = all(found >= LEAST_OF_WANTED * least for found, least in zip(have, wanted, strict=True))
    return whole if enough else apart


def _parted(
    searches: Sequence[LoggedSearch], groups: Sequence[str], share: float, counts: Callable[[LoggedSearch], bool]
) -> Apart:
    """Split in whole groups; those that began last decide."""
    began: dict[str, datetime] = {}
    for search, group in zip(searches, groups, strict=True):
        began[group] = min(search.at, began.get(group, search.at))
    ordered = sorted(zip(searches, groups, strict=True), key=lambda one: (began[one[1]], one[1], one[0].at, one[0].id))
    wanted = round(share * sum(map(counts, searches)))
    taken, line = 0, len(ordered)
    while line > 0 and taken < wanted:
        line -= 1
        taken += counts(ordered[line][0])
    while 0 < line < len(ordered) and ordered[line][1] == ordered[line - 1][1]:
        line -= 1
    since = began[ordered[line][1]] if line < len(ordered) else None
    found = [search for search, _ in ordered]
    return Apart(tuple(found[:line]), tuple(found[line:]), since)


def _connected(searches: Sequence[LoggedSearch], sessions: Sequence[str]) -> list[str]:
    """The group of every search: sessions that hang together by their users. It has the name of its first session."""
    groups = Groups(len(searches))
    groups.join_equal(enumerate(sessions))
    groups.join_equal((number, search.user) for number, search in enumerate(searches) if search.user)
    roots = [groups.root(number) for number in range(len(searches))]
    named: dict[int, str] = {}
    for root, session in zip(roots, sessions, strict=True):
        named[root] = min(session, named.get(root, session))
    return [named[root] for root in roots]


def held_out_of(labels: Sequence[Label]) -> HeldOut | None:
    """What the labels of the later part ask; None if no query has an answer.

    They are about what a search had shown: nothing that the encoder failed to show has a label.
    """
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    for label in labels:
        query = queries.setdefault(query_key(label.query), Query(f"heldout-{len(queries)}", label.query))
        grades = qrels.setdefault(query.id, {})
        grades[label.passage_id] = max(int(label.weight > 0), grades.get(label.passage_id, 0))
    if not any(grade for grades in qrels.values() for grade in grades.values()):
        return None
    kinds = {origin.evidence for origin in origins_by_query(labels).values()}
    evidence = next((kind for kind in FEEDBACK if kind in kinds), "")
    return HeldOut(tuple(queries.values()), qrels, evidence=evidence)


def questions_of(searches: Sequence[LoggedSearch]) -> list[Query]:
    """Every question that was asked, once, whether anybody said something of its answer or not."""
    asked: dict[str, Query] = {}
    for search in searches:
        key = query_key(search.query)
        if key and key not in asked:
            asked[key] = Query(f"asked-{len(asked)}", search.query)
    return list(asked.values())


def _session(search: LoggedSearch) -> str:
    """A search without a session is one by itself."""
    return f"session {search.session}" if search.session else f"search {search.id}"


def _users(searches: Sequence[LoggedSearch]) -> set[str]:
    return {search.user for search in searches if search.user}
