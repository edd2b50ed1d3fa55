"""`embed-plus train`: examples and a model -> a trained model, and whether it is better.

Guarantees: options, files and what may be overwritten are checked before a model is opened. Does not know: how a model
is trained.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_index_embed_plus.cli.console import note, print_json, resumable, say
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
    BatchSize,
    CheckpointEvery,
    CrossFit,
    DropLeaks,
    Epochs,
    ExampleFile,
    Examples,
    ExamplesKind,
    HeldOutQrels,
    HeldOutQueries,
    HeldOutShare,
    Ignored,
    LearningRate,
    Loss,
    MaxTokens,
    Method,
    MethodOption,
    Negatives,
    Out,
    PassagesOfExamples,
    Recipe,
    RelevantFrom,
    Searched,
    Seed,
    SharedPassages,
    Split,
    SyntheticWeight,
    Texts,
)
from llama_index_embed_plus.cli.training.running import metered, run_training
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, HeldOut
from qdrant_tools.statistics import FEW

if TYPE_CHECKING:  # needs the extra `train`: loaded by the commands, so that their help does not wait for it
    from llama_index_embed_plus.training.data.records import TrainingData
    from llama_index_embed_plus.training.proof.report import TrainReport
    from llama_index_embed_plus.training.settings import TrainSettings

app = typer.Typer()

_BESIDE_A_RECIPE = {"out", "model", "recipe", "plot", "as_json"}
"""Options that may be given with a recipe, which says all the others."""
_OF_ADAPTERS = {"learning_rate", "seed"}
"""Options on training that an adapter has too."""


@app.command("train")
def train_command(
    context: typer.Context,
    out: Out,
    collection: Searched = None,
    model: Model = DEFAULT_MODEL,
    examples: Examples = None,
    recipe: Recipe = None,
    examples_kind: ExamplesKind = None,
    relevant_from: RelevantFrom = None,
    split: Split = None,
    ignore: Ignored = None,
    passages: PassagesOfExamples = None,
    method: MethodOption = "adapter",
    location: Location = DEFAULT_LOCATION,
    queries: HeldOutQueries = None,
    qrels: HeldOutQrels = None,
    heldout_share: HeldOutShare = 0.0,
    cross_fit: CrossFit = 0,
    synthetic_weight: SyntheticWeight = None,
    shared_passages: SharedPassages = False,
    drop_leaks: DropLeaks = False,
    loss: Loss = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    negatives: Negatives = None,
    max_tokens: MaxTokens = None,
    checkpoint_every: CheckpointEvery = None,
    seed: Seed = 0,
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
        return run_training(model, data, out, settings, held_out, docs)


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
        metered(f"train by {recipe.name}", recipe_steps(stages)) as meter,
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
