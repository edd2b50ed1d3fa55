"""An artifact and a proof that was made of it -> the artifact with that proof in its report and its card.

For what was trained or averaged without held-out queries at hand, or is to be measured again on others.

Guarantees: the artifact is replaced whole or not at all; a proof of other vectors is refused, and so is one against
another base than the report names. Does not know: how the proof was made.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from llama_index_embed_plus import artifact
from llama_index_embed_plus.errors import TrainingError, UsageError
from llama_index_embed_plus.train.card import write_card
from llama_index_embed_plus.train.proof import Proof
from llama_index_embed_plus.train.report import TrainReport, read_report, write_report


def record_proof(folder: Path, proof: Proof) -> TrainReport:
    """Put `proof` into the report of the artifact in `folder`, and return the report.

    Raises:
        UsageError: the artifact has no report, or the proof is about another model or against another base.
        TrainingError: the artifact cannot be written; it stays as it was.
    """
    manifest, report = artifact.verify(folder), read_report(folder)
    if report is None:
        raise UsageError(f"{folder} was not trained here: it has no {artifact.TRAIN_REPORT} to put a proof into")
    for name, proved, expected in (
        ("model", proof.after_space, manifest.space),
        ("base", proof.before_space, report.lineage.base_space),
    ):
        if proved != expected:
            raise UsageError(f"the proof has the {name} {proved}, the artifact {expected}: prove this artifact")
    report = replace(report, proof=proof)
    try:
        with artifact.written_whole(folder) as draft:
            shutil.copytree(folder, draft, dirs_exist_ok=True)
            write_report(draft, report)
            write_card(draft, report)
            artifact.write_manifest(draft)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error}): make room; it is as it was") from error
    return report
