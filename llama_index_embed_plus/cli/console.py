"""What a person sees while something runs: progress bars, tables, one line per error.

Guarantees: stdout carries results only. Does not know: what the steps are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from qdrant_tools.records import Hit
from qdrant_tools.records import Progress as Advance

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class ConsoleReporter:
    """One line per step: a bar while it runs, its duration when it is done."""

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[Advance]:
        started = time.perf_counter()
        with _bar() as bar:
            task = bar.add_task(name, total=total)
            yield lambda done: bar.advance(task, done)
        err.print(f"[green]done[/] {name} [dim]{time.perf_counter() - started:.1f} s[/]")


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


def show_hits(question: str, hits: Sequence[Hit]) -> None:
    """Print a question and its hits: rank, score, id, the first line of text."""
    table = Table(title=question, title_justify="left", box=None, show_header=False, pad_edge=False)
    for column in ("rank", "score", "id"):
        table.add_column(column, justify="right" if column != "id" else "left", no_wrap=True)
    table.add_column("text", ratio=1, overflow="ellipsis", no_wrap=True)
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", hit.id, " ".join(hit.text.split()))
    out.print(table)
