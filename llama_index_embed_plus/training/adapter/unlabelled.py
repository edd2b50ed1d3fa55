"""Stored vectors, and pseudo-queries made of their texts -> maps that need no labels.

Whitening: with C the covariance of the stored vectors, U diag(l) U' its eigenvectors and values, queries are mapped by

    W0 = U diag((l + floor * mean(l)) ** -strength) U',

so that directions in which all passages lie alike count less. Soft: a strength of 0.5 would be whitening in full
(Su et al. 2021, arXiv 2103.15316), which harms retrieval.

Pseudo-queries: on top of it, a few steps down the loss of finding a passage by a text that was made of it.

Guarantees: deterministic. Does not know: labels, texts.
"""

from __future__ import annotations

import numpy as np

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.adapter.arrays import Numbers, PseudoQueries, Rows
from llama_index_embed_plus.training.adapter.descent import Objective, descend
from llama_index_embed_plus.training.adapter.ranking import nearest
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.records import Vectors
from qdrant_tools.validation import unit_rows

_OF_PSEUDO = 5
"""The nearest passages of a pseudo-query that are its negatives."""
_ROWS_AT_ONCE = 4096
_ROUNDING = 1e-12


def whitening(stored: Vectors, *, strength: float, floor: float) -> Vectors:
    """W0, (dimension, dimension)."""
    values, vectors = np.linalg.eigh(covariance(stored))
    # rounding may leave a small one below 0
    values = np.maximum(values, 0)
    mean = values.mean()
    # vectors that differ by rounding alone have no shape
    scale = (values + floor * mean) ** -strength if values.sum() > _ROUNDING else np.ones_like(values)
    # as a map's length counts for nothing: near 1, as queries are
    scale /= np.sqrt((scale * scale).mean())
    return np.asarray((vectors * scale) @ vectors.T, np.float32)


def covariance(stored: Vectors) -> Numbers:
    """(dimension, dimension), of a block of rows after the other."""
    mean = stored.mean(axis=0, dtype=np.float64)
    total = np.zeros((len(mean), len(mean)))
    for start in range(0, len(stored), _ROWS_AT_ONCE):
        centred = (stored[start : start + _ROWS_AT_ONCE] - mean).astype(np.float32)
        total += centred.T @ centred
    return total / max(1, len(stored) - 1)


def by_pseudo_queries(stored: Vectors, pseudo: PseudoQueries, start: Vectors, settings: AdapterSettings) -> Vectors:
    """W0 (1 + W1), where `start` is W0."""
    queries = unit_rows(pseudo.vectors @ start)
    candidates = fill(
        [pseudo.passage, nearest(queries, stored, _OF_PSEUDO).ravel()],
        len(stored),
        most=settings.negatives,
        seed=settings.seed,
    )
    answers = [[row] for row in pseudo.passage.tolist()]
    objective = Objective.of(
        queries, stored, answers, np.ones(len(answers)), candidates, same=settings.same_passage_similarity
    )
    (weight,), losses = descend(
        objective, "list", steps=(settings.pseudo_steps,), rate=settings.learning_rate, temperature=settings.temperature
    )
    if not np.isfinite(losses).all():
        rates = f"learning_rate is {settings.learning_rate}, temperature {settings.temperature}"
        raise TrainingError(f"pseudo-queries gave no map of numbers ({rates}): lower the first or raise the second")
    return start + start @ weight


def fill(parts: list[Rows], total: int, *, most: int, seed: int, hidden: Rows | None = None) -> Rows:
    """Rows of the first part, all of them, of the others as many as fit, and random ones up to `most`, ascending.

    `hidden` ones are not among them.
    """
    chosen = dict.fromkeys(parts[0].tolist())
    gone = set() if hidden is None else set(hidden.tolist())
    drawn = np.random.default_rng(seed).permutation(total)
    for part in [*parts[1:], drawn]:
        for row in part.tolist():
            if len(chosen) >= most:
                break
            if row not in gone:
                chosen.setdefault(row)
    return np.array(sorted(chosen), np.int64)
