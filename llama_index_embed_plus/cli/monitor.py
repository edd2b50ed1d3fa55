"""`embed-plus monitor` and `embed-plus canary ...`: their options.

Exit codes: 0 nothing to report, 1 an error, 2 wrong usage, 3 an alarm of the log's tests, 4 a canary failed.

The bodies of `embed-plus monitor` and `embed-plus canary ...`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    ConsoleReporter,
    Location,
    Model,
    say,
)
from llama_index_embed_plus.cli.log import open_log
from llama_index_embed_plus.cli.opened import Where
from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.files import read_lines, read_rows, write_text
from qdrant_tools.log.records import LoggedSearch
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
from qdrant_tools.records import Encoder

app = typer.Typer()
canary_app = typer.Typer(help="Ask queries whose answers are known.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(canary_app, name="canary")

Mean = Annotated[float, typer.Option(help="Mean share of expected passages that must be found, else exit code 4.")]
Each = Annotated[float, typer.Option(help="The same for every single query.")]
First = Annotated[int, typer.Option("-k", min=1, help="Among how many hits.")]


@app.command("monitor")
def monitor_command(
    collection: Annotated[str, typer.Argument(help="The collection or alias that is searched.")],
    log: Annotated[Path, typer.Argument(help="The retrieval log of searches in it.")],
    days: Annotated[float, typer.Option(help="The current window: the last so many days.")] = 7,
    reference_days: Annotated[float, typer.Option(help="The reference window: so many days before that.")] = 28,
    until: Annotated[str | None, typer.Option(help="End of the current window, ISO 8601; now if not given.")] = None,
    alpha: Annotated[float, typer.Option(help="Probability of a false alarm per report.")] = 0.01,
    canaries: Annotated[Path | None, typer.Option(help="Also ask these canaries (see `embed-plus canary`).")] = None,
    candidate: Annotated[str | None, typer.Option(help="A model to be judged by the logged clicks.")] = None,
    out: Annotated[Path, typer.Option(help="Where the report goes: this, with .json and .png.")] = Path("monitor"),
    page: Annotated[bool, typer.Option(help="Draw the page; needs the extra 'plot'.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Compare the last days of a retrieval log with the weeks before. Exit code 3 for an alarm, 4 for a canary."""

    watch = Watch(days, reference_days, until, alpha, canaries, candidate)
    code = monitor_log(collection, log, watch, Where(location, model, backend), out=out, page=page, as_json=as_json)
    raise typer.Exit(code)


@canary_app.command()
def freeze(
    collection: Annotated[str, typer.Argument(help="The collection or alias to ask.")],
    queries: Annotated[Path, typer.Argument(help="A text file with one query per line, or .jsonl rows with a text.")],
    out: Annotated[Path, typer.Argument(help="The .jsonl file of canaries to write.")],
    k: First = 10,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Write down what queries find now, as what they have to find from now on."""

    freeze_queries(collection, queries, out, Where(location, model, backend), k=k)


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

    code = ask_canaries(collection, canaries, CanaryLimits(k, mean, each), Where(location, model, backend), as_json)
    raise typer.Exit(code)


ALARM = 3
CANARY_ALARM = 4
WIDTH = 80


@dataclass(frozen=True)
class Watch:
    """What to compare, and what else to look at."""

    days: float
    reference_days: float
    until: str | None
    alpha: float
    canaries: Path | None
    candidate: str | None


@dataclass(frozen=True)
class CanaryLimits:
    k: int = 10
    mean: float = 0.9
    each: float = 0.5


def monitor_log(collection: str, log: Path, watch: Watch, where: Where, *, out: Path, page: bool, as_json: bool) -> int:
    """Print and write the report; returns the exit code."""
    reference, current = recent_spans(days=watch.days, reference_days=watch.reference_days, until=_time(watch.until))
    settings = MonitorSettings(alpha=watch.alpha)
    frozen = None if watch.canaries is None else read_canaries(watch.canaries)
    with _opened(collection, where) as (source, encoder), open_log(log) as opened:
        candidate = None if watch.candidate is None else open_encoder(watch.candidate, backend=where.backend)
        asked = None if frozen is None else run_canaries(source, frozen, encoder)
        with ConsoleReporter().step(f"monitor {collection}", None):
            report = monitor(
                _searches(opened.searches(), {collection, source.name, ""}),
                source,
                encoder,
                reference=reference,
                current=current,
                candidate=candidate,
                canaries=asked,
                settings=settings,
            )
    row = json.dumps(report.as_row(), indent=2, ensure_ascii=False)
    written = [_suffixed(out, ".json")]
    write_text(written[0], row + "\n")
    if page:
        from llama_index_embed_plus.evaluate.plots.pages import monitor_page

        written.append(_suffixed(out, ".png"))
        monitor_page(written[-1], report)
    if as_json:
        print(row)
    else:
        _show(report)
        say(f"wrote {', '.join(map(str, written))}")
    return CANARY_ALARM if "canaries" in report.alarms else ALARM if report.alarms else 0


def freeze_queries(collection: str, queries: Path, target: Path, where: Where, *, k: int) -> None:
    """Write canaries of what the queries find now."""
    texts = read_query_texts(queries)
    with _opened(collection, where) as (source, encoder):
        frozen = freeze_canaries(source, texts, encoder, k=k)
    write_canaries(target, frozen)
    say(f"wrote {target}: {len(frozen)} canaries of {source.space}")


def ask_canaries(collection: str, file: Path, limits: CanaryLimits, where: Where, as_json: bool) -> int:
    """Print what the canaries found; returns the exit code."""
    canaries = read_canaries(file)
    with _opened(collection, where) as (source, encoder):
        report = run_canaries(
            source, canaries, encoder, k=limits.k, mean_at_least=limits.mean, each_at_least=limits.each
        )
    if as_json:
        print(json.dumps(report.as_row(), ensure_ascii=False))
    else:
        _show_canaries(report)
    return 0 if report.passed else CANARY_ALARM


def read_query_texts(path: Path) -> list[str]:
    """The queries of a file: the lines of a text, or the field `text` of .jsonl rows.

    Raises:
        InputError: it cannot be read, or a row has no text.
    """
    try:
        if path.suffix == ".jsonl":
            return [row.text("text") for row in read_rows(path)]
        return [line.strip() for _, line in read_lines(path)]
    except InputError as error:
        raise InputError(f"{path} has no queries, one per line or as .jsonl rows with a text: {error}") from error


@contextmanager
def _opened(collection: str, where: Where) -> Iterator[tuple[Collection, Encoder]]:
    with closing(connect(where.location, create=False)) as client:
        encoder = open_encoder(where.model, backend=where.backend)
        yield CollectionManager(client).open(collection, encoder), encoder


def _searches(searches: Iterator[LoggedSearch], names: set[str]) -> Iterator[LoggedSearch]:
    """Those in the collection, under any of its names; logs of other systems name none."""
    return (search for search in searches if search.collection in names)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--until is {text!r}, expected a time such as 2025-01-31T12:00:00+00:00") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _suffixed(path: Path, suffix: str) -> Path:
    return path if path.suffix == suffix else path.with_name(path.name + suffix)


def _show(report: MonitorReport) -> None:
    counts = report.counts
    for name, span in (("reference", report.reference), ("current", report.current)):
        say(f"{name:<12}{span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M}  {counts[name]['searches']} searches")
    if report.drift is not None:
        found = report.drift
        size = f"{found.share:.1%} of the distance between the windows' queries"
        say(f"{'drift':<16}{size}, p = {found.p_value:.3g} ({found.reference} and {found.current} queries)")
    for signal in report.signals:
        bound = "" if signal.bound is None else f", below {signal.bound:.3f}"
        tested = "" if signal.p_value is None else f", p = {signal.p_value:.3g}"
        say(f"{signal.name:<16}{_share(signal.reference)} then, {_share(signal.current)} now{tested}{bound}")
    if report.click_through:
        say("click-through by rank, then and now")
    for each in report.click_through:
        say(f"{each.rank:>5}  {_share(each.reference):<40}{_share(each.current)}")
    if report.unknown_hits.count:
        say(f"{_share(report.unknown_hits)} of the hits shown are no longer in the collection")
    if report.estimate is not None:
        found_ = report.estimate
        say(
            f"candidate: mean gain of a relevant hit {found_.candidate:.3f}, as logged {found_.logged:.3f}, difference "
            f"{found_.difference:+.3f} [{found_.low:+.3f}, {found_.high:+.3f}] from {found_.clicks} clicks: "
            f"{found_.verdict}"
        )
    if report.canaries is not None:
        _show_canaries(report.canaries)
    for note in report.notes:
        say(f"note: {note}")
    say(f"ALARM: {', '.join(report.alarms)}" if report.alarms else f"no alarm (false alarms: {report.alpha:g})")


def _show_canaries(report: CanaryReport) -> None:
    state = "passed" if report.passed else "FAILED"
    say(f"canaries {state}: {report.mean:.1%} of the expected passages of {len(report.results)} queries were found")
    for result in report.results:
        if result.missing:
            query = result.query if len(result.query) <= WIDTH else result.query[: WIDTH - 3] + "..."
            gone = f", {len(result.gone)} of them gone from the collection" if result.gone else ""
            say(f"  {result.recall:>4.0%}  {' '.join(query.split())}: {len(result.missing)} missing{gone}")


def _share(share: Share) -> str:
    return f"{share.share:.1%} ({share.count}/{share.of}, {share.low:.1%} to {share.high:.1%})"
