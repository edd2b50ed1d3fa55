"""The bodies of `embed-plus promote ...`: each calls one step of `qdrant_tools.promote` and prints what came back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import typer

from llama_index_embed_plus.cli.collection_commands import managed, print_json, resumable
from llama_index_embed_plus.cli.commands import Where
from llama_index_embed_plus.cli.console import ConsoleReporter, err, out, say
from llama_index_embed_plus.cli.monitor_commands import read_query_texts
from llama_index_embed_plus.encoders import BackendName, open_encoder
from llama_index_embed_plus.errors import UsageError
from llama_index_embed_plus.evaluate import files
from qdrant_tools.collection import CollectionManager
from qdrant_tools.drift import Method, draw_sample, measure_drift
from qdrant_tools.errors import CollectionError, LocationError
from qdrant_tools.promote import Promotion, PromotionPlan, cleanup, rollback
from qdrant_tools.verify import Gates, HeldOut, Verification

AGAIN = "the old model serves; run the same command again to go on"


@dataclass(frozen=True)
class Judged:
    """Held-out queries with judgements, and the model that serves now."""

    queries: Path | None
    qrels: Path | None
    before: str | None

    def held_out(self, where: Where) -> HeldOut | None:
        """Read and open what was given.

        Raises:
            UsageError: one of the files without the other, or a model without them.
            InputError: a row without the columns.
        """
        if self.queries is None or self.qrels is None:
            if self.queries is None and self.qrels is None and self.before is None:
                return None
            raise UsageError("--queries and --qrels go together, and --before needs both")
        before = None if self.before is None else open_encoder(self.before, backend=where.backend)
        queries = {query.id: query.text for query in files.read_queries(self.queries)}
        return HeldOut(queries, files.read_qrels(self.qrels), before)


@contextmanager
def _promotion(alias: str, where: Where, *, in_place: bool = False) -> Iterator[Promotion]:
    with managed(where.location) as manager:
        manager.resolve(alias)  # before a model is opened for nothing
        encoder = open_encoder(where.model, backend=where.backend)
        yield Promotion(manager, alias, encoder, in_place=in_place)


def show_plan(alias: str, where: Where, *, in_place: bool, as_json: bool) -> None:
    with _promotion(alias, where, in_place=in_place) as promotion:
        plan = promotion.plan()
    if as_json:
        print_json(asdict(plan) | {"scarce": plan.disk is not None and plan.disk.scarce})
        return
    for line in _lines(plan):
        say(line)


def build_next(alias: str, where: Where, *, in_place: bool, force: bool, batch_size: int, as_json: bool) -> None:
    with _promotion(alias, where, in_place=in_place) as promotion:
        built = _build(promotion, force=force, batch_size=batch_size)
    if as_json:
        print_json(built)
    else:
        say("{target}: {written} embedded, {deleted} removed".format(**built))


def verify_next(alias: str, where: Where, gates: Gates, judged: Judged, *, as_json: bool) -> None:
    with _promotion(alias, where) as promotion:
        found = _verify(promotion, gates, judged.held_out(where))
    if as_json:
        print_json(found.as_row())
    else:
        _show(found)
    if not found.passed:
        raise typer.Exit(1)


def switch_to(alias: str, where: Where, *, force: bool, as_json: bool) -> None:
    with _promotion(alias, where) as promotion:
        _switch(promotion, force=force, as_json=as_json)


def promote(
    alias: str,
    where: Where,
    gates: Gates,
    judged: Judged,
    *,
    in_place: bool,
    force: bool,
    batch_size: int,
    as_json: bool,
) -> None:
    """All steps up to the switch; a check that fails ends it before, unless forced."""
    with _promotion(alias, where, in_place=in_place) as promotion:
        plan = promotion.plan()
        held_out = judged.held_out(where)
        if plan.kind != "nothing":
            _build(promotion, force=force, batch_size=batch_size)
            if held_out is not None or plan.kind != "adapter" or not force:
                found = _verify(promotion, gates, held_out)
                _show(found, to_stderr=as_json)
                if not found.passed and not force:
                    raise CollectionError(f"{alias!r} keeps its encoder: {'; '.join(found.failed)}")
        _switch(promotion, force=force, as_json=as_json)


def measure_bridge(
    alias: str, where: Where, queries: Path, *, sample: int, k: int, before: str | None, as_json: bool
) -> None:
    """Fit both maps on half of a sample and print what they find of what a full re-embedding of the rest would."""
    asked = read_query_texts(queries)
    with _promotion(alias, where) as promotion, ConsoleReporter().step(f"bridge {alias}", None):
        source = promotion.manager.open(alias)
        drawn = draw_sample(source, promotion.encoder, size=sample)
        old = None if before is None else open_encoder(before, backend=where.backend)
        new = promotion.encoder
        reports = [measure_drift(drawn, asked, new, old=old, k=k, method=each)[1] for each in get_args(Method)]
    if as_json:
        print_json({"alias": alias, "bridges": [report.as_row() for report in reports]})
        return
    say(f"recall@{k} against re-embedding {reports[0].sample} texts, {len(asked)} queries")
    for report in reports:
        say(f"  {report.method:<12}{report.bridged:.3f}")
    if reports[0].unbridged is not None:
        say(f"  {'the old model':<12}{reports[0].unbridged:.3f}")


def roll_back(
    alias: str, location: str, model: str | None, backend: BackendName, *, force: bool, as_json: bool
) -> None:
    with managed(location) as manager:
        manager.resolve(alias)
        encoder = None if model is None else open_encoder(model, backend=backend)
        with resumable("run the same command again to go on"):
            carried = rollback(manager, alias, encoder=encoder, force=force)
        _tell_serving(manager, alias, {"carried": carried.differences}, as_json=as_json)


def clean_up(alias: str, location: str, *, as_json: bool) -> None:
    with managed(location) as manager, resumable("run the same command again to go on"):
        dropped = cleanup(manager, alias)
    if as_json:
        print_json({"dropped": dropped})
    else:
        say(f"dropped {', '.join(dropped)}" if dropped else "nothing to drop")


def _build(promotion: Promotion, *, force: bool, batch_size: int) -> dict[str, object]:
    promotion = _offered(promotion, force=force)
    with resumable(AGAIN), ConsoleReporter().step(f"embed {promotion.alias}", None) as advance:
        built = promotion.build(batch_size=batch_size, progress=advance, force=force)
    return asdict(built)


def _offered(promotion: Promotion, *, force: bool) -> Promotion:
    """The promotion, or the one in place if a second collection does not fit and a person takes that instead.

    Raises:
        LocationError: nobody to ask; the message says both ways out.
    """
    plan = promotion.plan()
    if plan.kind != "re-embed" or plan.phase is not None or force or plan.disk is None or not plan.disk.scarce:
        return promotion
    short = (
        f"a second collection takes {_size(plan.disk.beside)} and the disk has {_size(plan.disk.free or 0)}; "
        f"new vectors in the same collection take {_size(plan.disk.in_place)}"
    )
    if sys.stdin.isatty() and typer.confirm(f"{short}: embed in place?", err=True):
        return Promotion(promotion.manager, promotion.alias, promotion.encoder, in_place=True)
    raise LocationError(f"{short}: say --in-place, or --force to try nevertheless")


def _verify(promotion: Promotion, gates: Gates, held_out: HeldOut | None) -> Verification:
    with resumable(AGAIN), ConsoleReporter().step(f"verify {promotion.alias}", None):
        return promotion.verify(gates, held_out=held_out)


def _switch(promotion: Promotion, *, force: bool, as_json: bool) -> None:
    with resumable("run the same command again: it finishes the switch, or says that it is done"):
        carried = promotion.switch(force=force)
    _tell_serving(promotion.manager, promotion.alias, {"carried": carried.differences}, as_json=as_json)


def _tell_serving(manager: CollectionManager, alias: str, row: dict[str, object], *, as_json: bool) -> None:
    serving = manager.open(alias)
    if as_json:
        found = {"alias": alias, "collection": serving.name, "space": serving.space, "adapter": serving.adapter}
        print_json(found | row)
        return
    adapter = f" with {serving.adapter}" if serving.adapter else ""
    say(f"{alias} serves {serving.space}{adapter} from {serving.name}")


def _lines(plan: PromotionPlan) -> Iterator[str]:
    what = {
        "re-embed": f"embed {plan.points} points of {plan.source} into the new collection {plan.target}",
        "in-place": f"embed {plan.points} points of {plan.source} into its new vector {plan.vector!r}",
        "adapter": f"let the query adapter {plan.adapter} serve {plan.source}: nothing is embedded",
        "nothing": f"nothing: {plan.source} serves it already",
    }[plan.kind]
    yield f"{plan.alias}: {plan.from_space} -> {plan.to_space}"
    yield what
    if plan.disk is not None:
        free = "unknown" if plan.disk.free is None else _size(plan.disk.free)
        yield f"disk: {_size(plan.disk.beside)} beside, {_size(plan.disk.in_place)} in place, {free} free"
    if plan.disk is not None and plan.disk.scarce and plan.kind == "re-embed":
        yield "a second collection does not fit: say --in-place"
    if plan.phase is not None:
        yield f"an earlier run came to: {plan.phase}"
    if plan.refusal is not None:
        yield f"its training says no: {plan.refusal}"


def _show(found: Verification, *, to_stderr: bool = False) -> None:
    for check in found.checks:
        line = f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.found:.4g}, expected {check.expected}"
        (err if to_stderr else out).print(line, markup=False, soft_wrap=True)


def _size(amount: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
