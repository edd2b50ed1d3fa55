"""The arguments of one call of `train`, resolved -> its data sets, its proof and its report.

Guarantees: what is measured is measured by exact search with the weights that were saved; a result made from a base
that was refused says so. Does not know: how training is done.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from llama_index_embed_plus import artifact
from llama_index_embed_plus.encoders import TextEncoder, open_encoder
from llama_index_embed_plus.spec import EncoderSpec, space_of
from llama_index_embed_plus.train import ranks
from llama_index_embed_plus.train.checkpoint import fingerprint
from llama_index_embed_plus.train.data import ColumnSettings, TrainingData, column_role, datasets_for
from llama_index_embed_plus.train.forgetting import General
from llama_index_embed_plus.train.heldout import Heldout
from llama_index_embed_plus.train.judge import cross_encoder_judge
from llama_index_embed_plus.train.losses import facts_of
from llama_index_embed_plus.train.proof import Proof, prove
from llama_index_embed_plus.train.report import Lineage, TrainReport, read_report
from llama_index_embed_plus.train.settings import TrainSettings
from llama_index_embed_plus.train.splits import SAME, as_questions, check_leak
from llama_index_embed_plus.train.unsupervised import NoiseSettings
from qdrant_tools.collection import Collection
from qdrant_tools.records import Encoder, Example

_MAY_DIFFER = ("report_to", "checkpoint_every", "device", "adapter", "proof", "passages_apart", "leak_similarity")
"""Settings that a run may be continued with otherwise: they do not change the weights."""


@dataclass(frozen=True)
class Evidence:
    """What decides about a trained encoder: held-out queries, and a general set on which it must not forget.

    general: a `SimilaritySet` or another `Heldout`; None: known items, drawn from the passages that are searched.
    """

    heldout: Heldout
    general: General | None = None


@dataclass(frozen=True)
class Job:
    """One call of `train`. `base` is what people call the model in `folder`."""

    base: str
    folder: Path
    data: TrainingData
    out: Path
    settings: TrainSettings
    evidence: Evidence | None
    collection: Collection | None

    @property
    def counts(self) -> dict[str, int]:
        """What was given to train on, counted."""
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
            check_leak(examples, self.evidence.heldout, encoder=encoder, similarity=similarity or SAME, passages=apart)

    def datasets(self) -> DatasetDict:
        """The columns that the loss reads. Raises UsageError for data of another shape, TrainingError for none."""
        options, noise = self.settings.loss_options, NoiseSettings(seed=self.settings.seed)
        named = facts_of(self.settings.loss).shape == "distillation" and options.get("teacher")
        teacher = cross_encoder_judge(str(options["teacher"]), threshold=0.0).score if named else None
        return datasets_for(self.settings.loss, self.data, ColumnSettings(self.settings.negatives, teacher, noise))

    def identity(self, spec: EncoderSpec) -> dict[str, Any]:
        """What must be equal for an interrupted run to go on."""
        rows = (asdict(row) if is_dataclass(row) else row for row in self.data.rows)
        kept = {name: value for name, value in self.settings.as_dict().items() if name not in _MAY_DIFFER}
        base = space_of(self.folder, spec)
        return {"base": base, "data": fingerprint(rows), "devices": ranks.count(), "settings": kept}

    def proof(self, before: Encoder, after: Encoder) -> Proof | None:
        """Measure both on the held-out queries, if there are any."""
        if self.evidence is None:
            return None
        rows = [row for row in self.data.rows if isinstance(row, Example)]
        return prove(
            before,
            after,
            self.evidence.heldout,
            self.settings.proof,
            general=self.evidence.general,
            collection=None if self.evidence.heldout.passages else self.collection,
            trained={positive.id for example in rows for positive in example.positives},
        )

    def report(self, *, space: str, base_space: str, **figures: Any) -> TrainReport:
        """The report of this job; `figures` are the other fields of `TrainReport`."""
        earlier = read_report(self.folder)
        return TrainReport(
            method=self.settings.method,
            settings=self.settings.as_dict(),
            seed=self.settings.seed,
            lineage=Lineage(
                self.base, base_space, "torch-fp32", space, earlier.lineage.as_parents() if earlier else ()
            ),
            versions=artifact.versions(),
            inherited=artifact.refusal(self.folder) or "",
            **figures,
        )


def prompts_of(spec: EncoderSpec, datasets: DatasetDict) -> dict[str, str]:
    """Column -> the prompt that inference puts before such a text; none where that is empty."""
    prompts = {"query": spec.query_prompt, "passage": spec.passage_prompt}
    columns = {column for dataset in datasets.values() for column in dataset.column_names if column != "label"}
    found = {column: prompts[column_role(column)] for column in sorted(columns)}
    return {column: prompt for column, prompt in found.items() if prompt}
