"""Queries that no training may see, what answers them, and where the passages are.

Guarantees: a `Heldout` that was made can be measured: ids are unique, and at least one query has a relevant passage.
Does not know: encoders, collections, splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llama_index_embed_plus.errors import InputError
from qdrant_tools.records import Example, Passage, Qrels, Query


@dataclass(frozen=True)
class Heldout:
    """Held-out queries, their judgements, and the passages to search.

    Without `passages`, those of a collection are searched: give the collection where this is used.
    """

    queries: tuple[Query, ...]
    qrels: Qrels
    passages: tuple[Passage, ...] = ()

    def __post_init__(self) -> None:
        for name, ids in (("queries", [q.id for q in self.queries]), ("passages", [p.id for p in self.passages])):
            if len(set(ids)) < len(ids):
                twice = next(each for each in ids if ids.count(each) > 1)
                raise InputError(f"held-out {name} contain the id {twice!r} twice: every id names one thing")
        if not self.answerable:
            raise InputError(
                f"none of the {len(self.queries)} held-out queries has a relevant passage in the {len(self.qrels)} "
                "judgements: check that query ids and judgements belong together"
            )

    @property
    def answerable(self) -> tuple[Query, ...]:
        """The queries that have a passage of grade 1 or more: only they can show a difference."""
        return tuple(query for query in self.queries if any(g > 0 for g in self.qrels.get(query.id, {}).values()))

    @property
    def relevant(self) -> frozenset[str]:
        """The ids of all passages that answer a held-out query."""
        return frozenset(
            passage for query in self.queries for passage, grade in self.qrels.get(query.id, {}).items() if grade > 0
        )

    @classmethod
    def of_examples(cls, examples: Sequence[Example], *, passages: Iterable[Passage] = ()) -> Heldout:
        """Hold examples out: their positives are the answers. Equal queries become one with the answers of all.

        `passages` are searched beside the positives of the examples; with none at all, give a collection to `prove`.
        """
        ids: dict[str, str] = {}
        qrels: dict[str, dict[str, int]] = {}
        for example in examples:
            query = ids.setdefault(example.query, f"heldout-{len(ids)}")
            qrels.setdefault(query, {}).update({positive.id: 1 for positive in example.positives})
        others = {passage.id: passage for passage in passages}
        if others:
            for example in examples:
                others.update({p.id: Passage(p.id, p.text) for p in example.positives if p.id not in others})
        return cls(tuple(Query(name, text) for text, name in ids.items()), qrels, tuple(others.values()))
