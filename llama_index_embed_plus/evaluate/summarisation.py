"""Machine summaries that people have scored -> whether nearness to human summaries ranks them as people do.

Guarantees: mteb's definition: a machine summary's score is its largest cosine with a human summary of the same text;
correlations are per text, then averaged. Does not know: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama_index_embed_plus.errors import InputError
from llama_index_embed_plus.evaluate.inputs import Role, checked_scores, embed, needs_eval, unit_rows
from llama_index_embed_plus.evaluate.similarity import correlate
from qdrant_tools.records import Encoder


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


def summarisation(encoder: Encoder, rows: Sequence[Summaries], *, role: Role = "passage") -> SummarisationReport:
    """Correlate, text by text, the nearness of machine summaries to human ones with human scores.

    Fabbri et al., "SummEval: Re-evaluating Summarization Evaluation", 2020.

    Raises:
        InputError: a text without human summaries or with other than one score per machine summary, or no text that
            could be judged.
        TextError, VectorError: see `inputs.embed`.
    """
    needs_eval("summarisation")
    known = [
        checked_scores(row.scores, count=len(row.machine), what=f"scores of text {n}") for n, row in enumerate(rows)
    ]
    missing = next((number for number, row in enumerate(rows) if not row.human or not row.machine), None)
    if missing is not None:
        raise InputError(f"text {missing} has no {'machine' if rows[missing].human else 'human'} summaries")
    human = embed(encoder, [text for row in rows for text in row.human], role=role, what="human summaries")
    machine = embed(encoder, [text for row in rows for text in row.machine], role=role, what="machine summaries")
    per_text = zip(
        np.split(unit_rows(human), np.cumsum([len(row.human) for row in rows])[:-1]),
        np.split(unit_rows(machine), np.cumsum([len(row.machine) for row in rows])[:-1]),
    )
    cosines = [(theirs @ ours.T).max(axis=1) for ours, theirs in per_text]
    pairs = [(found, scores) for found, scores in zip(cosines, known) if np.ptp(found) > 0 and np.ptp(scores) > 0]
    if not pairs:
        raise InputError(f"none of {len(rows)} texts has machine summaries of different score: nothing to correlate")
    results = [correlate(found, scores) for found, scores in pairs]
    return SummarisationReport(
        float(np.mean([each.spearman for each in results])),
        float(np.mean([each.pearson for each in results])),
        len(results),
        len(rows) - len(results),
    )
