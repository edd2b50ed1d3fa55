"""Texts that people have scored or judged -> how well the encoder's cosines agree with them.

Three tasks of mteb, by its definitions. Semantic similarity: Spearman's correlation of the cosines of pairs with their
scores. Summarisation: a machine summary's score is its largest cosine with a human summary of the same text, and the
correlations are per text, then averaged. Reranking: mean average precision over each query's own candidates, MRR@10 and
nDCG@10, as trec_eval computes them; of equal cosines the irrelevant candidate comes first.

Does not know: files.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.evaluate.tasks.inputs import (
    Floats,
    Role,
    checked_scores,
    embed,
    needs_eval,
    paired_cosine,
    same_length,
)
from qdrant_tools.errors import InputError
from qdrant_tools.metrics import average_precision, mean, ndcg, reciprocal_rank
from qdrant_tools.records import Encoder
from qdrant_tools.validation import unit_rows

LARGEST_SCORE = 1e100


@dataclass(frozen=True)
class Correlation:
    """Of two rows of numbers, -1 to 1 each."""

    spearman: float
    """Of the ranks: is the order the same?"""
    pearson: float
    """Of the values: do they lie on a line?"""
    pairs: int


def semantic_similarity(
    encoder: Encoder, left: Sequence[str], right: Sequence[str], scores: Sequence[float], *, role: Role = "model"
) -> Correlation:
    """Correlate the cosines of pairs of texts with scores, on whatever scale.

    Cer et al., "SemEval-2017 Task 1: Semantic Textual Similarity", 2017.

    Raises:
        InputError: columns of different lengths, a score that is no number, fewer than two pairs, or scores or
            cosines that are all the same, for which no correlation exists.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("semantic similarity")
    same_length("right texts", len(right), len(left))
    human = checked_scores(scores, count=len(left))
    cosines = paired_cosine(
        embed(encoder, left, role=role, what="left texts"), embed(encoder, right, role=role, what="right texts")
    )
    return correlate(cosines, human)


def correlate(cosines: Floats, scores: Floats) -> Correlation:
    """Spearman's and Pearson's correlation of two arrays of one length.

    Raises:
        InputError: fewer than two values, an array of equal ones, or of such that no correlation can be computed.
    """
    from scipy.stats import pearsonr, spearmanr

    if len(scores) < 2:
        raise InputError(f"{len(scores)} pairs, expected at least two for a correlation")
    # a correlation has no scale, but the squares of the largest floats have no size
    largest = np.abs(scores).max()
    scores = scores / largest if largest > LARGEST_SCORE else scores
    for name, values in (("cosines", cosines), ("scores", scores)):
        # scipy would warn and return NaN
        if _is_constant(values):
            raise InputError(f"all {len(values)} {name} are {values[0]:g}: there is no correlation with a constant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are nearly equal
        spearman, pearson = spearmanr(cosines, scores).statistic, pearsonr(cosines, scores).statistic
    if not np.isfinite((spearman, pearson)).all():
        raise InputError(f"no correlation can be computed of {len(scores)} scores such as {scores[0]:g}")
    return Correlation(float(spearman), float(pearson), len(scores))


def _is_constant(values: Floats) -> bool:
    # not by the difference of the largest and the smallest, which may be beyond a float
    return bool((values == values[0]).all())


@dataclass(frozen=True)
class Summaries:
    """The summaries of one text, and what people gave the machine's."""

    human: tuple[str, ...]
    machine: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class SummarisationReport:
    """Means over the texts that could be judged, -1 to 1."""

    spearman: float
    pearson: float
    texts: int
    skipped: int
    """Texts whose machine summaries all have one score, or one cosine: they have no correlation."""


def summarisation(encoder: Encoder, rows: Sequence[Summaries], *, role: Role = "model") -> SummarisationReport:
    """Correlate, text by text, the nearness of machine summaries to human ones with human scores.

    Fabbri et al., "SummEval: Re-evaluating Summarization Evaluation", 2020.

    Raises:
        InputError: a text without human summaries or with other than one score per machine summary, or no text that
            could be judged.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("summarisation")
    scores = [
        checked_scores(row.scores, count=len(row.machine), what=f"scores of text {n}") for n, row in enumerate(rows)
    ]
    missing = next((number for number, row in enumerate(rows) if not row.human or not row.machine), None)
    if missing is not None:
        raise InputError(f"text {missing} has no {'machine' if rows[missing].human else 'human'} summaries")
    # all texts in one call, so that the encoder fills its batches
    human = embed(
        encoder, [text for row in rows for text in row.human], role=role, task="summarisation", what="human summaries"
    )
    machine = embed(
        encoder,
        [text for row in rows for text in row.machine],
        role=role,
        task="summarisation",
        what="machine summaries",
    )
    per_text = zip(
        np.split(unit_rows(human, np.float64), np.cumsum([len(row.human) for row in rows])[:-1]),
        np.split(unit_rows(machine, np.float64), np.cumsum([len(row.machine) for row in rows])[:-1]),
    )
    # theirs are the machine's summaries, ours the human ones; equal ones may differ in the last bit
    cosines = [np.round((theirs @ ours.T).max(axis=1), 12) for ours, theirs in per_text]
    pairs = [pair for pair in zip(cosines, scores) if not any(map(_is_constant, pair))]
    if not pairs:
        raise InputError(f"none of {len(rows)} texts has machine summaries of different score: nothing to correlate")
    results = [correlate(*pair) for pair in pairs]
    return SummarisationReport(
        float(np.mean([result.spearman for result in results])),
        float(np.mean([result.pearson for result in results])),
        len(results),
        len(rows) - len(results),
    )


DEPTH = 1000
"""Candidates of a query that average precision looks at, as mteb's `map_at_1000`."""


@dataclass(frozen=True)
class RerankingQuery:
    """One query with the texts to be ordered for it."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class RerankingReport:
    """Means over the queries that could be judged."""

    map: float
    mrr: float
    ndcg: float
    queries: int
    candidates: int
    skipped: int
    """Queries without a positive or without a negative: any order of their candidates is right."""


def reranking(encoder: Encoder, rows: Sequence[RerankingQuery]) -> RerankingReport:
    """Order each query's candidates by the cosine with the query.

    Raises:
        InputError: no row has a positive and a negative.
        TextError, VectorError: see `inputs.embed`.
    """
    judged = [row for row in rows if row.positives and row.negatives]
    if not judged:
        raise InputError(f"none of {len(rows)} queries has a positive and a negative: there is nothing to order")
    counts = [len(row.positives) + len(row.negatives) for row in judged]
    queries = embed(encoder, [row.query for row in judged], role="query", what="queries")
    passages = embed(encoder, [text for row in judged for text in (*row.positives, *row.negatives)], what="candidates")
    qrels, run = {}, {}
    for number, (row, own) in enumerate(zip(judged, np.split(passages, np.cumsum(counts)[:-1]))):
        names = list(_names(row))
        scores = unit_rows(own, np.float64) @ unit_rows(queries[number : number + 1], np.float64)[0]
        # names of positives begin with an a, see `_names`
        qrels[str(number)] = {name: int(name.startswith("a")) for name in names}
        run[str(number)] = dict(zip(names, scores.tolist(), strict=True))
    return RerankingReport(
        mean(average_precision(qrels, run, k=DEPTH)),
        mean(reciprocal_rank(qrels, run, k=10)),
        mean(ndcg(qrels, run, k=10)),
        len(judged),
        sum(counts),
        len(rows) - len(judged),
    )


def _names(row: RerankingQuery) -> Iterator[str]:
    """Ids of the candidates. trec_eval puts the larger id of a tie first: positives must not win by their names."""
    yield from (f"a{index:05}" for index in range(len(row.positives)))
    yield from (f"n{index:05}" for index in range(len(row.negatives)))
