"""Rows with weights -> one loss: the ranking losses of sentence-transformers, with a weight per row.

The trainer hands a loss the texts of a batch and its column `label`. These losses have no labels of their own, so the
column holds the weights w of the rows: the loss is `sum_i w_i l_i / sum_i w_i` over the batch (of all devices), where
l_i is the loss of row i. A row of weight 2 counts as two such rows in the mean, among the same candidates: it is not
its own negative twice, as a repeated row would be.

Guarantees: without `label`, or with equal weights, the value is computed by the library's own code. Does not know:
where weights come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer.losses import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    GISTEmbedLoss,
    MultipleNegativesRankingLoss,
    TripletLoss,
)
from sentence_transformers.util import all_gather, all_gather_with_grad, cos_sim, get_rank
from torch import Tensor, nn
from torch.nn import functional

from llama_index_embed_plus.errors import TrainingError

Features = Iterable[dict[str, Tensor]]


def row_weights(labels: Tensor | None, *, gather: bool = False) -> Tensor | None:
    """Return (rows,) weights with a mean of 1 over the batch, over all devices if `gather`.

    None: all are equal and above 0. A batch of which no row counts has weights of 0: it teaches nothing.
    """
    if labels is None:
        return None
    own = labels.detach().float().view(-1)
    everywhere = all_gather(own) if gather else own
    if not bool((everywhere >= 0).all()):
        raise TrainingError(f"a row has the weight {float(everywhere.min())}, expected 0 or more")
    if not bool(everywhere.any()):
        return own
    if torch.equal(everywhere, everywhere[:1].expand_as(everywhere)):
        return None
    # by the mean over all devices, because their gradients are averaged
    return own / everywhere.mean()


def row_losses(
    anchors: Tensor, candidates: Tensor, own: Tensor, *, scale: float, others: Tensor | None = None
) -> Tensor:
    """Return (rows,) the loss of each row: `-log softmax(scale * cos(anchor, candidate))` at its own candidate.

    anchors: (rows, dimension). candidates: (m, dimension). own: (rows,) the index of each row's positive among them.
    others: (n, dimension) further candidates, without the one at the index `own`, which is the anchor itself.
    """
    scores = cos_sim(anchors, candidates) * scale
    picked = scores.gather(1, own[:, None]).squeeze(1)
    if others is not None:
        among = cos_sim(anchors, others) * scale
        scores = torch.cat([scores, among.scatter(1, own[:, None], -torch.inf)], dim=1)
    losses: Tensor = torch.logsumexp(scores, dim=1) - picked
    return losses


class WeightedMultipleNegatives(MultipleNegativesRankingLoss):  # type: ignore[misc]
    """`MultipleNegativesRankingLoss` with weights."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        weights = row_weights(labels, gather=self.gather_across_devices)
        if weights is None:
            value: Tensor = super().compute_loss_from_embeddings(embeddings, labels)
            return value
        batch = _Batch(embeddings, gather=self.gather_across_devices)
        return (weights * batch.losses(slice(None), scale=self.scale, symmetric=_is_symmetric(self))).mean()


class CachedWeightedMultipleNegatives(CachedMultipleNegativesRankingLoss):  # type: ignore[misc]
    """`CachedMultipleNegativesRankingLoss` with weights."""

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        weights = row_weights(labels, gather=self.gather_across_devices)
        if weights is None:
            value: Tensor = super().calculate_loss(reps, labels, with_backward=with_backward)
            return value
        batch = _Batch([torch.cat(column) for column in reps], gather=self.gather_across_devices)
        total = weights.new_zeros(())
        for begin in range(0, len(weights), self.mini_batch_size):
            part = slice(begin, begin + self.mini_batch_size)
            losses = batch.losses(part, scale=self.scale, symmetric=_is_symmetric(self))
            share = (weights[part] * losses).sum() / len(weights)
            if with_backward:
                # part by part, so that no graph of the whole batch is held
                share.backward()  # type: ignore[no-untyped-call]
                share = share.detach()
            total = total + share
        return total


class NTXent(nn.Module):
    """The normalised temperature-scaled cross-entropy of SimCLR over pairs of texts, with weights."""

    def __init__(self, model: nn.Module, *, scale: float, gather_across_devices: bool) -> None:
        super().__init__()
        self.model, self.scale, self.gather_across_devices = model, scale, gather_across_devices

    def forward(self, features: Features, labels: Tensor | None = None) -> Tensor:
        return self.compute_loss_from_embeddings(embed_columns(self.model, features), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        if len(embeddings) != 2:
            raise TrainingError(f"ntxent got rows of {len(embeddings)} texts, expected pairs: leave out the negatives")
        weights = row_weights(labels, gather=self.gather_across_devices)
        batch = _Batch(embeddings, gather=self.gather_across_devices)
        losses = batch.both_sides(scale=self.scale)
        return losses.mean() if weights is None else (weights * losses).mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "gather_across_devices": self.gather_across_devices}


class WeightedTriplet(TripletLoss):  # type: ignore[misc]
    """`TripletLoss` with weights."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        weights = row_weights(labels)
        if weights is None:
            value: Tensor = super().compute_loss_from_embeddings(embeddings, labels)
            return value
        anchors, positives, negatives = embeddings
        near, far = self.distance_metric(anchors, positives), self.distance_metric(anchors, negatives)
        return (weights * functional.relu(near - far + self.triplet_margin)).mean()


class _RowWeightedCrossEntropy(nn.CrossEntropyLoss):
    """What the guided losses call on (a part of) a batch; the target of a row tells which row it is."""

    weights: Tensor | None = None
    offset = 0

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        if self.weights is None:
            return super().forward(scores, targets)
        losses = functional.cross_entropy(scores, targets, reduction="none")
        return (self.weights[targets - self.offset] * losses).mean()

    def take(self, labels: Tensor | None, *, gather: bool) -> None:
        self.weights = row_weights(labels, gather=gather)
        # candidates are gathered from all devices: this one's rows come after those of the devices before it
        self.offset = get_rank() * (0 if labels is None else labels.numel()) if gather else 0


class WeightedGuided(GISTEmbedLoss):  # type: ignore[misc]
    """`GISTEmbedLoss` with weights."""

    def __init__(self, model: nn.Module, guide: nn.Module, **options: Any) -> None:
        super().__init__(model, guide, **options)
        self.cross_entropy_loss = _RowWeightedCrossEntropy()

    def forward(self, features: Features, labels: Tensor | None = None) -> Tensor:
        self.cross_entropy_loss.take(labels, gather=self.gather_across_devices)
        value: Tensor = super().forward(features, labels)
        return value


class CachedWeightedGuided(CachedGISTEmbedLoss):  # type: ignore[misc]
    """`CachedGISTEmbedLoss` with weights."""

    def __init__(self, model: nn.Module, guide: nn.Module, **options: Any) -> None:
        super().__init__(model, guide, **options)
        self.cross_entropy_loss = _RowWeightedCrossEntropy()

    def forward(self, features: Features, labels: Tensor | None = None) -> Tensor:
        self.cross_entropy_loss.take(labels, gather=self.gather_across_devices)
        value: Tensor = super().forward(features, labels)
        return value


class _Batch:
    """The vectors of a batch: those of this device's rows, and of every device's as candidates."""

    def __init__(self, columns: list[Tensor], *, gather: bool) -> None:
        count = len(columns[0])
        first = get_rank() * count if gather else 0
        everywhere = [all_gather_with_grad(column) for column in columns] if gather else columns
        self.anchors, self.positives = columns[0], columns[1]
        self.all_anchors, self.all_positives = everywhere[0], everywhere[1]
        # positives come first, so that `own` finds a row's positive among them
        self.candidates = torch.cat(everywhere[1:])
        self.own = torch.arange(first, first + count, device=columns[0].device)

    def losses(self, rows: slice, *, scale: float, symmetric: bool) -> Tensor:
        """(rows,) the loss of query -> passages, or the mean of it and of positive -> queries."""
        own = self.own[rows]
        forward = row_losses(self.anchors[rows], self.candidates, own, scale=scale)
        if not symmetric:
            return forward
        return (forward + row_losses(self.positives[rows], self.all_anchors, own, scale=scale)) / 2

    def both_sides(self, *, scale: float) -> Tensor:
        """(rows,) the mean of NT-Xent's two terms of a pair."""
        forward = row_losses(self.anchors, self.all_positives, self.own, scale=scale, others=self.all_anchors)
        backward = row_losses(self.positives, self.all_anchors, self.own, scale=scale, others=self.all_positives)
        return (forward + backward) / 2


def _is_symmetric(loss: Any) -> bool:
    return "doc_to_query" in loss.directions
