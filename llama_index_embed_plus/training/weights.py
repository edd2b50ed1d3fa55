"""A job of LoRA or full fine-tuning -> the artifact. The door to torch: `run` loads this module when weights move.

Guarantees: what is measured is what was saved; the folder of checkpoints goes with a finished run and stays with an
interrupted one. Does not know: what a report says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_logits
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.spec import EncoderSpec, late_space, read_spec, space_of
from llama_index_embed_plus.training.data.columns import ColumnSettings, column_prompt, datasets_for
from llama_index_embed_plus.training.data.unsupervised import NoiseSettings
from llama_index_embed_plus.training.losses.build import build_loss
from llama_index_embed_plus.training.losses.catalogue import LossOptions, loss_spec
from llama_index_embed_plus.training.proof.model_card import write_report
from llama_index_embed_plus.training.proof.report import TrainReport, read_report
from llama_index_embed_plus.training.run import TrainingJob
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.trainer.as_served import require_room
from llama_index_embed_plus.training.trainer.batches import batch_sampler
from llama_index_embed_plus.training.trainer.checkpoint import Checkpoints
from llama_index_embed_plus.training.trainer.distributed import is_main_process, wait_for_all, world_size
from llama_index_embed_plus.training.trainer.evaluator import evaluation_callbacks
from llama_index_embed_plus.training.trainer.loop import fit
from llama_index_embed_plus.training.trainer.progress import report_phase
from llama_index_embed_plus.training.trainer.setup import (
    Trainable,
    arguments_of,
    device_of,
    open_trainable,
    save_trained,
)
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.records import Progress


def train_weights(job: TrainingJob, progress: Progress | None) -> TrainReport:
    """Train LoRA matrices or the whole encoder of a job, and write the artifact with its report."""
    settings, datasets, spec = job.settings, datasets_of(job), read_spec(job.folder)
    if spec.late or (job.collection is not None and job.collection.space == late_space(space_of(job.folder, spec))):
        raise NotSupportedError(
            "weights are trained and proved on passages that are read alone, and this is about late chunking: train "
            "the model without it, with a collection that was filled without it or none, and index with late chunking "
            "then; a query adapter (method 'adapter') can be fitted as it is"
        )
    scale = scale_of_margins(settings, datasets)
    options = LossOptions.of(
        settings.loss,
        settings.loss_options | ({} if scale is None else {"scale": scale}),
        tokens_at_once=settings.tokens_at_once,
        gather_across_devices=world_size() > 1,
    )
    run = Checkpoints(job.out.parent / f".{job.out.name}-training", job.identity(spec))
    sampler = batch_sampler(settings.loss, known=job.data.positives_by_query(), ids=job.data.passage_ids())
    prompts = prompts_of(settings.loss, spec, datasets)
    arguments = arguments_of(settings, run.folder, prompts, batch_sampler=sampler)
    with _opened(run), ExitStack() as stack:
        wait_for_all()  # until the main process has taken the folder of checkpoints
        # there, a killed run leaves nothing that the next one does not remove
        copy = stack.enter_context(tempfile.TemporaryDirectory(prefix=artifact.WORK, dir=run.folder))
        if is_main_process():
            job.open_base()  # raises now what would else end a whole training: weights that its config does not fit
        trained = open_trainable(job.folder, Path(copy), settings, device=device_of(settings))
        require_room(trained.model, prompts.values())
        # one module under every name: some losses bring weights of their own
        losses = dict.fromkeys(datasets, build_loss(settings.loss, trained.model, options))
        held_out = job.evidence.held_out if job.evidence and is_main_process() else None
        watched = evaluation_callbacks(trained.model, held_out, spec, progress, collection=job.collection)
        fitted = fit(trained.model, datasets, losses, arguments, checkpoints=run, progress=progress, callbacks=watched)
        if is_main_process():
            counts = {**job.counts, "rows": sum(map(len, datasets.values()))}
            told = () if scale is None else (f"the scale of margin_mse is {scale:g}, by the teacher's margins",)
            notes = (*told, *fitted.notes)
            report_phase(progress, "measure on held-out queries" if job.evidence else "write the model")
            figures = {"data": counts, "losses": fitted.losses, "seconds": fitted.seconds, "notes": notes}
            _write(job, trained, run.folder, **figures)
    wait_for_all()
    report = read_report(job.out)
    assert report is not None  # written above, by this process or by the one that it waited for
    return report


def scale_of_margins(settings: TrainSettings, datasets: DatasetDict) -> float | None:
    """The scale of margin_mse for margins that unit vectors cannot have, such as those of logits. None: as it is.

    With it nine of ten margins are differences of cosines of at most `_FAR_APART`, as the vectors of a base are.
    """
    chosen = settings.loss_options.get("scale") or settings.loss_options.get("temperature")
    if settings.loss != "margin_mse" or chosen is not None:
        return None
    margins = np.abs([margin for rows in datasets.values() for row in rows["label"] for margin in np.atleast_1d(row)])
    if margins.max(initial=0.0) <= _LARGEST_DIFFERENCE:
        return None
    return max(1.0, float(np.round(np.quantile(margins, 0.9) / _FAR_APART, 3)))


_LARGEST_DIFFERENCE, _FAR_APART = 2.0, 0.5
"""Of two cosines: what is possible, and what lies between a positive and a passage about something else."""


def _write(job: TrainingJob, trained: Trainable, work: Path, **figures: Any) -> None:
    """Save the model with its manifest, measure what was saved, and write the manifest again with the report."""
    with artifact.draft_folder(job.out, inside=work) as draft:
        final = save_trained(trained, draft, job.settings)
        manifest = artifact.write_manifest(draft, spec=final, name=final.name, source=artifact.origin_of(job.folder))
        before = job.open_base()
        # opened from the folder, so that what is measured is what was saved
        proof = job.proof(before, open_encoder(draft, backend="torch", device=job.settings.device))
        report = job.report(space=manifest.space, base_space=before.space, proof=proof, **figures)
        write_report(draft, report)
        job.write_held_out(draft)
        artifact.write_manifest(draft)  # again: it hashes the report too


@contextmanager
def _opened(run: Checkpoints) -> Iterator[None]:
    """Hold the folder of checkpoints; it goes with a finished run, and stays with an interrupted one."""
    if not is_main_process():  # the main process holds the lock for all
        yield
        return
    run.open()
    done = False
    try:
        yield
        done = True
    finally:
        run.close(done=done)


def datasets_of(job: TrainingJob) -> DatasetDict:
    """The columns that the loss reads. Raises UsageError for data of another shape, TrainingError for none."""
    options, noise = job.settings.loss_options, NoiseSettings(seed=job.settings.seed)
    named = loss_spec(job.settings.loss).shape == "distillation" and options.get("teacher")
    teacher = cross_encoder_logits(str(options["teacher"]), device=job.settings.device) if named else None
    return datasets_for(job.settings.loss, job.data, ColumnSettings(job.settings.negatives, teacher, noise))


def prompts_of(loss: str, spec: EncoderSpec, datasets: DatasetDict) -> dict[str, str]:
    """Column -> the prompt that inference puts before such a text; none where that is empty."""
    columns = {column for dataset in datasets.values() for column in dataset.column_names if column != "label"}
    by_column = {column: column_prompt(loss, column, spec) for column in sorted(columns)}
    return {column: prompt for column, prompt in by_column.items() if prompt}
