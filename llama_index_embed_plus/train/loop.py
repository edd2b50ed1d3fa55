"""A model, rows and a loss -> the trained model: sentence-transformers' trainer, made safe to kill and to starve.

Guarantees: a checkpoint holds everything that the next step depends on (weights of the model and of the loss,
optimizer, schedule, random states, size of the mini-batches), so that on a CPU an interrupted run ends as an
uninterrupted one; a loss or a gradient that is no number stops the run before the step is saved; nothing is printed.
Does not know: folders of models, held-out queries.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import PrinterCallback, TrainerCallback

from llama_index_embed_plus.errors import TrainingError, UsageError
from llama_index_embed_plus.model_files import read_json, write_json
from llama_index_embed_plus.train import ranks
from llama_index_embed_plus.train.checkpoint import DRAFT, PREFIX, Checkpoints, cannot_write, step_of
from llama_index_embed_plus.train.memory import MiniBatches, copied, is_out_of_memory
from llama_index_embed_plus.train.progress import tell_loss
from llama_index_embed_plus.train.settings import TrainSettings
from qdrant_tools.records import Progress

WEIGHTS_FILE, EXTRA_FILE = "weights.safetensors", "embed_plus_run.json"

Losses = Mapping[str, torch.nn.Module]
"""Name of a data set -> the loss of its rows."""


@dataclass(frozen=True)
class Fitted:
    """What the loop did. `losses[i]`: of optimiser step i + 1, also those before an interruption."""

    losses: tuple[float, ...]
    seconds: float
    resumed_from: int
    """The step of the checkpoint that the run went on from; 0: it was not interrupted."""
    notes: tuple[str, ...]


def fit(
    model: SentenceTransformer,
    datasets: DatasetDict,
    losses: Losses,
    arguments: SentenceTransformerTrainingArguments,
    *,
    checkpoints: Checkpoints,
    progress: Progress | None = None,
) -> Fitted:
    """Train `model` in place; go on from the last checkpoint if there is one.

    `progress` is called once per optimiser step. Raises TrainingError for a loss that is no number, a checkpoint that
    cannot be written, or memory that does not suffice for a single text.
    """
    started = time.perf_counter()
    watch = _Watch(progress, checkpoints)
    try:
        trainer = _Trainer(model=model, args=arguments, train_dataset=datasets, loss=dict(losses), callbacks=[watch])
    except (RuntimeError, ValueError, ImportError) as error:
        if not arguments.report_to:
            raise
        named = ", ".join(arguments.report_to)
        raise UsageError(f"report_to {named!r} cannot be used: {str(error).splitlines()[0]}") from error
    trainer.checkpoints, trainer.mini_batches = checkpoints, MiniBatches(trainer.loss.values())
    trainer.remove_callback(PrinterCallback)  # the library does not print
    last = checkpoints.latest()
    with _finishing_the_step(watch, arguments):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    history = tuple(float(row["loss"]) for row in trainer.state.log_history if "loss" in row)
    if not history:
        raise TrainingError(
            f"{sum(map(len, datasets.values()))} rows gave not one batch on {arguments.world_size} devices: "
            "give more examples, or a smaller batch_size"
        )
    seconds = time.perf_counter() - started
    return Fitted(history, seconds, step_of(last) if last else 0, tuple(trainer.mini_batches.notes))


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


@contextmanager
def _finishing_the_step(watch: _Watch, arguments: SentenceTransformerTrainingArguments) -> Iterator[None]:
    """On Ctrl-C end the step and write a checkpoint before KeyboardInterrupt; a second one raises at once."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or arguments.save_strategy == "no" or ranks.count() > 1:
        yield
        return

    def ask(number: int, frame: Any) -> None:
        watch.asked_to_stop = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if watch.asked_to_stop:
        raise KeyboardInterrupt


def _check_precision(settings: TrainSettings, device: str) -> None:
    """Half precision on a CPU is emulated, a hundred times slower; on a GPU bfloat16 needs the hardware."""
    if settings.precision == "float32":
        return
    has_it = device.startswith("cuda") and (settings.precision == "float16" or torch.cuda.is_bf16_supported())
    if not has_it:
        raise UsageError(f"device {device!r} does not train in {settings.precision}: use precision='float32'")


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """The trainer with three of its seams replaced: a step that runs out of memory, and both ends of a checkpoint."""

    checkpoints: Checkpoints
    mini_batches: MiniBatches

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """The card is written from the report; theirs would read random rows, and show a bar while it does."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Take the step; if memory runs out, forget what it added to the gradients and take it in smaller pieces."""
        window = self._window(inputs)
        try:
            return self._attempt(model, inputs, num_items_in_batch)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not is_out_of_memory(error):
                raise
            failure = error
        while True:
            self.mini_batches.halve(failure, step=self.state.global_step + 1)
            failure.__traceback__ = None  # its frames hold the tensors that did not fit
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.optimizer.zero_grad()
            try:
                # Batches that were accumulated before this one were forgotten with it: they are taken again.
                return [self._attempt(model, batch, num_items_in_batch) for batch in window][-1]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failure = error

    def _attempt(self, model: Any, inputs: dict[str, Any], items: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, copied(inputs), items)
        return loss

    def _window(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """The batches since the last optimiser step, this one included."""
        step, batches = getattr(self, "_since_step", (-1, []))
        batches = [*batches, inputs] if step == self.state.global_step else [inputs]
        self._since_step = (self.state.global_step, batches)
        return batches

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write the checkpoint under another name, then make it the last good one."""
        folder, name = self.checkpoints.folder, f"{PREFIX}{self.state.global_step}"
        last = self.checkpoints.latest()
        output, self.args.output_dir = self.args.output_dir, str(folder / DRAFT)
        try:
            super()._save_checkpoint(model, trial)
            if self.is_world_process_zero():
                extra = {"mini_batch": self.mini_batches.size, "notes": self.mini_batches.notes}
                write_json(folder / DRAFT / name / EXTRA_FILE, extra)
            ranks.wait()
            if self.is_world_process_zero():
                self.checkpoints.keep(folder / DRAFT / name)
            ranks.wait()
        # torch reports a failed write as RuntimeError, safetensors as its own.
        except (OSError, RuntimeError, SafetensorError) as error:
            self.checkpoints.discard_draft()
            raise cannot_write(folder, error, last=last) from error
        finally:
            self.args.output_dir = output

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        os.makedirs(str(output_dir), exist_ok=True)
        save_model(self._state(), os.path.join(str(output_dir), WEIGHTS_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        place = Path(resume_from_checkpoint)
        load_model(self._state(), place / WEIGHTS_FILE)
        extra = read_json(place, EXTRA_FILE) or {}
        if extra.get("mini_batch"):
            self.mini_batches.shrink_to(int(extra["mini_batch"]))
        self.mini_batches.notes.extend(extra.get("notes", ()))

    def _state(self) -> torch.nn.Module:
        """Everything with weights: the model, and what the losses bring along. Shared tensors are written once."""
        unique = {id(loss): loss for loss in self.loss.values()}
        return torch.nn.ModuleDict({"model": self.model, **{f"loss_{i}": m for i, m in enumerate(unique.values())}})


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Reports progress, and stops on a loss or a gradient that is not a number."""

    def __init__(self, progress: Progress | None, checkpoints: Checkpoints) -> None:
        self.progress, self.checkpoints = progress, checkpoints
        self.asked_to_stop = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None and state.global_step:
            self.progress(int(state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress(1)
        if self.asked_to_stop:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        # With float16 the first gradients may overflow: the scaler skips such a step by itself.
        watched = ("loss",) if args.fp16 else ("loss", "grad_norm")
        for name in watched:
            value = logs.get(name)
            if value is not None and not math.isfinite(value):
                last = self.checkpoints.latest()
                kept = f"; the weights before it are in {last}" if last else ""
                what = "loss" if name == "loss" else "gradient"
                raise TrainingError(
                    f"the {what} became {value} at step {state.global_step}: lower learning_rate (it is "
                    f"{args.learning_rate}) or max_gradient, and look at the examples of that step{kept}"
                )
        if "loss" in logs:
            tell_loss(self.progress, logs["loss"])
