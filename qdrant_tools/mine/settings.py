"""What mining may be told: one frozen value, validated when made. Does not know: collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.filters import PlainFilter
from qdrant_tools.values import checked_count, checked_number

Sampling = Literal["top", "random", "softmax"]
Source = Literal["dense", "lexical", "both"]
SeveralPositives = Literal["min", "mean", "each"]


@dataclass(frozen=True)
class MiningSettings:
    """Which candidates are looked at, which are removed, and how negatives are drawn from the rest."""

    negatives: int = 4
    """Per example, at most."""
    minimum: int = 0
    """Examples with fewer negatives are left out, and counted."""
    source: Source = "dense"
    """Where candidates come from: the nearest vectors, the best by BM25, or both in turns. Their scores, which the
    rules look at, are similarities of vectors in any case."""
    depth: int = 50
    """Candidates looked at per query, not counting its known positives."""
    skip: int = 0
    """Candidates passed over at the top of the ranking."""
    max_share: float | None = 0.95
    """Share of the positive's score that a negative may reach; see `rules.score_limit`. None: no such rule."""
    margin: float | None = None
    """How far below the positive's score a negative must stay. None: no such rule."""
    several: SeveralPositives = "min"
    """Which positive the two rules above look at: the lowest-scoring one, the mean of the scores, or each in an
    example of its own."""
    duplicate_similarity: float | None = 0.95
    """Similarity to a positive from which on a candidate counts as its copy. None: no such rule."""
    document_key: str | None = None
    """Metadata field that names the document of a passage: other passages of a positive's document are left out."""
    filter: PlainFilter | models.Filter | None = None
    """Only candidates that match; as in `search`."""
    sampling: Sampling = "top"
    temperature: float = 0.05
    """Of softmax sampling over scores: small is close to top, large is close to random."""
    seed: int = 0
    hnsw_ef: int | None = 512
    """How far HNSW looks: more than a search needs, because mining reads deep into the ranking and what the graph loses
    there is lost silently. None: as the collection searches."""
    exact: bool = False
    batch_size: int = 64
    """Queries at a time."""

    def __post_init__(self) -> None:
        for name, least in (("negatives", 1), ("minimum", 0), ("depth", 1), ("skip", 0), ("batch_size", 1)):
            checked_count(name, getattr(self, name), least=least)
        if self.minimum > self.negatives:
            raise InputError(f"minimum is {self.minimum} of {self.negatives} negatives: no example is left")
        if self.skip >= self.depth:
            raise InputError(f"skip is {self.skip} of depth {self.depth}: no candidate is left")
        if self.max_share is not None:
            checked_number("max_share", self.max_share, above=0, most=1)
        if self.margin is not None:
            checked_number("margin", self.margin, least=0)
        if self.duplicate_similarity is not None:
            checked_number("duplicate_similarity", self.duplicate_similarity, least=-1, most=1)
        if self.sampling not in ("top", "random", "softmax"):
            raise InputError(f"sampling is {self.sampling!r}, expected 'top', 'random' or 'softmax'")
        if self.source not in ("dense", "lexical", "both"):
            raise InputError(f"source is {self.source!r}, expected 'dense', 'lexical' or 'both'")
        if self.several not in ("min", "mean", "each"):
            raise InputError(f"several is {self.several!r}, expected 'min', 'mean' or 'each'")
        checked_number("temperature", self.temperature, above=0)

    def as_row(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        row = asdict(self)
        if isinstance(self.filter, models.Filter):
            row["filter"] = self.filter.model_dump(mode="json", exclude_none=True)
        elif isinstance(self.filter, Mapping):
            row["filter"] = dict(self.filter)
        return row


@dataclass(frozen=True)
class Judge:
    """A second opinion on drawn candidates: any callable that scores (query, passage text) pairs, such as a
    cross-encoder's `predict`.

    A pair that scores at least `threshold` is no negative: it is dropped, or with `promote` it becomes a positive.
    The next candidate in line takes its place and is judged too. `name` says which judge it is, so that a resumed run
    can tell. A ready one is `llama_index_embed_plus.train.judge.cross_encoder_judge`.
    """

    score: Callable[[Sequence[tuple[str, str]]], Sequence[float]]
    threshold: float
    promote: bool = False
    name: str = ""
