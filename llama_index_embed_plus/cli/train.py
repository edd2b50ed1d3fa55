"""`embed-plus train`: its options.

The body of `embed-plus train`: read the examples, open the collection, train, print what came of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn

from llama_index_embed_plus.cli.console import DEFAULT_LOCATION, Location, err, say
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.evaluate.retrieval.files import read_held_out
from llama_index_embed_plus.training.adapter_data import AdapterSettings
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.data.splits import SplitSettings, split_queries
from llama_index_embed_plus.training.proof.report import TrainReport
from llama_index_embed_plus.training.recipe import read_recipe
from llama_index_embed_plus.training.run import planned_steps, train
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.stages import planned, run_recipe
from llama_index_embed_plus.training.trainer.checkpoint import Checkpoints, step_of
from llama_index_embed_plus.training.trainer.progress import Meter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError
from qdrant_tools.records import HeldOut

app = typer.Typer()

_WITH_A_RECIPE = ("out", "base", "recipe", "page", "as_json")


@app.command("train")
def train_command(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder to write the model to.")],
    base: Annotated[
        str | None, typer.Argument(help="The model to start from, a name or a folder; a recipe may name it.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="What to train on: the file that `mine` wrote, or pairs, triplets, NLI, ...")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Stages to train in order, .toml, instead of the options on training.")
    ] = None,
    method: Annotated[
        Literal["adapter", "lora", "full"],
        typer.Option(help="A map on query vectors, low-rank updates of the encoder, or all of its weights."),
    ] = "adapter",
    collection: Annotated[str | None, typer.Option(help="Fits the adapter; is searched for held-out queries.")] = None,
    location: Location = DEFAULT_LOCATION,
    queries: Annotated[Path | None, typer.Option(help="Held-out queries, .jsonl; needs --qrels.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgements, BEIR's TSV; needs --queries.")] = None,
    heldout_share: Annotated[
        float, typer.Option(help="Or hold this share of the examples out, near-duplicate queries together.")
    ] = 0.0,
    shared_passages: Annotated[
        bool, typer.Option(help="Let held-out queries ask for passages that are trained on.")
    ] = False,
    kind: Annotated[
        Literal["full", "low_rank", "orthogonal", "mlp"], typer.Option(help="Of the adapter; see docs/training.md.")
    ] = "full",
    width: Annotated[int, typer.Option(help="Rank of a low_rank adapter, hidden units of an mlp.")] = 32,
    loss: Annotated[str | None, typer.Option(help="Of lora and full, by name; see docs/training.md.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the examples; of an adapter, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows whose passages are each other's negatives.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="By default what suits the method.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Mined negatives per row, at most (lora, full).")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Training texts are cut there (lora, full).")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between two checkpoints (lora, full).")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    page: Annotated[bool, typer.Option(help="Draw OUT.png; needs the extra 'plot'.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a query adapter, LoRA or the whole encoder, and say whether it is better. Can be interrupted."""

    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "negatives": negatives,
        "max_tokens": max_tokens,
        "checkpoint_every": checkpoint_every,
        "loss": loss,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    adapter = {"kind": kind, "width": width}
    if recipe is not None:
        said = [name for name in context.params if _was_said(context, name) and name not in _WITH_A_RECIPE]
        train_by_recipe(recipe, out, base, said, page=page, as_json=as_json)
        return
    job = Job(
        base=base,
        examples=examples,
        out=out,
        method=method,
        given={**given, "seed": seed},
        adapter=adapter,
        collection=collection,
        location=location,
        question=Question(queries, qrels, heldout_share, shared_passages),
    )
    run_training(job, page=page, as_json=as_json)


def _was_said(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line, be it its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


Method = Literal["adapter", "lora", "full"]
_OF_ADAPTERS = {"epochs": "max_epochs", "batch_size": "batch_size", "learning_rate": "learning_rate", "seed": "seed"}
_OF_ADAPTERS_ONLY = AdapterSettings()


@dataclass(frozen=True)
class Question:
    """How the result is measured: on held-out queries from files, or on a share of the examples."""

    queries: Path | None = None
    qrels: Path | None = None
    share: float = 0.0
    shared_passages: bool = False
    """Whether a passage that answers a held-out query may be trained on."""

    def __post_init__(self) -> None:
        if (self.queries is None) != (self.qrels is None):
            raise UsageError("--queries and --qrels go together: the first has the texts, the second the answers")
        if self.queries is not None and self.share:
            raise UsageError("--heldout-share holds examples out, --queries are held out already: give one of them")
        if not 0 <= self.share < 1:
            raise UsageError(f"--heldout-share is {self.share}, expected a share from 0 up to, not including, 1")


@dataclass(frozen=True)
class Job:
    """What the options say. `given`: settings that were asked for; the others are the library's defaults."""

    base: str | None
    examples: Path | None
    out: Path
    method: Method
    given: Mapping[str, Any]
    adapter: Mapping[str, Any]
    collection: str | None
    location: str
    question: Question


def run_training(job: Job, *, page: bool, as_json: bool) -> None:
    """Train and print. Ctrl-C leaves a checkpoint, and the same command goes on from it."""
    settings = settings_of(job)
    if job.base is None or job.examples is None:
        raise UsageError("a model to start from and --examples are needed: give them, or a --recipe")
    encoder = open_encoder(job.base)
    encoder.quiet = True
    data, held_out = _data(job, job.examples, encoder)
    with _opened(job, encoder) as collection:
        try:
            with _metered(f"train {job.method}", _steps(data, settings)) as meter:
                report = train(
                    job.base,
                    data,
                    job.out,
                    settings,
                    held_out=held_out,
                    collection=collection,
                    progress=meter,
                )
        except KeyboardInterrupt:
            err.print(_interrupted(job), markup=False, soft_wrap=True)
            raise typer.Exit(130) from None
    _finish(job.out, report, page=page, as_json=as_json)


def train_by_recipe(
    recipe: Path, out: Path, base: str | None, said: Sequence[str], *, page: bool, as_json: bool
) -> None:
    """Run the stages of a recipe and print. Ctrl-C keeps the stages that are done and a checkpoint of the one at work.

    Raises:
        UsageError: an option that the recipe has to say.
    """
    if said:
        shown = ", ".join("--" + name.replace("_", "-") for name in sorted(said))
        raise UsageError(f"{shown} cannot be given with a recipe: write it into {recipe}")
    read = read_recipe(recipe)

    def announce(stage: str) -> None:
        err.print(stage, markup=False, soft_wrap=True)

    try:
        with _metered(f"train by {recipe.name}", planned(read)) as meter:
            report = run_recipe(read, out, base=base, progress=meter, announce=announce)
    except KeyboardInterrupt:
        kept = "the stages that are done are kept; run the same command again to go on"
        err.print(f"interrupted: {kept}", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    _finish(out, report, page=page, as_json=as_json)


def settings_of(job: Job) -> TrainSettings:
    """The settings of the method, from those that were asked for.

    Raises:
        UsageError: an option that means nothing to this method.
    """
    given = {**job.given, "passages_apart": not job.question.shared_passages}
    if job.method != "adapter":
        _refuse({name for name, value in job.adapter.items() if value != getattr(_OF_ADAPTERS_ONLY, name)}, job.method)
        return TrainSettings(method=job.method, **given)
    _refuse(job.given.keys() - _OF_ADAPTERS.keys(), "adapter")
    adapter = AdapterSettings(**job.adapter, **{_OF_ADAPTERS[name]: value for name, value in job.given.items()})
    return TrainSettings(method="adapter", seed=given["seed"], adapter=adapter, passages_apart=given["passages_apart"])


def _refuse(names: set[str], method: str) -> None:
    if names:
        shown = ", ".join("--" + name.replace("_", "-") for name in sorted(names))
        raise UsageError(f"{shown} means nothing to the method {method!r}: leave it out, or choose another --method")


def _steps(data: TrainingData, settings: TrainSettings) -> int:
    return settings.adapter.max_epochs if settings.method == "adapter" else planned_steps(data, settings)


def _data(job: Job, file: Path, encoder: TextEncoder) -> tuple[TrainingData, HeldOut | None]:
    """What to train on, and what to measure with."""
    data, asked = read_training_data(file), job.question
    measured = asked.queries is not None or asked.share > 0
    if measured and job.collection is None:
        raise UsageError("held-out queries need passages to search: give the --collection that holds them")
    if asked.queries is not None and asked.qrels is not None:
        return data, read_held_out(asked.queries, asked.qrels)
    if not measured:
        return data, None
    by = SplitSettings(dev=0.0, test=asked.share, seed=job.given["seed"], by_passage=not asked.shared_passages)
    split = split_queries(data.examples, by, encoder=encoder)
    return TrainingData.of(split.train), HeldOut.of_examples(split.test)


@contextmanager
def _opened(job: Job, encoder: TextEncoder) -> Iterator[Collection | None]:
    """The collection, checked: it must be there and hold vectors of the base."""
    if job.collection is None:
        if job.method == "adapter":
            raise UsageError("an adapter is fitted against stored vectors: give the --collection that holds them")
        yield None
        return
    with closing(connect(job.location, create=False)) as client:
        yield CollectionManager(client).open(job.collection, encoder)


@contextmanager
def _metered(name: str, total: int) -> Iterator[Meter]:
    """One line that changes while training runs; in a log file, ten lines or so."""
    started, told = time.perf_counter(), 0
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), console=err, transient=True,
        disable=not err.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(name)

        def show(meter: Meter) -> None:
            nonlocal told
            bar.update(task, description=f"{name}  {meter.line()}")
            if not err.is_terminal and meter.steps - told >= max(1, total // 10):
                told = meter.steps
                err.print(f"{name}  {meter.line()}", markup=False, soft_wrap=True)

        yield Meter(total, show=show)
    err.print(f"[green]done[/] {name} [dim]{time.perf_counter() - started:.1f} s[/]")


def _interrupted(job: Job) -> str:
    """What was kept, and how to go on."""
    if job.method == "adapter":
        return f"interrupted: {job.out} was not written; run the same command again, an adapter takes seconds"
    last = Checkpoints(job.out.parent / f".{job.out.name}-training", {}).latest()
    if last is None:
        return "interrupted before the first checkpoint: run the same command again to begin anew"
    return f"interrupted: {step_of(last)} steps are kept in {last}; run the same command again to go on from there"


def _finish(out: Path, report: TrainReport, *, page: bool, as_json: bool) -> None:
    picture = out.with_name(out.name + ".png")
    if page:
        from llama_index_embed_plus.training.proof.plots import training_page

        training_page(picture, report)
    if as_json:
        say(json.dumps(summary_of(out, report), ensure_ascii=False))
        return
    rows = report.data.get("rows", len(report.losses))
    say(f"wrote {out}: {report.method}, {rows} rows, {len(report.losses)} steps, {report.seconds:.1f} s")
    say_proof(report)
    if page:
        say(f"wrote {picture}")


def say_proof(report: TrainReport) -> None:
    """What was measured, what is to be known of it, and whether the model may be promoted."""
    for change in report.proof.changes if report.proof else ():
        say(f"  {change}")
    for note in report.notes:
        say(f"  note: {note}")
    say(f"{'may be promoted' if report.promotable else 'not to be promoted'}: {report.verdict}")


def summary_of(out: Path, report: TrainReport) -> dict[str, Any]:
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
        "changes": [asdict(change) for change in report.proof.changes] if report.proof else [],
        "notes": list(report.notes),
    }
