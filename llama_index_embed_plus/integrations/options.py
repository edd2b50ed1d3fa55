"""The modes and options of LlamaIndex's queries -> values of our searches.

Guarantees: a mode, an option or a number that nothing reads is refused by its name, with what there is. Does not know:
collections, vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import VectorStoreQueryMode

from qdrant_tools.errors import NotSupportedError, UsageError
from qdrant_tools.validation import brief, checked_number

DIVERSITY = 0.5
"""Of a search by maximal marginal relevance that says nothing else, as in LlamaIndex."""
QUERY_OPTIONS = ("qdrant_filters", "search_params", "mmr_threshold")
"""What a query takes besides itself: the `vector_store_kwargs` of a retriever."""
ELSEWHERE = {
    "shard_identifier": "Qdrant chooses the shard here; LlamaIndex's own store has shards by key",
    "mmr_prefetch_factor": "the engine chooses the candidates here",
    "mmr_prefetch_k": "the engine chooses the candidates here",
}
"""Options of LlamaIndex's other stores -> what there is here."""
BY_WORDS = (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH)
BY_BOTH = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID)


def mode_of(given: Any) -> VectorStoreQueryMode:
    """The mode of a query, which may be given by its name. Raises `NotSupportedError` for one that is not here."""
    for mode in (VectorStoreQueryMode.DEFAULT, *BY_WORDS, *BY_BOTH, VectorStoreQueryMode.MMR):
        if given == mode:
            return mode
    modes = ["default", *(mode.value for mode in (*BY_WORDS, *BY_BOTH)), "mmr"]
    name = given.value if isinstance(given, VectorStoreQueryMode) else given
    raise NotSupportedError(f"no query mode {brief(name)} here, expected one of {', '.join(modes)}")


def refuse_options(method: str, given: Iterable[str], known: Sequence[str] = ()) -> None:
    """Raise `UsageError` for an option that nothing reads. An index hands on what it does not know itself."""
    for name in given:
        if name not in known:
            there = (
                f"expected one of {', '.join(known)}"
                if known
                else "it takes none (an index hands on what it does not know)"
            )
            raise UsageError(
                f"{method}() of a PlusVectorStore has no option {brief(name)}: {ELSEWHERE.get(name, there)}"
            )


def share(name: str, value: float | None, default: float) -> float:
    """A number from 0 to 1. Raises `InputError`."""
    if value is None:
        return default
    checked_number(name, value, least=0, most=1)
    return value


def search_options(given: Any) -> dict[str, Any]:
    """Qdrant's `search_params` as options of our searches. Raises `UsageError` for others."""
    values = given if isinstance(given, dict) else {} if given is None else given.model_dump(exclude_defaults=True)
    unknown = [name for name in values if name not in ("hnsw_ef", "exact")]
    if unknown:
        raise UsageError(
            f"search_params has {brief(unknown[0])}, expected hnsw_ef and exact; how compressed vectors are used is a "
            "setting of the collection"
        )
    return dict(values)
