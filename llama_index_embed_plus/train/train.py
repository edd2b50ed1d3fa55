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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from llama_index_embed_plus import artifact, checkpoints
from llama_index_embed_plus.adapter import AdaptedEncoder, attached
from llama_index_embed_plus.encoders import TextEncoder, open_encoder
from llama_index_embed_plus.errors import TrainingError, UsageError
from llama_index_embed_plus.spec import EncoderSpec, read_spec, space_of
from llama_index_embed_plus.train import ranks
from llama_index_embed_plus.train.batches import are_all_alike, batch_sampler, rows_of
from llama_index_embed_plus.train.checkpoint import Checkpoints, fingerprint
from llama_index_embed_plus.train.examples import to_datasets
from llama_index_embed_plus.train.fit_adapter import fit_adapter
from llama_index_embed_plus.train.heldout import Heldout
from llama_index_embed_plus.train.loop import Losses, arguments_of, device_of, fit
from llama_index_embed_plus.train.losses import LossOptions, build_loss, facts_of
from llama_index_embed_plus.train.model import Trainable, open_trainable, save_trained
from llama_index_embed_plus.train.proof import Proof, prove
from llama_index_embed_plus.train.report import Lineage, TrainReport, read_report, write_report
from llama_index_embed_plus.train.settings import TrainSettings
from llama_index_embed_plus.train.splits import check_leak
from qdrant_tools.collection import Collection
from qdrant_tools.records import Encoder, Example, Progress

_MAY_DIFFER = ("report_to", "checkpoint_every", "device", "adapter", "proof", "passages_apart")
"""Settings that a run may be continued with otherwise: they do not change the weights."""


@dataclass(frozen=True)
class _Job:
    """One call of `train`, its arguments resolved."""

    base: str
    folder: Path
    examples: Sequence[Example]
    out: Path
    settings: TrainSettings
    heldout: Heldout | None
    collection: Collection | None

    @property
    def data(self) -> dict[str, int]:
        """What was given to train on, counted."""
        return {
            "examples": len(self.examples),
            "positives": sum(len(example.positives) for example in self.examples),
            "negatives": sum(len(example.negatives) for example in self.examples),
        }

    def open_base(self) -> TextEncoder:
        return open_encoder(self.folder, backend="torch", device=self.settings.device)

    def proof(self, before: Encoder, after: Encoder) -> Proof | None:
        """Measure both on the held-out queries, if there are any."""
        if self.heldout is None:
            return None
        trained = {positive.id for example in self.examples for positive in example.positives}
        collection = None if self.heldout.passages else self.collection
        return prove(before, after, self.heldout, self.settings.proof, collection=collection, trained=trained)

    def report(self, *, space: str, base_space: str, **figures: Any) -> TrainReport:
        """The report of this job; `figures` are the other fields of `TrainReport`."""
        earlier = read_report(self.folder)
        parents = (*earlier.lineage.parents, earlier.lineage) if earlier else ()
        return TrainReport(
            method=self.settings.method,
            settings=self.settings.as_dict(),
            seed=self.settings.seed,
            lineage=Lineage(self.base, base_space, "torch-fp32", space, parents),
            versions=artifact.versions(),
            **figures,
        )


def train(
    base: str | Path,
    examples: Sequence[Example],
    out: Path,
    settings: TrainSettings | None = None,
    *,
    heldout: Heldout | None = None,
    collection: Collection | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train `base` on `examples` and write an artifact, a sentence-transformers folder with a report, to `out`.

    heldout: queries that decide whether the result is better; training examples that know one are refused.
    collection: what a query adapter is fitted against, and what is searched for held-out queries without passages.
    progress: called once per optimiser step (adapter: epoch); `planned_steps` says how many there will be.

    Raises:
        UsageError: `out` holds something that is no artifact, or the folder beside it an interrupted run of other
            settings, data or base; a setting that this base or device cannot honour.
        LeakError: an example knows a held-out query.
        TrainingError: nothing to train on, a loss that is no number, no memory, or a checkpoint that cannot be written.
    """
    out = Path(out)
    artifact.check_out(out)
    name = Path(base).name if Path(base).exists() else str(base)
    job = _Job(name, checkpoints.resolve(base), examples, out, settings or TrainSettings(), heldout, collection)
    if heldout is not None and ranks.is_main():
        check_leak(examples, heldout, encoder=job.open_base(), passages=job.settings.passages_apart)
    if job.settings.method == "adapter":
        return _fit_adapter(job, progress)
    return _train_weights(job, progress)


def planned_steps(examples: Sequence[Example], settings: TrainSettings) -> int:
    """Return about how many optimiser steps `train` will take; the batch sampler may need a few more or less."""
    rows = sum(len(example.positives) for example in examples)
    return settings.epochs * max(1, -(-rows // (settings.batch_size * settings.accumulation)))


def prompts_of(spec: EncoderSpec) -> dict[str, str]:
    """Column name -> the prompt that inference puts before such a text."""
    by_column = {"anchor": spec.query_prompt, "positive": spec.passage_prompt, "negative": spec.passage_prompt}
    by_column |= {f"negative_{i}": spec.passage_prompt for i in range(1, 65)}
    return {column: prompt for column, prompt in by_column.items() if prompt}


def _fit_adapter(job: _Job, progress: Progress | None) -> TrainReport:
    if job.collection is None:
        raise UsageError("method 'adapter' is fitted against stored vectors: give the collection")
    started, before = time.perf_counter(), job.open_base()
    adapter, fitted = fit_adapter(job.collection, job.examples, before, job.settings.adapter, progress=progress)
    with attached(job.folder, adapter, job.out) as draft:
        report = job.report(
            space=before.space,
            base_space=before.space,
            data={**job.data, "rows": fitted.train_pairs, "skipped": fitted.skipped_examples},
            losses=fitted.losses,
            proof=job.proof(before, AdaptedEncoder(before, adapter)),
            seconds=time.perf_counter() - started,
        )
        write_report(draft, report)
    return report


def _train_weights(job: _Job, progress: Progress | None) -> TrainReport:
    datasets = _datasets(job)
    spec = read_spec(job.folder)
    run = Checkpoints(job.out.parent / f".{job.out.name}-training", _identity(job, spec, datasets))
    known, ids = _known(job)
    sampler = batch_sampler(job.settings.loss, known=known, ids=ids)
    arguments = arguments_of(job.settings, run.folder, prompts_of(spec), batch_sampler=sampler)
    with _opened(run), tempfile.TemporaryDirectory(prefix=".embed-plus-", dir=job.out.parent) as copy:
        ranks.wait()
        trained = open_trainable(job.folder, Path(copy), job.settings, device=device_of(job.settings))
        losses = _losses(trained, datasets, job.settings)
        fitted = fit(trained.model, datasets, losses, arguments, checkpoints=run, progress=progress)
        if ranks.is_main():
            data = {**job.data, "rows": sum(map(len, datasets.values()))}
            _write(job, trained, data=data, losses=fitted.losses, seconds=fitted.seconds, notes=fitted.notes)
    ranks.wait()
    report = read_report(job.out)
    assert report is not None  # written above, by this process or by the one that it waited for
    return report


def _write(job: _Job, trained: Trainable, **figures: Any) -> None:
    """Save the model, seal it, measure what was sealed, and seal it again with the report."""
    with artifact.written_whole(job.out) as draft:
        final = save_trained(trained, draft, job.settings)
        sealed = artifact.write_manifest(draft, spec=final)
        before = job.open_base()
        proof = job.proof(before, open_encoder(draft, backend="torch", device=job.settings.device))
        write_report(draft, job.report(space=sealed.space, base_space=before.space, proof=proof, **figures))
        artifact.write_manifest(draft)


def _datasets(job: _Job) -> DatasetDict:
    datasets = to_datasets(job.examples, negatives=job.settings.negatives)
    if not any(map(len, datasets.values())):
        raise TrainingError(f"none of the {len(job.examples)} examples has a positive: nothing to train on")
    if facts_of(job.settings.loss).in_batch and list(datasets) == ["negatives_0"]:
        _check_teachable(job, datasets["negatives_0"])
    return datasets


def _check_teachable(job: _Job, dataset: Dataset) -> None:
    """Refuse pairs that can be nobody's negatives: every loss would be zero, and look like success."""
    known, ids = _known(job)
    if len(dataset) == 1:
        raise TrainingError("no negatives: one example alone teaches nothing; mine negatives, or give more examples")
    if are_all_alike(rows_of(dataset, known=known, ids=ids)):
        raise TrainingError(
            f"all {len(dataset)} rows ask or answer the same, and there are no negatives: nothing to learn from; mine "
            "negatives, or give other queries too"
        )


def _losses(trained: Trainable, datasets: DatasetDict, settings: TrainSettings) -> Losses:
    run = {"tokens_at_once": settings.tokens_at_once, "gather_across_devices": ranks.count() > 1}
    options = LossOptions.of(settings.loss, settings.loss_options, **run)
    return dict.fromkeys(datasets, build_loss(settings.loss, trained.model, options))


def _known(job: _Job) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Query -> its positives in whatever data set; text -> passage id."""
    known: dict[str, set[str]] = {}
    ids: dict[str, str] = {}
    for example in job.examples:
        known.setdefault(example.query, set()).update(positive.text for positive in example.positives)
        ids.update((text.text, text.id) for text in (*example.positives, *example.negatives))
    return known, ids


def _identity(job: _Job, spec: EncoderSpec, datasets: DatasetDict) -> dict[str, Any]:
    """What must be equal for a run to go on."""
    rows = (row for name in sorted(datasets) for row in datasets[name])
    kept = {name: value for name, value in job.settings.as_dict().items() if name not in _MAY_DIFFER}
    return {"base": space_of(job.folder, spec), "data": fingerprint(rows), "devices": ranks.count(), "settings": kept}


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
