"""Scores that a reranker gave to the hits of logged searches -> lists to learn from, with margins.

A reranker is a teacher whose work is paid for already. Its scores are an opinion of the model and not of a user, they
compare within one search only, and they are about what was retrieved: what the retriever never finds, no such list
teaches. A student learns the differences (Hofstätter et al., "Improving efficient neural ranking models with
cross-architecture knowledge distillation", arXiv 2010.02666): `train --loss margin_mse` reads the rows.

Guarantees: one list a query (`same.query_key`), the latest; margins are at least 0. Does not know: the scale of the
scores, which is another one for every reranker: give the searches of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.same import id_key, query_key

__all__ = ["TaughtList", "lists_of_rerankers"]

Texts = Callable[[Sequence[str]], Mapping[str, str]]
"""Ids of passages -> their texts; ids that are not there are not in the result."""


@dataclass(frozen=True)
class TaughtList:
    """A query, the text that the reranker put first, and others with how far they lie below it."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    margins: tuple[float, ...]

    def as_row(self) -> dict[str, Any]:
        """The row of a file that `train` reads."""
        row: dict[str, Any] = {"query": self.query, "positive": self.positive}
        row |= {f"negative_{number}": text for number, text in enumerate(self.negatives, start=1)}
        return row | {"margins": list(self.margins)}


def lists_of_rerankers(searches: Iterable[LoggedSearch], texts: Texts, *, negatives: int = 7) -> Iterator[TaughtList]:
    """Yield the list of each query that a reranker has scored at least two passages for.

    negatives: at most so many, those nearest to the first one.
    """
    latest: dict[str, tuple[str, dict[str, float]]] = {}
    for search in searches:
        scores = scores_of(search)
        if len(scores) > 1 and not search.redacted:
            latest[query_key(search.query)] = search.query, scores
    for query, scores in latest.values():
        known = texts(list(scores))
        ranked = sorted((name for name in scores if name in known), key=lambda name: -scores[name])
        below = [name for name in ranked[1:] if known[name] != known[ranked[0]]][:negatives]
        if below:
            margins = tuple(scores[ranked[0]] - scores[name] for name in below)
            yield TaughtList(query, known[ranked[0]], tuple(known[name] for name in below), margins)


def scores_of(search: LoggedSearch) -> dict[str, float]:
    """The reranker's score of each passage: what it said of hits, or the hits' own where they are a reranker's."""
    found = {id_key(event.id): (event.id, event.value) for event in search.feedback if event.kind == "reranked"}
    if not found and search.scored_by == "reranker":
        found = {id_key(hit.id): (hit.id, hit.score) for hit in search.hits if hit.score is not None}
    return dict(found.values())
