"""`embed-plus monitor` and `embed-plus canary ...`: has search got worse since last month?

Exit codes: 0 nothing to report, 1 an error, 2 wrong usage, 3 an alarm of the log's tests, 4 a canary failed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, print_json, say, shortened
from llama_index_embed_plus.cli.logs.log import open_log
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    DrawnBesideOut,
    Location,
    Model,
    Overwrite,
    check_outputs,
    command_of,
    draws,
    opened,
)
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_query_texts
from qdrant_tools.errors import UsageError
from qdrant_tools.files.written import write_text
from qdrant_tools.monitor.canary import (
    CanaryReport,
    freeze_canaries,
    read_canaries,
    run_canaries,
    write_canaries,
)
from qdrant_tools.monitor.report import MonitorReport, MonitorSettings, monitor
from qdrant_tools.monitor.signals import Share
from qdrant_tools.monitor.windows import recent_spans

app = typer.Typer()
canary_app = typer.Typer(help="Ask queries whose answers are known.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(canary_app, name="canary")

Mean = Annotated[
    float, typer.Option(help="The least share of expected passages in the mean; with less, the exit code is 4.")
]
Each = Annotated[float, typer.Option(help="The least share of expected passages for every single query.")]
First = Annotated[int, typer.Option("-k", min=1, help="How many hits are looked at.")]

ALARM = 3
CANARY_ALARM = 4
WIDTH = 80
"""Characters of a canary's query that are printed."""


@app.command("monitor")
def monitor_command(
    collection: Annotated[str, typer.Argument(help="The collection or alias that is searched.")],
    log: Annotated[Path, typer.Argument(help="The retrieval log of searches in it.")],
    days: Annotated[float, typer.Option(help="The current window: the last so many days.")] = 7,
    reference_days: Annotated[float, typer.Option(help="The reference window: so many days before that.")] = 28,
    until: Annotated[str | None, typer.Option(help="End of the current window, ISO 8601; now if not given.")] = None,
    alpha: Annotated[float, typer.Option(help="The probability of a false alarm in a report.")] = 0.01,
    canaries: Annotated[Path | None, typer.Option(help="Also ask these canaries (see `embed-plus canary`).")] = None,
    candidate: Annotated[str | None, typer.Option(help="A model to be judged by the logged clicks.")] = None,
    out: Annotated[Path, typer.Option(help="Where the report goes: this, with .json and .png.")] = Path("monitor"),
    plot: DrawnBesideOut = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Compare the last days of a retrieval log with the weeks before. Exit code 3 for an alarm, 4 for a canary."""
    reference, current = recent_spans(days=days, reference_days=reference_days, until=_time(until))
    settings = MonitorSettings(alpha=alpha)
    figures, picture = _suffixed(out, ".json"), _suffixed(out, ".png")
    drawn = draws(plot)
    check_outputs(figures, picture if drawn else None, overwrite=overwrite, inputs=[log, canaries])
    frozen = None if canaries is None else read_canaries(canaries)
    with opened(collection, location, model, backend) as (source, encoder), open_log(log) as retrievals:
        challenger = None if candidate is None else open_encoder(candidate, backend=backend)
        canary_report = None if frozen is None else run_canaries(source, frozen, encoder)
        names = {collection, source.name, ""}  # logs of other systems name no collection
        with ConsoleReporter().step(f"monitor {collection}", None):
            report = monitor(
                (search for search in retrievals.searches() if search.collection in names),
                source,
                encoder,
                reference=reference,
                current=current,
                candidate=challenger,
                canaries=canary_report,
                settings=settings,
            )
    row = json.dumps(report.as_row(), indent=2, ensure_ascii=False)
    written = [figures]
    write_text(figures, row + "\n", overwrite=overwrite)
    # before the picture: whatever keeps that from being drawn, the result is told
    if as_json:
        print_json(report.as_row(), indent=2)
    else:
        _show(report)
    if drawn:
        from llama_index_embed_plus.evaluate.plots.pages import monitor_page
        from llama_index_embed_plus.evaluate.plots.style import finish

        finish(monitor_page(None, report), picture, overwrite=overwrite)
        written.append(picture)
    if not as_json:
        say(f"wrote {', '.join(map(str, written))}")
        if "canaries" in report.alarms:
            next_step(command_of("collection describe", collection, location=location))
        elif report.alarms:
            next_step(command_of("mine", collection, log, "--out", "examples.jsonl", location=location, model=model))
        elif canaries is None:
            freezing = ("canary freeze", collection, "QUERIES", "--out", "canaries.jsonl")
            next_step(command_of(*freezing, location=location, model=model))
        else:
            next_step(command_of("log stats", log))
    # there may be both: then the canary decides the code
    raise typer.Exit(CANARY_ALARM if "canaries" in report.alarms else ALARM if report.alarms else 0)


@canary_app.command()
def freeze(
    collection: Annotated[str, typer.Argument(help="The collection or alias to ask.")],
    queries: Annotated[Path, typer.Argument(help="A text file with one query per line, or .jsonl rows with a text.")],
    out: Annotated[Path, typer.Option(help="The .jsonl file of canaries to write.")],
    k: First = 10,
    exact: Annotated[
        bool, typer.Option("--exact", help="Search exactly, now and in every run: then the index has no say.")
    ] = False,
    overwrite: Overwrite = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Write down what queries find now, as what they have to find from now on."""
    check_outputs(out, overwrite=overwrite, inputs=[queries])
    texts = read_query_texts(queries)
    with opened(collection, location, model, backend) as (source, encoder):
        canaries = freeze_canaries(source, texts, encoder, k=k, exact=exact)
    write_canaries(out, canaries, overwrite=overwrite)
    served = f" with {canaries[0].adapter}" if canaries[0].adapter else ""
    say(f"wrote {out}: {len(canaries)} canaries of {source.space}{served}")
    next_step(command_of("canary run", collection, out, location=location, model=model))


@canary_app.command()
def run(
    collection: Annotated[str, typer.Argument(help="The collection or alias to ask.")],
    canaries: Annotated[Path, typer.Argument(help="The .jsonl file of canaries.")],
    k: First = 10,
    mean: Mean = 0.9,
    each: Each = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Ask the canaries again. Exit code 4 if they do not find enough of what they must."""
    frozen = read_canaries(canaries)
    with opened(collection, location, model, backend) as (source, encoder):
        report = run_canaries(source, frozen, encoder, k=k, mean_at_least=mean, each_at_least=each)
    if as_json:
        print_json(report.as_row())
    else:
        _show_canaries(report)
        if report.passed:
            asked = ("monitor", collection, "LOG", "--canaries", canaries)
            next_step(command_of(*asked, location=location, model=model))
        else:
            next_step(command_of("collection describe", collection, location=location))
    raise typer.Exit(0 if report.passed else CANARY_ALARM)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--until is {text!r}, expected a time such as 2025-01-31T12:00:00+00:00") from error
    # a time without a zone is one of UTC
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _suffixed(path: Path, suffix: str) -> Path:
    # not `with_suffix`: of `report-2025.01` it would replace `.01`
    return path if path.suffix == suffix or not path.name else path.with_name(path.name + suffix)


def _show(report: MonitorReport) -> None:
    counts = report.counts
    for name, span in (("reference", report.reference), ("current", report.current)):
        say(f"{name:<12}{span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M}  {counts[name]['searches']} searches")
    if report.drift is not None:
        drift = report.drift
        size = f"{drift.share:.1%} of the distance between the windows' queries"
        say(f"{'drift':<16}{size}, p = {drift.p_value:.3g} ({drift.reference} and {drift.current} queries)")
    for signal in report.signals:
        bound = "" if signal.bound is None else f", below {signal.bound:.3f}"
        tested = "" if signal.p_value is None else f", p = {signal.p_value:.3g}"
        say(f"{signal.name:<16}{_share(signal.reference)} then, {_share(signal.current)} now{tested}{bound}")
    if report.click_through:
        say("click-through by rank, then and now")
    for rate in report.click_through:
        say(f"{rate.rank:>5}  {_share(rate.reference):<40}{_share(rate.current)}")
    if report.unknown_hits.count:
        say(f"{_share(report.unknown_hits)} of the hits shown are no longer in the collection")
    if report.estimate is not None:
        estimate = report.estimate
        say(
            f"candidate: mean gain of a relevant hit {estimate.candidate:.3f}, as logged {estimate.logged:.3f}, "
            f"difference {estimate.difference:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}] "
            f"from {estimate.clicks} clicks: {estimate.verdict}"
        )
    if report.canaries is not None:
        _show_canaries(report.canaries)
    for note in report.notes:
        say(f"note: {note}")
    say(f"ALARM: {', '.join(report.alarms)}" if report.alarms else "no alarm")
    if report.tests:
        say(f"  {report.rule}")


def _show_canaries(report: CanaryReport) -> None:
    state = "passed" if report.passed else "FAILED"
    say(f"canaries {state}: {report.mean:.1%} of the expected passages of {len(report.results)} queries were found")
    for result in report.results:
        if result.missing:
            gone = f", {len(result.gone)} of them gone from the collection" if result.gone else ""
            say(f"  {result.recall:>4.0%}  {shortened(result.query, WIDTH)}: {len(result.missing)} missing{gone}")


def _share(share: Share) -> str:
    if not share.of:
        return "not measurable (none)"
    return f"{share.share:.1%} ({share.count}/{share.of}, {share.low:.1%} to {share.high:.1%})"
