"""`embed-plus merge` and `embed-plus prove`: what comes after training.

Guarantees: nothing is written before everything asked for has been checked and measured. Does not know: how a model was
trained.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import note, print_json, say
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, Location, managed
from llama_index_embed_plus.cli.train import say_proof, summary_of
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_held_out
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.splits import as_questions, check_leak
from llama_index_embed_plus.training.merge import Choice, choose_coefficient, interpolate, interpolated
from llama_index_embed_plus.training.proof.model_card import record_proof
from llama_index_embed_plus.training.proof.proof import prove
from llama_index_embed_plus.training.proof.report import read_report
from qdrant_tools.errors import UsageError
from qdrant_tools.records import HeldOut

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def merge(
    base: Annotated[str, typer.Argument(help="The model that training started from, a name or a folder.")],
    tuned: Annotated[str, typer.Argument(help="What came of it, a folder.")],
    out: Annotated[Path, typer.Option(help="The folder to write the model between them to.")],
    coefficient: Annotated[
        float | None, typer.Option(help="0 is the base, 1 the tuned model. Without it, chosen on --queries.")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="Dev queries to choose by, .jsonl; needs --qrels.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgements; needs --queries.")] = None,
    collection: Annotated[str | None, typer.Option(help="Its passages are searched for the dev queries.")] = None,
    location: Location = DEFAULT_LOCATION,
    as_json: AsJson = False,
) -> None:
    """Average a model with the one it was trained from: old skills come back, most of the new ones stay."""
    by_queries = (queries, qrels, collection)
    complete, empty = None not in by_queries, by_queries == (None, None, None)
    if (coefficient is None) != complete or (coefficient is not None and not empty):
        raise UsageError("give either --coefficient, or --queries, --qrels and --collection to choose it by")
    choice = None
    if queries is not None and qrels is not None and collection is not None:
        choice = _choose(base, tuned, read_held_out(queries, qrels), collection, location)
        coefficient = choice.coefficient
        if coefficient == 0:
            raise UsageError(f"no mixture is better than {base!r} on the dev queries without forgetting: keep the base")
    assert coefficient is not None
    report = interpolate(base, tuned, coefficient, out)
    trials = choice.trials if choice is not None else ()
    if as_json:
        rows = [asdict(trial) for trial in trials]
        print_json({**summary_of(out, report), "coefficient": coefficient, "trials": rows})
        return
    for trial in trials:
        say(f"  {trial.coefficient:g}  {trial.change}{'' if trial.allowed else '  forgets too much'}")
    say(f"wrote {out}: {coefficient:g} of {tuned}, the rest of {base}")
    say("not measured yet: `embed-plus prove` does that, with queries that did not choose")


@app.command("prove")
def prove_command(
    model: Annotated[Path, typer.Argument(help="The trained model, a folder; the proof is written into it.")],
    base: Annotated[str, typer.Option(help="The model that it is to be better than: what it was trained from.")],
    queries: Annotated[Path, typer.Option(help="Queries that neither training nor a choice has seen, .jsonl.")],
    qrels: Annotated[Path, typer.Option(help="Their judgements, BEIR's TSV or TREC's.")],
    collection: Annotated[str, typer.Option(help="Its passages are searched.")],
    examples: Annotated[
        Path | None, typer.Option(help="What it was trained on: refused if that gives a query away.")
    ] = None,
    location: Location = DEFAULT_LOCATION,
    as_json: AsJson = False,
) -> None:
    """Measure a trained model on held-out queries, and write into it whether it may be promoted."""
    if read_report(model) is None:
        raise UsageError(f"{model} was not trained here: there is no report to put a proof into")
    before, after, held_out = open_encoder(base), open_encoder(model), read_held_out(queries, qrels)
    if examples is not None:
        check_leak(as_questions(read_training_data(examples).rows), held_out, encoder=before)
    with managed(location) as manager:
        proof = prove(before, after, held_out, collection=manager.open(collection, before))
        report = record_proof(model, proof)
    if as_json:
        print_json(summary_of(model, report))
        return
    say_proof(report)


def _choose(base: str, tuned: str, dev: HeldOut, collection: str, location: str) -> Choice:
    encoder = open_encoder(base)
    note("choose a coefficient on the dev queries")
    with managed(location) as manager, tempfile.TemporaryDirectory() as scratch:
        searched = manager.open(collection, encoder)
        return choose_coefficient(encoder, interpolated(base, tuned, Path(scratch)), dev, collection=searched)
