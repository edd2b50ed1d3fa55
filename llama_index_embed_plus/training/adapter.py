"""Training examples + the vectors a collection already holds -> a query adapter, in seconds.

Of every row (query q, positive p, weight w) the loss is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748),

    -log( exp(q'.p / t) / (exp(q'.p / t) + sum_n exp(q'.n / t)) ),    averaged with the weights w,

over the negatives n that the settings name: positives of the other rows of the batch, mined negatives of the batch's
queries, and stored vectors drawn anew for every batch. Known positives of the query are never among them, nor is a
stored vector that is nearly the same as one: those would be hidden positives.

Its gradient is written out in `AdapterLoss` and, of the maps, in `adapter_maps`: numpy is all that fitting needs.

How many epochs are gone through, cross-validation says: fits that leave out one fold of the queries each go on side by
side, and the epoch counts at which the same loss of the left-out queries is lowest, over all stored vectors. The map is
then fitted on all queries for that many. No metric of ranks decides: clicks lie where the base put its hits, so by
such a metric the base can only lose, while the loss of queries that were left out falls as long as something that
holds for others is learned.

Guarantees: fitting starts at the identity, which is returned if no epoch is better. Queries that share an answer are in
one fold. The same seed gives the same adapter on the same machine. A batch needs
4 bytes * batch * (sampled + batch * (1 + mined)) for its scores, whatever the number of queries.
Does not know: held-out queries. Whether the adapter may serve is decided on those, by the caller.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from llama_index_embed_plus.encoders.adapter import QueryAdapter
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.adapter_data import Pairs, Rows, read_pairs
from llama_index_embed_plus.training.adapter_loss import AdapterLoss, parts
from llama_index_embed_plus.training.adapter_maps import AdamW, fitting_map
from llama_index_embed_plus.training.settings import AdapterSettings
from llama_index_embed_plus.training.trainer.progress import report_loss, report_metric
from qdrant_tools.collections.collection import Collection
from qdrant_tools.records import Encoder, Example, Progress
from qdrant_tools.search.adapters import QueryMap, unfitted, without_adapter

__all__ = ["AdapterReport", "AdapterSettings", "fit_adapter"]


@dataclass(frozen=True)
class AdapterReport:
    """What fitting did.

    losses: the training loss of each epoch, as a mean over the folds.
    validation_loss: of queries that were left out; [0] is the identity's, entry i belongs to the state after epoch i.
    best_epoch: where it is lowest; so many epochs the map was fitted for on all queries, 0 for the identity.
    """

    losses: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_epoch: int
    train_pairs: int
    validation_queries: int
    skipped_examples: int
    seconds: float
    stored_vectors: int = 0

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "losses": list(self.losses), "validation_loss": list(self.validation_loss)}


def fit_adapter(
    collection: Collection,
    examples: Sequence[Example],
    encoder: Encoder | None = None,
    settings: AdapterSettings | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[QueryAdapter, AdapterReport]:
    """Fit an adapter for `encoder`'s queries (the collection's own, if none is given) against the stored vectors.

    If the encoder has an adapter already, the new one is fitted without it and replaces it.

    `progress` is called once an epoch of the cross-validation; one that takes losses and metrics (`TrainingProgress`)
    gets those too. In the report `train_pairs` counts (query, positive), and `skipped_examples` have no positive that
    the collection holds.

    Raises:
        SpaceMismatchError: the collection holds vectors of another space.
        TrainingError: fewer than 2 examples have a positive that the collection holds, all queries are the same, a
            vector or the loss is not a number, or no example has the negatives that alone are asked for.
    """
    settings = settings or AdapterSettings()
    started = time.perf_counter()
    encoder = encoder or collection.required_encoder()
    collection.check(encoder)
    encoder = without_adapter(encoder)
    pairs = read_pairs(collection, examples, encoder, most=settings.max_stored_vectors, seed=settings.seed)
    if settings.negatives == ("mined",) and not any(pairs.mined):
        raise TrainingError("negatives is 'mined' alone, and no example has any: mine some, or add 'collection'")

    start = unfitted(settings.kind, pairs.queries.shape[1], width=settings.width, seed=settings.seed)
    # small products, each spread over all cores, wait for the busiest of them: ten times as long on a busy machine
    with threadpool_limits(limits=1, user_api="blas"):
        fitted, course = fit_by_folds(AdapterLoss(pairs, settings), start, progress=progress)
    report = AdapterReport(
        course.losses,
        course.validation,
        course.best,
        len(pairs.query),
        course.validation_queries,
        len(examples) - len(pairs.group),
        time.perf_counter() - started,
        len(pairs.stored),
    )
    return QueryAdapter(fitted, encoder.space), report


@dataclass(frozen=True)
class FitHistory:
    """What fitting did. `validation[0]` is the identity's; entry i belongs to the state after epoch i."""

    losses: tuple[float, ...]
    validation: tuple[float, ...]
    best: int
    validation_queries: int


class AdapterFit:
    """One fit on some of the rows, epoch by epoch."""

    def __init__(self, objective: AdapterLoss, start: QueryMap, rows: Rows, *, draw: int) -> None:
        self.objective, self.rows = objective, rows
        self.fitting = fitting_map(start)
        settings = objective.settings
        self.optimizer = AdamW(self.fitting.parameters, settings.rate, settings.weight_decay)
        self.random = np.random.default_rng([settings.seed, draw])

    def epoch(self) -> float:
        """Go through the rows once; return the mean loss. Raises TrainingError if it is no number."""
        settings, total = self.objective.settings, 0.0
        for rows in parts(self.random.permutation(self.rows), settings.batch_size):
            loss, gradients = self.objective.loss(self.fitting, rows, self.objective.candidates(rows, self.random))
            if not math.isfinite(loss):
                rates = f"learning_rate is {settings.rate}, temperature {settings.temperature}"
                raise TrainingError(f"the loss became {loss} ({rates}): lower the first or raise the second")
            self.optimizer.step(gradients)
            total += loss * len(rows)
        return total / max(1, len(self.rows))


def fit_by_folds(
    objective: AdapterLoss, start: QueryMap, *, progress: Progress | None = None
) -> tuple[QueryMap, FitHistory]:
    """Fit from `start` for as many epochs as cross-validation says; `progress` is called after every epoch of that.

    Raises TrainingError: a loss is no number.
    """
    settings, everything = objective.settings, np.arange(len(objective.pairs.query))
    left_out = validation_folds(objective.pairs, settings)
    fits = [
        AdapterFit(objective, start, np.setdiff1d(everything, rows), draw=draw)
        for draw, rows in enumerate(left_out, start=1)
    ]
    judged = _at_most(left_out, settings.max_validation)
    losses: list[float] = []
    validation = [_validation(objective, fits, judged)]
    best = 0
    while len(losses) < settings.max_epochs and len(losses) - best < settings.patience:
        losses.append(float(np.mean([fit.epoch() for fit in fits])))
        validation.append(_validation(objective, fits, judged))
        report_loss(progress, losses[-1])
        report_metric(progress, "validation loss", validation[-1])
        if progress is not None:
            progress(1)
        if validation[-1] < validation[best]:
            best = len(losses)
    final = AdapterFit(objective, start, everything, draw=0)
    for _ in range(best):
        final.epoch()
    queries = len({query for rows in judged for query in objective.pairs.query[rows].tolist()})
    # the start itself, not a copy of it: an orthogonal map is made of other parameters
    fitted = final.fitting.fitted() if best else start
    return fitted, FitHistory(tuple(losses), tuple(validation), best, queries)


def validation_folds(pairs: Pairs, settings: AdapterSettings) -> list[Rows]:
    """The rows that each fit leaves out. Of many queries not all are left out once: `max_validation` rows are enough.

    Equal queries are in one fold, and so are queries that share an answer, unless that joins all of them.
    """
    groups = _sharing(pairs)
    if len(set(groups)) < 2:
        groups = list(range(len(pairs.known)))
    members: dict[int, list[int]] = {}
    for query, group in enumerate(groups):
        members.setdefault(group, []).append(query)
    order = np.random.default_rng(settings.seed).permutation(len(members))
    shuffled = sorted((list(members.values())[place] for place in order), key=len, reverse=True)
    folds: list[list[int]] = [[] for _ in range(min(settings.folds, len(members)))]
    for each in shuffled:
        min(folds, key=len).extend(each)
    of_row = np.asarray(pairs.group)[pairs.query]
    chosen: list[Rows] = []
    # the small ones first: what is left out of them teaches most
    for fold in sorted(folds, key=len):
        if sum(map(len, chosen)) < settings.max_validation:
            chosen.append(np.flatnonzero(np.isin(of_row, fold)))
    return chosen


def _sharing(pairs: Pairs) -> list[int]:
    """(groups,) of each group of queries, the lowest number of those that it shares an answer with, over any chain."""
    lowest = list(range(len(pairs.known)))

    def root(group: int) -> int:
        while lowest[group] != group:
            lowest[group] = lowest[lowest[group]]
            group = lowest[group]
        return group

    owner: dict[int, int] = {}
    for group, positives in enumerate(pairs.known):
        for positive in positives:
            one, other = sorted((root(group), root(owner.setdefault(positive, group))))
            lowest[other] = one
    return [root(group) for group in range(len(lowest))]


def _at_most(folds: list[Rows], rows: int) -> list[Rows]:
    """As many rows of each fold, none more than its share of `rows`."""
    return [fold[: max(1, rows // len(folds))] for fold in folds]


def _validation(objective: AdapterLoss, fits: list[AdapterFit], judged: list[Rows]) -> float:
    sums = [objective.summed(fit.fitting, rows) for fit, rows in zip(fits, judged)]
    return sum(loss for loss, _ in sums) / sum(weight for _, weight in sums)
