"""`embed-plus merge`: a tuned model and its base -> a model between them, by a coefficient or chosen on dev queries.

Guarantees: everything is checked and measured first, and the model is written only then. Does not know: how models are
averaged.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_embed_plus.cli.console import next_step, note, print_json, say
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, Location, command_of, managed
from llama_index_embed_plus.cli.training.options import AsJson, Base, Trained
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_held_out
from qdrant_tools.errors import UsageError
from qdrant_tools.records import HeldOut

if TYPE_CHECKING:  # needs the extra `train`
    from llama_index_embed_plus.training.merge import Choice

app = typer.Typer()


@app.command()
def merge(
    model: Trained,
    base: Base,
    out: Annotated[Path, typer.Option(help="The folder to write the model between them to.")],
    collection: Annotated[str | None, typer.Argument(help="Its passages are searched for the dev queries.")] = None,
    coefficient: Annotated[
        float | None,
        typer.Option(
            help="How much of the tuned model is taken: 0 is the base, 1 the tuned model. Without it, it is chosen "
            "on --queries."
        ),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Dev queries to choose by: .jsonl rows with an id and a text; needs --qrels.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgements, BEIR's TSV; needs --queries.")] = None,
    location: Location = DEFAULT_LOCATION,
    as_json: AsJson = False,
) -> None:
    """Average a model with the one it was trained from: old skills come back, most of the new ones stay."""
    from llama_index_embed_plus.cli.training.verdict import summary
    from llama_index_embed_plus.training.merge import interpolate

    by_queries = (queries, qrels, collection)
    complete, empty = None not in by_queries, by_queries == (None, None, None)
    if (coefficient is None) != complete or (coefficient is not None and not empty):
        raise UsageError("give either --coefficient, or a COLLECTION, --queries and --qrels to choose it by")
    choice = None
    if queries is not None and qrels is not None and collection is not None:
        choice = _choose(base, model, read_held_out(queries, qrels), collection, location)
        coefficient = choice.coefficient
        if coefficient == 0:
            raise UsageError(f"no mixture is better than {base!r} on the dev queries without forgetting: keep the base")
    assert coefficient is not None  # given, or chosen: the first check leaves nothing else
    report = interpolate(base, model, coefficient, out)
    trials = choice.trials if choice is not None else ()
    if as_json:
        rows = [asdict(trial) for trial in trials]
        print_json({**summary(out, report), "coefficient": coefficient, "trials": rows})
        return
    for trial in trials:
        say(f"  {trial.coefficient:g}  {trial.change}{'' if trial.allowed else '  forgets too much'}")
    say(f"wrote {out}: {coefficient:g} of {model}, the rest of {base}")
    say("not measured yet: `embed-plus prove` does that, with queries that did not choose")
    judged = ("--queries", "QUERIES.jsonl", "--qrels", "QRELS.tsv")
    prove = ("--model", out, "--base", base, *judged)
    next_step(command_of("prove", collection or "COLLECTION", *prove, location=location))


def _choose(base: str, tuned: str, dev: HeldOut, collection: str, location: str) -> Choice:
    from llama_index_embed_plus.training.merge import choose_coefficient, interpolated

    encoder = open_encoder(base)
    note("choose a coefficient on the dev queries")
    with managed(location) as manager, tempfile.TemporaryDirectory() as scratch:
        searched = manager.open(collection, encoder)
        return choose_coefficient(encoder, interpolated(base, tuned, Path(scratch)), dev, collection=searched)
