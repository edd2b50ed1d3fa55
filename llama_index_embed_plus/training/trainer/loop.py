"""A model, rows and a loss -> the trained model, by a trainer that survives a kill and a lack of memory.

A step that runs out of memory is taken again with mini-batches of half the size. Only losses that embed a batch in
mini-batches (GradCache) can do that without changing what they compute: the batch stays whole, and with it the in-batch
negatives.

Guarantees: a checkpoint holds everything that the next step depends on (weights of the model and of the loss,
optimizer, schedule, random states, size of the mini-batches), so that on a CPU an interrupted run ends as an
uninterrupted one. There is one after the last step too: what is interrupted behind the loop trains nothing again.
Nothing of a checkpoint is unpickled, and one that no run wrote is refused. A repeated step equals an undisturbed one up
to the random draws of dropout, and every halving is reported once. A loss or a gradient that is no number stops the run
before the step is saved. Nothing is printed.
Does not know: folders of models, held-out queries.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file, save_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import PrinterCallback, TrainerCallback

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.models.files import write_json
from llama_index_embed_plus.models.weights import tensors_of
from llama_index_embed_plus.training.trainer import state as states
from llama_index_embed_plus.training.trainer.checkpoint import DRAFT, PREFIX, Checkpoints, cannot_write, step_of
from llama_index_embed_plus.training.trainer.distributed import wait_for_all, world_size
from llama_index_embed_plus.training.trainer.progress import report_loss
from qdrant_tools.errors import PlusError, UsageError, first_line
from qdrant_tools.files.json_files import read_json
from qdrant_tools.records import Progress

WEIGHTS_FILE, LOSS_FILE, EXTRA_FILE = "weights.safetensors", "loss.safetensors", "embed_plus_run.json"
_MOST_NOTES, _LONGEST_NOTE = 100, 200

Losses = Mapping[str, torch.nn.Module]
"""Name of a data set -> the loss of its rows."""


@dataclass(frozen=True)
class Fitted:
    """What the loop did. `losses[i]`: of optimiser step i + 1, also those before an interruption."""

    losses: tuple[float, ...]
    seconds: float
    notes: tuple[str, ...]


def fit(
    model: SentenceTransformer,
    datasets: DatasetDict,
    losses: Losses,
    arguments: SentenceTransformerTrainingArguments,
    *,
    checkpoints: Checkpoints,
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Fitted:
    """Train `model` in place; go on from the last checkpoint if there is one.

    `progress` is called once per optimiser step; `callbacks` are the trainer's, after our own. Raises TrainingError for
    a loss that is no number, a checkpoint that cannot be written, or memory that does not suffice for a single text.
    """
    started = time.perf_counter()
    watch = _Watch(progress, checkpoints)
    try:
        called = [watch, *callbacks]
        trainer = _Trainer(model=model, args=arguments, train_dataset=datasets, loss=dict(losses), callbacks=called)
    except (RuntimeError, ValueError, ImportError) as error:
        # transformers opens what it reports to when a trainer is made
        if not arguments.report_to:
            raise
        named = ", ".join(arguments.report_to)
        raise UsageError(f"report_to {named!r} cannot be used: {first_line(error)}") from error
    trainer.checkpoints, trainer.mini_batches = checkpoints, MiniBatches(trainer.loss.values())
    trainer.watch = watch
    trainer.remove_callback(PrinterCallback)  # the library does not print
    last = checkpoints.latest()
    with _finishing_the_step(watch, arguments):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    if not watch.losses:
        raise TrainingError(
            f"{sum(map(len, datasets.values()))} rows gave not one batch on {arguments.world_size} devices: "
            "give more examples, or a smaller batch_size"
        )
    return Fitted(tuple(watch.losses), time.perf_counter() - started, tuple(trainer.mini_batches.notes))


@contextmanager
def _finishing_the_step(watch: _Watch, arguments: SentenceTransformerTrainingArguments) -> Iterator[None]:
    """On Ctrl-C end the step and write a checkpoint before KeyboardInterrupt; a second one raises at once."""
    main_thread = threading.current_thread() is threading.main_thread()
    # only the main thread may set a handler; of several processes, one that stops alone leaves the others waiting
    if not main_thread or arguments.save_strategy == "no" or world_size() > 1:
        yield
        return

    def ask(number: int, frame: Any) -> None:
        watch.asked_to_stop = True
        signal.signal(signal.SIGINT, before)  # the next Ctrl-C raises at once

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if watch.asked_to_stop:
        raise KeyboardInterrupt


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """The trainer with the step replaced (memory may run out), and all that writes and reads a checkpoint."""

    checkpoints: Checkpoints
    mini_batches: MiniBatches
    watch: _Watch

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: our card is written from the report. The library's would read random rows and show a bar."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Take the step; if memory runs out, forget what it added to the gradients and take it in smaller pieces."""
        # before the attempt, so that a batch that fails is among those to be taken again
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
        # the trainer takes the folder of its checkpoints from its arguments
        output, self.args.output_dir = self.args.output_dir, str(folder / DRAFT)
        try:
            super()._save_checkpoint(model, trial)
            if self.is_world_process_zero():
                extra = {"mini_batch": self.mini_batches.size, "notes": self.mini_batches.notes}
                write_json(folder / DRAFT / name / EXTRA_FILE, extra)
            # every process has written its part before the draft gets its name, and none goes on before it has
            wait_for_all()
            if self.is_world_process_zero():
                self.checkpoints.keep(folder / DRAFT / name)
            wait_for_all()
        # torch reports a failed write as RuntimeError, safetensors as its own.
        except (OSError, RuntimeError, SafetensorError) as error:
            self.checkpoints.discard_draft()
            raise cannot_write(folder, error, last=last) from error
        finally:
            self.args.output_dir = output

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        place = Path(str(output_dir))
        place.mkdir(parents=True, exist_ok=True)
        # not `save_file`, which refuses tensors that share memory, as tied weights do
        save_model(self.model, str(place / WEIGHTS_FILE))
        save_file({name: tensor.detach().cpu().clone() for name, tensor in self._brought().items()}, place / LOSS_FILE)
        states.save_losses(place, self.watch.losses)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # the library's own files are pickles
        if self.args.should_save:
            states.save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler, self._scaler)

    def _save_scaler(self, output_dir: str) -> None:
        """Do nothing: it is written with the optimizer."""

    def _save_rng_state(self, output_dir: str) -> None:
        # a process may come here before the first one has made the folder
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        states.save_random(Path(output_dir) / self._random_file)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        place = Path(resume_from_checkpoint)
        with _resuming(place):
            states.check_counters(place, step=step_of(place))
            self.watch.losses = states.load_losses(place, steps=step_of(place))
            tensors_of(place / WEIGHTS_FILE)  # its header is checked before memory is reserved for it
            load_model(self.model, place / WEIGHTS_FILE)
            saved = states.numbers_of(place / LOSS_FILE)
            with torch.no_grad():
                for name, tensor in self._brought().items():
                    tensor.copy_(saved[name])
            extra = read_json(place / EXTRA_FILE)
            if extra["mini_batch"] is not None:
                self.mini_batches.shrink_to(max(1, states.whole(extra["mini_batch"])))
            self.mini_batches.notes.extend(str(note)[:_LONGEST_NOTE] for note in extra["notes"][:_MOST_NOTES])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with _resuming(Path(checkpoint)):
                states.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self._scaler is not None:
            with _resuming(Path(checkpoint)):
                states.load_scaler(Path(checkpoint), self._scaler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with _resuming(Path(checkpoint)):
                states.load_random(Path(checkpoint) / self._random_file)

    @property
    def _scaler(self) -> Any:
        return getattr(self.accelerator, "scaler", None)

    @property
    def _random_file(self) -> str:
        return f"random-{self.args.process_index}.safetensors"

    def _brought(self) -> dict[str, torch.Tensor]:
        """The weights that losses bring along, such as a decoder; not the model's, which some of them hold too."""
        # one loss may stand under the names of several data sets
        unique = {id(loss): loss for loss in self.loss.values()}.values()
        ours = {id(tensor) for tensor in (*self.model.parameters(), *self.model.buffers())}
        return {
            # A loss holds the model as the launcher wrapped it: `module` stands where the wrapper is.
            f"{i}.{name.replace('module.', '')}": tensor
            for i, loss in enumerate(unique)
            for name, tensor in (*loss.named_parameters(), *loss.named_buffers())
            if id(tensor) not in ours
        }


@contextmanager
def _resuming(place: Path) -> Iterator[None]:
    """One error for a checkpoint that cannot be read, whatever is wrong with it."""
    try:
        yield
    # what the readers of this project, torch and safetensors raise for odd files
    except (PlusError, OSError, SafetensorError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise TrainingError(
            f"{place} is no checkpoint that this version goes on from ({first_line(error)[:200]}): remove "
            f"{place.parent} to start anew"
        ) from error


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps the losses, reports progress, and stops on a loss or a gradient that is not a number."""

    def __init__(self, progress: Progress | None, checkpoints: Checkpoints) -> None:
        self.progress, self.checkpoints = progress, checkpoints
        self.losses: list[float] = []
        self.asked_to_stop = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # the steps before an interruption, all at once
        if self.progress is not None and state.global_step:
            self.progress(int(state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress(1)
        if self.asked_to_stop:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # how many batches an epoch has is an estimate, so that the library may not know the last step for one
        is_last = state.epoch is not None and math.ceil(state.epoch - 1e-9) >= args.num_train_epochs
        last = self.checkpoints.latest()
        if is_last and args.save_strategy != "no" and (last is None or step_of(last) < state.global_step):
            control.should_save = True

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
            self.losses.append(float(logs["loss"]))
            report_loss(self.progress, logs["loss"])
        # they are kept above: the library would write all of them into every checkpoint
        state.log_history.clear()


logger = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory. On a CPU only the message tells."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


class MiniBatches:
    """The size of the mini-batches of a loss, or of several: tokens where they are counted, else texts."""

    def __init__(self, losses: Iterable[torch.nn.Module]) -> None:
        self._cached = [
            (module, "mini_batch_num_tokens" if module.mini_batch_num_tokens else "mini_batch_size")
            for loss in losses
            for module in loss.modules()  # a Matryoshka loss holds the cached one inside
            if hasattr(module, "mini_batch_num_tokens")
        ]
        self.notes: list[str] = []

    @property
    def size(self) -> int | None:
        """The smallest in use; None if nothing is done in mini-batches."""
        return min((int(getattr(module, name)) for module, name in self._cached), default=None)

    def shrink_to(self, size: int) -> None:
        """Use mini-batches of at most `size`, as an interrupted run did."""
        for module, name in self._cached:
            setattr(module, name, min(size, int(getattr(module, name))))

    def halve(self, error: BaseException, *, step: int) -> None:
        """Halve the size and say so. Raises TrainingError if there is nothing to halve."""
        size = self.size
        if size is None:
            raise TrainingError(
                f"out of memory at step {step}, and this loss takes its batch at once: use a cached loss, or a smaller "
                f"batch_size or max_tokens ({first_line(error)[:120]})"
            ) from error
        if size <= 1:  # also of tokens: a mini-batch holds at least one text
            raise TrainingError(
                f"out of memory at step {step} with one text at a time: use a smaller max_tokens, "
                f"gradient_checkpointing or a smaller model ({first_line(error)[:120]})"
            ) from error
        self.shrink_to(size // 2)
        unit = "tokens" if self._cached[0][1] == "mini_batch_num_tokens" else "texts"
        note = f"out of memory at step {step}: mini-batches of {size // 2} instead of {size} {unit} from here on"
        self.notes.append(note)
        logger.warning("%s", note)


def copied(inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch that a failed attempt cannot have changed: losses take entries out, modules write into masks."""
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in inputs.items()}
