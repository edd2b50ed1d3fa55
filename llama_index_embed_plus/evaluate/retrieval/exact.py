"""Passages as ids and a matrix -> the exact best ones for every query, with memory for one block of scores.

Guarantees: exact in single precision; of equally scored passages those with the larger ids are taken, as trec_eval
orders them, and scores that differ by rounding alone are equal. Does not know: where the vectors come from.

A retrieval folder in BEIR's layout -> nDCG@10 of an encoder by exact search over all its passages.

Guarantees: every judged query counts; what the files do not fit together in (unknown ids, queries without a relevant
passage) is counted and told. A row that cannot be used is an InputError with file and line.
Does not know: collections, HNSW; for those see `retrieval`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from llama_index_embed_plus.evaluate.tasks.inputs import embed
from qdrant_tools.errors import InputError
from qdrant_tools.files import Row, read_rows
from qdrant_tools.metrics import mean, ndcg, recall, reciprocal_rank
from qdrant_tools.records import Encoder, Passage, Run, Vectors
from qdrant_tools.search.neighbours import ROUNDING, levelled
from qdrant_tools.validation import checked_vectors

QUERIES_AT_ONCE, PASSAGES_AT_ONCE = 128, 16_384
"""Bounds the block of scores to 8 MB."""
TEXTS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class PassageVectors:
    """Passages to be searched: `ids`, and `vectors` (n, dimension) of any length above 0, compared by the cosine.

    Raises:
        InputError: no passages, an id that occurs twice, or another number of ids than of vectors.
        VectorError: NaN or a row of zeros.
    """

    ids: Sequence[str]
    vectors: Vectors
    space: str = ""
    """Of the encoder that made them, if it is known: another one is refused."""
    _known: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        matrix = np.asarray(self.vectors)
        if not len(self.ids) or matrix.ndim != 2:
            raise InputError(
                f"{len(self.ids)} ids and vectors of shape {matrix.shape}: expected passages, (n, dimension)"
            )
        known = frozenset(self.ids)
        if len(known) != len(self.ids):
            twice, times = Counter(self.ids).most_common(1)[0]
            raise InputError(f"the passage id {twice!r} occurs {times} times: every id names one passage")
        checked = checked_vectors(matrix, dimension=matrix.shape[1], count=len(self.ids), what="passage vectors")
        object.__setattr__(self, "vectors", checked)
        object.__setattr__(self, "_known", known)

    def __contains__(self, passage_id: str) -> bool:
        return passage_id in self._known

    def search(self, query_ids: Sequence[str], queries: ArrayLike, *, k: int) -> Run:
        """The k passages with the largest cosine for every row of `queries` (m, dimension), best first.

        Raises:
            VectorError: other dimensions than the passages', NaN, or a row of zeros.
        """
        rows = checked_vectors(queries, dimension=self.vectors.shape[1], count=len(query_ids), what="query vectors")
        order = np.array(sorted(range(len(self.ids)), key=self.ids.__getitem__, reverse=True))
        run: dict[str, dict[str, float]] = {}
        for start in range(0, len(rows), QUERIES_AT_ONCE):
            names = query_ids[start : start + QUERIES_AT_ONCE]
            for name, (scores, places) in zip(names, self._best(_unit(rows[start : start + len(names)]), order, k)):
                run[name] = {self.ids[order[place]]: float(score) for score, place in zip(scores, places)}
        return run

    def _best(self, queries: Vectors, order: NDArray[np.int64], k: int) -> list[tuple[Vectors, NDArray[np.int64]]]:
        """Per query (scores, places in `order`): best first, and of equal scores the first place."""
        best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        for start in range(0, len(order), PASSAGES_AT_ONCE):
            block = queries @ _unit(self.vectors[order[start : start + PASSAGES_AT_ONCE]]).T
            floor = np.full(len(queries), -np.inf, np.float32)
            if block.shape[1] > k:
                floor = np.partition(block, -k, axis=1)[:, -k]
            for row, (scores, places) in enumerate(best):
                # Everything that ties with the k-th is looked at, so that the order alone decides.
                found = np.flatnonzero(block[row] >= floor[row] - ROUNDING)
                joined = levelled(np.concatenate([scores, block[row, found]])).astype(np.float32)
                where = np.concatenate([places, found + start])
                kept = np.lexsort((where, -joined))[:k]
                best[row] = joined[kept], where[kept]
        return best


def embed_passages(passages: Iterable[Passage], encoder: Encoder) -> PassageVectors:
    """Embed passages, `TEXTS_AT_ONCE` at a time, to be searched without a collection."""
    ids: list[str] = []
    parts: list[Vectors] = []
    remaining = iter(passages)
    while some := list(islice(remaining, TEXTS_AT_ONCE)):
        ids.extend(passage.id for passage in some)
        parts.append(np.asarray(encoder.encode_passages([passage.text for passage in some]), np.float32))
    if not ids:
        raise InputError("no passages to search")
    return PassageVectors(ids, np.concatenate(parts), encoder.space)


def _unit(rows: Vectors) -> Vectors:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)  # squares of small numbers stay above 0
    return np.asarray(rows / lengths, np.float32)


@dataclass(frozen=True)
class RetrievalSet:
    """Texts by id, and grades by query id and passage id. Only queries with a relevant passage are in it."""

    passages: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    unknown_queries: int = 0
    """Judged queries that have no text."""
    unknown_passages: int = 0
    """Judgements of passages that have no text; nothing can find them, but they count as missed."""
    without_relevant: int = 0
    """Judged queries without a relevant passage: nothing can be right about them, and mteb leaves them out too."""
    empty_passages: int = 0
    """Passages of neither title nor text, which cannot be embedded and so are not found."""


def read_retrieval(qrels: Path, *, titles: bool = True) -> RetrievalSet:
    """Read `corpus.jsonl` and `queries.jsonl` from the folder above that of the judgements.

    titles: embed `title text`, as BEIR and mteb do.
    Raises:
        InputError: with file and line, a row without id or text, an id that occurs twice, a grade that is no whole
            number; or no judged query is known.
    """
    folder = qrels.parent.parent
    corpus = _corpus(folder / "corpus.jsonl", titles=titles)
    passages = {name: text for name, text in corpus.items() if text}
    queries = {query.id: query.text for query in read_queries(folder / "queries.jsonl")}
    grades = read_qrels(qrels)
    known = {query: judged for query, judged in grades.items() if query in queries}
    useful = {query: judged for query, judged in known.items() if any(grade > 0 for grade in judged.values())}
    if not useful:
        raise InputError(f"{qrels}: none of {len(grades)} queries is in queries.jsonl and has a relevant passage")
    return RetrievalSet(
        passages,
        {query: queries[query] for query in useful},
        useful,
        unknown_queries=len(grades) - len(known),
        unknown_passages=sum(passage not in passages for judged in useful.values() for passage in judged),
        without_relevant=len(known) - len(useful),
        empty_passages=len(corpus) - len(passages),
    )


def first_of(data: RetrievalSet, limit: int) -> RetrievalSet:
    """At most `limit` random queries, all they are judged on, and random passages up to `limit`: for a quick look."""
    draw = random.Random(0)
    queries = sorted(draw.sample(sorted(data.queries), min(limit, len(data.queries))))
    qrels = {query: data.qrels[query] for query in queries}
    judged = {passage for grades in qrels.values() for passage in grades if passage in data.passages}
    others = sorted(data.passages.keys() - judged)
    kept = judged.union(draw.sample(others, min(max(0, limit - len(judged)), len(others))))
    return replace(
        data,
        passages={passage: text for passage, text in data.passages.items() if passage in kept},
        queries={query: data.queries[query] for query in queries},
        qrels=qrels,
        unknown_passages=sum(passage not in data.passages for grades in qrels.values() for passage in grades),
    )


@dataclass(frozen=True)
class ExactReport:
    """Means over the judged queries."""

    ndcg: float
    mrr: float
    recall: float
    """Of the relevant passages, the share among the first 100; `ndcg` and `mrr` look at the first 10."""
    queries: int
    passages: int
    unknown_queries: int
    unknown_passages: int
    without_relevant: int
    empty_passages: int


def exact_retrieval(encoder: Encoder, data: RetrievalSet) -> ExactReport:
    """Embed everything, search exactly, and score as trec_eval does."""
    passages = embed(encoder, list(data.passages.values()), what="passages")
    queries = embed(encoder, list(data.queries.values()), role="query", what="queries")
    run = PassageVectors(list(data.passages), passages).search(list(data.queries), queries, k=100)
    return ExactReport(
        mean(ndcg(data.qrels, run, k=10)),
        mean(reciprocal_rank(data.qrels, run, k=10)),
        mean(recall(data.qrels, run, k=100)),
        len(data.queries),
        len(data.passages),
        data.unknown_queries,
        data.unknown_passages,
        data.without_relevant,
        data.empty_passages,
    )


def _corpus(path: Path, *, titles: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in read_rows(path):
        name = row.text("_id")
        if name in found:
            raise InputError(f"{row.where}: the id {name!r} occurs twice")
        found[name] = _passage(row, titles=titles)
    return found


def _passage(row: Row, *, titles: bool) -> str:
    """`title text`, either of which may be empty or missing."""
    parts = [row.values.get(name) for name in (("title", "text") if titles else ("text",))]
    odd = next((part for part in parts if not isinstance(part, str) and part is not None), None)
    if odd is not None:
        raise InputError(f"{row.where}: a title or text is {odd!r}, expected a text")
    return " ".join(part for part in parts if part).strip()
