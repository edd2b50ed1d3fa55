"""What was said of traces whose spans came in an earlier import -> verdicts and feedback in the log that has them.

The ids of a search and of an answer are made of the ids of its trace and span, so that an annotation that names both
finds them again. One that names the trace alone finds the answer of a tool that gives a trace and its beginning one id.

Guarantees: an annotation that finds nothing changes nothing. Does not know: annotations without the id of their trace,
as Phoenix's tables have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from qdrant_tools.log.records import LONGEST_COMMENT, Verdict
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.traces.records import Annotation, TraceSettings
from qdrant_tools.traces.said.opinions import Opinion, opinions_in
from qdrant_tools.traces.trees import pseudonym, search_id


@dataclass(frozen=True)
class Late:
    """How many annotations found their answer or document in the log, and how many did not."""

    joined: int = 0
    lost: int = 0


def add_late(annotations: Iterable[Annotation], log: RetrievalLog, settings: TraceSettings) -> Late:
    """Add what annotations say of searches that are in a log already."""
    joined = lost = 0
    for annotation in annotations:
        found = annotation.trace is not None and any([*_said(annotation, log, settings)])
        joined, lost = joined + found, lost + (not found)
    return Late(joined, lost)


def _said(annotation: Annotation, log: RetrievalLog, settings: TraceSettings) -> Iterator[bool]:
    """For each opinion, whether it found what it is of."""
    opinions = opinions_in(annotation, settings)
    id = search_id(annotation.trace or "", annotation.span or annotation.trace or "")
    at = annotation.at or datetime.now(UTC)
    for opinion in opinions if not isinstance(opinions, str) else ():
        if annotation.position is None and annotation.document is None:
            yield log.add_verdicts(id, [_verdict(annotation, opinion, at)])
        elif opinion.kind == "grade":
            name = annotation.document
            if annotation.position is not None:
                name = log.shown_at(id, annotation.position + 1)
            if name is not None and log.has(id):
                log.feedback(id, name, "judged" if opinion.by == "judge" else "rating", opinion.value, at=at)
                yield True


def _verdict(annotation: Annotation, opinion: Opinion, at: datetime) -> Verdict:
    kind = "score" if opinion.kind == "grade" else opinion.kind
    who = pseudonym("user", annotation.who)
    return Verdict(kind, opinion.value, at, opinion.by, annotation.name[:200], who, opinion.text[:LONGEST_COMMENT])
