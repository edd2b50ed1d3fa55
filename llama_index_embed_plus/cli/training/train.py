"""`embed-plus train`: examples and a model -> a trained model, and whether it is better.

Guarantees: options, files and what may be overwritten are checked before a model is opened. Does not know: how a model
is trained.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llama_index_embed_plus.cli.console import changing_line, interrupted, is_terminal, note, print_json, resumable, say
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    DrawnBesideOut,
    Location,
    Model,
    draws,
    managed,
    opened_with,
)
from llama_index_embed_plus.cli.training.options import (
    AsJson,
    ExampleFile,
    ExamplesKind,
    Ignored,
    PassagesOfExamples,
    RelevantFrom,
    Split,
    Texts,
)
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, HeldOut
from qdrant_tools.statistics import FEW

if TYPE_CHECKING:  # needs the extra `train`: loaded by the commands, so that their help does not wait for it
    from llama_index_embed_plus.training.data.records import TrainingData
    from llama_index_embed_plus.training.proof.report import TrainReport
    from llama_index_embed_plus.training.settings import TrainSettings
    from llama_index_embed_plus.training.trainer.progress import Meter

app = typer.Typer()

Method = Literal["adapter", "lora", "full"]

_BESIDE_A_RECIPE = {"out", "model", "recipe", "plot", "as_json"}
"""Options that may be given with a recipe, which says all the others."""
_OF_ADAPTERS = {"learning_rate", "seed"}
"""Options on training that an adapter has too."""


@app.command("train")
def train_command(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder to write the model to.")],
    collection: Annotated[
        str | None, typer.Argument(help="An adapter is fitted to its vectors; held-out queries search its passages.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="What to train on: the file that `mine` wrote, or pairs, triplets, NLI, ... Without it, an adapter is "
            "made of the passages alone."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Stages to train in order, .toml, instead of the options on training.")
    ] = None,
    examples_kind: ExamplesKind = None,
    relevant_from: RelevantFrom = None,
    split: Split = None,
    ignore: Ignored = None,
    passages: PassagesOfExamples = None,
    method: Annotated[
        Method,
        typer.Option(
            help="What is trained: a map on query vectors (adapter), low-rank updates of the encoder (lora), or "
            "all of its weights (full)."
        ),
    ] = "adapter",
    location: Location = DEFAULT_LOCATION,
    queries: Annotated[
        Path | None, typer.Option(help="Held-out queries: .jsonl rows with an id and a text; needs --qrels.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgements, BEIR's TSV; needs --queries.")] = None,
    heldout_share: Annotated[
        float,
        typer.Option(
            help="The share of the examples that is held out instead, near-duplicate queries together; real ones "
            "if there are any."
        ),
    ] = 0.0,
    cross_fit: Annotated[
        int,
        typer.Option(
            help="For an adapter and few queries: part the examples into so many folds, and let every query decide, "
            "ranked by an adapter that was fitted without its fold; 5 is usual."
        ),
    ] = 0,
    synthetic_weight: Annotated[
        float | None,
        typer.Option(help="How much a synthetic example counts beside real ones, 0.5 if not given; 0 leaves them out."),
    ] = None,
    shared_passages: Annotated[
        bool, typer.Option(help="Let held-out queries ask for passages that are trained on.")
    ] = False,
    drop_leaks: Annotated[
        bool,
        typer.Option("--drop-leaks", help="Leave out the examples that give held-out queries away, and count them."),
    ] = False,
    loss: Annotated[
        str | None, typer.Option(help="The loss of lora and full, by its name; without it, what suits the examples.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="How often the examples are gone through, for lora and full; 1 if not given.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="How many rows are trained on at a time, for lora and full: their passages are each other's "
            "negatives; 32 if not given."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The learning rate; without it, what suits method and loss.")
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(help="The most mined negatives of a row, for lora and full; 3 if not given.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="The number of tokens at which training texts are cut, for lora and full; 128 if not given."),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(help="How many steps lie between two checkpoints, for lora and full; 200 if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of what is drawn: the same seed gives the same result.")] = 0,
    texts: Texts = False,
    plot: DrawnBesideOut = None,
    as_json: AsJson = False,
) -> None:
    """Train a query adapter, LoRA or the whole encoder, and say whether it is better. Can be interrupted."""
    drawn = draws(plot)
    if recipe is not None:
        _train_by_recipe(context, recipe, out, plot=drawn, as_json=as_json)
        return
    measured = _Measured(queries, qrels, heldout_share, collection, by_passage=not shared_passages, seed=seed)
    if cross_fit and (queries is not None or heldout_share):
        raise UsageError("--cross-fit lets all examples decide: leave out --heldout-share, --queries and --qrels")
    of_training = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "negatives": negatives,
        "max_tokens": max_tokens,
        "checkpoint_every": checkpoint_every,
        "loss": loss,
        "seed": seed,
    }
    common = _common(shared_passages=shared_passages, drop_leaks=drop_leaks, weight=synthetic_weight, texts=texts)
    if cross_fit:
        common["cross_fit"] = cross_fit
    settings = _settings(method, _given(of_training), common)
    if examples is None and method != "adapter":
        raise UsageError("nothing says what to train on: give --examples, or a --recipe")
    if examples is None and (heldout_share or cross_fit):
        raise UsageError("--heldout-share and --cross-fit prove by examples: give some, or --queries and --qrels")
    if examples is None and collection is None:
        raise UsageError("an adapter is made of stored passages: give the COLLECTION that holds them")
    _check_out(out, plot=drawn)
    # before the model, which takes longer to open
    data = ExampleFile(examples, examples_kind, relevant_from, split, ignore, passages).read() if examples else None
    report = _trained(model, data, out, settings, measured, location)
    _finish(out, report, collection, location, plot=drawn, as_json=as_json)


@dataclass(frozen=True)
class _Measured:
    """On which held-out queries a model is measured: those of two files, a share of the examples, or none.

    Without any the examples may decide themselves, by cross-fitting, which is a setting of the training.
    """

    queries: Path | None
    qrels: Path | None
    share: float
    collection: str | None
    by_passage: bool
    seed: int

    def __post_init__(self) -> None:
        if (self.queries is None) != (self.qrels is None):
            raise UsageError("--queries and --qrels go together: the first has the texts, the second the answers")
        if self.queries is not None and self.share:
            raise UsageError("--heldout-share holds examples out, --queries are held out already: give one of them")
        if not 0 <= self.share < 1:
            raise UsageError(f"--heldout-share is {self.share}, expected a share from 0 up to, not including, 1")

    def held_out(self, data: TrainingData | None, encoder: Encoder) -> tuple[TrainingData | None, HeldOut | None]:
        """The rows that are left to train on, and the queries."""
        if (self.queries is not None or self.share) and self.collection is None:
            raise UsageError("held-out queries need passages to search: give the COLLECTION that holds them")
        if self.queries is not None and self.qrels is not None:
            return data, read_held_out_files(self.queries, self.qrels)
        return self._drawn(data, encoder) if self.share and data is not None else (data, None)

    def _drawn(self, data: TrainingData, encoder: Encoder) -> tuple[TrainingData, HeldOut]:
        from llama_index_embed_plus.training.data.splits import SplitSettings
        from llama_index_embed_plus.training.data.synthetic import hold_out

        by = SplitSettings(dev=0.0, test=self.share, seed=self.seed, by_passage=self.by_passage)
        train, held_out = hold_out(data.examples, by, encoder=encoder)
        if held_out.synthetic:
            note("no real queries to hold out: synthetic ones decide, and what they prove is labelled so")
        return replace(data, rows=train), held_out


def _trained(
    model: str, data: TrainingData | None, out: Path, settings: TrainSettings, measured: _Measured, location: str
) -> TrainReport:
    """Open what training needs, and train.

    Raises:
        UsageError: the method or the held-out queries need a collection or examples, and there are none.
    """
    if data is not None and (settings.method == "adapter" or measured.share):
        _ = data.examples  # raises if they are none
    encoder = open_encoder(model)
    encoder.quiet = True
    data, held_out = measured.held_out(data, encoder)
    if settings.method == "adapter" and measured.share and held_out is not None and len(held_out.measured) < FEW:
        note(
            f"{len(held_out.measured)} queries decide; --cross-fit 5 instead of --heldout-share lets all of them decide"
        )
    name = measured.collection
    if name is None and settings.method == "adapter":
        raise UsageError("an adapter is fitted against stored vectors: give the COLLECTION that holds them")
    with nullcontext() if name is None else managed(location) as manager:
        docs = None if name is None or manager is None else opened_with(manager, name, encoder)[0]
        return _train(model, data, out, settings, held_out, docs)


def _train(
    base: str,
    data: TrainingData | None,
    out: Path,
    settings: TrainSettings,
    held_out: HeldOut | None,
    collection: Collection | None,
) -> TrainReport:
    """Train with one line that says how far it is; Ctrl-C ends with a line that says how to go on."""
    from llama_index_embed_plus.training.run import planned_steps, train

    method = settings.method
    # an adapter counts fits
    fits = (settings.cross_fit + 1) * settings.adapter.fits
    steps = fits if method == "adapter" or data is None else planned_steps(data, settings)
    try:
        with _metered(f"train {method}", steps) as meter:
            return train(
                base, data, out, settings, held_out=held_out, collection=collection, keep_held_out=True, progress=meter
            )
    except KeyboardInterrupt:
        interrupted(_interrupted(method, out))


def _is_on_the_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    # by its name: the enum belongs to the copy of click inside typer
    return source is not None and source.name == "COMMANDLINE"


def _train_by_recipe(context: typer.Context, recipe: Path, out: Path, *, plot: bool, as_json: bool) -> None:
    """Run the stages of a recipe and print. Ctrl-C keeps the stages that are done and a checkpoint of the one at work.

    Raises:
        UsageError: an option that the recipe has to say.
    """
    from llama_index_embed_plus.training.recipe import read_recipe

    given = {name for name in context.params if _is_on_the_command_line(context, name)}
    if of_the_recipe := given - _BESIDE_A_RECIPE:
        raise UsageError(f"{_listed(of_the_recipe)} cannot be given with a recipe: write it into {recipe}")
    base = context.params["model"] if "model" in given else None  # a recipe names its own
    stages = read_recipe(recipe)
    _check_out(out, plot=plot)
    # only now: it brings torch, and a wrong recipe need not wait for that
    from llama_index_embed_plus.training.stages import recipe_steps, run_recipe

    with (
        resumable("the stages that are done are kept; run the same command again to go on"),
        _metered(f"train by {recipe.name}", recipe_steps(stages)) as meter,
    ):
        report = run_recipe(stages, out, base=base, progress=meter, announce=note)
    _finish(out, report, None, DEFAULT_LOCATION, plot=plot, as_json=as_json)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _common(*, shared_passages: bool, drop_leaks: bool, weight: float | None, texts: bool) -> dict[str, Any]:
    """The settings of every method."""
    from llama_index_embed_plus.training.proof.proof import ProofSettings

    leaks = {"passages_apart": not shared_passages, "drop_leaks": drop_leaks}
    return {**leaks, **_given({"synthetic_weight": weight}), "proof": ProofSettings(texts=texts)}


def _settings(method: Method, options: Mapping[str, Any], common: Mapping[str, Any]) -> TrainSettings:
    """The settings of the method, from the options that were given; the others have the library's defaults.

    Raises:
        UsageError: an option that means nothing to this method.
    """
    from llama_index_embed_plus.training.settings import AdapterSettings, TrainSettings

    if method != "adapter":
        return TrainSettings(method=method, **common, **options)
    _refuse(options.keys() - _OF_ADAPTERS, "adapter")
    return TrainSettings(method="adapter", seed=options["seed"], adapter=AdapterSettings(**options), **common)


def _refuse(names: set[str], method: str) -> None:
    if names:
        raise UsageError(
            f"{_listed(names)} means nothing to the method {method!r}: leave it out, or choose another --method"
        )


def _listed(options: set[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in sorted(options))


@contextmanager
def _metered(name: str, total: int) -> Iterator[Meter]:
    """One line that changes while training runs; in a log file, ten lines or so."""
    from llama_index_embed_plus.training.trainer.progress import Meter

    last_step = 0
    with changing_line(name) as change:

        def show(meter: Meter) -> None:
            nonlocal last_step
            change(meter.line())
            if not is_terminal() and meter.phase:
                note(f"{name}  {meter.line()}")
            elif not is_terminal() and meter.steps - last_step >= max(1, total // 10):
                last_step = meter.steps
                note(f"{name}  {meter.line()}")

        yield Meter(total, show=show)


def _interrupted(method: Method, out: Path) -> str:
    """What was kept, and how to go on."""
    from llama_index_embed_plus.training.trainer.checkpoint import Checkpoints, step_of

    if method == "adapter":
        return f"{out} was not written; run the same command again, an adapter takes seconds"
    # the folder where `train` keeps them; to look for the last one, the run's identity is not needed
    last = Checkpoints(out.parent / f".{out.name}-training", {}).latest()
    if last is None:
        return "before the first checkpoint; run the same command again to begin anew"
    return f"{step_of(last)} steps are kept in {last}; run the same command again to go on from there"


def _check_out(out: Path, *, plot: bool) -> None:
    """Raise `UsageError` if something else than a model, or a picture of something else, would be lost."""
    from llama_index_embed_plus.models import artifact

    artifact.check_out(out)
    picture = _picture_of(out)
    if plot and os.path.lexists(picture) and not artifact.is_artifact(out):
        raise UsageError(f"{picture} exists already and belongs to no model: give another --out, or --no-plot")


def _picture_of(out: Path) -> Path:
    return out.with_name(out.name + ".png")


def _finish(
    out: Path, report: TrainReport, collection: str | None, location: str, *, plot: bool, as_json: bool
) -> None:
    """Print what was trained and measured, and draw it then: what cannot be drawn loses no result."""
    from llama_index_embed_plus.cli.training.verdict import proportion, show_next, show_verdict, summary

    if as_json:
        print_json(summary(out, report))
    else:
        rows = report.data.get("rows", len(report.losses))
        say(f"wrote {out}: {report.method}, {rows} rows, {len(report.losses)} steps, {report.seconds:.1f} s")
        if "synthetic" in report.data:
            say(f"  {proportion(report)}")
        if leaks := report.data.get("leaks", 0):
            say(f"  {leaks} examples gave held-out queries away, and were left out")
        show_verdict(report)
    if plot:
        from llama_index_embed_plus.training.proof.plots import training_plot

        picture = _picture_of(out)
        training_plot(picture, report)
        if not as_json:
            say(f"wrote {picture}")
    if not as_json:
        show_next(report, out, collection, location)
