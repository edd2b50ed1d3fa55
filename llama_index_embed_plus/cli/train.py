"""`embed-plus train`, `merge` and `prove`: examples and a model -> a trained model, and whether it is better.

Guarantees: `merge` and `prove` check and measure everything first, and write only then.
Does not know: how a model is trained.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from llama_index_embed_plus.cli.console import changing_line, interrupted, is_terminal, note, print_json, resumable, say
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, Location, managed
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_held_out
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, HeldOut

if TYPE_CHECKING:  # needs the extra `train`: loaded by the commands, so that their help does not wait for it
    from llama_index_embed_plus.training.data.records import TrainingData
    from llama_index_embed_plus.training.data.splits import SplitSettings
    from llama_index_embed_plus.training.merge import Choice
    from llama_index_embed_plus.training.proof.report import TrainReport
    from llama_index_embed_plus.training.settings import TrainSettings
    from llama_index_embed_plus.training.trainer.progress import Meter

app = typer.Typer()

Method = Literal["adapter", "lora", "full"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Texts = Annotated[
    bool, typer.Option(help="Keep the held-out queries' texts in the report, which is copied with the model.")
]

RelevantFrom = Annotated[
    float | None, typer.Option(help="Judged pairs: from which grade or score on a passage answers its query.")
]
Split = Annotated[str | None, typer.Option(help="Of examples with a column of splits, the one to read.")]
Ignored = Annotated[
    list[str] | None, typer.Option("--ignore", help="A field of the examples to leave unread; may be repeated.")
]
PassagesOfExamples = Annotated[
    Path | None, typer.Option("--passages", help="Id and text of passages, for examples that name them by their ids.")
]
ExamplesKind = Annotated[
    str | None,
    typer.Option(help="What the examples are (pairs, triplets, judged pairs, ...), where their fields do not tell."),
]

_BESIDE_A_RECIPE = {"out", "base", "recipe", "page", "as_json"}
"""Options that may be given with a recipe, which says all the others."""
_OF_ADAPTERS = {"epochs": "max_epochs", "batch_size": "batch_size", "learning_rate": "learning_rate", "seed": "seed"}
"""Options on training that an adapter has too -> their names in `AdapterSettings`."""


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
    examples_kind: ExamplesKind = None,
    relevant_from: RelevantFrom = None,
    split: Split = None,
    ignore: Ignored = None,
    passages: PassagesOfExamples = None,
    method: Annotated[
        Method,
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
    texts: Texts = False,
    page: Annotated[bool, typer.Option(help="Draw OUT.png; needs the extra 'plot'.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train a query adapter, LoRA or the whole encoder, and say whether it is better. Can be interrupted."""
    from llama_index_embed_plus.training.data.splits import SplitSettings
    from llama_index_embed_plus.training.proof.proof import ProofSettings

    if recipe is not None:
        options = [name for name in context.params if _is_on_the_command_line(context, name)]
        _train_by_recipe(recipe, out, base, set(options) - _BESIDE_A_RECIPE, page=page, as_json=as_json)
        return
    _check_held_out(queries, qrels, heldout_share)
    values = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "negatives": negatives,
        "max_tokens": max_tokens,
        "checkpoint_every": checkpoint_every,
        "loss": loss,
        "seed": seed,
    }
    options_of_training = {name: value for name, value in values.items() if value is not None}
    common = {"passages_apart": not shared_passages, "proof": ProofSettings(texts=texts)}
    settings = _settings(method, options_of_training, {"kind": kind, "width": width}, common)
    if base is None or examples is None:
        raise UsageError("a model to start from and --examples are needed: give them, or a --recipe")
    _check_out(out, page=page)
    # before the model, which takes longer to open
    data, held_out = _read(examples, examples_kind, relevant_from, split, ignore, passages), None
    if method == "adapter" or heldout_share:
        _ = data.examples  # raises if they are none
    encoder = open_encoder(base)
    encoder.quiet = True
    if (queries is not None or heldout_share) and collection is None:
        raise UsageError("held-out queries need passages to search: give the --collection that holds them")
    if queries is not None and qrels is not None:
        held_out = read_held_out(queries, qrels)
    elif heldout_share:
        by = SplitSettings(dev=0.0, test=heldout_share, seed=seed, by_passage=not shared_passages)
        data, held_out = _hold_out(data, by, encoder)
    if collection is None and method == "adapter":
        raise UsageError("an adapter is fitted against stored vectors: give the --collection that holds them")
    with ExitStack() as stack:
        docs = None if collection is None else stack.enter_context(managed(location)).open(collection, encoder)
        report = _train(base, data, out, settings, held_out, docs)
    _finish(out, report, page=page, as_json=as_json)


def _read(
    examples: Path,
    kind: str | None,
    relevant_from: float | None,
    split: str | None,
    ignore: list[str] | None,
    passages: Path | None,
) -> TrainingData:
    """Read the file, and say on stderr what was left out of it."""
    from llama_index_embed_plus.training.data.reading import read_training_data

    # an unknown kind is refused there
    data = read_training_data(
        examples, kind=cast(Any, kind), relevant_from=relevant_from, split=split, ignore=ignore or (), passages=passages
    )
    if data.left_out or data.judged_by:
        by = f" by {data.judged_by}" if data.judged_by else ""
        note(f"{examples}: {data.kind}{by}, {len(data)} rows to train on, {data.left_out} left out")
    return data


def _hold_out(data: TrainingData, by: SplitSettings, encoder: Encoder) -> tuple[TrainingData, HeldOut]:
    from llama_index_embed_plus.training.data.splits import split_queries

    split = split_queries(data.examples, by, encoder=encoder)
    return replace(data, rows=tuple(split.train)), HeldOut.of_examples(split.test)


def _train(
    base: str,
    data: TrainingData,
    out: Path,
    settings: TrainSettings,
    held_out: HeldOut | None,
    collection: Collection | None,
) -> TrainReport:
    """Train with one line that says how far it is; Ctrl-C ends with a line that says how to go on."""
    from llama_index_embed_plus.training.run import planned_steps, train

    method = settings.method
    # an adapter counts epochs, and may stop before the last
    steps = settings.adapter.max_epochs if method == "adapter" else planned_steps(data, settings)
    try:
        with _metered(f"train {method}", steps) as meter:
            return train(base, data, out, settings, held_out=held_out, collection=collection, progress=meter)
    except KeyboardInterrupt:
        interrupted(_interrupted(method, out))


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
    from llama_index_embed_plus.training.merge import interpolate

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
    assert coefficient is not None  # given, or chosen: the first check leaves nothing else
    report = interpolate(base, tuned, coefficient, out)
    trials = choice.trials if choice is not None else ()
    if as_json:
        rows = [asdict(trial) for trial in trials]
        print_json({**_summary(out, report), "coefficient": coefficient, "trials": rows})
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
    examples_kind: ExamplesKind = None,
    relevant_from: RelevantFrom = None,
    split: Split = None,
    ignore: Ignored = None,
    passages: PassagesOfExamples = None,
    location: Location = DEFAULT_LOCATION,
    texts: Texts = False,
    as_json: AsJson = False,
) -> None:
    """Measure a trained model on held-out queries, and write into it whether it may be promoted."""
    from llama_index_embed_plus.training.data.splits import as_questions, check_leak
    from llama_index_embed_plus.training.proof.model_card import record_proof
    from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
    from llama_index_embed_plus.training.proof.report import read_report

    if read_report(model) is None:
        raise UsageError(f"{model} was not trained here: there is no report to put a proof into")
    before, after, held_out = open_encoder(base), open_encoder(model), read_held_out(queries, qrels)
    if examples is not None:
        data = _read(examples, examples_kind, relevant_from, split, ignore, passages)
        check_leak(as_questions(data.rows), held_out, encoder=before)
    with managed(location) as manager:
        proof = prove(before, after, held_out, ProofSettings(texts=texts), collection=manager.open(collection, before))
        report = record_proof(model, proof)
    if as_json:
        print_json(_summary(model, report))
        return
    _show_proof(report)


def _is_on_the_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    # by its name: the enum belongs to the copy of click inside typer
    return source is not None and source.name == "COMMANDLINE"


def _check_held_out(queries: Path | None, qrels: Path | None, share: float) -> None:
    """Raise `UsageError` unless held-out queries come from two files, or are a share of the examples, or are none."""
    if (queries is None) != (qrels is None):
        raise UsageError("--queries and --qrels go together: the first has the texts, the second the answers")
    if queries is not None and share:
        raise UsageError("--heldout-share holds examples out, --queries are held out already: give one of them")
    if not 0 <= share < 1:
        raise UsageError(f"--heldout-share is {share}, expected a share from 0 up to, not including, 1")


def _train_by_recipe(
    recipe: Path, out: Path, base: str | None, options: set[str], *, page: bool, as_json: bool
) -> None:
    """Run the stages of a recipe and print. Ctrl-C keeps the stages that are done and a checkpoint of the one at work.

    Raises:
        UsageError: an option that the recipe has to say.
    """
    from llama_index_embed_plus.training.recipe import read_recipe

    if options:
        raise UsageError(f"{_listed(options)} cannot be given with a recipe: write it into {recipe}")
    stages = read_recipe(recipe)
    _check_out(out, page=page)
    # only now: it brings torch, and a wrong recipe need not wait for that
    from llama_index_embed_plus.training.stages import recipe_steps, run_recipe

    with (
        resumable("the stages that are done are kept; run the same command again to go on"),
        _metered(f"train by {recipe.name}", recipe_steps(stages)) as meter,
    ):
        report = run_recipe(stages, out, base=base, progress=meter, announce=note)
    _finish(out, report, page=page, as_json=as_json)


def _settings(
    method: Method, options: Mapping[str, Any], adapter: Mapping[str, Any], common: Mapping[str, Any]
) -> TrainSettings:
    """The settings of the method, from the options that were given; the others have the library's defaults.

    Raises:
        UsageError: an option that means nothing to this method.
    """
    from llama_index_embed_plus.training.settings import AdapterSettings, TrainSettings

    if method != "adapter":
        defaults = AdapterSettings()
        # typer fills in what was not given, so only another value than the default tells
        _refuse({name for name, value in adapter.items() if value != getattr(defaults, name)}, method)
        return TrainSettings(method=method, **common, **options)
    _refuse(options.keys() - _OF_ADAPTERS.keys(), "adapter")
    of_adapter = AdapterSettings(**adapter, **{_OF_ADAPTERS[name]: value for name, value in options.items()})
    return TrainSettings(method="adapter", seed=options["seed"], adapter=of_adapter, **common)


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
            if not is_terminal() and meter.steps - last_step >= max(1, total // 10):
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


def _check_out(out: Path, *, page: bool) -> None:
    """Raise `UsageError` if something else than a model, or a picture of something else, would be lost."""
    from llama_index_embed_plus.models import artifact

    artifact.check_out(out)
    picture = _picture_of(out)
    if page and os.path.lexists(picture) and not artifact.is_artifact(out):
        raise UsageError(f"{picture} exists already and belongs to no model: give another --out, or --no-page")


def _picture_of(out: Path) -> Path:
    return out.with_name(out.name + ".png")


def _finish(out: Path, report: TrainReport, *, page: bool, as_json: bool) -> None:
    picture = _picture_of(out)
    if page:
        from llama_index_embed_plus.training.proof.plots import training_plot

        training_plot(picture, report)
    if as_json:
        print_json(_summary(out, report))
        return
    rows = report.data.get("rows", len(report.losses))
    say(f"wrote {out}: {report.method}, {rows} rows, {len(report.losses)} steps, {report.seconds:.1f} s")
    _show_proof(report)
    if page:
        say(f"wrote {picture}")


def _show_proof(report: TrainReport) -> None:
    """What was measured, what is to be known of it, and whether the model may be promoted."""
    for change in report.proof.changes if report.proof else ():
        say(f"  {change}")
    for text in report.notes:
        say(f"  note: {text}")
    say(f"{'may be promoted' if report.promotable else 'not to be promoted'}: {report.verdict}")


def _summary(out: Path, report: TrainReport) -> dict[str, Any]:
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


def _choose(base: str, tuned: str, dev: HeldOut, collection: str, location: str) -> Choice:
    from llama_index_embed_plus.training.merge import choose_coefficient, interpolated

    encoder = open_encoder(base)
    note("choose a coefficient on the dev queries")
    with managed(location) as manager, tempfile.TemporaryDirectory() as scratch:
        searched = manager.open(collection, encoder)
        return choose_coefficient(encoder, interpolated(base, tuned, Path(scratch)), dev, collection=searched)
