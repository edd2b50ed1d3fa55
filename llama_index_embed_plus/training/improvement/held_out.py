"""Logged searches, in the order of time -> those that train, and those of later sessions, that decide.

The line is a moment: who served yesterday is asked about tomorrow. A session lies on one side of it, whole: what
somebody asks again in other words is no new question. Which searches lie behind the line depends on times and sessions
alone, on nothing that was said of them, beyond how many of them have a label: no rule chooses what it is measured by.

Guarantees: deterministic; the last sessions decide. Does not know: labels, models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from llama_index_embed_plus.training.improvement.evidence import CLICK
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.records import CLICKS, RATINGS, HeldOut, Label, Query
from qdrant_tools.same import query_key


@dataclass(frozen=True)
class Apart:
    """The searches that train, those that decide, and the moment from which on they do."""

    train: tuple[LoggedSearch, ...]
    decide: tuple[LoggedSearch, ...]
    since: datetime | None


def by_time(searches: Sequence[LoggedSearch], share: float, *, counts: Callable[[LoggedSearch], bool]) -> Apart:
    """Split so that the later part has about `share` of the searches that count, in whole sessions.

    A session that had begun before the line and goes on behind it is on the side of its beginning.
    """
    began: dict[str, datetime] = {}
    for search in searches:
        session = _session(search)
        began[session] = min(search.at, began.get(session, search.at))
    ordered = sorted(searches, key=lambda search: (began[_session(search)], _session(search), search.at, search.id))
    wanted = round(share * sum(map(counts, ordered)))
    taken, line = 0, len(ordered)
    while line > 0 and taken < wanted:
        line -= 1
        taken += counts(ordered[line])
    while 0 < line < len(ordered) and _session(ordered[line]) == _session(ordered[line - 1]):
        line -= 1
    since = began[_session(ordered[line])] if line < len(ordered) else None
    return Apart(tuple(ordered[:line]), tuple(ordered[line:]), since)


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
    clicks = any(label.evidence == CLICK for label in labels if label.weight > 0)
    return HeldOut(tuple(queries.values()), qrels, evidence=CLICKS if clicks else RATINGS)


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
