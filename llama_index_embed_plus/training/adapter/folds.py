"""Queries and their answers -> folds of queries, so that none of one fold gives one of another away.

Two queries that share an answer give each other away. They are in one fold, over any chain, as far as those groups are
small. A group that is larger than a fold is cut at random: then the answers of the queries that are left out are kept
from the others (`seen`), who neither are drawn to them nor pushed away.

Guarantees: each query is in exactly one fold, and the same seed gives the same folds. Does not know: vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llama_index_embed_plus.training.adapter.arrays import Rows

Answers = Sequence[Sequence[int]]


def fold_queries(answers: Answers, queries: Rows, *, folds: int, seed: int, apart: bool = True) -> list[Rows]:
    """Part `queries`, numbers into `answers`, into at most so many folds.

    apart: whether queries that share an answer give each other away; False where every passage answers many questions.
    """
    random = np.random.default_rng(seed)
    most = -(-len(queries) // folds)
    groups = _sharing(answers, queries.tolist()) if apart else [[query] for query in queries.tolist()]
    pieces = [piece for group in groups for piece in ([group] if len(group) <= most else [[one] for one in group])]
    order = sorted(random.permutation(len(pieces)).tolist(), key=lambda place: len(pieces[place]), reverse=True)
    parts: list[list[int]] = [[] for _ in range(min(folds, len(pieces)))]
    for place in order:
        min(parts, key=len).extend(pieces[place])
    return [np.array(sorted(part), np.int64) for part in parts]


def hidden_answers(answers: Answers, left_out: Rows, *, apart: bool) -> Rows:
    """The stored rows that must be kept from the others where these queries are left out."""
    rows = {row for query in left_out.tolist() for row in answers[query]} if apart else set()
    return np.array(sorted(rows), np.int64)


def seen(answers: Answers, queries: Rows, hidden: Rows) -> tuple[Rows, list[list[int]]]:
    """Those of the queries that have an answer which is not hidden, and these answers."""
    gone = set(hidden.tolist())
    left = [(query, [row for row in answers[query] if row not in gone]) for query in queries.tolist()]
    kept = [(query, rows) for query, rows in left if rows]
    return np.array([query for query, _ in kept], np.int64), [rows for _, rows in kept]


def _sharing(answers: Answers, queries: Sequence[int]) -> list[list[int]]:
    """Groups of queries that share an answer over any chain, by union-find."""
    lowest = {query: query for query in queries}

    def root(query: int) -> int:
        while lowest[query] != query:
            lowest[query] = lowest[lowest[query]]
            query = lowest[query]
        return query

    owner: dict[int, int] = {}
    for query in queries:
        for row in answers[query]:
            one, other = sorted((root(query), root(owner.setdefault(row, query))))
            lowest[other] = one
    groups: dict[int, list[int]] = {}
    for query in queries:
        groups.setdefault(root(query), []).append(query)
    return list(groups.values())
