"""Training examples + the vectors a collection already holds -> a query adapter, in seconds.

Of every row (query q, positive p, weight w) the loss is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748),

    -log( exp(q'.p / t) / (exp(q'.p / t) + sum_n exp(q'.n / t)) ),    averaged with the weights w,

over the negatives n that the settings name: positives of the other rows of the batch, mined negatives of the batch's
queries, and stored vectors drawn anew for every batch. Known positives of the query are never among them, nor is a
stored vector that is nearly the same as one: those would be hidden positives.

The maps of `encoders.adapter` are fitted as torch modules. `forward` gives what the numpy map gives, to 1e-6. The
orthogonal one is parametrised by Cayley's transform, R = (1 - S)⁻¹ (1 + S) with S = P - Pᵀ (Cayley 1846; as in Helfrich
et al. 2018, arXiv 1707.09520): every P gives a rotation, so any optimiser may move it. It reaches all rotations but
those that turn something by exactly 180 degrees.

Guarantees: fitting starts at the identity and stops early on a slice of the training queries. The best state seen there
is returned, which may be the identity. The same seed gives the same adapter on the same machine. A batch needs
4 bytes * batch * (sampled + batch * (1 + mined)) for its scores and 1 byte * validation rows * stored for the masks,
whatever the number of queries.
Does not know: held-out queries. Whether the adapter may serve is decided on those, by the caller.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from llama_index_embed_plus.encoders.adapter import (
    MAPS,
    FullMap,
    LowRankMap,
    MlpMap,
    OrthogonalMap,
    QueryAdapter,
    QueryMap,
    unfitted,
    without_adapter,
)
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.adapter_data import Pairs, read_pairs
from llama_index_embed_plus.training.settings import AdapterSettings
from llama_index_embed_plus.training.trainer.progress import report_loss, report_metric
from qdrant_tools.collections.collection import Collection
from qdrant_tools.records import Encoder, Example, Progress

__all__ = ["AdapterReport", "AdapterSettings", "fit_adapter"]


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
    stored_vectors: int = 0

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "losses": list(self.losses), "validation_mrr": list(self.validation_mrr)}


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

    `progress` is called once an epoch; one that takes losses and metrics (`TrainingProgress`) gets those too. In the
    report `train_pairs` counts (query, positive), those of validation among them; `skipped_examples` have no positive
    that the collection holds.

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
    fitted, course = AdapterFit(pairs, settings).run(start, progress=progress)
    report = AdapterReport(
        course.losses,
        course.mrr,
        course.best,
        len(pairs.query),
        course.validation_queries,
        len(examples) - len(pairs.group),
        time.perf_counter() - started,
        len(pairs.stored),
    )
    return QueryAdapter(fitted, encoder.space), report


_SCORES_AT_ONCE = 1 << 22
"""Scores computed at a time outside of the loss: 16 megabytes."""


@dataclass(frozen=True)
class FitHistory:
    """What fitting did. `mrr[0]` is the identity's; entry i belongs to the state after epoch i."""

    losses: tuple[float, ...]
    mrr: tuple[float, ...]
    best: int
    validation_queries: int


class AdapterFit:
    """One fit: split off validation queries, run epochs, keep the best state."""

    def __init__(self, pairs: Pairs, settings: AdapterSettings) -> None:
        self.pairs, self.settings = pairs, settings
        self.generator = torch.Generator().manual_seed(settings.seed)
        held = self._held()
        self.train_rows = torch.nonzero(~held[pairs.query]).flatten()
        self.valid_rows = torch.nonzero(held[pairs.query]).flatten()[: settings.max_validation]
        self.validation_queries = len(set(pairs.query[self.valid_rows].tolist()))
        everything = torch.arange(len(pairs.stored))
        # the same after every epoch, so computed once
        self.valid_hidden = self.hidden(self.valid_rows, everything, pairs.stored)

    def _held(self) -> torch.Tensor:
        """(queries,) bool: the validation queries. Equal queries are on one side."""
        groups = len(self.pairs.known)
        size = min(round(self.settings.validation_share * groups), self.settings.max_validation)
        count = min(max(1, size), groups - 1)  # at least one query is left to learn from
        held = torch.zeros(groups, dtype=torch.bool)
        held[torch.randperm(groups, generator=self.generator)[:count]] = True
        return held[torch.tensor(self.pairs.group)]

    def run(self, start: QueryMap, *, progress: Progress | None = None) -> tuple[QueryMap, FitHistory]:
        """Fit from `start`; `progress` is called after every epoch. Raises TrainingError if a loss is no number."""
        module = module_of(start)
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=self.settings.rate, weight_decay=self.settings.weight_decay
        )
        # the identity: what is returned if no epoch beats it
        best, best_epoch = start, 0
        losses: list[float] = []
        mrr = [self.validation_mrr(module)]
        for number in range(1, self.settings.max_epochs + 1):
            losses.append(self.epoch(module, optimizer))
            mrr.append(self.validation_mrr(module))
            report_loss(progress, losses[-1])
            report_metric(progress, "validation mrr", mrr[-1])
            if progress is not None:
                progress(1)
            if mrr[-1] > mrr[best_epoch]:
                best, best_epoch = module.fitted(), number
            if number - best_epoch >= self.settings.patience:
                break
        return best, FitHistory(tuple(losses), tuple(mrr), best_epoch, self.validation_queries)

    def epoch(self, module: AdapterModule, optimizer: torch.optim.Optimizer) -> float:
        order = self.train_rows[torch.randperm(len(self.train_rows), generator=self.generator)]
        total = 0.0
        for rows in _parts(order, self.settings.batch_size):
            optimizer.zero_grad()
            loss = self.loss(module, rows, self.candidates(rows))
            if not torch.isfinite(loss):
                rates = f"learning_rate is {self.settings.rate}, temperature {self.settings.temperature}"
                raise TrainingError(f"the loss became {loss.item()} ({rates}): lower the first or raise the second")
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(rows)
        return total / max(1, len(order))

    def candidates(self, rows: torch.Tensor) -> torch.Tensor:
        """(c,) ascending: the numbers of the stored vectors that are the rows' negatives, apart from `hidden` ones."""
        sources, pairs = self.settings.negatives, self.pairs
        if "collection" in sources and len(pairs.stored) <= self.settings.sampled:
            return torch.arange(len(pairs.stored))
        parts = [torch.empty(0, dtype=torch.long)]
        if "in_batch" in sources:
            parts.append(pairs.positive[rows])
        if "mined" in sources:
            parts.append(
                torch.tensor([n for q in pairs.query[rows].tolist() for n in pairs.mined[q]], dtype=torch.long)
            )
        if "collection" in sources:
            parts.append(torch.randint(len(pairs.stored), (self.settings.sampled,), generator=self.generator))
        unique: torch.Tensor = torch.unique(torch.cat(parts))
        return unique

    def loss(self, module: AdapterModule, rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """The weighted mean of InfoNCE over the rows, each against the candidates that are no positive of its query."""
        pairs, t = self.pairs, self.settings.temperature
        # candidates are distinct, so as many as stored vectors are all of them: no copy
        others = pairs.stored if len(candidates) == len(pairs.stored) else pairs.stored[candidates]
        adapted = torch.nn.functional.normalize(module(pairs.queries[pairs.query[rows]]), dim=1)
        # hidden among the candidates with the query's other positives, and put in front by itself below
        own = (adapted * pairs.stored[pairs.positive[rows]]).sum(dim=1, keepdim=True) / t
        scores = (adapted @ others.T / t).masked_fill(self.hidden(rows, candidates, others), -torch.inf)
        losses = torch.logsumexp(torch.cat([own, scores], dim=1), dim=1) - own[:, 0]
        weights = pairs.weight[rows]
        return (losses * weights).sum() / weights.sum()

    def hidden(self, rows: torch.Tensor, candidates: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """(rows, c) bool: True where a candidate is a positive of the row's query, or nearly the same as one."""
        pairs, hidden = self.pairs, torch.zeros(len(rows), len(candidates), dtype=torch.bool)
        positives = [pairs.known[pairs.group[query]] for query in pairs.query[rows].tolist()]
        owner = torch.tensor([row for row, positions in enumerate(positives) for _ in positions], dtype=torch.long)
        flat = torch.tensor([position for positions in positives for position in positions], dtype=torch.long)
        for part in _parts(torch.arange(len(flat)), _SCORES_AT_ONCE // max(1, len(candidates))):
            same = pairs.stored[flat[part]] @ vectors.T >= self.settings.same_passage_similarity
            same |= flat[part][:, None] == candidates[None, :]
            # a query has a row of `same` for each of its positives
            for row, matches in zip(owner[part].tolist(), same):
                hidden[row] |= matches
        return hidden

    @torch.no_grad()
    def validation_mrr(self, module: AdapterModule) -> float:
        """Mean reciprocal rank of each validation positive among all stored vectors but other positives."""
        if not len(self.valid_rows):
            return 0.0
        pairs, total = self.pairs, 0.0
        adapted = torch.nn.functional.normalize(module(pairs.queries[pairs.query[self.valid_rows]]), dim=1)
        for part in _parts(torch.arange(len(self.valid_rows)), _SCORES_AT_ONCE // len(pairs.stored)):
            scores = adapted[part] @ pairs.stored.T
            own = scores.gather(1, pairs.positive[self.valid_rows[part]][:, None])
            # an equal score is no better one: ties count for the positive
            better = ((scores > own) & ~self.valid_hidden[part]).sum(dim=1)
            total += float((1.0 / (1 + better)).sum())
        return total / len(self.valid_rows)


def _parts(rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Cut into parts of at most `size` rows, but at least one."""
    size = max(1, size)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class AdapterModule(torch.nn.Module):
    """A map that can be fitted: (n, dimension) -> (n, dimension), not normalised."""

    def __init__(self, start: QueryMap) -> None:
        super().__init__()
        for name, array in start.arrays().items():
            # a copy, or training would change the arrays of the starting map
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(array.copy())))

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def fitted(self) -> QueryMap:
        """Return the map with the weights of the moment, in numpy."""
        raise NotImplementedError

    def _arrays(self) -> dict[str, np.ndarray]:
        # a copy, or the next step would change the best state
        return {name: value.detach().numpy().copy() for name, value in self.named_parameters()}


class FullModule(AdapterModule):
    weight: torch.Tensor

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries + queries @ self.weight

    def fitted(self) -> QueryMap:
        return FullMap.of(self._arrays())


class LowRankModule(AdapterModule):
    down: torch.Tensor
    up: torch.Tensor

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries + (queries @ self.down) @ self.up

    def fitted(self) -> QueryMap:
        return LowRankMap.of(self._arrays())


class MlpModule(AdapterModule):
    down: torch.Tensor
    up: torch.Tensor
    bias: torch.Tensor

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries + torch.tanh(queries @ self.down + self.bias) @ self.up

    def fitted(self) -> QueryMap:
        return MlpMap.of(self._arrays())


class OrthogonalModule(AdapterModule):
    """Fits P, 0 at the start: of the starting map only the dimension counts, which is the identity's."""

    def __init__(self, start: QueryMap) -> None:
        torch.nn.Module.__init__(self)  # not `super()`, which would register the rotation itself
        self.free = torch.nn.Parameter(torch.zeros(start.dimension, start.dimension))

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return queries @ _cayley(self.free)

    def fitted(self) -> QueryMap:
        # In float64: rounding to float32 at the end is then the only error, far below what a map may be off.
        return OrthogonalMap(_cayley(self.free.detach().double()).float().numpy())


def _cayley(free: torch.Tensor) -> torch.Tensor:
    skew = free - free.T
    one = torch.eye(len(free), dtype=free.dtype)
    # 1 - S of a skew-symmetric S is never singular
    rotation: torch.Tensor = torch.linalg.solve(one - skew, one + skew)
    return rotation


_MODULES: dict[str, type[AdapterModule]] = dict(
    zip(MAPS, (FullModule, LowRankModule, OrthogonalModule, MlpModule), strict=True)
)


def module_of(start: QueryMap) -> AdapterModule:
    """Make the module that starts as an unfitted map of any kind."""
    return _MODULES[start.kind](start)
