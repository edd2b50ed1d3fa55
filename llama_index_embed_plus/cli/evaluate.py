"""`embed-plus evaluate`: measure one or two systems on judged queries, print tables, write files.

Guarantees: files that cannot be written are named before anything is measured. Does not know: metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, print_json, say, shortened
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    Overwrite,
    check_outputs,
    check_picture,
    command_of,
)
from llama_index_embed_plus.cli.systems import OpenedSystems, System, changed, filter_of
from llama_index_embed_plus.cli.training.held_out import QrelsFile, Queries, files_beside
from llama_index_embed_plus.cli.words import FusionOption, fusion_of
from llama_index_embed_plus.evaluate.retrieval.comparison import Comparison, QueryChange, compare
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries, write_run, write_values
from llama_index_embed_plus.evaluate.retrieval.report import IdenticalIds, RetrievalReport
from llama_index_embed_plus.evaluate.retrieval.retrieval import Mode
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Qrels, Query

app = typer.Typer()

TEXT_WIDTH = 70
"""Characters of a query's text in a list."""


@app.command()
def evaluate(
    collection: Annotated[str | None, typer.Argument(help="The collection or alias to search.")] = None,
    queries: Queries = None,
    qrels: QrelsFile = None,
    passages: Annotated[
        Path | None, typer.Option(help="Search these (folder, text or JSONL) exactly instead of a collection.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Measure this TREC run instead of searching.")] = None,
    mode: Annotated[Mode, typer.Option(help="How a collection is searched.")] = "dense",
    exact: Annotated[
        bool | None,
        typer.Option(help="Compare with every vector, or walk the HNSW graph; without it, as the collection does."),
    ] = None,
    hnsw_ef: Annotated[int | None, typer.Option(help="Beam width in the graph; else the collection's.")] = None,
    fusion: FusionOption = None,
    filter: Annotated[
        str | None, typer.Option(help='On metadata, as JSON: \'{"field": value}\', a list of values or {"gte": bound}.')
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Compare with the same system but for this; may be repeated. Keys: collection, passages, run, "
            "location, model, backend, mode, exact (yes or no), hnsw-ef, fusion, filter.",
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", help="The cutoff of the metrics, 10 if not given; may be given again, the first decides."),
    ] = None,
    identical_ids: Annotated[
        IdenticalIds,
        typer.Option(
            help="A passage with the id of the query: ignore it as BEIR does, keep it, or ignore it if its text is the "
            "query's (auto)."
        ),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="The seed of what is drawn: the same seed gives the same result.")] = 0,
    show: Annotated[int, typer.Option(min=0, help="How many improved and worsened queries to list.")] = 5,
    run_file: Annotated[
        Path | None,
        typer.Option("--write-run", help="Write what was found as a TREC run; the other system's as NAME.against."),
    ] = None,
    per_query: Annotated[Path | None, typer.Option(help="Write every metric of every query as JSONL.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a PNG: differences per query, or scores of one system.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Measure retrieval on judged queries, and whether another system is better than this one."""
    conditions = filter_of(filter, "--filter")
    system = System(
        collection, passages, run, location, model, backend, mode, exact, hnsw_ef, conditions, fusion_of(fusion)
    )
    systems = [system, changed(system, against)] if against else [system]
    queries, qrels = _judged(queries, qrels, systems)
    files = _Files(run_file, per_query, plot, overwrite)
    files.check([queries, qrels, *(file for each in systems for file in (each.run, each.passages))], len(systems))
    judgements = read_qrels(qrels)
    reports = _measured(systems, read_queries(queries), judgements, k or [10], identical_ids)
    comparison = compare(*reports, seed=seed) if len(reports) == 2 else None
    written = files.write(reports, comparison, judgements)
    if as_json:
        row: dict[str, Any] = {"systems": [report.as_row() for report in reports]}
        print_json(row if comparison is None else row | {"comparison": comparison.as_row(queries=show)})
        return
    _show(reports, comparison, show)
    if written:
        say(f"wrote {', '.join(map(str, written))}")
    if collection is None:
        return
    judged = ("evaluate", collection, "--queries", queries, "--qrels", qrels)
    if comparison is None:
        other = "hybrid" if mode == "dense" else "dense"
        next_step(command_of(*judged, "--against", f"mode={other}", location=location, model=model))
    else:
        next_step(command_of("tune", collection, location=location, model=model))


@dataclass(frozen=True)
class _Files:
    """What is written beside the tables, if anything."""

    run: Path | None
    per_query: Path | None
    plot: Path | None
    overwrite: bool

    def check(self, inputs: Sequence[Path | None], systems: int) -> None:
        """See that they can be written, before anything is measured."""
        check_outputs(*self._runs(systems), self.per_query, self.plot, overwrite=self.overwrite, inputs=inputs)
        check_picture(self.plot)

    def write(self, reports: Sequence[RetrievalReport], comparison: Comparison | None, qrels: Qrels) -> list[Path]:
        """Write them, and name them."""
        written = self._runs(len(reports))
        for path, report in zip(written, reports):
            write_run(path, report.run, overwrite=self.overwrite)
        if self.per_query is not None:
            write_values(self.per_query, reports, overwrite=self.overwrite)
            written.append(self.per_query)
        if self.plot is not None:
            _draw(self.plot, reports[0], comparison, qrels, overwrite=self.overwrite)
            written.append(self.plot)
        return written

    def _runs(self, systems: int) -> list[Path]:
        """Where it stands what each system found: the second one's beside the first one's, as NAME.against."""
        if self.run is None:
            return []
        # of a path without a name there is none with another ending, and it is refused
        named = [self.run, self.run.with_suffix(f".against{self.run.suffix}")] if self.run.name else [self.run]
        return named[:systems]


def _measured(
    systems: Sequence[System],
    queries: Sequence[Query],
    qrels: Qrels,
    cutoffs: Sequence[int],
    identical_ids: IdenticalIds,
) -> list[RetrievalReport]:
    reports = []
    with OpenedSystems() as opened:
        for each in systems:
            with ConsoleReporter().step(f"measure {each.title}", None):
                reports.append(opened.measure(each, queries, qrels, cutoffs, identical_ids))
    return reports


def _judged(queries: Path | None, qrels: Path | None, systems: Sequence[System]) -> tuple[Path, Path]:
    """The two files; by default those that lie beside the first model that has some.

    Raises:
        UsageError: one without the other, or neither and no model has any.
    """
    if queries is not None and qrels is not None:
        return queries, qrels
    if queries is not None or qrels is not None:
        raise UsageError("--queries and --qrels go together: the first has the texts, the second the answers")
    # the last one: what is compared with the base is what was trained
    for system in reversed(systems):
        if (found := files_beside(system.model)) is not None:
            return found
    raise UsageError("what is judged? give --queries and --qrels, or a --model that keeps its held-out queries")


def _draw(path: Path, report: RetrievalReport, comparison: Comparison | None, qrels: Qrels, *, overwrite: bool) -> None:
    from llama_index_embed_plus.evaluate.plots.pages import query_differences, score_histograms, scores_by_relevance
    from llama_index_embed_plus.evaluate.plots.style import finish

    if comparison is None:
        picture = score_histograms(None, *scores_by_relevance(report.run, qrels), title=report.name)
    else:
        picture = query_differences(None, comparison)
    finish(picture, path, overwrite=overwrite)


def _show(reports: Sequence[RetrievalReport], comparison: Comparison | None, show: int) -> None:
    _show_counts(reports)
    if comparison is None:
        _show_table([["", reports[0].name], *([name, f"{mean:.4f}"] for name, mean in reports[0].means().items())])
    else:
        _show_comparison(comparison, show)


def _show_counts(reports: Sequence[RetrievalReport]) -> None:
    say(f"{reports[0].coverage.queries} queries measured")
    notes = {report.name: report.coverage.notes() for report in reports}
    for line in dict.fromkeys(line for of_system in notes.values() for line in of_system):
        names = [name for name, of_system in notes.items() if line in of_system]
        say(f"  {line}" if len(names) == len(reports) else f"  {line} ({names[0]})")


def _show_comparison(comparison: Comparison, show: int) -> None:
    first, second = comparison.names
    rows = [["", first, second, "difference", "95 % interval", "p", "better", "worse", "same"]]
    for name, test in comparison.tests.items():
        interval = f"{test.low:+.4f} to {test.high:+.4f}"
        means = [f"{test.before:.4f}", f"{test.after:.4f}", f"{test.difference:+.4f}", interval, f"{test.p_value:.4f}"]
        rows.append([name, *means, str(test.better), str(test.worse), str(test.same)])
    _show_table(rows)
    say(f"by {comparison.metric}, {second} is {_VERDICTS[comparison.verdict()]} {first}")
    for title, changes in (("better", comparison.improved(show)), ("worse", comparison.worsened(show))):
        if changes:
            say(f"{title} with {second}:")
        for change in changes:
            say(f"  {change.difference:+.3f}  {change.before:.3f} -> {change.after:.3f}  {_label(change)}")


_VERDICTS = {"better": "better than", "worse": "worse than", "not decided": "not proved different from"}


def _label(change: QueryChange) -> str:
    return f"{change.id}  {shortened(change.text, TEXT_WIDTH)}"


def _show_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        say("  ".join(cells).rstrip())
