"""Training examples + a base model -> an artifact and a report: a query adapter, LoRA, or the whole encoder.

Loop, losses and the GradCache mini-batches are sentence-transformers'. Guarantees: the artifact appears whole or not at
all; the same call after an interruption, `kill -9` included, goes on from the last checkpoint and ends as if nothing
had happened; prompts are put before texts exactly as at inference; a seed fixes everything that is drawn; with held-out
queries the report says whether the result may take the base's place, and without them that nobody knows.
Under `accelerate launch` or `torchrun` every process makes the same call: each takes its part of every batch, negatives
are gathered across devices, and one of them writes. Does not know: where the examples come from.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index_embed_plus import artifact, checkpoints
from llama_index_embed_plus.adapter import AdaptedEncoder, attached
from llama_index_embed_plus.encoders import open_encoder
from llama_index_embed_plus.errors import UsageError
from llama_index_embed_plus.spec import read_spec
from llama_index_embed_plus.train import ranks
from llama_index_embed_plus.train.arguments import arguments_of, device_of
from llama_index_embed_plus.train.batches import batch_sampler
from llama_index_embed_plus.train.card import write_card
from llama_index_embed_plus.train.checkpoint import Checkpoints
from llama_index_embed_plus.train.data import TrainingData
from llama_index_embed_plus.train.fit_adapter import fit_adapter
from llama_index_embed_plus.train.heldout import Heldout
from llama_index_embed_plus.train.job import Evidence, Job, prompts_of
from llama_index_embed_plus.train.loop import fit
from llama_index_embed_plus.train.losses import LossOptions, build_loss
from llama_index_embed_plus.train.model import Trainable, open_trainable, save_trained
from llama_index_embed_plus.train.probe import looks
from llama_index_embed_plus.train.report import TrainReport, read_report, write_report
from llama_index_embed_plus.train.settings import TrainSettings
from qdrant_tools.collection import Collection
from qdrant_tools.records import Example, Progress

__all__ = ["Evidence", "planned_steps", "train"]


def train(
    base: str | Path,
    examples: Sequence[Example] | TrainingData,
    out: Path,
    settings: TrainSettings | None = None,
    *,
    heldout: Heldout | Evidence | None = None,
    collection: Collection | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train `base` on `examples` and write an artifact, a sentence-transformers folder with a report, to `out`.

    heldout: queries that decide whether the result is better; training examples that know one are refused.
    collection: what a query adapter is fitted against, and what is searched for held-out queries without passages.
    progress: called once per optimiser step (adapter: epoch); `planned_steps` says how many there will be.

    Raises:
        UsageError: `out` holds something that is no artifact, or the folder beside it an interrupted run of other
            settings, data or base; data of another shape than the loss wants; a setting that this base or device
            cannot honour.
        LeakError: an example knows a held-out query.
        TrainingError: nothing to train on, a loss that is no number, no memory, or a checkpoint that cannot be written.
    """
    out = Path(out)
    artifact.check_out(out)
    job = Job(
        base=Path(base).name if Path(base).exists() else str(base),
        folder=checkpoints.resolve(base),
        data=examples if isinstance(examples, TrainingData) else TrainingData.of(examples),
        out=out,
        settings=settings or TrainSettings(),
        evidence=Evidence(heldout) if isinstance(heldout, Heldout) else heldout,
        collection=collection,
    )
    if ranks.is_main():
        job.check_leak()
    return _fit_adapter(job, progress) if job.settings.method == "adapter" else _train_weights(job, progress)


def planned_steps(examples: Sequence[Example] | TrainingData, settings: TrainSettings) -> int:
    """Return about how many optimiser steps `train` will take; contradicting rows may make it a few more."""
    rows = examples.rows if isinstance(examples, TrainingData) else examples
    count = sum(len(row.positives) if isinstance(row, Example) else 1 for row in rows)
    return settings.epochs * max(1, -(-count // (settings.batch_size * settings.accumulation)))


def _fit_adapter(job: Job, progress: Progress | None) -> TrainReport:
    if job.collection is None:
        raise UsageError("method 'adapter' is fitted against stored vectors: give the collection")
    started, before = time.perf_counter(), job.open_base()
    adapter, fitted = fit_adapter(job.collection, job.data.examples, before, job.settings.adapter, progress=progress)
    with attached(job.folder, adapter, job.out) as draft:
        report = job.report(
            space=before.space,
            base_space=before.space,
            data={**job.counts, "rows": fitted.train_pairs, "skipped": fitted.skipped_examples},
            losses=fitted.losses,
            proof=job.proof(before, AdaptedEncoder(before, adapter)),
            seconds=time.perf_counter() - started,
        )
        write_report(draft, report)
        write_card(draft, report)
    return report


def _train_weights(job: Job, progress: Progress | None) -> TrainReport:
    settings, datasets, spec = job.settings, job.datasets(), read_spec(job.folder)
    options = LossOptions.of(
        settings.loss,
        settings.loss_options,
        tokens_at_once=settings.tokens_at_once,
        gather_across_devices=ranks.count() > 1,
    )
    run = Checkpoints(job.out.parent / f".{job.out.name}-training", job.identity(spec))
    sampler = batch_sampler(settings.loss, known=job.data.known(), ids=job.data.passage_ids())
    arguments = arguments_of(settings, run.folder, prompts_of(spec, datasets), batch_sampler=sampler)
    with _opened(run), tempfile.TemporaryDirectory(prefix=".embed-plus-", dir=job.out.parent) as copy:
        ranks.wait()
        trained = open_trainable(job.folder, Path(copy), settings, device=device_of(settings))
        losses = dict.fromkeys(datasets, build_loss(settings.loss, trained.model, options))
        heldout = job.evidence.heldout if job.evidence and ranks.is_main() else None
        watched = looks(trained.model, heldout, spec, progress, collection=job.collection)
        fitted = fit(trained.model, datasets, losses, arguments, checkpoints=run, progress=progress, callbacks=watched)
        if ranks.is_main():
            counts = {**job.counts, "rows": sum(map(len, datasets.values()))}
            _write(job, trained, data=counts, losses=fitted.losses, seconds=fitted.seconds, notes=fitted.notes)
    ranks.wait()
    report = read_report(job.out)
    assert report is not None  # written above, by this process or by the one that it waited for
    return report


def _write(job: Job, trained: Trainable, **figures: Any) -> None:
    """Save the model, seal it, measure what was sealed, and seal it again with the report."""
    with artifact.written_whole(job.out) as draft:
        final = save_trained(trained, draft, job.settings)
        sealed = artifact.write_manifest(draft, spec=final)
        before = job.open_base()
        proof = job.proof(before, open_encoder(draft, backend="torch", device=job.settings.device))
        report = job.report(space=sealed.space, base_space=before.space, proof=proof, **figures)
        write_report(draft, report)
        write_card(draft, report)
        artifact.write_manifest(draft)


@contextmanager
def _opened(run: Checkpoints) -> Iterator[None]:
    """Hold the folder of checkpoints; it goes with a finished run, and stays with an interrupted one."""
    if not ranks.is_main():
        yield
        return
    run.open()
    done = False
    try:
        yield
        done = True
    finally:
        run.close(done=done)
