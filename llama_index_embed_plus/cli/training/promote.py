"""`embed-plus promote ...`: each command calls one step of a `Promotion` and prints what came back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, get_args

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, ask, next_step, note, print_json, resumable, say
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, Backend, Location, command_of, managed
from llama_index_embed_plus.cli.training.held_out import QrelsFile, Queries, held_out_named
from llama_index_embed_plus.cli.training.promotion import alias_of, refuse_unproved, serving_now
from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_query_texts
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import CollectionError, LocationError, UsageError
from qdrant_tools.promotion.bridge import BridgeMethod, draw_sample, measure_bridge
from qdrant_tools.promotion.plan import PromotionPlan
from qdrant_tools.promotion.promotion import Promotion, check_promotable
from qdrant_tools.promotion.switch import cleanup, rollback
from qdrant_tools.promotion.sync import SyncReport
from qdrant_tools.promotion.verify import Gates, Verification
from qdrant_tools.records import Encoder, HeldOut

app = typer.Typer(
    name="promote",
    help="Change the encoder of an alias without downtime: all at once (run), or step by step.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Alias = Annotated[str, typer.Argument(help="The alias that applications open (in place: also a collection's name).")]
NewModel = Annotated[str, typer.Option("--model", help="The model that is to serve: a name or folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
InPlace = Annotated[bool, typer.Option("--in-place", help="New vectors beside the old ones in the same collection.")]
Force = Annotated[bool, typer.Option("--force", help="Do it although a check or the model's training says no.")]
AcceptSynthetic = Annotated[
    bool, typer.Option("--accept-synthetic", help="Take a gain that is proved on synthetic queries only.")
]
Before = Annotated[
    str | None,
    typer.Option(
        help="The model that serves now, to compare with on held-out queries; found by itself for an adapter."
    ),
]
NewAlias = Annotated[
    str | None,
    typer.Option("--alias", help="The alias to make of a plain collection, instead of its name with -live behind it."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Make that alias without asking.")]
Samples = Annotated[int, typer.Option(help="How many stored passages are embedded again and searched for.")]
Recall = Annotated[float, typer.Option(help="The share of the exact neighbours that the index must find.")]
MaxDrop = Annotated[float, typer.Option(help="How much worse nDCG may be on the held-out queries.")]
BatchSize = Annotated[int, typer.Option(min=1, help="How many passages are embedded and stored at a time.")]


@dataclass(frozen=True)
class Allowed:
    """What may pass although a check or the model's training says no."""

    force: bool = False
    accept_synthetic: bool = False


AGAIN = "the old model serves; run the same command again to go on"


@app.command()
def plan(
    alias: Alias,
    model: NewModel,
    in_place: InPlace = False,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what would be done and what it takes; change nothing."""
    with _promotion(alias, location, model, backend, in_place=in_place) as promotion:
        steps = promotion.plan()
    if as_json:
        scarce = steps.disk is not None and steps.disk.scarce
        print_json(asdict(steps) | {"next_step": steps.next_step, "scarce": scarce})
        return
    for line in _lines(steps):
        say(line)


@app.command()
def build(
    alias: Alias,
    model: NewModel,
    in_place: InPlace = False,
    force: Force = False,
    accept_synthetic: AcceptSynthetic = False,
    batch_size: BatchSize = 256,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Embed the stored texts by the new model while the old one serves. Can be interrupted and run again."""
    with _promotion(alias, location, model, backend, in_place=in_place) as promotion:
        allowed = Allowed(force, accept_synthetic)
        report = _build(promotion, promotion.plan(), allowed, batch_size=batch_size)
    if as_json:
        print_json(report)
    else:
        say("{target}: {written} embedded, {deleted} removed".format(**report))


@app.command()
def verify(
    alias: Alias,
    model: NewModel,
    queries: Queries = None,
    qrels: QrelsFile = None,
    before: Before = None,
    accept_synthetic: AcceptSynthetic = False,
    samples: Samples = 100,
    recall: Recall = 0.95,
    max_drop: MaxDrop = 0.0,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Check what was built. Exit code 1 if it does not pass."""
    gates = Gates(samples=samples, recall=recall, max_drop=max_drop)
    with _promotion(alias, location, model, backend) as promotion:
        given = _held_out(promotion, queries, qrels, before, model, backend)
        verification = _verify(promotion, gates, *given, accept_synthetic=accept_synthetic)
    if as_json:
        print_json(verification.as_row())
    else:
        _show(verification)
    if not verification.passed:
        raise typer.Exit(1)


@app.command()
def switch(
    alias: Alias,
    model: NewModel,
    force: Force = False,
    accept_synthetic: AcceptSynthetic = False,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Let the alias serve the new model, in one atomic step."""
    with _promotion(alias, location, model, backend) as promotion:
        _switch(promotion, Allowed(force, accept_synthetic), as_json=as_json)
    if not as_json:
        next_step(command_of("search", alias, "your question", location=location, model=model))


@app.command()
def run(
    alias: Alias,
    model: NewModel,
    in_place: InPlace = False,
    new_alias: NewAlias = None,
    yes: Yes = False,
    force: Force = False,
    accept_synthetic: AcceptSynthetic = False,
    queries: Queries = None,
    qrels: QrelsFile = None,
    before: Before = None,
    samples: Samples = 100,
    recall: Recall = 0.95,
    max_drop: MaxDrop = 0.0,
    batch_size: BatchSize = 256,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Build, verify, and switch if every check passes. Can be interrupted and run again."""
    gates, allowed = Gates(samples=samples, recall=recall, max_drop=max_drop), Allowed(force, accept_synthetic)
    with managed(location) as manager:
        manager.resolve(alias)  # before a model is opened for nothing
        encoder = open_encoder(model, backend=backend)
        check_promotable(encoder)  # no proof would help
        refuse_unproved(encoder, alias, model, force=force, accept_synthetic=accept_synthetic)
        alias = alias_of(manager, alias, new_alias, yes=yes, in_place=in_place)
        promotion = Promotion(manager, alias, encoder, in_place=in_place)
        steps = promotion.plan()
        held_out, serving = _held_out(promotion, queries, qrels, before, model, backend)
        if steps.kind != "nothing":
            # may go on in place after asking: the steps below read that from what it stored
            _build(promotion, steps, allowed, batch_size=batch_size)
            # an adapter embeds nothing: forced and without queries there is nothing to check
            if held_out is not None or steps.kind != "adapter" or not force:
                verification = _verify(promotion, gates, held_out, serving, accept_synthetic=accept_synthetic)
                # stdout is for the one JSON object
                _show(verification, to_stderr=as_json)
                if not verification.passed and not force:
                    raise CollectionError(f"{alias!r} keeps its encoder: {'; '.join(verification.failed)}")
        _switch(promotion, allowed, as_json=as_json)
    if not as_json:
        next_step(command_of("search", alias, "your question", location=location, model=model))


@app.command()
def bridge(
    alias: Alias,
    model: NewModel,
    queries: Annotated[Path, typer.Option(help="Real queries: text lines, or .jsonl rows with a text.")],
    sample: Annotated[int, typer.Option(min=4, help="How many stored texts are embedded by the new model.")] = 2000,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits are looked at.")] = 10,
    before: Before = None,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure what the new model's queries find among the old vectors through a map, before anything is embedded."""
    texts = read_query_texts(queries)
    with _promotion(alias, location, model, backend) as promotion, ConsoleReporter().step(f"bridge {alias}", None):
        stored = draw_sample(promotion.manager.open(alias), promotion.encoder, size=sample)
        old = None if before is None else open_encoder(before, backend=backend)
        reports = [
            measure_bridge(stored, texts, promotion.encoder, old=old, k=k, method=method)[1]
            for method in get_args(BridgeMethod)
        ]
    if as_json:
        print_json({"alias": alias, "bridges": [report.as_row() for report in reports]})
        return
    say(f"recall@{k} against re-embedding {reports[0].sample} texts, {len(texts)} queries")
    for report in reports:
        say(f"  {report.method:<12}{report.bridged:.3f}")
    if reports[0].unbridged is not None:
        say(f"  {'the old model':<12}{reports[0].unbridged:.3f}")


@app.command("rollback")
def rollback_command(
    alias: Alias,
    model: Annotated[
        str | None, typer.Option("--model", help="The model that served before, to carry back what was written since.")
    ] = None,
    force: Force = False,
    location: Location = DEFAULT_LOCATION,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Let the alias serve again what it served before the last switch."""
    with managed(location) as manager:
        manager.resolve(alias)  # before a model is opened for nothing
        encoder = None if model is None else open_encoder(model, backend=backend)
        with resumable("run the same command again to go on"):
            report = rollback(manager, alias, encoder=encoder, force=force)
        _show_serving(manager, alias, report, as_json=as_json)


@app.command("cleanup")
def cleanup_command(alias: Alias, location: Location = DEFAULT_LOCATION, as_json: AsJson = False) -> None:
    """Drop what does not serve any more: after a switch the old vectors, before one the new ones."""
    with managed(location) as manager, resumable("run the same command again to go on"):
        dropped = cleanup(manager, alias)
    if as_json:
        print_json({"dropped": dropped})
    else:
        say(f"dropped {', '.join(dropped)}" if dropped else "nothing to drop")


@contextmanager
def _promotion(
    alias: str, location: str, model: str, backend: BackendName, *, in_place: bool = False
) -> Iterator[Promotion]:
    with managed(location) as manager:
        manager.resolve(alias)  # before a model is opened for nothing
        encoder = open_encoder(model, backend=backend)
        yield Promotion(manager, alias, encoder, in_place=in_place)


def _held_out(
    promotion: Promotion,
    queries: Path | None,
    qrels: Path | None,
    before: str | None,
    model: str,
    backend: BackendName,
) -> tuple[HeldOut | None, Encoder | None]:
    """The held-out queries, by default those beside the model, and the encoder that serves now.

    Raises:
        UsageError: one of the files without the other, or a model without queries.
        InputError: a row without the columns.
    """
    kind = promotion.plan().kind
    if kind == "nothing":
        return None, None
    held_out = held_out_named(queries, qrels, model)
    if held_out is None:
        if before is not None:
            raise UsageError("--before is compared with on held-out queries: give --queries and --qrels")
        return None, None
    if before is not None:
        return held_out, open_encoder(before, backend=backend)
    try:
        return held_out, serving_now(promotion.manager, promotion.alias, promotion.encoder, kind, backend)
    except UsageError as error:
        if kind == "adapter":
            raise
        # what is embedded anew has other checks beside
        note(f"nothing to compare with on the held-out queries: {error}")
        return (held_out, None) if queries is not None else (None, None)


def _build(promotion: Promotion, plan: PromotionPlan, allowed: Allowed, *, batch_size: int) -> dict[str, object]:
    promotion = _offer_in_place(promotion, plan, force=allowed.force)
    with resumable(AGAIN), ConsoleReporter().step(f"embed {promotion.alias}", plan.points, "passages") as advance:
        report = promotion.build(
            batch_size=batch_size,
            progress=advance,
            force=allowed.force,
            accept_synthetic=allowed.accept_synthetic,
        )
    return asdict(report)


def _offer_in_place(promotion: Promotion, plan: PromotionPlan, *, force: bool) -> Promotion:
    """The promotion, or the one in place if a second collection does not fit and a person takes that instead.

    Raises:
        LocationError: nobody to ask; the message says both ways out.
    """
    # what an earlier run began goes on as it was begun
    if plan.kind != "re-embed" or plan.phase is not None or force or plan.disk is None or not plan.disk.scarce:
        return promotion
    short = (
        f"a second collection takes {_size(plan.disk.beside)} and the disk has {_size(plan.disk.free or 0)}; "
        f"new vectors in the same collection take {_size(plan.disk.in_place)}"
    )
    if ask(f"{short}: embed in place?"):
        return Promotion(promotion.manager, promotion.alias, promotion.encoder, in_place=True)
    raise LocationError(f"{short}: say --in-place, or --force to try nevertheless")


def _verify(
    promotion: Promotion, gates: Gates, held_out: HeldOut | None, before: Encoder | None, *, accept_synthetic: bool
) -> Verification:
    with resumable(AGAIN), ConsoleReporter().step(f"verify {promotion.alias}", None):
        return promotion.verify(gates, held_out=held_out, before=before, accept_synthetic=accept_synthetic)


def _switch(promotion: Promotion, allowed: Allowed, *, as_json: bool) -> None:
    with resumable("run the same command again: it finishes the switch, or says that it is done"):
        report = promotion.switch(force=allowed.force, accept_synthetic=allowed.accept_synthetic)
    _show_serving(promotion.manager, promotion.alias, report, as_json=as_json)


def _show_serving(manager: CollectionManager, alias: str, report: SyncReport, *, as_json: bool) -> None:
    serving = manager.open(alias)
    if as_json:
        row = {"alias": alias, "collection": serving.name, "space": serving.space, "adapter": serving.adapter}
        print_json(row | {"synced": report.differences})
        return
    adapter = f" with {serving.adapter}" if serving.adapter else ""
    say(f"{alias} serves {serving.space}{adapter} from {serving.name}")


def _lines(plan: PromotionPlan) -> Iterator[str]:
    work = {
        "re-embed": f"embed {plan.points} points of {plan.source} into the new collection {plan.target}",
        "in-place": f"embed {plan.points} points of {plan.source} into its new vector {plan.vector!r}",
        "adapter": f"let the query adapter {plan.adapter} serve {plan.source}: nothing is embedded",
        "nothing": f"nothing: {plan.source} serves it already",
    }[plan.kind]
    yield f"{plan.alias}: {plan.from_space} -> {plan.to_space}"
    yield work
    if plan.disk is not None and plan.disk.free is None:
        yield (
            f"disk: at least {_size(plan.disk.beside)} beside (vectors alone), {_size(plan.disk.in_place)} in place; "
            "how much is free a server does not tell: look there"
        )
    elif plan.disk is not None:
        free = _size(plan.disk.free or 0)
        yield f"disk: {_size(plan.disk.beside)} beside, {_size(plan.disk.in_place)} in place, {free} free"
    if plan.disk is not None and plan.disk.scarce and plan.kind == "re-embed":
        yield "a second collection does not fit: say --in-place"
    if plan.phase is not None:
        yield f"an earlier run came to: {plan.phase}; the next step is: {plan.next_step}"
    if plan.refusal is not None:
        yield f"its training says no: {plan.refusal}"
    if plan.only_synthetic:
        yield "that is all against it: prove it on real queries (embed-plus prove), or say --accept-synthetic"


def _show(verification: Verification, *, to_stderr: bool = False) -> None:
    for check in verification.checks:
        line = f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.value:.4g}, expected {check.expected}"
        (note if to_stderr else say)(line)


def _size(amount: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
