"""A model folder + how to train -> a sentence-transformers model that can be trained, and from it a folder again.

Guarantees: the model reads texts as `spec.read_spec` says the folder's authors meant it (pooling, prompts, length),
also where that hangs on facts that sentence-transformers does not know; a merged LoRA leaves a plain checkpoint; a
Dense layer with as many outputs as inputs starts as the identity. Does not know: losses, data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize

from llama_index_embed_plus import artifact, lora_files
from llama_index_embed_plus.encoders.torch_encoder import merge_lora, quiet
from llama_index_embed_plus.errors import MissingExtraError, UsageError
from llama_index_embed_plus.model_files import BASE_CONFIG, require_json, write_json
from llama_index_embed_plus.pooling import ATTENTION
from llama_index_embed_plus.spec import EncoderSpec, Overrides, read_spec
from llama_index_embed_plus.train.attention_pooling import AttentionAwarePooling
from llama_index_embed_plus.train.settings import LoraSettings, Projection, TrainSettings

_ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid, "gelu": torch.nn.GELU}


@dataclass(frozen=True)
class Trainable:
    """The model to train, and how its folder was read. `serving_tokens`: its own limit, not that of training."""

    model: SentenceTransformer
    spec: EncoderSpec
    serving_tokens: int
    base: str
    """Where the transformer's own weights are: a hub name, or a folder."""


def open_trainable(folder: Path, copy: Path, settings: TrainSettings, *, device: str) -> Trainable:
    """Open the model in `folder` for training, by way of a `copy` whose files state everything that its spec says."""
    spec = read_spec(folder, Overrides(pooling=settings.pooling))
    if lora_files.is_kept_apart(folder / spec.transformer_path):
        raise UsageError(f"{folder} keeps its LoRA apart, and is no base to train from: merge it first")
    if settings.projection is not None and spec.truncate_dim:
        raise UsageError(
            f"the base cuts its vectors to truncate_dim {spec.truncate_dim}, a projection comes before that: drop one"
        )
    artifact.copy_model(folder, copy, spec=spec)
    attention = ATTENTION in spec.pooling
    with quiet():
        model = SentenceTransformer(
            str(copy),
            device=device,
            local_files_only=True,
            model_kwargs={"attn_implementation": "eager"} if attention else None,
        )
    serving_tokens = int(model.max_seq_length or spec.max_tokens)
    model.max_seq_length = min(serving_tokens, settings.max_tokens)
    if attention:
        model[1] = AttentionAwarePooling(model[0], spec)
    if settings.projection is not None:
        _project(model, settings.projection, seed=settings.seed)
    if settings.method == "lora":
        add_lora(model, settings.lora, seed=settings.seed)
    if settings.gradient_checkpointing:
        _recompute(model[0].auto_model)
    return Trainable(model, spec, serving_tokens, str((folder / spec.transformer_path).resolve()))


def save_trained(trained: Trainable, draft: Path, settings: TrainSettings) -> EncoderSpec:
    """Write the model's files into `draft`. Returns the spec of what was written, for the manifest."""
    model = trained.model
    model.max_seq_length = trained.serving_tokens
    if settings.method == "lora" and settings.lora.merge:
        merge_lora(model[0].auto_model)
    if isinstance(model[1], AttentionAwarePooling):
        model[1] = model[1].writable()
    with quiet():
        model.save(str(draft), create_model_card=False)
    if settings.method == "lora" and not settings.lora.merge:
        _name_base(model, draft, trained.base)
    written = read_spec(draft)
    shape = {name: getattr(written, name) for name in ("transformer_path", "head", "model_type")}
    dimension = settings.projection.dimension if settings.projection else trained.spec.dimension
    # What a family says of the base holds for its child, whose files may not repeat it.
    return replace(trained.spec, **shape, dimension=dimension)


def add_lora(model: SentenceTransformer, settings: LoraSettings, *, seed: int) -> None:
    """Put low-rank matrices beside the layers that `settings` names; only those are trained from then on."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtraError("LoRA", extra="train") from error
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or _known_targets(model) or "all-linear",
        task_type="FEATURE_EXTRACTION",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # A is drawn at random, B is zero
            model.add_adapter(config)
    except ValueError as error:
        raise UsageError(f"LoRA cannot be added to {settings.targets or 'this model'}: {_line(error)}") from error


def _name_base(model: SentenceTransformer, draft: Path, base: str) -> None:
    """Say in the folder of a LoRA kept apart which model it belongs to, and how that is built."""
    inner = draft if (draft / lora_files.CONFIG).is_file() else next(draft.rglob(lora_files.CONFIG)).parent
    config = require_json(inner, lora_files.CONFIG)
    write_json(inner / lora_files.CONFIG, {**config, "base_model_name_or_path": base})
    model[0].auto_model.config.to_json_file(inner / BASE_CONFIG, use_diff=False)


def _recompute(transformer: Any) -> None:
    """Keep no activations: compute them again in the backward pass (Chen et al. 2016, arXiv 1604.06174)."""
    # Version 5 of transformers renamed it on the way; sentence-transformers passes on the old name only.
    name = "activation" if hasattr(transformer, "activation_checkpointing_enable") else "gradient"
    enable = getattr(transformer, f"{name}_checkpointing_enable")
    enable(**{f"{name}_checkpointing_kwargs": {"use_reentrant": False}})


def _known_targets(model: SentenceTransformer) -> list[str]:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    return list(KNOWN.get(model[0].auto_model.config.model_type, ()))


def _project(model: SentenceTransformer, projection: Projection, *, seed: int) -> None:
    inputs = int(model.get_embedding_dimension())
    activation = _ACTIVATIONS.get(projection.activation, torch.nn.Identity)()
    dense = Dense(inputs, projection.dimension, bias=True, activation_function=activation)
    with torch.no_grad():
        dense.linear.bias.zero_()
        if inputs == projection.dimension:
            dense.linear.weight.copy_(torch.eye(inputs))
        else:
            generator = torch.Generator().manual_seed(seed)
            torch.nn.init.orthogonal_(dense.linear.weight, generator=generator)
    place = len(model) - (1 if isinstance(model[-1], Normalize) else 0)
    model.insert(place, dense.to(model.device))


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
