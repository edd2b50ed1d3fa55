"""The options of a search as one frozen value, and plain dicts as filters on metadata.

Guarantees: validated when made; every option reaches the engine; every condition of a filter must hold, and a value
that no condition can express is refused. Does not know: queries, clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from qdrant_client import models

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import Layout
from qdrant_tools.errors import InputError
from qdrant_tools.validation import brief, checked_count, checked_number

MMR_CANDIDATES = 100
"""Nearest passages among which `diversity` chooses, or ten times `k` if that is more."""


class SearchKwargs(TypedDict, total=False):
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
    """The options of `search`, `search_batch`, `search_vectors` and `search_groups`."""

    k: int = 10
    """Hits (or groups) at most."""
    hnsw_ef: int | None = None
    """Beam width in the graph; None is the collection's own."""
    exact: bool = False
    """Compare with every vector instead, as `:memory:` always does."""
    filter: PlainFilter | models.Filter | None = None
    """`{"field": value or [values]}` on the metadata, or a Qdrant filter on the payload."""
    score_threshold: float | None = None
    """Leave out hits that score less."""
    diversity: float | None = None
    """0 to 1: choose hits that are near the query and far from each other (maximal marginal relevance, Carbonell and
    Goldstein, SIGIR 1998); 0 looks at the query alone. Hits then come in the order in which they were chosen."""
    fields: Sequence[str] | None = None
    """Metadata fields of the hits; None is all of them."""
    text: bool = True
    """Whether hits have their text."""

    def __post_init__(self) -> None:
        checked_count("k", self.k)
        if self.hnsw_ef is not None:
            checked_count("hnsw_ef", self.hnsw_ef)
        if self.score_threshold is not None:
            checked_number("score_threshold", self.score_threshold)
        if self.diversity is not None:
            checked_number("diversity", self.diversity, least=0, most=1)
        # a string is a sequence too: its letters would become fields
        if isinstance(self.fields, str):
            raise InputError(f"fields is the string {brief(self.fields)}, expected a list of metadata fields")

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
        """The engine's query for a vector."""
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
        names = [layout.id] if layout.id else []
        if self.text:
            names.append(layout.text)
        if self.fields is None:
            if not layout.metadata:
                raise InputError(f"text=False needs fields here: the layout {layout.name!r} has no field for metadata")
            names.append(layout.metadata)
        else:
            names += map(layout.metadata_field, self.fields)
        return names or False


PlainFilter = Mapping[str, Any]
"""Metadata field -> the value it must have, or a list that must contain its value."""


def as_filter(conditions: PlainFilter | models.Filter | None, *, layout: Layout) -> models.Filter | None:
    """Translate `{"field": value}` and `{"field": [values]}`; a Qdrant filter passes as it is.

    Values are strings, whole numbers or booleans. Dots in a field reach into nested metadata.

    Raises:
        InputError: a field that is no name, or a value of another type, with the way to say it as a Qdrant filter.
    """
    if conditions is None or isinstance(conditions, models.Filter):
        return conditions
    if not isinstance(conditions, Mapping):
        raise InputError(f"filter is a {type(conditions).__name__}, expected a dict or a qdrant_client Filter")
    unnamed = [name for name in conditions if not isinstance(name, str) or not name]
    if unnamed:
        raise InputError(f"filter has the field {brief(unnamed[0])}, expected the name of a metadata field")
    must: list[models.Condition] = [
        models.FieldCondition(key=layout.metadata_field(name), match=_match(name, value))
        for name, value in conditions.items()
    ]
    return models.Filter(must=must) if must else None


def _match(field: str, value: Any) -> models.MatchValue | models.MatchAny:
    if isinstance(value, str | int):  # bool is an int
        return models.MatchValue(value=value)
    if isinstance(value, Sequence) and value:
        # Qdrant matches any of several strings or of several integers, and nothing else
        if all(isinstance(item, str) for item in value):
            return models.MatchAny(any=list(value))
        if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
            return models.MatchAny(any=list(value))
    raise InputError(
        f"filter on {brief(field)} is {brief(value)}, expected a string, whole number or boolean, or a list of strings "
        "or of whole numbers; anything else can be given as a qdrant_client Filter"
    )
