"""Labels -> where the answers of each query come from: clicks, ratings, what was said of answers, or no log.

Feedback is about what a search had shown, and so favours what ranked it. Whoever measures on such answers has to know.

Guarantees: the same labels give the same origins, in whatever order they come. Does not know: how labels are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qdrant_tools.records import ANSWERS, CLICKS, FEEDBACK, RATINGS, Label
from qdrant_tools.same import id_key, query_key


@dataclass(frozen=True)
class Origin:
    """Where the positives of a query come from: `evidence` (one of FEEDBACK, or "" for anything else), and what
    each is worth by the inverse of how likely its rank was looked at, where that is known."""

    evidence: str = ""
    debiased: Mapping[str, float] = field(default_factory=dict)

    def as_row(self) -> list[Any]:
        return [self.evidence, sorted(self.debiased.items())]


def origins_by_query(labels: Iterable[Label]) -> dict[str, Origin]:
    """Query key (`same.query_key`) -> where its positives come from, for those that feedback calls positives.

    One label of another kind, such as a judgement, and the query has no origin: its answers are no log's alone.
    """
    kinds: dict[str, set[str]] = {}
    debiased: dict[str, dict[str, float]] = {}
    for label in labels:
        if label.weight > 0:
            key = query_key(label.query)
            kinds.setdefault(key, set()).add(_feedback(label.evidence))
            if label.debiased is not None:
                weights = debiased.setdefault(key, {})
                passage = id_key(label.passage_id)
                weights[passage] = max(label.debiased, weights.get(passage, 0.0))
    return {
        key: Origin(next(kind for kind in FEEDBACK if kind in found), debiased.get(key, {}))
        for key, found in kinds.items()
        if "" not in found
    }


def _feedback(evidence: str) -> str:
    """Which feedback the rules of `debias` name in a label."""
    words = set(re.findall("[a-z]+", evidence.lower()))
    if words & {"click", "dwell", "bounce", "skipped", "examined"}:
        return CLICKS
    if words & {"support", "passage", "reformulation"}:  # of the rules for answers; a thumb on a hit is none of these
        return ANSWERS
    return RATINGS if words & {"rating", "thumb", "citation", "judge"} else ""
