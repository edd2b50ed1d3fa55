"""The name of a loss, a model and options -> the module that `SentenceTransformerTrainer` calls.

The losses are sentence-transformers'; ours are the weights per row (`weighted`) and NT-Xent. Guarantees: an option that
the loss cannot honour, or a model that it cannot train, is UsageError. Does not know: data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses as library
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import pairwise_dot_score
from torch import Tensor
from transformers.utils import logging

from llama_index_embed_plus.encoders.library_copy import library_copy, opening
from llama_index_embed_plus.models.framing import PROBES
from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.training.losses import weighted
from llama_index_embed_plus.training.losses.catalogue import LossOptions
from qdrant_tools.errors import PlusError, UsageError, first_line

_TRIPLET_DISTANCE = {
    "cosine": library.TripletDistanceMetric.COSINE,
    "euclidean": library.TripletDistanceMetric.EUCLIDEAN,
}
_PAIR_DISTANCE = {
    "cosine": library.SiameseDistanceMetric.COSINE_DISTANCE,
    "euclidean": library.SiameseDistanceMetric.EUCLIDEAN,
}
_BATCH_DISTANCE = {
    "cosine": library.BatchHardTripletLossDistanceFunction.cosine_distance,
    "euclidean": library.BatchHardTripletLossDistanceFunction.euclidean_distance,
}
_TRIPLET_MARGIN, _PAIR_MARGIN, _SCALE, _GUIDED_SCALE = 0.3, 0.5, 20.0, 100.0


def build_loss(name: str, model: SentenceTransformer, options: LossOptions | None = None) -> torch.nn.Module:
    """Return the loss `name` (one of `LOSSES`) over `model`.

    The module takes the features of a batch's texts and its labels, as `SentenceTransformerTrainer` hands them over;
    `data.datasets_for` makes the columns. With `dims` it is the Matryoshka sum over them.

    Raises:
        UsageError: no such loss, an option that it does not take, or a model that it cannot train.
    """
    options = options or LossOptions()
    options.check(name)
    try:
        loss = _BUILDERS[name](model, options)
        return loss if options.dims is None else _matryoshka(model, loss, options)
    except PlusError:  # some of ours are a ValueError too
        raise
    except (ValueError, AssertionError, OSError) as error:  # the library's ways to refuse
        raise UsageError(f"the loss {name!r} cannot train this model: {first_line(error)}") from error


def _matryoshka(model: SentenceTransformer, loss: torch.nn.Module, options: LossOptions) -> torch.nn.Module:
    dims = list(options.dims or ())
    full = model.get_embedding_dimension()
    if full is not None and max(dims) > full:
        raise UsageError(f"dims has {max(dims)}, and the model's vectors have {full}")
    weights = None if options.dim_weights is None else list(options.dim_weights)
    return _module(library.MatryoshkaLoss(model, loss, matryoshka_dims=dims, matryoshka_weights=weights))


def _softmax(options: LossOptions) -> dict[str, Any]:
    symmetric = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    return {
        "scale": options.scale_or(_SCALE),
        "gather_across_devices": bool(options.gather_across_devices),
        **(symmetric if options.symmetric else {}),
    }


def _multiple_negatives(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    return weighted.WeightedMultipleNegatives(model, **_softmax(options))


def _cached_multiple_negatives(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    return weighted.CachedWeightedMultipleNegatives(
        model, mini_batch_num_tokens=options.tokens_at_once, **_softmax(options)
    )


def _ntxent(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    return weighted.NTXent(
        model, scale=options.scale_or(_SCALE), gather_across_devices=bool(options.gather_across_devices)
    )


def _simcse(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    if not any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()):
        raise UsageError(
            "simcse tells the two views of a text apart by dropout, and this model has none: set it above 0"
        )
    return _module(library.MultipleNegativesRankingLoss(model, **_softmax(options)))


def _guided_options(options: LossOptions) -> dict[str, Any]:
    if options.guide is None:
        raise UsageError("a guided loss needs a guide: the folder of a sentence-transformers model")
    guide = options.guide
    return {
        "guide": guide if isinstance(guide, SentenceTransformer) else _opened_guide(resolve(guide)),
        "temperature": 1.0 / options.scale_or(_GUIDED_SCALE),
        "margin": 0.0 if options.margin is None else options.margin,
        "margin_strategy": options.margin_kind or "absolute",
        "gather_across_devices": bool(options.gather_across_devices),
    }


def _opened_guide(folder: Path) -> SentenceTransformer:
    with tempfile.TemporaryDirectory(prefix="embed-plus-") as copy, opening(folder) as arguments:
        library_copy(folder, Path(copy))
        guide = SentenceTransformer(copy, **arguments)
        guide.encode(
            list(PROBES), show_progress_bar=False
        )  # what does not fit together fails here, and not in training
        return guide


def _guided(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    return _with_frozen_guide(weighted.WeightedGuided(model, **_guided_options(options)))


def _cached_guided(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    return _with_frozen_guide(
        weighted.CachedWeightedGuided(model, mini_batch_num_tokens=options.tokens_at_once, **_guided_options(options))
    )


def _with_frozen_guide(loss: Any) -> torch.nn.Module:
    """The guide only judges: it has no dropout and no gradients, and the optimizer does not change it."""
    # a model that guides itself goes on learning
    if loss.guide is not loss.model:
        loss.guide.eval().requires_grad_(False).to(loss.model.device)
    return _module(loss)


def _triplet(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    margin = _TRIPLET_MARGIN if options.margin is None else options.margin
    distance = _TRIPLET_DISTANCE[options.distance or "cosine"]
    return weighted.WeightedTriplet(model, distance_metric=distance, triplet_margin=margin)


def _batch_triplet(kind: str) -> Callable[[SentenceTransformer, LossOptions], torch.nn.Module]:
    def build(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
        # a soft margin has no size
        margin = {} if "Soft" in kind else {"margin": _TRIPLET_MARGIN if options.margin is None else options.margin}
        distance = _BATCH_DISTANCE[options.distance or "cosine"]
        return _module(getattr(library, kind)(model, distance_metric=distance, **margin))

    return build


def _contrastive(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    margin = _PAIR_MARGIN if options.margin is None else options.margin
    distance = _PAIR_DISTANCE[options.distance or "cosine"]
    return _module(library.ContrastiveLoss(model, distance_metric=distance, margin=margin))


def _margin_mse(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    scale = options.scale_or(1.0)

    def score(first: Tensor, second: Tensor) -> Tensor:
        scores: Tensor = scale * pairwise_dot_score(first, second)
        return scores

    return _module(library.MarginMSELoss(model, similarity_fct=score))


def _without_unit_length(model: SentenceTransformer) -> torch.nn.Module:
    """The modules of `model` up to the normalisation at its end: products of unit vectors never leave -1 to 1."""
    modules = list(model)
    while isinstance(modules[-1], Normalize):
        modules.pop()
    return torch.nn.Sequential(*modules)


def _in_batch_tension(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    return _module(library.ContrastiveTensionLossInBatchNegatives(model, scale=options.scale_or(_SCALE)))


def _tsdae(model: SentenceTransformer, options: LossOptions) -> torch.nn.Module:
    """The decoder is the encoder with a head and cross-attention, which no checkpoint has: drawn, always the same."""
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise UsageError("tsdae gives encoder and decoder one set of weights, which LoRA would keep: use method 'full'")
    hidden, dimension = model[0].get_embedding_dimension(), model.get_embedding_dimension()
    if hidden != dimension:
        raise UsageError(f"tsdae rebuilds texts from vectors of {hidden} numbers, this model gives {dimension}")
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # it would list every tensor that is new, as if something were wrong
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _module(library.DenoisingAutoEncoderLoss(model))
    finally:
        logging.set_verbosity(verbosity)


_BUILDERS: dict[str, Callable[[SentenceTransformer, LossOptions], torch.nn.Module]] = {
    "multiple_negatives": _multiple_negatives,
    "cached_multiple_negatives": _cached_multiple_negatives,
    "infonce": _multiple_negatives,
    "ntxent": _ntxent,
    "guided": _guided,
    "cached_guided": _cached_guided,
    "triplet": _triplet,
    "batch_hard_triplet": _batch_triplet("BatchHardTripletLoss"),
    "batch_hard_soft_margin_triplet": _batch_triplet("BatchHardSoftMarginTripletLoss"),
    "batch_semi_hard_triplet": _batch_triplet("BatchSemiHardTripletLoss"),
    "batch_all_triplet": _batch_triplet("BatchAllTripletLoss"),
    "contrastive": _contrastive,
    "cosine_similarity": lambda model, options: _module(library.CosineSimilarityLoss(model)),
    "cosent": lambda model, options: _module(library.CoSENTLoss(model, scale=options.scale_or(_SCALE))),
    "margin_mse": _margin_mse,
    "simcse": _simcse,
    "contrastive_tension": lambda model, options: _module(library.ContrastiveTensionLoss(_without_unit_length(model))),
    "contrastive_tension_in_batch": _in_batch_tension,
    "tsdae": _tsdae,
}


def _module(loss: Any) -> torch.nn.Module:
    module: torch.nn.Module = loss
    return module
