"""Held-out passages or a collection -> what an encoder is measured on: ids, and the vectors of each encoder.

Guarantees: every passage that answers a held-out query is among those searched, and every part of a document that
does. A collection's stored vectors are used
for encoders of its space, so that nothing is embedded for a query adapter, and two encoders of one space share one
matrix. Beyond `most` passages the others are a seeded sample: a search among fewer is easier, for both encoders alike.
Does not know: queries, metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Collection as Container
from collections.abc import Iterator, Sequence

from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import (
    draw_ids,
    draw_rank,
    fetch,
    mismatch,
    sample_vectors,
    stored_ids,
)
from qdrant_tools.errors import InputError, brief
from qdrant_tools.records import Encoder, HeldOut, Passage, Qrels, Run, Vectors
from qdrant_tools.same import respelled, spelled, unlike_spelling
from qdrant_tools.sources.judged import document_named, judged_documents, parts_in

_AT_ONCE = 256
logger = logging.getLogger(__name__)


class SearchCorpus:
    """The passages that are searched. `total` is how many there are in all, `ids` those that are taken. `qrels` are the
    judgements of the held-out queries, with the passages under the ids that they have here."""

    def __init__(self, held_out: HeldOut, collection: Collection | None, *, most: int, seed: int) -> None:
        self._texts = {passage.id: passage for passage in held_out.passages}
        # passages that the held-out set brings come before a collection
        self._collection = None if self._texts else collection
        names = self._spelled(held_out)
        self._documents: dict[str, str] = {}
        """Part -> its document, where the judgements name documents of which only parts are searched."""
        if missing := held_out.relevant - names.keys():
            parts = dict(self._parts())
            judged = judged_documents(parts.items(), missing, frozenset(names.values()))
            names, self._documents = names | judged, parts if judged else {}
        self.qrels = respelled(held_out.qrels, names)
        self._names = names
        answers = frozenset(names.values())
        relevant = answers | {part for part, document in self._documents.items() if document in answers}
        self._unknown = sorted(held_out.relevant - names.keys())
        if 2 * len(answers) < len(held_out.relevant):
            logger.warning(
                "%d of the %d passages that answer held-out queries are not among those that are searched%s",
                len(held_out.relevant) - len(answers),
                len(held_out.relevant),
                self._example(),
            )
        self._by_space: dict[str, Vectors] = {}
        if self._collection is not None:
            sample = sample_vectors(self._collection, most, seed=seed, always=relevant)
            self.ids, self.total = sample.ids, sample.total
            self._by_space[self._collection.space] = sample.vectors
        else:
            self.total = len(self._texts)
            self.ids = draw_ids(list(self._texts), most, seed=seed, always=relevant)
        if not relevant & set(self.ids):
            where = f"collection {collection.name!r}" if collection is not None else f"{self.total} passages"
            raise InputError(
                f"none of the {len(held_out.relevant)} passages that answer held-out queries is in the {where}"
                f"{self._example()}: give the passages that the judgements are about, by the same ids"
            )

    def _spelled(self, held_out: HeldOut) -> dict[str, str]:
        """The passages that answer held-out queries -> their ids here."""
        if self._collection is None:
            return spelled(held_out.relevant, self._texts)
        return stored_ids(self._collection, sorted(held_out.relevant))

    def _parts(self) -> Iterator[tuple[str, str]]:
        """(passage id, document) of every passage that is part of a document."""
        if self._collection is not None:
            return parts_in(self._collection)
        named = ((name, document_named(passage)) for name, passage in self._texts.items())
        return ((name, document) for name, document in named if name != document)

    def run(self, passages: Vectors, query_ids: Sequence[str], queries: Vectors, *, k: int) -> Run:
        """The k best of `ids`, whose vectors these are, for each query; documents where the judgements name them."""
        documents = [self._documents.get(name, name) for name in self.ids] if self._documents else ()
        vectors = PassageVectors(self.ids, passages, documents=documents)
        return (vectors.search_documents if documents else vectors.search)(query_ids, queries, k=k)

    def weights(self, held_out: HeldOut) -> dict[str, dict[str, float]]:
        """How much each answer counts, for every query that is measured, with the passages under the ids here."""
        return {
            query.id: {
                self._names.get(name, name): weight
                for name, weight in held_out.weights.get(query.id, {}).items()
                if held_out.qrels.get(query.id, {}).get(name, 0) > 0
            }
            for query in held_out.measured
        }

    def of_parts(self, qrels: Qrels) -> Qrels:
        """Judgements about documents as judgements about each of their parts, for pictures."""
        if not self._documents:
            return qrels
        parts: dict[str, list[str]] = {}
        for part, document in self._documents.items():
            parts.setdefault(document, []).append(part)
        return {
            query: {part: grade for name, grade in grades.items() for part in parts.get(name, [name])}
            for query, grades in qrels.items()
        }

    def _example(self) -> str:
        if self._collection is not None:
            return f" ({mismatch(self._collection, self._unknown)})"
        alike = unlike_spelling(self._unknown, self._texts)
        return "" if alike is None else f" (the judgements say {brief(alike[0])}, the passages {brief(alike[1])})"

    def vectors(self, encoder: Encoder) -> Vectors:
        """(len(ids), dimension), computed once per space."""
        if encoder.space not in self._by_space:
            self._by_space[encoder.space] = encoder.encode_passages([p.text for p in self.passages(self.ids)])
        return self._by_space[encoder.space]

    def passages(self, ids: list[str]) -> Iterator[Passage]:
        """Read passages with their texts, in the order of the ids, a few at a time."""
        if self._collection is None:
            yield from (self._texts[passage_id] for passage_id in ids)
            return
        for start in range(0, len(ids), _AT_ONCE):
            stored = fetch(self._collection, ids[start : start + _AT_ONCE])
            yield from (stored[passage_id] for passage_id in ids[start : start + _AT_ONCE])


def general_passages(corpus: SearchCorpus, trained: Container[str], *, seed: int) -> Iterator[Passage]:
    """The passages for known items, in a seeded order.

    First come those that are neither trained on nor answer a held-out query, then those trained on, then the rest. In
    a small collection there may be none of the first kind.
    """
    judged = corpus.of_parts(corpus.qrels)
    relevant = {passage for grades in judged.values() for passage, grade in grades.items() if grade > 0}
    order = sorted(corpus.ids, key=lambda name: (name in relevant, name in trained, draw_rank(name, seed)))
    return corpus.passages(order)
