"""What a person sees while something runs: progress bars, tables, one line per error.

Guarantees: stdout carries results only. Does not know: what the steps are.

Options that several commands share: where collections live, and which encoder. Imports nothing heavy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from qdrant_tools.records import Hit
from qdrant_tools.records import Progress as Advance

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: str, *, style: str | None = None) -> None:
    """Print one line as it is: no markup in it, and not wrapped, so that a pipe gets the line whole."""
    out.print(text, style=style, markup=False, soft_wrap=True)


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
        disable=not err.is_terminal,  # a log file gets one line per step
    )


def show_hits(question: str, hits: Sequence[Hit]) -> None:
    """Print a question and its hits, one line each: rank, score, id, and as much of the text as fits."""
    out.print(question, style="bold", markup=False)
    for hit in hits:
        text = " ".join(hit.text.removeprefix(hit.id).split())
        line = f"{hit.rank:>3}  {hit.score:.3f}  {hit.id}  {text}"
        out.print(line, markup=False, no_wrap=True, overflow="ellipsis")


Location = Annotated[
    str,
    typer.Option(
        envvar="EMBED_PLUS_LOCATION",
        help="Where collections live: a folder, a server URL (key from QDRANT_API_KEY), or ':memory:'.",
    ),
]
Model = Annotated[str, typer.Option(envvar="EMBED_PLUS_MODEL", help="A model name or folder.")]
Backend = Annotated[
    Literal["auto", "torch", "onnx", "onnx-fp32", "onnx-int8"],
    typer.Option(help="What computes the vectors; auto takes ONNX where there is one."),
]

DEFAULT_LOCATION = "embed-plus-data"
DEFAULT_MODEL = "all-MiniLM-L6-v2"
