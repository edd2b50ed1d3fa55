"""Searches in the order of time -> the same without those that the application made again.

An application that retries after a failed answer writes two traces with one query, one list and one session. The user
asked once. Who asks again what was answered has asked twice.

Guarantees: two searches are one only if the earlier has failed, or, in a known session or of a known user, if it has no
answer and the later has one; a few thousand are held at a time. Does not know: spans.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.same import query_key
from qdrant_tools.traces.report import TraceReport

WITHIN = timedelta(minutes=10)
MOST_HELD = 2_000


def without_retries(
    searches: Iterable[tuple[LoggedSearch, bool | None]], report: TraceReport
) -> Iterator[LoggedSearch]:
    """Yield each search once; beside each, whether the answer made of it has failed, or None if the application has
    logged it as a search of its own."""
    held: OrderedDict[object, tuple[LoggedSearch, bool | None]] = OrderedDict()
    number = 0
    for search, failed in searches:
        while held:
            first = next(iter(held))
            if len(held) < MOST_HELD and search.at - held[first][0].at <= WITHIN:
                break
            yield held.pop(first)[0]
        key = ("logged", search.id) if failed is None else _key(search)
        before = held.get(key)
        if before is not None and _is_retry(before[0], search, failed=bool(before[1])):
            report.drop("retried")
            held[key] = (_with_said(search, before[0], report), failed)
            continue
        if before is not None:
            number += 1
            held[(key, number)] = held.pop(key)
        held[key] = (search, failed)
    yield from (search for search, _ in held.values())


def _key(search: LoggedSearch) -> object:
    return search.session, search.user, search.generated, query_key(search.query), tuple(hit.id for hit in search.hits)


def _is_retry(earlier: LoggedSearch, later: LoggedSearch, *, failed: bool) -> bool:
    if earlier.id == later.id or later.at - earlier.at > WITHIN:
        return False
    same_answer = earlier.answer is not None and later.answer is not None and earlier.answer.id == later.answer.id
    if failed:
        return not same_answer
    # what was to answer it is gone, as where a process was killed
    return bool(earlier.session or earlier.user) and earlier.answer is None and later.answer is not None


def _with_said(later: LoggedSearch, earlier: LoggedSearch, report: TraceReport) -> LoggedSearch:
    """The later one, with what was said of the documents of the earlier one. What was said of its answer is counted."""
    known = {(event.id, event.kind) for event in later.feedback}
    more = [event for event in earlier.feedback if (event.id, event.kind) not in known]
    for verdict in earlier.answer.verdicts if earlier.answer is not None else ():
        report.unjoin("failed answer", f"{verdict.name} ({verdict.kind})")
        report.verdicts[verdict.kind] -= 1
    return replace(later, feedback=tuple(sorted((*later.feedback, *more), key=lambda event: event.at)))
