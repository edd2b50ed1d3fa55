"""Training examples + a checkpoint -> a fine-tuned checkpoint folder, in one call with few settings.

A short form of `train` for the whole encoder with multiple negatives ranking. Guarantees: those of `train`.
Does not know: held-out queries. Whether the result may serve is for the caller to decide on those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index_embed_plus.training.run import planned_steps as steps_of
from llama_index_embed_plus.training.run import train
from llama_index_embed_plus.training.settings import TrainSettings
from qdrant_tools.errors import UsageError
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

    @property
    def full(self) -> TrainSettings:
        """The same for `train`."""
        return TrainSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_share=self.warmup_share,
            loss_options={"scale": self.scale},
            negatives=self.negatives,
            max_tokens=self.max_tokens,
            tokens_at_once=self.tokens_at_once,
            seed=self.seed,
        )


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

    `progress` is called once per optimiser step; `planned_steps` says how many there will be. Raises as `train`.
    """
    report = train(base, examples, out, (settings or FinetuneSettings()).full, progress=progress)
    return FinetuneReport(report.losses, report.data["rows"], report.seconds)


def planned_steps(examples: Sequence[Example], settings: FinetuneSettings) -> int:
    """Return about how many optimiser steps `finetune` will take; the batch sampler may need a few more or less."""
    return steps_of(examples, settings.full)
