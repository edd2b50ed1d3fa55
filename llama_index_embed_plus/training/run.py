"""Training examples + a base model -> an artifact and a report: a query adapter, LoRA, or the whole encoder.

The loop, the losses and the GradCache mini-batches are sentence-transformers'. Guarantees:

- The artifact appears whole or not at all.
- The same call after an interruption, `kill -9` included, goes on from the last checkpoint and ends as if nothing had
  happened. A seed fixes everything that is drawn.
- Prompts are put before texts exactly as at inference.
- With held-out queries the report says whether the result may take the base's place. They are measured by exact search,
  with the weights that were saved. Without them the report says that nothing was measured. A result whose base was
  refused is refused too.

Under `accelerate launch` or `torchrun` every process makes the same call. Each takes its part of every batch, negatives
are gathered across devices, and one process writes. Does not know: where the examples come from.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, attaching_adapter
from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models import hub as checkpoints
from llama_index_embed_plus.models.spec import EncoderSpec, read_spec, space_of
from llama_index_embed_plus.training.adapter import fit_adapter
from llama_index_embed_plus.training.data.columns import ColumnSettings, column_role, datasets_for
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.data.splits import SAME, as_questions, check_leak
from llama_index_embed_plus.training.data.unsupervised import NoiseSettings
from llama_index_embed_plus.training.losses.build import build_loss
from llama_index_embed_plus.training.losses.catalogue import LossOptions, loss_spec
from llama_index_embed_plus.training.proof.forgetting import General
from llama_index_embed_plus.training.proof.model_card import write_report
from llama_index_embed_plus.training.proof.proof import Proof, prove
from llama_index_embed_plus.training.proof.report import Lineage, TrainReport, read_report
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.trainer.batches import batch_sampler
from llama_index_embed_plus.training.trainer.checkpoint import Checkpoints, fingerprint
from llama_index_embed_plus.training.trainer.distributed import is_main_process, wait_for_all, world_size
from llama_index_embed_plus.training.trainer.evaluator import evaluation_callbacks
from llama_index_embed_plus.training.trainer.loop import fit
from llama_index_embed_plus.training.trainer.setup import (
    Trainable,
    arguments_of,
    device_of,
    open_trainable,
    save_trained,
)
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, Example, HeldOut, Progress

__all__ = ["Evidence", "planned_steps", "train"]


def train(
    base: str | Path,
    examples: Sequence[Example] | TrainingData,
    out: Path,
    settings: TrainSettings | None = None,
    *,
    held_out: HeldOut | Evidence | None = None,
    collection: Collection | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train `base` on `examples` and write an artifact, a sentence-transformers folder with a report, to `out`.

    held_out: queries that decide whether the result is better; training examples that know one are refused.
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
    job = TrainingJob(
        # the model card is published: of a local path only the last part goes into it
        base=Path(base).name if Path(base).exists() else str(base),
        folder=checkpoints.resolve(base),
        data=examples if isinstance(examples, TrainingData) else TrainingData.of(examples),
        out=out,
        settings=settings or TrainSettings(),
        evidence=Evidence(held_out) if isinstance(held_out, HeldOut) else held_out,
        collection=collection,
    )
    if is_main_process():
        job.check_leak()
    return _fit_adapter(job, progress) if job.settings.method == "adapter" else _train_weights(job, progress)


def planned_steps(examples: Sequence[Example] | TrainingData, settings: TrainSettings) -> int:
    """Return about how many optimiser steps `train` will take; contradicting rows may make it a few more."""
    rows = examples.rows if isinstance(examples, TrainingData) else examples
    count = sum(len(row.positives) if isinstance(row, Example) else 1 for row in rows)
    return settings.epochs * max(1, -(-count // (settings.batch_size * settings.accumulation)))


def _fit_adapter(job: TrainingJob, progress: Progress | None) -> TrainReport:
    if job.collection is None:
        raise UsageError("method 'adapter' is fitted against stored vectors: give the collection")
    started, before = time.perf_counter(), job.open_base()
    adapter, fitted = fit_adapter(job.collection, job.data.examples, before, job.settings.adapter, progress=progress)
    with attaching_adapter(job.folder, adapter, job.out) as draft:
        report = job.report(
            space=before.space,
            base_space=before.space,
            data={**job.counts, "rows": fitted.train_pairs, "skipped": fitted.skipped_examples},
            losses=fitted.losses,
            proof=job.proof(before, AdaptedEncoder(before, adapter)),
            seconds=time.perf_counter() - started,
        )
        write_report(draft, report)
    return report


def _train_weights(job: TrainingJob, progress: Progress | None) -> TrainReport:
    settings, datasets, spec = job.settings, job.datasets(), read_spec(job.folder)
    options = LossOptions.of(
        settings.loss,
        settings.loss_options,
        tokens_at_once=settings.tokens_at_once,
        gather_across_devices=world_size() > 1,
    )
    run = Checkpoints(job.out.parent / f".{job.out.name}-training", job.identity(spec))
    sampler = batch_sampler(settings.loss, known=job.data.positives_by_query(), ids=job.data.passage_ids())
    arguments = arguments_of(settings, run.folder, prompts_of(spec, datasets), batch_sampler=sampler)
    with _opened(run), tempfile.TemporaryDirectory(prefix=".embed-plus-", dir=job.out.parent) as copy:
        wait_for_all()  # until the main process has taken the folder of checkpoints
        if is_main_process():
            job.open_base()  # raises now what would else end a whole training: weights that its config does not fit
        trained = open_trainable(job.folder, Path(copy), settings, device=device_of(settings))
        # one module under every name: some losses bring weights of their own
        losses = dict.fromkeys(datasets, build_loss(settings.loss, trained.model, options))
        held_out = job.evidence.held_out if job.evidence and is_main_process() else None
        watched = evaluation_callbacks(trained.model, held_out, spec, progress, collection=job.collection)
        fitted = fit(trained.model, datasets, losses, arguments, checkpoints=run, progress=progress, callbacks=watched)
        if is_main_process():
            counts = {**job.counts, "rows": sum(map(len, datasets.values()))}
            _write(job, trained, data=counts, losses=fitted.losses, seconds=fitted.seconds, notes=fitted.notes)
    wait_for_all()
    report = read_report(job.out)
    assert report is not None  # written above, by this process or by the one that it waited for
    return report


def _write(job: TrainingJob, trained: Trainable, **figures: Any) -> None:
    """Save the model with its manifest, measure what was saved, and write the manifest again with the report."""
    with artifact.draft_folder(job.out) as draft:
        final = save_trained(trained, draft, job.settings)
        manifest = artifact.write_manifest(draft, spec=final, source=artifact.origin_of(job.folder))
        before = job.open_base()
        # opened from the folder, so that what is measured is what was saved
        proof = job.proof(before, open_encoder(draft, backend="torch", device=job.settings.device))
        report = job.report(space=manifest.space, base_space=before.space, proof=proof, **figures)
        write_report(draft, report)
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


_MAY_DIFFER = ("report_to", "checkpoint_every", "device", "adapter", "proof", "passages_apart", "leak_similarity")
"""Settings that may change before an interrupted run goes on: they do not change the weights."""


@dataclass(frozen=True)
class Evidence:
    """What a trained encoder is judged by: held-out queries, and a general set on which it must not forget.

    general: a `SimilaritySet` or another `HeldOut`; None: known items, drawn from the passages that are searched.
    """

    held_out: HeldOut
    general: General | None = None


@dataclass(frozen=True)
class TrainingJob:
    """One call of `train`, with its arguments resolved. `base` is what people call the model in `folder`."""

    base: str
    folder: Path
    data: TrainingData
    out: Path
    settings: TrainSettings
    evidence: Evidence | None
    collection: Collection | None

    @property
    def counts(self) -> dict[str, int]:
        """How many examples, positives and negatives there are to train on."""
        counted = {"examples": len(self.data), "left_out": self.data.left_out}
        examples = [row for row in self.data.rows if isinstance(row, Example)]
        if examples:
            counted["positives"] = sum(len(example.positives) for example in examples)
            counted["negatives"] = sum(len(example.negatives) for example in examples)
        return counted

    def open_base(self) -> TextEncoder:
        """The base as it is served by torch."""
        return open_encoder(self.folder, backend="torch", device=self.settings.device)

    def check_leak(self) -> None:
        """Raise LeakError if a row of training data knows a held-out query."""
        if self.evidence is not None and self.data.rows:
            examples = as_questions(self.data.rows)
            apart, similarity = self.settings.passages_apart, self.settings.leak_similarity
            encoder = None if similarity is None else self.open_base()
            check_leak(examples, self.evidence.held_out, encoder=encoder, similarity=similarity or SAME, passages=apart)

    def datasets(self) -> DatasetDict:
        """The columns that the loss reads. Raises UsageError for data of another shape, TrainingError for none."""
        options, noise = self.settings.loss_options, NoiseSettings(seed=self.settings.seed)
        named = loss_spec(self.settings.loss).shape == "distillation" and options.get("teacher")
        # `score` gives plain scores: the threshold is not used
        teacher = cross_encoder_judge(str(options["teacher"]), threshold=0.0).score if named else None
        return datasets_for(self.settings.loss, self.data, ColumnSettings(self.settings.negatives, teacher, noise))

    def identity(self, spec: EncoderSpec) -> dict[str, Any]:
        """What must be equal for an interrupted run to go on."""
        rows = (asdict(row) if is_dataclass(row) else row for row in self.data.rows)
        kept = {name: value for name, value in self.settings.as_dict().items() if name not in _MAY_DIFFER}
        base = space_of(self.folder, spec)
        return {"base": base, "data": fingerprint(rows), "devices": world_size(), "settings": kept}

    def proof(self, before: Encoder, after: Encoder) -> Proof | None:
        """Measure both on the held-out queries, if there are any."""
        if self.evidence is None:
            return None
        rows = [row for row in self.data.rows if isinstance(row, Example)]
        return prove(
            before,
            after,
            self.evidence.held_out,
            self.settings.proof,
            general=self.evidence.general,
            collection=None if self.evidence.held_out.passages else self.collection,
            trained={positive.id for example in rows for positive in example.positives},
        )

    def report(self, *, space: str, base_space: str, **figures: Any) -> TrainReport:
        """The report of this job; `figures` are the other fields of `TrainReport`."""
        earlier = read_report(self.folder)
        return TrainReport(
            method=self.settings.method,
            settings=_without_paths(self.settings.as_dict()),
            seed=self.settings.seed,
            lineage=Lineage(
                self.base, base_space, "torch-fp32", space, earlier.lineage.as_parents() if earlier else ()
            ),
            versions=artifact.versions(),
            inherited=(artifact.refusal(self.folder) or "")[:_LONGEST_REASON],
            **figures,
        )


_LONGEST_REASON = 500
"""Of a base's verdict, which stands in a file that may be anybody's."""


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for a report, which is published: of a guide's or teacher's path only the last part."""
    options = settings["loss_options"]
    named = {key: Path(options[key]).name for key in ("guide", "teacher") if isinstance(options.get(key), str)}
    return {**settings, "loss_options": {**options, **named}}


def prompts_of(spec: EncoderSpec, datasets: DatasetDict) -> dict[str, str]:
    """Column -> the prompt that inference puts before such a text; none where that is empty."""
    prompts = {"query": spec.query_prompt, "passage": spec.passage_prompt}
    columns = {column for dataset in datasets.values() for column in dataset.column_names if column != "label"}
    by_column = {column: prompts[column_role(column)] for column in sorted(columns)}
    return {column: prompt for column, prompt in by_column.items() if prompt}
