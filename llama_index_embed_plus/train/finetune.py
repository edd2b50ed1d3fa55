"""Training examples + a checkpoint -> a fine-tuned checkpoint folder. The whole encoder is trained.

Loss: multiple negatives ranking (Henderson et al. 2017, arXiv 1705.00652) with in-batch and mined hard negatives,
`-log softmax(scale * cos(q, p))` over every passage in the batch, computed a few texts at a time with the exact
gradient of the whole batch (GradCache, Gao et al. 2021, arXiv 2101.06983). Loop, loss and sampler are
sentence-transformers'.

Guarantees: no text occurs twice in a batch, so that no query's own positive is among its negatives; prompts are put
before texts exactly as at inference; the output folder appears whole or not at all; a seed fixes the order of rows.
Does not know: held-out queries. Whether the result may serve is for the caller to decide on those.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from transformers import PrinterCallback, TrainerCallback

from llama_index_embed_plus import artifact, checkpoints
from llama_index_embed_plus.errors import TrainingError, UsageError
from llama_index_embed_plus.spec import EncoderSpec, read_spec
from llama_index_embed_plus.train.examples import to_datasets
from qdrant_tools.records import Example, Progress


@dataclass(frozen=True)
class FinetuneSettings:
    """How to train. `max_tokens` cuts training texts only; the checkpoint keeps its own limit for serving.

    `tokens_at_once` bounds the memory, not the batch: gradients of `batch_size` rows are exact whatever it is.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 5e-5
    warmup_share: float = 0.1
    scale: float = 20.0
    negatives: int = 3
    max_tokens: int = 128
    tokens_at_once: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.max_tokens, self.tokens_at_once) < 1 or self.learning_rate <= 0:
            raise UsageError(f"epochs, batch_size, learning_rate and the token limits must be above 0, got {self}")


@dataclass(frozen=True)
class FinetuneReport:
    """What training did: the loss of every step, rows trained on, seconds."""

    losses: tuple[float, ...]
    rows: int
    seconds: float


def finetune(
    base: str | Path,
    examples: Sequence[Example],
    out: Path,
    settings: FinetuneSettings | None = None,
    *,
    progress: Progress | None = None,
) -> FinetuneReport:
    """Train the encoder `base` on `examples` and write an artifact, a sentence-transformers folder, to `out`.

    `progress` is called once per optimiser step; `planned_steps` says how many there will be. Raises `UsageError` if
    `out` holds something that is no artifact, `TrainingError` if no example has a positive or the loss is not finite.
    """
    settings = settings or FinetuneSettings()
    started = time.perf_counter()
    datasets = to_datasets(examples, negatives=settings.negatives)
    rows = sum(len(dataset) for dataset in datasets.values())
    if rows == 0:
        raise TrainingError(f"none of the {len(examples)} examples has a positive: nothing to train on")
    folder = checkpoints.resolve(base)
    spec = read_spec(folder)
    model = SentenceTransformer(str(folder), device="cpu" if not _has_cuda() else None)
    model.model_card_data.generate_widget_examples = False  # it would print, and read random rows
    serving_limit, model.max_seq_length = model.max_seq_length, min(model.max_seq_length, settings.max_tokens)
    watch = _Watch(progress)
    with artifact.written_whole(out) as draft, tempfile.TemporaryDirectory() as scratch:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=_arguments(settings, Path(scratch), _prompts(spec)),
            train_dataset=datasets,
            loss=CachedMultipleNegativesRankingLoss(
                model, scale=settings.scale, mini_batch_num_tokens=settings.tokens_at_once
            ),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)  # the library does not print
        trainer.train()
        model.max_seq_length = serving_limit
        model.save(str(draft), create_model_card=False)
        artifact.write_manifest(draft, spec=spec)  # what a family says of the base holds for its child
    return FinetuneReport(tuple(watch.losses), rows, time.perf_counter() - started)


def planned_steps(examples: Sequence[Example], settings: FinetuneSettings) -> int:
    """Return about how many optimiser steps `finetune` will take; the batch sampler may need a few more or less."""
    rows = sum(len(example.positives) for example in examples)
    return settings.epochs * max(1, -(-rows // settings.batch_size))


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Collects the losses, stops on a loss that is not a number, reports progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.losses: list[float] = []
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if loss != loss or loss == float("inf"):
            raise TrainingError(f"the loss became {loss} at step {state.global_step}: lower learning_rate")
        self.losses.append(float(loss))


def _arguments(
    settings: FinetuneSettings, scratch: Path, prompts: dict[str, str]
) -> SentenceTransformerTrainingArguments:
    return SentenceTransformerTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_share,
        batch_sampler="no_duplicates",
        prompts=prompts or None,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        log_level="error",
    )


def _prompts(spec: EncoderSpec) -> dict[str, str]:
    """Column name -> the prompt that inference puts before such a text."""
    by_column = {"anchor": spec.query_prompt, "positive": spec.passage_prompt}
    by_column |= {f"negative_{i}": spec.passage_prompt for i in range(1, 65)}
    return {column: prompt for column, prompt in by_column.items() if prompt}


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
