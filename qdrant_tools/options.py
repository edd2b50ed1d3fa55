"""How to search, as one frozen value: what `search`, `search_batch`, `search_vectors` and `search_groups` may be told.

Guarantees: validated when made; every option reaches the engine. Does not know: queries, clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from qdrant_client import models

from qdrant_tools.errors import InputError
from qdrant_tools.filters import PlainFilter, as_filter
from qdrant_tools.handle import Collection
from qdrant_tools.values import checked_count, checked_number

MMR_CANDIDATES = 100
"""Nearest passages among which `diversity` chooses, or ten times `k` if that is more."""


class SearchArguments(TypedDict, total=False):
    """The fields of `SearchOptions` as keyword arguments."""

    k: int
    hnsw_ef: int | None
    exact: bool
    filter: PlainFilter | models.Filter | None
    score_threshold: float | None
    diversity: float | None
    fields: Sequence[str] | None
    text: bool


@dataclass(frozen=True)
class SearchOptions:
    """`k` hits (or groups) at most."""

    k: int = 10
    hnsw_ef: int | None = None
    """Beam width in the graph; None is what the collection keeps."""
    exact: bool = False
    """Compare with every vector instead, as `:memory:` always does."""
    filter: PlainFilter | models.Filter | None = None
    """`{"field": value or [values]}` on the metadata, or a Qdrant filter on the payload."""
    score_threshold: float | None = None
    """No hits that score less."""
    diversity: float | None = None
    """0 to 1: choose hits that are near the query and far from each other (maximal marginal relevance, Carbonell and
    Goldstein, SIGIR 1998); 0 looks at the query alone. Hits then come in the order in which they were chosen."""
    fields: Sequence[str] | None = None
    """Metadata fields that the hits are to have; None is all of them."""
    text: bool = True
    """Whether the hits are to have their text."""

    def __post_init__(self) -> None:
        checked_count("k", self.k)
        if self.hnsw_ef is not None:
            checked_count("hnsw_ef", self.hnsw_ef)
        if self.score_threshold is not None:
            checked_number("score_threshold", self.score_threshold)
        if self.diversity is not None:
            checked_number("diversity", self.diversity, least=0, most=1)
        if isinstance(self.fields, str):
            raise InputError(f"fields is the string {self.fields!r}, expected a list of metadata fields")

    def request(self, collection: Collection) -> models.QueryRequest:
        """The engine's request, without its query."""
        return models.QueryRequest(
            using=collection.layout.vector or None,
            filter=as_filter(self.filter, layout=collection.layout),
            params=collection.search_params(hnsw_ef=self.hnsw_ef, exact=self.exact),
            score_threshold=self.score_threshold,
            limit=self.k,
            with_payload=self.payload(collection),
        )

    def query(self, vector: list[float]) -> list[float] | models.NearestQuery:
        if self.diversity is None:
            return vector
        candidates = max(MMR_CANDIDATES, 10 * self.k)
        mmr = models.Mmr(diversity=self.diversity, candidates_limit=candidates)
        return models.NearestQuery(nearest=vector, mmr=mmr)

    def payload(self, collection: Collection) -> bool | list[str]:
        """Which fields of the payload to ask for."""
        if self.fields is None and self.text:
            return True
        layout = collection.layout
        wanted = [layout.id] if layout.id else []
        if self.text:
            wanted.append(layout.text)
        if self.fields is None:
            if not layout.metadata:
                raise InputError(f"text=False needs fields here: the layout {layout.name!r} has no field for metadata")
            return [*wanted, layout.metadata]
        return [*wanted, *map(layout.metadata_field, self.fields)]
