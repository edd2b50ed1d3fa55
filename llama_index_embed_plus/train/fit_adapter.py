"""Training examples + the vectors a collection already holds -> a query adapter, in seconds.

Loss: InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) of each (query, positive) against the stored vectors,
`-log( exp(q'.p / t) / (exp(q'.p / t) + sum_n exp(q'.n / t)) )`, where the n are all stored vectors, or a seeded
sample of them plus every mined negative. Known positives of the query are never among the n, nor are stored vectors
that are nearly the same as one of them: those are hidden positives.

Guarantees: starts at the identity; stops early on a slice of the training queries, and returns the best state seen
there, which may be the identity itself; the same seed gives the same adapter on the same machine. Does not know:
held-out queries. Whether the adapter may serve is for the caller to decide on those.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llama_index_embed_plus.adapter import QueryAdapter
from llama_index_embed_plus.errors import TrainingError, UsageError
from qdrant_tools.collection import Collection, stored_vectors
from qdrant_tools.records import Encoder, Example, Progress, Vectors


@dataclass(frozen=True)
class AdapterSettings:
    """How to fit. `temperature` divides cosines; `validation_share` of the queries decides when to stop."""

    temperature: float = 0.05
    learning_rate: float = 3e-4
    batch_size: int = 64
    max_epochs: int = 60
    patience: int = 5
    validation_share: float = 0.1
    same_passage_similarity: float = 0.95
    max_stored_vectors: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.learning_rate <= 0:
            raise UsageError(f"temperature {self.temperature} and learning_rate {self.learning_rate} must be above 0")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"validation_share is {self.validation_share}, expected a share between 0 and 1")


@dataclass(frozen=True)
class AdapterReport:
    """What fitting did. `validation_mrr[0]` is the identity's; entry i belongs to the state after epoch i."""

    losses: tuple[float, ...]
    validation_mrr: tuple[float, ...]
    best_epoch: int
    train_pairs: int
    validation_queries: int
    skipped_examples: int
    seconds: float


@dataclass(frozen=True)
class _Rows:
    """One row per (query, positive): which query, which stored vector, how much it counts."""

    query: torch.Tensor  # (pairs,) int64, index into the query vectors
    positive: torch.Tensor  # (pairs,) int64, index into the stored vectors
    weight: torch.Tensor  # (pairs,) float32


def fit_adapter(
    collection: Collection,
    examples: Sequence[Example],
    encoder: Encoder,
    settings: AdapterSettings | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[QueryAdapter, AdapterReport]:
    """Fit an adapter for `encoder`'s queries against the vectors stored in `collection`.

    Returns the adapter and a report. Raises `TrainingError` if fewer than 2 examples have a positive that the
    collection holds, or if the loss stops being a number. `progress` is called once an epoch.
    """
    settings = settings or AdapterSettings()
    started = time.perf_counter()
    ids, vectors = _stored_sample(collection, examples, settings)
    usable, rows = _rows(examples, {passage_id: i for i, passage_id in enumerate(ids)})
    if len(usable) < 2:
        raise TrainingError(
            f"{len(usable)} of {len(examples)} examples have a positive that collection {collection.name!r} holds, "
            "expected at least 2: index the positives, or check that the ids are passage ids"
        )
    queries = torch.from_numpy(encoder.encode_queries([example.query for example in usable]))
    allowed = _allowed(rows, len(usable), vectors, settings.same_passage_similarity)
    fit = _Fit(queries, torch.from_numpy(vectors), rows, allowed, settings)
    weight, losses, mrr, best = fit.run(progress)
    report = AdapterReport(
        tuple(losses),
        tuple(mrr),
        best,
        len(rows.query),
        int(fit.held.sum()),
        len(examples) - len(usable),
        time.perf_counter() - started,
    )
    return QueryAdapter(weight.numpy(), encoder.space), report


class _Fit:
    """The loop: epochs of InfoNCE on the train pairs, MRR on the validation queries after each."""

    def __init__(
        self,
        queries: torch.Tensor,
        stored: torch.Tensor,
        rows: _Rows,
        allowed: torch.Tensor,
        settings: AdapterSettings,
    ) -> None:
        self.queries, self.stored, self.rows, self.allowed, self.settings = (
            queries,
            stored,
            rows,
            allowed,
            settings,
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        held = max(1, round(settings.validation_share * len(queries)))
        self.held = torch.zeros(len(queries), dtype=torch.bool)
        self.held[torch.randperm(len(queries), generator=self.generator)[:held]] = True
        self.train_rows = torch.nonzero(~self.held[rows.query]).flatten()
        self.valid_rows = torch.nonzero(self.held[rows.query]).flatten()

    def run(self, progress: Progress | None) -> tuple[torch.Tensor, list[float], list[float], int]:
        dimension = self.queries.shape[1]
        weight = torch.zeros(dimension, dimension, requires_grad=True)
        optimizer = torch.optim.Adam([weight], lr=self.settings.learning_rate)
        best, best_epoch = weight.detach().clone(), 0
        losses, mrr = [], [self.validation_mrr(weight.detach())]
        for epoch in range(1, self.settings.max_epochs + 1):
            losses.append(self.epoch(weight, optimizer))
            mrr.append(self.validation_mrr(weight.detach()))
            if progress is not None:
                progress(1)
            if mrr[-1] > mrr[best_epoch]:
                best, best_epoch = weight.detach().clone(), epoch
            if epoch - best_epoch >= self.settings.patience:
                break
        return best, losses, mrr, best_epoch

    def epoch(self, weight: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
        order = self.train_rows[torch.randperm(len(self.train_rows), generator=self.generator)]
        total = 0.0
        for start in range(0, len(order), self.settings.batch_size):
            batch = order[start : start + self.settings.batch_size]
            optimizer.zero_grad()
            loss = self.loss(weight, batch)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss.item()}: lower learning_rate ({self.settings.learning_rate})"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(batch)
        return total / max(1, len(order))

    def loss(self, weight: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        query, positive = self.rows.query[batch], self.rows.positive[batch]
        logits = _adapt(self.queries[query], weight) @ self.stored.T / self.settings.temperature
        own = logits.gather(1, positive[:, None])
        others = logits.masked_fill(~self.allowed[query], -torch.inf)
        losses = torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]
        weights = self.rows.weight[batch]
        return (losses * weights).sum() / weights.sum()

    def validation_mrr(self, weight: torch.Tensor) -> float:
        """Mean reciprocal rank of each validation positive among everything that is not a positive of its query."""
        if not len(self.valid_rows):
            return 0.0
        query, positive = self.rows.query[self.valid_rows], self.rows.positive[self.valid_rows]
        scores = _adapt(self.queries[query], weight) @ self.stored.T
        own = scores.gather(1, positive[:, None])
        better = ((scores > own) & self.allowed[query]).sum(dim=1)
        return float((1.0 / (1 + better)).mean())


def _adapt(queries: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(queries + queries @ weight, dim=1)


def _rows(examples: Sequence[Example], index: dict[str, int]) -> tuple[list[Example], _Rows]:
    """Keep the examples whose positives are stored; one row per (query, positive)."""
    usable: list[Example] = []
    rows: list[tuple[int, int, float]] = []
    for example in examples:
        known = [index[p.id] for p in example.positives if p.id in index]
        if known and example.weight > 0:
            rows += [(len(usable), position, example.weight / len(known)) for position in known]
            usable.append(example)
    query, positive, weight = zip(*rows) if rows else ((), (), ())
    return usable, _Rows(
        torch.tensor(query, dtype=torch.long),
        torch.tensor(positive, dtype=torch.long),
        torch.tensor(weight, dtype=torch.float32),
    )


def _allowed(rows: _Rows, queries: int, stored: Vectors, similarity: float) -> torch.Tensor:
    """(queries, stored) bool: False where a stored vector is a positive of the query or nearly the same as one."""
    vectors = torch.from_numpy(stored)
    allowed = torch.ones(queries, len(stored), dtype=torch.bool)
    for start in range(0, len(rows.query), 1024):
        query, positive = rows.query[start : start + 1024], rows.positive[start : start + 1024]
        same = vectors[positive] @ vectors.T >= similarity
        same[torch.arange(len(positive)), positive] = True
        for row, i in enumerate(query.tolist()):
            allowed[i] &= ~same[row]
    return allowed


def _stored_sample(
    collection: Collection, examples: Sequence[Example], settings: AdapterSettings
) -> tuple[list[str], Vectors]:
    """Every positive and mined negative, and as many other stored vectors as fit: a seeded reservoir (Vitter's R)."""
    wanted = {text.id for example in examples for text in (*example.positives, *example.negatives)}
    random = np.random.default_rng(settings.seed)
    kept: dict[str, np.ndarray] = {}
    reservoir: list[tuple[str, np.ndarray]] = []
    room, seen = max(0, settings.max_stored_vectors - len(wanted)), 0
    for ids, vectors in stored_vectors(collection):
        for passage_id, vector in zip(ids, vectors):
            if passage_id in wanted:
                kept[passage_id] = vector
                continue
            seen += 1
            if len(reservoir) < room:
                reservoir.append((passage_id, vector))
            elif room and (place := int(random.integers(seen))) < room:
                reservoir[place] = (passage_id, vector)
    kept.update(reservoir)
    if not kept:
        raise TrainingError(f"collection {collection.name!r} is empty: index passages before fitting an adapter")
    return list(kept), np.stack(list(kept.values())).astype(np.float32, copy=False)
