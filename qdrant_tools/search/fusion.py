"""Two rankings of the same passages -> the numbers by which they become one.

Guarantees: a fusion that makes no sense is an `InputError`. Does not know: who
computes it (the engine in `hybrid`, numpy in `word_tuning`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from qdrant_tools.errors import InputError, brief
from qdrant_tools.validation import checked_count, checked_number, number_in

LARGEST = 1_000_000
"""Of every number of a fusion: a collection's metadata may be anybody's."""


@dataclass(frozen=True)
class Fusion:
    """How the two rankings become one.

    `rrf` adds 1 / (rank_constant + rank / weight), ranks from 1 (Cormack, Clarke, Büttcher, "Reciprocal rank fusion",
    SIGIR 2009; the weights are Qdrant's: a weight of 2 makes every rank count as half of it). `dbsf` adds scores scaled
    by their mean and deviation, and has no weights. `depth` hits of each ranking go in, at least `k` of the search.
    """

    method: Literal["rrf", "dbsf"] = "rrf"
    rank_constant: int = 60
    dense_weight: float = 1.0
    lexical_weight: float = 1.0
    depth: int = 100

    def __post_init__(self) -> None:
        if self.method not in ("rrf", "dbsf"):
            raise InputError(f"method is {brief(self.method)}, expected 'rrf' or 'dbsf'")
        for name in ("rank_constant", "depth"):
            if checked_count(name, getattr(self, name)) > LARGEST:
                raise InputError(f"{name} is {brief(getattr(self, name))}, expected at most {LARGEST:,}")
        for name in ("dense_weight", "lexical_weight"):
            checked_number(name, getattr(self, name), above=0, most=LARGEST)
        if self.method == "dbsf" and (self.dense_weight, self.lexical_weight) != (1.0, 1.0):
            raise InputError("dbsf has no weights: use rrf, or leave them at 1")

    @classmethod
    def read(cls, text: str, *, name: str = "fusion") -> Fusion:
        """The fusion that a person writes: "rrf", "dbsf", or "rrf:2", where words weigh twice as much as vectors.

        Raises:
            InputError: it is none.
        """
        method, colon, weight = text.strip().partition(":")
        if method == "dbsf" and not colon:
            return cls("dbsf")
        number = number_in(weight) if colon else 1.0
        # what is no number is NaN, which is in no range
        if method != "rrf" or not 0 < number <= LARGEST:
            raise InputError(
                f"{name} is {brief(text)}, expected 'rrf' (ranks alike), 'rrf:2' (words count twice as much) or 'dbsf' "
                "(scores, scaled)"
            )
        return cls("rrf", lexical_weight=number)

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


USUAL = Fusion("dbsf")
"""The fusion of a hybrid search where neither it nor the collection says one: by `benchmarks/hybrid_settings.py`."""
