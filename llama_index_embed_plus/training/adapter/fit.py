"""Arrays -> the map that is best for queries that it was not fitted on.

The candidates are the identity, maps that need no labels (`unlabelled`), and on top of these a map that was fitted on
the labelled queries, by either loss (`descent`) and for several numbers of steps. Each is judged by every query, with a
map that was fitted without that query's fold (`folds`), and `choice` says which is taken. Of a fitted candidate the
result is the mean of the folds' maps.

A loss decides, and not nDCG, which is reported: clicks lie where the base put its hits, so that by ranks the base can
only lose; and of few queries the loss says more than ranks do.

Guarantees: one linear map of spectral norm 1 comes out; the identity is always among the candidates; queries that are
left out, and their answers, are used for nothing but the shape of the stored vectors as a whole. The same data and seed
give the same map on the same machine. Does not know: texts, collections; whether a map may serve.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.adapter.arrays import AdapterData, Numbers, Rows
from llama_index_embed_plus.training.adapter.choice import choose, losses_of
from llama_index_embed_plus.training.adapter.descent import Objective, descend
from llama_index_embed_plus.training.adapter.folds import fold_queries, hidden_answers, seen
from llama_index_embed_plus.training.adapter.ranking import SHORTLIST, Judged, judge, nearest
from llama_index_embed_plus.training.adapter.unlabelled import by_pseudo_queries, fill, whitening
from llama_index_embed_plus.training.settings import AdapterLossName, AdapterSettings
from qdrant_tools.records import Progress, Vectors
from qdrant_tools.validation import unit_rows

_OF_QUERY = 50
"""The nearest passages of a query that are its negatives."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One map, and what it gave queries that it was not fitted on.

    loss, ndcg: means over the queries, each by its weight; ndcg_of: (n,) of each. 0 and empty without labels.
    by, steps: of one that was fitted, the loss it was fitted by and for how many steps.
    """

    name: str
    loss: float
    ndcg: float
    ndcg_of: Numbers
    by: AdapterLossName | None = None
    steps: int = 0


@dataclass(frozen=True, eq=False)
class FittedMap:
    """The map q -> unit(q matrix), which of the candidates it is, and all of them, the identity first.

    judged: the numbers of the queries that `Candidate.ndcg_of` is about; losses: the training loss before each step, as
    a mean over the folds, of the candidate that was chosen.
    """

    matrix: Vectors
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    judged: Rows
    losses: tuple[float, ...] = ()

    @property
    def weight(self) -> Vectors:
        """W of the map q -> unit(q + q W), as adapters are stored."""
        return self.matrix - np.eye(len(self.matrix), dtype=np.float32)


def fit_map(
    data: AdapterData,
    settings: AdapterSettings | None = None,
    *,
    left_out: Rows | None = None,
    hidden: Rows | None = None,
    progress: Progress | None = None,
) -> FittedMap:
    """Fit a map on all queries but `left_out`, whose answers are kept from the others if the settings say so.

    hidden: stored rows that are kept from all: no answers, no negatives, and not there when a map is judged.

    `progress` is called after each of `settings.fits` fits.
    """
    settings = settings or AdapterSettings()
    with threadpool_limits(limits=1, user_api="blas"):
        none = np.empty(0, np.int64)
        fit = _Fit(data, settings, none if left_out is None else left_out, none if hidden is None else hidden)
        return fit.run(progress)


@dataclass(frozen=True, eq=False)
class _Descent:
    """The maps of one fit on all folds but one, after each number of steps, and the loss before each step."""

    maps: Sequence[Vectors]
    losses: Sequence[float]


class _Fit:
    def __init__(self, data: AdapterData, settings: AdapterSettings, left_out: Rows, hidden: Rows) -> None:
        self.data, self.settings = data, settings
        self.hidden = np.union1d(hidden, hidden_answers(data.answers, left_out, apart=settings.answers_apart))
        left = np.setdiff1d(data.everything, left_out)
        # what is left of the answers: those of queries that are left out belong to nobody
        self.queries, answers = seen(data.answers, left, self.hidden)
        self.answers = dict(zip(self.queries.tolist(), answers, strict=True))
        self.all_answers = [self.answers.get(query, []) for query in range(len(data.answers))]
        self.plain = self.plain_maps()
        self.start = list(self.plain.values())[-1]
        self.near = np.zeros((len(data.answers), min(SHORTLIST, len(data.stored))), np.int64)
        """Per query what is nearest under the map that fits start from, best first."""

    def run(self, progress: Progress | None) -> FittedMap:
        folds = self.folds()
        losses = self.losses(folds)
        tasks = [(loss, fold) for loss in losses for fold in range(len(folds))]
        descents: dict[tuple[AdapterLossName, int], _Descent] = {}
        with ThreadPoolExecutor(min(max(1, len(folds)), os.cpu_count() or 1, 8)) as pool:
            for fold, near in zip(folds, pool.map(self.search, folds), strict=True):
                self.near[fold] = near
            fit = partial(self.descend, folds)
            for task, descent in zip(tasks, pool.map(lambda task: fit(*task), tasks), strict=True):
                descents[task] = descent
                if progress is not None:
                    progress(1)
            judged = list(pool.map(partial(self.judge, folds, losses, descents), range(len(folds))))
        if progress is not None and len(tasks) < self.settings.fits:
            progress(self.settings.fits - len(tasks))
        order = np.concatenate(folds) if folds else self.queries
        candidates, place = self.candidates(losses, Judged.joined(judged) if judged else None, order)
        chosen = candidates[place]
        if chosen.by is None:
            return FittedMap(_normed(self.plain[chosen.name]), chosen, candidates, order)
        fits = [descents[chosen.by, fold] for fold in range(len(folds))]
        place = self.settings.steps.index(chosen.steps)
        of_steps = np.mean([fit.losses[: chosen.steps] for fit in fits], axis=0)
        matrix = np.mean([fit.maps[place] for fit in fits], axis=0)
        return FittedMap(_normed(matrix), chosen, candidates, order, tuple(of_steps.tolist()))

    def plain_maps(self) -> dict[str, Vectors]:
        """Maps that need no labels, by their names; each may go on from the one before."""
        data, settings = self.data, self.settings
        maps = {"identity": np.eye(data.stored.shape[1], dtype=np.float32)}
        if "whitened" in settings.candidates:
            maps["whitened"] = whitening(data.stored, strength=settings.whitening, floor=settings.whitening_floor)
        if "pseudo" in settings.candidates and data.pseudo is not None:
            maps["pseudo"] = by_pseudo_queries(data.stored, data.pseudo, list(maps.values())[-1], settings)
        return maps

    def folds(self) -> list[Rows]:
        """Of the queries; one query alone is a fold that nothing is fitted for."""
        settings = self.settings
        if not len(self.queries):
            return []
        return fold_queries(
            self.all_answers, self.queries, folds=settings.folds, seed=settings.seed, apart=settings.answers_apart
        )

    def losses(self, folds: Sequence[Rows]) -> tuple[AdapterLossName, ...]:
        """Those that are worth a fit: of one answer to a query they are the same."""
        several = any(len(self.answers[query]) > 1 for query in self.queries.tolist())
        return () if len(folds) < 2 else self.settings.losses if several else self.settings.losses[:1]

    def search(self, queries: Rows) -> Rows:
        vectors = unit_rows(self.data.queries[queries] @ self.start)
        return nearest(vectors, self.data.stored, SHORTLIST, hidden=self.hidden)

    def descend(self, folds: Sequence[Rows], loss: AdapterLossName, fold: int) -> _Descent:
        """Fit on all folds but one."""
        data, settings = self.data, self.settings
        left_out = hidden_answers(self.all_answers, folds[fold], apart=settings.answers_apart)
        hidden = np.union1d(self.hidden, left_out)
        queries, answers = seen(self.all_answers, np.setdiff1d(self.queries, folds[fold]), hidden)
        if not len(queries):  # all answers are shared with the fold
            return _Descent([self.start] * len(settings.steps), [0.0] * max(settings.steps))
        vectors = unit_rows(data.queries[queries] @ self.start)
        own = np.array(sorted({row for rows in answers for row in rows}), np.int64)
        rows = fill(
            # the first of every query before the second of any
            [own, np.array(data.hard, np.int64), self.near[queries, :_OF_QUERY].T.ravel()],
            len(data.stored),
            most=settings.negatives,
            seed=settings.seed,
            hidden=hidden,
        )
        objective = Objective.of(
            vectors, data.stored, answers, data.weights[queries], rows, same=settings.same_passage_similarity
        )
        weights, losses = descend(
            objective, loss, steps=settings.steps, rate=settings.learning_rate, temperature=settings.temperature
        )
        if not all(map(np.isfinite, losses)):
            rates = f"learning_rate is {settings.learning_rate}, temperature {settings.temperature}"
            raise TrainingError(f"the loss became {losses[-1]} ({rates}): lower the first or raise the second")
        return _Descent([self.start + self.start @ weight for weight in weights], losses)

    def judge(
        self,
        folds: Sequence[Rows],
        losses: Sequence[AdapterLossName],
        descents: Mapping[tuple[AdapterLossName, int], _Descent],
        fold: int,
    ) -> Judged:
        """Judge all candidates by the queries of one fold."""
        maps, ends = list(self.plain.values()), [0]
        for loss in losses:
            maps += descents[loss, fold].maps
            ends.append(len(maps) - 1)
        queries = folds[fold]
        answers = [self.answers[query] for query in queries.tolist()]
        stored, near = self.data.stored, self.near[queries]
        return judge(self.data.queries[queries], stored, answers, maps, ends, hidden=self.hidden, known=near)

    def candidates(
        self, losses: Sequence[AdapterLossName], judged: Judged | None, order: Rows
    ) -> tuple[tuple[Candidate, ...], int]:
        """All of them, and the number of the one that is taken."""
        named: list[tuple[str, AdapterLossName | None, int]] = [(name, None, 0) for name in self.plain]
        named += [(f"{loss} {steps}", loss, steps) for loss in losses for steps in self.settings.steps]
        plain = len(self.plain) - 1
        if judged is None:
            return tuple(Candidate(name, 0.0, 0.0, np.empty(0), by, steps) for name, by, steps in named), plain
        weights = self.data.weights[order]
        shares, of_queries = weights / weights.sum(), losses_of(judged, weights)
        means, ndcg = of_queries @ shares, judged.ndcg @ shares
        candidates = tuple(
            Candidate(name, float(means[row]), float(ndcg[row]), judged.ndcg[row], by, steps)
            for row, (name, by, steps) in enumerate(named)
        )
        return candidates, choose(of_queries, weights, plain)


def _normed(matrix: Vectors) -> Vectors:
    return np.asarray(matrix / np.linalg.norm(matrix.astype(np.float64), 2), np.float32)
