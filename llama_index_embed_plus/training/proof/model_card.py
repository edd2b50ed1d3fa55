"""A training report -> the model card, README.md, that people and the Hugging Face hub read; both written to a folder.

Front matter is what sentence-transformers writes: tags, `base_model`, and a `model-index` with the measured figures.
`record_proof` puts a proof that was made later into the report and the card of an artifact: for what was trained or
averaged without held-out queries at hand, or is to be measured again on others.

Guarantees: every figure comes from the report, and what was not measured is said not to be. Names of models and
settings, which strangers chose, are shown as they are and stand for nothing in Markdown, HTML or YAML (`markdown`). The
queries themselves are left out, since a card is published and they may be personal. An artifact is replaced whole or
not at all; a proof of other vectors, or against another base than the report names, is refused. Does not know:
licences, what the data means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.evaluate.retrieval.comparison import Change
from llama_index_embed_plus.evaluate.retrieval.held_out import trained_on, write_held_out, write_trained
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training.proof.forgetting import Forgetting
from llama_index_embed_plus.training.proof.markdown import code, plain, scalar, table
from llama_index_embed_plus.training.proof.proof import Proof
from llama_index_embed_plus.training.proof.report import Lineage, TrainReport, read_report, write_report_file
from qdrant_tools.errors import UsageError
from qdrant_tools.files.written import refuse_link
from qdrant_tools.records import HeldOut
from qdrant_tools.statistics import FEW

CARD = "README.md"
_GENERAL = {
    "similarity": "pairs of texts with a similarity score",
    "retrieval": "queries of another topic",
    "known items": "passages to be found again by their own first sentence",
}


def write_report(folder: Path, report: TrainReport) -> None:
    """Write `train_report.json` and `README.md` into a folder that has no manifest yet.

    `artifact.write_manifest` hashes both, so call it afterwards.
    """
    write_report_file(folder, report)
    (folder / CARD).write_text(model_card(report), "utf-8")


def model_card(report: TrainReport) -> str:
    """Return the model card as Markdown with YAML front matter."""
    base, space = code(report.lineage.base), plain(report.lineage.space or report.lineage.base_space)
    sections = [
        f"# {space}",
        f"A sentence-transformers model, made from {base} by the method {code(report.method)}: it maps a text to "
        "a vector for search by meaning.",
        "## Use",
        _usage(report),
        "## Figures",
        *_figures(report.proof),
        f"**Verdict:** {'may be promoted' if report.promotable else 'not to be promoted'}: {plain(report.verdict)}.",
        "## Data",
        table(("what", "how many"), report.data.items()) if report.data else "Not recorded.",
        "## Training",
        *_training(report),
        "## Lineage",
        _lineage(report.lineage),
    ]
    return f"---\n{_front_matter(report)}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(report: TrainReport) -> str:
    """YAML, every value as JSON, which YAML contains."""
    loss = report.settings.get("loss")
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense"]
    if "examples" in report.data:
        tags.append(f"dataset_size:{report.data['examples']}")
    if isinstance(loss, str):
        tags.append(f"loss:{loss}")
    rows: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "base_model": report.lineage.base,
        "tags": tags,
    }
    if report.proof is not None:
        task = {"type": "information-retrieval", "name": "Information Retrieval"}
        kind = "synthetic held-out" if report.proof.synthetic else "held-out"
        dataset = {"type": kind.replace(" ", "-"), "name": f"{report.proof.queries} {kind} queries"}
        metrics = [{"type": change.metric, "value": round(change.after, 4)} for change in report.proof.changes]
        name = report.lineage.space or report.lineage.base_space
        rows["model-index"] = [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    return "".join(f"{key}: {scalar(value)}\n" for key, value in rows.items())


def _usage(report: TrainReport) -> str:
    lines = ["from llama_index_embed_plus import open_encoder", 'encoder = open_encoder("this/folder")']
    if report.method == "adapter":
        lines.append("# Queries pass through the adapter; passages are those of the base, nothing is embedded anew.")
    else:
        lines += ["# or", "from sentence_transformers import SentenceTransformer"]
        lines.append('model = SentenceTransformer("this/folder")')
    return "```python\n" + "\n".join(lines) + "\n```"


def _figures(proof: Proof | None) -> Iterator[str]:
    if proof is None:
        yield "Not measured: no held-out queries were given. Nothing is known about whether this model is better."
        return
    of_all = f" of {proof.passages_in_all}" if proof.passages != proof.passages_in_all else ""
    if proof.synthetic:
        yield "**Measured on synthetic queries only**: nobody asked them, they were made from passages."
    held_out = "queries that were each held out of a fit" if proof.folds else "held-out queries"
    of_intervals = "by paired bootstrap" + (" and Student's t, the farther end of each" if proof.queries < FEW else "")
    yield (
        f"On {proof.queries} {'synthetic ' if proof.synthetic else ''}{held_out} over {proof.passages}{of_all} "
        f"passages, by exact search; 95 % intervals {of_intervals}."
    )
    if proof.procedure:
        yield f"{proof.procedure[0].upper()}{proof.procedure[1:]}."
    yield _changes(proof.changes)
    yield f"By nDCG@{proof.k}: {len(proof.wins)} queries better, {len(proof.losses)} worse, {proof.same} the same."
    if proof.unanswerable:
        yield f"{proof.unanswerable} held-out queries have no relevant passage and are not counted."
    yield from _forgetting(proof.forgetting)


def _forgetting(forgetting: Forgetting | None) -> Iterator[str]:
    if forgetting is None:
        yield "Forgetting was not measured."
        return
    yield f"Forgetting, measured on {forgetting.items} {_GENERAL[forgetting.kind]}:"
    yield _changes((forgetting.change,))
    if forgetting.trained:
        yield f"{forgetting.trained} of these passages were trained on."


def _changes(changes: Iterable[Change]) -> str:
    rows = (
        (change.metric, f"{change.before:.4f}", f"{change.after:.4f}", f"{change.difference:+.4f}", _interval(change))
        for change in changes
    )
    return table(("metric", "base", "this model", "difference", "95 % interval"), rows)


def _interval(change: Change) -> str:
    return f"{change.low:+.4f} to {change.high:+.4f}"


def _training(report: TrainReport) -> Iterator[str]:
    yield f"{len(report.losses)} steps in {report.seconds:.1f} seconds, seed {report.seed}."
    if report.losses:
        yield f"Loss: {report.losses[0]:.4f} at the first step, {report.losses[-1]:.4f} at the last."
    if report.settings:
        yield table(("setting", "value"), report.settings.items())
    if report.stages:
        rows = ((s.name, s.steps, f"{s.seconds:.1f}", _metrics(s.metrics)) for s in report.stages)
        yield table(("stage", "steps", "seconds", "measured after it"), rows)
    if report.notes:
        yield "\n".join(f"- {plain(note)}" for note in report.notes)
    if report.versions:
        yield "Made with " + ", ".join(plain(f"{name} {version}") for name, version in report.versions.items()) + "."


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "nothing"


def _lineage(lineage: Lineage) -> str:
    steps = [f"{code(step.base)} ({code(step.base_space)})" for step in (*lineage.parents, lineage)]
    return " → ".join([*steps, f"this model ({code(lineage.space or lineage.base_space)})"])


def record_proof(folder: Path, proof: Proof, *, held_out: HeldOut | None = None) -> TrainReport:
    """Put `proof` into the report of the artifact in `folder`, and return the report.

    held_out: the queries that it was measured on, to be kept beside the model; None: none are. Earlier ones go.

    Raises:
        UsageError: the artifact has no report, or is a link, or the proof is about another model or base.
        DamagedModelError: a file of it is not the one that was sealed, or is a link that leads out of it.
        TrainingError: the artifact cannot be written; it stays as it was.
    """
    refuse_link(folder, UsageError)  # what is replaced would be the link
    manifest, report = artifact.verify(folder), read_report(folder)
    if report is None:
        raise UsageError(f"{folder} was not trained here: it has no {artifact.TRAIN_REPORT} to put a proof into")
    for name, proved, expected in (
        ("model", proof.after_space, manifest.space),
        ("base", proof.before_space, report.lineage.base_space),
    ):
        if proved != expected:
            raise UsageError(f"the proof has the {name} {proved}, the artifact {expected}: prove this artifact")
    report, trained = replace(report, proof=proof), trained_on(folder)
    try:
        with artifact.draft_folder(folder) as draft:
            artifact.copy_artifact(folder, draft)
            # before the manifest, which hashes it
            write_report(draft, report)
            if held_out is not None and not held_out.passages:
                write_held_out(draft, held_out)
            if trained:
                write_trained(draft, trained)
            artifact.write_manifest(draft)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written ({error}): make room; it is as it was") from error
    return report
