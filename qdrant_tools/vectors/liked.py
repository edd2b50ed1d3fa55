"""Stored passages that somebody likes, and some that he does not -> other passages like the former.

Guarantees: nothing is embedded, and no example is among the hits. Does not know: encoders.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Literal, get_args

from qdrant_client import models

from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import fetch, mismatch
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.records import Hit
from qdrant_tools.search.dense import run_requests
from qdrant_tools.search.options import PlainFilter, SearchOptions
from qdrant_tools.validation import checked_texts

Strategy = Literal["average_vector", "best_score"]


def similar(
    collection: Collection,
    liked: Sequence[str],
    disliked: Sequence[str] = (),
    *,
    k: int = 10,
    strategy: Strategy = "average_vector",
    filter: PlainFilter | models.Filter | None = None,
    exact: bool = False,
    hnsw_ef: int | None = None,
) -> list[Hit]:
    """Find the k passages that are most like some stored passages and least like others, given by their ids.

    `average_vector` searches once, for the mean of the liked vectors plus its difference from the mean of the disliked
    ones; a score is the cosine with that. `best_score` compares every passage with every example: what is nearest to a
    liked one comes first, and what is nearer to a disliked one last, with a negative score; good for likings of several
    kinds, and for dislikes alone. Both are the engine's (Qdrant, "Recommendation strategies").

    Raises:
        InputError: no example, an id that is not in the collection, or one that is liked and disliked.
        UsageError: another strategy, or dislikes alone with `average_vector`.
    """
    names = {
        "liked ids": list(dict.fromkeys(checked_texts("liked ids", liked))),
        "disliked ids": list(dict.fromkeys(checked_texts("disliked ids", disliked))),
    }
    positive, negative = names.values()
    if strategy not in get_args(Strategy):
        raise UsageError(f"strategy is {brief(strategy)}, expected one of {', '.join(get_args(Strategy))}")
    if not positive and not negative:
        raise InputError("no passages to compare with: give the id of at least one")
    if not positive and strategy == "average_vector":
        raise UsageError("dislikes alone have no average to search for: give an id that is liked, or best_score")
    stored = fetch(collection, [*positive, *negative], with_text=False)
    missing = [name for name in (*positive, *negative) if name not in stored]
    if missing:
        listed, document = f"passages list {collection.name}", shlex.quote(missing[0])
        raise InputError(f"passage {mismatch(collection, missing)}").with_way_out(
            python="the hits of a search have ids",
            command=f"{listed} shows ids, embed-plus {listed} --document {document} those of one document",
        )
    points: list[list[Any]] = [[stored[name].point_id for name in each] for each in (positive, negative)]
    if both := set(points[0]) & set(points[1]):
        named = next(name for name in positive if stored[name].point_id in both)
        raise InputError(f"passage {brief(named)} is liked and disliked: give it once")
    options = SearchOptions(k=k, filter=filter, exact=exact, hnsw_ef=hnsw_ef)
    examples = models.RecommendInput(
        positive=points[0], negative=points[1], strategy=models.RecommendStrategy(strategy)
    )
    query = models.RecommendQuery(recommend=examples)
    return run_requests(collection, [options.request(collection).model_copy(update={"query": query})])[0]
