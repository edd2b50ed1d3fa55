"""`TrainSettings` -> the arguments of sentence-transformers' trainer, and the device to train on.

Guarantees: what a device cannot do is UsageError before a model is opened. Does not know: data, losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from llama_index_embed_plus.errors import UsageError
from llama_index_embed_plus.train import ranks
from llama_index_embed_plus.train.settings import TrainSettings


def arguments_of(
    settings: TrainSettings,
    folder: Path,
    prompts: Mapping[str, str],
    *,
    batch_sampler: Callable[..., Any],
) -> SentenceTransformerTrainingArguments:
    """Say to the trainer what `settings` says. Raises UsageError for a precision that the device does not have."""
    device = device_of(settings)
    _check_precision(settings, device)
    devices = ranks.count()
    if settings.batch_size % devices:
        raise UsageError(f"batch_size {settings.batch_size} cannot be shared by {devices} devices: give a multiple")
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        # With split_batches: of all devices together, each of which takes its part of every batch.
        per_device_train_batch_size=settings.batch_size,
        accelerator_config={"split_batches": devices > 1},
        dataloader_drop_last=devices > 1,
        learning_rate=settings.rate,
        warmup_steps=settings.warmup_share,
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
        logging_nan_inf_filter=False,
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
    asked = settings.precision
    on_gpu = device.startswith("cuda") and (asked == "float16" or torch.cuda.is_bf16_supported())
    on_cpu = device == "cpu" and asked == "bfloat16" and _cpu_has_bfloat16()
    if asked != "float32" and not on_gpu and not on_cpu:
        raise UsageError(f"device {device!r} does not train in {asked}: use precision='float32'")


def _cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices: x86 with AVX512-BF16 or AMX. If torch cannot tell, it does not."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
