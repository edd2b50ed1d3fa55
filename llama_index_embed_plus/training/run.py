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

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter, attaching_adapter
from llama_index_embed_plus.encoders.cached import CachedQueries
from llama_index_embed_plus.encoders.late import suited
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.errors import LeakError, MissingExtraError
from llama_index_embed_plus.evaluate.retrieval.held_out import write_held_out, write_trained
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models import hub as checkpoints
from llama_index_embed_plus.models.spec import EncoderSpec, space_of
from llama_index_embed_plus.training.adapter.run import AdapterReport, fit_adapter
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.data.splits import SAME, SplitSettings, as_questions, find_leaks, refuse_leaks
from llama_index_embed_plus.training.data.synthetic import is_synthetic, mixed
from llama_index_embed_plus.training.losses.catalogue import loss_spec
from llama_index_embed_plus.training.proof.crossfit import CrossFitted, Fit, cross_fit
from llama_index_embed_plus.training.proof.forgetting import General
from llama_index_embed_plus.training.proof.model_card import write_report
from llama_index_embed_plus.training.proof.proof import Proof, known_item_ids, prove
from llama_index_embed_plus.training.proof.report import Lineage, TrainReport, read_report
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.trainer.checkpoint import fingerprint
from llama_index_embed_plus.training.trainer.distributed import is_main_process, world_size
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, Example, HeldOut, Progress
from qdrant_tools.search.adapters import without_adapter

__all__ = ["Evidence", "planned_steps", "train"]


def train(
    base: str | Path,
    examples: Sequence[Example] | TrainingData | None,
    out: Path,
    settings: TrainSettings | None = None,
    *,
    held_out: HeldOut | Evidence | None = None,
    collection: Collection | None = None,
    keep_held_out: bool = False,
    progress: Progress | None = None,
) -> TrainReport:
    """Train `base` on `examples` and write an artifact, a sentence-transformers folder with a report, to `out`.

    examples: None: an adapter is made of the passages alone.
    held_out: queries that decide whether the result is better; training examples that know one are refused.
    collection: what a query adapter is fitted against, and what is searched for held-out queries without passages.
    keep_held_out: write these queries, which people typed, into `out` beside the model, where a promotion finds them,
        if they are searched for in the collection; and what was trained on, by which a later proof on other queries
        knows whether they are unseen. A copy of the model leaves both out.
    progress: called once per optimiser step, of an adapter after each of `AdapterSettings.fits` fits; `planned_steps`
        says how many steps there will be.

    Raises:
        UsageError: `out` holds something that is no artifact, or the folder beside it an interrupted run of other
            settings, data or base; data of another shape than the loss wants; a setting that this base or device
            cannot honour.
        LeakError: an example knows a held-out query. Synthetic ones that do are left out and counted instead, and with
            `drop_leaks` the others too.
        TrainingError: nothing to train on, a loss that is no number, no memory, or a checkpoint that cannot be written.
        MissingExtraError: LoRA or the whole encoder is to be trained, and the extra `train` is not installed.
    """
    out = Path(out)
    artifact.check_out(out)
    data = examples if isinstance(examples, TrainingData) else TrainingData.of(examples or ())
    if examples is None and (settings or TrainSettings()).method != "adapter":
        raise UsageError("nothing says what to train on: give examples; only an adapter can do without")
    job = TrainingJob(
        # the model card is published: of a local path only the last part goes into it
        base=Path(base).name if Path(base).exists() else str(base),
        folder=checkpoints.resolve(base),
        data=data,
        out=out,
        settings=settings or TrainSettings(),
        evidence=Evidence(held_out) if isinstance(held_out, HeldOut) else held_out,
        collection=collection,
        with_synthetic=any(map(is_synthetic, data.rows)),
        keep_held_out=keep_held_out,
        labelled=examples is not None,
    )
    # every process trains on the same rows: where some are left out, each finds them
    if is_main_process() or job.with_synthetic or job.settings.drop_leaks:
        job = job.without_leaks()
    job = job.mixed()
    if job.settings.cross_fit and job.evidence is not None:
        raise UsageError("cross_fit lets the examples decide, and held-out queries are given: leave one of them out")
    if job.settings.method == "adapter":
        return _fit_adapter(job, progress)
    try:
        from llama_index_embed_plus.training.weights import train_weights
    except ImportError as error:
        raise MissingExtraError(f"method {job.settings.method!r}", extra="train") from error
    return train_weights(job, progress)


def planned_steps(examples: Sequence[Example] | TrainingData, settings: TrainSettings) -> int:
    """Return about how many optimiser steps `train` will take; contradicting rows may make it a few more."""
    rows = examples.rows if isinstance(examples, TrainingData) else examples
    count = sum(len(row.positives) if isinstance(row, Example) else 1 for row in rows)
    return settings.epochs * max(1, -(-count // (settings.batch_size * settings.accumulation)))


def _fit_adapter(job: TrainingJob, progress: Progress | None) -> TrainReport:
    if job.collection is None:
        raise UsageError("method 'adapter' is fitted against stored vectors: give the collection")
    started, before, collection = time.perf_counter(), job.open_base(), job.collection
    job = job.with_one_seed()
    settings = job.settings.adapter
    settings = replace(settings, answers_apart=settings.answers_apart and job.settings.passages_apart)
    # all fits ask for the same queries and pseudo-queries
    asked, known_items = CachedQueries(without_adapter(before)), job.known_items()
    fits: list[tuple[QueryAdapter, AdapterReport]] = []

    def fit(examples: Sequence[Example] | None, hidden: frozenset[str] = frozenset()) -> AdaptedEncoder:
        fitted = fit_adapter(
            collection, examples, asked, settings, known_items=known_items, hidden=hidden, progress=progress
        )
        fits.append(fitted)
        return AdaptedEncoder(before, fitted[0])

    examples = job.data.examples if job.labelled else None
    after: Encoder = job.cross_fitted(before, fit) if job.settings.cross_fit else fit(examples)
    adapter, fitted = fits[0]  # on all examples; those without a fold are for the proof alone
    # before anything is written: a kill meanwhile leaves nothing behind
    proof = job.proof(before, after, seen=fitted.pseudo)
    with attaching_adapter(job.folder, adapter, job.out) as draft:
        report = job.report(
            space=before.space,
            base_space=before.space,
            base_build=before.build,
            data={**job.counts, "rows": fitted.train_pairs, "skipped": fitted.skipped_examples},
            losses=fitted.losses,
            proof=proof,
            notes=tuple(_notes(fitted)),
            seconds=time.perf_counter() - started,
        )
        write_report(draft, report)
        job.write_held_out(draft)
    return report


def _notes(fitted: AdapterReport) -> Iterator[str]:
    """What the map is, and how that was chosen."""
    if fitted.validation is None:
        yield f"made without labels: {fitted.chosen}, of {len(fitted.pseudo)} pseudo-queries"
        return
    before, after = (fitted.candidates[name] for name in ("identity", fitted.chosen))
    yield (
        f"chosen of {len(fitted.candidates)} maps: {fitted.chosen}; of {fitted.validation_queries} queries, each by a "
        f"map that had not seen it, loss {before:.3f} -> {after:.3f}, {fitted.validation.figures}"
    )
    if fitted.chosen == "identity":
        yield (
            "no map is better than none by these examples, so the adapter changes nothing: many of their labels may be "
            "wrong; without examples one is made of the passages alone, and judged queries tell whether it helps"
        )
    elif fitted.chosen in ("whitened", "pseudo"):
        yield (
            "this map needs no examples, and by those given no other is surely better: more examples may teach more, "
            "and of clicks many may be wrong"
        )


_OF_LEAKS = ("passages_apart", "leak_similarity", "drop_leaks")
_MAY_DIFFER = ("report_to", "checkpoint_every", "device", "adapter", "proof", *_OF_LEAKS)
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
    leaked: int = 0
    """Synthetic rows that were left out because they know a held-out query."""
    with_synthetic: bool = False
    """Whether there were synthetic rows among those given."""
    dropped: int = 0
    """Other rows that were left out for that, where `TrainSettings.drop_leaks` allows it."""
    keep_held_out: bool = False
    labelled: bool = True
    """Whether there are examples, be it none; an adapter may do without."""

    @property
    def counts(self) -> dict[str, int]:
        """How many examples, positives and negatives there are to train on."""
        counted = {"examples": len(self.data), "left_out": self.data.left_out}
        examples = [row for row in self.data.rows if isinstance(row, Example)]
        if examples:
            counted["positives"] = sum(len(example.positives) for example in examples)
            counted["negatives"] = sum(len(example.negatives) for example in examples)
        if self.with_synthetic:
            synthetic = sum(map(is_synthetic, self.data.rows))
            counted |= {"real": len(self.data) - synthetic, "synthetic": synthetic, "synthetic_leaks": self.leaked}
        return counted | ({"leaks": self.dropped} if self.dropped else {})

    def open_base(self) -> TextEncoder:
        """The base, with late chunking if that filled the collection. Under an adapter any build of its space will do;
        weights in training are compared with the same in torch."""
        by_torch = self.settings.method != "adapter" or self.settings.device is not None
        base = open_encoder(self.folder, backend="torch" if by_torch else "auto", device=self.settings.device)
        return base if self.collection is None else suited(base, self.collection.space)

    def without_leaks(self) -> TrainingJob:
        """The job without the synthetic rows that know a held-out query.

        Raises:
            LeakError: another row does, and `drop_leaks` is off; or nothing is left.
        """
        if self.evidence is None or not self.data.rows:
            return self
        questions, similarity = as_questions(self.data.rows), self.settings.leak_similarity
        leaks = find_leaks(
            questions,
            self.evidence.held_out,
            encoder=None if similarity is None else self.open_base(),
            similarity=similarity or SAME,
            passages=self.settings.passages_apart,
        )
        real = [leak for leak in leaks if not questions[leak.row].synthetic]
        if not self.settings.drop_leaks:
            refuse_leaks(real, len(questions))
        dropped = {leak.row for leak in leaks}
        rows = tuple(row for number, row in enumerate(self.data.rows) if number not in dropped)
        if not rows and real:
            raise LeakError(f"all {len(questions)} examples know held-out queries: hold others out (--heldout-share)")
        if not rows:
            raise LeakError(
                f"all {len(questions)} examples are synthetic and know held-out queries, or ask for their passages: "
                "make some from other passages, or allow questions about these with passages_apart=False "
                "(--shared-passages)"
            )
        known = len({leak.row for leak in real})
        return replace(self, data=replace(self.data, rows=rows), leaked=len(dropped) - known, dropped=known)

    def mixed(self) -> TrainingJob:
        """The job with real and synthetic rows in the proportion of the settings."""
        settings = self.settings
        weighted = settings.method == "adapter" or loss_spec(settings.loss).weighted
        return replace(self, data=mixed(self.data, settings.synthetic_weight, weighted=weighted, seed=settings.seed))

    def identity(self, spec: EncoderSpec) -> dict[str, Any]:
        """What must be equal for an interrupted run to go on."""
        rows = (asdict(row) if is_dataclass(row) else row for row in self.data.rows)
        kept = {name: value for name, value in self.settings.as_dict().items() if name not in _MAY_DIFFER}
        base = space_of(self.folder, spec)
        return {"base": base, "data": fingerprint(rows), "devices": world_size(), "settings": kept}

    def with_one_seed(self) -> TrainingJob:
        """The job with a fit that draws by the seed of the run, if it has no other."""
        seed = self.settings.adapter.seed or self.settings.seed
        return replace(self, settings=replace(self.settings, adapter=replace(self.settings.adapter, seed=seed)))

    @property
    def judged(self) -> HeldOut | None:
        """The queries that the proof is made on; by cross-fitting those of the examples."""
        if self.settings.cross_fit:
            return HeldOut.of_examples([row for row in self.data.rows if isinstance(row, Example)])
        return None if self.evidence is None else self.evidence.held_out

    @property
    def positives(self) -> set[str]:
        return {positive.id for row in self.data.rows if isinstance(row, Example) for positive in row.positives}

    def known_items(self) -> frozenset[str] | None:
        """The passages whose beginnings the proof will ask for; None if none is made now."""
        judged, settings = self.judged, self.settings.proof
        if judged is None:
            return None
        if self.evidence is not None and self.evidence.general is not None:
            return frozenset()
        searched = None if judged.passages else self.collection
        return known_item_ids(judged, settings, collection=searched, trained=self.positives)

    def cross_fitted(self, before: Encoder, fit: Fit) -> CrossFitted:
        """What ranks every query of the examples without having seen it."""
        settings = self.settings
        same = SplitSettings(
            similarity=settings.leak_similarity or 1.0, by_passage=settings.passages_apart, seed=settings.seed
        )
        near = None if settings.leak_similarity is None else before
        return cross_fit(self.data.examples, fit, folds=settings.cross_fit, settings=same, encoder=near)

    def proof(self, before: Encoder, after: Encoder, *, seen: Sequence[str] = ()) -> Proof | None:
        """Measure both on the queries that decide, if there are any.

        seen: passages that were trained on beside the examples' positives.
        """
        judged = self.judged
        if judged is None:
            return None
        return prove(
            before,
            after,
            judged,
            self.settings.proof,
            general=None if self.evidence is None else self.evidence.general,
            collection=None if judged.passages else self.collection,
            trained={*seen, *self.positives},
        )

    def write_held_out(self, folder: Path) -> None:
        """Keep beside the model, if that was asked for, what was trained on, and the held-out queries if a collection
        holds their passages."""
        if not self.keep_held_out:
            return
        write_trained(folder, as_questions(self.data.rows))
        if self.evidence is not None and not self.evidence.held_out.passages:
            write_held_out(folder, self.evidence.held_out)

    def report(self, *, space: str, base_space: str, base_build: str = "torch-fp32", **figures: Any) -> TrainReport:
        """The report of this job; `figures` are the other fields of `TrainReport`."""
        earlier, refused = read_report(self.folder), artifact.refusal(self.folder)
        return TrainReport(
            method=self.settings.method,
            settings=_without_paths(self.settings.as_dict()),
            seed=self.settings.seed,
            lineage=Lineage(self.base, base_space, base_build, space, earlier.lineage.as_parents() if earlier else ()),
            versions=artifact.versions(),
            inherited=refused.reason[:_LONGEST_REASON] if refused is not None else "",
            inherited_synthetic=refused is not None and refused.only_synthetic,
            **figures,
        )


_LONGEST_REASON = 500
"""Of a base's verdict, which stands in a file that may be anybody's."""


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for a report, which is published: of a guide's or teacher's path only the last part."""
    options = settings["loss_options"]
    named = {key: Path(options[key]).name for key in ("guide", "teacher") if isinstance(options.get(key), str)}
    return {**settings, "loss_options": {**options, **named}}
