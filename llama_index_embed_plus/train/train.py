"""Training examples + a base model -> an artifact and a report: the whole encoder, or LoRA.

Loop, losses and the GradCache mini-batches are sentence-transformers'. Guarantees: the artifact appears whole or not at
all; the same call after an interruption, `kill -9` included, goes on from the last checkpoint and ends as if nothing had
happened; prompts are put before texts exactly as at inference; a seed fixes everything that is drawn.
Under `accelerate launch` or `torchrun` every process makes the same call: each takes its part of every batch, negatives
are gathered across devices, and one of them writes. Does not know: where the examples come from.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from llama_index_embed_plus import artifact, checkpoints
from llama_index_embed_plus.errors import TrainingError, UsageError
from llama_index_embed_plus.spec import EncoderSpec, read_spec, space_of
from llama_index_embed_plus.train.checkpoint import Checkpoints, fingerprint
from llama_index_embed_plus.train.examples import to_datasets
from llama_index_embed_plus.train.loop import Fitted, Losses, arguments_of, device_of, fit
from llama_index_embed_plus.train.model import Trainable, open_trainable, save_trained
from llama_index_embed_plus.train.settings import TrainSettings
from qdrant_tools.collection import Collection
from qdrant_tools.records import Example, Progress

_MAY_DIFFER = ("report_to", "checkpoint_every", "device")
"""Settings that a run may be continued with otherwise: they do not change its result."""


@dataclass(frozen=True)
class Trained:
    """What training did."""

    fitted: Fitted
    rows: int


def train(
    base: str | Path,
    examples: Sequence[Example],
    out: Path,
    settings: TrainSettings | None = None,
    *,
    heldout: Any = None,
    collection: Collection | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train `base` on `examples` and write an artifact, a sentence-transformers folder, to `out`.

    `progress` is called once per optimiser step; `planned_steps` says how many there will be. Raises `UsageError` if
    `out` holds something that is no artifact, or an interrupted run of other settings, data or base beside it;
    `TrainingError` if there is nothing to train on, a loss is no number, or a checkpoint cannot be written.
    """
    settings, folder = settings or TrainSettings(), checkpoints.resolve(base)
    artifact.check_out(out)
    datasets = _datasets(examples, settings)
    spec = read_spec(folder)
    run = Checkpoints(out.parent / f".{out.name}-training", _identity(folder, spec, datasets, settings))
    arguments = arguments_of(settings, run.folder, prompts_of(spec))
    with _opened(run), tempfile.TemporaryDirectory(prefix=".embed-plus-", dir=out.parent) as copy:
        trained = open_trainable(folder, Path(copy), settings, device=device_of(settings))
        losses = _losses(trained, datasets, settings)
        fitted = fit(trained.model, datasets, losses, arguments, checkpoints=run, progress=progress)
        if _is_main():
            with artifact.written_whole(out) as draft:
                final = save_trained(trained, draft, settings)
                artifact.write_manifest(draft, spec=final)
    return Trained(fitted, sum(map(len, datasets.values())))


def planned_steps(examples: Sequence[Example], settings: TrainSettings) -> int:
    """Return about how many optimiser steps `train` will take; the batch sampler may need a few more or less."""
    rows = sum(len(example.positives) for example in examples)
    return settings.epochs * max(1, -(-rows // (settings.batch_size * settings.accumulation)))


def prompts_of(spec: EncoderSpec) -> dict[str, str]:
    """Column name -> the prompt that inference puts before such a text."""
    by_column = {"anchor": spec.query_prompt, "positive": spec.passage_prompt, "negative": spec.passage_prompt}
    by_column |= {f"negative_{i}": spec.passage_prompt for i in range(1, 65)}
    return {column: prompt for column, prompt in by_column.items() if prompt}


def _datasets(examples: Sequence[Example], settings: TrainSettings) -> DatasetDict:
    datasets = to_datasets(examples, negatives=settings.negatives)
    if not any(map(len, datasets.values())):
        raise TrainingError(f"none of the {len(examples)} examples has a positive: nothing to train on")
    return datasets


def _losses(trained: Trainable, datasets: DatasetDict, settings: TrainSettings) -> Losses:
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(
        trained.model,
        mini_batch_num_tokens=settings.tokens_at_once,
        gather_across_devices=_devices() > 1,
        **settings.loss_options,
    )
    return dict.fromkeys(datasets, loss)


def _identity(folder: Path, spec: EncoderSpec, datasets: DatasetDict, settings: TrainSettings) -> dict[str, Any]:
    """What must be equal for a run to go on."""
    rows = (row for name in sorted(datasets) for row in datasets[name])
    kept = {name: value for name, value in settings.as_dict().items() if name not in _MAY_DIFFER}
    return {"base": space_of(folder, spec), "data": fingerprint(rows), "devices": _devices(), "settings": kept}


@contextmanager
def _opened(run: Checkpoints) -> Iterator[None]:
    """Hold the folder of checkpoints; it goes with a finished run, and stays with an interrupted one."""
    if not _is_main():
        yield
        return
    run.open()
    done = False
    try:
        yield
        done = True
    finally:
        run.close(done=done)


def _devices() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"
