"""`embed-plus merge` and `embed-plus prove`: their options.

The bodies of `embed-plus merge` and `embed-plus prove`: open models and collection, measure, print.

Guarantees: nothing is written before everything asked for has been checked and measured. Does not know: how a model was
trained.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import DEFAULT_LOCATION, Location, err, say
from llama_index_embed_plus.cli.train import say_proof, summary_of
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.evaluate.retrieval.files import read_held_out
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.splits import as_questions, check_leak
from llama_index_embed_plus.training.merge import Choice, choose_coefficient, interpolate, interpolated
from llama_index_embed_plus.training.proof.model_card import record_proof
from llama_index_embed_plus.training.proof.proof import prove
from llama_index_embed_plus.training.proof.report import read_report
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
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

    merge_models(base, tuned, out, coefficient, Asked(queries, qrels, collection, location), as_json=as_json)


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

    prove_model(model, base, Asked(queries, qrels, collection, location), examples, as_json=as_json)


@dataclass(frozen=True)
class Asked:
    """The questions to measure by, and the collection that holds their answers."""

    queries: Path | None
    qrels: Path | None
    collection: str | None
    location: str

    @property
    def complete(self) -> bool:
        return None not in self._given

    @property
    def empty(self) -> bool:
        return self._given == (None, None, None)

    @property
    def _given(self) -> tuple[object, ...]:
        return self.queries, self.qrels, self.collection

    def held_out(self) -> HeldOut:
        assert self.queries is not None and self.qrels is not None
        return read_held_out(self.queries, self.qrels)

    @contextmanager
    def opened(self, encoder: TextEncoder) -> Iterator[Collection]:
        """The collection, which must hold vectors of `encoder`."""
        assert self.collection is not None
        with closing(connect(self.location, create=False)) as client:
            yield CollectionManager(client).open(self.collection, encoder)


def merge_models(base: str, tuned: str, out: Path, coefficient: float | None, asked: Asked, *, as_json: bool) -> None:
    """Write the model at `coefficient`, or at the one that the dev queries choose.

    Raises:
        UsageError: both or neither of a coefficient and dev queries, or no coefficient keeps what the base can do.
    """
    if (coefficient is None) != asked.complete or (coefficient is not None and not asked.empty):
        raise UsageError("give either --coefficient, or --queries, --qrels and --collection to choose it by")
    choice = None if coefficient is not None else _choose(base, tuned, asked)
    if choice is not None and choice.coefficient == 0:
        raise UsageError(f"no mixture is better than {base!r} on the dev queries without forgetting: keep the base")
    between = coefficient if choice is None else choice.coefficient
    assert between is not None
    report = interpolate(base, tuned, between, out)
    if as_json:
        trials = [] if choice is None else [asdict(trial) for trial in choice.trials]
        say(json.dumps({**summary_of(out, report), "coefficient": between, "trials": trials}, ensure_ascii=False))
        return
    for trial in () if choice is None else choice.trials:
        say(f"  {trial.coefficient:g}  {trial.change}{'' if trial.allowed else '  forgets too much'}")
    say(f"wrote {out}: {between:g} of {tuned}, the rest of {base}")
    say("not measured yet: `embed-plus prove` does that, with queries that did not choose")


def prove_model(model: Path, base: str, asked: Asked, examples: Path | None, *, as_json: bool) -> None:
    """Measure a model against its base, and write the proof into its report.

    Raises:
        LeakError: `examples`, what it was trained on, give a query away; then nothing is measured.
    """
    if read_report(model) is None:
        raise UsageError(f"{model} was not trained here: there is no report to put a proof into")
    before, after, held_out = open_encoder(base), open_encoder(model), asked.held_out()
    if examples is not None:
        check_leak(as_questions(read_training_data(examples).rows), held_out, encoder=before)
    with asked.opened(before) as collection:
        report = record_proof(model, prove(before, after, held_out, collection=collection))
    if as_json:
        say(json.dumps(summary_of(model, report), ensure_ascii=False))
        return
    say_proof(report)


def _choose(base: str, tuned: str, asked: Asked) -> Choice:
    dev, encoder = asked.held_out(), open_encoder(base)
    err.print("choose a coefficient on the dev queries", markup=False)
    with asked.opened(encoder) as collection, tempfile.TemporaryDirectory() as scratch:
        return choose_coefficient(encoder, interpolated(base, tuned, Path(scratch)), dev, collection=collection)
