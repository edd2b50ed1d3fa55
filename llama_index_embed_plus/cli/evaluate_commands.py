"""The body of `embed-plus evaluate`: read the files, measure one or two systems, print tables, write what is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.cli.console import ConsoleReporter, say
from llama_index_embed_plus.cli.evaluate_system import Opened, System
from llama_index_embed_plus.evaluate.compare import Comparison, QueryChange, compare
from llama_index_embed_plus.evaluate.files import read_qrels, read_queries, write_run, write_values
from llama_index_embed_plus.evaluate.report import RetrievalReport
from qdrant_tools.records import Qrels

TEXT_SHOWN = 70
"""Characters of a query's text in a list."""


@dataclass(frozen=True)
class Output:
    """At which cutoffs to measure, and what to print and write."""

    cutoffs: tuple[int, ...]
    seed: int
    show: int
    run: Path | None
    per_query: Path | None
    plot: Path | None
    as_json: bool


def evaluate_systems(files: tuple[Path, Path], system: System, other: System | None, output: Output) -> None:
    """Measure, compare, print and write. `files` are those of the queries and the judgements."""
    queries, qrels = read_queries(files[0]), read_qrels(files[1])
    reporter = ConsoleReporter()
    reports: list[RetrievalReport] = []
    with Opened() as opened:
        for each in (system, other):
            if each is not None:
                with reporter.step(f"measure {each.title}", None):
                    reports.append(opened.measure(each, queries, qrels, output.cutoffs))
    comparison = compare(*reports, seed=output.seed) if len(reports) == 2 else None
    written = _write(reports, comparison, qrels, output)
    if output.as_json:
        say(json.dumps(_row(reports, comparison, output.show), ensure_ascii=False))
        return
    _show_counts(reports)
    if comparison is None:
        _table([["", reports[0].name], *([name, f"{mean:.4f}"] for name, mean in reports[0].means().items())])
    else:
        _show_comparison(comparison, output.show)
    if written:
        say(f"wrote {', '.join(map(str, written))}")


def _write(
    reports: Sequence[RetrievalReport], comparison: Comparison | None, qrels: Qrels, output: Output
) -> list[Path]:
    written: list[Path] = []
    if output.run is not None:
        against = output.run.with_suffix(f".against{output.run.suffix}")
        for path, report in zip((output.run, against), reports):
            write_run(path, report.run)
            written.append(path)
    if output.per_query is not None:
        write_values(output.per_query, reports)
        written.append(output.per_query)
    if output.plot is not None:
        from llama_index_embed_plus.evaluate.plots_retrieval import (
            query_differences,
            score_histograms,
            scores_by_relevance,
        )

        if comparison is None:
            score_histograms(output.plot, *scores_by_relevance(reports[0].run, qrels), title=reports[0].name)
        else:
            query_differences(output.plot, comparison)
        written.append(output.plot)
    return written


def _row(reports: Sequence[RetrievalReport], comparison: Comparison | None, show: int) -> dict[str, Any]:
    row: dict[str, Any] = {"systems": [report.as_row() for report in reports]}
    if comparison is not None:
        row["comparison"] = comparison.as_row(queries=show)
    return row


def _show_counts(reports: Sequence[RetrievalReport]) -> None:
    say(f"{reports[0].coverage.queries} queries measured")
    told = [report.coverage.notes() for report in reports]
    for note in dict.fromkeys(note for notes in told for note in notes):
        where = [report.name for report, notes in zip(reports, told) if note in notes]
        say(f"  {note}" if len(where) == len(reports) else f"  {note} ({where[0]})")


def _show_comparison(found: Comparison, show: int) -> None:
    first, second = found.names
    rows = [["", first, second, "difference", "95 % interval", "p", "better", "worse", "same"]]
    for name, test in found.tests.items():
        interval = f"{test.low:+.4f} to {test.high:+.4f}"
        means = [f"{test.before:.4f}", f"{test.after:.4f}", f"{test.difference:+.4f}", interval, f"{test.p_value:.4f}"]
        rows.append([name, *means, str(test.better), str(test.worse), str(test.same)])
    _table(rows)
    say(f"by {found.metric}, {second} is {_VERDICTS[found.verdict()]} {first}")
    for title, changes in (("better", found.improved(show)), ("worse", found.worsened(show))):
        if changes:
            say(f"{title} with {second}:")
        for change in changes:
            say(f"  {change.difference:+.3f}  {change.before:.3f} -> {change.after:.3f}  {_named(change)}")


_VERDICTS = {"better": "better than", "worse": "worse than", "not decided": "not proved different from"}


def _named(change: QueryChange) -> str:
    text = " ".join(change.text.split())
    return f"{change.query}  {text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 3] + '...'}"


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        say("  ".join(cells).rstrip())
