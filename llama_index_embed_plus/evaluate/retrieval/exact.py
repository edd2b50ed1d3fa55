"""Passages as ids and a matrix -> the exact best ones for every query, with memory for one block of scores.

Guarantees: exact in single precision. Of equally scored passages those with the larger ids are taken, as trec_eval
orders them, and scores that differ by rounding alone are equal. Does not know: where the vectors come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdrant_tools.errors import InputError
from qdrant_tools.records import Encoder, Passage, Run, Vectors
from qdrant_tools.search.neighbours import ROUNDING, levelled
from qdrant_tools.sources.judged import document_named
from qdrant_tools.validation import brief, checked_vectors, unit_rows

QUERIES_AT_ONCE, PASSAGES_AT_ONCE = 128, 16_384
"""Bounds the block of scores to 8 MB."""
TEXTS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class PassageVectors:
    """Passages to be searched: `ids`, and `vectors` (n, dimension) of any length above 0, compared by the cosine.

    Raises:
        InputError: no passages, an id that occurs twice, or another number of ids, or of texts, than of vectors.
        VectorError: NaN or a row of zeros.
    """

    ids: Sequence[str]
    vectors: Vectors
    space: str = ""
    """Of the encoder that made them, if it is known: another one is refused."""
    texts: Sequence[str] = field(default=(), repr=False)
    """Of the passages, if they are known: they tell whether a query is itself a passage."""
    documents: Sequence[str] = field(default=(), repr=False)
    """The document that each passage is a part of, its own id if it is none; nothing if there are no parts."""
    places: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        matrix = np.asarray(self.vectors)
        if not len(self.ids) or matrix.ndim != 2:
            raise InputError(
                f"{len(self.ids)} ids and vectors of shape {matrix.shape}: expected passages, (n, dimension)"
            )
        places = {name: place for place, name in enumerate(self.ids)}
        if len(places) != len(self.ids):
            name, times = Counter(self.ids).most_common(1)[0]
            raise InputError(f"the passage id {brief(name)} occurs {times} times: every id names one passage")
        if self.texts and len(self.texts) != len(self.ids):
            raise InputError(f"{len(self.texts)} texts for {len(self.ids)} passages: expected one for each, or none")
        if self.documents and len(self.documents) != len(self.ids):
            raise InputError(f"{len(self.documents)} documents for {len(self.ids)} passages: expected one for each")
        checked = checked_vectors(matrix, dimension=matrix.shape[1], count=len(self.ids), what="passage vectors")
        object.__setattr__(self, "vectors", checked)
        object.__setattr__(self, "places", places)

    def __contains__(self, passage_id: str) -> bool:
        return passage_id in self.places

    def texts_of(self, ids: Iterable[str]) -> dict[str, str | None]:
        """The texts of those ids that are passages here; None where they are not known."""
        places = {name: self.places[name] for name in ids if name in self.places}
        return {name: self.texts[place] if self.texts else None for name, place in places.items()}

    def parts(self) -> Iterator[tuple[str, str]]:
        """(passage id, document) of every passage that is part of a document."""
        return ((name, document) for name, document in zip(self.ids, self.documents) if name != document)

    def search_documents(self, query_ids: Sequence[str], queries: ArrayLike, *, k: int) -> Run:
        """As `search`, for the k best documents: each stands where the best of its parts stands."""
        rows, depth, found = np.asarray(queries), 2 * k, dict[str, dict[str, float]]()
        of_passage = dict(zip(self.ids, self.documents)) if self.documents else {}
        waiting = list(range(len(query_ids)))
        while waiting:
            run = self.search([query_ids[place] for place in waiting], rows[waiting], k=depth)
            for name, scores in run.items():
                best: dict[str, float] = {}
                for passage, score in scores.items():
                    best.setdefault(of_passage.get(passage, passage), score)
                found[name] = dict(list(best.items())[:k])
            waiting = [place for place in waiting if len(found[query_ids[place]]) < k and depth < len(self.ids)]
            depth *= 4
        return found

    def search(self, query_ids: Sequence[str], queries: ArrayLike, *, k: int) -> Run:
        """The k passages with the largest cosine for every row of `queries` (m, dimension), best first.

        Raises:
            VectorError: other dimensions than the passages', NaN, or a row of zeros.
        """
        rows = checked_vectors(queries, dimension=self.vectors.shape[1], count=len(query_ids), what="query vectors")
        # larger ids first, as trec_eval orders ties: from here on a smaller place wins
        order = np.array(sorted(range(len(self.ids)), key=self.ids.__getitem__, reverse=True))
        run: dict[str, dict[str, float]] = {}
        for start in range(0, len(rows), QUERIES_AT_ONCE):
            names = query_ids[start : start + QUERIES_AT_ONCE]
            for name, (scores, places) in zip(names, self._best(unit_rows(rows[start : start + len(names)]), order, k)):
                run[name] = {self.ids[order[place]]: float(score) for score, place in zip(scores, places)}
        return run

    def _best(self, queries: Vectors, order: NDArray[np.int64], k: int) -> list[tuple[Vectors, NDArray[np.int64]]]:
        """Per query (scores, places in `order`): best first, and of equal scores the first place."""
        best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        for start in range(0, len(order), PASSAGES_AT_ONCE):
            block = queries @ unit_rows(self.vectors[order[start : start + PASSAGES_AT_ONCE]]).T
            # a block of k or fewer has no k-th score to cut at: all of it is kept
            floor = np.full(len(queries), -np.inf, np.float32)
            if block.shape[1] > k:
                floor = np.partition(block, -k, axis=1)[:, -k]
            for row, (scores, places) in enumerate(best):
                # everything that ties with the k-th is kept, so that the order alone decides
                candidates = np.flatnonzero(block[row] >= floor[row] - ROUNDING)
                all_scores = levelled(np.concatenate([scores, block[row, candidates]])).astype(np.float32)
                all_places = np.concatenate([places, candidates + start])
                kept = np.lexsort((all_places, -all_scores))[:k]
                best[row] = all_scores[kept], all_places[kept]
        return best


def embed_passages(passages: Iterable[Passage], encoder: Encoder) -> PassageVectors:
    """Embed passages, `TEXTS_AT_ONCE` at a time, to be searched without a collection."""
    ids: list[str] = []
    texts: list[str] = []
    documents: list[str] = []
    parts: list[Vectors] = []
    remaining = iter(passages)
    while batch := list(islice(remaining, TEXTS_AT_ONCE)):
        ids.extend(passage.id for passage in batch)
        texts.extend(passage.text for passage in batch)
        documents.extend(document_named(passage) for passage in batch)
        parts.append(np.asarray(encoder.encode_passages([passage.text for passage in batch]), np.float32))
    if not ids:
        raise InputError("no passages to search")
    return PassageVectors(ids, np.concatenate(parts), encoder.space, texts, documents if documents != ids else ())
