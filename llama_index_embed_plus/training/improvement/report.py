"""What became of a log: what was learnt, what was not and why, what was measured, and what is missing.

Guarantees: `promotable` only if the proof says so; numbers and names of rules, no text that a user typed. Does not
know: how anything was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from llama_index_embed_plus.training.improvement.ways import Way
from llama_index_embed_plus.training.proof.report import TrainReport

FORMAT = 1
GIVEN, LATER, NONE = "queries that were given", "the last sessions of the log", "nothing"
JUDGED = "the last sessions of the log, of which a person judged passages"
"""What decides."""


@dataclass(frozen=True)
class ImproveReport:
    """One run. `rules` counts the labels that train, by what they rest on, `refused` what no label was made of.

    `weights` say how much a label of a rule counts, and `measured` which of these weights somebody measured: the
    others are guesses. `missing` says what would have to be collected, where there was too little. `decide_queries` are
    those of whatever decides, `decided_by`.
    """

    searches: int
    sessions: int
    answers: int
    said: Mapping[str, int]
    rules: Mapping[str, int]
    refused: Mapping[str, int]
    train_queries: int
    decided_by: str = NONE
    decide_queries: int = 0
    since: datetime | None = None
    users: int = 0
    users_on_both_sides: int = 0
    """Users whose searches train and decide: none, unless a single one is most of the log."""
    examples: int = 0
    negatives: int = 0
    discarded: Mapping[str, int] = field(default_factory=dict)
    trained: TrainReport | None = None
    missing: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()
    """What would help, where nothing was trained; the first is what fits best."""
    weights: Mapping[str, float] = field(default_factory=dict)
    measured: tuple[str, ...] = ()
    sheet: str = ""
    """The file with passages for a person to judge, beside the model: where the log itself proves nothing."""
    sheet_rows: int = 0
    """How many were drawn in this call, of `sheet_questions`."""
    sheet_questions: int = 0

    @property
    def promotable(self) -> bool:
        return self.trained is not None and self.trained.promotable

    @property
    def is_judged(self) -> bool:
        """Whether a person's sheet has decided."""
        return self.decided_by == JUDGED

    @property
    def verdict(self) -> str:
        """One line: why it may be promoted, or why not."""
        if self.trained is None:
            return "nothing was trained: " + ("; ".join(self.missing) or "nothing to learn from")
        return self.trained.verdict

    def as_row(self) -> dict[str, Any]:
        """JSON-ready, without the curves of the training, which stand in the model's own report."""
        trained = self.trained
        return {
            "format": FORMAT,
            "promotable": self.promotable,
            "verdict": self.verdict,
            "searches": self.searches,
            "sessions": self.sessions,
            "answers": self.answers,
            "said": dict(self.said),
            "rules": dict(self.rules),
            "weights": dict(self.weights),
            "measured": list(self.measured),
            "refused": dict(self.refused),
            "train_queries": self.train_queries,
            "decided_by": self.decided_by,
            "decide_queries": self.decide_queries,
            "since": None if self.since is None else self.since.isoformat(),
            "users": self.users,
            "users_on_both_sides": self.users_on_both_sides,
            "examples": self.examples,
            "negatives": self.negatives,
            "discarded": dict(self.discarded),
            "trained": None
            if trained is None
            else {"method": trained.method, "data": dict(trained.data), "seconds": round(trained.seconds, 2)},
            "missing": list(self.missing),
            "ways": [way.as_row() for way in self.ways],
            "sheet": self.sheet,
            "sheet_rows": self.sheet_rows,
            "sheet_questions": self.sheet_questions,
        }
