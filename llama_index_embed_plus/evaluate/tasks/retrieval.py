"""A folder in BEIR's layout -> nDCG@10 of an encoder by exact search over all its passages.

Guarantees: every judged query counts. What does not fit together in the files (unknown ids, queries without a relevant
passage) is counted and reported. A row that cannot be used is an InputError with file and line.
Does not know: collections, HNSW; for those see `evaluate_retrieval`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from llama_index_embed_plus.evaluate.retrieval.report import (
    IdenticalIds,
    is_relevant,
    judged_as,
    own_passages,
    without_own,
)
from llama_index_embed_plus.evaluate.tasks.inputs import embed
from qdrant_tools.errors import InputError, brief
from qdrant_tools.files.rows import Row, read_rows
from qdrant_tools.metrics import mean, ndcg, recall, reciprocal_rank
from qdrant_tools.records import Encoder
from qdrant_tools.same import respelled, spelled

DEPTH = 100
"""Passages that are looked at for each query."""


@dataclass(frozen=True)
class RetrievalSet:
    """Texts by id, and grades by query id and passage id. Only judged queries are in it."""

    passages: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    unknown_queries: int = 0
    """Judged queries that have no text."""
    unknown_passages: int = 0
    """Judgements of passages that have no text; nothing can find them, but they count as missed."""
    without_relevant: int = 0
    """Judged queries without a relevant passage: they score 0, as in mteb and BEIR."""
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
    # an empty text has no vector to search by
    passages = {name: text for name, text in corpus.items() if text}
    queries = {query.id: query.text for query in read_queries(folder / "queries.jsonl")}
    grades = judged_as(read_qrels(qrels), queries)
    about = {passage for judged in grades.values() for passage in judged}
    grades = respelled(grades, spelled(about, corpus))
    with_text = {query: judged for query, judged in grades.items() if query in queries}
    without_relevant = sum(all(grade < 1 for grade in judged.values()) for judged in with_text.values())
    if without_relevant == len(with_text):
        raise InputError(f"{qrels}: none of {len(grades)} queries is in queries.jsonl and has a relevant passage")
    return RetrievalSet(
        passages,
        {query: queries[query] for query in with_text},
        with_text,
        unknown_queries=len(grades) - len(with_text),
        unknown_passages=sum(passage not in passages for judged in with_text.values() for passage in judged),
        without_relevant=without_relevant,
        empty_passages=len(corpus) - len(passages),
    )


def first_of(data: RetrievalSet, limit: int) -> RetrievalSet:
    """At most `limit` random queries, all they are judged on, and random passages up to `limit`: for a quick look."""
    draw = random.Random(0)
    # sorted before the draw, so that it does not depend on the order of the files
    queries = sorted(draw.sample(sorted(data.queries), min(limit, len(data.queries))))
    qrels = {query: data.qrels[query] for query in queries}
    judged = {passage for grades in qrels.values() for passage in grades if passage in data.passages}
    others = sorted(data.passages.keys() - judged)
    # what a query is judged on stays, even above the limit: without it nothing could be found
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
    own_passages_ignored: int = 0
    """Queries that are passages themselves: these were taken out of their results."""
    identical_ids_kept: int = 0
    """Queries that find a passage of their own id, which is not judged relevant and stays a result."""


def exact_retrieval(encoder: Encoder, data: RetrievalSet, *, identical_ids: IdenticalIds = "auto") -> ExactReport:
    """Embed everything, search exactly, and score as trec_eval does.

    identical_ids: what becomes of a passage that has the id of the query; see `IdenticalIds`.
    """
    own = own_passages(data.queries, _named_alike(data), data.qrels, identical_ids)
    passages = embed(encoder, list(data.passages.values()), what="passages")
    queries = embed(encoder, list(data.queries.values()), role="query", what="queries")
    run = PassageVectors(list(data.passages), passages).search(list(data.queries), queries, k=DEPTH + bool(own))
    run = without_own(run, own, k=DEPTH)
    return ExactReport(
        mean(ndcg(data.qrels, run, k=10)),
        mean(reciprocal_rank(data.qrels, run, k=10)),
        mean(recall(data.qrels, run, k=DEPTH)),
        len(data.queries),
        len(data.passages),
        data.unknown_queries,
        data.unknown_passages,
        data.without_relevant,
        data.empty_passages,
        len(own),
        sum(query in run[query] and not is_relevant(data.qrels, query) for query in data.queries),
    )


def _named_alike(data: RetrievalSet) -> dict[str, str | None]:
    return {name: data.passages[name] for name in data.queries if name in data.passages}


def _corpus(path: Path, *, titles: bool) -> dict[str, str]:
    texts: dict[str, str] = {}
    for row in read_rows(path):
        name = row.text("_id")
        if name in texts:
            raise InputError(f"{row.where}: the id {brief(name)} occurs twice")
        texts[name] = _passage(row, titles=titles)
    return texts


def _passage(row: Row, *, titles: bool) -> str:
    """`title text`, either of which may be empty or missing."""
    parts = [row.values.get(name) for name in (("title", "text") if titles else ("text",))]
    other = next((part for part in parts if not isinstance(part, str) and part is not None), None)
    if other is not None:
        raise InputError(f"{row.where}: a title or text is {brief(other)}, expected a text")
    return " ".join(part for part in parts if part).strip()
