"""A log -> counts of what is in it, made by the database, so that memory does not grow with the log.

Guarantees: a damaged file, and a row that we have not written, is an error and not a count. What can have any number of
distinct values is cut to the first or most frequent ones. Does not know: how a log is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from qdrant_tools.log.records import BY_MACHINES
from qdrant_tools.log.store import LogStore


class Added(NamedTuple):
    """What `RetrievalLog.add` has written: new searches, and what is new of searches that were there."""

    searches: int = 0
    answers: int = 0
    verdicts: int = 0
    """On answers; one that replaces an earlier one is new."""
    events: int = 0
    """Of feedback on hits."""

    @property
    def to_known(self) -> list[str]:
        """What searches that were there have got, in words; none where they stay as they were."""
        counts = {"answers": self.answers, "verdicts on answers": self.verdicts, "events on hits": self.events}
        return [f"{count:,} {what}" for what, count in counts.items() if count]


MOST_NAMES = 1000
"""Collections, spaces and ranks that are listed."""
LONGEST_SHOWN = 8192
"""Characters of a query that are listed: some are megabytes long."""

_BY_USERS = f"kind NOT IN ({', '.join(map(repr, BY_MACHINES))})"
_CLICKED = "SELECT 1 FROM feedback f WHERE f.seq = s.seq AND f.kind = 'click'"
"""SQL: the search `s` has a click."""
_SAID = """
    SELECT CASE WHEN kind <> 'thumb' THEN kind WHEN value = 0 THEN 'thumb down' ELSE 'thumb up' END
        || CASE said_by WHEN 'judge' THEN ' by a judge' WHEN 'code' THEN ' by code' ELSE '' END AS said, count(*)
    FROM verdicts GROUP BY said ORDER BY said
"""


@dataclass(frozen=True)
class LogStats:
    """What is in a log. Spellings of one query (`same.query_key`) are one. `first` and `last` are ISO times.
    `shown_by_rank` and `clicks_by_rank` count hits; a hit that was clicked twice counts once."""

    searches: int
    distinct_queries: int
    sessions: int
    """Distinct ones; searches whose session nobody knows are in none."""
    redacted: int
    without_feedback: int
    without_click: int
    first: str | None
    last: str | None
    feedback: Mapping[str, int]
    not_shown: int
    """Feedback on passages that the search did not show: the right answer that somebody named, or a mistake."""
    collections: Mapping[str, int]
    """The most frequent ones, and so are `spaces`."""
    spaces: Mapping[str, int]
    shown_by_rank: Mapping[int, int]
    """Of the first ranks, as `clicks_by_rank`."""
    clicks_by_rank: Mapping[int, int]
    unclicked_queries: Mapping[str, int]
    """The most frequent queries without a click in any search, and how often they came."""
    users: int = 0
    """Distinct ones; searches of which nobody knows whose they are count for none."""
    generated: int = 0
    """Queries that a language model wrote, and no user."""
    answers: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    """What was said of answers, by kind and judge: "thumb up", "thumb down", "score by a judge"."""

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def stats_of(store: LogStore, *, top: int) -> LogStats:
    """Count what is in the log, with the `top` most frequent queries that nobody clicked on."""

    def number(sql: str) -> int:
        return int(store.read(sql)[0][0])

    def table(sql: str) -> dict[Any, int]:
        counts = store.read(sql)
        if any(isinstance(key, bytes) for key, _ in counts):
            raise store.damaged("searches", "?", "a text is not UTF-8")
        return dict(counts)

    def names(column: str) -> dict[str, int]:
        return dict(
            sorted(
                table(
                    f"SELECT {column}, count(*) AS times FROM searches GROUP BY {column} "
                    f"ORDER BY times DESC, {column} LIMIT {MOST_NAMES}"
                ).items()
            )
        )

    store.require_sound()
    with store.snapshot():
        first, last = store.read("SELECT min(at), max(at) FROM searches")[0]
        return LogStats(
            searches=number("SELECT count(*) FROM searches"),
            distinct_queries=number(
                "SELECT count(DISTINCT key_of(CAST(query AS BLOB))) FROM (SELECT DISTINCT query FROM searches)"
            ),
            sessions=number(f"SELECT count(DISTINCT {store.session}) FROM searches WHERE {store.session} <> ''"),
            redacted=number(f"SELECT count(*) FROM searches WHERE {store.redacted}"),
            without_feedback=number(
                "SELECT count(*) FROM searches s WHERE NOT EXISTS "
                f"(SELECT 1 FROM feedback f WHERE f.seq = s.seq AND {_BY_USERS})"
            ),
            without_click=number(f"SELECT count(*) FROM searches s WHERE NOT EXISTS ({_CLICKED})"),
            first=first,
            last=last,
            feedback=table("SELECT kind, count(*) FROM feedback GROUP BY kind ORDER BY kind"),
            not_shown=number(
                """SELECT count(*) FROM feedback f WHERE NOT EXISTS
                   (SELECT 1 FROM hits h WHERE h.seq = f.seq AND h.hit_id = f.hit_id)"""
            ),
            collections=names("collection"),
            spaces=names("space"),
            shown_by_rank=table(f"SELECT rank, count(*) FROM hits GROUP BY rank ORDER BY rank LIMIT {MOST_NAMES}"),
            clicks_by_rank=table(
                f"""SELECT rank, count(*) FROM hits h WHERE EXISTS (SELECT 1 FROM feedback f
                    WHERE f.seq = h.seq AND f.hit_id = h.hit_id AND f.kind = 'click')
                    GROUP BY rank ORDER BY rank LIMIT {MOST_NAMES}"""
            ),
            unclicked_queries=table(
                # of a row with a maximum, SQLite takes the other columns: the most frequent spelling is shown
                f"""SELECT shown, total FROM (
                        SELECT substr(query, 1, {LONGEST_SHOWN}) AS shown, sum(times) AS total, max(times) FROM (
                            SELECT query, count(*) AS times, sum(EXISTS ({_CLICKED})) AS clicked
                            FROM searches s GROUP BY query)
                        GROUP BY key_of(CAST(query AS BLOB)) HAVING sum(clicked) = 0)
                    ORDER BY total DESC, shown LIMIT {int(top)}"""
            ),
            **_of_answers(store, number, table),
        )


def _of_answers(
    store: LogStore, number: Callable[[str], int], table: Callable[[str], dict[Any, int]]
) -> dict[str, Any]:
    """The counts that a log of an earlier version has not."""
    if not store.has_answers:
        return {}
    return {
        "users": number("SELECT count(DISTINCT user) FROM searches WHERE user <> ''"),
        "generated": number("SELECT count(*) FROM searches WHERE generated"),
        "answers": number("SELECT count(*) FROM answers"),
        "verdicts": table(_SAID),
    }
