"""How a log becomes an adapter: the settings of each step, as frozen values that are checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llama_index_embed_plus.training.limits import check_whole
from llama_index_embed_plus.training.settings import TrainSettings
from qdrant_tools.debias.answer_rules import AnswerSettings
from qdrant_tools.errors import UsageError
from qdrant_tools.mining.rules import MiningSettings


def _of_an_adapter() -> TrainSettings:
    # what knows a held-out query is left out and counted: which those are, nobody chose
    return TrainSettings(method="adapter", drop_leaks=True)


@dataclass(frozen=True)
class ImproveSettings:
    """How to improve.

    answers: the rules that make labels of what was said of answers, and their weights.
    clicks: whether a click on a hit is a positive too.
    heldout_share: the share of the labelled queries that decides, taken from the last sessions.
    least_queries: below so many labelled queries nothing is fitted.
    sheet_rows: about how many passages are drawn for a person to judge, where the log itself proves nothing.
    mining, training: how negatives are mined, and what is trained of them: a query adapter, unless it says otherwise.
    """

    answers: AnswerSettings = field(default_factory=AnswerSettings)
    clicks: bool = True
    heldout_share: float = 0.2
    least_queries: int = 20
    sheet_rows: int = 200
    mining: MiningSettings = field(default_factory=MiningSettings)
    training: TrainSettings = field(default_factory=_of_an_adapter)

    def __post_init__(self) -> None:
        if not 0 < self.heldout_share < 1:
            raise UsageError(f"heldout_share is {self.heldout_share}, expected a share between 0 and 1")
        check_whole("least_queries", self.least_queries, least=2)
        check_whole("sheet_rows", self.sheet_rows, least=10)

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "rules": list(self.answers.rules),
            "weights": dict(self.answers.weights),
            "support": [self.answers.support.name, self.answers.support.threshold, self.answers.support.margin],
            "clicks": self.clicks,
            "heldout_share": self.heldout_share,
            "least_queries": self.least_queries,
            "mining": self.mining.as_row(),
            "training": self.training.as_dict(),
        }
