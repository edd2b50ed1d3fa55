"""What no label was made of -> what would give labels, by name, what frees most searches first.

Guarantees: names only what is in the log and was not asked for; the documents alone are the last way. Does not know:
commands, texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_index_embed_plus.training.improvement.evidence import NOT_THERE
from qdrant_tools.debias.answer_rules import AnswerSettings
from qdrant_tools.debias.support import NGRAMS

AMBIGUOUS, SUPPORT, MATCH, RERANKED = "ambiguous", "support", "match", "reranked"
FEEDBACK, UNANSWERED, DOCUMENTS = "feedback", "unanswered", "documents"
"""The names: take answers of several searches, check support otherwise, find passages by their text, learn from what a
reranker said; bring what people said, hand on what was not answered, make examples of the documents."""

OF_REASONS = {
    "several searches behind one answer": AMBIGUOUS,
    "no passage supports the answer more than others": SUPPORT,
    "its passages are not in the collection": MATCH,
    NOT_THERE: MATCH,
}


@dataclass(frozen=True)
class Way:
    """A way on, and how many searches (or passages, or thumbs) it is about; 0 where that is not known."""

    name: str
    count: int = 0

    def as_row(self) -> dict[str, Any]:
        return {"name": self.name, "count": self.count}


def ways_on(said: Mapping[str, int], refused: Mapping[str, int], answers: AnswerSettings) -> tuple[Way, ...]:
    """The ways from a log that gave too little."""
    counts: Counter[str] = Counter()
    for reason, count in refused.items():
        if name := OF_REASONS.get(reason):
            counts[name] += count
    counts[RERANKED] = said.get("reranked", 0)
    if answers.ambiguous:
        del counts[AMBIGUOUS]
    if answers.support is not NGRAMS:
        del counts[SUPPORT]
    found = [Way(name, count) for name, count in counts.most_common() if count]
    down = said.get("thumb down", 0)
    others = [Way(FEEDBACK), Way(UNANSWERED, down)] if said.get("thumb up") else [Way(UNANSWERED, down), Way(FEEDBACK)]
    return (*found, *(way for way in others if way.count or way.name == FEEDBACK), Way(DOCUMENTS))
