"""How to fit a query adapter, as one frozen value that is checked when it is made. Does not know: vectors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llama_index_embed_plus.adapter.maps import MAPS, Kind
from llama_index_embed_plus.errors import UsageError

Source = Literal["in_batch", "mined", "collection"]
SOURCES: tuple[Source, ...] = ("in_batch", "mined", "collection")
RATES = {"full": 3e-4, "low_rank": 1e-3, "orthogonal": 1e-4, "mlp": 1e-3}
"""Learning rates that suit the kinds."""


@dataclass(frozen=True)
class AdapterSettings:
    """How to fit.

    kind: full, low_rank, orthogonal or mlp; see `adapter.maps`. width: rank of low_rank, hidden units of mlp.
    temperature: divides cosines in the loss.
    learning_rate: None: what suits the kind.
    negatives: what a query is told from: the other positives of its batch, its mined negatives, stored vectors.
    sampled: how many stored vectors are drawn for a batch; a smaller collection is taken whole.
    max_stored_vectors: how many are held in memory to draw from; positives and mined negatives always are.
    same_passage_similarity: from which cosine to a known positive on a stored vector is taken for a hidden one.
    validation_share: of the queries, at most `max_validation`; they decide when to stop: after `patience` epochs
        without a better one.
    """

    kind: Kind = "full"
    width: int = 32
    temperature: float = 0.05
    learning_rate: float | None = None
    weight_decay: float = 0.0
    batch_size: int = 64
    max_epochs: int = 60
    patience: int = 5
    negatives: tuple[Source, ...] = SOURCES
    sampled: int = 4096
    max_stored_vectors: int = 50_000
    same_passage_similarity: float = 0.95
    validation_share: float = 0.1
    max_validation: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in MAPS:
            raise UsageError(f"adapter kind is {self.kind!r}, expected one of {', '.join(MAPS)}")
        for name in (
            "width",
            "batch_size",
            "max_epochs",
            "patience",
            "sampled",
            "max_stored_vectors",
            "max_validation",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("temperature", "rate"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                shown = "learning_rate" if name == "rate" else name
                raise UsageError(f"{shown} is {getattr(self, name)}, expected a number above 0")
        if not self.weight_decay >= 0:
            raise UsageError(f"weight_decay is {self.weight_decay}, expected 0 or more")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"validation_share is {self.validation_share}, expected a share between 0 and 1")
        if not self.negatives or set(self.negatives) - set(SOURCES):
            raise UsageError(f"negatives is {self.negatives!r}, expected some of {', '.join(SOURCES)}")

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return RATES[self.kind] if self.learning_rate is None else self.learning_rate

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "negatives": list(self.negatives), "learning_rate": self.rate}
