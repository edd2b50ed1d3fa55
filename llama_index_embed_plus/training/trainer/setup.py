"""A model folder and `TrainSettings` -> arguments, device and model for sentence-transformers; and a folder again.

Guarantees: what a device cannot do is UsageError before a model is opened. What is trained are the weights that
`models.weights` hashes; settings that ask for other files or for code are left out. Pooling, prompts and length are
those that `read_spec` finds, also where sentence-transformers would read the files otherwise. A merged LoRA leaves a
plain checkpoint; a Dense layer with as many outputs as inputs starts as the identity.
Does not know: losses, data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from llama_index_embed_plus.encoders.library_copy import disarm
from llama_index_embed_plus.encoders.torch_encoder import merge_lora, quiet
from llama_index_embed_plus.errors import MissingExtraError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.files import BASE_CONFIG, LORA_CONFIG, has_lora, require_json, write_json
from llama_index_embed_plus.models.hub import source_of
from llama_index_embed_plus.models.pooling import ATTENTION, MEAN, pool
from llama_index_embed_plus.models.spec import EncoderSpec, Overrides, read_spec
from llama_index_embed_plus.training.settings import LoraSettings, Projection, TrainSettings
from llama_index_embed_plus.training.trainer.as_served import open_as_served
from llama_index_embed_plus.training.trainer.distributed import world_size
from qdrant_tools.errors import UsageError, first_line


def arguments_of(
    settings: TrainSettings,
    folder: Path,
    prompts: Mapping[str, str],
    *,
    batch_sampler: Callable[..., Any],
) -> SentenceTransformerTrainingArguments:
    """Return `settings` as the trainer's arguments. Raises UsageError for a precision that the device does not have."""
    device = device_of(settings)
    _check_precision(settings, device)
    devices = world_size()
    if settings.batch_size % devices:
        raise UsageError(f"batch_size {settings.batch_size} cannot be shared by {devices} devices: give a multiple")
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        # With split_batches: of all devices together, each of which takes its part of every batch.
        per_device_train_batch_size=settings.batch_size,
        accelerator_config={"split_batches": devices > 1},
        dataloader_drop_last=devices > 1,  # else accelerate fills the last batch with rows of the first
        learning_rate=settings.rate,
        warmup_steps=settings.warmup_share,  # below 1 it is a share of all steps
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.schedule,
        gradient_accumulation_steps=settings.accumulation,
        max_grad_norm=settings.max_gradient,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        use_cpu=device == "cpu",
        batch_sampler=batch_sampler,
        prompts=dict(prompts) or None,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # else a mean is logged in place of NaN, and the run goes on
        save_strategy="steps" if settings.checkpoint_every else "no",
        save_steps=settings.checkpoint_every or 1,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        log_level="error",
    )


def device_of(settings: TrainSettings) -> str:
    """The device to train on: the one asked for, else a GPU if there is one."""
    return settings.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _check_precision(settings: TrainSettings, device: str) -> None:
    """Half precision without instructions for it is emulated, and slower than float32."""
    precision = settings.precision
    on_gpu = device.startswith("cuda") and (precision == "float16" or torch.cuda.is_bf16_supported())
    on_cpu = device == "cpu" and precision == "bfloat16" and _cpu_has_bfloat16()
    if precision != "float32" and not on_gpu and not on_cpu:
        raise UsageError(f"device {device!r} does not train in {precision}: use precision='float32'")


def _cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices: x86 with AVX512-BF16 or AMX. If torch cannot tell, it does not."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


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
    """Copy the model in `folder` to `copy` with everything that its spec says, and open that for training."""
    spec = read_spec(folder, Overrides(pooling=settings.pooling))
    if has_lora(folder / spec.transformer_path):
        raise UsageError(f"{folder} keeps its LoRA apart, and is no base to train from: merge it first")
    if settings.projection is not None and spec.truncate_dim:
        raise UsageError(
            f"the base cuts its vectors to truncate_dim {spec.truncate_dim}, a projection comes before that: drop one"
        )
    artifact.copy_model(folder, copy, spec=spec)
    disarm(copy)
    model = open_as_served(copy, spec, named=folder, device=device)
    serving_tokens = int(model.max_seq_length or spec.max_tokens)
    model.max_seq_length = min(serving_tokens, settings.max_tokens)
    if ATTENTION in spec.pooling:
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
        lora_alpha=settings.alpha or 2 * settings.rank,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or "all-linear",
        exclude_modules=None if settings.targets else _unread(model),
        task_type="FEATURE_EXTRACTION",
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft finds out by itself on which side the weights of GPT-2's layers have their inputs, and says so
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            torch.manual_seed(seed)  # A is drawn at random, B is zero
            model.add_adapter(config)
    except ValueError as error:
        raise UsageError(f"LoRA cannot be added to {settings.targets or 'this model'}: {first_line(error)}") from error


def _unread(model: SentenceTransformer) -> list[str] | None:
    """Linear layers that no vector goes through: the pooler of BERT's family would get no gradient."""
    layers = model[0].auto_model.named_modules()
    return [name for name, layer in layers if "pooler" in name and isinstance(layer, torch.nn.Linear)] or None


def _name_base(model: SentenceTransformer, draft: Path, base: str) -> None:
    """Say in the folder of a LoRA kept apart which model it belongs to, and how that is built."""
    inner = draft if (draft / LORA_CONFIG).is_file() else next(draft.rglob(LORA_CONFIG)).parent
    config = require_json(inner, LORA_CONFIG)
    source = source_of(Path(base))
    # a name with its commit can be opened on any machine, a path on this one only
    named = {"base_model_name_or_path": source.name, "revision": source.revision} if source else {}
    write_json(inner / LORA_CONFIG, {**config, "base_model_name_or_path": base, **named})
    # every value, not only those that differ from the defaults of this version
    model[0].auto_model.config.to_json_file(inner / BASE_CONFIG, use_diff=False)


def _recompute(transformer: Any) -> None:
    """Keep no activations: compute them again in the backward pass (Chen et al. 2016, arXiv 1604.06174)."""
    # Version 5 of transformers renamed it on the way; sentence-transformers passes on the old name only.
    name = "activation" if hasattr(transformer, "activation_checkpointing_enable") else "gradient"
    enable = getattr(transformer, f"{name}_checkpointing_enable")
    enable(**{f"{name}_checkpointing_kwargs": {"use_reentrant": False}})


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
    # before the normalisation, which has to stay last
    place = len(model) - (1 if isinstance(model[-1], Normalize) else 0)
    model.insert(place, dense.to(model.device))


class AttentionAwarePooling(torch.nn.Module):
    """Pools by `spec.pooling`, `attention` included, with the numbers of `pooling.pool`, which serving uses.

    sentence-transformers has no pooling weighted by attention. This module stands in for its own during training.
    """

    def __init__(self, transformer: Any, spec: EncoderSpec) -> None:
        super().__init__()
        self.modes, self.include_prompt = spec.pooling, spec.include_prompt
        self.width = int(transformer.get_embedding_dimension())
        self._attention: torch.Tensor | None = None
        transformer.auto_model.config.output_attentions = True
        self._listen(transformer.auto_model)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        prompt = features.get("prompt_length", 0) if not self.include_prompt else 0
        # the texts of a column have one prompt, so the first length is that of all
        tokens = int(prompt.flatten()[0]) if isinstance(prompt, torch.Tensor) else int(prompt)
        states, mask = features["token_embeddings"], features["attention_mask"]
        features["sentence_embedding"] = pool(states, mask, self.modes, prompt_tokens=tokens, attention=self._attention)
        return features

    def get_embedding_dimension(self) -> int:
        return self.width * len(self.modes)

    def writable(self) -> Pooling:
        """The nearest module that sentence-transformers can read: mean for `attention`; the manifest says more."""
        return Pooling(
            self.width, tuple(MEAN if mode == ATTENTION else mode for mode in self.modes), self.include_prompt
        )

    def _listen(self, model: Any) -> None:
        """Keep the last layer's attention of every pass: sentence-transformers calls `forward` past all hooks."""
        forward = model.forward

        def listened(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            self._attention = output.attentions[-1]
            return output

        model.forward = listened
