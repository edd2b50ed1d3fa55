"""A training report -> what a person reads: figures before and after, the verdict, and the commands that lead on.

Guarantees: a refusal is followed by commands; answers that are clicks are said to favour what ranked them. Does not
know: how anything was measured.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llama_index_embed_plus.cli.console import next_step, note, say
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION
from llama_index_embed_plus.training.proof.proof import Proof
from llama_index_embed_plus.training.proof.report import TrainReport
from qdrant_tools.records import ANSWERS, CLICKS, FEEDBACK


def show_verdict(report: TrainReport) -> None:
    """Print what was measured, what is to be known of it, and whether the model may be promoted."""
    for line in _figures(report.proof) if report.proof else ():
        say(f"  {line}")
    if report.proof and report.proof.procedure:
        say(f"  {report.proof.procedure}")
    for text in report.notes:
        say(f"  note: {text}")
    say(f"{'may be promoted' if report.promotable else 'not to be promoted'}: {report.verdict}")
    if report.only_synthetic:
        say("prove it on queries that people asked (embed-plus prove), or promote it with --accept-synthetic")


def show_next(report: TrainReport, model: Path, collection: str | None, location: str) -> None:
    """Print the ways on from a refusal, and the command that comes next."""
    where = _where(location)
    named = shlex.quote(collection or "COLLECTION")
    tuned = f"--model {shlex.quote(str(model))}"
    if report.promotable:
        next_step(f"promote run {named} {tuned}{where}")
        return
    if report.proof is not None and report.proof.needed is None and not (report.proof.wins or report.proof.losses):
        note("It ranks as its base does, so no judgement can tell the two apart: it learned nothing that holds")
        note("for queries that were left out of the fit. Give more examples, of a longer log or made of the documents;")
        note("or another --method (lora) or --seed.")
        next_step(f"synthesize {named}{where} --out more.jsonl")
        return
    for line in _ways(report, f"{named} {tuned}{where}{_base(report)}", _sheet_of(model)):
        note(line)
    if report.proof is None:
        next_step(f"prove {named} {tuned}{where}{_base(report)} --queries QUERIES.jsonl --qrels QRELS.tsv")
    elif not report.only_synthetic:
        next_step(f"prove {named} {tuned}{where}{_base(report)} --write-sheet {shlex.quote(_sheet_of(model))}")


def proportion(report: TrainReport) -> str:
    """How many of the examples were real, and how many synthetic."""
    data, weight = report.data, report.settings.get("synthetic_weight")
    counts = f" (each counts {weight:g})" if data["real"] and data["synthetic"] and weight else ""
    line = f"{data['real']} real and {data['synthetic']} synthetic examples{counts}"
    leaks = data.get("synthetic_leaks", 0)
    return (
        f"{line}; {leaks} synthetic ones know held-out queries or their passages, and were left out" if leaks else line
    )


def summary(out: Path, report: TrainReport) -> dict[str, Any]:
    """The figures of a report, without its curves and pictures: those are in `train_report.json`."""
    return {
        "out": str(out),
        "method": report.method,
        "space": report.lineage.space,
        "data": dict(report.data),
        "steps": len(report.losses),
        "last_loss": report.losses[-1] if report.losses else None,
        "seconds": round(report.seconds, 2),
        "promotable": report.promotable,
        "verdict": report.verdict,
        "proved_on": None
        if report.proof is None
        else "synthetic queries"
        if report.proof.synthetic
        else "real queries",
        "folds": report.proof.folds if report.proof else 0,
        "only_synthetic": report.only_synthetic,
        "changes": [asdict(change) for change in report.proof.changes] if report.proof else [],
        "notes": list(report.notes),
    }


def _figures(proof: Proof) -> Iterator[str]:
    for change in proof.changes:
        yield change.figures
    if proof.corrected is not None:
        yield f"{proof.corrected.figures}; clicks by how likely their rank was looked at: this decides"
    if proof.higher and proof.lower:
        (high, highs), (low, lows) = proof.higher, proof.lower
        yield f"of the judged passages that it ranks higher {high} of {highs} answer, of those lower {low} of {lows}"
    if proof.forgetting is not None:
        yield f"forgetting, by {proof.forgetting.items} {proof.forgetting.kind}: {proof.forgetting.change.figures}"


def _ways(report: TrainReport, named: str, sheet: str) -> Iterator[str]:
    proof = report.proof
    if proof is None or report.only_synthetic:
        return
    if proof.evidence in FEEDBACK:
        of = "labels rest on answers made of" if proof.evidence == ANSWERS else f"answers are {proof.evidence} on"
        yield (
            f"The {of} what a search had shown. They favour what ranked it, which is the base if the base served: a "
            "model that is better may be refused by them."
        )
        if proof.evidence == CLICKS and proof.corrected is None:
            yield (
                "They are not corrected for their ranks: the log does not tell how likely a rank is looked at, as "
                "hardly any passage was shown for one query at several ranks."
            )
    yield "Ways on:"
    if proof.needed is not None and proof.needed > proof.queries:
        yield f"  collect more: about {proof.needed} such queries show a gain of {proof.worth:.3f} four times in five"
    yield f"  judge a sample: embed-plus prove {named} --write-sheet {shlex.quote(sheet)} (--log and --examples: more)"
    yield (
        f"  or take other queries: embed-plus prove {named} --queries QUERIES.jsonl --qrels QRELS.tsv "
        "--examples EXAMPLES.jsonl"
    )


def _base(report: TrainReport) -> str:
    """An adapter's base is its own model; others have to be named."""
    return "" if report.method == "adapter" else f" --base {shlex.quote(report.lineage.base)}"


def _where(location: str) -> str:
    usual = os.environ.get("EMBED_PLUS_LOCATION", DEFAULT_LOCATION)
    return "" if location == usual else f" --location {shlex.quote(location)}"


def _sheet_of(model: Path) -> str:
    return str(model.with_name(model.name + "-sheet.csv"))
