"""What is in a retrieval log, in numbers.

Guarantees: counted by the database, so memory does not grow with the log. Does not know: what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qdrant_tools.log.store import LogStore

_CLICKED = "SELECT 1 FROM feedback f WHERE f.seq = s.seq AND f.kind = 'click'"


@dataclass(frozen=True)
class LogStats:
    """`shown_by_rank` and `clicks_by_rank` count hits; a hit clicked twice counts once."""

    searches: int
    distinct_queries: int
    without_feedback: int
    without_click: int
    first: str | None
    last: str | None
    feedback: Mapping[str, int]
    not_shown: int
    """Feedback on passages that the search did not show: the right answer that somebody named, or a mistake."""
    collections: Mapping[str, int]
    spaces: Mapping[str, int]
    shown_by_rank: Mapping[int, int]
    clicks_by_rank: Mapping[int, int]
    unclicked_queries: Mapping[str, int]
    """The most frequent queries of which no search had a click, and how often they came."""

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def stats_of(store: LogStore, *, top: int) -> LogStats:
    """Count. `first` and `last` are ISO times."""

    def number(sql: str) -> int:
        return int(store.read(sql)[0][0])

    def table(sql: str) -> dict[Any, int]:
        return dict(store.read(sql))

    first, last = store.read("SELECT min(at), max(at) FROM searches")[0]
    unclicked = store.read(
        f"""SELECT query, count(*) AS times FROM searches s GROUP BY query
            HAVING sum(EXISTS ({_CLICKED})) = 0 ORDER BY times DESC, query LIMIT ?""",
        [top],
    )
    return LogStats(
        searches=number("SELECT count(*) FROM searches"),
        distinct_queries=number("SELECT count(DISTINCT query) FROM searches"),
        without_feedback=number(
            "SELECT count(*) FROM searches s WHERE NOT EXISTS (SELECT 1 FROM feedback f WHERE f.seq = s.seq)"
        ),
        without_click=number(f"SELECT count(*) FROM searches s WHERE NOT EXISTS ({_CLICKED})"),
        first=first,
        last=last,
        feedback=table("SELECT kind, count(*) FROM feedback GROUP BY kind ORDER BY kind"),
        not_shown=number(
            """SELECT count(*) FROM feedback f WHERE NOT EXISTS
               (SELECT 1 FROM hits h WHERE h.seq = f.seq AND h.hit_id = f.hit_id)"""
        ),
        collections=table("SELECT collection, count(*) FROM searches GROUP BY collection ORDER BY collection"),
        spaces=table("SELECT space, count(*) FROM searches GROUP BY space ORDER BY space"),
        shown_by_rank=table("SELECT rank, count(*) FROM hits GROUP BY rank ORDER BY rank"),
        clicks_by_rank=table(
            """SELECT rank, count(*) FROM hits h WHERE EXISTS (SELECT 1 FROM feedback f
               WHERE f.seq = h.seq AND f.hit_id = h.hit_id AND f.kind = 'click') GROUP BY rank ORDER BY rank"""
        ),
        unclicked_queries=dict(unclicked),
    )
